"""Mappings of senders that are met often: what an admin starts from (``webapp.leads.mapping``)."""

from dataclasses import dataclass
from typing import Any

from webapp.leads.paths import compiled
from webapp.leads.states import Verification


@dataclass(frozen=True, slots=True)
class Preset:
    """``verification``: how this sender usually proves itself, with the header (or path) and the prefix. ``sign``: an
    expression that finds something in this sender's bodies and in no other's."""

    name: str
    title: str
    mapping: dict[str, str]
    verification: Verification = Verification.NONE
    header: str = ""
    prefix: str = ""
    sign: str = ""
    hint: str = ""


def _any_of(*paths: str) -> str:
    return " | ".join(paths)


_ANSWER = "form_response.answers[?@.{where}=='{what}'].{kind}"


def _answer(where: str, what: str, kind: str) -> str:
    return _ANSWER.format(where=where, what=what, kind=kind)


def _google(column: str) -> str:
    return f"user_column_data[?@.column_id=='{column}'].string_value"


_GOOGLE_COLUMNS = (
    "FULL_NAME", "FIRST_NAME", "LAST_NAME", "EMAIL", "WORK_EMAIL", "PHONE_NUMBER", "WORK_PHONE", "COMPANY_NAME",
    "JOB_TITLE", "CITY", "REGION", "COUNTRY", "POSTAL_CODE", "STREET_ADDRESS",
)  # fmt: skip
#: What no column of Google's own holds are the answers to the form's own questions.
_GOOGLE_QUESTIONS = "user_column_data[?{}].string_value".format(
    " && ".join(f"@.column_id!='{column}'" for column in _GOOGLE_COLUMNS)
)


def _hubspot(*names: str) -> str:
    """A form's field, or a contact's property in either of its shapes."""
    return _any_of(
        *(
            path
            for name in names
            for path in (f"fields[?@.name=='{name}'].value", f"properties.{name}.value", f"properties.{name}")
        )
    )


def _webflow(*names: str) -> str:
    """A form's field by its name in the designer; ``payload`` is there in version 2."""
    return _any_of(*(f"payload.data['{name}']" for name in names), *(f"data['{name}']" for name in names))


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "plain",
            "Plain JSON or a form",
            {
                "message": _any_of("message", "note", "text", "comments", "body"),
                "name": _any_of("name", "full_name", "first_name + last_name"),
                "email": _any_of("email", "Email", "EMAIL", "e-mail", "mail", "email_address"),
                "phone": _any_of("phone", "Phone", "PHONE", "mobile", "tel", "phone_number"),
                "company": _any_of("company", "company_name", "organization"),
                "budget": "budget",
                "consent": "consent",
                "consent_at": "consent_at",
                "dedupe": _any_of("submission_id", "event_id"),
            }
            | {
                name: name
                for name in (
                    "utm_source",
                    "utm_medium",
                    "utm_campaign",
                    "utm_term",
                    "utm_content",
                    "gclid",
                    "fbclid",
                    "landing_page",
                    "referrer",
                )
            },
            sign=_any_of("email", "Email", "EMAIL", "e-mail", "mail", "email_address", "phone", "message", "note"),
            hint="Fields of the usual names: email, phone, name, message, company, budget.",
        ),
        Preset(
            "typeform",
            "Typeform",
            {
                "message": _any_of(_answer("field.ref", "message", "text"), _answer("field.type", "long_text", "text")),
                "name": _any_of(
                    _answer("field.ref", "name", "text"),
                    f"{_answer('field.ref', 'first_name', 'text')} + {_answer('field.ref', 'last_name', 'text')}",
                    "form_response.hidden.name",
                ),
                "email": _any_of(_answer("type", "email", "email"), "form_response.hidden.email"),
                "phone": _any_of(_answer("type", "phone_number", "phone_number"), "form_response.hidden.phone"),
                "company": _any_of(_answer("field.ref", "company", "text"), "form_response.hidden.company"),
                "budget": _any_of(_answer("field.ref", "budget", "number")),
                "consent": _answer("field.type", "legal", "boolean"),
                "dedupe": _any_of("form_response.token", "event_id"),
            }
            | {
                name: f"form_response.hidden.{name}"
                for name in ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid")
            },
            Verification.HMAC,
            "Typeform-Signature",
            "sha256=",
            sign="form_response.token",
            hint="Answers by their type; name, company and message by their reference in the form.",
        ),
        Preset(
            "google",
            "Google Ads lead form",
            {
                "message": _GOOGLE_QUESTIONS,
                "name": _any_of(_google("FULL_NAME"), f"{_google('FIRST_NAME')} + {_google('LAST_NAME')}"),
                "email": _any_of(_google("EMAIL"), _google("WORK_EMAIL")),
                "phone": _any_of(_google("PHONE_NUMBER"), _google("WORK_PHONE")),
                "company": _google("COMPANY_NAME"),
                "job_title": _google("JOB_TITLE"),
                "country": _google("COUNTRY"),
                "city": _google("CITY"),
                "dedupe": "lead_id",
                "test": "is_test",
                "utm_campaign": "campaign_id",
                "gclid": "gcl_id",
            },
            Verification.BODY,
            "google_key",
            sign="user_column_data[*].column_id",
            hint="Google’s own columns; answers to your own questions become the message.",
        ),
        Preset(
            "hubspot",
            "HubSpot form",
            {
                "message": _hubspot("message", "comments"),
                "name": f"{_hubspot('firstname').split(' | ')[0]} + {_hubspot('lastname').split(' | ')[0]}"
                " | properties.firstname.value + properties.lastname.value"
                " | properties.firstname + properties.lastname",
                "email": _hubspot("email"),
                "phone": _hubspot("phone", "mobilephone"),
                "company": _hubspot("company"),
                "job_title": _hubspot("jobtitle"),
                "country": _hubspot("country"),
                "city": _hubspot("city"),
                "dedupe": _any_of("conversionId", "['form-submissions'][0]['conversion-id']"),
                "landing_page": _any_of("context.pageUri", "['form-submissions'][0]['page-url']"),
            },
            Verification.HUBSPOT,
            sign=_any_of("conversionId", "fields[*].name", "properties.email.value", "properties.email"),
            hint="A form’s fields, or the contact that a workflow sends.",
        ),
        Preset(
            "webflow",
            "Webflow form",
            {
                "message": _webflow("Message", "message", "Comments", "Field"),
                "name": _any_of(
                    _webflow("Name", "name", "Full Name"),
                    "payload.data['First Name'] + payload.data['Last Name']",
                    "data['First Name'] + data['Last Name']",
                ),
                "email": _webflow("Email", "email", "Email Address", "E-mail"),
                "phone": _webflow("Phone", "phone", "Phone Number"),
                "company": _webflow("Company", "company", "Company Name"),
                "dedupe": _any_of("payload.id", "_id"),
            },
            Verification.WEBFLOW,
            sign=_any_of("payload.formElementId", "payload.formId", "triggerType"),
            hint="Fields by their names in the designer.",
        ),
    )
}


def suggested(sample: Any) -> Preset | None:
    """The preset whose sender this body seems to be from; the plain one last, as its names are anybody's."""
    if not isinstance(sample, dict):
        return None
    for preset in sorted(PRESETS.values(), key=lambda one: one.name == "plain"):
        if preset.sign and compiled(preset.sign).find(sample).text is not None:
            return preset
    return None

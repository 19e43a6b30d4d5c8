"""HubSpot: a contact, a follow-up task for them, and if you like a note."""

import re

from webapp.leads.kinds.base import Field, Guarantee, Kind, Mapped, Step, Unknown
from webapp.leads.kinds.twenty import NOTE, PERSON, TASK
from webapp.leads.states import DestinationKind

API = "https://api.hubapi.com"


def _property_problem(text: str) -> str | None:
    return None if re.fullmatch(r"[a-z][a-z0-9_]{0,99}", text) else "must be the property's internal name: a-z, 0-9, _"


KIND = Kind(
    kind=DestinationKind.HUBSPOT,
    label="HubSpot",
    about="A contact, a follow-up task for them, and if you like a note with the verdict.",
    fields=(
        Field(
            "token",
            "Access token",
            secret=True,
            help="pat-…, of a private app with crm.objects.contacts.read and .write; crm.objects.owners.read to give tasks "
            "to people",
        ),
        Field(
            "id_property",
            "Contact property for people without an e-mail",
            required=False,
            check=_property_problem,
            help="Internal name of a single-line text property of yours with “require unique values”. Without it, people "
            "without an e-mail go there only if HubSpot knows their number.",
        ),
        Field("notes", "Write a note with the verdict", "switch", required=False),
        Field("url", "Address of the API", "url", "Another one only for a proxy.", default=API),
    ),
    steps=(
        Step(PERSON, 0, "contact", updates=True),
        Step(TASK, 1, "follow-up task", updates=True, withdraws=True),
        Step(NOTE, 2, "note with the verdict", switch="notes", updates=True),
    ),
    unknown=Unknown.ASKS,
    guarantees=(
        Guarantee(
            "contact with an e-mail", "at most one record", "changed by e-mail, else made; HubSpot takes an e-mail once"
        ),
        Guarantee(
            "contact without an e-mail",
            "at most one record per number, author on a platform or lead",
            "upsert, matched by your unique property; without one nobody is made, and a contact that HubSpot's search finds "
            "under the number is used",
        ),
        Guarantee(
            "follow-up task, note",
            "at most one record, as far as the contact's tasks and notes can be read and nobody removed the mark",
            "made together with its link to the contact; its text carries the delivery's id, which is looked for among what "
            "is linked to the contact before it is sent again",
        ),
    ),
    mapping=(
        Mapped("firstname", "First name", "first_name"),
        Mapped("lastname", "Last name", "last_name"),
        Mapped("jobtitle", "Job title", "job_title"),
        Mapped("company", "Company", "company | facts.company_name"),
        Mapped("city", "City", "city"),
        Mapped("website", "Website", "facts.company_domain"),
        Mapped("lifecyclestage", "Lifecycle stage", '"lead"'),
        Mapped("task.title", "Task: title", "📞 Sales Follow-up — {display_name}", needed=True),
    ),
    open_fields=True,
    # 100 calls in ten seconds, what a private app of the smallest edition has.
    per_second=10,
)

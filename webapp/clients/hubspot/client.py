"""The steps of a lead at HubSpot: the contact, the follow-up task, the note."""

import html
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import phonenumbers

from webapp.clients.crm import (
    DUE_IN,
    Assignees,
    as_html,
    canonical_email,
    iso,
    mark,
    person_id,
    person_of,
    task_markdown,
    verdict_markdown,
    withdrawn_title,
)
from webapp.clients.http import Answer, HttpClient
from webapp.clients.hubspot.wire import Wire, id_of, refusal, results
from webapp.leads.errors import Permanent
from webapp.leads.ports import (
    DeliveryRequest,
    Exchange,
    LeadSnapshot,
    OutcomeUnknown,
    Receipt,
    Refused,
    Unreached,
)
from webapp.leads.states import DeliveryOperation, NextAction, Priority
from webapp.leads.task_template import one_line

_OBJECTS = "/crm/v3/objects"
_LINKS, _MAX_PAGES, _BATCH = 500, 10, 100
#: Mapped fields that are not the contact's.
_OF_OTHERS = "task."
_PRIORITIES = {Priority.P0: "HIGH", Priority.P1: "HIGH", Priority.P2: "MEDIUM", Priority.P3: "LOW"}
_TYPES = {NextAction.CALL: "CALL", NextAction.EMAIL: "EMAIL"}


@dataclass(frozen=True, slots=True)
class _Activity:
    """``link``: HubSpot's type of its association with a contact. ``text``: the property that carries the mark."""

    plural: str
    link: int
    text: str


_ACTIVITIES = {"task": _Activity("tasks", 204, "hs_task_body"), "note": _Activity("notes", 202, "hs_note_body")}


class HubspotClient:
    """``send`` handles the actions of webapp.leads.kinds.hubspot."""

    reconciles = True

    def __init__(
        self, http: HttpClient, *, id_property: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``id_property``: a contact property with unique values for people without an e-mail."""
        self._call = Wire(http).call
        self._id_property = id_property
        self._owners = Assignees(self._read_owner, clock)

    def send(self, request: DeliveryRequest) -> Receipt:
        if request.action == "person":
            return self._contact(request)
        if request.action not in _ACTIVITIES:
            raise Permanent(f"HubSpot knows no action {request.action!r}")
        known = request.remote.get(request.action)
        if not known and request.operation is not DeliveryOperation.SEND:
            known = self._find(request)  # its answer may have been lost
        if known:
            return self._change(request, _ACTIVITIES[request.action].plural, known, self.render(request))
        return Receipt() if request.withdrawn else self._make(request)

    def reconcile(self, request: DeliveryRequest) -> Receipt | None:
        """A contact needs none: the upsert is idempotent."""
        found = self._find(request) if request.action in _ACTIVITIES else None
        return Receipt(found) if found else None

    def render(self, request: DeliveryRequest) -> dict[str, Any]:
        """The properties, as every other call wraps them."""
        if request.action == "person":
            return contact_properties(request.lead, request.fields)
        if request.action == "note":
            return {
                "hs_timestamp": iso(request.lead.event_at),
                "hs_note_body": _marked(request, verdict_markdown(request.lead)),
            }
        if request.withdrawn:
            return {"hs_task_status": "COMPLETED", "hs_task_subject": withdrawn_title(request.lead)}
        properties = _task_properties(request)
        if request.operation is DeliveryOperation.UPDATE:
            del properties["hs_task_status"]  # a colleague's
        return properties

    def probe(self) -> str:
        """Reads one contact, one task, the owners where the token may, and what kind of property the customer's is."""
        for plural in ("contacts", "tasks"):
            self._call("GET", f"{_OBJECTS}/{plural}", params={"limit": "1"})
        said = ["HubSpot knows the token."]
        if self._id_property:
            said.append(self._check_property(self._id_property))
        else:
            said.append("People without an e-mail go there only if HubSpot knows their number.")
        if self._call("GET", "/crm/v3/owners", params={"limit": "1"}, accept=frozenset({403})).status == 403:
            said.append("It may not read owners, so tasks stay unassigned.")
        return " ".join(said)

    def _check_property(self, name: str) -> str:
        answer = self._call("GET", f"/crm/v3/properties/contacts/{name}", accept=frozenset({403, 404}))
        if answer.status == 403:
            return f"It may not read properties, so {name} is not checked."
        if answer.status == 404:
            raise Permanent(f"HubSpot has no contact property {name}")
        if not isinstance(answer.data, dict) or not answer.data.get("hasUniqueValue"):
            raise Permanent(f"the contact property {name} does not require unique values")
        return f"People without an e-mail are told apart by {name}."

    # The contact

    def _contact(self, request: DeliveryRequest) -> Receipt:
        lead, properties = request.lead, self.render(request)
        known = request.remote.get("person")
        if known and request.operation is not DeliveryOperation.SEND:
            return self._change(request, "contacts", known, _without_email(properties))
        if lead.email:
            return self._by_email(properties)
        key, mine = str(person_id(lead)), {}
        if self._id_property:
            if self._is_there(key):
                return self._upsert(request, self._id_property, key, properties)
            mine = {self._id_property: key}
        if (found := self._by_phone(lead)) is not None:
            return self._change(request, "contacts", found, _without_email(properties) | mine)
        if self._id_property:
            return self._upsert(request, self._id_property, key, properties | mine)
        raise Refused(
            "this lead has no e-mail, and HubSpot knows nobody under its number; enter an e-mail, or name a contact "
            "property with unique values in the destination's settings",
            exchange=Exchange(payload=properties),
        )

    def _by_email(self, properties: dict[str, Any]) -> Receipt:
        """Changed where it is there, else made; whoever makes it first, HubSpot takes an e-mail once. A batch upsert by
        e-mail would have to name all of a contact's properties."""
        answer = self._patch(properties)
        if answer.status == 404:
            made = self._call(
                "POST",
                f"{_OBJECTS}/contacts",
                json_body={"properties": properties},
                shown=dict(properties),
                accept=frozenset({409}),
            )
            if made.status != 409:
                return Receipt(id_of(made.data, made), made.exchange)
            answer = self._patch(properties)  # it has been made since
        if answer.status == 404:
            raise Unreached("HubSpot has the contact, and does not find it yet", exchange=answer.exchange)
        return Receipt(id_of(answer.data, answer), answer.exchange)

    def _patch(self, properties: dict[str, Any]) -> Answer:
        """Of the contact with the e-mail, which may be a second one of theirs and so is left as it is."""
        path, rest = f"{_OBJECTS}/contacts/{quote(properties['email'], safe='')}", _without_email(properties)
        params, missing = {"idProperty": "email"}, frozenset({404})
        if not rest:  # HubSpot refuses a change of nothing
            return self._call("GET", path, params=params, accept=missing)
        return self._call(
            "PATCH", path, params=params, json_body={"properties": rest}, shown=dict(rest), accept=missing
        )

    def _upsert(self, request: DeliveryRequest, name: str, value: str, properties: dict[str, Any]) -> Receipt:
        one = {
            "idProperty": name,
            "id": value,
            "objectWriteTraceId": str(request.delivery_id),
            "properties": properties,
        }
        answer = self._call(
            "POST", f"{_OBJECTS}/contacts/batch/upsert", json_body={"inputs": [one]}, shown=dict(properties)
        )
        # 207: of a batch of one, nothing was done.
        for error in answer.data.get("errors") or ():
            raise refusal(answer, error if isinstance(error, dict) else {}, by_our_key="email" not in properties)
        found = answer.data.get("results")
        if not isinstance(found, list) or len(found) != 1:
            raise OutcomeUnknown("answered without the contact", exchange=answer.exchange)
        return Receipt(id_of(found[0], answer), answer.exchange)

    def _is_there(self, key: str) -> bool:
        params = {"idProperty": str(self._id_property)}
        return self._call("GET", f"{_OBJECTS}/contacts/{key}", params=params, accept=frozenset({404})).status == 200

    def _by_phone(self, lead: LeadSnapshot) -> str | None:
        """The contact that HubSpot's search finds under the lead's number, oldest first. Its properties for searching
        hold numbers without a country's code, so that what was found is compared."""
        if not lead.phone_e164:
            return None
        try:
            number = phonenumbers.parse(lead.phone_e164)
        except phonenumbers.NumberParseException:
            return None
        national = phonenumbers.national_significant_number(number)
        searched = {
            "hs_searchable_calculated_phone_number": national,
            "hs_searchable_calculated_mobile_number": national,
            "phone": lead.phone_e164,
        }
        body = {
            "filterGroups": [
                {"filters": [{"propertyName": name, "operator": "EQ", "value": value}]}
                for name, value in searched.items()
            ],
            "properties": ["phone", "mobilephone"],
            "sorts": [{"propertyName": "createdate", "direction": "ASCENDING"}],
            "limit": 20,
        }
        answer = self._call("POST", f"{_OBJECTS}/contacts/search", json_body=body, reads=True)
        for contact in results(answer):
            theirs = contact.get("properties") or {}
            if any(_same_number(theirs.get(name), number) for name in ("phone", "mobilephone")):
                return id_of(contact, answer)
        return None

    # Tasks and notes

    def _make(self, request: DeliveryRequest) -> Receipt:
        activity, properties = _ACTIVITIES[request.action], self.render(request)
        if request.action == "task" and (owner := self._owners.id_of(request.lead.assignee_email)):
            properties["hubspot_owner_id"] = owner
        link = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": activity.link}
        body = {"properties": properties, "associations": [{"to": {"id": person_of(request)}, "types": [link]}]}
        answer = self._call("POST", f"{_OBJECTS}/{activity.plural}", json_body=body, shown=body)
        return Receipt(id_of(answer.data, answer), answer.exchange)

    def _change(self, request: DeliveryRequest, plural: str, record_id: str, properties: dict[str, Any]) -> Receipt:
        """Harmless to repeat. Permanent when somebody has deleted it since; then taking back is done."""
        answer = self._call(
            "PATCH" if properties else "GET",
            f"{_OBJECTS}/{plural}/{record_id}",
            json_body={"properties": properties} if properties else None,
            shown=dict(properties),
            accept=frozenset({404}),
        )
        if answer.status == 404:
            if request.withdrawn:
                return Receipt(record_id, answer.exchange)
            what = "contact" if request.action == "person" else request.action
            raise Refused(f"the {what} is not in HubSpot any more", exchange=answer.exchange)
        return Receipt(id_of(answer.data, answer), answer.exchange)

    def _find(self, request: DeliveryRequest) -> str | None:
        """What carries the delivery's mark among what is linked to its contact, newest first."""
        activity = _ACTIVITIES[request.action]
        linked = sorted(
            self._linked(person_of(request), activity.plural), key=lambda one: (len(one), one), reverse=True
        )
        for start in range(0, len(linked), _BATCH):
            body = {
                "inputs": [{"id": one} for one in linked[start : start + _BATCH]],
                "properties": [activity.text],
            }
            answer = self._call("POST", f"{_OBJECTS}/{activity.plural}/batch/read", json_body=body, reads=True)
            for record in results(answer):
                if mark(request) in str((record.get("properties") or {}).get(activity.text) or ""):
                    return id_of(record, answer)
        return None

    def _linked(self, contact: str, plural: str) -> Iterator[str]:
        after: str | None = None
        for _ in range(_MAX_PAGES):
            answer = self._call(
                "GET",
                f"/crm/v4/objects/contacts/{contact}/associations/{plural}",
                params={"limit": str(_LINKS)} | ({"after": after} if after else {}),
                accept=frozenset({404}),
            )
            if answer.status == 404:
                return  # the contact was deleted, and its links with it
            yield from (str(one["toObjectId"]) for one in results(answer) if one.get("toObjectId"))
            following = ((answer.data.get("paging") or {}).get("next") or {}).get("after")
            if not following or following == after:
                return
            after = str(following)
        raise Unreached(f"the contact has too many {plural} to be looked through", exchange=answer.exchange)

    def _read_owner(self, email: str) -> str | None:
        """None when there is none, or the token may not read owners."""
        params = {"email": email, "limit": "1"}
        answer = self._call("GET", "/crm/v3/owners", params=params, accept=frozenset({403}))
        if answer.status == 403:
            return None
        found = results(answer)
        return str(found[0]["id"]) if found and found[0].get("id") else None


def _same_number(text: Any, number: phonenumbers.PhoneNumber) -> bool:
    try:
        theirs = phonenumbers.parse(str(text or ""), phonenumbers.region_code_for_number(number))
    except phonenumbers.NumberParseException:
        return False
    same = (theirs.country_code, theirs.national_number) == (number.country_code, number.national_number)
    return bool(same)


def contact_properties(lead: LeadSnapshot, fields: Mapping[str, str]) -> dict[str, Any]:
    """Only what we know: an upsert overwrites whatever it is sent. ``fields``: as mapped. E-mail and phone, by which
    people are told apart, are the lead's own."""
    properties: dict[str, Any] = {name: text for name, text in fields.items() if not name.startswith(_OF_OTHERS)}
    if lead.email:
        properties["email"] = canonical_email(lead.email)
    if phone := lead.phone_e164 or lead.phone:
        properties["phone"] = phone
    return properties


def _without_email(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Of a contact that is known: its e-mail may have been put right there, or belong to somebody else by now."""
    return {name: value for name, value in properties.items() if name != "email"}


def _task_properties(request: DeliveryRequest) -> dict[str, Any]:
    lead = request.lead
    return {
        "hs_timestamp": iso(lead.event_at + DUE_IN[lead.priority]),  # when it is due
        "hs_task_subject": one_line(request.fields.get("task.title") or lead.display_name),
        "hs_task_body": _marked(request, lead.task_text or task_markdown(lead)),
        "hs_task_status": "NOT_STARTED",
        "hs_task_priority": _PRIORITIES[lead.priority],
        "hs_task_type": _TYPES.get(lead.next_action, "TODO"),
    }


def _marked(request: DeliveryRequest, markdown: str) -> str:
    """As HTML, with a link to the lead and the mark by which it is found again."""
    link = f'<p><a href="{html.escape(request.lead.url)}">The lead in the console</a></p>' if request.lead.url else ""
    return f"{as_html(markdown)}{link}<p>{mark(request)}</p>"

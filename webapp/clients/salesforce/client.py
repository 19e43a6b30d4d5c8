"""The steps of a lead at Salesforce: the lead, the follow-up task."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from webapp.clients.crm import (
    DUE_IN,
    Assignees,
    as_text,
    canonical_email,
    mark,
    person_key,
    person_of,
    task_markdown,
    withdrawn_title,
)
from webapp.clients.http import Answer
from webapp.clients.salesforce.access import Login
from webapp.clients.salesforce.wire import Wire, code_of, no_such_field, refusal
from webapp.leads.errors import Permanent
from webapp.leads.ports import DeliveryRequest, LeadSnapshot, OutcomeUnknown, Receipt, Refused, Unreached
from webapp.leads.states import DeliveryOperation, Priority
from webapp.leads.task_template import one_line

#: Bytes of what Salesforce tells of an object: hundreds of fields with their choices.
_MAX_DESCRIPTION = 16 * 1_048_576
#: As many of a lead's tasks are looked through for a mark, the newest ones.
_MAX_TASKS = 200
#: Mapped fields that are not the lead's.
_OF_OTHERS = "task."
#: Characters that Salesforce's own fields take.
_LENGTHS = {
    "FirstName": 40, "LastName": 80, "Company": 255, "Title": 128, "City": 40, "Phone": 40, "Website": 255,
    "LeadSource": 255, "Subject": 255, "Description": 32_000,
}  # fmt: skip
_PRIORITIES = {Priority.P0: "High", Priority.P1: "High", Priority.P2: "Normal", Priority.P3: "Low"}
_CONVERTED = "CANNOT_UPDATE_CONVERTED_LEAD"
#: What records of contacts begin with.
_CONTACT = "003"


class SalesforceClient:
    """``send`` handles the actions of webapp.leads.kinds.salesforce. ``lead_field``, ``task_field``: external ids."""

    reconciles = True

    def __init__(
        self,
        login: Login,
        *,
        lead_field: str,
        task_field: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call = Wire(login).call
        self._lead_field = lead_field
        self._task_field = task_field
        self._users = Assignees(self._read_user, clock)

    def send(self, request: DeliveryRequest) -> Receipt:
        if request.action == "person":
            return self._lead(request)
        if request.action != "task":
            raise Permanent(f"Salesforce knows no action {request.action!r}")
        known = request.remote.get("task")
        if not known and request.operation is not DeliveryOperation.SEND:
            known = self._find(request)  # its answer may have been lost
        if known:
            return self._change(request, "Task", known, self.render(request))
        return Receipt() if request.withdrawn else self._make(request)

    def reconcile(self, request: DeliveryRequest) -> Receipt | None:
        """A lead needs none: the upsert is idempotent."""
        found = self._find(request) if request.action == "task" else None
        return Receipt(found) if found else None

    def render(self, request: DeliveryRequest) -> dict[str, Any]:
        if request.action == "person":
            return lead_body(request.lead, request.fields)
        if request.withdrawn:
            return {"Status": "Completed", "Subject": _cut("Subject", withdrawn_title(request.lead))}
        fields = _task_body(request)
        if request.operation is DeliveryOperation.UPDATE:
            del fields["Status"]  # a colleague's
        return fields

    def probe(self) -> str:
        """Logs in, and reads what Salesforce tells of the two objects: the external ids have to be there and unique."""
        self._check_field("Lead", "Lead", self._lead_field)
        if self._task_field:
            self._check_field("Task", "Activity", self._task_field)
        by = "" if self._task_field else " Tasks are found again by a mark in their comments."
        if self._may_read_users():
            return f"Salesforce lets us in, and its fields are there.{by}"
        return f"Salesforce lets us in, and its fields are there. It may not read users, so tasks stay its own.{by}"

    def _check_field(self, name: str, where: str, field: str) -> None:
        answer = self._call("GET", f"/sobjects/{name}/describe", accept=frozenset({404}), max_body=_MAX_DESCRIPTION)
        if answer.status == 404:
            raise Permanent(f"the user may not see {name}s")
        fields = answer.data.get("fields")
        if not isinstance(fields, list):
            raise Unreached(f"answered without the fields of {name}", exchange=answer.exchange)
        found = next((one for one in fields if str(one.get("name")).lower() == field.lower()), None)
        if found is None:
            raise Permanent(f"{where} has no external id {field} that the user may see")
        if not found.get("externalId"):
            raise Permanent(f"the field {field} on {where} is no external id: tick “External ID” in its settings there")
        if not found.get("unique"):
            raise Permanent(
                f"the field {field} on {where} may hold the same value twice: tick “Unique” in its settings there, or "
                "two records of one lead can be made"
            )

    # The lead

    def _lead(self, request: DeliveryRequest) -> Receipt:
        body = self.render(request)
        known = request.remote.get("person")
        if known and request.operation is not DeliveryOperation.SEND:
            if known.startswith(_CONTACT):
                return Receipt(known)  # their contact by now, which is not ours to change
            return self._change(request, "Lead", known, body)
        path = f"/sobjects/Lead/{self._lead_field}/{person_key(request.lead)}"
        answer = self._call("PATCH", path, json_body=body, accept=frozenset({400}))
        if code_of(answer) == "REQUIRED_FIELD_MISSING":
            # Only a new one needs them, so that nobody's name is written over.
            answer = self._call("PATCH", path, json_body=_completed(body, request.lead), accept=frozenset({400}))
        return self._saved(answer, path)

    def _saved(self, answer: Answer, path: str) -> Receipt:
        """The lead, or what became of it."""
        if code_of(answer) == _CONVERTED:
            return Receipt(self._contact_of(path), answer.exchange)
        if answer.status == 400:
            raise refusal(answer, upsert_by=(self._lead_field,))
        if answer.status == 204:  # an older version of the API
            answer = self._call("GET", path, params={"fields": "Id"})
            return Receipt(_id_of(answer, "Id"), answer.exchange)
        return Receipt(_id_of(answer, "id"), answer.exchange)

    def _contact_of(self, path: str) -> str:
        """Of a lead that was converted."""
        answer = self._call("GET", path, params={"fields": "Id,ConvertedContactId"})
        contact = answer.data.get("ConvertedContactId")
        if not isinstance(contact, str) or not contact:
            raise Refused("the lead was converted there, and has no contact", exchange=answer.exchange)
        return contact

    # The task

    def _make(self, request: DeliveryRequest) -> Receipt:
        body = self.render(request) | {"WhoId": person_of(request)}
        if owner := self._users.id_of(request.lead.assignee_email):
            body["OwnerId"] = owner
        answer = self._write_task(request, body)
        if code_of(answer) == _CONVERTED:  # since the step before
            body["WhoId"] = self._contact_of(f"/sobjects/Lead/{body['WhoId']}")
            if (made := self._find_at(request, body["WhoId"])) is not None:
                return Receipt(made, answer.exchange)  # an earlier one, whose answer was lost, went along
            answer = self._write_task(request, body)
        if answer.status == 400:
            raise refusal(answer, upsert_by=(self._task_field,) if self._task_field else ())
        if answer.status == 204:
            found = self._find(request)
            if found is None:
                raise OutcomeUnknown("answered without the task", exchange=answer.exchange)
            return Receipt(found, answer.exchange)
        return Receipt(_id_of(answer, "id"), answer.exchange)

    def _write_task(self, request: DeliveryRequest, body: dict[str, Any]) -> Answer:
        if self._task_field:
            path = f"/sobjects/Task/{self._task_field}/{request.delivery_id}"
            return self._call("PATCH", path, json_body=body, accept=frozenset({400}))
        return self._call("POST", "/sobjects/Task", json_body=body, accept=frozenset({400}))

    def _find(self, request: DeliveryRequest) -> str | None:
        """The task of this delivery. When a lead is converted, its tasks become its contact's."""
        person = person_of(request)
        found = self._find_at(request, person)
        if found is None and not self._task_field and not person.startswith(_CONTACT):
            answer = self._call(
                "GET", f"/sobjects/Lead/{person}", params={"fields": "Id,ConvertedContactId"}, accept=frozenset({404})
            )
            contact = answer.data.get("ConvertedContactId") if answer.status == 200 else None
            found = self._find_at(request, str(contact)) if contact else None
        return found

    def _find_at(self, request: DeliveryRequest, person: str) -> str | None:
        """By the external id, else by its mark among the tasks of ``person``, a lead or a contact."""
        if self._task_field:
            path = f"/sobjects/Task/{self._task_field}/{request.delivery_id}"
            answer = self._call("GET", path, params={"fields": "Id"}, accept=frozenset({404}))
            if no_such_field(answer):
                raise refusal(answer)
            return None if answer.status == 404 else _id_of(answer, "Id")
        who = _quoted(person)
        query = f"SELECT Id, Description FROM Task WHERE WhoId = {who} ORDER BY CreatedDate DESC LIMIT {_MAX_TASKS}"
        for task in self._query(query):
            if mark(request) in str(task.get("Description") or ""):
                return str(task["Id"])
        return None

    def _change(self, request: DeliveryRequest, name: str, record_id: str, body: dict[str, Any]) -> Receipt:
        """Harmless to repeat. Permanent when somebody has deleted it since; then taking back is done."""
        answer = self._call("PATCH", f"/sobjects/{name}/{record_id}", json_body=body, accept=frozenset({400, 404}))
        if answer.status == 404 or code_of(answer) == "ENTITY_IS_DELETED":
            if request.withdrawn:
                return Receipt(record_id, answer.exchange)
            raise Refused(f"the {name.lower()} is not in Salesforce any more", exchange=answer.exchange)
        if code_of(answer) == _CONVERTED and name == "Lead":
            return Receipt(self._contact_of(f"/sobjects/Lead/{record_id}"), answer.exchange)
        if answer.status == 400:
            raise refusal(answer)
        if answer.status != 204 and not (isinstance(answer.data, dict) and answer.data.get("success")):
            raise OutcomeUnknown("answered something that is not Salesforce's", exchange=answer.exchange)
        return Receipt(record_id, answer.exchange)

    # Users

    def _read_user(self, email: str) -> str | None:
        """The active user with this e-mail; None when there is none, or we may not read users."""
        found = self._read_users(f"IsActive = true AND Email = {_quoted(email)}") or []
        return str(found[0]["Id"]) if found and found[0].get("Id") else None

    def _may_read_users(self) -> bool:
        return self._read_users("IsActive = true") is not None

    def _read_users(self, where: str) -> list[dict[str, Any]] | None:
        """At most one; None when we may not read users."""
        try:
            return self._query(f"SELECT Id FROM User WHERE {where} LIMIT 1")
        except Refused as error:
            if error.exchange.http_status in (400, 403):
                return None
            raise

    def _query(self, soql: str) -> list[dict[str, Any]]:
        answer = self._call("GET", "/query", params={"q": soql})
        found = answer.data.get("records")
        if not isinstance(found, list):
            raise Unreached("answered without records", exchange=answer.exchange)
        return [one for one in found if isinstance(one, dict)]


def lead_body(lead: LeadSnapshot, fields: Mapping[str, str]) -> dict[str, Any]:
    """Only what we know: an upsert overwrites whatever it is sent. ``fields``: as mapped. E-mail and phone are the
    lead's own."""
    body: dict[str, Any] = {
        name: _cut(name, one_line(text) if name in _LENGTHS and name != "Description" else text)
        for name, text in fields.items()
        if not name.startswith(_OF_OTHERS)
    }
    if lead.email:
        body["Email"] = canonical_email(lead.email)
    if phone := lead.phone_e164 or lead.phone:
        body["Phone"] = _cut("Phone", phone)
    return body


def _completed(body: dict[str, Any], lead: LeadSnapshot) -> dict[str, Any]:
    """With something in what Salesforce insists on. Somebody with one name has it as their last one."""
    whole = dict(body)
    if "LastName" not in whole:
        whole["LastName"] = _cut("LastName", str(whole.pop("FirstName", None) or one_line(lead.display_name)))
    return {"Company": "[not provided]"} | whole


def _task_body(request: DeliveryRequest) -> dict[str, Any]:
    lead = request.lead
    link = f"\n\n{lead.url}" if lead.url else ""
    text = _cut("Description", as_text(lead.task_text or task_markdown(lead)), 31_000)
    return {
        "Subject": _cut("Subject", one_line(request.fields.get("task.title") or lead.display_name)),
        "Status": "Not Started",
        "Priority": _PRIORITIES[lead.priority],
        "ActivityDate": (lead.event_at + DUE_IN[lead.priority]).date().isoformat(),
        "Description": f"{text}{link}\n\n{mark(request)}",
    }


def _cut(name: str, text: str, most: int | None = None) -> str:
    longest = most or _LENGTHS.get(name)
    return text if longest is None or len(text) <= longest else text[: longest - 1].rstrip() + "…"


def _quoted(text: str) -> str:
    """A string of a query."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _id_of(answer: Answer, name: str) -> str:
    found = answer.data.get(name) if isinstance(answer.data, dict) else None
    if not isinstance(found, str) or not found:
        raise OutcomeUnknown(f"answered {answer.status} without the record", exchange=answer.exchange)
    return found

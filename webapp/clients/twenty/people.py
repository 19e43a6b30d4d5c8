"""The person of a lead: upserted by e-mail, else found by number, else under an id that follows from who they are."""

from collections.abc import Mapping
from typing import Any

from webapp.clients.crm import canonical_email, person_id
from webapp.clients.http import Answer
from webapp.clients.twenty.records import Records, answered_id, is_duplicate, records_of
from webapp.clients.twenty.values import phone_parts
from webapp.leads.ports import DeliveryRequest, LeadSnapshot, Receipt, Refused
from webapp.leads.task_template import one_line

_PAGE = 60
#: Mapped fields that are not the person's.
_OF_OTHERS = ("company.", "task.")


class People:
    def __init__(self, records: Records) -> None:
        self._records = records

    def send(self, request: DeliveryRequest) -> Receipt:
        lead = request.lead
        body = person_body(lead, request.fields)
        if "emails" not in body:
            body["id"] = self._by_phone(lead) or str(person_id(lead))
        try:
            answer = self._upsert(body)
        except Refused as error:
            if not is_duplicate(error):
                raise
            # Two upserts of one person ran side by side and the other one won: now it is there to be matched.
            answer = self._upsert(body)
        return Receipt(answered_id(answer, "createPerson"), answer.exchange)

    def _upsert(self, body: dict[str, Any]) -> Answer:
        params = {"upsert": "true", "depth": "0"}
        return self._records.call("POST", "/people", params=params, json_body=body, shown=body)

    def _by_phone(self, lead: LeadSnapshot) -> str | None:
        """The person that Twenty has under this number, since an upsert matches by e-mail and id alone."""
        phone = phone_parts(lead.phone_e164)
        if phone is None:
            return None
        number = phone["primaryPhoneNumber"]
        params = {"filter": f'phones.primaryPhoneNumber[eq]:"{number}"', "depth": "0", "limit": str(_PAGE)}
        found = records_of(self._records.call("GET", "/people", params=params), "people")
        for person in found:
            theirs = (person.get("phones") or {}).get("primaryPhoneCallingCode")
            if theirs in (None, "", phone["primaryPhoneCallingCode"]) and isinstance(person.get("id"), str):
                return str(person["id"])
        return None


def person_body(lead: LeadSnapshot, fields: Mapping[str, str]) -> dict[str, Any]:
    """Only fields that we own and know: an upsert overwrites whatever it is sent. ``fields``: as mapped; a dot leads
    into a composite field. E-mail and phone, by which people are told apart, are the lead's own."""
    body: dict[str, Any] = {}
    for name, value in fields.items():
        if name.startswith(_OF_OTHERS):
            continue
        *outer, last = name.split(".")
        place = body
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = one_line(value)
    if "name" in body:
        body["name"] = {"firstName": "", "lastName": ""} | body["name"]
    if lead.email:
        body["emails"] = {"primaryEmail": canonical_email(lead.email)}
    phone = phone_parts(lead.phone_e164)
    if phone:
        body["phones"] = phone
    return body

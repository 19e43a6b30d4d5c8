"""The verdict as a note on the person."""

from typing import Any

from webapp.clients.crm import verdict_markdown, verdict_title
from webapp.clients.twenty.records import Records, uuid5_of
from webapp.leads.ports import DeliveryRequest, LeadSnapshot, Receipt
from webapp.leads.states import DeliveryOperation


class Notes:
    def __init__(self, records: Records) -> None:
        self._records = records

    def send(self, request: DeliveryRequest) -> Receipt:
        note_id = uuid5_of(request, "note")
        body = note_body(request.lead)
        if request.operation is not DeliveryOperation.SEND and (
            there := self._records.change(request, "notes", note_id, body)
        ):
            return there
        receipt = self._records.create("notes", "note", {"id": note_id, **body})
        if (person := request.remote.get("person")) is not None:
            link = {"id": uuid5_of(request, "note_target"), "noteId": note_id, "targetPersonId": person}
            self._records.create("noteTargets", "noteTarget", link)
        return receipt


def note_body(lead: LeadSnapshot) -> dict[str, Any]:
    return {"title": verdict_title(lead), "bodyV2": {"markdown": verdict_markdown(lead)}}

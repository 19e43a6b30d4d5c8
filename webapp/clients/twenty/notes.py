"""The verdict as a note on the person."""

from typing import Any

from webapp.clients.twenty.records import Records, uuid5_of
from webapp.clients.twenty.tasks import task_markdown
from webapp.clients.twenty.values import escape, one_line
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
    title = f"Verdict: {lead.intent.value.replace('_', ' ')}, {lead.priority.value}"
    reasons = "\n".join(f"- {escape(one_line(reason))}" for reason in lead.reasons)
    text = task_markdown(lead) + (f"\n\n## Why\n\n{reasons}" if reasons else "")
    return {"title": title, "bodyV2": {"markdown": text}}

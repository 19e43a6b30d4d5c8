"""The follow-up task of a delivery, and its link to the person."""

from datetime import datetime
from typing import Any

from webapp.clients.crm import DUE_IN, FOLLOW_UP, iso, task_markdown, withdrawn_title
from webapp.clients.twenty.members import Members
from webapp.clients.twenty.records import Records, remote_id
from webapp.leads.errors import Permanent
from webapp.leads.ports import DeliveryRequest, LeadSnapshot, Receipt
from webapp.leads.states import DeliveryOperation
from webapp.leads.task_template import one_line


class Tasks:
    """``target_field``: the name of a task target's person."""

    def __init__(self, records: Records, members: Members, *, target_field: str) -> None:
        self._records = records
        self._members = members
        self._target_field = target_field

    def send(self, request: DeliveryRequest) -> Receipt:
        task_id = request.remote.get("task") or str(remote_id(request))
        if request.operation is not DeliveryOperation.SEND:
            body = closed(request) if request.withdrawn else self.fields(request)
            if request.operation is DeliveryOperation.UPDATE:
                del body["status"]  # a colleague's
            if there := self._records.change(request, "tasks", task_id, body):
                return there
        fields = self.fields(request)
        assignee = self._members.id_of(request.lead.assignee_email)
        return self._records.create("tasks", "task", {"id": str(remote_id(request)), **fields, "assigneeId": assignee})

    def fields(self, request: DeliveryRequest) -> dict[str, Any]:
        fields = task_fields(request.lead, since=request.lead.event_at)
        if title := request.fields.get("task.title"):
            fields["title"] = one_line(title)
        return fields

    def link_body(self, request: DeliveryRequest) -> dict[str, Any]:
        try:
            task, person = request.remote["task"], request.remote["person"]
        except KeyError as error:
            raise Permanent(f"the step before left no id for its {error.args[0]}") from None
        return {"id": str(remote_id(request)), "taskId": task, self._target_field: person}


def task_fields(lead: LeadSnapshot, *, since: datetime) -> dict[str, Any]:
    """A follow-up task for ``lead``, due by its priority counted from ``since``."""
    return {
        "title": f"{FOLLOW_UP} — {one_line(lead.display_name)}",
        "bodyV2": {"markdown": lead.task_text or task_markdown(lead)},
        "dueAt": iso(since + DUE_IN[lead.priority]),
        "status": "TODO",
    }


def closed(request: DeliveryRequest) -> dict[str, Any]:
    """A task that was made for a lead that is none after all."""
    return {"status": "DONE", "title": withdrawn_title(request.lead)}

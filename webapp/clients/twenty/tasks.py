"""The follow-up task of a delivery, and its link to the person."""

from datetime import datetime, timedelta
from typing import Any

from webapp.clients.twenty.members import Members
from webapp.clients.twenty.records import Records, remote_id
from webapp.clients.twenty.values import escape, iso, one_line
from webapp.leads.errors import Permanent
from webapp.leads.ports import DeliveryRequest, LeadSnapshot, Receipt
from webapp.leads.states import DeliveryOperation, Intent, NextAction, Priority

FOLLOW_UP = "📞 Sales Follow-up"
_MAX_MESSAGE = 4_000

#: How soon somebody has to follow up. P0 now, P1 today, P2 this week, P3 whenever (taxonomy: priority).
DUE_IN = {
    Priority.P0: timedelta(hours=1),
    Priority.P1: timedelta(hours=8),
    Priority.P2: timedelta(days=5),
    Priority.P3: timedelta(days=14),
}

_STEPS = {
    NextAction.CALL: ("Call them; if nobody answers, write and propose two times.", "Note what was agreed here."),
    NextAction.EMAIL: ("Answer their question by e-mail.", "Propose the next step and a date for it."),
    NextAction.QUALIFY: ("Find out what they need, by when, and who decides.", "Move it on, or close it."),
    NextAction.IGNORE: ("Check whether anything has to be done.", "Close the task if not."),
}


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
    return {"status": "DONE", "title": f"✕ Withdrawn — {one_line(request.lead.display_name)}"}


def task_markdown(lead: LeadSnapshot) -> str:
    """The static follow-up text: verdict, message, next steps."""
    facts = [
        ("Intent", lead.intent.value.replace("_", " ")),
        ("Priority", lead.priority.value),
        ("Confidence", f"{lead.confidence:.0%}"),
        ("Score", str(lead.score) if lead.score is not None else ""),
        ("E-mail", lead.email or ""),
        ("Phone", lead.phone_e164 or lead.phone or ""),
        ("Company", lead.company or ""),
        ("Source", lead.source),
        ("Decided by", lead.decided_by or ""),
    ]
    lines = [f"- **{name}:** {escape(one_line(value))}" for name, value in facts if value]
    message = lead.message.strip()
    shown = message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE].rstrip() + " …"
    quote = "\n".join(f"> {escape(line)}".rstrip() for line in shown.splitlines())
    steps = "\n".join(f"{i}. {step}" for i, step in enumerate(_next_steps(lead), 1))
    return "\n\n".join(["## Verdict", "\n".join(lines), "## Message", quote, "## Next steps", steps])


def _next_steps(lead: LeadSnapshot) -> tuple[str, ...]:
    first = "Read the message: it is a complaint." if lead.intent is Intent.COMPLAINT else None
    return (*([first] if first else []), *_STEPS[lead.next_action])

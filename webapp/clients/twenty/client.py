"""The destination's client: which part of it does which step."""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any

from webapp.clients.http import HttpClient, kept_waiting
from webapp.clients.twenty.companies import Companies, company_body
from webapp.clients.twenty.follow_ups import FollowUps
from webapp.clients.twenty.match import Matching
from webapp.clients.twenty.members import Members
from webapp.clients.twenty.notes import Notes, note_body
from webapp.clients.twenty.opportunities import Opportunities
from webapp.clients.twenty.people import People, person_body
from webapp.clients.twenty.records import Records, remote_id, uuid5_of
from webapp.clients.twenty.tasks import Tasks, closed
from webapp.leads.errors import Permanent
from webapp.leads.ports import Deal, DeliveryRequest, FollowUp, PersonTasks, Receipt, RecordKind, Refused
from webapp.leads.types import Fact

_REMEDY = "Put a good API key into its settings or TWENTY_REST_TOKEN, or its role or plan right in Twenty."
_IN_WORDS = {
    401: "Twenty does not know the API key, or it has expired",
    402: "the quota of the plan is used up",
    403: "the API key lacks a permission",
    407: "a proxy on the way asks for a login",
}
#: Steps that a destination can do without: where the key may not make these, the others go on.
_BESIDES = ("company", "note")


class TwentyClient:
    """``send`` handles the actions of webapp.leads.kinds.twenty. Also :class:`leads.ports.CrmTasks`,
    :class:`leads.ports.CrmMatch` and :class:`leads.ports.CrmOutcomes`. ``task_target_field``: the name of a task target's person."""

    reconciles = True

    def __init__(
        self,
        http: HttpClient,
        *,
        task_target_field: str = "targetPersonId",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records = Records(http)
        self._members = Members(records, clock)
        self._people = People(records)
        self._companies = Companies(records)
        self._notes = Notes(records)
        self._task_target_field = task_target_field
        self._tasks = Tasks(records, self._members, target_field=task_target_field)
        self._follow_ups = FollowUps(records, target_field=task_target_field)
        self._matching = Matching(records, clock)
        self._opportunities = Opportunities(records)

    def send(self, request: DeliveryRequest) -> Receipt:
        with kept_waiting(_REMEDY, _IN_WORDS):
            try:
                return self._send(request)
            except Refused as error:
                if error.exchange.http_status == 403 and request.action in _BESIDES:
                    raise Refused(f"{_IN_WORDS[403]} (answered 403)", exchange=error.exchange) from None
                raise

    def _send(self, request: DeliveryRequest) -> Receipt:
        match request.action:
            case "person":
                return self._people.send(request)
            case "task":
                return self._tasks.send(request)
            case "task_target":
                return self._records.create("taskTargets", "taskTarget", self._tasks.link_body(request))
            case "company":
                return self._companies.send(request)
            case "note":
                return self._notes.send(request)
        raise Permanent(f"Twenty knows no action {request.action!r}")

    def reconcile(self, request: DeliveryRequest) -> Receipt | None:
        """A person needs none: the upsert is idempotent, and so are company and note, whose ids are known. Tasks and
        links are looked up by their id."""
        with kept_waiting(_REMEDY, _IN_WORDS):
            match request.action:
                case "task":
                    return self._records.find("tasks", "task", str(remote_id(request)), None)
                case "task_target":
                    return self._records.find("taskTargets", "taskTarget", str(remote_id(request)), None)
        return None

    def render(self, request: DeliveryRequest) -> dict[str, Any]:
        match request.action:
            case "person":
                return person_body(request.lead, request.fields)
            case "task":
                return self._tasks.fields(request) if not request.withdrawn else closed(request)
            case "task_target":
                person = request.remote.get("person", "(the person's id)")
                return {"taskId": uuid5_of(request, "task"), self._task_target_field: person}
            case "company":
                return company_body(request.fields)
            case "note":
                return note_body(request.lead)
        return {}

    def probe(self) -> str:
        """Reads one person and, where the key may, the members."""
        self._records.call("GET", "/people", params={"limit": "1", "depth": "0"})
        members = len(self._members.read())
        if not members:
            return "Twenty knows the key. It may not read workspace members, so tasks stay unassigned."
        return f"Twenty knows the key, and tasks can be given to {members} member{'s' if members != 1 else ''}."

    # leads.ports.CrmTasks

    def member_page(self, cursor: str | None) -> tuple[Mapping[str, str], str | None]:
        return self._follow_ups.member_page(cursor)

    def open_task_page(self, cursor: str | None) -> tuple[Mapping[str, int], str | None]:
        return self._follow_ups.open_task_page(cursor)

    def tasks_of(self, person_ids: Sequence[str], *, follow_ups: Set[str]) -> Mapping[str, PersonTasks]:
        return self._follow_ups.tasks_of(person_ids, follow_ups=follow_ups)

    def create_follow_up(self, wanted: FollowUp) -> str:
        return self._follow_ups.create_follow_up(wanted)

    # leads.ports.CrmMatch

    def match(self, email: str | None, phone: str | None, domain: str | None) -> list[Fact]:
        return self._matching.match(email, phone, domain)

    # leads.ports.CrmOutcomes

    def deal_page(self, cursor: str | None, *, since: datetime | None) -> tuple[Sequence[Deal], str | None]:
        return self._opportunities.deal_page(cursor, since=since)

    def deals_with(self, person_ids: Sequence[str], company_ids: Sequence[str]) -> Sequence[Deal]:
        return self._opportunities.deals_with(person_ids, company_ids)

    def deleted_page(
        self, kind: RecordKind, cursor: str | None, *, since: datetime | None
    ) -> tuple[Mapping[str, datetime], str | None]:
        return self._opportunities.deleted_page(kind, cursor, since=since)

    def present(self, kind: RecordKind, ids: Sequence[str]) -> Set[str]:
        return self._opportunities.present(kind, ids)

    def is_gone(self, kind: RecordKind, record_id: str) -> bool:
        return self._opportunities.is_gone(kind, record_id)

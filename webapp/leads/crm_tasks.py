"""Follow-up tasks on request: everybody in the CRM gets one, unless one is open for them.

A request is a row. One worker claims it and takes small steps (a page of members, a page of open tasks, a batch of
people), and what it has found stands in the row after each of them, so that a pause that the CRM asks for, a restart
or a killed worker costs one step. What a batch is going to make is written down before it is made, under ids of ours:
whoever goes on from there makes nothing twice.
"""

import logging
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from webapp.leads import audit, claims, copywriting, crm_people
from webapp.leads.claims import Claim, Holder, backoff
from webapp.leads.copywriting import TEMPLATES, Writing
from webapp.leads.crm_people import Someone
from webapp.leads.crm_rounds import OVER, Intended, Progress, has_due
from webapp.leads.deliver import DeliveryPolicy
from webapp.leads.draining import SessionFactory
from webapp.leads.errors import LeadError, Permanent, Transient
from webapp.leads.outbox import TASK_TARGET
from webapp.leads.ports import (
    Clients,
    CrmTasks,
    Drained,
    FollowUp,
    LeadSnapshot,
    PersonTasks,
    Refused,
    Throttled,
)
from webapp.leads.sending import target_of
from webapp.leads.states import DestinationMode, TaskRequestState
from webapp.models.base import interval
from webapp.models.work import Destination, TaskRequest

log = logging.getLogger(__name__)

#: Namespace of the tasks' ids; never to be changed.
_NAMESPACE = uuid.UUID("b0a5c0de-52a9-5d5e-8a3f-0c7d1f6b2e11")
#: Longer than the calls of one step may hang.
LEASE_SECONDS = 180.0
_MAX_TRIES = 5
#: People in a row for whom the CRM does not answer, before the others are left alone.
_SILENCES = 3
#: Ids tried for one task, where tasks of before were deleted.
_ID_CHOICES = 3


def process(
    session_factory: SessionFactory,
    holder: Holder,
    clients: Clients,
    *,
    policy: DeliveryPolicy,
    writing: Writing = TEMPLATES,
    max_seconds: float = 5.0,
    stop: Callable[[], bool] = lambda: False,
) -> Drained:
    """Go on with rounds that are due, for ``max_seconds``; a call under way is waited for."""
    ends_at = time.monotonic() + max_seconds
    done = 0
    while time.monotonic() < ends_at and not stop():
        with session_factory() as session:
            found = claims.claim(session, claims.TASKS, holder, limit=1, seconds=LEASE_SECONDS)
            row = _load(session, found[0].id) if found else None
            session.commit()
        if row is None:
            break
        _Round(session_factory, clients, policy, writing, found[0], row).work(
            lambda: time.monotonic() >= ends_at or stop()
        )
        done += 1
    with session_factory() as session:
        return Drained(done, has_due(session))


def _load(session: Session, request_id: uuid.UUID) -> TaskRequest:
    """Without its details: a round only adds to them, and there may be one for everybody in the CRM."""
    few = [sa.orm.defer(TaskRequest.details, raiseload=True)]
    return session.get_one(TaskRequest, request_id, populate_existing=True, options=few)


class _Lost(Exception):
    """Another worker has the round now."""


class _Round:
    """One worker's turn at one round."""

    def __init__(
        self,
        session_factory: SessionFactory,
        clients: Clients,
        policy: DeliveryPolicy,
        writing: Writing,
        claim: Claim,
        row: TaskRequest,
    ) -> None:
        self._session_factory = session_factory
        self._clients = clients
        self._policy = policy
        self._writing = writing
        self._saved_at = time.monotonic()
        self._claim = claim
        self._workspace_id = row.workspace_id
        self._requested_by = row.requested_by
        self._asked_at: datetime = row.created_at
        self._tries = row.tries
        self._progress = Progress.of(row.progress)
        self._details: list[dict[str, Any]] = []  # what is to be added to the row's
        self._untold: list[dict[str, Any]] = []  # tasks made whose audit event is to be written
        self._silences = 0

    def work(self, is_time: Callable[[], bool]) -> None:
        """Steps until it is done or it is time. Whatever goes wrong becomes a state of the round, but for the
        database's own errors."""
        try:
            while self._step():
                if is_time():
                    return self._save(TaskRequestState.QUEUED)
            return self._save(TaskRequestState.DONE)
        except _Lost:
            log.warning("task request %s was taken over", self._claim.id)
        except Throttled as error:
            pause = min(error.retry_after or self._policy.throttle_delay, self._policy.max_pause)
            self._end(TaskRequestState.QUEUED, delay=pause)
        except Transient as error:
            self._tries += 1
            if self._tries >= _MAX_TRIES:
                self._end(TaskRequestState.FAILED, error=error.message)
            else:
                delay = max(error.retry_after or 0.0, backoff(self._tries, self._policy))
                self._end(TaskRequestState.QUEUED, delay=delay)
        except LeadError as error:
            self._end(TaskRequestState.FAILED, error=error.message)
        except sa.exc.SQLAlchemyError:
            raise
        except Exception as error:  # a bug: it must not come back for ever
            log.exception("task request %s failed", self._claim.id)
            self._end(TaskRequestState.FAILED, error=f"internal error: {type(error).__name__}")
        return None

    def _end(self, state: TaskRequestState, *, delay: float = 0.0, error: str | None = None) -> None:
        try:
            self._save(state, delay=delay, error=error)
        except _Lost:
            log.warning("task request %s was taken over", self._claim.id)

    def _step(self) -> bool:
        """One bounded bit of work. False when nothing is left."""
        progress = self._progress
        if not progress.destinations:
            return False
        client, destination = self._client(uuid.UUID(progress.destinations[0]))
        if client is None:
            self._next_destination()
        elif progress.phase == "members":
            page, progress.cursor = client.member_page(progress.cursor)
            progress.members |= page
            progress.phase = "members" if progress.cursor else "loads"
        elif progress.phase == "loads":
            loads, progress.cursor = client.open_task_page(progress.cursor)
            for member_id in loads.keys() & progress.members.keys():  # tasks of others are of no account here
                progress.loads[member_id] = progress.loads.get(member_id, 0) + loads[member_id]
            progress.phase = "loads" if progress.cursor else "people"
        elif progress.intended:
            self._make(client, progress.intended[0], destination)
        elif not self._plan(client, uuid.UUID(progress.destinations[0])):
            self._next_destination()
        self._tries = 0
        return True

    def _next_destination(self) -> None:
        self._progress = Progress(destinations=self._progress.destinations[1:])

    def _client(self, destination_id: uuid.UUID) -> tuple[CrmTasks | None, str]:
        """None for a destination that was switched off meanwhile."""
        with self._session_factory() as session:
            row = session.get(Destination, destination_id)
            if row is None or row.mode is not DestinationMode.LIVE:
                return None, ""
            target = target_of(row)
        client = self._clients.client_for(target)
        return (client if isinstance(client, CrmTasks) else None), target.name

    def _plan(self, client: CrmTasks, destination_id: uuid.UUID) -> bool:
        """Write down what the next people get; False when there is nobody further."""
        progress = self._progress
        with self._session_factory() as session:
            people, last = crm_people.people(session, destination_id, progress.after)
        if last is None:
            return False
        known = frozenset(task_id for one in people for task_id in one.task_ids)
        found = client.tasks_of([one.person_id for one in people], follow_ups=known) if people else {}
        for one in people:
            theirs = found.get(one.person_id)
            if theirs is None:
                self._details.append({"customer": one.customer, "error": "is no longer in the CRM"})
            elif not theirs.open_follow_up:
                progress.intended.append(self._intend(one, theirs))
        progress.after = last
        if progress.intended:
            self._save(TaskRequestState.RUNNING)
        return True

    def _intend(self, one: Someone, theirs: PersonTasks) -> Intended:
        # By the number of their tasks: the same until one is made, another one for the next time.
        base = f"{self._workspace_id}:{one.person_id}:follow-up"
        choices = [uuid.uuid5(_NAMESPACE, f"{base}:{theirs.links + n}") for n in range(_ID_CHOICES)]
        ids = [[str(choice), str(uuid.uuid5(choice, TASK_TARGET))] for choice in choices]
        return Intended(one.person_id, str(one.lead_id), one.customer, [*one.unmade, *ids], self._least_busy())

    def _least_busy(self) -> str | None:
        loads = self._progress.loads
        if not self._progress.members:
            return None
        least = min(loads.get(member_id, 0) for member_id in self._progress.members)
        chosen = random.choice([one for one in self._progress.members if loads.get(one, 0) == least])
        loads[chosen] = least + 1
        return chosen

    def _make(self, client: CrmTasks, wanted: Intended, destination: str) -> None:
        with self._session_factory() as session:
            lead = crm_people.speaker(session, self._workspace_id, uuid.UUID(wanted.lead_id))
        detail: dict[str, Any] = {"customer": wanted.customer, "error": "the lead is gone"}
        if lead is not None:
            text = copywriting.text_for(self._session_factory, lead, self._writing)
            detail = self._call(client, wanted, replace(lead, task_text=text))
        if "task_id" in detail:
            self._untold.append(
                {"lead_id": uuid.UUID(wanted.lead_id), "destination": destination, "assignee": detail["assigned_to"]}
            )
        elif wanted.member_id is not None:
            self._progress.loads[wanted.member_id] -= 1
        self._details.append(detail)
        self._progress.intended = self._progress.intended[1:]
        # Now and then in between: writing their texts may take longer than the lease.
        if not self._progress.intended or time.monotonic() - self._saved_at > LEASE_SECONDS / 3:
            self._save(TaskRequestState.RUNNING)
        if self._silences >= _SILENCES:
            raise Permanent(str(detail["error"]))

    def _call(self, client: CrmTasks, wanted: Intended, lead: LeadSnapshot) -> dict[str, Any]:
        asked = FollowUp(
            person_id=wanted.person_id,
            lead=lead,
            ids=[(task_id, link_id) for task_id, link_id in wanted.ids],
            asked_at=self._asked_at,
            assignee_id=wanted.member_id,
        )
        try:
            task_id = client.create_follow_up(asked)
        except Throttled:
            raise
        except Transient as error:
            self._silences += 1
            return {"customer": wanted.customer, "error": error.message}
        except Permanent as error:
            if isinstance(error, Refused) and error.destination_wide:
                raise
            return {"customer": wanted.customer, "error": error.message}
        self._silences = 0
        name = self._progress.members.get(wanted.member_id) if wanted.member_id else None
        return {"task_id": task_id, "customer": wanted.customer, "assigned_to": name}

    def _save(self, state: TaskRequestState, *, delay: float = 0.0, error: str | None = None) -> None:
        """Write how far it is, in ``state``. _Lost when the claim is not ours any more."""
        running = state is TaskRequestState.RUNNING
        now = sa.func.now()
        # Added by the database: writing all of them anew at every batch would grow with the square of the people.
        more = {"details": TaskRequest.details.op("||")(sa.literal(self._details, JSONB))} if self._details else {}
        with self._session_factory() as session:
            held = session.scalar(
                sa.update(TaskRequest)
                .where(
                    TaskRequest.id == self._claim.id,
                    TaskRequest.attempt == self._claim.attempt,
                    TaskRequest.state == TaskRequestState.RUNNING,
                )
                .values(
                    state=state,
                    progress=asdict(self._progress) if state not in OVER else {},
                    tries=self._tries,
                    error=error,
                    due_at=now + interval(delay),
                    lease_until=now + interval(LEASE_SECONDS) if running else None,
                    finished_at=now if state in OVER else None,
                    **more,
                )
                .returning(TaskRequest.id)
                .execution_options(synchronize_session=False)
            )
            if held is None:
                raise _Lost
            for one in self._untold:
                audit.record(session, self._workspace_id, "FOLLOW_UP_CREATED", actor=self._requested_by, **one)
            session.commit()
        self._saved_at = time.monotonic()
        self._untold.clear()
        self._details.clear()

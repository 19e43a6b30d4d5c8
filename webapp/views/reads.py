"""What the pages read besides lists of leads: one lead with all around it, runs, deliveries, members.

Everything is scoped by workspace; another workspace's id is NotFound. Lists go by keyset, newest first.
"""

import base64
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, defer, joinedload

from webapp.leads import queries
from webapp.leads.errors import Invalid, NotFound, Problem
from webapp.leads.states import DeliveryState, RunStatus
from webapp.models.account import Membership, User
from webapp.models.base import scoped
from webapp.models.lead import AuditEvent, Decision, Lead, Touch
from webapp.models.work import Delivery, DeliveryAttempt, Destination, Run

PAGE = 50
MAX_EVENTS = 200
MAX_AROUND = 20


def lead(session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID) -> Lead:
    """The lead with its person and assignee. NotFound."""
    found: Lead | None = session.scalar(
        scoped(Lead, workspace_id)
        .where(Lead.id == lead_id)
        .options(joinedload(Lead.person), joinedload(Lead.assignee), defer(Lead.search))
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFound("There is no such lead in this workspace.")
    return found


def runs_of(session: Session, found: Lead) -> list[Run]:
    """Its latest runs, newest first."""
    query = (
        scoped(Run, found.workspace_id)
        .where(Run.lead_id == found.id)
        .options(defer(Run.payload_json), defer(Run.result_json))
        .order_by(Run.created_at.desc(), Run.id.desc())
        .limit(MAX_AROUND)
    )
    return list(session.scalars(query))


def deliveries_of(session: Session, found: Lead) -> list[Delivery]:
    """Its deliveries in the order in which they go out, with their destinations."""
    query = (
        scoped(Delivery, found.workspace_id)
        .where(Delivery.lead_id == found.id)
        .options(joinedload(Delivery.destination).defer(Destination.credentials), defer(Delivery.payload))
        .order_by(Delivery.created_at, Delivery.step)
    )
    return list(session.scalars(query))


def events_of(session: Session, found: Lead) -> list[AuditEvent]:
    """Its latest audit events, in the order in which they happened."""
    query = (
        scoped(AuditEvent, found.workspace_id)
        .where(AuditEvent.lead_id == found.id)
        .order_by(AuditEvent.created_at.desc(), AuditEvent.id.desc())
        .limit(MAX_EVENTS)
    )
    return list(session.scalars(query))[::-1]


def touches_of(session: Session, found: Lead) -> list[Touch]:
    """When the same request came again, newest first."""
    if found.touches <= 1:
        return []
    query = (
        scoped(Touch, found.workspace_id)
        .where(Touch.lead_id == found.id)
        .options(defer(Touch.payload))
        .order_by(Touch.created_at.desc())
        .limit(MAX_AROUND)
    )
    return list(session.scalars(query))


def last_decision(session: Session, found: Lead) -> Decision | None:
    """The decision that stands."""
    decision: Decision | None = session.scalar(
        scoped(Decision, found.workspace_id)
        .where(Decision.lead_id == found.id, Decision.undone_at.is_(None))
        .order_by(Decision.created_at.desc(), Decision.id.desc())
        .limit(1)
    )
    return decision


def others_of(session: Session, found: Lead) -> list[queries.LeadRow]:
    """Further leads of the same person, newest first."""
    if found.person_id is None:
        return []
    wanted = queries.LeadFilter(person_id=found.person_id)
    rows = queries.page(session, found.workspace_id, wanted, limit=11, order="newest").rows
    return [row for row in rows if row.id != found.id][:10]


@dataclass(frozen=True, slots=True)
class Someone:
    """A member of the workspace."""

    id: uuid.UUID
    name: str


def members(session: Session, workspace_id: uuid.UUID) -> list[Someone]:
    """Who leads can be assigned to."""
    query = (
        sa.select(User.id, User.name)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.workspace_id == workspace_id, User.active)
        .order_by(User.name)
    )
    return [Someone(*row) for row in session.execute(query)]


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of runs or deliveries; a cursor is None where there is nothing further that way."""

    rows: list[Any]
    next_cursor: str | None
    prev_cursor: str | None


def _listing(
    session: Session, model: Any, where: list[Any], columns: list[Any], joins: Any, cursor: str | None
) -> Listing:
    back, position = _decode(cursor) if cursor else (False, None)
    key = (model.created_at, model.id)
    query = joins(sa.select(*columns)).where(*where)
    if position:
        here = sa.tuple_(*(sa.literal(value, column.type) for value, column in zip(position, key, strict=True)))
        query = query.where(sa.tuple_(*key) > here if back else sa.tuple_(*key) < here)
    query = query.order_by(*(c.asc() if back else c.desc() for c in key)).limit(PAGE + 1)
    rows = list(session.execute(query))
    more = len(rows) > PAGE
    rows = rows[:PAGE][::-1] if back else rows[:PAGE]
    if not rows:
        return Listing([], None, None)
    return Listing(
        rows,
        _encode(False, rows[-1]) if back or more else None,
        _encode(True, rows[0]) if (more if back else cursor) else None,
    )


def _encode(back: bool, row: Any) -> str:
    plain = f"{int(back)}~{row.created_at.isoformat()}~{row.id}"
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[bool, tuple[datetime, uuid.UUID]]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        back, moment, row_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode().split("~")
        at = datetime.fromisoformat(moment)
        if back not in ("0", "1") or at.tzinfo is None:
            raise ValueError(cursor)
        return back == "1", (at, uuid.UUID(row_id))
    except ValueError:
        reason = "is not a cursor of this list; ask for the first page"
        raise Invalid("The page asked for is not understood.", details=(Problem("cursor", reason),)) from None


_SENDER = (Lead.name, Lead.author_name, Lead.company, Lead.email, Lead.phone)


def runs(
    session: Session, workspace_id: uuid.UUID, *, status: RunStatus | None, open_only: bool, cursor: str | None
) -> Listing:
    """Runs, newest first. ``open_only``: failed ones that no later run of their lead has repaired."""
    where = queries.unrepaired(workspace_id) if open_only else [Run.workspace_id == workspace_id]
    if status and not open_only:
        where.append(Run.status == sa.literal(status, Run.status.type, literal_execute=True))
    columns = [
        Run.id, Run.created_at, Run.status, Run.trigger, Run.requested_by, Run.error, Run.started_at, Run.finished_at,
        Run.attempt, Run.lead_id, *_SENDER,
    ]  # fmt: skip
    return _listing(session, Run, where, columns, lambda q: q.join(Lead, Lead.id == Run.lead_id), cursor)


def run(session: Session, workspace_id: uuid.UUID, run_id: uuid.UUID) -> Run:
    """A run with its lead. NotFound."""
    found: Run | None = session.scalar(
        scoped(Run, workspace_id)
        .where(Run.id == run_id)
        .options(joinedload(Run.lead).defer(Lead.search), defer(Run.payload_json))
    )
    if found is None:
        raise NotFound("There is no such run in this workspace.")
    return found


def deliveries(
    session: Session, workspace_id: uuid.UUID, *, state: DeliveryState | None, stuck: bool, destination_id: uuid.UUID | None,
    cursor: str | None,
) -> Listing:  # fmt: skip
    """Deliveries, newest first. ``stuck``: those that need a person."""
    where = queries.stuck(workspace_id) if stuck else [Delivery.workspace_id == workspace_id]
    if state and not stuck:
        where.append(Delivery.state == sa.literal(state, Delivery.state.type, literal_execute=True))
    if destination_id:
        where.append(Delivery.destination_id == destination_id)
    columns = [
        Delivery.id, Delivery.created_at, Delivery.state, Delivery.action, Delivery.tries, Delivery.attempt,
        Delivery.due_at, Delivery.delivered_at, Delivery.last_error, Delivery.remote_id, Delivery.lead_id,
        Destination.name.label("destination"), *_SENDER,
    ]  # fmt: skip
    return _listing(
        session, Delivery, where, columns,
        lambda q: q.join(Lead, Lead.id == Delivery.lead_id).join(Destination, Destination.id == Delivery.destination_id),
        cursor,
    )  # fmt: skip


def delivery(session: Session, workspace_id: uuid.UUID, delivery_id: uuid.UUID) -> Delivery:
    """A delivery with its lead and destination. NotFound."""
    found: Delivery | None = session.scalar(
        scoped(Delivery, workspace_id)
        .where(Delivery.id == delivery_id)
        .options(joinedload(Delivery.lead).defer(Lead.search), joinedload(Delivery.destination))
    )
    if found is None:
        raise NotFound("There is no such delivery in this workspace.")
    return found


def attempts_of(session: Session, found: Delivery) -> list[DeliveryAttempt]:
    """Its calls on the wire, newest first."""
    query = (
        scoped(DeliveryAttempt, found.workspace_id)
        .where(DeliveryAttempt.delivery_id == found.id)
        .order_by(DeliveryAttempt.started_at.desc())
        .limit(100)
    )
    return list(session.scalars(query))


def destinations(session: Session, workspace_id: uuid.UUID) -> list[tuple[uuid.UUID, str]]:
    """(id, name) of the workspace's destinations, for a filter."""
    query = sa.select(Destination.id, Destination.name).where(Destination.workspace_id == workspace_id)
    return [(row.id, row.name) for row in session.execute(query.order_by(Destination.name))]


def memberships(session: Session, workspace_id: uuid.UUID) -> list[tuple[Membership, int]]:
    """Members with how many waiting leads each has, by name."""
    waiting = aliased(Lead)
    load = (
        sa.select(sa.func.count())
        .where(
            waiting.assignee_id == Membership.user_id,
            waiting.workspace_id == workspace_id,
            waiting.status.in_(queries.VIEWS["waiting"]),
        )
        .correlate(Membership)
        .scalar_subquery()
    )
    query = (
        sa.select(Membership, load)
        .join(Membership.user)
        .where(Membership.workspace_id == workspace_id)
        .options(joinedload(Membership.user))
        .order_by(User.name)
    )
    return [(row[0], row[1]) for row in session.execute(query)]

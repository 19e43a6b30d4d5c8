"""Lists of runs and of deliveries: pages by keyset, newest first, of one workspace."""

import uuid
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session

from webapp.leads import keyset, run_filters
from webapp.leads.run_filters import RunFilter
from webapp.leads.states import FetchKind, QuarantineState
from webapp.models.inbound import Fetch, InboundSource
from webapp.models.lead import Lead, Quarantined
from webapp.models.work import Delivery, Destination, Run

PAGE = 50


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a list; a cursor is None where there is nothing further that way."""

    rows: list[Any]
    next_cursor: str | None
    prev_cursor: str | None


def listing(
    session: Session,
    model: Any,
    where: list[Any],
    columns: list[Any],
    joins: Any,
    cursor: str | None,
    limit: int = PAGE,
) -> Listing:
    """The page of ``columns`` of ``model`` (among them its ``created_at`` and ``id``) that ``cursor`` names."""
    back, position = keyset.decode(cursor) if cursor else (False, None)
    key = (model.created_at, model.id)
    query = joins(sa.select(*columns)).where(*where)
    if position:
        here = sa.tuple_(*(sa.literal(value, column.type) for value, column in zip(position, key, strict=True)))
        query = query.where(sa.tuple_(*key) > here if back else sa.tuple_(*key) < here)
    query = query.order_by(*(c.asc() if back else c.desc() for c in key)).limit(limit + 1)
    rows = list(session.execute(query))
    more = len(rows) > limit
    rows = rows[:limit][::-1] if back else rows[:limit]
    if not rows:
        return Listing([], None, None)
    return Listing(
        rows,
        keyset.encode(rows[-1]) if back or more else None,
        keyset.encode(rows[0], back=True) if (more if back else cursor) else None,
    )


_SENDER = (Lead.shown_name.label("name"), Lead.author_name, Lead.company, Lead.email, Lead.phone)


#: Of each stage what a list shows; the records themselves hold much more.
_STAGES: Any = sa.literal_column(
    "ARRAY(SELECT jsonb_build_object('name', s->'name', 'status', s->'status', 'ms', s->'ms')"
    " FROM jsonb_array_elements(runs.stages) AS s)",
    ARRAY(JSONB),
).label("stages")


def runs(session: Session, workspace_id: uuid.UUID, wanted: RunFilter, *, cursor: str | None) -> Listing:
    """Runs, newest first; of their stages name, status and time in ms."""
    columns = [
        Run.id, Run.created_at, Run.status, Run.trigger, Run.requested_by, Run.error, Run.started_at, Run.finished_at,
        Run.attempt, Run.lead_id, Run.source, Run.stage, Run.stage_since, _STAGES, *_SENDER,
    ]  # fmt: skip
    where = run_filters.conditions(workspace_id, wanted)
    return listing(session, Run, where, columns, lambda q: q.join(Lead, Lead.id == Run.lead_id), cursor)


def deliveries(session: Session, workspace_id: uuid.UUID, where: list[Any], *, cursor: str | None) -> Listing:
    """Deliveries under these conditions (webapp.leads.delivery_filters, webapp.leads.replays), newest first."""
    where = [Delivery.workspace_id == workspace_id, *where]
    columns = [
        Delivery.id, Delivery.created_at, Delivery.state, Delivery.action, Delivery.tries, Delivery.attempt,
        Delivery.due_at, Delivery.delivered_at, Delivery.updated_at, Delivery.last_error, Delivery.remote_id, Delivery.lead_id,
        Delivery.deleted_there_at,
        Destination.name.label("destination"), *_SENDER,
    ]  # fmt: skip
    return listing(
        session, Delivery, where, columns,
        lambda q: q.join(Lead, Lead.id == Delivery.lead_id).join(Destination, Destination.id == Delivery.destination_id),
        cursor,
    )  # fmt: skip


def web_pages(session: Session, workspace_id: uuid.UUID, *, cursor: str | None) -> Listing:
    """The public pages that were asked for, newest first."""
    where = [Fetch.workspace_id == workspace_id, Fetch.kind == FetchKind.PAGE]
    columns = [
        Fetch.id, Fetch.created_at, Fetch.target, Fetch.state, Fetch.tries, Fetch.due_at, Fetch.last_error,
        Fetch.result, Fetch.leads_made, Fetch.requested_by, Fetch.finished_at,
    ]  # fmt: skip
    return listing(session, Fetch, where, columns, lambda q: q, cursor)


#: How much of a quarantined entry a list shows, in characters.
EXCERPT = 4_000


def quarantined(
    session: Session, workspace_id: uuid.UUID, *, state: QuarantineState | None, dialect: str | None,
    source_id: uuid.UUID | None, cursor: str | None, limit: int = PAGE,
) -> Listing:  # fmt: skip
    """Quarantined entries, newest first. ``dialect``: what reads them; ``source_id``: the inbound webhook they came by."""
    where = [Quarantined.workspace_id == workspace_id, *of_quarantine(state, dialect, source_id)]
    columns = [
        Quarantined.id, Quarantined.created_at, Quarantined.state, Quarantined.door, Quarantined.dialect,
        Quarantined.source_id, Quarantined.reason, Quarantined.decided_by, Quarantined.decided_at, Quarantined.lead_ids,
        Quarantined.times, Quarantined.last_at,
        sa.func.left(Quarantined.raw, EXCERPT).label("excerpt"), InboundSource.name.label("source"),
    ]  # fmt: skip
    return listing(
        session, Quarantined, where, columns,
        lambda q: q.outerjoin(InboundSource, InboundSource.id == Quarantined.source_id), cursor, limit,
    )  # fmt: skip


def of_quarantine(state: QuarantineState | None, dialect: str | None, source_id: uuid.UUID | None) -> list[Any]:
    """Which quarantined entries of a workspace."""
    where: list[Any] = []
    if state:
        where.append(Quarantined.state == sa.literal(state, Quarantined.state.type, literal_execute=True))
    if dialect:
        where.append(Quarantined.dialect == dialect)
    if source_id:
        where.append(Quarantined.source_id == source_id)
    return where


def destinations(session: Session, workspace_id: uuid.UUID) -> list[tuple[uuid.UUID, str]]:
    """(id, name) of the workspace's destinations, for a filter."""
    query = sa.select(Destination.id, Destination.name).where(Destination.workspace_id == workspace_id)
    return [(row.id, row.name) for row in session.execute(query.order_by(Destination.name))]

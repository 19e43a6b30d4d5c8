"""Reading back from CRMs: for which destinations, what their stages mean, and how it went. ``crm_pulling`` does the work.

A live CRM is read unless an admin switches that off. Nothing here commits.
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads import audit, destinations
from webapp.leads.errors import Conflict, Invalid, Problem
from webapp.leads.ports import LOST_STAGES, WON_STAGES, same_stage
from webapp.leads.states import DestinationKind, DestinationMode, PullState
from webapp.models.base import new_id, scoped
from webapp.models.crm import CrmPull
from webapp.models.work import Destination

#: Kinds whose clients are :class:`leads.ports.CrmOutcomes`.
KINDS = frozenset({DestinationKind.TWENTY})
MAX_STAGES, MAX_STAGE = 30, 60


def reads(destination: Destination) -> bool:
    """Can anything be read back from it?"""
    return destination.kind in KINDS


def of(session: Session, destination: Destination) -> CrmPull:
    """How the destination is read; one that nobody has looked at yet is not stored."""
    found: CrmPull | None = session.scalar(
        scoped(CrmPull, destination.workspace_id).where(CrmPull.destination_id == destination.id)
    )
    return found or CrmPull(
        workspace_id=destination.workspace_id,
        destination_id=destination.id,
        enabled=True,
        won_stages=list(WON_STAGES),
        lost_stages=list(LOST_STAGES),
        state=PullState.QUEUED,
        reports_total=0,
    )


def begin(session: Session) -> int:
    """A row for each live CRM that has none; returns how many. For the clock."""
    waiting = (
        sa.select(Destination.id, Destination.workspace_id)
        .outerjoin(CrmPull, CrmPull.destination_id == Destination.id)
        .where(Destination.kind.in_(KINDS), Destination.mode == DestinationMode.LIVE, CrmPull.id.is_(None))
        .limit(100)
    )
    found = session.execute(waiting).all()
    for row in found:
        _store(session, row.workspace_id, row.id)
    return len(found)


def _store(session: Session, workspace_id: uuid.UUID, destination_id: uuid.UUID) -> None:
    values = {"workspace_id": workspace_id, "destination_id": destination_id}
    stages = {"won_stages": list(WON_STAGES), "lost_stages": list(LOST_STAGES)}
    made = insert(CrmPull).values(id=new_id(), **values, **stages)
    session.execute(made.on_conflict_do_nothing(index_elements=[CrmPull.destination_id]))


def save(
    session: Session,
    workspace_id: uuid.UUID,
    destination_id: uuid.UUID,
    *,
    enabled: bool,
    won: str,
    lost: str,
    actor: str,
) -> CrmPull:
    """Take over what an admin says; ``won`` and ``lost`` name stages, separated by commas or lines. With other stages all
    deals are looked at again. Invalid names every bad field."""
    row = _locked(session, workspace_id, destination_id)
    problems: list[Problem] = []
    stages = [_stages(text, name, problems) for text, name in ((won, "won_stages"), (lost, "lost_stages"))]
    if not stages[0] and not problems:
        problems.append(Problem("won_stages", "must name at least one stage"))
    both = {same_stage(one) for one in stages[0]} & {same_stage(one) for one in stages[1]}
    if both:
        problems.append(Problem("lost_stages", "must not name a stage that is won"))
    if problems:
        raise Invalid("These stages cannot be saved.", details=tuple(problems))
    if (row.enabled, row.won_stages, row.lost_stages) == (enabled, *stages):
        return row
    if [row.won_stages, row.lost_stages] != stages:
        row.won_stages, row.lost_stages = stages
        row.progress, row.attempt = {}, row.attempt + 1  # whoever reads by the old ones has lost it
        row.state, row.lease_until = PullState.QUEUED, None
    row.enabled, row.due_at, row.tries = enabled, sa.func.now(), 0
    session.flush()
    name = destinations.find(session, workspace_id, destination_id).name
    audit.record(session, workspace_id, "CRM_PULL_CHANGED", actor=actor, destination=name, enabled=enabled)
    return row


def _stages(text: str, name: str, problems: list[Problem]) -> list[str]:
    found = [stage for part in text.replace("\n", ",").split(",") if (stage := " ".join(part.split()))]
    if len(found) > MAX_STAGES or any(len(one) > MAX_STAGE or not same_stage(one) for one in found):
        problems.append(
            Problem(name, f"must be at most {MAX_STAGES} stages, each a word of up to {MAX_STAGE} characters")
        )
    return found


def now(session: Session, workspace_id: uuid.UUID, destination_id: uuid.UUID) -> datetime | None:
    """Read it as soon as a worker is free, and not before the time that this returns, if any: until then the destination is
    left alone (it asked for a pause, or failed too often). Conflict when it is switched off."""
    row = _locked(session, workspace_id, destination_id)
    destination = destinations.find(session, workspace_id, destination_id)
    if not row.enabled or destination.mode is not DestinationMode.LIVE:
        raise Conflict("It is not read, as it is switched off.")
    row.due_at, row.tries = sa.func.now(), 0
    session.flush()
    to_come = [at for at in (destination.paused_until, destination.open_until) if at and at > datetime.now(UTC)]
    return max(to_come, default=None)


def _locked(session: Session, workspace_id: uuid.UUID, destination_id: uuid.UUID) -> CrmPull:
    destination = destinations.find(session, workspace_id, destination_id)
    if not reads(destination):
        raise Conflict("Nothing can be read back from this kind of destination.")
    _store(session, workspace_id, destination_id)
    row: CrmPull = session.scalars(
        scoped(CrmPull, workspace_id)
        .where(CrmPull.destination_id == destination_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    return row


def open_now() -> Sequence[sa.ColumnElement[bool]]:
    """Rows whose destination may be called: it is on, has not asked for a pause, and its breaker is closed."""
    usable = sa.exists().where(
        Destination.id == CrmPull.destination_id,
        Destination.mode == DestinationMode.LIVE,
        sa.or_(Destination.paused_until.is_(None), Destination.paused_until <= sa.func.now()),
        sa.or_(Destination.open_until.is_(None), Destination.open_until <= sa.func.now()),
    )
    return [CrmPull.enabled.is_(sa.true()), usable]


def has_due(session: Session) -> bool:
    due = sa.or_(
        sa.and_(CrmPull.state == PullState.QUEUED, CrmPull.due_at <= sa.func.now()),
        sa.and_(CrmPull.state == PullState.RUNNING, CrmPull.lease_until < sa.func.now()),
    )
    return bool(session.scalar(sa.select(sa.exists().where(due, *open_now()))))

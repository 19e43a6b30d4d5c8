"""Take an import back, batch by batch: the leads that it brought in, and what it counted on leads that were here.

What somebody has built upon stays and is counted as kept: leads that a person decided, that a delivery may have left
for, that were written again from elsewhere, or whose outcome was reported. Audit events stay in any case.
"""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from webapp.leads import audit, claims
from webapp.leads.claims import LEASE_SECONDS, UNDOS, Claim, Holder, SlotTaken
from webapp.leads.ports import Drained
from webapp.leads.states import DECIDED_STATUSES, DeliveryState, ImportState, RunStatus
from webapp.models.base import interval
from webapp.models.inbound import Import
from webapp.models.lead import Decision, Lead, Person, Presence, Touch
from webapp.models.people import DuplicateSuggestion, PersonMerge
from webapp.models.scoring import LeadOutcome
from webapp.models.work import Delivery, DeliveryAttempt, Run

BATCH = 500
#: Leads that a run worker has in hand are looked at again so much later, in seconds.
_BUSY_SECONDS = 1.0

log = logging.getLogger(__name__)
SessionFactory = sessionmaker[Session]
#: Claims that took nothing back, after which the undo is given up; it may be asked for again.
MAX_TRIES = 5
STOPPED = "Taking it back was stopped by an error of ours. What is gone is gone; press Undo this import to go on."


@dataclass(frozen=True, slots=True)
class Outlook:
    """Leads of an import by what an undo would do with them: ``removed``; kept since a person ``decided`` them; kept
    since they were ``worked_on`` otherwise (delivered, written again, decided once and taken back)."""

    removed: int
    decided: int
    worked_on: int


@dataclass(slots=True)
class _Pass:
    """How far one look at all that hangs on an import is: what it passed over (kept, or in a worker's hands) is not
    looked at again before its end. ``touch``, ``lead``: the last ids seen; ``counted``: the touches are done."""

    touch: uuid.UUID | None = None
    lead: uuid.UUID | None = None
    counted: bool = False


def process_undos(
    session_factory: SessionFactory,
    holder: Holder,
    *,
    max_seconds: float = 5.0,
    batch: int = BATCH,
    stop: Callable[[], bool] = lambda: False,
) -> Drained:
    """Work what is to be undone until none is left, ``max_seconds`` have passed or ``stop()`` says so. ``done`` counts
    leads and touches. Raises SlotTaken, and SQLAlchemy's errors when the database is away."""
    until = time.monotonic() + max_seconds
    done = 0
    while True:
        with session_factory.begin() as session:
            if not claims.is_current(session, holder):
                raise SlotTaken(holder.slot)
            held = claims.claim(session, UNDOS, holder, limit=1, also_set={"tries": Import.tries + 1})
        if not held:
            return Drained(done, False)
        going, at = True, _Pass()
        while going:
            with session_factory.begin() as session:
                step, going = _step(session, held[0], batch, at)
            done += step
            if going and (stop() or time.monotonic() >= until):
                with session_factory.begin() as session:
                    _release(session, held[0])
                going = False
        if stop() or time.monotonic() >= until:
            break
    with session_factory() as session:
        return Drained(done, claims.has_due(session, UNDOS))


def _step(session: Session, claim: Claim, batch: int, at: _Pass) -> tuple[int, bool]:
    """(how much was taken back, whether to go on at once). One transaction, under the import's lock."""
    held = (Import.id == claim.id, Import.attempt == claim.attempt, Import.state == ImportState.UNDOING)
    found = session.scalars(
        sa.select(Import).where(*held).with_for_update().execution_options(populate_existing=True)
    ).first()
    if found is None:
        return 0, False
    found.lease_until = sa.func.now() + interval(LEASE_SECONDS)
    if found.tries > MAX_TRIES:
        _give_up(session, found)
        return 0, False
    if not at.counted and (touches := _take_back_touches(session, found, batch, at)):
        found.tries = 0
        return touches, True
    at.counted = True
    before = at.lead
    removed = _remove_leads(session, found, batch, at)
    if at.lead != before:
        found.undo_removed += removed
        found.tries = 0 if removed else found.tries
        return removed, True
    if touches := _take_back_touches(session, found, batch, _Pass()):  # of leads that were built upon meanwhile
        found.tries = 0
        return touches, True
    if session.scalar(sa.select(sa.exists().where(*_removable(found)))):
        _release(session, claim, seconds=_BUSY_SECONDS)  # in the hands of a run worker at the moment
        return 0, False
    found.undo_kept = session.scalar(sa.select(sa.func.count()).where(*_of(found))) or 0
    found.state, found.undone_at, found.lease_until = ImportState.UNDONE, sa.func.now(), None
    audit.record(
        session,
        found.workspace_id,
        "IMPORT_UNDONE",
        actor=found.undone_by or audit.SYSTEM,
        import_id=str(found.id),
        filename=found.filename,
        removed=found.undo_removed,
        kept=found.undo_kept,
    )
    return 0, False


def _give_up(session: Session, found: Import) -> None:
    log.error("the undo of import %s is given up: %d claims got no further", found.id, MAX_TRIES)
    found.state, found.error, found.lease_until = ImportState.FAILED, STOPPED, None
    audit.record(
        session,
        found.workspace_id,
        "IMPORT_UNDO_FAILED",
        actor=found.undone_by or audit.SYSTEM,
        import_id=str(found.id),
        filename=found.filename,
        removed=found.undo_removed,
    )


def _release(session: Session, claim: Claim, *, seconds: float = 0.0) -> None:
    later = sa.func.now() + interval(seconds)
    session.execute(
        sa.update(Import)
        .where(Import.id == claim.id, Import.attempt == claim.attempt, Import.state == ImportState.UNDOING)
        .values(state=ImportState.UNDO_QUEUED, lease_until=None, due_at=later, tries=0)
        .execution_options(synchronize_session=False)
    )


# Touches


def _take_back_touches(session: Session, found: Import, batch: int, at: _Pass) -> int:
    """Undo the counting on leads that stay; the touches of leads that go, go with them."""
    touches = session.execute(
        sa.select(Touch.id, Touch.lead_id)
        .join(Lead, Lead.id == Touch.lead_id)
        .where(
            Touch.import_id == found.id,
            Touch.workspace_id == found.workspace_id,
            *([Touch.id > at.touch] if at.touch else []),
            sa.or_(Lead.import_id.is_distinct_from(found.id), sa.not_(sa.and_(*_untouched(found)))),
        )
        .order_by(Touch.id)
        .limit(batch)
    ).all()
    if not touches:
        return 0
    at.touch = touches[-1].id
    lead_ids = sorted({touch.lead_id for touch in touches})
    session.execute(sa.select(Lead.id).where(Lead.id.in_(lead_ids)).order_by(Lead.id).with_for_update())
    session.execute(sa.delete(Touch).where(Touch.id.in_([touch.id for touch in touches])))
    times: dict[uuid.UUID, int] = {}
    for touch in touches:
        times[touch.lead_id] = times.get(touch.lead_id, 0) + 1
    counted = sa.values(sa.column("id", sa.Uuid), sa.column("times", sa.Integer), name="counted").data(
        list(times.items())
    )
    latest = sa.select(sa.func.max(Touch.created_at)).where(Touch.lead_id == Lead.id).scalar_subquery()
    session.execute(
        sa.update(Lead)
        .where(Lead.id == counted.c.id)
        .values(
            touches=sa.func.greatest(Lead.touches - counted.c.times, 1),
            last_contact_at=sa.func.coalesce(latest, Lead.created_at),
            updated_at=sa.func.now(),
        )
        .execution_options(synchronize_session=False)
    )
    return len(touches)


# Leads


def _of(found: Import) -> list[sa.ColumnElement[bool]]:
    return [Lead.import_id == found.id, Lead.workspace_id == found.workspace_id]


def _untouched(found: Import) -> list[sa.ColumnElement[bool]]:
    """Leads on which nobody has built: not decided, nothing sent or being sent, not written again from elsewhere, no
    outcome reported."""
    tried = sa.exists().where(DeliveryAttempt.delivery_id == Delivery.id).correlate(Delivery)
    sent = (
        sa.exists()
        .where(
            Delivery.lead_id == Lead.id,
            sa.or_(Delivery.state.not_in([DeliveryState.PENDING, DeliveryState.CANCELLED]), tried),
        )
        .correlate(Lead)
    )
    other = sa.orm.aliased(Touch)
    again = sa.exists().where(other.lead_id == Lead.id, other.import_id.is_distinct_from(found.id)).correlate(Lead)
    return [
        Lead.status.not_in(DECIDED_STATUSES),
        ~sa.exists().where(Decision.lead_id == Lead.id).correlate(Lead),
        ~sent,
        ~again,
        ~sa.exists().where(LeadOutcome.lead_id == Lead.id).correlate(Lead),
    ]


def _removable(found: Import) -> list[sa.ColumnElement[bool]]:
    return [*_of(found), *_untouched(found)]


def outlook(session: Session, found: Import) -> Outlook:
    """What an undo would do now."""
    total = session.scalar(sa.select(sa.func.count()).where(*_of(found))) or 0
    removed = session.scalar(sa.select(sa.func.count()).where(*_removable(found))) or 0
    decided = session.scalar(sa.select(sa.func.count()).where(*_of(found), Lead.status.in_(DECIDED_STATUSES))) or 0
    return Outlook(removed, decided, total - removed - decided)


def _remove_leads(session: Session, found: Import, batch: int, at: _Pass) -> int:
    """Delete up to ``batch`` leads behind ``at.lead``, with all that hangs on them, and move it on. Leads that a worker
    has in hand are passed over."""
    candidates = list(
        session.scalars(
            sa.select(Lead.id)
            .where(*_removable(found), *([Lead.id > at.lead] if at.lead else []))
            .order_by(Lead.id)
            .limit(batch)
            .with_for_update(skip_locked=True, of=Lead)
        )
    )
    if not candidates:
        return 0
    at.lead = candidates[-1]
    # Locked, so that none is claimed from here on; a second look then, since they may have moved before.
    session.execute(sa.select(Run.id).where(Run.lead_id.in_(candidates)).order_by(Run.id).with_for_update())
    session.execute(sa.select(Delivery.id).where(Delivery.lead_id.in_(candidates)).with_for_update())
    working = sa.exists().where(Run.lead_id == Lead.id, Run.status == RunStatus.RUNNING)
    rows = session.execute(
        sa.select(Lead.id, Lead.person_id).where(Lead.id.in_(candidates), *_removable(found), ~working)
    ).all()
    if not rows:
        return 0
    ids = [row.id for row in rows]
    deliveries = sa.select(Delivery.id).where(Delivery.lead_id.in_(ids))
    for statement in (
        sa.delete(DeliveryAttempt).where(DeliveryAttempt.delivery_id.in_(deliveries)),
        sa.delete(Delivery).where(Delivery.lead_id.in_(ids)),
        sa.delete(Presence).where(Presence.lead_id.in_(ids)),
        sa.delete(Touch).where(Touch.lead_id.in_(ids)),
        sa.delete(Run).where(Run.lead_id.in_(ids)),
        sa.delete(Lead).where(Lead.id.in_(ids)),
    ):
        session.execute(statement.execution_options(synchronize_session=False))
    _remove_people(session, {row.person_id for row in rows if row.person_id})
    return len(ids)


def _remove_people(session: Session, ids: set[uuid.UUID]) -> None:
    """Those who have no lead left. Locked first: whoever takes a lead of theirs in holds that lock."""
    held: Sequence[uuid.UUID] = session.scalars(
        sa.select(Person.id).where(Person.id.in_(ids)).order_by(Person.id).with_for_update(skip_locked=True)
    ).all()
    other = sa.orm.aliased(Person)
    alone = (
        Person.id.in_(held),
        Person.merged_into.is_(None),
        ~sa.exists().where(Lead.person_id == Person.id),
        ~sa.exists().where(other.merged_into == Person.id),
        ~sa.exists().where(sa.or_(PersonMerge.kept_id == Person.id, PersonMerge.merged_id == Person.id)),
    )
    gone = list(session.scalars(sa.select(Person.id).where(*alone)))
    session.execute(
        sa.delete(DuplicateSuggestion).where(
            sa.or_(DuplicateSuggestion.person_a_id.in_(gone), DuplicateSuggestion.person_b_id.in_(gone))
        )
    )
    session.execute(sa.delete(Person).where(Person.id.in_(gone)).execution_options(synchronize_session=False))

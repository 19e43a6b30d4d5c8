"""Work re-runs of many leads: queue their runs a bit at a time, see them through, say what came of it.

A bit is one transaction: its runs, their events and how far the list has been read, with the fencing token. A worker
that is killed has queued whole bits, and its successor goes on behind the last one. A lead that has a run waiting gets
no second one.
"""

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from webapp.leads import audit, claims, reruns
from webapp.leads.claims import RERUNS, Claim, Holder, SlotTaken
from webapp.leads.ports import Drained
from webapp.leads.states import RerunState, RunStatus
from webapp.models.base import interval, new_id
from webapp.models.work import Rerun, Run

log = logging.getLogger(__name__)

#: Leads of one transaction.
BIT = 250
#: So many of its runs wait or are under way at a time: enough for all workers, little to take back.
AHEAD = 500
#: Until its runs are looked at again.
LOOK_AGAIN_SECONDS = 1.0


def process(
    session_factory: sessionmaker[Session],
    holder: Holder,
    *,
    max_seconds: float = 5.0,
    stop: Callable[[], bool] = lambda: False,
) -> Drained:
    """Go on with re-runs that are due; ``done`` counts runs queued. Raises SlotTaken."""
    until = time.monotonic() + max_seconds
    done = 0
    while not stop() and time.monotonic() < until:
        with session_factory.begin() as session:
            if not claims.is_current(session, holder):
                raise SlotTaken(holder.slot)
            held = claims.claim(session, RERUNS, holder, limit=1)
        if not held:
            break
        done += _go_on(session_factory, held[0], lambda: stop() or time.monotonic() >= until)
    with session_factory() as session:
        return Drained(done, claims.has_due(session, RERUNS))


def _go_on(session_factory: sessionmaker[Session], claim: Claim, is_time: Callable[[], bool]) -> int:
    done = 0
    while True:
        with session_factory.begin() as session:
            rerun = session.scalar(
                sa.select(Rerun)
                .where(Rerun.id == claim.id, Rerun.attempt == claim.attempt, Rerun.state == RerunState.RUNNING)
                .options(sa.orm.defer(Rerun.lead_ids))
                .with_for_update()
            )
            if rerun is None:
                log.warning("re-run %s was stopped or taken over", claim.id)
                return done
            open_runs = _open_runs(session, rerun.id)
            if rerun.position >= rerun.total and not open_runs:
                _finish(session, rerun)
                return done
            room = min(BIT, AHEAD - open_runs, rerun.total - rerun.position)
            if room > 0:
                done += _queue(session, rerun, room)
                rerun.lease_until = sa.func.now() + interval(claims.LEASE_SECONDS)
            if room <= 0 or is_time():
                rerun.state, rerun.lease_until = RerunState.QUEUED, None
                rerun.due_at = sa.func.now() + interval(LOOK_AGAIN_SECONDS)
                return done


def _open_runs(session: Session, rerun_id: uuid.UUID) -> int:
    waiting = (RunStatus.QUEUED, RunStatus.RUNNING)
    count = sa.select(sa.func.count()).select_from(Run).where(Run.rerun_id == rerun_id, Run.status.in_(waiting))
    return session.scalar(count) or 0


def _queue(session: Session, rerun: Rerun, size: int) -> int:
    """Queue runs of the next ``size`` leads. Returns how many got one."""
    first = rerun.position + 1
    listed = Rerun.lead_ids[first : first + size - 1]
    lead_ids: list[uuid.UUID] = session.scalars(sa.select(listed).where(Rerun.id == rerun.id)).one()
    given = {"rerun_id": rerun.id, "workspace_id": rerun.workspace_id, "lead_ids": lead_ids}
    # Locked first, in a statement of its own: whoever asks for a run of one of them does the same, and the next
    # statement sees what they have committed.
    session.execute(_LOCK, given)
    given |= {"ids": [new_id() for _ in lead_ids], "by": rerun.requested_by, "rank": reruns.RANK}
    queued = session.execute(_QUEUE, given).all()
    for row in queued:
        audit.record(
            session, rerun.workspace_id, "RUN_REQUESTED", actor=rerun.requested_by, lead_id=row.lead_id,
            run_id=str(row.id), rerun_id=str(rerun.id), already_queued=False,
        )  # fmt: skip
    rerun.position += len(lead_ids)
    rerun.queued += len(queued)
    rerun.skipped += len(lead_ids) - len(queued)
    return len(queued)


_LOCK = sa.text(
    "SELECT id FROM leads WHERE id = ANY(:lead_ids) AND workspace_id = :workspace_id ORDER BY id FOR NO KEY UPDATE"
)
_QUEUE = sa.text(
    """
    INSERT INTO runs (id, workspace_id, lead_id, source, trigger, requested_by, rank, payload_json, rerun_id)
    SELECT w.id, l.workspace_id, l.id, l.source, 'rerun', :by, :rank,
           coalesce((SELECT payload_json FROM runs WHERE lead_id = l.id ORDER BY created_at DESC LIMIT 1), '{}'),
           :rerun_id
    FROM unnest(CAST(:ids AS uuid[]), CAST(:lead_ids AS uuid[])) AS w (id, lead_id)
    JOIN leads l ON l.id = w.lead_id AND l.workspace_id = :workspace_id
    WHERE NOT EXISTS (SELECT FROM runs WHERE lead_id = l.id AND status IN ('queued', 'running'))
    ON CONFLICT (rerun_id, lead_id) WHERE rerun_id IS NOT NULL DO NOTHING
    RETURNING id, lead_id
    """
)


def _finish(session: Session, rerun: Rerun) -> None:
    result: dict[str, Any] = reruns.tally(session, rerun.id, final=True)
    rerun.state, rerun.lease_until, rerun.finished_at, rerun.result = RerunState.DONE, None, sa.func.now(), result
    said = {name: result[name] for name in ("succeeded", "failed", "changed")}
    audit.record(
        session, rerun.workspace_id, "RERUN_DONE", actor=rerun.requested_by, rerun_id=str(rerun.id),
        skipped=rerun.skipped, **said,
    )  # fmt: skip

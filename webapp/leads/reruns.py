"""Re-runs of many leads: which ones, what it may cost, asking for it, stopping it, and how far it is.

Which leads is fixed when it is confirmed. ``rerun_work`` queues their runs bit by bit, so that stopping leaves little
behind and live leads go first.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session, defer

from webapp.leads import audit, claims, filters, keyset, run_filters
from webapp.leads.errors import Conflict, Invalid, NotFound
from webapp.leads.filters import LeadFilter
from webapp.leads.run_filters import RunFilter
from webapp.leads.states import RerunState, RunStatus
from webapp.models.base import scoped
from webapp.models.lead import Lead
from webapp.models.work import Rerun, Run

#: Leads of one re-run. More than that is asked for in parts.
MOST = 100_000
#: Where its runs stand among others: behind live ones, and behind imported leads.
RANK = claims.RERUN
#: Finished runs from which the cost of one is measured.
MEASURED = 500
UNDER_WAY = frozenset({RerunState.QUEUED, RerunState.RUNNING})


def leads_of(session: Session, workspace_id: uuid.UUID, wanted: LeadFilter | RunFilter) -> list[uuid.UUID]:
    """Ids of the leads of a filter, or of the runs of a filter, newest first, each once. Invalid above :data:`MOST`."""
    if isinstance(wanted, LeadFilter):
        where = filters.all_conditions(workspace_id, wanted)
        query = sa.select(Lead.id).where(*where).order_by(Lead.created_at.desc(), Lead.id.desc())
    else:
        where = run_filters.conditions(workspace_id, wanted)
        latest = sa.func.max(Run.created_at).desc()
        query = sa.select(Run.lead_id).where(*where).group_by(Run.lead_id).order_by(latest, Run.lead_id)
    found = list(session.scalars(query.limit(MOST + 1)))
    if len(found) > MOST:
        raise Invalid(f"More than {MOST:,} leads match. Narrow the filter, and re-run them in parts.")
    return found


@dataclass(frozen=True, slots=True)
class Cost:
    """What asking the model took in the last runs. ``seen``: runs looked at, of which ``asked`` put a question;
    ``tokens``, ``dollars``: per question, None when nobody said."""

    seen: int = 0
    asked: int = 0
    tokens: float | None = None
    dollars: float | None = None

    def questions(self, runs: int) -> int:
        return round(runs * self.asked / self.seen) if self.seen else 0


def measured_cost(session: Session, workspace_id: uuid.UUID) -> Cost:
    """From the workspace's last :data:`MEASURED` finished runs."""
    row = session.execute(
        sa.text(
            """
            SELECT count(*), count(model), avg((model->>'tokens_in')::float8 + (model->>'tokens_out')::float8),
                   avg((model->>'cost')::float8)
            FROM (
                SELECT (SELECT s->'output'->'model' FROM jsonb_array_elements(stages) AS s
                        WHERE s->>'name' = 'classify' AND s->'output'->'model' ? 'ms' LIMIT 1) AS model
                FROM runs WHERE workspace_id = :workspace_id AND status = 'success'
                ORDER BY created_at DESC, id DESC LIMIT :rows
            ) AS latest
            """
        ),
        {"workspace_id": workspace_id, "rows": MEASURED},
    ).one()
    return Cost(*row)


def start(
    session: Session,
    workspace_id: uuid.UUID,
    lead_ids: list[uuid.UUID],
    *,
    chosen_by: Mapping[str, str],
    requested_by: str,
) -> Rerun:
    """Ask for runs of these leads; the same that is under way already is returned instead. Conflict without leads. The
    caller commits, then rings for imports, whose worker does it."""
    if not lead_ids:
        raise Conflict("No lead matches any more.")
    # Pressing twice finds the first one's.
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"rerun {workspace_id}"))))
    same = scoped(Rerun, workspace_id).where(Rerun.state.in_(UNDER_WAY), Rerun.requested_by == requested_by)
    rerun: Rerun | None = session.scalars(
        same.where(Rerun.filter == dict(chosen_by), Rerun.total == len(lead_ids))
    ).first()
    if rerun is not None:
        return rerun
    rerun = Rerun(
        workspace_id=workspace_id,
        lead_ids=lead_ids,
        total=len(lead_ids),
        filter=dict(chosen_by),
        requested_by=requested_by,
    )
    session.add(rerun)
    session.flush()
    audit.record(
        session, workspace_id, "RERUN_STARTED", actor=requested_by, rerun_id=str(rerun.id), leads=len(lead_ids)
    )
    return rerun


def cancel(session: Session, workspace_id: uuid.UUID, rerun_id: uuid.UUID, *, actor: str) -> int:
    """Stop it: runs that have not begun are taken back, what was done stays. Returns how many were taken back. Conflict
    when it is over. The caller commits."""
    row = session.execute(
        sa.update(Rerun)
        .where(Rerun.id == rerun_id, Rerun.workspace_id == workspace_id, Rerun.state.in_(UNDER_WAY))
        .values(state=RerunState.CANCELLED, cancelled_by=actor, finished_at=sa.func.now(), lease_until=None)
        .returning(Rerun.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        get(session, workspace_id, rerun_id)
        raise Conflict("This re-run is over already.")
    # One that somebody has asked for by itself meanwhile has another rank, and stays.
    untouched = [Run.rerun_id == rerun_id, Run.status == RunStatus.QUEUED, Run.attempt == 0, Run.rank == RANK]
    taken_back = session.execute(
        sa.delete(Run).where(*untouched).returning(Run.id).execution_options(synchronize_session=False)
    ).all()
    audit.record(
        session, workspace_id, "RERUN_CANCELLED", actor=actor, rerun_id=str(rerun_id), taken_back=len(taken_back)
    )
    return len(taken_back)


def get(session: Session, workspace_id: uuid.UUID, rerun_id: uuid.UUID) -> Rerun:
    """Without its leads. NotFound."""
    query = scoped(Rerun, workspace_id).where(Rerun.id == rerun_id).options(defer(Rerun.lead_ids))
    found: Rerun | None = session.scalar(query.execution_options(populate_existing=True))
    if found is None:
        raise NotFound("There is no such re-run in this workspace.")
    return found


def page(session: Session, workspace_id: uuid.UUID, *, cursor: str | None, limit: int = 50) -> keyset.Rows:
    """Newest first."""
    return keyset.newest(
        session,
        scoped(Rerun, workspace_id).options(defer(Rerun.lead_ids)),
        Rerun,
        cursor=cursor,
        limit=limit,
    )


def under_way(session: Session, workspace_id: uuid.UUID) -> list[Rerun]:
    query = scoped(Rerun, workspace_id).where(Rerun.state.in_(UNDER_WAY)).options(defer(Rerun.lead_ids))
    return list(session.scalars(query.order_by(Rerun.created_at)))


@dataclass(frozen=True, slots=True)
class Progress:
    """Of the leads of a re-run. ``changed``: runs after which another status, intent or priority stands; None while it
    is under way."""

    total: int
    skipped: int
    succeeded: int = 0
    failed: int = 0
    waiting: int = 0
    running: int = 0
    changed: int | None = None

    @property
    def done(self) -> int:
        return self.skipped + self.succeeded + self.failed

    @property
    def share(self) -> float:
        return self.done / self.total if self.total else 1.0


def progress(session: Session, rerun: Rerun) -> Progress:
    """How far it is, from its runs; once it is over also what it has changed."""
    if rerun.state is RerunState.DONE and rerun.result:
        return Progress(rerun.total, rerun.skipped, **rerun.result)
    return Progress(rerun.total, rerun.skipped, **tally(session, rerun.id, final=rerun.state not in UNDER_WAY))


def tally(session: Session, rerun_id: uuid.UUID, *, final: bool) -> dict[str, int]:
    """Its runs by where they stand; ``final``: also how many changed their lead."""
    columns = [
        sa.func.count().filter(Run.status == status).label(name)
        for name, status in (
            ("succeeded", RunStatus.SUCCESS),
            ("failed", RunStatus.FAILED),
            ("waiting", RunStatus.QUEUED),
            ("running", RunStatus.RUNNING),
        )
    ]
    if final:
        columns.append(sa.func.count().filter(Run.result_json["changed"].astext == "true").label("changed"))
    return dict(session.execute(sa.select(*columns).where(Run.rerun_id == rerun_id)).one()._mapping)

"""Claiming due rows of background work: leases, fencing tokens, and what a restarting worker takes back.

Rows are the truth; whoever holds a row proves it with its ``attempt`` (the fencing token), which every later UPDATE of
the claim names in its WHERE. A worker that was given up for dead therefore cannot overwrite its successor's work: its
UPDATE matches no row, and it must drop what it did.

All times are PostgreSQL's, so that hosts need not agree on a clock. Nothing here commits: claim, commit, work, save.
"""

import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads.states import (
    DeliveryState,
    FetchState,
    ImportState,
    PullState,
    ReplayState,
    RerunState,
    RunStatus,
    TaskRequestState,
    TextState,
)
from webapp.models.base import interval
from webapp.models.crm import CrmPull
from webapp.models.inbound import Fetch, Import
from webapp.models.work import Delivery, ReplayRequest, Rerun, Run, TaskRequest, TaskText, WorkerSlot

#: Covers only hangs and lost hosts: a restarted worker frees its own claims at once.
LEASE_SECONDS = 30


#: Of a claim, one row in so many is kept for each rank below the first: a quarter of it for the six of them.
SHARE = 24
#: The ranks of runs behind those of live leads (0 to 3, by priority): of leads that came in many at a time, of leads that
#: came in by file, and of many leads that are run again.
FROM_BATCHES, FROM_FILES, RERUN = 5, 9, 10


@dataclass(frozen=True, slots=True)
class Backlog:
    """A table of claimable rows: which column says where a row stands, and in which order rows are taken.

    ``ranks``: those below the first that a share of each claim is kept for, so that none of them starves while more
    urgent work keeps coming.
    """

    name: str
    model: Any
    state: Any
    waiting: str
    working: str
    order: tuple[Any, ...]
    ranks: tuple[int, ...] = ()


RUNS = Backlog(
    "runs", Run, Run.status, RunStatus.QUEUED, RunStatus.RUNNING, (Run.rank, Run.due_at),
    ranks=(1, 2, 3, FROM_BATCHES, FROM_FILES, RERUN),
)  # fmt: skip
DELIVERIES = Backlog(
    "deliveries", Delivery, Delivery.state, DeliveryState.PENDING, DeliveryState.SENDING, (Delivery.due_at,)
)
IMPORTS = Backlog("imports", Import, Import.state, ImportState.QUEUED, ImportState.RUNNING, (Import.due_at,))
#: The same table on its way back: an import that is being undone.
UNDOS = Backlog("undos", Import, Import.state, ImportState.UNDO_QUEUED, ImportState.UNDOING, (Import.due_at,))
FETCHES = Backlog("fetches", Fetch, Fetch.state, FetchState.PENDING, FetchState.FETCHING, (Fetch.due_at,))
TASKS = Backlog(
    "tasks", TaskRequest, TaskRequest.state, TaskRequestState.QUEUED, TaskRequestState.RUNNING, (TaskRequest.due_at,)
)
REPLAYS = Backlog(
    "replays", ReplayRequest, ReplayRequest.state, ReplayState.QUEUED, ReplayState.RUNNING, (ReplayRequest.due_at,)
)
RERUNS = Backlog("reruns", Rerun, Rerun.state, RerunState.QUEUED, RerunState.RUNNING, (Rerun.due_at,))
TEXTS = Backlog("texts", TaskText, TaskText.state, TextState.WANTED, TextState.WRITING, (TaskText.due_at,))
PULLS = Backlog("pulls", CrmPull, CrmPull.state, PullState.QUEUED, PullState.RUNNING, (CrmPull.due_at,))
BACKLOGS = (RUNS, DELIVERIES, IMPORTS, UNDOS, FETCHES, TASKS, RERUNS, TEXTS, REPLAYS, PULLS)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who claims. ``slot`` and ``incarnation`` None: an anonymous worker, covered by the time lease alone."""

    slot: str | None = None
    incarnation: uuid.UUID | None = None
    rq_job_id: str | None = None


_HOLDER = ("slot", "incarnation", "rq_job_id")


class SlotTaken(Exception):
    """Another process has entered this holder's slot since: what it held is not its own any more, and it may claim
    nothing until it has entered a slot again."""

    def __init__(self, slot: str | None) -> None:
        super().__init__(f"worker slot {slot} was taken by another process")
        self.slot = slot


@dataclass(frozen=True, slots=True)
class Claim:
    """A row held: its id and the fencing token of this claim."""

    id: uuid.UUID
    attempt: int


def enter(session: Session, slot: str) -> uuid.UUID:
    """Take ``slot`` with a new incarnation and free what the one before still held. Returns the incarnation."""
    incarnation = uuid.uuid4()
    session.execute(
        sa.text(
            "INSERT INTO worker_slots (slot, incarnation) VALUES (:slot, :incarnation) ON CONFLICT (slot) DO UPDATE "
            "SET incarnation = excluded.incarnation, started_at = now(), seen_at = now()"
        ),
        {"slot": slot, "incarnation": incarnation},
    )
    for backlog in BACKLOGS:
        session.execute(
            sa.update(backlog.model)
            .where(
                backlog.model.slot == slot,
                backlog.model.incarnation != incarnation,
                backlog.state == backlog.working,
            )
            .values({backlog.state.key: backlog.waiting, "lease_until": None, "due_at": sa.func.now()})
            .execution_options(synchronize_session=False)
        )
    return incarnation


def is_current(session: Session, holder: Holder) -> bool:
    """False when another process has taken the holder's slot since: stop working at once."""
    if holder.slot is None:
        return True
    return session.scalar(sa.select(WorkerSlot.incarnation).where(WorkerSlot.slot == holder.slot)) == holder.incarnation


def _due(backlog: Backlog) -> sa.ColumnElement[bool]:
    return sa.or_(
        sa.and_(backlog.state == backlog.waiting, backlog.model.due_at <= sa.func.now()),
        sa.and_(backlog.state == backlog.working, backlog.model.lease_until < sa.func.now()),
    )


def claim(
    session: Session,
    backlog: Backlog,
    holder: Holder,
    *,
    limit: int,
    where: Sequence[sa.ColumnElement[bool]] = (),
    also_set: dict[str, Any] | None = None,
    seconds: float = LEASE_SECONDS,
) -> list[Claim]:
    """Claim up to ``limit`` due rows (and rows whose lease ran out) in the backlog's order, with a share of them for each
    of its lower ranks.

    SKIP LOCKED lets any number of workers claim side by side without waiting for one another.
    """
    kept = shares(backlog, limit)
    return claim_by(
        session, claiming(backlog, where, kept=kept, also_set=also_set), holder, limit=limit, seconds=seconds
    )


def claim_by(
    session: Session, statement: sa.UpdateBase, holder: Holder, *, limit: int, seconds: float, **parameters: Any
) -> list[Claim]:
    """:func:`claim` by a statement of :func:`claiming`, whose conditions take ``parameters``."""
    given = {f"its_{name}": getattr(holder, name) for name in _HOLDER}
    given |= {"limit": limit, "lease": seconds, **parameters}
    return [Claim(row.id, row.attempt) for row in session.execute(statement, given)]


def claiming(
    backlog: Backlog,
    where: Sequence[sa.ColumnElement[bool]] = (),
    *,
    kept: Mapping[int, int] = {},
    also_set: dict[str, Any] | None = None,
) -> sa.UpdateBase:
    """The statement of a claim, to be built once where many are made. ``kept``: rank → rows that are kept for it."""
    model = backlog.model
    ranked = [
        _some(model.id, [_due(backlog), *where, model.rank == rank], (model.due_at,), count, f"rank_{rank}")
        for rank, count in kept.items()
    ]
    condition = [_due(backlog), *where]
    rest: Any = sa.bindparam("limit", type_=sa.Integer())
    if ranked:
        reserved = sa.union_all(*(sa.select(one.c.id) for one in ranked)).cte("reserved")
        condition.append(model.id.not_in(sa.select(reserved.c.id)))
        rest = rest - sa.select(sa.func.count()).select_from(reserved).scalar_subquery()
    due = _some(model.id, condition, backlog.order, rest, "due")
    chosen = sa.select(due.c.id)
    ids = chosen.union_all(sa.select(reserved.c.id)) if ranked else chosen
    lease = interval(sa.bindparam("lease", type_=sa.Float()))
    return (
        sa.update(model)
        .where(model.id.in_(ids))
        .values(
            {
                backlog.state.key: backlog.working,
                "attempt": model.attempt + 1,
                "lease_until": sa.func.now() + lease,
                **{name: sa.bindparam(f"its_{name}", type_=getattr(model, name).type) for name in _HOLDER},
                **(also_set or {}),
            }
        )
        .returning(model.id, model.attempt)
        .execution_options(synchronize_session=False)
    )


def _some(column: Any, where: Sequence[Any], order: Sequence[Any], limit: Any, name: str) -> Any:
    # Materialised, since a plan that ran the sub-select more than once would lock and claim beyond the limit.
    chosen = sa.select(column).where(*where).order_by(*order).limit(limit)
    return chosen.with_for_update(skip_locked=True, of=column.class_).cte(name).prefix_with("MATERIALIZED")


def shares(backlog: Backlog, limit: int) -> dict[int, int]:
    """rank → rows kept for it in a claim of ``limit``. One too small to be shared keeps a row for a rank that chance
    names, once in a while if it is for one row only."""
    if not backlog.ranks:
        return {}
    if limit >= SHARE:
        return dict.fromkeys(backlog.ranks, limit // SHARE)
    if random.random() < limit * len(backlog.ranks) / SHARE:
        return {random.choice(backlog.ranks): 1}
    return {}


def renew(
    session: Session, backlog: Backlog, claims: Sequence[Claim], *, seconds: float = LEASE_SECONDS
) -> set[uuid.UUID]:
    """Push the leases out while the work goes on. Returns the ids that are still held."""
    model = backlog.model
    held = sa.tuple_(model.id, model.attempt).in_([(claim.id, claim.attempt) for claim in claims])
    rows = session.execute(
        sa.update(model)
        .where(held, backlog.state == backlog.working)
        .values(lease_until=sa.func.now() + interval(seconds))
        .returning(model.id)
        .execution_options(synchronize_session=False)
    )
    return {row.id for row in rows}


def has_due(session: Session, backlog: Backlog) -> bool:
    """Is anything due now? The clock rings for it; a drain rings again when its bounds cut it short."""
    return bool(session.scalar(sa.select(sa.exists().where(_due(backlog)))))


class Delays(Protocol):
    """How long failed work is left alone, in seconds."""

    @property
    def retry_delay(self) -> float: ...
    @property
    def max_delay(self) -> float: ...


def backoff(tries: int, policy: Delays) -> float:
    """Seconds until the next try: exponential with full jitter."""
    ceiling: float = min(policy.max_delay, policy.retry_delay * 2 ** min(max(tries - 1, 0), 30))
    return random.uniform(0, ceiling)

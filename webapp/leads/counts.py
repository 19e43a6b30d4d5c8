"""Figures beside the lists: counts that equal the list under the same filter, and the glance above the queue."""

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from webapp.leads.filters import VIEWS, LeadFilter, all_conditions, conditions, inline, of_statuses
from webapp.leads.states import WAITING_STATUSES, DeliveryState, LeadStatus, Priority, QuarantineState, RunStatus
from webapp.models.lead import Lead, Quarantined
from webapp.models.routing import Alert
from webapp.models.work import Delivery, Run

#: Counts are exact up to here, then said to be "10,000+".
COUNT_CAP = 10_000


@dataclass(frozen=True, slots=True)
class Count:
    """How many; ``more``: at least so many. Above :data:`COUNT_CAP` it is always just said to be more."""

    n: int = 0
    more: bool = False

    @property
    def capped(self) -> bool:
        return self.more or self.n > COUNT_CAP

    def __add__(self, other: "Count") -> "Count":
        return Count(self.n + other.n, self.more or other.more)

    def __bool__(self) -> bool:
        return self.n > 0

    def __str__(self) -> str:
        return f"{min(self.n, COUNT_CAP):,}{'+' if self.capped else ''}"


@dataclass(frozen=True, slots=True)
class Counts:
    """Per status under a filter, and how many waiting ones are assigned to whoever asks."""

    by_status: dict[LeadStatus, Count] = field(default_factory=dict)
    mine: Count = Count()

    def of(self, view: str) -> Count:
        """How many rows the list of ``view`` has under the same filter."""
        if view == "mine":
            return self.mine
        statuses = VIEWS[view] or frozenset(LeadStatus)
        return sum((self.by_status.get(status, Count()) for status in statuses), Count())


def counts(session: Session, workspace_id: uuid.UUID, wanted: LeadFilter, *, me: uuid.UUID | None = None) -> Counts:
    """Counts per status of what ``wanted`` asks for besides its own statuses, each exact to :data:`COUNT_CAP`.

    Without a text that is one look per status into the narrow index ix_leads_facets. A text is searched once for all
    of them; when more than :data:`COUNT_CAP` leads match it, every figure is a least one and says so.
    """
    base = conditions(workspace_id, wanted)
    if wanted.text:
        return _counts_of_text(session, base, me)
    parts = {status.value: [*base, *of_statuses(frozenset({status}))] for status in LeadStatus}
    if me:
        parts["mine"] = [*base, *of_statuses(WAITING_STATUSES), Lead.assignee_id == me]
    found = session.execute(sa.select(*(_capped(Lead, where).label(name) for name, where in parts.items()))).one()
    numbers = {name: Count(n) for name, n in found._mapping.items()}
    mine = numbers.pop("mine", Count())
    return Counts({LeadStatus(name): count for name, count in numbers.items()}, mine)


def _counts_of_text(session: Session, base: list[Any], me: uuid.UUID | None) -> Counts:
    some = sa.select(Lead.status, Lead.assignee_id).where(*base).limit(COUNT_CAP + 1).subquery()
    theirs = sa.func.count().filter(some.c.assignee_id == me)
    rows = session.execute(sa.select(some.c.status, sa.func.count(), theirs).group_by(some.c.status)).all()
    found = {status: n for status, n, _ in rows}
    more = sum(found.values()) > COUNT_CAP
    return Counts(
        {status: Count(found.get(status, 0), more) for status in LeadStatus},
        Count(sum(n for status, _, n in rows if status in WAITING_STATUSES), more),
    )


def _capped(model: Any, where: list[Any]) -> Any:
    some = sa.select(sa.literal(1)).select_from(model).where(*where).limit(COUNT_CAP + 1).subquery()
    return sa.select(sa.func.count()).select_from(some).scalar_subquery()


def arrived_since(session: Session, workspace_id: uuid.UUID, wanted: LeadFilter, since: datetime) -> int:
    """How many leads that the list would show have come after ``since`` (at most 100 are counted)."""
    where = [*all_conditions(workspace_id, wanted), Lead.created_at > since]
    some = sa.select(Lead.id).where(*where).order_by(Lead.created_at.desc(), Lead.id.desc()).limit(100).subquery()
    return session.scalar(sa.select(sa.func.count()).select_from(some)) or 0


@dataclass(frozen=True, slots=True)
class Glance:
    """What stands above the queue: how many wait, since when the oldest, and what has failed and is not repaired."""

    waiting: Count
    oldest: datetime | None
    failed_runs: Count
    stuck_deliveries: Count
    held: Count = Count()
    alerts: Count = Count()


STUCK = (DeliveryState.DEAD, DeliveryState.UNCERTAIN)


def unrepaired(workspace_id: uuid.UUID) -> list[Any]:
    """Failed runs whose lead has no later run: what someone still has to look at."""
    later = aliased(Run)
    repeated = sa.exists().where(later.lead_id == Run.lead_id, later.created_at > Run.created_at)
    return [Run.workspace_id == workspace_id, sa.text(f"runs.status = '{RunStatus.FAILED.value}'"), ~repeated]


def stuck(workspace_id: uuid.UUID) -> list[Any]:
    """Deliveries that need a person."""
    listed = ", ".join(f"'{state.value}'" for state in STUCK)
    return [Delivery.workspace_id == workspace_id, sa.text(f"deliveries.state IN ({listed})")]


def held(workspace_id: uuid.UUID) -> list[Any]:
    """Entries that wait in quarantine."""
    return [Quarantined.workspace_id == workspace_id, sa.text(f"quarantine.state = '{QuarantineState.HELD.value}'")]


def unseen(workspace_id: uuid.UUID) -> list[Any]:
    """Alerts that hold, and that nobody has acknowledged yet."""
    return [Alert.workspace_id == workspace_id, sa.text("alerts.state = 'open'")]


def glance(session: Session, workspace_id: uuid.UUID) -> Glance:
    """One statement for all six figures. The oldest is looked up per priority, as the waiting index is sorted."""
    waiting = [Lead.workspace_id == workspace_id, *of_statuses(WAITING_STATUSES)]
    oldest = [
        sa.select(Lead.created_at)
        .where(*waiting, inline(Lead.priority, frozenset({priority})))
        .order_by(Lead.created_at)
        .limit(1)
        .scalar_subquery()
        for priority in Priority
    ]
    row = session.execute(
        sa.select(
            _capped(Lead, waiting),
            sa.func.least(*oldest),
            _capped(Run, unrepaired(workspace_id)),
            _capped(Delivery, stuck(workspace_id)),
            _capped(Quarantined, held(workspace_id)),
            _capped(Alert, unseen(workspace_id)),
        )
    ).one()
    return Glance(Count(row[0]), row[1], *(Count(n) for n in row[2:]))

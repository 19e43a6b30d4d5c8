"""Figures beside the lists: counts that equal the list under the same filter, and the glance above the queue."""

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from webapp.leads.filters import (
    UNSUPPRESSED_VIEWS,
    VIEW_CONDITIONS,
    VIEWS,
    LeadFilter,
    all_conditions,
    conditions,
    inline,
    is_suppressed,
    of_statuses,
    waiting,
)
from webapp.leads.states import (
    DeliveryState,
    LeadStatus,
    Priority,
    QuarantineState,
    RouteState,
    RunStatus,
)
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
    """Per status under a filter, those that the suppression list holds back apart (``suppressed``); how many waiting
    ones are assigned to whoever asks; and the views that ask for more than a status (``VIEW_CONDITIONS``)."""

    by_status: dict[LeadStatus, Count] = field(default_factory=dict)
    mine: Count = Count()
    suppressed: dict[LeadStatus, Count] = field(default_factory=dict)
    views: dict[str, Count] = field(default_factory=dict)

    def of(self, view: str) -> Count:
        """How many rows the list of ``view`` has under the same filter."""
        if view == "mine":
            return self.mine
        if view in VIEW_CONDITIONS:
            return self.views.get(view, Count())
        statuses = VIEWS[view] or frozenset(LeadStatus)
        parts = [] if view == "suppressed" else [self.by_status]
        parts += [] if view in UNSUPPRESSED_VIEWS else [self.suppressed]
        return sum((part.get(status, Count()) for part in parts for status in statuses), Count())


def counts(session: Session, workspace_id: uuid.UUID, wanted: LeadFilter, *, me: uuid.UUID | None = None) -> Counts:
    """Counts per status of what ``wanted`` asks for besides its own statuses, each exact to :data:`COUNT_CAP`.

    Without a text that is one look per status into the narrow index ix_leads_facets. A text is searched once for all
    of them; when more than :data:`COUNT_CAP` leads match it, every figure is a least one and says so.
    """
    base = conditions(workspace_id, wanted)
    if wanted.text:
        return _counts_of_text(session, base, wanted.suppressed, me)
    parts = {
        f"{status.value} {held}": [*base, *of_statuses(frozenset({status})), *is_suppressed(held)]
        for status in LeadStatus
        for held in _held(wanted.suppressed)
    }
    if wanted.suppressed is not True:
        unheld = [*base, *is_suppressed(False)]
        parts |= {view: [*unheld, *of_statuses(VIEWS[view]), more] for view, more in VIEW_CONDITIONS.items()}
    if me and wanted.suppressed is not True:
        parts["mine"] = [*base, *waiting(), Lead.assignee_id == me]
    found = session.execute(sa.select(*(_capped(Lead, where).label(name) for name, where in parts.items()))).one()
    numbers = {name: Count(n) for name, n in found._mapping.items()}
    open_, held_ = (
        {status: numbers.get(f"{status.value} {held}", Count()) for status in LeadStatus} for held in (False, True)
    )
    views = {view: numbers.get(view, Count()) for view in VIEW_CONDITIONS}
    return Counts(open_, numbers.get("mine", Count()), held_, views)


def _held(asked: bool | None) -> tuple[bool, ...]:
    return (False, True) if asked is None else (asked,)


def _counts_of_text(session: Session, base: list[Any], suppressed: bool | None, me: uuid.UUID | None) -> Counts:
    held = Lead.suppression_id.is_not(None).label("held")
    where = [*base, *is_suppressed(suppressed)]
    chosen = (Lead.status, Lead.assignee_id, Lead.route_state, Lead.due_key, held)
    some = sa.select(*chosen).where(*where).limit(COUNT_CAP + 1).subquery()
    further = {
        "mine": some.c.assignee_id == me,
        "overdue": some.c.due_key < sa.func.now(),
        "manual": some.c.route_state == RouteState.MANUAL,
        "backlog": some.c.route_state == RouteState.BACKLOG,
    }
    columns = (some.c.held, some.c.status)
    counted = [sa.func.count().filter(which).label(view) for view, which in further.items()]
    rows = session.execute(sa.select(*columns, sa.func.count().label("n"), *counted).group_by(*columns)).all()
    found = {(row.held, row.status): row.n for row in rows}
    more = sum(found.values()) > COUNT_CAP
    open_, held_ = (
        {status: Count(found.get((held, status), 0), more) for status in LeadStatus} for held in (False, True)
    )
    views = {
        view: Count(sum(getattr(row, view) for row in rows if row.status in VIEWS[view] and not row.held), more)
        for view in further
    }
    return Counts(open_, views.pop("mine"), held_, views)


def _capped(model: Any, where: list[Any]) -> Any:
    some = sa.select(sa.literal(1)).select_from(model).where(*where).limit(COUNT_CAP + 1).subquery()
    return sa.select(sa.func.count()).select_from(some).scalar_subquery()


def how_many(session: Session, model: Any, where: list[Any]) -> Count:
    """Rows of ``model`` under these conditions, exact to :data:`COUNT_CAP`."""
    return Count(session.scalar(sa.select(_capped(model, where))) or 0)


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
    overdue: Count = Count()


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
    """One statement for all seven figures. The oldest is looked up per priority, as the waiting index is sorted."""
    waits = [Lead.workspace_id == workspace_id, *waiting()]
    oldest = [
        sa.select(Lead.created_at)
        .where(*waits, inline(Lead.priority, frozenset({priority})))
        .order_by(Lead.created_at)
        .limit(1)
        .scalar_subquery()
        for priority in Priority
    ]
    row = session.execute(
        sa.select(
            _capped(Lead, waits),
            sa.func.least(*oldest),
            _capped(Run, unrepaired(workspace_id)),
            _capped(Delivery, stuck(workspace_id)),
            _capped(Quarantined, held(workspace_id)),
            _capped(Alert, unseen(workspace_id)),
            _capped(Lead, [*waits, VIEW_CONDITIONS["overdue"]]),
        )
    ).one()
    return Glance(Count(row[0]), row[1], *(Count(n) for n in row[2:]))

"""Figures beside the lists: counts that equal the list under the same filter, and the glance above the queue."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from webapp.leads.filters import (
    HERE,
    UNSUPPRESSED_VIEWS,
    VIEW_CONDITIONS,
    VIEWS,
    Here,
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
    if wanted.text:
        return _counts_of_text(session, conditions(workspace_id, wanted), wanted.suppressed, me)
    return _counts_in(_execute(session, workspace_id, me, of=_besides_its_view(wanted), glance=False))


def counts_and_glance(
    session: Session, workspace_id: uuid.UUID, wanted: LeadFilter, *, me: uuid.UUID | None = None
) -> tuple[Counts, "Glance"]:
    """:func:`counts` and :func:`glance` by one statement, in which nothing is counted twice."""
    of = _besides_its_view(wanted)
    if of.text:
        return counts(session, workspace_id, wanted, me=me), glance(session, workspace_id)
    row = _execute(session, workspace_id, me, of=of, glance=True)
    counted = _counts_in(row)
    return counted, _glance_in(row, counted if of == _EVERYTHING else None)


_EVERYTHING = LeadFilter()
_ME = sa.bindparam("me", type_=sa.Uuid)


def _besides_its_view(wanted: LeadFilter) -> LeadFilter:
    return replace(wanted, view="all", statuses=frozenset(), mine=None, sort="")


def _execute(
    session: Session, workspace_id: uuid.UUID, me: uuid.UUID | None, *, of: LeadFilter | None, glance: bool
) -> dict[str, Any]:
    statement = _statement(of, me is not None, glance, COUNT_CAP)
    values = {"here": workspace_id} | ({"me": me} if me else {})
    return dict(session.execute(statement, values).one()._mapping)


@lru_cache(maxsize=32)  # to put it together takes longer than to run it
def _statement(of: LeadFilter | None, mine: bool, glance: bool, cap: int) -> sa.Select[Any]:
    """One row of figures: counts of what ``of`` narrows to (no text), those of the glance."""
    columns = {name: _capped(Lead, where, cap) for name, where in (_parts(of, mine) if of else {}).items()}
    if glance:
        columns |= _glance_columns(cap, with_leads=of != _EVERYTHING)
    return sa.select(*(column.label(name) for name, column in columns.items()))


def _parts(of: LeadFilter, mine: bool) -> dict[str, list[Any]]:
    base = conditions(HERE, of)
    parts = {
        f"{status.value} {held}": [*base, *of_statuses(frozenset({status})), *is_suppressed(held)]
        for status in LeadStatus
        for held in _held(of.suppressed)
    }
    if of.suppressed is not True:
        unheld = [*base, *is_suppressed(False)]
        parts |= {view: [*unheld, *of_statuses(VIEWS[view]), more] for view, more in VIEW_CONDITIONS.items()}
        if mine:
            parts["mine"] = [*base, *waiting(), Lead.assignee_id == _ME]
    return parts


def _counts_in(row: Mapping[str, Any]) -> Counts:
    def count(name: str) -> Count:
        return Count(row.get(name, 0))

    open_, held_ = ({status: count(f"{status.value} {held}") for status in LeadStatus} for held in (False, True))
    return Counts(open_, count("mine"), held_, {view: count(view) for view in VIEW_CONDITIONS})


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


def _capped(model: Any, where: list[Any], cap: int) -> Any:
    # The limit stands in the text: with a parameter, PostgreSQL cannot plan once for all executions.
    most = sa.literal_column(str(cap + 1), sa.Integer)
    some = sa.select(sa.literal_column("1", sa.Integer)).select_from(model).where(*where).limit(most).subquery()
    return sa.select(sa.func.count()).select_from(some).scalar_subquery()


def how_many(session: Session, model: Any, where: list[Any]) -> Count:
    """Rows of ``model`` under these conditions, exact to :data:`COUNT_CAP`."""
    return Count(session.scalar(sa.select(_capped(model, where, COUNT_CAP))) or 0)


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


def unrepaired(workspace_id: Here) -> list[Any]:
    """Failed runs whose lead has no later run: what someone still has to look at."""
    later = aliased(Run)
    repeated = sa.exists().where(later.lead_id == Run.lead_id, later.created_at > Run.created_at)
    return [Run.workspace_id == workspace_id, sa.text(f"runs.status = '{RunStatus.FAILED.value}'"), ~repeated]


def stuck(workspace_id: Here) -> list[Any]:
    """Deliveries that need a person."""
    listed = ", ".join(f"'{state.value}'" for state in STUCK)
    return [Delivery.workspace_id == workspace_id, sa.text(f"deliveries.state IN ({listed})")]


def held(workspace_id: Here) -> list[Any]:
    """Entries that wait in quarantine."""
    return [Quarantined.workspace_id == workspace_id, sa.text(f"quarantine.state = '{QuarantineState.HELD.value}'")]


def unseen(workspace_id: Here) -> list[Any]:
    """Alerts that hold, and that nobody has acknowledged yet."""
    return [Alert.workspace_id == workspace_id, sa.text("alerts.state = 'open'")]


def glance(session: Session, workspace_id: uuid.UUID) -> Glance:
    """One statement for all seven figures."""
    return _glance_in(_execute(session, workspace_id, None, of=None, glance=True))


def _glance_columns(cap: int, *, with_leads: bool) -> dict[str, Any]:
    """The oldest is looked up per priority, as the waiting index is sorted. ``with_leads``: count them, too."""
    waits = [Lead.workspace_id == HERE, *waiting()]
    oldest = [
        sa.select(Lead.created_at)
        .where(*waits, inline(Lead.priority, frozenset({priority})))
        .order_by(Lead.created_at)
        .limit(sa.literal_column("1", sa.Integer))
        .scalar_subquery()
        for priority in Priority
    ]
    counted: dict[str, tuple[Any, list[Any]]] = {
        "failed_runs": (Run, unrepaired(HERE)),
        "stuck_deliveries": (Delivery, stuck(HERE)),
        "quarantined": (Quarantined, held(HERE)),
        "alerts": (Alert, unseen(HERE)),
    }
    if with_leads:
        counted |= {
            "all_waiting": (Lead, waits),
            "all_overdue": (Lead, [*waits, VIEW_CONDITIONS["overdue"]]),
        }
    columns = {name: _capped(model, where, cap) for name, (model, where) in counted.items()}
    return columns | {"oldest": sa.func.least(*oldest)}


def _glance_in(row: Mapping[str, Any], of_all: Counts | None = None) -> Glance:
    """``of_all``: counts of all leads, where they were made by the same statement."""
    return Glance(
        waiting=of_all.of("waiting") if of_all else Count(row["all_waiting"]),
        oldest=row["oldest"],
        failed_runs=Count(row["failed_runs"]),
        stuck_deliveries=Count(row["stuck_deliveries"]),
        held=Count(row["quarantined"]),
        alerts=Count(row["alerts"]),
        overdue=of_all.of("overdue") if of_all else Count(row["all_overdue"]),
    )

"""The read side of leads: one filter, keyset pages of it, counts that equal the list, and the glance above it.

Shared by the queue page, the CSV export and the JSON API. Every statement names the workspace. Lists never read
the verdict or the whole message; pages are found on ids alone first (index-only where an index covers the filter)
and only the rows that are shown are then fetched.
"""

import base64
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from webapp.leads.errors import Invalid, Problem
from webapp.leads.search import tsquery
from webapp.leads.states import (
    DECIDED_STATUSES,
    WAITING_STATUSES,
    DeliveryState,
    Intent,
    LeadStatus,
    Priority,
    RunStatus,
)
from webapp.models.account import User
from webapp.models.lead import Lead
from webapp.models.work import Delivery, Run

#: Counts are exact up to here, then said to be "10,000+".
COUNT_CAP = 10_000
MAX_LIMIT = 200
#: Characters of a message that a list shows.
EXCERPT = 200
MAX_TEXT = 200

#: A view is a named set of statuses; ``mine`` is also narrowed to whoever asks.
VIEWS: dict[str, frozenset[LeadStatus]] = {
    "waiting": WAITING_STATUSES,
    "escalate": frozenset({LeadStatus.NEW_ESCALATE}),
    "draft": frozenset({LeadStatus.NEW_DRAFT}),
    "auto": frozenset({LeadStatus.NEW_AUTO}),
    "mine": WAITING_STATUSES,
    "decided": DECIDED_STATUSES,
    "approved": frozenset({LeadStatus.APPROVED}),
    "overridden": frozenset({LeadStatus.OVERRIDDEN}),
    "rejected": frozenset({LeadStatus.REJECTED}),
    "all": frozenset(),
}
#: ``urgent``: by priority, then longest waiting first. The others go by the time of arrival.
ORDERS = ("urgent", "newest", "oldest")
UNASSIGNED = "none"


@dataclass(frozen=True, slots=True)
class LeadFilter:
    """Which leads. An empty set or None narrows nothing. ``assignee``: a user, or ``"none"`` for nobody's."""

    view: str = "all"
    statuses: frozenset[LeadStatus] = frozenset()
    intents: frozenset[Intent] = frozenset()
    priorities: frozenset[Priority] = frozenset()
    source: str | None = None
    assignee: uuid.UUID | str | None = None
    text: str = ""
    person_id: uuid.UUID | None = None
    mine: uuid.UUID | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any], *, me: uuid.UUID | None = None, view: str = "all") -> "LeadFilter":
        """From query parameters (``view, status, intent, priority, source, assignee, q, person_id``; several values
        by repeating or by commas). ``me`` is who ``mine`` and ``assignee=me`` mean, ``view`` the default view.
        Invalid names every parameter that is not understood."""
        problems: list[Problem] = []
        view = (_one(given, "view") or view).lower()
        if view not in VIEWS or (view == "mine" and me is None):
            problems.append(Problem("view", f"must be one of {', '.join(VIEWS)}"))
            view = "all"
        statuses = _members(given, "status", LeadStatus, problems)
        return _checked(
            problems,
            view=view,
            statuses=statuses or VIEWS[view],
            intents=_members(given, "intent", Intent, problems),
            priorities=_members(given, "priority", Priority, problems),
            source=_one(given, "source") or None,
            assignee=_assignee(_one(given, "assignee"), me, problems),
            text=" ".join((_one(given, "q") or _one(given, "text")).replace("\x00", " ").split())[:MAX_TEXT],
            person_id=_uuid(_one(given, "person_id"), "person_id", problems),
            mine=me if view == "mine" else None,
        )

    @property
    def narrowed(self) -> bool:
        """Something other than the view narrows the list."""
        return any(getattr(self, f.name) for f in fields(self) if f.name not in ("view", "statuses", "mine"))

    @property
    def order(self) -> str:
        """The order that suits the view: what waits goes by urgency, the rest by time."""
        return "urgent" if self.statuses and self.statuses <= WAITING_STATUSES else "newest"


def _checked(problems: list[Problem], **values: Any) -> LeadFilter:
    if problems:
        raise Invalid("some filters are not understood", details=tuple(problems))
    return LeadFilter(**values)


def _many(given: Mapping[str, Any], name: str) -> list[str]:
    values = given.getlist(name) if hasattr(given, "getlist") else given.get(name, ())
    values = [values] if isinstance(values, str) else values
    return [part.strip() for value in values for part in str(value).split(",") if part.strip()]


def _one(given: Mapping[str, Any], name: str) -> str:
    return str(given.get(name) or "").strip()


def _members(given: Mapping[str, Any], name: str, kind: Any, problems: list[Problem]) -> frozenset[Any]:
    try:
        return frozenset(kind(value) for value in _many(given, name))
    except ValueError:
        problems.append(Problem(name, f"must be one of {', '.join(member.value for member in kind)}"))
        return frozenset()


def _uuid(value: str, name: str, problems: list[Problem]) -> uuid.UUID | None:
    try:
        return uuid.UUID(value) if value else None
    except ValueError:
        problems.append(Problem(name, "must be an id"))
        return None


def _assignee(value: str, me: uuid.UUID | None, problems: list[Problem]) -> uuid.UUID | str | None:
    if value == UNASSIGNED:
        return UNASSIGNED
    return me if value == "me" and me else _uuid(value, "assignee", problems)


def _inline(column: Any, values: frozenset[Any]) -> Any:
    """``column IN (…)`` with the values in the statement's text: a partial index is used only when the planner can
    prove its predicate, which it cannot from parameters. The values are members of closed vocabularies."""
    literals = [sa.literal(value, column.type, literal_execute=True) for value in sorted(values)]
    return column == literals[0] if len(literals) == 1 else sa.or_(*(column == one for one in literals))


def conditions(workspace_id: uuid.UUID, wanted: LeadFilter) -> list[Any]:
    """What ``wanted`` asks for besides its statuses and ``mine``."""
    found: list[Any] = [Lead.workspace_id == workspace_id]
    if wanted.intents:
        found.append(_inline(Lead.intent, wanted.intents))
    if wanted.priorities:
        found.append(_inline(Lead.priority, wanted.priorities))
    if wanted.source:
        found.append(Lead.source == wanted.source)
    if wanted.assignee == UNASSIGNED:
        found.append(Lead.assignee_id.is_(None))
    elif wanted.assignee:
        found.append(Lead.assignee_id == wanted.assignee)
    if wanted.person_id:
        found.append(Lead.person_id == wanted.person_id)
    if wanted.text:
        query = tsquery(wanted.text)
        # Words that hold no letter or digit find nothing, rather than everything.
        found.append(Lead.search.op("@@")(sa.func.to_tsquery("simple", query)) if query else sa.false())
    return found


def _of_statuses(statuses: frozenset[LeadStatus]) -> list[Any]:
    if not statuses:
        return []
    if statuses == WAITING_STATUSES:
        # Spelt as the index ix_leads_waiting spells it.
        listed = ", ".join(f"'{status.value}'" for status in sorted(statuses))
        return [sa.text(f"leads.status IN ({listed})")]
    return [_inline(Lead.status, statuses)]


def _all_conditions(workspace_id: uuid.UUID, wanted: LeadFilter) -> list[Any]:
    found = conditions(workspace_id, wanted) + _of_statuses(wanted.statuses)
    if wanted.mine:
        found.append(Lead.assignee_id == wanted.mine)
    return found


@dataclass(frozen=True, slots=True)
class LeadRow:
    """A lead as a list shows it; ``excerpt`` is the first :data:`EXCERPT` characters of the message."""

    id: uuid.UUID
    created_at: datetime
    name: str | None
    author_name: str | None
    email: str | None
    phone: str | None
    company: str | None
    source: str
    platform: str | None
    lang: str
    excerpt: str
    status: LeadStatus
    intent: Intent
    priority: Priority
    confidence: float
    score: int | None
    version: int
    touches: int
    assignee_id: uuid.UUID | None
    decided_by: str | None
    decided_at: datetime | None
    assignee: str | None = None


_ROW_COLUMNS = [
    *(getattr(Lead, f.name) for f in fields(LeadRow) if f.name not in ("excerpt", "assignee")),
]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. A cursor is None where there is nothing further that way."""

    rows: list[LeadRow]
    next_cursor: str | None
    prev_cursor: str | None


class _Key(NamedTuple):
    columns: tuple[Any, ...]
    kinds: tuple[Any, ...]
    descending: bool


_KEYS = {
    "urgent": _Key((Lead.priority, Lead.created_at, Lead.id), (Priority, datetime.fromisoformat, uuid.UUID), False),
    "newest": _Key((Lead.created_at, Lead.id), (datetime.fromisoformat, uuid.UUID), True),
    "oldest": _Key((Lead.created_at, Lead.id), (datetime.fromisoformat, uuid.UUID), False),
}


def _encode(order: str, back: bool, values: tuple[Any, ...]) -> str:
    plain = [v.isoformat() if isinstance(v, datetime) else str(v) for v in values]
    return base64.urlsafe_b64encode(json.dumps([order, int(back), *plain]).encode()).decode().rstrip("=")


def _decode(cursor: str, order: str) -> tuple[bool, tuple[Any, ...]]:
    """(backwards, key values). Invalid when it is not a cursor that this list has given."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        said, back, *values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        kinds = _KEYS[order].kinds
        if said != order or back not in (0, 1) or len(values) != len(kinds):
            raise ValueError(cursor)
        parsed = tuple(kind(value) for kind, value in zip(kinds, values, strict=True))
        if any(isinstance(v, datetime) and v.tzinfo is None for v in parsed):
            raise ValueError(cursor)
        return bool(back), parsed
    except (ValueError, TypeError, KeyError, AttributeError):
        reason = "is not a cursor of this list; ask for the first page"
        raise Invalid("the page asked for is not understood", details=(Problem("cursor", reason),)) from None


def _beyond(key: _Key, values: tuple[Any, ...], *, descending: bool) -> Any:
    bound = [
        sa.literal(value, column.type, literal_execute=isinstance(value, Priority))
        for column, value in zip(key.columns, values, strict=True)
    ]
    here, there = sa.tuple_(*key.columns), sa.tuple_(*bound)
    return here < there if descending else here > there


def page(
    session: Session,
    workspace_id: uuid.UUID,
    wanted: LeadFilter,
    *,
    cursor: str | None = None,
    limit: int = 50,
    order: str | None = None,
) -> Page:
    """At most ``limit`` rows from ``cursor`` on. Pages neither repeat nor miss a lead that keeps its place, whatever
    is inserted meanwhile. Invalid for a bad cursor, order or limit."""
    order = order or wanted.order
    if order not in ORDERS:
        raise Invalid("unknown order", details=(Problem("order", f"must be one of {', '.join(ORDERS)}"),))
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid("bad limit", details=(Problem("limit", f"must be 1 to {MAX_LIMIT}"),))
    key = _KEYS[order]
    back, values = _decode(cursor, order) if cursor else (False, ())
    descending = key.descending != back
    ids = sa.select(Lead.id).where(*_all_conditions(workspace_id, wanted))
    if values:
        ids = ids.where(_beyond(key, values, descending=descending))
    ids = ids.order_by(*(c.desc() if descending else c.asc() for c in key.columns)).limit(limit + 1)
    rows = _fetch(session, ids, key)
    more = len(rows) > limit
    # Fetched in reading order, so the row too many stands first when reading backwards.
    rows = rows[-limit:] if back else rows[:limit]
    if not rows:
        return Page([], None, None)
    first, last = (tuple(getattr(row, c.key) for c in key.columns) for row in (rows[0], rows[-1]))
    return Page(
        rows,
        next_cursor=_encode(order, False, last) if back or more else None,
        prev_cursor=_encode(order, True, first) if (more if back else bool(cursor)) else None,
    )


def _fetch(session: Session, ids: Any, key: _Key) -> list[LeadRow]:
    """The rows behind ``ids``, in the list's own order."""
    chosen = ids.cte("chosen").prefix_with("MATERIALIZED", dialect="postgresql")
    member = aliased(User)
    query = (
        sa.select(*_ROW_COLUMNS, sa.func.left(Lead.message, EXCERPT).label("excerpt"), member.name.label("assignee"))
        .join(chosen, chosen.c.id == Lead.id)
        .outerjoin(member, member.id == Lead.assignee_id)
        .order_by(*(c.desc() if key.descending else c.asc() for c in key.columns))
    )
    return [LeadRow(**row._mapping) for row in session.execute(query)]


def rows_by_id(session: Session, workspace_id: uuid.UUID, ids: list[uuid.UUID]) -> list[LeadRow]:
    """The list rows of these leads of the workspace, newest first; unknown ids are left out."""
    chosen = sa.select(Lead.id).where(Lead.workspace_id == workspace_id, Lead.id.in_(ids))
    return _fetch(session, chosen, _KEYS["newest"]) if ids else []


def neighbour(session: Session, workspace_id: uuid.UUID, wanted: LeadFilter, lead_id: uuid.UUID) -> uuid.UUID | None:
    """The lead that follows ``lead_id`` in the list, else the one before it; None when it would stand alone."""
    key = _KEYS[wanted.order]
    here = session.execute(sa.select(*key.columns).where(Lead.workspace_id == workspace_id, Lead.id == lead_id)).first()
    if here is None:
        return None
    for descending in (key.descending, not key.descending):
        query = sa.select(Lead.id).where(
            *_all_conditions(workspace_id, wanted), _beyond(key, tuple(here), descending=descending)
        )
        query = query.order_by(*(c.desc() if descending else c.asc() for c in key.columns)).limit(1)
        if found := session.scalar(query):
            return found
    return None


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
    parts = {status.value: [*base, *_of_statuses(frozenset({status}))] for status in LeadStatus}
    if me:
        parts["mine"] = [*base, *_of_statuses(WAITING_STATUSES), Lead.assignee_id == me]
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
    where = [*_all_conditions(workspace_id, wanted), Lead.created_at > since]
    some = sa.select(Lead.id).where(*where).order_by(Lead.created_at.desc(), Lead.id.desc()).limit(100).subquery()
    return session.scalar(sa.select(sa.func.count()).select_from(some)) or 0


@dataclass(frozen=True, slots=True)
class Glance:
    """What stands above the queue: how many wait, since when the oldest, and what has failed and is not repaired."""

    waiting: Count
    oldest: datetime | None
    failed_runs: Count
    stuck_deliveries: Count


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


def glance(session: Session, workspace_id: uuid.UUID) -> Glance:
    """One statement for all four figures. The oldest is looked up per priority, as the waiting index is sorted."""
    waiting = [Lead.workspace_id == workspace_id, *_of_statuses(WAITING_STATUSES)]
    oldest = [
        sa.select(Lead.created_at)
        .where(*waiting, _inline(Lead.priority, frozenset({priority})))
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
        )
    ).one()
    return Glance(Count(row[0]), row[1], Count(row[2]), Count(row[3]))


def sources(session: Session, workspace_id: uuid.UUID, *, newest: int = 500) -> list[str]:
    """Sources of the latest leads, as suggestions for the filter; any other can still be typed."""
    latest = (
        sa.select(Lead.source)
        .where(Lead.workspace_id == workspace_id)
        .order_by(Lead.created_at.desc(), Lead.id.desc())
        .limit(newest)
        .subquery()
    )
    return list(session.scalars(sa.select(latest.c.source).distinct().order_by(latest.c.source)))


def export(session: Session, workspace_id: uuid.UUID, wanted: LeadFilter) -> Iterator[Any]:
    """Every lead of the filter, newest first, with its whole message, fetched in batches as it is read."""
    member = aliased(User)
    columns = [c for c in _ROW_COLUMNS if c.key not in ("version", "assignee_id")]
    query = (
        sa.select(*columns, Lead.message, Lead.next_action, Lead.qualified, member.name.label("assignee"))
        .outerjoin(member, member.id == Lead.assignee_id)
        .where(*_all_conditions(workspace_id, wanted))
        .order_by(Lead.created_at.desc(), Lead.id.desc())
        .execution_options(yield_per=500)
    )
    yield from session.execute(query)

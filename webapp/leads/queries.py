"""The read side of leads: keyset pages of what a filter asks for, and the export.

Shared by the queue page, the CSV export and the JSON API. Every statement names the workspace. Lists never read
the verdict or the whole message; pages are found on ids alone first (index-only where an index covers the filter)
and only the rows that are shown are then fetched. The filter is in ``filters``, figures are in ``counts``; what other
modules use of them is named here too.
"""

import base64
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from webapp.leads.counts import (
    COUNT_CAP,
    Count,
    Counts,
    Glance,
    arrived_since,
    counts,
    counts_and_glance,
    glance,
    stuck,
    unrepaired,
)
from webapp.leads.errors import Invalid, Problem
from webapp.leads.filters import HERE, SORTS, UNASSIGNED, VIEWS, LeadFilter, all_conditions
from webapp.leads.states import Intent, LeadStatus, Priority
from webapp.models.account import User
from webapp.models.lead import Lead

__all__ = [
    "COUNT_CAP",
    "EXCERPT",
    "MAX_LIMIT",
    "ORDERS",
    "UNASSIGNED",
    "VIEWS",
    "Count",
    "Counts",
    "Glance",
    "LeadFilter",
    "LeadRow",
    "Page",
    "arrived_since",
    "counts",
    "counts_and_glance",
    "export",
    "glance",
    "neighbour",
    "page",
    "rows_by_id",
    "sources",
    "stuck",
    "unrepaired",
]

MAX_LIMIT = 200
#: Characters of a message that a list shows.
EXCERPT = 200
ORDERS = SORTS


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
    sla_due_at: datetime | None
    due_key: datetime
    assignee: str | None = None


_assignee = aliased(User)
_MADE: dict[str, Any] = {
    "name": Lead.shown_name.label("name"),
    "excerpt": sa.func.left(Lead.message, EXCERPT).label("excerpt"),
    "assignee": _assignee.name.label("assignee"),
}
#: Put together once: that takes as long as running it.
_SHOWN: sa.Select[Any] = sa.select(
    *(_MADE[f.name] if f.name in _MADE else getattr(Lead, f.name) for f in fields(LeadRow))
).outerjoin(_assignee, _assignee.id == Lead.assignee_id)


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
    "due": _Key((Lead.due_key, Lead.id), (datetime.fromisoformat, uuid.UUID), False),
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


def _place(key: _Key) -> list[sa.BindParameter[Any]]:
    """Parameters of a place in a list; a priority stands in the text, as in the predicates of indexes."""
    return [
        sa.bindparam(f"at_{column.key}", type_=column.type, literal_execute=kind is Priority)
        for column, kind in zip(key.columns, key.kinds, strict=True)
    ]


def _beyond(key: _Key, bound: list[sa.BindParameter[Any]], *, descending: bool) -> Any:
    here, there = sa.tuple_(*key.columns), sa.tuple_(*bound)
    return here < there if descending else here > there


def _placed(key: _Key, values: tuple[Any, ...]) -> dict[str, Any]:
    return {f"at_{column.key}": value for column, value in zip(key.columns, values, strict=True)}


def _ids(wanted: LeadFilter, key: _Key, *, descending: bool, beyond: bool, limit: int) -> sa.Select[Any]:
    """Of a page of the list in the workspace ``here``; with ``beyond``, from a place on."""
    ids = sa.select(Lead.id).where(*all_conditions(HERE, wanted))
    if beyond:
        ids = ids.where(_beyond(key, _place(key), descending=descending))
    ordered = ids.order_by(*(c.desc() if descending else c.asc() for c in key.columns))
    return ordered.limit(sa.literal_column(str(limit), sa.Integer))


@lru_cache(maxsize=64)  # to put it together takes longer than to run it
def _list(wanted: LeadFilter, order: str, descending: bool, beyond: bool, limit: int) -> sa.Select[Any]:
    key = _KEYS[order]
    return _shown(_ids(wanted, key, descending=descending, beyond=beyond, limit=limit), key)


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
    # What people search for is not kept.
    made = _list.__wrapped__ if wanted.text else _list
    rows = _rows(
        session,
        made(replace(wanted, sort=""), order, descending, bool(values), limit + 1),
        {"here": workspace_id} | (_placed(key, values) if values else {}),
    )
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


def _shown(ids: Any, key: _Key) -> sa.Select[Any]:
    """The rows behind ``ids``, in the list's own order."""
    chosen = ids.cte("chosen").prefix_with("MATERIALIZED", dialect="postgresql")
    return _SHOWN.join(chosen, chosen.c.id == Lead.id).order_by(
        *(c.desc() if key.descending else c.asc() for c in key.columns)
    )


def _rows(session: Session, query: sa.Select[Any], values: dict[str, Any] | None = None) -> list[LeadRow]:
    return [LeadRow(*row) for row in session.execute(query, values)]


def rows_by_id(session: Session, workspace_id: uuid.UUID, ids: list[uuid.UUID]) -> list[LeadRow]:
    """The list rows of these leads of the workspace, newest first; unknown ids are left out."""
    chosen = sa.select(Lead.id).where(Lead.workspace_id == workspace_id, Lead.id.in_(ids))
    return _rows(session, _shown(chosen, _KEYS["newest"])) if ids else []


def neighbour(session: Session, workspace_id: uuid.UUID, wanted: LeadFilter, lead_id: uuid.UUID) -> uuid.UUID | None:
    """The lead that follows ``lead_id`` in the list, else the one before it; None when it would stand alone."""
    key = _KEYS[wanted.order]
    here = session.execute(sa.select(*key.columns).where(Lead.workspace_id == workspace_id, Lead.id == lead_id)).first()
    if here is None:
        return None
    for descending in (key.descending, not key.descending):
        query = _ids(wanted, key, descending=descending, beyond=True, limit=1)
        found: uuid.UUID | None = session.scalar(query, {"here": workspace_id} | _placed(key, tuple(here)))
        if found:
            return found
    return None


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
    query = (
        _SHOWN.add_columns(Lead.message, Lead.next_action, Lead.qualified)
        .where(*all_conditions(workspace_id, wanted))
        .order_by(Lead.created_at.desc(), Lead.id.desc())
        .execution_options(yield_per=500)
    )
    yield from session.execute(query)

"""Pages of rows that came one after another, newest first, for programs: a cursor says where the next page begins.
Its spelling is shared with ``webapp.leads.listings``, whose pages can be turned back too."""

import base64
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads.errors import Invalid, Problem


@dataclass(frozen=True, slots=True)
class Rows:
    """One page. ``next_cursor`` None: there is nothing further."""

    rows: list[Any]
    next_cursor: str | None


def newest(session: Session, query: sa.Select[Any], model: Any, *, cursor: str | None, limit: int) -> Rows:
    """At most ``limit`` rows of ``query`` from ``cursor`` on, by (created_at, id) of ``model``, which must be its first
    column. Pages neither repeat nor miss a row. Invalid for a cursor that no such list has given."""
    key = (model.created_at, model.id)
    if cursor:
        back, position = decode(cursor)
        if back:
            raise _unknown()
        here = (sa.literal(value, column.type) for value, column in zip(position, key, strict=True))
        query = query.where(sa.tuple_(*key) < sa.tuple_(*here))
    rows = list(session.execute(query.order_by(*(column.desc() for column in key)).limit(limit + 1)))
    more, rows = len(rows) > limit, rows[:limit]
    return Rows(rows, encode(rows[-1][0]) if more else None)


def encode(row: Any, *, back: bool = False) -> str:
    """The cursor of what comes after ``row`` (has ``created_at`` and ``id``), or with ``back`` before it."""
    plain = f"{int(back)}~{row.created_at.isoformat()}~{row.id}"
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def decode(cursor: str) -> tuple[bool, tuple[datetime, uuid.UUID]]:
    """(back, (created_at, id)) of :func:`encode`. Invalid for anything else."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        back, moment, row_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode().split("~")
        at = datetime.fromisoformat(moment)
        if back not in ("0", "1") or at.tzinfo is None:
            raise ValueError(cursor)
        return back == "1", (at, uuid.UUID(row_id))
    except ValueError:
        raise _unknown() from None


def _unknown() -> Invalid:
    reason = "is not a cursor of this list; ask for the first page"
    return Invalid("The page asked for is not understood.", details=(Problem("cursor", reason),))

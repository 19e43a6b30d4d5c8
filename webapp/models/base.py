"""``db``, naming conventions and the mixins that every table uses."""

import os
import struct
import time
import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

#: A constraint without a name cannot be dropped by a migration; these make every name predictable.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

JSON = dict[str, Any]


class Base(DeclarativeBase):
    metadata = sa.MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: sa.DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
        str: sa.Text,
    }


# Models derive from Base, not from db.Model: plain SQLAlchemy to workers and type checkers, with Flask-SQLAlchemy
# giving the app its session and engine.
db = SQLAlchemy(metadata=Base.metadata, disable_autonaming=True)


def any_of(name: str) -> sa.CollectionAggregate[Any]:
    """For ``column == any_of("ids")``: one of the ids that the statement is executed with. An array, so that it is one
    prepared statement for any number of them."""
    return sa.any_(sa.bindparam(name, type_=sa.ARRAY(sa.Uuid())))


def interval(seconds: Any) -> sa.ColumnElement[Any]:
    """So many seconds, to be added to a moment of PostgreSQL's clock. ``seconds``: a number, or an expression of one."""
    return sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)


_last_tick = 0


def new_id() -> uuid.UUID:
    """UUIDv7 (RFC 9562, section 6.2, method 3): unique everywhere, in order of time, which keeps indexes dense, and
    growing within a thread. Of the time come 48 bits of milliseconds and 12 of their fractions; 62 bits are random."""
    return uuid.UUID(int=_drawn(1)[0])


def new_ids(more: int) -> tuple[uuid.UUID, list[str]]:
    """One, and ``more`` that are only to be written, in hexadecimal as PostgreSQL takes them, which costs a fifth; with one
    question to the clock and one to the source of randomness. Growing in this order."""
    first, *others = _drawn(1 + more)
    return uuid.UUID(int=first), [f"{one:032x}" for one in others]


def id_at(seconds: float) -> uuid.UUID:
    """The least that :func:`new_id` can make at a moment in seconds since 1970: what is later has a larger one."""
    return uuid.UUID(int=int(seconds * 1000) << 80 | 7 << 76 | 2 << 62)


def _drawn(count: int) -> list[int]:
    global _last_tick
    tick = (time.time_ns() << 12) // 1_000_000
    if tick <= _last_tick:  # a race of two threads leaves the order open; that they differ is the random bits' doing
        tick = _last_tick + 1
    _last_tick = tick + count - 1
    return [
        ((tick + n) >> 12) << 80 | 7 << 76 | ((tick + n) & 0xFFF) << 64 | 2 << 62 | drawn >> 2
        for n, drawn in enumerate(struct.unpack(f">{count}Q", os.urandom(8 * count)))
    ]


def enum_column(enum: type[StrEnum], name: str, **kwargs: Any) -> Any:
    """An enum stored by value in a text column, held to its members by a CHECK constraint."""
    kind = sa.Enum(
        enum,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )
    return mapped_column(kind, **kwargs)


class Identified:
    id: Mapped[uuid.UUID] = mapped_column(sa.Uuid, primary_key=True, default=new_id)


class Created:
    created_at: Mapped[datetime] = mapped_column(server_default=sa.func.now())


class InWorkspace:
    """A row that belongs to one workspace; queries go through ``scoped()``."""

    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))


class OfWorkspace:
    """Like :class:`InWorkspace` for rows that intake writes and that hang on their lead already: a foreign key would
    lock the one workspace row once more for each of them, in every concurrent transaction."""

    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.Uuid)


class Claimable:
    """A unit of background work that a worker takes under a lease.

    ``attempt`` is the fencing token: it grows with each claim, and every later UPDATE of the claim names it.
    """

    due_at: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    lease_until: Mapped[datetime | None]
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    slot: Mapped[str | None]
    incarnation: Mapped[uuid.UUID | None]
    rq_job_id: Mapped[str | None]


def scoped(model: Any, workspace_id: uuid.UUID) -> sa.Select[Any]:
    """``SELECT model`` of one workspace. A statement that does not begin here names the workspace itself; that the JSON
    doors keep to it is in tests/api/test_tenancy.py."""
    return sa.select(model).where(model.workspace_id == workspace_id)

"""The suppression list: who is no lead, or must not be treated as one."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from webapp.leads.states import SuppressionKind, SuppressionMatch
from webapp.models.base import JSON, Base, Created, Identified, InWorkspace, enum_column


class Suppression(Identified, InWorkspace, Created, Base):
    """One entry. ``value`` is shown, ``key`` is what leads are compared with (``webapp.leads.suppression``).

    An entry that was taken off or has run out stays, with ``removed_at``, to tell who held a lead back.
    """

    __tablename__ = "suppressions"
    __table_args__ = (
        sa.Index(
            "uq_suppressions_key",
            "workspace_id",
            "match",
            "key",
            unique=True,
            postgresql_where=sa.text("removed_at IS NULL"),
        ),
        sa.Index("ix_suppressions_newest", "workspace_id", sa.text("created_at DESC"), sa.text("id DESC")),
        sa.Index(
            "ix_suppressions_expires_at",
            "expires_at",
            postgresql_where=sa.text("removed_at IS NULL AND expires_at IS NOT NULL"),
        ),
    )

    kind: Mapped[SuppressionKind] = enum_column(SuppressionKind, "kind")
    match: Mapped[SuppressionMatch] = enum_column(SuppressionMatch, "match")
    value: Mapped[str]
    key: Mapped[str]
    reason: Mapped[str | None]
    expires_at: Mapped[datetime | None]
    added_by: Mapped[str]
    removed_at: Mapped[datetime | None]
    removed_by: Mapped[str | None]  # None with a removed_at: it ran out


class SuppressionList(InWorkspace, Base):
    """A workspace's list as a whole. ``version`` grows with every change, so that whoever holds a copy can tell that it
    is old; ``checked_version``: the one that the leads which are here have been compared with. ``walk``: how far such a
    comparison has come (``webapp.leads.suppression_walk``)."""

    __tablename__ = "suppression_lists"

    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"), primary_key=True)
    version: Mapped[int] = mapped_column(sa.BigInteger, default=0, server_default="0")
    checked_version: Mapped[int] = mapped_column(sa.BigInteger, default=0, server_default="0")
    walk: Mapped[JSON | None]

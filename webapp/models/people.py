"""People who may be one: suggestions, and merges that can be taken back."""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from webapp.leads.states import SuggestionState
from webapp.models.base import Base, Created, Identified, InWorkspace, enum_column


class DuplicateSuggestion(Identified, InWorkspace, Created, Base):
    """Two people who look alike; ``person_a_id`` is the smaller id. ``reasons``: in words. A pair that was dismissed
    is not suggested again."""

    __tablename__ = "duplicate_suggestions"
    __table_args__ = (
        sa.UniqueConstraint("person_a_id", "person_b_id"),
        sa.CheckConstraint("person_a_id < person_b_id", name="order"),
        sa.Index("ix_duplicate_suggestions_b", "person_b_id"),
    )

    person_a_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("people.id", ondelete="CASCADE"))
    person_b_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("people.id", ondelete="CASCADE"))
    score: Mapped[float]
    reasons: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    state: Mapped[SuggestionState] = enum_column(SuggestionState, "state", server_default="suggested")
    decided_by: Mapped[str | None]
    decided_at: Mapped[datetime | None]


class PersonMerge(Identified, InWorkspace, Created, Base):
    """A person said that ``merged`` is ``kept``. ``lead_ids``: the leads that moved, which move back on undo."""

    __tablename__ = "person_merges"
    __table_args__ = (
        sa.Index("ix_person_merges_kept_id", "kept_id"),
        # Somebody is merged into one person at a time.
        sa.Index("uq_person_merges_merged_id", "merged_id", unique=True, postgresql_where=sa.text("undone_at IS NULL")),
    )

    kept_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("people.id"))
    merged_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("people.id"))
    lead_ids: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    actor: Mapped[str]
    user_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("users.id"))
    undone_at: Mapped[datetime | None]
    undone_by: Mapped[str | None]

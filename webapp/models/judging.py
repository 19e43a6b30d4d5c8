"""What a workspace changes about the judging of its leads, and what asking models has cost it."""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from webapp.models.base import Base, Created, Identified, InWorkspace, OfWorkspace


class RulesetVersion(Identified, InWorkspace, Created, Base):
    """A workspace's changes to the shipped rules (``leads.ruleset_changes``), never a copy of them: who has changed
    nothing follows the shipped rules at upgrades.

    ``number`` NULL: the draft, of which a workspace has one at most; ``revision`` grows with each change of it. A
    numbered version never changes any more. ``active``: what the workspace's leads are judged by; none: the shipped
    rules as they are. ``base``: version of the shipped rules that it was last checked against.
    """

    __tablename__ = "rulesets"
    __table_args__ = (
        sa.UniqueConstraint("workspace_id", "number"),
        sa.Index("uq_rulesets_draft", "workspace_id", unique=True, postgresql_where=sa.text("number IS NULL")),
        sa.Index("uq_rulesets_active", "workspace_id", unique=True, postgresql_where=sa.text("active")),
        sa.CheckConstraint("(number IS NULL) = (activated_at IS NULL)", name="numbered_when_activated"),
        sa.CheckConstraint("NOT active OR number IS NOT NULL", name="no_active_draft"),
        sa.CheckConstraint("number > 0", name="number"),
    )

    number: Mapped[int | None]
    revision: Mapped[int] = mapped_column(default=0, server_default="0")
    changes: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    base: Mapped[str]
    note: Mapped[str] = mapped_column(default="", server_default="")
    active: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    created_by: Mapped[str]
    updated_by: Mapped[str]
    updated_at: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    activated_by: Mapped[str | None]
    activated_at: Mapped[datetime | None]


class LlmCall(Identified, OfWorkspace, Created, Base):
    """One question put to a language model, its repair included (``calls``). ``tokens_*`` NULL: nobody knows;
    ``estimated``: the other side did not say, they are guessed by length. ``cost``: US dollars, NULL without a price.
    ``error``: why there was no answer to use. It outlives its lead, since it counts for the day's budget."""

    __tablename__ = "llm_calls"
    __table_args__ = (
        sa.Index("ix_llm_calls_day", "workspace_id", "created_at"),
        sa.Index("ix_llm_calls_created_at", "created_at"),
        sa.CheckConstraint("calls > 0 AND ms >= 0", name="counts"),
        sa.CheckConstraint("tokens_in >= 0 AND tokens_out >= 0 AND cost >= 0", name="amounts"),
    )

    lead_id: Mapped[uuid.UUID | None] = mapped_column(sa.Uuid)
    run_id: Mapped[uuid.UUID | None] = mapped_column(sa.Uuid)
    purpose: Mapped[str]  # classify | copywriting | …
    model: Mapped[str]
    calls: Mapped[int] = mapped_column(sa.SmallInteger, default=1, server_default="1")
    ms: Mapped[int]
    tokens_in: Mapped[int | None]
    tokens_out: Mapped[int | None]
    estimated: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    cost: Mapped[float | None]
    error: Mapped[str | None]

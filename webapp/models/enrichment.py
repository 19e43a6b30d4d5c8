"""What enrichment asks of outside services, what they answered, and how they are doing."""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from webapp.leads.states import AnswerState, LookupSubject
from webapp.models.base import JSON, Base, Created, Identified, InWorkspace, enum_column


class EnrichmentProvider(Identified, InWorkspace, Created, Base):
    """A company-data or e-mail-verification service that an admin described: GET ``url`` with ``{domain}`` or
    ``{email}`` in it. ``auth``: where the key goes (none | header | query), under ``auth_name``, after
    ``auth_prefix``; ``secret`` is encrypted. ``mapping``: fact → expression (webapp.leads.paths). ``trust``: confidence
    of what it says. ``version`` grows with each change, so that no answer of before is used any more."""

    __tablename__ = "enrichment_providers"
    __table_args__ = (
        sa.UniqueConstraint("workspace_id", "name"),
        sa.CheckConstraint("trust > 0 AND trust <= 1", name="trust"),
        sa.CheckConstraint("auth IN ('none', 'header', 'query')", name="auth"),
        sa.CheckConstraint("(auth = 'none') OR (auth_name IS NOT NULL AND secret IS NOT NULL)", name="key"),
    )

    subject: Mapped[LookupSubject] = enum_column(LookupSubject, "subject")
    name: Mapped[str]
    enabled: Mapped[bool] = mapped_column(default=True, server_default=sa.true())
    url: Mapped[str]
    auth: Mapped[str] = mapped_column(default="none", server_default="none")
    auth_name: Mapped[str | None]
    auth_prefix: Mapped[str] = mapped_column(default="", server_default="")
    secret: Mapped[str | None]  # encrypted
    mapping: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    trust: Mapped[float] = mapped_column(default=0.8, server_default="0.8")
    version: Mapped[int] = mapped_column(default=1, server_default="1")


class EnrichmentAnswer(Identified, Base):
    """What a provider said of a subject, kept until ``expires_at``. ``workspace_id`` NULL: public data, which serves
    every workspace. ``subject``: a domain, or an e-mail address. ``facts``: list of name, value, confidence, note."""

    __tablename__ = "enrichment_answers"
    __table_args__ = (
        sa.UniqueConstraint("workspace_id", "provider", "subject", postgresql_nulls_not_distinct=True),
        sa.Index("ix_enrichment_answers_expires_at", "expires_at"),
    )

    workspace_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("workspaces.id"))
    provider: Mapped[str]
    subject: Mapped[str]
    state: Mapped[AnswerState] = enum_column(AnswerState, "state")
    facts: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    note: Mapped[str] = mapped_column(default="", server_default="")
    fetched_at: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    expires_at: Mapped[datetime]


class EnrichmentHealth(Identified, Base):
    """A provider's breaker, here so that all workers agree: ``failures`` in a row, and ``open_until`` while it is
    left alone. ``workspace_id`` NULL: a provider that serves every workspace."""

    __tablename__ = "enrichment_health"
    __table_args__ = (sa.UniqueConstraint("workspace_id", "provider", postgresql_nulls_not_distinct=True),)

    workspace_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("workspaces.id"))
    provider: Mapped[str]
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    open_until: Mapped[datetime | None]
    last_error: Mapped[str | None]
    last_error_at: Mapped[datetime | None]
    last_ok_at: Mapped[datetime | None]

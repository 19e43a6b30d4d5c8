"""What became of leads, and how a workspace scores them."""

import uuid
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from webapp.leads.states import DealState, OutcomeSource
from webapp.models.base import JSON, Base, Created, Identified, InWorkspace, enum_column
from webapp.models.work import Destination


class LeadOutcome(Identified, InWorkspace, Created, Base):
    """What somebody reported of the deal that a lead became. Append-only (a trigger refuses UPDATE): the report that
    happened last stands (``webapp.leads.lead_outcomes``).

    ``external_id``: the reporter's name for this report, by which a repeat of it is known again. ``destination_id``,
    ``deal``: the CRM that it was read from, and its id of the deal there.
    """

    __tablename__ = "lead_outcomes"
    __table_args__ = (
        sa.CheckConstraint("value >= 0", name="value"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        sa.CheckConstraint("value IS NULL OR currency IS NOT NULL", name="value_currency"),
        sa.Index("ix_lead_outcomes_lead_id", "lead_id", sa.text("occurred_at DESC"), sa.text("id DESC")),
        sa.Index("ix_lead_outcomes_newest", "workspace_id", sa.text("occurred_at DESC"), sa.text("id DESC")),
        sa.Index(
            "uq_lead_outcomes_external_id",
            "workspace_id",
            "source",
            "external_id",
            unique=True,
            postgresql_where=sa.text("external_id IS NOT NULL"),
        ),
        sa.Index("ix_lead_outcomes_deal", "destination_id", "deal", postgresql_where=sa.text("deal IS NOT NULL")),
        sa.CheckConstraint("(deal IS NULL) = (destination_id IS NULL)", name="deal_of_destination"),
    )

    lead_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("leads.id"))
    outcome: Mapped[DealState] = enum_column(DealState, "outcome")
    stage: Mapped[str | None]  # in the reporter's words
    value: Mapped[Decimal | None] = mapped_column(sa.Numeric(18, 2))
    currency: Mapped[str | None]  # ISO 4217
    source: Mapped[OutcomeSource] = enum_column(OutcomeSource, "source")
    external_id: Mapped[str | None]
    destination_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("destinations.id"))
    deal: Mapped[str | None]
    occurred_at: Mapped[datetime]

    destination: Mapped[Destination | None] = relationship(lazy="raise_on_sql")


class ScoreVersion(Identified, InWorkspace, Created, Base):
    """A workspace's way of scoring as somebody saved it; the highest version stands, and is repeated in
    ``workspaces.settings["score"]``. ``restored_from``: the version it was taken over from, 0 for the shipped one."""

    __tablename__ = "score_versions"
    __table_args__ = (sa.UniqueConstraint("workspace_id", "version"),)

    version: Mapped[int]
    config: Mapped[JSON]
    created_by: Mapped[str]
    restored_from: Mapped[int | None]


class ScoreFallback(InWorkspace, Base):
    """How often a component of the score could not be worked out, and why it was the last time."""

    __tablename__ = "score_fallbacks"

    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"), primary_key=True)
    component: Mapped[str] = mapped_column(primary_key=True)
    times: Mapped[int] = mapped_column(sa.BigInteger)
    last_at: Mapped[datetime]
    last_error: Mapped[str]

"""What is read back from CRMs."""

import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from webapp.leads.states import PullState
from webapp.models.base import JSON, Base, Claimable, Created, Identified, InWorkspace, enum_column


class CrmPull(Identified, InWorkspace, Created, Claimable, Base):
    """The reading back of one destination: what became of leads there, and what was deleted. One row, so one reader.

    ``progress``: how far it is, with the CRM's own cursor (webapp.leads.crm_pulling.Progress). ``won_stages``,
    ``lost_stages``: what the stages of deals mean, as people wrote them. Of the last pull that was finished:
    ``pulled_at``, ``deals_seen`` and ``reports_made``; ``reports_total``: of all of them. ``error``, ``failed_at``: the
    last failure. ``tries``: failures in a row. ``hint``: what the CRM refused to tell in the last pull, in words.
    """

    __tablename__ = "crm_pulls"

    destination_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("destinations.id"), unique=True)
    state: Mapped[PullState] = enum_column(PullState, "state", default=PullState.QUEUED, server_default="queued")
    enabled: Mapped[bool] = mapped_column(default=True, server_default=sa.true())
    won_stages: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    lost_stages: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    progress: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    tries: Mapped[int] = mapped_column(default=0, server_default="0")
    pulled_at: Mapped[datetime | None]
    deals_seen: Mapped[int] = mapped_column(default=0, server_default="0")
    reports_made: Mapped[int] = mapped_column(default=0, server_default="0")
    reports_total: Mapped[int] = mapped_column(default=0, server_default="0")
    error: Mapped[str | None]
    failed_at: Mapped[datetime | None]
    hint: Mapped[str | None]


class DealSighting(Identified, InWorkspace, Created, Base):
    """How a deal stood when it was first seen that is older than all leads of those it is with, and that no lead was told
    of then: only what changes from here on may be a lead's doing."""

    __tablename__ = "deal_sightings"
    __table_args__ = (sa.UniqueConstraint("destination_id", "deal"),)

    destination_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("destinations.id"))
    deal: Mapped[str]
    stage: Mapped[str | None]  # as it was called there

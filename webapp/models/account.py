"""Workspaces, the people who work in them, and the keys that programs use."""

import uuid
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, column_property, mapped_column, relationship

from webapp.leads.states import AUTO_FROM, DRAFT_FROM, Role
from webapp.models.base import JSON, Base, Created, Identified, enum_column
from webapp.models.judging import RulesetVersion


class Workspace(Identified, Created, Base):
    """One tenant. Thresholds are probabilities; ``qualified_from`` is a score 0..100."""

    __tablename__ = "workspaces"
    __table_args__ = (
        sa.CheckConstraint("draft_from > 0 AND draft_from <= auto_from AND auto_from <= 1", name="thresholds"),
        sa.CheckConstraint("qualified_from BETWEEN 0 AND 100", name="qualified_from"),
    )

    name: Mapped[str] = mapped_column(unique=True)
    industry: Mapped[str | None]
    auto_from: Mapped[float] = mapped_column(default=AUTO_FROM, server_default="0.85")
    draft_from: Mapped[float] = mapped_column(default=DRAFT_FROM, server_default="0.70")
    qualified_from: Mapped[int] = mapped_column(default=60, server_default="60")
    currency: Mapped[str] = mapped_column(default="USD", server_default="USD")
    meta_app_secret: Mapped[str | None]  # encrypted
    settings: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    if TYPE_CHECKING:
        ruleset_id: Mapped[uuid.UUID | None]


#: The version of the rules that its leads are judged by; None: the shipped ones as they are.
Workspace.ruleset_id = column_property(
    sa.select(RulesetVersion.id)
    .where(RulesetVersion.workspace_id == Workspace.id, RulesetVersion.active)
    .correlate_except(RulesetVersion)
    .scalar_subquery()
)


class SocialPage(Created, Base):
    """Which workspace a social page's webhooks belong to. ``platform``: facebook (page id) or whatsapp (phone number
    id, or that of the whole account). ``access_token``: encrypted; fetches what a webhook only announces.
    ``token_problem``: why Meta refused it when it was last used or tested, in words; NULL when it did not."""

    __tablename__ = "social_pages"

    platform: Mapped[str] = mapped_column(primary_key=True)
    page_id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"))
    name: Mapped[str | None]
    access_token: Mapped[str | None]
    token_problem: Mapped[str | None]
    token_checked_at: Mapped[datetime | None]
    token_expires_at: Mapped[datetime | None]


class User(Identified, Created, Base):
    """A person who logs in. ``session_epoch`` grows to end all their sessions at once."""

    __tablename__ = "users"

    email: Mapped[str] = mapped_column(unique=True)  # lower case
    name: Mapped[str]
    password_hash: Mapped[str]
    active: Mapped[bool] = mapped_column(default=True, server_default=sa.true())
    session_epoch: Mapped[int] = mapped_column(default=0, server_default="0")
    last_login_at: Mapped[datetime | None]

    memberships: Mapped[list["Membership"]] = relationship(back_populates="user", lazy="raise_on_sql")


class Membership(Created, Base):
    """A user's role in a workspace. ``takes_leads``: routing may give them leads, up to ``capacity`` open ones (NULL:
    any number), in their ``hours`` (a calendar as webapp.leads.hours.Calendar stores it; NULL: their team's)."""

    __tablename__ = "memberships"
    __table_args__ = (sa.CheckConstraint("capacity >= 0", name="capacity"),)

    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"), primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("users.id"), primary_key=True, index=True)
    role: Mapped[Role] = enum_column(Role, "role")
    takes_leads: Mapped[bool] = mapped_column(default=True, server_default=sa.true())
    capacity: Mapped[int | None]
    hours: Mapped[JSON | None] = mapped_column(JSONB(none_as_null=True))

    user: Mapped[User] = relationship(back_populates="memberships", lazy="raise_on_sql")
    workspace: Mapped[Workspace] = relationship(lazy="raise_on_sql")


class ApiKey(Identified, Created, Base):
    """256 random bits, stored as SHA-256. ``workspace_id`` None: a platform key. ``prefix`` is for people to tell
    keys apart."""

    __tablename__ = "api_keys"
    __table_args__ = (
        sa.CheckConstraint("workspace_id IS NOT NULL OR scopes = ARRAY['platform']::text[]", name="platform"),
    )

    workspace_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("workspaces.id"), index=True)
    name: Mapped[str]
    prefix: Mapped[str]
    key_hash: Mapped[bytes] = mapped_column(unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    rate_limited: Mapped[bool] = mapped_column(default=True, server_default=sa.true())
    limit_max: Mapped[int | None]  # requests a window; NULL: the setting's
    limit_burst: Mapped[int | None]  # requests a second
    limit_day: Mapped[int | None]  # requests a day (UTC)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]

"""Who gets leads: teams, their members, the rules that choose a team, absences. And alerts: what admins should see to."""

import uuid
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from webapp.leads.states import AlertState, TeamPolicy
from webapp.models.base import JSON, Base, Created, Identified, InWorkspace, enum_column

#: A member of a workspace; whoever leaves it leaves its teams too.
_MEMBERSHIP = {
    "columns": ["workspace_id", "user_id"],
    "refcolumns": ["memberships.workspace_id", "memberships.user_id"],
}


class Team(Identified, InWorkspace, Created, Base):
    """Members who share work. ``policy``: who of those that are there is next. ``hours``: a calendar as
    webapp.leads.hours.Calendar stores it; NULL: the workspace's."""

    __tablename__ = "teams"
    __table_args__ = (sa.UniqueConstraint("workspace_id", "name"),)

    name: Mapped[str]
    policy: Mapped[TeamPolicy] = enum_column(
        TeamPolicy, "policy", default=TeamPolicy.LEAST_LOADED, server_default="least_loaded"
    )
    hours: Mapped[JSON | None] = mapped_column(JSONB(none_as_null=True))


class TeamMember(Created, Base):
    """Somebody's place in a team. ``weight``: their share under the weighted policy. ``last_given_at``: when the team
    last gave them a lead; round robin goes by it, so that any number of workers take turns."""

    __tablename__ = "team_members"
    __table_args__ = (
        sa.ForeignKeyConstraint(**_MEMBERSHIP, ondelete="CASCADE"),
        sa.CheckConstraint("weight BETWEEN 1 AND 100", name="weight"),
        sa.Index("ix_team_members_member", "workspace_id", "user_id"),
    )

    team_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(sa.Uuid, primary_key=True)
    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.Uuid)
    weight: Mapped[int] = mapped_column(sa.SmallInteger, default=1, server_default="1")
    last_given_at: Mapped[datetime | None]


class RoutingRule(Identified, InWorkspace, Created, Base):
    """Leads of which all ``conditions`` hold go to the team; the first active rule by ``position`` counts.

    ``conditions``: name → list of values, any of which will do (webapp.leads.stages.route.CONDITIONS); none: every lead.
    """

    __tablename__ = "routing_rules"
    __table_args__ = (sa.Index("ix_routing_rules_order", "workspace_id", "position"),)

    position: Mapped[int]
    name: Mapped[str]
    conditions: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    team_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("teams.id"), index=True)
    active: Mapped[bool] = mapped_column(default=True, server_default=sa.true())


class Absence(Identified, Created, Base):
    """Days on which a member gets no leads, both inclusive, by their own time zone."""

    __tablename__ = "absences"
    __table_args__ = (
        sa.ForeignKeyConstraint(**_MEMBERSHIP, ondelete="CASCADE"),
        sa.CheckConstraint("last_day >= first_day", name="days"),
        sa.Index("ix_absences_member", "workspace_id", "user_id", "last_day"),
    )

    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.Uuid)
    user_id: Mapped[uuid.UUID] = mapped_column(sa.Uuid)
    first_day: Mapped[date]
    last_day: Mapped[date]
    note: Mapped[str | None]


class Alert(Identified, InWorkspace, Created, Base):
    """Something that admins should see to. What happens again while it stands is counted on it.

    ``kind``: what it is about (words in webapp.views.words.ALERT), ``key``: which of them, such as a destination's id.
    ``link``: the path of the page where it is put right. ``notified_at``: when it was last sent to where the workspace
    wants alerts; NULL asks for it.
    """

    __tablename__ = "alerts"
    __table_args__ = (
        sa.CheckConstraint("kind ~ '^[a-z][a-z_]{0,39}$'", name="kind"),
        sa.CheckConstraint("link IS NULL OR link ~ '^/[^/]' OR link = '/'", name="link"),
        sa.CheckConstraint("times > 0", name="times"),
        sa.CheckConstraint("(state = 'resolved') = (resolved_at IS NOT NULL)", name="resolved"),
        sa.Index(
            "uq_alerts_standing",
            "workspace_id",
            "kind",
            "key",
            unique=True,
            postgresql_where=sa.text("state IN ('open', 'acknowledged')"),
        ),
        sa.Index("ix_alerts_newest", "workspace_id", sa.text("created_at DESC"), sa.text("id DESC")),
        sa.Index("ix_alerts_to_notify", "id", postgresql_where=sa.text("state = 'open' AND notified_at IS NULL")),
    )

    kind: Mapped[str]
    key: Mapped[str]
    message: Mapped[str]
    link: Mapped[str | None]
    state: Mapped[AlertState] = enum_column(AlertState, "state", default=AlertState.OPEN, server_default="open")
    times: Mapped[int] = mapped_column(default=1, server_default="1")
    last_at: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    acknowledged_by: Mapped[str | None]
    acknowledged_at: Mapped[datetime | None]
    resolved_by: Mapped[str | None]
    resolved_at: Mapped[datetime | None]
    notified_at: Mapped[datetime | None]

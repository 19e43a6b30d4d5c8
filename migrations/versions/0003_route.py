"""routing: alerts, teams, rules, absences, hours, capacity; when a lead is due and why nobody has it

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_OPEN = "status IN ('new_auto', 'new_draft', 'new_escalate')"


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("link", sa.Text(), nullable=True),
        sa.Column(
            "state",
            sa.Enum(
                "open", "acknowledged", "resolved", name="state", native_enum=False, create_constraint=True, length=32
            ),
            server_default="open",
            nullable=False,
        ),
        sa.Column("times", sa.Integer(), server_default="1", nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("acknowledged_by", sa.Text(), nullable=True),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolved_by", sa.Text(), nullable=True),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("notified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(state = 'resolved') = (resolved_at IS NOT NULL)", name=op.f("ck_alerts_resolved")),
        sa.CheckConstraint("kind ~ '^[a-z][a-z_]{0,39}$'", name=op.f("ck_alerts_kind")),
        sa.CheckConstraint("link IS NULL OR link ~ '^/[^/]' OR link = '/'", name=op.f("ck_alerts_link")),
        sa.CheckConstraint("times > 0", name=op.f("ck_alerts_times")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_alerts_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
    )
    op.create_index(
        "ix_alerts_newest",
        "alerts",
        ["workspace_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_alerts_to_notify",
        "alerts",
        ["id"],
        unique=False,
        postgresql_where=sa.text("state = 'open' AND notified_at IS NULL"),
    )
    op.create_index(
        "uq_alerts_standing",
        "alerts",
        ["workspace_id", "kind", "key"],
        unique=True,
        postgresql_where=sa.text("state IN ('open', 'acknowledged')"),
    )
    op.create_table(
        "teams",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "policy",
            sa.Enum(
                "least_loaded",
                "round_robin",
                "weighted",
                name="policy",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="least_loaded",
            nullable=False,
        ),
        sa.Column("hours", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_teams_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_teams")),
        sa.UniqueConstraint("workspace_id", "name", name=op.f("uq_teams_workspace_id_name")),
    )
    op.create_table(
        "absences",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("first_day", sa.Date(), nullable=False),
        sa.Column("last_day", sa.Date(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("last_day >= first_day", name=op.f("ck_absences_days")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "user_id"],
            ["memberships.workspace_id", "memberships.user_id"],
            name=op.f("fk_absences_workspace_id_user_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_absences")),
    )
    op.create_index("ix_absences_member", "absences", ["workspace_id", "user_id", "last_day"], unique=False)
    op.create_table(
        "routing_rules",
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("conditions", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_routing_rules_team_id")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_routing_rules_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_routing_rules")),
    )
    op.create_index("ix_routing_rules_order", "routing_rules", ["workspace_id", "position"], unique=False)
    op.create_index(op.f("ix_routing_rules_team_id"), "routing_rules", ["team_id"], unique=False)
    op.create_table(
        "team_members",
        sa.Column("team_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("weight", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("last_given_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("weight BETWEEN 1 AND 100", name=op.f("ck_team_members_weight")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_team_members_team_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["workspace_id", "user_id"],
            ["memberships.workspace_id", "memberships.user_id"],
            name=op.f("fk_team_members_workspace_id_user_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("team_id", "user_id", name=op.f("pk_team_members")),
    )
    op.create_index("ix_team_members_member", "team_members", ["workspace_id", "user_id"], unique=False)
    op.add_column("leads", sa.Column("team_id", sa.Uuid(), nullable=True))
    op.add_column("leads", sa.Column("route_state", sa.String(32), nullable=True))
    op.add_column("leads", sa.Column("route_reason", sa.Text(), nullable=True))
    op.add_column("leads", sa.Column("sla_due_at", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(op.f("ck_leads_route_state"), "leads", "route_state IN ('backlog', 'manual')")
    op.add_column("leads", sa.Column("sla_since", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_leads_sla",
        "leads",
        ["workspace_id", sa.literal_column("coalesce(sla_due_at, '9999-12-31 00:00:00+00'::timestamptz)"), "id"],
        unique=False,
        postgresql_where=sa.text("status IN ('new_draft', 'new_escalate')"),
    )
    op.create_index(
        "ix_leads_unrouted",
        "leads",
        ["workspace_id", "route_state", "priority", "created_at", "id"],
        unique=False,
        postgresql_where=sa.text(f"route_state IS NOT NULL AND {_OPEN}"),
    )
    op.create_index(
        "ix_leads_backlog",
        "leads",
        ["workspace_id", "team_id", "created_at", "id"],
        unique=False,
        postgresql_where=sa.text(f"route_state = 'backlog' AND {_OPEN}"),
    )
    op.create_index(
        "ix_leads_owned",
        "leads",
        ["person_id", sa.literal_column("created_at DESC")],
        unique=False,
        postgresql_where=sa.text("assignee_id IS NOT NULL"),
    )
    # Leads that wait already are told when they are due by the clock, which knows the working hours.
    op.execute(
        "UPDATE workspaces SET settings = settings || "
        '\'{"sla_refresh": "00000000-0000-0000-0000-000000000000"}\'::jsonb'
    )
    op.add_column("memberships", sa.Column("capacity", sa.Integer(), nullable=True))
    op.create_check_constraint(op.f("ck_memberships_capacity"), "memberships", "capacity >= 0")
    op.add_column(
        "memberships", sa.Column("hours", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True)
    )


def downgrade() -> None:
    op.execute("UPDATE workspaces SET settings = settings - 'sla_refresh'")
    op.drop_column("memberships", "hours")
    op.drop_column("memberships", "capacity")
    op.drop_index(
        "ix_leads_unrouted", table_name="leads", postgresql_where=sa.text(f"route_state IS NOT NULL AND {_OPEN}")
    )
    op.drop_index(
        "ix_leads_sla", table_name="leads", postgresql_where=sa.text("status IN ('new_draft', 'new_escalate')")
    )
    op.drop_index("ix_leads_owned", table_name="leads", postgresql_where=sa.text("assignee_id IS NOT NULL"))
    op.drop_index(
        "ix_leads_backlog", table_name="leads", postgresql_where=sa.text(f"route_state = 'backlog' AND {_OPEN}")
    )
    op.drop_column("leads", "sla_since")
    op.drop_column("leads", "sla_due_at")
    op.drop_column("leads", "route_reason")
    op.drop_column("leads", "route_state")
    op.drop_column("leads", "team_id")
    op.drop_index("ix_team_members_member", table_name="team_members")
    op.drop_table("team_members")
    op.drop_index(op.f("ix_routing_rules_team_id"), table_name="routing_rules")
    op.drop_index("ix_routing_rules_order", table_name="routing_rules")
    op.drop_table("routing_rules")
    op.drop_index("ix_absences_member", table_name="absences")
    op.drop_table("absences")
    op.drop_table("teams")
    op.drop_index(
        "uq_alerts_standing", table_name="alerts", postgresql_where=sa.text("state IN ('open', 'acknowledged')")
    )
    op.drop_index(
        "ix_alerts_to_notify", table_name="alerts", postgresql_where=sa.text("state = 'open' AND notified_at IS NULL")
    )
    op.drop_index("ix_alerts_newest", table_name="alerts")
    op.drop_table("alerts")

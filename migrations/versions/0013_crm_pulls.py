"""what became of leads is read back from CRMs

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "crm_pulls",
        sa.Column("destination_id", sa.Uuid(), nullable=False),
        sa.Column(
            "state",
            sa.Enum("queued", "running", name="state", native_enum=False, length=32),
            server_default="queued",
            nullable=False,
        ),
        sa.Column("enabled", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("won_stages", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("lost_stages", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("progress", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("pulled_at", sa.DateTime(timezone=True)),
        sa.Column("deals_seen", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reports_made", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reports_total", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("failed_at", sa.DateTime(timezone=True)),
        sa.Column("hint", sa.Text()),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("slot", sa.Text()),
        sa.Column("incarnation", sa.Uuid()),
        sa.Column("rq_job_id", sa.Text()),
        sa.CheckConstraint("state IN ('queued', 'running')", name=op.f("ck_crm_pulls_state")),
        sa.ForeignKeyConstraint(
            ["destination_id"], ["destinations.id"], name=op.f("fk_crm_pulls_destination_id_destinations")
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_crm_pulls_workspace_id_workspaces")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crm_pulls")),
        sa.UniqueConstraint("destination_id", name=op.f("uq_crm_pulls_destination_id")),
    )
    op.create_table(
        "deal_sightings",
        sa.Column("destination_id", sa.Uuid(), nullable=False),
        sa.Column("deal", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text()),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["destination_id"], ["destinations.id"], name=op.f("fk_deal_sightings_destination_id_destinations")
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_deal_sightings_workspace_id_workspaces")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deal_sightings")),
        sa.UniqueConstraint("destination_id", "deal", name=op.f("uq_deal_sightings_destination_id_deal")),
    )
    op.add_column("deliveries", sa.Column("deleted_there_at", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_deliveries_there",
        "deliveries",
        ["destination_id", "action", "remote_id"],
        postgresql_where=sa.text("action IN ('person', 'company', 'task') AND remote_id IS NOT NULL"),
    )
    op.create_index(
        "ix_deliveries_deleted_there",
        "deliveries",
        ["destination_id", "action", "remote_id"],
        postgresql_where=sa.text("deleted_there_at IS NOT NULL"),
    )
    op.create_index(
        "ix_deliveries_arrived",
        "deliveries",
        ["destination_id", "delivered_at", "id"],
        postgresql_where=sa.text("action IN ('person', 'company') AND delivered_at IS NOT NULL"),
    )
    op.add_column("lead_outcomes", sa.Column("destination_id", sa.Uuid()))
    op.add_column("lead_outcomes", sa.Column("deal", sa.Text()))
    op.create_foreign_key(
        op.f("fk_lead_outcomes_destination_id_destinations"),
        "lead_outcomes",
        "destinations",
        ["destination_id"],
        ["id"],
    )
    op.create_check_constraint(
        op.f("ck_lead_outcomes_deal_of_destination"), "lead_outcomes", "(deal IS NULL) = (destination_id IS NULL)"
    )
    op.create_index(
        "ix_lead_outcomes_deal",
        "lead_outcomes",
        ["destination_id", "deal"],
        postgresql_where=sa.text("deal IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_lead_outcomes_deal", "lead_outcomes")
    op.drop_column("lead_outcomes", "deal")
    op.drop_column("lead_outcomes", "destination_id")
    op.drop_index("ix_deliveries_arrived", "deliveries")
    op.drop_index("ix_deliveries_deleted_there", "deliveries")
    op.drop_index("ix_deliveries_there", "deliveries")
    op.drop_column("deliveries", "deleted_there_at")
    op.drop_table("deal_sightings")
    op.drop_table("crm_pulls")

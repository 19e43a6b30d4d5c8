"""scoring: outcomes of leads, versions of how a workspace scores, the suppression list

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_WAITING = "status IN ('new_draft', 'new_escalate')"
_FACETS = ["workspace_id", "status", "priority", "intent", "source", "assignee_id"]


def _enum(name: str, *members: str) -> sa.Enum:
    return sa.Enum(*members, name=name, native_enum=False, create_constraint=True, length=32)


def _jsonb() -> postgresql.JSONB:
    return postgresql.JSONB(astext_type=sa.Text())


def _moment(name: str, *, nullable: bool = True, now: bool = False) -> sa.Column:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=nullable)


def _workspace(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f(f"fk_{table}_workspace_id"))


def upgrade() -> None:
    op.create_table(
        "lead_outcomes",
        sa.Column("lead_id", sa.Uuid(), nullable=False),
        sa.Column("outcome", _enum("outcome", "open", "won", "lost"), nullable=False),
        sa.Column("stage", sa.Text(), nullable=True),
        sa.Column("value", sa.Numeric(18, 2), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("source", _enum("source", "api", "crm"), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=True),
        _moment("occurred_at", nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        _moment("created_at", nullable=False, now=True),
        sa.CheckConstraint("value >= 0", name=op.f("ck_lead_outcomes_value")),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_lead_outcomes_currency")),
        sa.CheckConstraint("value IS NULL OR currency IS NOT NULL", name=op.f("ck_lead_outcomes_value_currency")),
        sa.ForeignKeyConstraint(["lead_id"], ["leads.id"], name=op.f("fk_lead_outcomes_lead_id")),
        _workspace("lead_outcomes"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lead_outcomes")),
    )
    op.create_index(
        "ix_lead_outcomes_lead_id", "lead_outcomes", ["lead_id", sa.text("occurred_at DESC"), sa.text("id DESC")]
    )
    op.create_index(
        "ix_lead_outcomes_newest", "lead_outcomes", ["workspace_id", sa.text("occurred_at DESC"), sa.text("id DESC")]
    )
    op.create_index(
        "uq_lead_outcomes_external_id",
        "lead_outcomes",
        ["workspace_id", "source", "external_id"],
        unique=True,
        postgresql_where=sa.text("external_id IS NOT NULL"),
    )
    op.execute(
        """
        CREATE FUNCTION outcomes_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          RAISE EXCEPTION 'outcomes are append-only' USING ERRCODE = 'restrict_violation';
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER lead_outcomes_append_only BEFORE UPDATE ON lead_outcomes "
        "FOR EACH ROW EXECUTE FUNCTION outcomes_are_append_only()"
    )
    op.create_table(
        "score_versions",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("config", _jsonb(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("restored_from", sa.Integer(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        _moment("created_at", nullable=False, now=True),
        _workspace("score_versions"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_score_versions")),
        sa.UniqueConstraint("workspace_id", "version", name=op.f("uq_score_versions_workspace_id_version")),
    )
    op.create_table(
        "score_fallbacks",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("component", sa.Text(), nullable=False),
        sa.Column("times", sa.BigInteger(), nullable=False),
        _moment("last_at", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        _workspace("score_fallbacks"),
        sa.PrimaryKeyConstraint("workspace_id", "component", name=op.f("pk_score_fallbacks")),
    )
    op.create_table(
        "suppressions",
        sa.Column("kind", _enum("kind", "own_staff", "competitor", "test", "other"), nullable=False),
        sa.Column("match", _enum("match", "email", "domain", "phone", "pattern"), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        _moment("expires_at"),
        sa.Column("added_by", sa.Text(), nullable=False),
        _moment("removed_at"),
        sa.Column("removed_by", sa.Text(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        _moment("created_at", nullable=False, now=True),
        _workspace("suppressions"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suppressions")),
    )
    op.create_index(
        "uq_suppressions_key",
        "suppressions",
        ["workspace_id", "match", "key"],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.create_index(
        "ix_suppressions_newest", "suppressions", ["workspace_id", sa.text("created_at DESC"), sa.text("id DESC")]
    )
    op.create_index(
        "ix_suppressions_expires_at",
        "suppressions",
        ["expires_at"],
        postgresql_where=sa.text("removed_at IS NULL AND expires_at IS NOT NULL"),
    )
    op.create_table(
        "suppression_lists",
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("checked_version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("walk", _jsonb(), nullable=True),
        _workspace("suppression_lists"),
        sa.PrimaryKeyConstraint("workspace_id", name=op.f("pk_suppression_lists")),
    )
    op.add_column("leads", sa.Column("suppression_id", sa.Uuid(), nullable=True))
    op.add_column("leads", sa.Column("rescore_at", sa.DateTime(timezone=True), nullable=True))
    # Both anew: what is held back waits for nobody, and is counted apart.
    op.drop_index("ix_leads_waiting", table_name="leads")
    op.create_index(
        "ix_leads_waiting",
        "leads",
        ["workspace_id", "priority", "created_at", "id"],
        postgresql_where=sa.text(f"{_WAITING} AND suppression_id IS NULL"),
    )
    op.drop_index("ix_leads_facets", table_name="leads")
    op.create_index("ix_leads_facets", "leads", [*_FACETS, "suppression_id"])
    op.create_index(
        "ix_leads_suppressed",
        "leads",
        ["workspace_id", "suppression_id", "status", sa.text("created_at DESC"), sa.text("id DESC")],
        postgresql_where=sa.text("suppression_id IS NOT NULL"),
    )
    op.create_index(
        "ix_leads_rescore_at",
        "leads",
        ["rescore_at"],
        postgresql_where=sa.text(f"{_WAITING} AND rescore_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_leads_rescore_at", table_name="leads")
    op.drop_index("ix_leads_suppressed", table_name="leads")
    op.drop_index("ix_leads_facets", table_name="leads")
    op.create_index("ix_leads_facets", "leads", _FACETS)
    op.drop_index("ix_leads_waiting", table_name="leads")
    op.create_index(
        "ix_leads_waiting",
        "leads",
        ["workspace_id", "priority", "created_at", "id"],
        postgresql_where=sa.text(_WAITING),
    )
    op.drop_column("leads", "rescore_at")
    op.drop_column("leads", "suppression_id")
    op.drop_table("suppression_lists")
    op.drop_table("suppressions")
    op.drop_table("score_fallbacks")
    op.drop_table("score_versions")
    op.drop_table("lead_outcomes")
    op.execute("DROP FUNCTION outcomes_are_append_only")

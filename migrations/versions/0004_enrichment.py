"""facts of a lead; enrichment: providers, their answers, their breakers

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_JSONB = postgresql.JSONB(astext_type=sa.Text())
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("leads", sa.Column("facts", _JSONB, server_default="[]", nullable=False))
    op.create_table(
        "enrichment_providers",
        sa.Column(
            "subject",
            sa.Enum("domain", "email", name="subject", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("auth", sa.Text(), server_default="none", nullable=False),
        sa.Column("auth_name", sa.Text(), nullable=True),
        sa.Column("auth_prefix", sa.Text(), server_default="", nullable=False),
        sa.Column("secret", sa.Text(), nullable=True),
        sa.Column("mapping", _JSONB, server_default="{}", nullable=False),
        sa.Column("trust", sa.Float(), server_default="0.8", nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("trust > 0 AND trust <= 1", name=op.f("ck_enrichment_providers_trust")),
        sa.CheckConstraint("auth IN ('none', 'header', 'query')", name=op.f("ck_enrichment_providers_auth")),
        sa.CheckConstraint(
            "(auth = 'none') OR (auth_name IS NOT NULL AND secret IS NOT NULL)",
            name=op.f("ck_enrichment_providers_key"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_enrichment_providers_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrichment_providers")),
        sa.UniqueConstraint("workspace_id", "name", name=op.f("uq_enrichment_providers_workspace_id_name")),
    )
    op.create_table(
        "enrichment_answers",
        sa.Column("workspace_id", sa.Uuid(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column(
            "state",
            sa.Enum("found", "nothing", "failed", name="state", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("facts", _JSONB, server_default="[]", nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("fetched_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_enrichment_answers_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrichment_answers")),
        sa.UniqueConstraint(
            "workspace_id",
            "provider",
            "subject",
            name=op.f("uq_enrichment_answers_workspace_id_provider_subject"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index("ix_enrichment_answers_expires_at", "enrichment_answers", ["expires_at"], unique=False)
    op.create_table(
        "enrichment_health",
        sa.Column("workspace_id", sa.Uuid(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("open_until", _TIME, nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("last_error_at", _TIME, nullable=True),
        sa.Column("last_ok_at", _TIME, nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_enrichment_health_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrichment_health")),
        sa.UniqueConstraint(
            "workspace_id",
            "provider",
            name=op.f("uq_enrichment_health_workspace_id_provider"),
            postgresql_nulls_not_distinct=True,
        ),
    )


def downgrade() -> None:
    op.drop_table("enrichment_health")
    op.drop_table("enrichment_answers")
    op.drop_table("enrichment_providers")
    op.drop_column("leads", "facts")

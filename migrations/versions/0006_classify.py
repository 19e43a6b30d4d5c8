"""judging by workspace: versions of the rules, calls of language models

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rulesets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("number", sa.Integer()),
        sa.Column("revision", sa.Integer(), server_default="0", nullable=False),
        sa.Column("changes", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("activated_by", sa.Text()),
        sa.Column("activated_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "(number IS NULL) = (activated_at IS NULL)", name=op.f("ck_rulesets_numbered_when_activated")
        ),
        sa.CheckConstraint("NOT active OR number IS NOT NULL", name=op.f("ck_rulesets_no_active_draft")),
        sa.CheckConstraint("number > 0", name=op.f("ck_rulesets_number")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_rulesets_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rulesets")),
        sa.UniqueConstraint("workspace_id", "number", name=op.f("uq_rulesets_workspace_id_number")),
    )
    op.create_index(
        "uq_rulesets_draft", "rulesets", ["workspace_id"], unique=True, postgresql_where=sa.text("number IS NULL")
    )
    op.create_index("uq_rulesets_active", "rulesets", ["workspace_id"], unique=True, postgresql_where=sa.text("active"))
    op.create_table(
        "llm_calls",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("lead_id", sa.Uuid()),
        sa.Column("run_id", sa.Uuid()),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("calls", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("ms", sa.Integer(), nullable=False),
        sa.Column("tokens_in", sa.Integer()),
        sa.Column("tokens_out", sa.Integer()),
        sa.Column("estimated", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("cost", sa.Float()),
        sa.Column("error", sa.Text()),
        sa.CheckConstraint("calls > 0 AND ms >= 0", name=op.f("ck_llm_calls_counts")),
        sa.CheckConstraint("tokens_in >= 0 AND tokens_out >= 0 AND cost >= 0", name=op.f("ck_llm_calls_amounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_llm_calls")),
    )
    op.create_index("ix_llm_calls_day", "llm_calls", ["workspace_id", "created_at"])
    op.create_index("ix_llm_calls_created_at", "llm_calls", ["created_at"])


def downgrade() -> None:
    op.drop_table("llm_calls")
    op.drop_table("rulesets")

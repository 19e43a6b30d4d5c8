"""runs: where a slow one is, which stages went on with less, re-runs of many leads; texts of follow-up tasks

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def _one_of(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def _claimable() -> list[sa.Column]:
    return [
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("slot", sa.Text(), nullable=True),
        sa.Column("incarnation", sa.Uuid(), nullable=True),
        sa.Column("rq_job_id", sa.Text(), nullable=True),
    ]


def _of_workspace() -> list[sa.Column]:
    return [
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    ]


def upgrade() -> None:
    op.create_table(
        "reruns",
        *_of_workspace(),
        sa.Column(
            "state", _one_of("state", "queued", "running", "done", "cancelled"), server_default="queued", nullable=False
        ),
        sa.Column("lead_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("filter", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("position", sa.Integer(), server_default="0", nullable=False),
        sa.Column("queued", sa.Integer(), server_default="0", nullable=False),
        sa.Column("skipped", sa.Integer(), server_default="0", nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("cancelled_by", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", postgresql.JSONB(), nullable=True),
        *_claimable(),
        sa.CheckConstraint("queued + skipped = position AND position <= total", name=op.f("ck_reruns_counts")),
        sa.CheckConstraint(
            "(state IN ('done', 'cancelled')) = (finished_at IS NOT NULL)", name=op.f("ck_reruns_finished")
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_reruns_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reruns")),
    )
    op.create_index("ix_reruns_due", "reruns", ["due_at"], postgresql_where=sa.text("state IN ('queued', 'running')"))
    op.create_index("ix_reruns_newest", "reruns", ["workspace_id", sa.text("created_at DESC"), sa.text("id DESC")])

    op.create_table(
        "task_texts",
        *_of_workspace(),
        sa.Column("lead_id", sa.Uuid(), nullable=False),
        sa.Column("state", _one_of("state", "wanted", "writing", "written"), server_default="wanted", nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("author", _one_of("author", "template", "model", "person"), nullable=True),
        sa.Column("basis", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("edited_by", sa.Text(), nullable=True),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        *_claimable(),
        sa.CheckConstraint("(state = 'written') = (body IS NOT NULL)", name=op.f("ck_task_texts_written")),
        sa.CheckConstraint("(body IS NULL) = (author IS NULL)", name=op.f("ck_task_texts_author_of_body")),
        sa.CheckConstraint("used_at IS NULL OR state = 'written'", name=op.f("ck_task_texts_used")),
        sa.ForeignKeyConstraint(["lead_id"], ["leads.id"], name=op.f("fk_task_texts_lead_id")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_task_texts_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_texts")),
        sa.UniqueConstraint("lead_id", name=op.f("uq_task_texts_lead_id")),
    )
    op.create_index(
        "ix_task_texts_due", "task_texts", ["due_at"], postgresql_where=sa.text("state IN ('wanted', 'writing')")
    )

    op.add_column("runs", sa.Column("degraded", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False))
    op.add_column("runs", sa.Column("stage", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("stage_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("runs", sa.Column("rerun_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(op.f("fk_runs_rerun_id"), "runs", "reruns", ["rerun_id"], ["id"])
    op.execute(
        """
        UPDATE runs SET degraded = ARRAY(SELECT jsonb_array_elements_text(result_json->'degraded'))
        WHERE jsonb_typeof(result_json->'degraded') = 'array' AND result_json->'degraded' <> '[]'
        """
    )
    op.create_index(
        "ix_runs_degraded",
        "runs",
        ["workspace_id", sa.text("created_at DESC"), sa.text("id DESC")],
        postgresql_where=sa.text("degraded <> '{}'"),
    )
    op.create_index(
        "uq_runs_rerun",
        "runs",
        ["rerun_id", "lead_id"],
        unique=True,
        postgresql_where=sa.text("rerun_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("uq_runs_rerun", table_name="runs")
    op.drop_index("ix_runs_degraded", table_name="runs")
    op.drop_constraint(op.f("fk_runs_rerun_id"), "runs", type_="foreignkey")
    for name in ("rerun_id", "stage_since", "stage", "degraded"):
        op.drop_column("runs", name)
    op.drop_table("task_texts")
    op.drop_table("reruns")

"""deliveries: every kind of destination, shadow mode, compensation, rules, mapping, rate budgets, bulk replay

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_KINDS_BEFORE = ("twenty", "webhook", "n8n")
_KINDS = (*_KINDS_BEFORE, "slack", "slack_webhook", "hubspot", "salesforce", "sheets", "email", "callback")
_MODES_BEFORE = ("live", "off")
_MODES = ("live", "shadow", "off")
_STATES_BEFORE = ("pending", "sending", "delivered", "uncertain", "dead", "cancelled")
_STATES = (*_STATES_BEFORE, "shadowed", "withdrawn")
_OPEN = "state IN ('pending', 'sending')"


def _check(table: str, name: str, column: str, values: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{value}'" for value in values)
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_{name}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_{name} CHECK ({column} IN ({listed}))")


def upgrade() -> None:
    _check("destinations", "kind", "kind", _KINDS)
    _check("destinations", "mode", "mode", _MODES)
    _check("deliveries", "state", "state", _STATES)
    for name in ("rules", "mapping", "options"):
        op.add_column("destinations", sa.Column(name, postgresql.JSONB(), server_default="{}", nullable=False))
    for name in ("second_at", "minute_at", "tested_at"):
        op.add_column("destinations", sa.Column(name, sa.DateTime(timezone=True)))
    op.add_column("destinations", sa.Column("test_problem", sa.Text()))
    # What "qualified only" was called before there were rules.
    op.execute(
        """UPDATE destinations SET rules = '{"qualified_only": true}', config = config - 'trigger' """
        "WHERE config ->> 'trigger' = 'qualified'"
    )
    op.add_column(
        "deliveries",
        sa.Column(
            "operation",
            sa.Enum("send", "update", "restore", "withdraw", name="operation", native_enum=False, length=32),
            server_default="send",
            nullable=False,
        ),
    )
    op.create_check_constraint(
        op.f("ck_deliveries_operation"), "deliveries", "operation IN ('send', 'update', 'restore', 'withdraw')"
    )
    op.add_column("deliveries", sa.Column("revision", sa.Integer(), server_default="0", nullable=False))
    op.add_column("deliveries", sa.Column("sent_as", sa.Text()))
    op.add_column("deliveries", sa.Column("edited", postgresql.JSONB()))
    op.create_index(
        "ix_deliveries_due_there", "deliveries", ["destination_id", "due_at"], postgresql_where=sa.text(_OPEN)
    )
    op.create_index("ix_delivery_attempts_started_at", "delivery_attempts", ["workspace_id", "started_at"])
    op.create_table(
        "replay_requests",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("slot", sa.Text()),
        sa.Column("incarnation", sa.Uuid()),
        sa.Column("rq_job_id", sa.Text()),
        sa.Column(
            "state",
            sa.Enum("queued", "running", "done", name="state", native_enum=False, create_constraint=True, length=32),
            server_default="queued",
            nullable=False,
        ),
        sa.Column("chosen", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("after_id", sa.Uuid()),
        sa.Column("total", sa.Integer(), server_default="0", nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_replay_requests_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replay_requests")),
    )
    op.create_index("ix_replay_requests_due", "replay_requests", ["due_at"], postgresql_where=sa.text("state IN ('queued', 'running')"))  # fmt: skip
    op.create_index("ix_replay_requests_newest", "replay_requests", ["workspace_id", sa.text("created_at DESC")])


def downgrade() -> None:
    op.drop_table("replay_requests")
    op.drop_index("ix_delivery_attempts_started_at", table_name="delivery_attempts")
    op.drop_index("ix_deliveries_due_there", table_name="deliveries")
    op.execute("UPDATE deliveries SET state = 'cancelled' WHERE state IN ('shadowed', 'withdrawn')")
    # A delivery that was to be changed or taken back has happened; one on its way back waits no longer.
    op.execute("UPDATE deliveries SET state = 'delivered' WHERE state = 'pending' AND operation <> 'send'")
    for name in ("edited", "sent_as", "revision", "operation"):
        op.drop_column("deliveries", name)
    op.execute(
        """UPDATE destinations SET config = config || '{"trigger": "qualified"}' """
        "WHERE rules ->> 'qualified_only' = 'true'"
    )
    for name in ("test_problem", "tested_at", "minute_at", "second_at", "options", "mapping", "rules"):
        op.drop_column("destinations", name)
    # Kinds that the version before does not know, with what was to go there.
    op.execute(
        "DELETE FROM delivery_attempts a USING deliveries d, destinations t "
        "WHERE a.delivery_id = d.id AND d.destination_id = t.id AND t.kind NOT IN ('twenty', 'webhook', 'n8n')"
    )
    op.execute(
        "DELETE FROM deliveries d USING destinations t "
        "WHERE d.destination_id = t.id AND t.kind NOT IN ('twenty', 'webhook', 'n8n')"
    )
    op.execute("DELETE FROM destinations WHERE kind NOT IN ('twenty', 'webhook', 'n8n')")
    op.execute("UPDATE destinations SET mode = 'off' WHERE mode = 'shadow'")
    _check("destinations", "kind", "kind", _KINDS_BEFORE)
    _check("destinations", "mode", "mode", _MODES_BEFORE)
    _check("deliveries", "state", "state", _STATES_BEFORE)

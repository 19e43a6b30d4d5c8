"""replays of dead letters can be stopped

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def _states(*values: str) -> None:
    listed = ", ".join(f"'{value}'" for value in values)
    op.execute("ALTER TABLE replay_requests DROP CONSTRAINT ck_replay_requests_state")
    op.execute(f"ALTER TABLE replay_requests ADD CONSTRAINT ck_replay_requests_state CHECK (state IN ({listed}))")


def upgrade() -> None:
    _states("queued", "running", "done", "cancelled")
    op.add_column("replay_requests", sa.Column("cancelled_by", sa.Text()))


def downgrade() -> None:
    op.drop_column("replay_requests", "cancelled_by")
    op.execute("UPDATE replay_requests SET state = 'done' WHERE state = 'cancelled'")
    _states("queued", "running", "done")

"""why a destination cannot be called at all, and when it was last asked something; where a lead's result is posted

Revision ID: 0012
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("destinations", sa.Column("problem", sa.Text()))
    op.add_column("destinations", sa.Column("lookup_at", sa.DateTime(timezone=True)))
    op.add_column("leads", sa.Column("callback_url", sa.Text()))


def downgrade() -> None:
    op.drop_column("leads", "callback_url")
    op.drop_column("destinations", "lookup_at")
    op.drop_column("destinations", "problem")

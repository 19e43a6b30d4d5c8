"""what is due at a destination is found lead by lead

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_OPEN = sa.text("state IN ('pending', 'sending')")


def upgrade() -> None:
    op.drop_index("ix_deliveries_due_there", "deliveries")
    columns = ["destination_id", "due_at", "lead_id", "step"]
    op.create_index("ix_deliveries_due_there", "deliveries", columns, postgresql_where=_OPEN)


def downgrade() -> None:
    op.drop_index("ix_deliveries_due_there", "deliveries")
    op.create_index("ix_deliveries_due_there", "deliveries", ["destination_id", "due_at"], postgresql_where=_OPEN)

"""what is overdue is counted from its index alone

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_COLUMNS = ["workspace_id", sa.literal_column("coalesce(sla_due_at, '9999-12-31 00:00:00+00'::timestamptz)"), "id"]
_WHERE = sa.text("status IN ('new_draft', 'new_escalate') AND suppression_id IS NULL")


def upgrade() -> None:
    _create(["sla_due_at"])


def downgrade() -> None:
    _create([])


def _create(included: list[str]) -> None:
    op.drop_index("ix_leads_sla", table_name="leads")
    op.create_index("ix_leads_sla", "leads", _COLUMNS, postgresql_include=included, postgresql_where=_WHERE)

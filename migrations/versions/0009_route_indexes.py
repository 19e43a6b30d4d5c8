"""indexes of due times and of leads that nobody has: without what the suppression list holds back

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_DUE = "coalesce(sla_due_at, '9999-12-31 00:00:00+00'::timestamptz)"
_OPEN = "status IN ('new_auto', 'new_draft', 'new_escalate')"
_INDEXES = {
    "ix_leads_sla": (["workspace_id", sa.literal_column(_DUE), "id"], "status IN ('new_draft', 'new_escalate')"),
    "ix_leads_unrouted": (
        ["workspace_id", "route_state", "priority", "created_at", "id"],
        f"route_state IS NOT NULL AND {_OPEN}",
    ),
    "ix_leads_backlog": (["workspace_id", "team_id", "created_at", "id"], f"route_state = 'backlog' AND {_OPEN}"),
}


def upgrade() -> None:
    _create(" AND suppression_id IS NULL")


def downgrade() -> None:
    _create("")


def _create(further: str) -> None:
    for name, (columns, where) in _INDEXES.items():
        op.drop_index(name, table_name="leads")
        op.create_index(name, "leads", columns, postgresql_where=sa.text(where + further))

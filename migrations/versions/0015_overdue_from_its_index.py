"""what is overdue, and what nobody has, is counted from indexes alone

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_DUE = "coalesce(sla_due_at, '9999-12-31 00:00:00+00'::timestamptz)"
_OPEN = "status IN ('new_auto', 'new_draft', 'new_escalate') AND suppression_id IS NULL"
_FACETS = ["intent", "source", "assignee_id"]
_INDEXES = {
    "ix_leads_sla": (
        ["workspace_id", sa.literal_column(_DUE), "id"],
        ["sla_due_at", "priority", *_FACETS],
        "status IN ('new_draft', 'new_escalate') AND suppression_id IS NULL",
    ),
    "ix_leads_unrouted": (
        ["workspace_id", "route_state", "priority", "created_at", "id"],
        _FACETS,
        f"route_state IS NOT NULL AND {_OPEN}",
    ),
    "ix_leads_backlog": (
        ["workspace_id", "team_id", "created_at", "id"],
        ["priority", *_FACETS],
        f"route_state = 'backlog' AND {_OPEN}",
    ),
}


def upgrade() -> None:
    for name, (columns, included, where) in _INDEXES.items():
        _create(name, columns, included, where)


def downgrade() -> None:
    for name, (columns, _, where) in _INDEXES.items():
        _create(name, columns, [], where)


def _create(name: str, columns: list[str | sa.ColumnElement[str]], included: list[str], where: str) -> None:
    op.drop_index(name, table_name="leads")
    op.create_index(name, "leads", columns, postgresql_include=included, postgresql_where=sa.text(where))

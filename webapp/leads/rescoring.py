"""Scores that age: waiting leads whose next point has been lost are brought up to date (docs/adr/0029).

The parts carry what is needed, so that nothing is asked or judged anew: total, parts and ``qualified`` follow from the row
alone. A decided lead keeps the score that its decision was taken on.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads.filters import of_statuses
from webapp.leads.stages.score import aged, loses_a_point_after, qualified
from webapp.leads.states import WAITING_STATUSES, Intent
from webapp.leads.types import Score, ScorePart
from webapp.models.account import Workspace
from webapp.models.lead import Lead

#: Rows of one batch.
BATCH = 500


def batch(session: Session, *, limit: int = BATCH) -> int:
    """Work out the scores of up to ``limit`` leads that are due; 0 when none is. Rows that others hold are left to the
    next turn. The caller commits."""
    rows = session.execute(
        sa.select(
            Lead.id,
            Lead.intent,
            Lead.score,
            Lead.score_parts,
            Lead.last_contact_at,
            Workspace.qualified_from,
            sa.func.now().label("now"),
        )
        .join(Workspace, Workspace.id == Lead.workspace_id)
        .where(*of_statuses(WAITING_STATUSES), Lead.rescore_at <= sa.func.now())
        .order_by(Lead.rescore_at)
        .limit(limit)
        .with_for_update(of=Lead, key_share=True, skip_locked=True)
    ).all()
    if rows:
        session.execute(sa.update(Lead), [{"id": row.id, **_anew(row)} for row in rows])
    return len(rows)


def _anew(row: Any) -> dict[str, Any]:
    """The columns of a score at ``row.now``. A stored score that cannot be read stays as it is until its next run."""
    try:
        return columns(row.score_parts or [], row.intent, row.last_contact_at, row.now, row.qualified_from)
    except (KeyError, TypeError, ValueError):
        return {"rescore_at": None}


def columns(
    stored: list[dict[str, Any]], intent: Intent, wrote_at: datetime, now: datetime, qualified_from: int
) -> dict[str, Any]:
    """``score, score_parts, qualified, rescore_at`` of stored parts at ``now``."""
    days = (now - wrote_at).total_seconds() / 86_400
    parts = [ScorePart.from_json(one) for one in stored]
    parts = [aged(part, days) if part.decay else part for part in parts]
    total = Score(tuple(parts)).total
    after = loses_a_point_after(parts)
    return {
        "score": total,
        "score_parts": [part.as_json() for part in parts],
        "qualified": qualified(total, intent, qualified_from=qualified_from),
        "rescore_at": _later(wrote_at, after, now),
    }


def _later(wrote_at: datetime, days: float | None, now: datetime) -> datetime | None:
    """At least a minute ahead: rounding may put the moment just before now."""
    if days is None:
        return None
    return max(wrote_at.astimezone(UTC) + timedelta(days=days), now + timedelta(minutes=1))

"""What asking language models takes: each question recorded, the day's budget of a workspace, figures by day.

A day is one of UTC. A budget is looked at before a question is asked, so that those under way at that moment may go
beyond it by what they take.
"""

import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads.judging import Asking, Heard
from webapp.leads.judging_policy import Preferences
from webapp.leads.ports import Usage
from webapp.models.account import Workspace
from webapp.models.judging import LlmCall

#: How long the record of a question is kept (``jobs.schedule``).
KEEP_DAYS = 400
CLASSIFY = "classify"


def record(
    session: Session,
    workspace_id: uuid.UUID,
    usage: Usage,
    *,
    purpose: str,
    lead_id: uuid.UUID | None = None,
    run_id: uuid.UUID | None = None,
    error: str | None = None,
) -> None:
    """Keep what one question took. The caller commits."""
    if not usage.calls:
        return
    session.add(
        LlmCall(
            workspace_id=workspace_id, lead_id=lead_id, run_id=run_id, purpose=purpose, model=usage.model or "unknown",
            calls=usage.calls, ms=max(usage.ms, 0), tokens_in=usage.tokens_in, tokens_out=usage.tokens_out,
            estimated=usage.estimated, cost=usage.cost, error=error[:300].replace("\0", "") if error else None,
        )
    )  # fmt: skip
    session.flush()


@dataclass(frozen=True, slots=True)
class Spent:
    """What models took so far today, in one workspace."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0

    def over(self, preferences: Preferences) -> str | None:
        """Why no further question is asked, in words; None while the budget lasts."""
        tokens, usd = preferences.daily_tokens, preferences.daily_usd
        if tokens is not None and self.tokens >= tokens:
            return f"today's budget for language models is used up ({self.tokens:,} of {tokens:,} tokens)"
        if usd is not None and self.usd >= usd:
            return f"today's budget for language models is used up (${self.usd:,.2f} of ${usd:,.2f})"
        return None


#: Where the day began.
_TODAY = sa.text("date_trunc('day', now(), 'UTC')")
_TOKENS = sa.func.coalesce(LlmCall.tokens_in, 0) + sa.func.coalesce(LlmCall.tokens_out, 0)


def spent_today(session: Session, workspace_id: uuid.UUID) -> Spent:
    """What the workspace has spent since the day began."""
    return _spent(session, [workspace_id]).get(workspace_id, Spent())


def over_budget(session: Session, workspace_id: uuid.UUID, preferences: Preferences) -> str | None:
    """Why no model is asked for the workspace today any more; None while it is. Costs nothing without a budget."""
    return spent_today(session, workspace_id).over(preferences) if preferences.has_budget else None


def exhausted(session: Session) -> dict[uuid.UUID, str]:
    """All workspaces that have used up their budget of today, with the reason in words."""
    kept = Workspace.settings["classify"]
    rows = session.execute(
        sa.select(Workspace.id, kept.label("kept")).where(
            sa.or_(kept["daily_tokens"].astext.is_not(None), kept["daily_usd"].astext.is_not(None))
        )
    ).all()
    if not rows:
        return {}
    spent = _spent(session, [row.id for row in rows])
    whys = {row.id: spent.get(row.id, Spent()).over(Preferences.of(row.kept)) for row in rows}
    return {workspace_id: why for workspace_id, why in whys.items() if why}


def _spent(session: Session, workspace_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Spent]:
    rows = session.execute(
        sa.select(
            LlmCall.workspace_id, sa.func.sum(LlmCall.calls), sa.func.sum(_TOKENS),
            sa.func.coalesce(sa.func.sum(LlmCall.cost), 0),
        )
        .where(LlmCall.workspace_id.in_(list(workspace_ids)), LlmCall.created_at >= _TODAY)
        .group_by(LlmCall.workspace_id)
    )  # fmt: skip
    return {workspace_id: Spent(calls, int(tokens), float(usd or 0)) for workspace_id, calls, tokens, usd in rows}


@dataclass(frozen=True, slots=True)
class Day:
    """One day's questions to one model. ``usd`` None: no call of the day has a known price; ``p50``, ``p95``: ms."""

    day: date
    model: str
    purpose: str
    questions: int
    calls: int
    failed: int
    tokens_in: int
    tokens_out: int
    usd: float | None
    p50: float
    p95: float


def by_day(session: Session, workspace_id: uuid.UUID, *, days: int = 30) -> Sequence[Day]:
    """The last ``days`` days on which a model was asked, newest first."""
    day = sa.cast(sa.func.timezone("UTC", LlmCall.created_at), sa.Date)
    rows = session.execute(
        sa.select(
            day, LlmCall.model, LlmCall.purpose, sa.func.count(), sa.func.sum(LlmCall.calls),
            sa.func.count(LlmCall.error), sa.func.coalesce(sa.func.sum(LlmCall.tokens_in), 0),
            sa.func.coalesce(sa.func.sum(LlmCall.tokens_out), 0), sa.func.sum(LlmCall.cost),
            sa.func.percentile_cont(0.5).within_group(LlmCall.ms),
            sa.func.percentile_cont(0.95).within_group(LlmCall.ms),
        )
        .where(
            LlmCall.workspace_id == workspace_id,
            LlmCall.created_at >= sa.func.now() - sa.func.make_interval(0, 0, 0, days),
        )
        .group_by(day, LlmCall.model, LlmCall.purpose)
        .order_by(day.desc(), LlmCall.model, LlmCall.purpose)
    )  # fmt: skip
    return [Day(*row) for row in rows]


def recorder(opened: Callable[[], Session]) -> Callable[[Asking, Heard], None]:
    """What ``judging.Judging.record`` is to be: each question in a transaction of its own. ``opened`` gives sessions
    (a ``sessionmaker``, or what stands for one)."""

    def keep(asking: Asking, heard: Heard) -> None:
        if heard.usage is None:
            return
        with opened() as session:
            record(
                session, uuid.UUID(asking.facts.workspace_id), heard.usage, purpose=CLASSIFY,
                lead_id=uuid.UUID(asking.facts.lead_id), run_id=asking.run_id, error=heard.error,
            )  # fmt: skip
            session.commit()

    return keep

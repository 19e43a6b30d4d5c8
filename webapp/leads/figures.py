"""Figures of a workspace over a period, exact, for programs. Pages have their own, capped ones (``counts``)."""

import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads.filters import waiting
from webapp.leads.states import DeliveryState, Intent, LeadStatus, Priority
from webapp.models.lead import Lead
from webapp.models.work import Delivery

#: Sources told one by one; the others are one sum.
SOURCES = 50


@dataclass(frozen=True, slots=True)
class Figures:
    """Leads that came in the period, counted in each way. ``sources``: the most frequent ones by their first 60
    characters, ``other_sources`` the leads of the rest. ``days``: each of the period, in UTC. ``waiting`` and
    ``deliveries`` are of now, whatever the period."""

    total: int
    statuses: dict[LeadStatus, int]
    intents: dict[Intent, int]
    priorities: dict[Priority, int]
    sources: dict[str, int]
    other_sources: int
    days: dict[date, int]
    waiting: int
    deliveries: dict[DeliveryState, int]


def figures(session: Session, workspace_id: uuid.UUID, *, start: datetime, end: datetime) -> Figures:
    """``start`` is in the period, ``end`` is not; both midnight, UTC. Four statements, each answered from an index
    alone: 100,000 leads and 300,000 deliveries take some 100 ms."""
    period = [Lead.workspace_id == workspace_id, Lead.created_at >= start, Lead.created_at < end]
    source = sa.func.split_part(Lead.contact, "\n", 4)  # as the index has it
    kinds = session.execute(
        sa.select(Lead.status, Lead.intent, Lead.priority, source, sa.func.count())
        .where(*period)
        .group_by(sa.text("1, 2, 3, 4"))
    ).all()
    by: tuple[Counter[Any], ...] = (Counter(), Counter(), Counter(), Counter())
    for *values, count in kinds:
        for counter, value in zip(by, values, strict=True):
            counter[value] += count
    statuses, intents, priorities, sources = by
    frequent = dict(sources.most_common(SOURCES))
    return Figures(
        total=sum(statuses.values()),
        statuses={one: statuses[one] for one in LeadStatus},
        intents={one: intents[one] for one in Intent},
        priorities={one: priorities[one] for one in Priority},
        sources=frequent,
        other_sources=sum(sources.values()) - sum(frequent.values()),
        days=_days(session, workspace_id, start=start, end=end),
        waiting=_waiting(session, workspace_id),
        deliveries=_deliveries(session, workspace_id),
    )


def _days(session: Session, workspace_id: uuid.UUID, *, start: datetime, end: datetime) -> dict[date, int]:
    """Counted day by day, which is a range of the index each and needs no sorting."""
    one_day = timedelta(days=1)
    days = sa.func.generate_series(start, end - one_day, one_day, type_=Lead.created_at.type).column_valued("day")
    theirs = sa.select(sa.func.count()).where(
        Lead.workspace_id == workspace_id, Lead.created_at >= days, Lead.created_at < days + one_day
    )
    return {row[0].astimezone(UTC).date(): row[1] for row in session.execute(sa.select(days, theirs.scalar_subquery()))}


def _waiting(session: Session, workspace_id: uuid.UUID) -> int:
    where = [Lead.workspace_id == workspace_id, *waiting()]
    return session.scalar(sa.select(sa.func.count()).select_from(Lead).where(*where)) or 0


def _deliveries(session: Session, workspace_id: uuid.UUID) -> dict[DeliveryState, int]:
    rows = session.execute(
        sa.select(Delivery.state, sa.func.count()).where(Delivery.workspace_id == workspace_id).group_by(Delivery.state)
    )
    return dict.fromkeys(DeliveryState, 0) | {row[0]: row[1] for row in rows}

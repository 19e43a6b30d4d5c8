"""How destinations have been doing: calls, failures and how long they took, by the hour; for pages and metrics."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.models.work import Delivery, DeliveryAttempt, Destination

#: Outcomes of a call that did not work.
FAILED = ("retry", "dead", "uncertain")


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of one destination, beginning at ``at``. Times in milliseconds, of calls that were answered or ran out of
    time; None when there was none."""

    destination_id: uuid.UUID
    destination: str
    at: datetime
    calls: int
    failed: int
    p50: int | None
    p95: int | None

    @property
    def failing(self) -> float:
        """Share of the calls that did not work, 0..1."""
        return self.failed / self.calls


def hourly(
    session: Session, workspace_id: uuid.UUID, *, hours: int = 24, destination_id: uuid.UUID | None = None
) -> Sequence[Hour]:
    """By destination and hour, oldest first; hours without a call are left out. What was only recorded is no call."""
    at = sa.func.date_trunc("hour", DeliveryAttempt.started_at, "UTC").label("at")
    since = sa.func.date_trunc("hour", sa.func.now(), "UTC") - sa.func.make_interval(0, 0, 0, 0, hours - 1)
    query = (
        sa.select(
            Destination.id,
            Destination.name,
            at,
            sa.func.count().label("calls"),
            sa.func.count().filter(DeliveryAttempt.outcome.in_(FAILED)).label("failed"),
            sa.func.percentile_cont(0.5).within_group(DeliveryAttempt.ms).label("p50"),
            sa.func.percentile_cont(0.95).within_group(DeliveryAttempt.ms).label("p95"),
        )
        .join(Delivery, Delivery.id == DeliveryAttempt.delivery_id)
        .join(Destination, Destination.id == Delivery.destination_id)
        .where(
            DeliveryAttempt.workspace_id == workspace_id,
            DeliveryAttempt.started_at >= since,
            DeliveryAttempt.outcome != "shadowed",
        )
        .group_by(Destination.id, Destination.name, at)
        .order_by(Destination.name, at)
    )
    if destination_id is not None:
        query = query.where(Delivery.destination_id == destination_id)
    return [
        Hour(
            destination_id=row.id,
            destination=row.name,
            at=row.at,
            calls=row.calls,
            failed=row.failed,
            p50=None if row.p50 is None else round(row.p50),
            p95=None if row.p95 is None else round(row.p95),
        )
        for row in session.execute(query)
    ]

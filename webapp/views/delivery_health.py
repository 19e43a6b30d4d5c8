"""How each destination does: a card with its state in words and a small chart of the last day, by the hour."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from webapp.leads import delivery_figures, destinations, kinds
from webapp.leads.delivery_figures import Hour
from webapp.leads.states import DeliveryState
from webapp.models.work import Destination

HOURS = 24
#: Units of the drawing: a column an hour; above how slow, below how much failed.
COLUMN, SLOW, GAP, FAILED = 10, 34, 4, 16


@dataclass(frozen=True, slots=True)
class Column:
    """One hour of the chart, where there was a call."""

    hour: Hour
    x: int
    slow_y: float
    slow: float
    failed: float


@dataclass(frozen=True, slots=True)
class Card:
    """``calls``, ``failed``: of the last day; ``answered``: one of them was taken; ``slowest``: the highest p95 of its hours in ms, None without a call.
    ``paused_until``: only while it is to come."""

    destination: Destination
    columns: tuple[Column, ...]
    calls: int
    failed: int
    slowest: int | None
    waiting: dict[DeliveryState, int]
    paused_until: datetime | None
    testable: bool
    answered: bool = False
    width: int = COLUMN * HOURS
    height: int = SLOW + GAP + FAILED
    base: int = SLOW + GAP


#: Figures of a day with more calls than this are made anew only after so many seconds.
BUSY, KEPT_SECONDS = 5_000, 30.0


def cards(session: Session, workspace_id: uuid.UUID) -> list[Card]:
    """One for each destination of the workspace, by name."""
    rows = destinations.listing(session, workspace_id)
    if not rows:
        return []
    waiting = destinations.waiting(session, workspace_id)
    hours: dict[uuid.UUID, list[Hour]] = {}
    for hour in _last_day(session, workspace_id):
        hours.setdefault(hour.destination_id, []).append(hour)
    now = datetime.now(UTC)
    return [_card(row, hours.get(row.id, []), waiting.get(row.id, {}), now) for row in rows]


def answered(session: Session, workspace_id: uuid.UUID) -> set[uuid.UUID]:
    """The destinations that took a delivery within the last day."""
    return {hour.destination_id for hour in _last_day(session, workspace_id) if hour.calls > hour.failed}


def _last_day(session: Session, workspace_id: uuid.UUID) -> Sequence[Hour]:
    """Each call of the day is read for it: after a busy one that takes most of a second, and is not done at each page."""
    now = time.monotonic()
    until, hours = _kept.get(workspace_id, (0.0, ()))
    if until < now:
        hours = delivery_figures.hourly(session, workspace_id, hours=HOURS)
        _kept.pop(workspace_id, None)
        if sum(hour.calls for hour in hours) > BUSY:
            _kept[workspace_id] = (now + KEPT_SECONDS, hours)
    return hours


_kept: dict[uuid.UUID, tuple[float, Sequence[Hour]]] = {}


def _card(row: Destination, hours: Sequence[Hour], waiting: dict[DeliveryState, int], now: datetime) -> Card:
    slowest = max((hour.p95 for hour in hours if hour.p95 is not None), default=None)
    first = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)
    columns = []
    for hour in hours:
        place = round((hour.at - first).total_seconds() / 3600)
        if 0 <= place < HOURS:
            slow = SLOW * (hour.p95 or 0) / slowest if slowest else 0.0
            columns.append(
                Column(hour, place * COLUMN, round(SLOW - slow, 1), round(slow, 1), round(FAILED * hour.failing, 1))
            )
    return Card(
        destination=row,
        columns=tuple(columns),
        calls=sum(hour.calls for hour in hours),
        failed=sum(hour.failed for hour in hours),
        slowest=slowest,
        waiting=waiting,
        testable=kinds.of(row.kind).testable,
        answered=any(hour.calls > hour.failed for hour in hours),
        paused_until=row.paused_until if row.paused_until and row.paused_until > now else None,
    )

"""What a delivery that is to go out waits for, for its page."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import flags, task_texts
from webapp.leads.states import DeliveryOperation, DeliveryState, DestinationMode
from webapp.models.work import Delivery


class Wait(StrEnum):
    """Why nothing is sent now."""

    TIME = "time"  # its own time: undo window, or the pause before another try
    SWITCHED_OFF = "switched_off"
    PAUSED = "paused"  # the other side asked for it (429)
    BREAKER = "breaker"
    UNUSABLE = "unusable"  # it cannot be called as it is set up
    EARLIER = "earlier"  # an earlier step of the lead there
    FEATURE = "feature"  # outgoing webhooks are off in the workspace
    TEXT = "text"  # its task is being written


@dataclass(frozen=True, slots=True)
class Waiting:
    """``until``: when it is over, where that is known. ``delivery_id``, ``action``, ``state``: of the earlier step."""

    why: Wait
    until: datetime | None = None
    delivery_id: uuid.UUID | None = None
    action: str | None = None
    state: DeliveryState | None = None


def of(session: Session, delivery: Delivery) -> list[Waiting]:
    """Everything that holds ``delivery`` (with its destination loaded) back; empty when a worker can take it now, or it
    is not waiting at all."""
    if delivery.state is not DeliveryState.PENDING:
        return []
    destination, now = delivery.destination, datetime.now(UTC)
    found: list[Waiting] = []
    if destination.mode is DestinationMode.OFF:
        found.append(Waiting(Wait.SWITCHED_OFF))
    if destination.paused_until is not None and destination.paused_until > now:
        found.append(Waiting(Wait.PAUSED, destination.paused_until))
    if destination.problem is not None:
        found.append(Waiting(Wait.UNUSABLE, destination.open_until if (destination.open_until or now) > now else None))
    elif destination.open_until is not None:
        found.append(Waiting(Wait.BREAKER, destination.open_until if destination.open_until > now else None))
    held, unwritten = session.execute(
        sa.select(~flags.released(), ~task_texts.ready()).select_from(Delivery).where(Delivery.id == delivery.id)
    ).one()
    found += [Waiting(why) for why, holds in ((Wait.FEATURE, held), (Wait.TEXT, unwritten)) if holds]
    if delivery.operation is not DeliveryOperation.WITHDRAW:
        found += _earlier(session, delivery)
    if delivery.due_at > now:
        found.append(Waiting(Wait.TIME, delivery.due_at))
    return found


def _earlier(session: Session, delivery: Delivery) -> list[Waiting]:
    query = (
        sa.select(Delivery.id, Delivery.action, Delivery.state)
        .where(
            Delivery.lead_id == delivery.lead_id,
            Delivery.destination_id == delivery.destination_id,
            Delivery.step < delivery.step,
            Delivery.state.not_in((DeliveryState.DELIVERED, DeliveryState.SHADOWED)),
        )
        .order_by(Delivery.step)
    )
    return [Waiting(Wait.EARLIER, None, row.id, row.action, row.state) for row in session.execute(query)]

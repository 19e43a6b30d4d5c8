"""Compensation: what was delivered for a lead that should not have been is taken back on the other side.

A task is closed, a message says that it no longer counts, a webhook is sent ``lead.withdrawn``. A lead that is approved
again later brings the same records back; nothing is made twice. Nothing here commits.
"""

import uuid
from collections.abc import Sequence
from itertools import groupby

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from webapp.leads import audit, kinds, outbox
from webapp.leads.kinds.webhook import EVENTS
from webapp.leads.sending import seconds
from webapp.leads.states import DeliveryOperation, DeliveryState, DestinationKind, LeadStatus, Trigger
from webapp.models.lead import Lead
from webapp.models.work import Delivery, Destination

#: Where a delivery had an effect, or may have had.
_THERE = sa.or_(
    Delivery.state == DeliveryState.DELIVERED, sa.and_(Delivery.state == DeliveryState.CANCELLED, Delivery.ambiguous)
)


def withdraw(
    session: Session,
    lead: Lead,
    *,
    reason: str,
    due_in_seconds: float,
    decision_id: uuid.UUID | None = None,
    actor: str = audit.SYSTEM,
) -> int:
    """Queue the taking back of what was delivered to destinations that do not want ``lead`` as it stands now. Returns
    how many calls will be made. What cannot be taken back stays delivered; what was only recorded is cancelled."""
    rows = session.execute(
        sa.select(Delivery, Destination)
        .join(Destination, Destination.id == Delivery.destination_id)
        .where(
            Delivery.lead_id == lead.id,
            sa.or_(_THERE, Delivery.state == DeliveryState.SHADOWED),
            Destination.kind.in_(set(kinds.KINDS) - {DestinationKind.N8N}),
        )
        .order_by(Delivery.destination_id, Delivery.delivered_at.desc().nulls_last())
        .with_for_update(of=Delivery)
        .execution_options(populate_existing=True)
    ).all()
    queued: list[Delivery] = []
    for _, group in groupby(rows, lambda row: row[0].destination_id):
        theirs = list(group)
        destination = theirs[0][1]
        kind = DestinationKind(destination.kind)
        if outbox.steps_at(kind, destination.config, destination.rules, lead):
            continue
        queued += _take_back(kind, [delivery for delivery, _ in theirs], reason)
    for delivery in queued:
        delivery.state, delivery.operation, delivery.revision = (
            DeliveryState.PENDING,
            DeliveryOperation.WITHDRAW,
            delivery.revision + 1,
        )
        delivery.due_at = sa.func.now() + seconds(due_in_seconds)
        delivery.tries, delivery.last_error = 0, None
        if decision_id is not None:
            delivery.decision_id = decision_id
    if queued:
        audit.record(
            session,
            lead.workspace_id,
            "DELIVERY_WITHDRAWAL",
            actor=actor,
            lead_id=lead.id,
            deliveries=[str(delivery.id) for delivery in queued],
            reason=reason,
        )
    session.flush()
    return len(queued)


def _take_back(kind: DestinationKind, deliveries: Sequence[Delivery], reason: str) -> list[Delivery]:
    """Those that a call takes back; the others are settled here."""
    chosen: list[Delivery] = []
    noticed = False
    for delivery in deliveries:
        step = kinds.of(kind).step_of(delivery.action)
        if delivery.state is DeliveryState.SHADOWED:
            delivery.state, delivery.last_error = DeliveryState.CANCELLED, reason
        elif step is None or not step.withdraws:
            if delivery.state is DeliveryState.CANCELLED:  # it may have arrived, and it cannot be taken back
                delivery.state = DeliveryState.UNCERTAIN
        elif step.trigger is not None and noticed:
            delivery.state = DeliveryState.WITHDRAWN  # one notice takes all of them back
        else:
            noticed = True
            chosen.append(delivery)
    return chosen


def after_sending(session: Session, delivery_ids: Sequence[uuid.UUID]) -> int:
    """The same for leads that were rejected while something of theirs was on its way, and the other way round for those
    that were approved again while something was being taken back."""
    _supersede(session, delivery_ids)
    late = _leads(session, delivery_ids, DeliveryState.DELIVERED, Lead.status == LeadStatus.REJECTED)
    changed = sum(withdraw(session, lead, reason="the lead was rejected meanwhile", due_in_seconds=0) for lead in late)
    back = _leads(session, delivery_ids, DeliveryState.WITHDRAWN, Lead.status != LeadStatus.REJECTED)
    return changed + outbox.plan_many(session, back, due_in_seconds=0)


_REJECTED = EVENTS[Trigger.REJECTED]


def _supersede(session: Session, delivery_ids: Sequence[uuid.UUID]) -> None:
    """Where ``lead.rejected`` was told, what was told before is taken back by it, and the other way round; so whichever
    comes next is told again."""
    told = aliased(Delivery)
    session.execute(
        sa.update(Delivery)
        .where(
            told.id.in_(delivery_ids),
            told.state == DeliveryState.DELIVERED,
            told.action.in_(EVENTS.values()),
            Delivery.lead_id == told.lead_id,
            Delivery.destination_id == told.destination_id,
            Delivery.state == DeliveryState.DELIVERED,
            (Delivery.action == _REJECTED) != (told.action == _REJECTED),
        )
        .values(state=DeliveryState.WITHDRAWN, updated_at=sa.func.now())
        .execution_options(synchronize_session=False)
    )


def _leads(
    session: Session, delivery_ids: Sequence[uuid.UUID], state: DeliveryState, condition: sa.ColumnElement[bool]
) -> Sequence[Lead]:
    theirs = sa.select(Delivery.lead_id).where(Delivery.id.in_(delivery_ids), Delivery.state == state)
    query = sa.select(Lead).where(Lead.id.in_(theirs), condition)
    return session.scalars(query.execution_options(populate_existing=True)).all()

"""Compensation: what was delivered for a lead that should not have been is taken back on the other side.

A task is closed, a message says that it no longer counts, a webhook is sent ``lead.withdrawn``. A lead that is approved
again later brings the same records back; nothing is made twice. Nothing here commits.
"""

import uuid
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from webapp.leads import alerting, audit, kinds, outbox
from webapp.leads.kinds.base import Unknown
from webapp.leads.kinds.webhook import EVENTS
from webapp.leads.sending import target_of
from webapp.leads.states import (
    DeliveryOperation,
    DeliveryState,
    DestinationKind,
    DestinationMode,
    LeadStatus,
    Trigger,
)
from webapp.models.base import any_of, interval
from webapp.models.lead import Lead
from webapp.models.work import Delivery, Destination

#: A part of its effect is there for sure: some have the mail (``ports.Partly``).
_PARTLY = sa.and_(Delivery.operation == DeliveryOperation.SEND, Delivery.remote_id.is_not(None))
#: Where a delivery had an effect, or may have had.
_THERE = sa.or_(
    Delivery.state == DeliveryState.DELIVERED,
    sa.and_(Delivery.state.in_((DeliveryState.CANCELLED, DeliveryState.DEAD)), sa.or_(Delivery.ambiguous, _PARTLY)),
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
            Destination.kind.in_(set(kinds.KINDS) - kinds.OWN_RULES),
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
        queued += _take_back(session, destination, [delivery for delivery, _ in theirs], reason)
    for delivery in queued:
        if delivery.state is not DeliveryState.DELIVERED:
            # So that it is not taken for delivered when this is called off in its turn.
            delivery.ambiguous = True
        delivery.state, delivery.operation, delivery.revision = (
            DeliveryState.PENDING,
            DeliveryOperation.WITHDRAW,
            delivery.revision + 1,
        )
        delivery.due_at = sa.func.now() + interval(due_in_seconds)
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


def _take_back(
    session: Session, destination: Destination, deliveries: Sequence[Delivery], reason: str
) -> list[Delivery]:
    """Those that a call takes back; the others are settled here."""
    kind = kinds.of(DestinationKind(destination.kind))
    chosen: list[Delivery] = []
    noticed = False
    for delivery in deliveries:
        step = kind.step_of(delivery.action)
        watched = delivery.state is DeliveryState.SHADOWED
        if watched and (not delivery.ambiguous or destination.mode is DestinationMode.SHADOW):
            # What may have arrived before it was only watched stays known as such, for a day when it is called again.
            delivery.state, delivery.last_error = DeliveryState.CANCELLED, reason
        elif step is None or not step.taken_back(destination.config):
            # It may have arrived, and it cannot be taken back. Where the other side can be asked, a later approval asks.
            # What only some have stays as it is: a later approval brings it to the others.
            maybe = watched or (delivery.state is DeliveryState.CANCELLED and delivery.ambiguous)
            if maybe and kind.unknown is not Unknown.ASKS:
                delivery.state = DeliveryState.UNCERTAIN
                alerting.given_up(session, target_of(destination), delivery.workspace_id, _CANNOT, times=1)
            elif watched:
                delivery.state, delivery.last_error = DeliveryState.CANCELLED, reason
        elif step.trigger is not None and noticed:
            delivery.state = DeliveryState.WITHDRAWN  # one notice takes all of them back
        else:
            noticed = True
            chosen.append(delivery)
    return chosen


def after_sending(session: Session, delivery_ids: Sequence[uuid.UUID]) -> int:
    """The same for leads that were rejected, lowered or changed while something of theirs was on its way, and the other
    way round for those that were approved again while something was being taken back."""
    if not session.scalar(_asking_for_others(), {"ids": list(delivery_ids)}):
        return 0  # nearly always
    superseded = _supersede(session, delivery_ids)
    late = _leads(session, delivery_ids, Delivery.state == DeliveryState.DELIVERED, _other())
    changed = sum(withdraw(session, lead, reason=_why(lead), due_in_seconds=0) for lead in late)
    changed += _update(session, delivery_ids)
    # Also where an approval came late, after the rejection was told: that is told again.
    wanted = sa.or_(Lead.status != LeadStatus.REJECTED, Delivery.id.in_(superseded))
    back = _leads(session, [*delivery_ids, *superseded], Delivery.state == DeliveryState.WITHDRAWN, wanted)
    return changed + outbox.plan_many(session, back, due_in_seconds=0)


_REJECTED = EVENTS[Trigger.REJECTED]
#: outbox.what_it_is
_NOW_AS = sa.func.concat(Lead.intent, " ", Lead.priority)


def _other() -> sa.ColumnElement[bool]:
    """The lead is not what was delivered."""
    return sa.or_(Lead.status.not_in(outbox.DELIVERABLE_STATUSES), Delivery.sent_as != _NOW_AS)


@cache
def _asking_for_others() -> sa.Select[bool]:
    """Is there one among the deliveries that :func:`after_sending` has to do something about?"""
    delivered = Delivery.state == DeliveryState.DELIVERED
    sibling = aliased(Delivery)
    superseding = sa.and_(Delivery.action.in_(EVENTS.values()), sa.exists().where(*_superseded(sibling, Delivery)))
    about = sa.or_(Delivery.state == DeliveryState.WITHDRAWN, sa.and_(delivered, sa.or_(_other(), superseding)))
    return sa.select(sa.exists().where(Delivery.id == any_of("ids"), Lead.id == Delivery.lead_id, about))


def _superseded(before: Any, told: Any) -> tuple[sa.ColumnElement[bool], ...]:
    """``before`` is taken back by what was ``told``."""
    return (
        before.lead_id == told.lead_id,
        before.destination_id == told.destination_id,
        before.state == DeliveryState.DELIVERED,
        (before.action == _REJECTED) != (told.action == _REJECTED),
    )


def _update(session: Session, delivery_ids: Sequence[uuid.UUID]) -> int:
    """Queue the change of those that arrived as what their lead is not any more. Of these rows alone, which are ours:
    planning all of the lead's would wait for another worker's that saves as well."""
    rows = session.execute(
        sa.select(Delivery, Lead, Destination)
        .join(Lead, Lead.id == Delivery.lead_id)
        .join(Destination, Destination.id == Delivery.destination_id)
        .where(Delivery.id.in_(delivery_ids), Delivery.state == DeliveryState.DELIVERED, Delivery.sent_as != _NOW_AS)
        .execution_options(populate_existing=True)
    ).all()
    changed = 0
    for delivery, lead, destination in rows:
        steps = outbox.steps_at(DestinationKind(destination.kind), destination.config, destination.rules, lead)
        if any(step.action == delivery.action and step.updates for step in steps):
            delivery.state, delivery.operation = DeliveryState.PENDING, DeliveryOperation.UPDATE
            delivery.revision, delivery.tries, delivery.due_at = delivery.revision + 1, 0, sa.func.now()
            changed += 1
    session.flush()
    return changed


def after_calling_off(session: Session, delivery_ids: Sequence[uuid.UUID]) -> int:
    """The same for calls that were given up since the lead is another one now, and of which an earlier try may have
    arrived."""
    if not delivery_ids:
        return 0
    taking_back = Delivery.operation == DeliveryOperation.WITHDRAW
    left = _leads(session, delivery_ids, _THERE, ~taking_back)
    changed = sum(withdraw(session, lead, reason=_why(lead), due_in_seconds=0) for lead in left)
    back = _leads(session, delivery_ids, Delivery.state == DeliveryState.WITHDRAWN, taking_back)
    return changed + outbox.plan_many(session, back, due_in_seconds=0)


def after_lowering(session: Session, lead_ids: Sequence[uuid.UUID]) -> int:
    """The same for leads of which a later run found something else."""
    there = sa.exists().where(Delivery.lead_id == Lead.id, _THERE)
    query = sa.select(Lead).where(Lead.id.in_(lead_ids), there).order_by(Lead.id)
    leads = session.scalars(query.execution_options(populate_existing=True)).all()
    return sum(withdraw(session, lead, reason="the verdict was lowered", due_in_seconds=0) for lead in leads)


#: Of a call that may have arrived.
_CANNOT = "it may have arrived, and cannot be taken back there"


def _why(lead: Lead) -> str:
    done = "rejected" if lead.status is LeadStatus.REJECTED else "judged otherwise"
    return f"the lead was {done} meanwhile"


def _supersede(session: Session, delivery_ids: Sequence[uuid.UUID]) -> Sequence[uuid.UUID]:
    """Where ``lead.rejected`` was told, what was told before is taken back by it, and the other way round; so whichever
    comes next is told again. Returns what was taken back."""
    told = aliased(Delivery)
    return session.scalars(
        sa.update(Delivery)
        .where(
            told.id.in_(delivery_ids),
            told.state == DeliveryState.DELIVERED,
            told.action.in_(EVENTS.values()),
            *_superseded(Delivery, told),
        )
        .values(state=DeliveryState.WITHDRAWN, updated_at=sa.func.now())
        .returning(Delivery.id)
        .execution_options(synchronize_session=False)
    ).all()


def _leads(session: Session, delivery_ids: Sequence[uuid.UUID], *conditions: sa.ColumnElement[bool]) -> Sequence[Lead]:
    """Leads of these deliveries, by id; ``conditions`` may be about both."""
    theirs = sa.exists().where(Delivery.lead_id == Lead.id, Delivery.id.in_(delivery_ids), *conditions)
    query = sa.select(Lead).where(theirs).order_by(Lead.id)
    return session.scalars(query.execution_options(populate_existing=True)).all()

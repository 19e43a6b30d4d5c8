"""Deals of a CRM that became of leads: whose they are, and what changed since they were last looked at.

A deal is one lead's: of the person it is with, else of the company. That is the newest lead that was there before the
deal; of a deal that is older than all of them the first lead, provided that the deal has moved since it came and was not
over when we first saw it, or has another stage since. Once told of a lead, a deal stays with it. Nothing here commits.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads import audit, lead_outcomes
from webapp.leads.kinds.twenty import COMPANY, PERSON, TASK
from webapp.leads.lead_outcomes import Report
from webapp.leads.ports import Deal, RecordKind, same_stage
from webapp.leads.states import DealState, OutcomeSource
from webapp.models.account import Workspace
from webapp.models.base import new_id
from webapp.models.crm import DealSighting
from webapp.models.lead import Lead
from webapp.models.scoring import LeadOutcome
from webapp.models.work import Delivery, Destination


@dataclass(frozen=True, slots=True)
class Stages:
    """Which stages mean what, as people wrote them; the rest is open."""

    won: Sequence[str]
    lost: Sequence[str]

    def state_of(self, stage: str | None) -> DealState:
        name = same_stage(stage)
        if name in map(same_stage, self.won):
            return DealState.WON
        return DealState.LOST if name in map(same_stage, self.lost) else DealState.OPEN


def tell(session: Session, destination: Destination, deals: Sequence[Deal], stages: Stages) -> int:
    """Add to the leads' histories what is new of ``deals``; returns how many reports that were."""
    told = _told(session, destination.id, [deal.id for deal in deals])
    leads = _leads_of(session, destination.id, deals)
    sighted = _sighted(session, destination.id, [deal.id for deal in deals if deal.id not in told])
    made = 0
    for deal in deals:
        earlier, state = told.get(deal.id, []), stages.state_of(deal.stage)
        theirs = leads.get(deal.person_id or "") or leads.get(deal.company_id or "")
        if earlier:
            lead_id = earlier[-1].lead_id
        elif not theirs:
            continue
        elif before := [one for created_at, one in theirs if created_at <= deal.created_at]:
            lead_id = before[-1]
        elif _has_moved_since(theirs[0][0], deal, state, sighted):
            lead_id = theirs[0][1]
        else:
            _remember(session, destination, deal)
            continue
        made += _add(session, destination, lead_id, earlier, deal, state)
    return made


def forget(session: Session, destination: Destination, deleted: Mapping[str, datetime]) -> int:
    """Deals that were deleted count as open from then on; returns how many reports that took."""
    made = 0
    for deal_id, earlier in _told(session, destination.id, list(deleted)).items():
        at, last = deleted[deal_id], earlier[-1]
        gone = Deal(deal_id, lead_outcomes.DELETED, created_at=at, updated_at=max(at, last.occurred_at))
        made += _add(session, destination, last.lead_id, earlier, gone, DealState.OPEN)
    return made


def _add(
    session: Session,
    destination: Destination,
    lead_id: uuid.UUID,
    earlier: Sequence[LeadOutcome],
    deal: Deal,
    state: DealState,
) -> bool:
    """False when nothing is new of the deal."""
    currency = session.get_one(Workspace, destination.workspace_id).currency
    report = Report(
        outcome=state,
        stage=deal.stage,
        value=deal.value,
        currency=deal.currency if deal.value is not None else None,
        external_id=f"{destination.id}:{deal.id}:{len(earlier) + 1}",
        occurred_at=min(deal.updated_at, datetime.now(UTC)),
        destination_id=destination.id,
        deal=deal.id,
    )
    if not lead_outcomes.storable(report, currency):  # a value or currency that is none: the stage is worth telling
        report = replace(report, value=None, currency=None)
    if earlier and _is_as_before(earlier[-1], report, currency):
        return False
    lead_outcomes.record(
        session,
        destination.workspace_id,
        lead_id,
        report,
        source=OutcomeSource.CRM,
        actor=destination.name,
        currency=currency,
    )
    return True


def _is_as_before(last: LeadOutcome, report: Report, currency: str) -> bool:
    """Whatever is read is how a deal stands now, so the last report alone says whether there is anything new."""
    value = None if report.value is None else Decimal(report.value).quantize(Decimal("0.01"))
    unit = None if value is None else (report.currency or currency).upper()
    return (last.outcome, last.stage, last.value, last.currency) == (report.outcome, report.stage, value, unit)


def _told(session: Session, destination_id: uuid.UUID, deal_ids: Sequence[str]) -> dict[str, list[LeadOutcome]]:
    """Deal → what was told of it, the report that stands last."""
    rows = session.scalars(
        sa.select(LeadOutcome)
        .where(
            LeadOutcome.destination_id == destination_id, LeadOutcome.deal.in_(deal_ids), LeadOutcome.deal.is_not(None)
        )
        .order_by(LeadOutcome.occurred_at, LeadOutcome.id)
    )
    found: dict[str, list[LeadOutcome]] = {}
    for row in rows:
        found.setdefault(str(row.deal), []).append(row)
    return found


#: Id in the CRM → the leads behind it with the time they came, oldest first.
_Leads = dict[str, list[tuple[datetime, uuid.UUID]]]


def _leads_of(session: Session, destination_id: uuid.UUID, deals: Sequence[Deal]) -> _Leads:
    wanted = {
        PERSON: {deal.person_id for deal in deals if deal.person_id},
        COMPANY: {deal.company_id for deal in deals if deal.company_id},
    }
    found: _Leads = {}
    for action, ids in wanted.items():
        rows = session.execute(
            sa.select(Delivery.remote_id, Lead.created_at, Lead.id)
            .join(Lead, Lead.id == Delivery.lead_id)
            .where(*there(destination_id, action), Delivery.remote_id.in_(ids))
            .order_by(Lead.created_at, Lead.id)
        )
        for remote_id, created_at, lead_id in rows:
            found.setdefault(str(remote_id), []).append((created_at, lead_id))
    return found


def _has_moved_since(first_came: datetime, deal: Deal, state: DealState, sighted: Mapping[str, str | None]) -> bool:
    """Of a deal that is older than all leads. What was over when we first saw it was won or lost without them, whatever
    somebody edits in it: only another stage is news. ``sighted``: deal → its stage then."""
    if deal.id in sighted and same_stage(sighted[deal.id]) != same_stage(deal.stage):
        return True
    return state is DealState.OPEN and deal.updated_at >= first_came


def _sighted(session: Session, destination_id: uuid.UUID, deal_ids: Sequence[str]) -> dict[str, str | None]:
    if not deal_ids:
        return {}
    rows = session.execute(
        sa.select(DealSighting.deal, DealSighting.stage).where(
            DealSighting.destination_id == destination_id, DealSighting.deal.in_(deal_ids)
        )
    )
    return {row.deal: row.stage for row in rows}


def _remember(session: Session, destination: Destination, deal: Deal) -> None:
    """The first sighting stands."""
    values = {"workspace_id": destination.workspace_id, "destination_id": destination.id}
    made = insert(DealSighting).values(id=new_id(), deal=deal.id, stage=deal.stage, **values)
    session.execute(made.on_conflict_do_nothing(index_elements=[DealSighting.destination_id, DealSighting.deal]))


def there(destination_id: uuid.UUID, action: str) -> list[sa.ColumnElement[bool]]:
    """Deliveries of this action that have a record at the destination, for the index of them."""
    return [
        Delivery.destination_id == destination_id,
        Delivery.action == sa.literal(action, literal_execute=True),
        Delivery.remote_id.is_not(None),
    ]


# What was deleted

ACTIONS: dict[RecordKind, str] = {"person": PERSON, "task": TASK}


def mark_deleted(session: Session, destination: Destination, kind: RecordKind, deleted: Mapping[str, datetime]) -> int:
    """Keep that these records are not there any more; returns how many deliveries that concerns."""
    rows = session.execute(
        sa.select(Delivery)
        .where(
            *there(destination.id, ACTIONS[kind]),
            Delivery.remote_id.in_(list(deleted)),
            Delivery.deleted_there_at.is_(None),
        )
        .order_by(Delivery.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).scalars()
    marked = 0
    for delivery in rows:
        at = deleted[str(delivery.remote_id)]
        if delivery.delivered_at is not None and at < delivery.delivered_at:
            continue  # made anew since
        delivery.deleted_there_at = at
        marked += 1
        _record(session, destination, "DELIVERY_DELETED_THERE", delivery)
    session.flush()
    return marked


def mark_present(session: Session, destination: Destination, kind: RecordKind, ids: Sequence[str]) -> int:
    """The reverse, for what somebody has brought back."""
    rows = session.scalars(
        sa.select(Delivery)
        .where(
            *there(destination.id, ACTIONS[kind]),
            Delivery.remote_id.in_(ids),
            Delivery.deleted_there_at.is_not(None),
        )
        .order_by(Delivery.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    for delivery in rows:
        delivery.deleted_there_at = None
        _record(session, destination, "DELIVERY_BACK_THERE", delivery)
    session.flush()
    return len(rows)


def _record(session: Session, destination: Destination, event: str, delivery: Delivery) -> None:
    audit.record(
        session,
        delivery.workspace_id,
        event,
        lead_id=delivery.lead_id,
        delivery_id=str(delivery.id),
        destination=destination.name,
        action=delivery.action,
    )

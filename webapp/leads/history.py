"""One lead, run or delivery with what happened around it. Another workspace's id is NotFound."""

import uuid

from sqlalchemy.orm import Session, defer, joinedload

from webapp.leads import queries
from webapp.leads.errors import NotFound
from webapp.leads.filters import LeadFilter
from webapp.leads.queries import LeadRow
from webapp.models.base import scoped
from webapp.models.lead import AuditEvent, Decision, Lead, Touch
from webapp.models.work import Delivery, DeliveryAttempt, Destination, Run

MAX_EVENTS = 200
MAX_AROUND = 20


def lead(session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID) -> Lead:
    """The lead with its person and assignee. NotFound."""
    found: Lead | None = session.scalar(
        scoped(Lead, workspace_id)
        .where(Lead.id == lead_id)
        .options(joinedload(Lead.person), joinedload(Lead.assignee), defer(Lead.search))
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFound("There is no such lead in this workspace.")
    return found


def runs_of(session: Session, found: Lead) -> list[Run]:
    """Its latest runs, newest first."""
    query = (
        scoped(Run, found.workspace_id)
        .where(Run.lead_id == found.id)
        .options(defer(Run.payload_json), defer(Run.result_json))
        .order_by(Run.created_at.desc(), Run.id.desc())
        .limit(MAX_AROUND)
    )
    return list(session.scalars(query))


def deliveries_of(session: Session, found: Lead) -> list[Delivery]:
    """Its deliveries in the order in which they go out, with their destinations."""
    query = (
        scoped(Delivery, found.workspace_id)
        .where(Delivery.lead_id == found.id)
        .options(joinedload(Delivery.destination).defer(Destination.credentials), defer(Delivery.payload))
        .order_by(Delivery.created_at, Delivery.step)
    )
    return list(session.scalars(query))


def events_of(session: Session, found: Lead) -> list[AuditEvent]:
    """Its latest audit events, in the order in which they happened."""
    query = (
        scoped(AuditEvent, found.workspace_id)
        .where(AuditEvent.lead_id == found.id)
        .order_by(AuditEvent.created_at.desc(), AuditEvent.id.desc())
        .limit(MAX_EVENTS)
    )
    return list(session.scalars(query))[::-1]


def touches_of(session: Session, found: Lead) -> list[Touch]:
    """When the same request came again, newest first."""
    if found.touches <= 1:
        return []
    query = (
        scoped(Touch, found.workspace_id)
        .where(Touch.lead_id == found.id)
        .options(defer(Touch.payload))
        .order_by(Touch.created_at.desc())
        .limit(MAX_AROUND)
    )
    return list(session.scalars(query))


def last_decision(session: Session, found: Lead) -> Decision | None:
    """The decision that stands."""
    decision: Decision | None = session.scalar(
        scoped(Decision, found.workspace_id)
        .where(Decision.lead_id == found.id, Decision.undone_at.is_(None))
        .order_by(Decision.created_at.desc(), Decision.id.desc())
        .limit(1)
    )
    return decision


def others_of(session: Session, found: Lead) -> list[LeadRow]:
    """Further leads of the same person, newest first."""
    if found.person_id is None:
        return []
    wanted = LeadFilter(person_id=found.person_id)
    rows = queries.page(session, found.workspace_id, wanted, limit=11, order="newest").rows
    return [row for row in rows if row.id != found.id][:10]


def run(session: Session, workspace_id: uuid.UUID, run_id: uuid.UUID) -> Run:
    """A run with its lead. NotFound."""
    found: Run | None = session.scalar(
        scoped(Run, workspace_id)
        .where(Run.id == run_id)
        .options(joinedload(Run.lead).defer(Lead.search), defer(Run.payload_json))
    )
    if found is None:
        raise NotFound("There is no such run in this workspace.")
    return found


def delivery(session: Session, workspace_id: uuid.UUID, delivery_id: uuid.UUID) -> Delivery:
    """A delivery with its lead and destination. NotFound."""
    found: Delivery | None = session.scalar(
        scoped(Delivery, workspace_id)
        .where(Delivery.id == delivery_id)
        .options(joinedload(Delivery.lead).defer(Lead.search), joinedload(Delivery.destination))
    )
    if found is None:
        raise NotFound("There is no such delivery in this workspace.")
    return found


def attempts_of(session: Session, found: Delivery) -> list[DeliveryAttempt]:
    """Its calls on the wire, newest first."""
    query = (
        scoped(DeliveryAttempt, found.workspace_id)
        .where(DeliveryAttempt.delivery_id == found.id)
        .order_by(DeliveryAttempt.started_at.desc())
        .limit(100)
    )
    return list(session.scalars(query))

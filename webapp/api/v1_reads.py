"""``/api/v1``: runs, deliveries and the audit trail (docs/api.md)."""

import uuid
from typing import Annotated, Any

import sqlalchemy as sa
from flask import Blueprint, Response, jsonify
from pydantic import AwareDatetime, BaseModel, Field

from jobs import queue
from webapp.api import auth, problems
from webapp.api.openapi import documented
from webapp.api.schemas import Count, EventOut, Out, RunOut
from webapp.api.triage import find, iso
from webapp.api.v1 import run_view
from webapp.extensions import db
from webapp.leads import deliver, history, keyset
from webapp.leads.states import DeliveryState, DestinationKind, Scope
from webapp.models.base import scoped
from webapp.models.lead import AuditEvent
from webapp.models.work import Delivery, DeliveryAttempt, Destination
from webapp.security.keys import Principal

blueprint = Blueprint("v1_reads", __name__, url_prefix="/api/v1")

Limit = Annotated[int, Field(ge=1, le=200)]
Cursor = Annotated[str | None, Field(max_length=200, description="`next_cursor` of the page before.")]
OfLead = Annotated[str | None, Field(max_length=200, description="Of this lead: its UUID or business id.")]


class DeliveriesQuery(BaseModel):
    state: DeliveryState | None = None
    destination: Annotated[str | None, Field(max_length=200, description="A destination's id or name.")] = None
    lead: OfLead = None
    limit: Limit = 50
    cursor: Cursor = None


class EventsV1Query(BaseModel):
    lead: OfLead = None
    event_type: Annotated[str | None, Field(max_length=100)] = None
    limit: Limit = 50
    cursor: Cursor = None


class DeliveryOut(Out):
    """One effect on one destination. ``step`` orders the actions of a lead there; ``tries`` are calls since it was
    last queued by a person, ``attempt`` all claims. ``remote_id``: what the other side calls it."""

    id: uuid.UUID
    lead_id: uuid.UUID
    destination_id: uuid.UUID
    destination: str
    kind: DestinationKind
    action: str
    step: Count
    state: DeliveryState
    tries: Count
    attempt: Count
    due_at: AwareDatetime
    delivered_at: AwareDatetime | None
    remote_id: str | None
    last_error: str | None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class AttemptOut(Out):
    """One call on the wire. ``excerpt``: the start of the answer, redacted."""

    attempt: Count
    started_at: AwareDatetime
    ms: Count | None
    http_status: int | None
    outcome: str
    error: str | None
    excerpt: str | None


class DeliveryDetail(DeliveryOut):
    """``payload``: what was last sent; ``attempts``: newest first, at most 100."""

    payload: dict[str, Any] | None
    attempts: list[AttemptOut]


class DeliveriesPage(Out):
    """``next_cursor``: hand it back as ``cursor`` with the same filters; null on the last page."""

    deliveries: list[DeliveryOut]
    next_cursor: str | None


class EventsPage(Out):
    events: list[EventOut]
    next_cursor: str | None


_BY_ID = {"delivery_id": "The delivery's id."}


@blueprint.get("/runs/<uuid:run_id>")
@documented(
    "One run with its stages", tag="Runs", path={"run_id": "The run's id."}, answers={200: RunOut}, errors=(404,)
)
@auth.needs(Scope.READ)
def run(principal: Principal, run_id: uuid.UUID) -> Response:
    return jsonify(run_view(history.run(db.session(), principal.workspace_id, run_id)))


@blueprint.get("/deliveries")
@documented(
    "Deliveries, newest first", tag="Deliveries", query=DeliveriesQuery, answers={200: DeliveriesPage}, errors=(404,)
)
@auth.needs(Scope.READ)
def deliveries(principal: Principal) -> Response:
    asked = problems.query(DeliveriesQuery)
    query = (
        sa.select(Delivery, Destination.name, Destination.kind)
        .join(Destination, Destination.id == Delivery.destination_id)
        .where(Delivery.workspace_id == principal.workspace_id)
        .options(sa.orm.defer(Delivery.payload))
    )
    if asked.state:
        query = query.where(Delivery.state == sa.literal(asked.state, Delivery.state.type, literal_execute=True))
    if asked.destination:
        query = query.where(_destination(asked.destination))
    if asked.lead:
        query = query.where(Delivery.lead_id == find(principal, asked.lead).id)
    page = keyset.newest(db.session(), query, Delivery, cursor=asked.cursor, limit=asked.limit)
    return jsonify(
        deliveries=[delivery_view(row[0], name=row[1], kind=row[2]) for row in page.rows],
        next_cursor=page.next_cursor,
    )


def _destination(given: str) -> sa.ColumnElement[bool]:
    try:
        return Destination.id == uuid.UUID(given)
    except ValueError:
        return Destination.name == given


def delivery_view(row: Delivery, *, name: str, kind: DestinationKind) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "lead_id": str(row.lead_id),
        "destination_id": str(row.destination_id),
        "destination": name,
        "kind": kind.value,
        "action": row.action,
        "step": row.step,
        "state": row.state.value,
        "tries": row.tries,
        "attempt": row.attempt,
        "due_at": iso(row.due_at),
        "delivered_at": iso(row.delivered_at) if row.delivered_at else None,
        "remote_id": row.remote_id,
        "last_error": row.last_error,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
    }


def _in_full(principal: Principal, delivery_id: uuid.UUID) -> Response:
    session = db.session()
    row = history.delivery(session, principal.workspace_id, delivery_id)
    return jsonify(
        delivery_view(row, name=row.destination.name, kind=row.destination.kind)
        | {"payload": row.payload, "attempts": [_attempt_view(one) for one in history.attempts_of(session, row)]}
    )


def _attempt_view(one: DeliveryAttempt) -> dict[str, Any]:
    return {
        "attempt": one.attempt,
        "started_at": iso(one.started_at),
        "ms": one.ms,
        "http_status": one.http_status,
        "outcome": one.outcome,
        "error": one.error,
        "excerpt": one.excerpt,
    }


@blueprint.get("/deliveries/<uuid:delivery_id>")
@documented(
    "One delivery with its attempts", tag="Deliveries", path=_BY_ID, answers={200: DeliveryDetail}, errors=(404,)
)
@auth.needs(Scope.READ)
def delivery(principal: Principal, delivery_id: uuid.UUID) -> Response:
    return _in_full(principal, delivery_id)


@blueprint.post("/deliveries/<uuid:delivery_id>/replay")
@documented(
    "Send a delivery again",
    tag="Deliveries",
    description="A dead or uncertain one, with all its tries. What may have arrived is looked for before it is sent.",
    path=_BY_ID,
    answers={202: DeliveryDetail},
    errors=(404, 409),
)
@auth.needs(Scope.REVIEW)
def replay(principal: Principal, delivery_id: uuid.UUID) -> Response:
    session = db.session()
    row = history.delivery(session, principal.workspace_id, delivery_id)
    deliver.replay(session, row, actor=f"{principal.name} (API)")
    session.commit()
    queue.ring("deliveries")
    response = _in_full(principal, delivery_id)
    response.status_code = 202
    return response


@blueprint.get("/audit")
@documented(
    "What happened, newest first, by pages", tag="Audit", query=EventsV1Query, answers={200: EventsPage}, errors=(404,)
)
@auth.needs(Scope.READ)
def audit(principal: Principal) -> Response:
    asked = problems.query(EventsV1Query)
    query = scoped(AuditEvent, principal.workspace_id)
    if asked.lead:
        query = query.where(AuditEvent.lead_id == find(principal, asked.lead).id)
    if asked.event_type:
        query = query.where(AuditEvent.event_type == asked.event_type)
    page = keyset.newest(db.session(), query, AuditEvent, cursor=asked.cursor, limit=asked.limit)
    return jsonify(events=[_event_view(row[0]) for row in page.rows], next_cursor=page.next_cursor)


def _event_view(event: AuditEvent) -> dict[str, Any]:
    return {
        "id": str(event.id),
        "tenant_id": str(event.workspace_id),
        "lead_id": str(event.lead_id) if event.lead_id else None,
        "event_type": event.event_type,
        "actor": event.actor,
        "metadata": event.details,
        "created_at": iso(event.created_at),
    }

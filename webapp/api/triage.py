"""Event-driven triage: ``POST /leads/`` and its readers (docs/api.md §2)."""

import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import sqlalchemy as sa
from flask import Blueprint, Response, current_app, jsonify, request
from pydantic import BaseModel, ConfigDict, Field

from jobs import queue
from webapp.api import auth
from webapp.api.body import json_object
from webapp.api.fields import attribution_of, consent_of, moment_of
from webapp.api.openapi import REPLAYED, Answer, Header, documented
from webapp.api.problems import Email, validated
from webapp.api.schemas import Insight, LeadBrief, LeadsWindow, TriageLead, TriageLeadRead
from webapp.errors import Unprocessable, envelope
from webapp.extensions import db
from webapp.leads import crm, intake
from webapp.leads.errors import Invalid, NotFound, Problem
from webapp.leads.states import COARSE_VIEW, Door, Scope
from webapp.models.lead import Lead
from webapp.security.keys import Principal

blueprint = Blueprint("triage", __name__)

#: Namespace of insight ids: one per (lead, content hash), so that a replay can never make a second.
INSIGHT_NAMESPACE = uuid.UUID("6f0e7c52-5f0b-5c55-9b0e-2f7b1a6f9f11")

Short = Annotated[str, Field(max_length=500)]


class TriageIn(BaseModel):
    """Body of ``POST /leads/``; strict: a number is not a string."""

    model_config = ConfigDict(strict=True, extra="ignore")

    note: Annotated[str, Field(min_length=1, max_length=intake.MAX_MESSAGE)]
    email: Email | None = None
    phone: Short | None = None
    name: Short | None = None
    source: Short | None = None


def iso(moment: datetime) -> str:
    """``2026-11-20T08:00:00.123456Z``"""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def idempotency_key() -> uuid.UUID:
    raw = request.headers.get("Idempotency-Key", "").strip()
    if not raw:
        raise Invalid(
            "the header Idempotency-Key is required",
            code="missing_param",
            details=(Problem("Idempotency-Key", "missing"),),
        )
    try:
        return uuid.UUID(raw)
    except ValueError:
        raise Unprocessable(
            "the header Idempotency-Key must be a UUID", details=(Problem("Idempotency-Key", "must be a UUID"),)
        ) from None


@blueprint.post("/leads/")
@documented(
    "Send an event for triage",
    tag="Triage",
    description="The verdict is there when the answer is. The same key and body again: the same answer.",
    body=TriageIn,
    headers=(Header("Idempotency-Key", {"type": "string", "format": "uuid"}, required=True),),
    answers={201: TriageLead, 200: Answer(TriageLead, "The first answer again.", headers=REPLAYED)},
    errors=(409, 422),
)
@auth.needs(Scope.INGEST)
def create(principal: Principal) -> Response:
    key = idempotency_key()
    data = json_object()
    body = validated(TriageIn, data, error=Unprocessable)
    lead = intake.LeadIn(
        door=Door.TRIAGE,
        message=body.note,
        source=body.source or "unknown",
        name=body.name,
        email=data.get("email"),
        phone=body.phone,
        attribution=attribution_of(data),
        consent=consent_of(data.get("consent")),
        consent_at=moment_of(data.get("consent_at")),
        payload=current_app.extensions["cipher"].seal(data),
    )
    # One statement, one transaction, one round trip.
    autocommit = current_app.extensions["autocommit"]
    received = intake.accept(autocommit, principal.workspace, lead, key=intake.Key(str(key), intake.request_hash(data)))
    if not received.replayed:
        queue.ring("runs")
    # What the caller wrote, not what validation made of it, is echoed.
    response = jsonify(
        {
            "id": str(received.lead_id),
            "email": data.get("email"),
            "phone": data.get("phone"),
            "name": data.get("name"),
            "note": data["note"],
            "source": data.get("source"),
            "created_at": iso(received.created_at),
        }
    )
    if received.replayed:
        response.headers["Idempotent-Replayed"] = "true"
        return response
    response.status_code = 201
    return response


def find(principal: Principal, lead_id: str) -> Lead:
    """A lead by UUID or business id. NotFound when this workspace has none."""
    mine = sa.select(Lead).where(Lead.workspace_id == principal.workspace_id)
    lead: Lead | None = None
    with suppress(ValueError):
        lead = db.session.scalar(mine.where(Lead.id == uuid.UUID(lead_id)))
    if lead is None:
        lead = db.session.scalar(mine.where(Lead.external_id == lead_id))
    if lead is None:
        raise NotFound("Lead not found")
    return lead


@blueprint.get("/leads/<lead_id>")
@documented(
    "One lead",
    tag="Triage",
    path={"lead_id": "The UUID, or the business id."},
    answers={200: TriageLeadRead},
    errors=(404,),
)
@auth.needs(Scope.READ)
def show(principal: Principal, lead_id: str) -> Response:
    lead = find(principal, lead_id)
    synced = db.session.scalar(sa.select(crm.synced()).where(Lead.id == lead.id))
    return jsonify(
        {
            "id": str(lead.id),
            "email": lead.email,
            "phone": lead.phone,
            "name": lead.name,
            "note": lead.message,
            "source": None if lead.source == "unknown" else lead.source,
            "created_at": iso(lead.created_at),
            "lead_id": lead.external_id or str(lead.id),
            "crm_synced": bool(synced),
        }
    )


@blueprint.get("/leads/<lead_id>/insight")
@documented(
    "The verdict on a lead, in the coarse vocabulary",
    tag="Triage",
    path={"lead_id": "The UUID, or the business id."},
    answers={200: Insight},
    errors=(404,),
)
@auth.needs(Scope.READ)
def insight(principal: Principal, lead_id: str) -> Response:
    lead = find(principal, lead_id)
    return jsonify(insight_view(lead))


def insight_view(lead: Lead) -> dict[str, Any]:
    """The insight of a lead in the coarse vocabulary."""
    return {
        "id": str(uuid.uuid5(INSIGHT_NAMESPACE, f"{lead.id}:{lead.content_hash}")),
        "lead_id": str(lead.id),
        "intent": COARSE_VIEW[lead.intent],
        "priority": lead.priority.value,
        "next_action": lead.next_action.value,
        "confidence": lead.confidence,
        "tags": lead.verdict.get("tags", []),
        "content_hash": lead.content_hash,
        "created_at": iso(lead.created_at),
    }


# Both spellings have rules of their own, so that neither is redirected: POST /leads is another door than POST /leads/.
@blueprint.get("/leads/")
@blueprint.get("/leads")
@documented("All leads in brief, newest first", tag="Triage", query=LeadsWindow, answers={200: list[LeadBrief]})
@auth.needs(Scope.READ)
def listing(principal: Principal) -> Response:
    limit = auth.int_param("limit", 1000, 1, 10_000)
    offset = auth.int_param("offset", 0, 0, 10_000_000)
    rows = db.session.execute(
        sa.select(Lead.id, Lead.external_id, Lead.email, crm.synced().label("synced"))
        .where(Lead.workspace_id == principal.workspace_id)
        .order_by(Lead.created_at.desc(), Lead.id.desc())
        .limit(limit)
        .offset(offset)
    )
    return jsonify(
        [{"lead_id": row.external_id or str(row.id), "email": row.email, "crm_synced": row.synced} for row in rows]
    )


@blueprint.errorhandler(NotFound)
def not_found(error: NotFound) -> Response:
    """The envelope, with what clients of ``GET /leads/{lead_id}`` look for beside it."""
    db.session.rollback()
    response = envelope(404, error.message)
    response.set_data(jsonify(response.get_json() | {"detail": error.message}).get_data())
    return response

"""``GET /audit/events``: what happened, newest first (docs/api.md §4)."""

import sqlalchemy as sa
from flask import Blueprint, Response, jsonify, request

from webapp.api import auth
from webapp.api.openapi import documented
from webapp.api.schemas import EventOut, EventsQuery
from webapp.api.triage import iso
from webapp.extensions import db
from webapp.leads.states import Scope
from webapp.models.lead import AuditEvent
from webapp.security.keys import Principal

blueprint = Blueprint("audit_api", __name__)


@blueprint.get("/audit/events")
@documented("What happened, newest first", tag="Audit", query=EventsQuery, answers={200: list[EventOut]}, errors=(403,))
@auth.needs(Scope.READ)
def events(principal: Principal) -> Response:
    auth.tenant_param(principal, request.args.get("tenant_id"))
    limit = auth.int_param("limit", 50, 1, 200)
    offset = auth.int_param("offset", 0, 0, 10_000_000)
    query = sa.select(AuditEvent).where(AuditEvent.workspace_id == principal.workspace_id)
    lead_id = auth.uuid_param("lead_id")
    if lead_id:
        query = query.where(AuditEvent.lead_id == lead_id)
    if kind := request.args.get("event_type"):
        query = query.where(AuditEvent.event_type == kind)
    rows = db.session.scalars(
        query.order_by(AuditEvent.created_at.desc(), AuditEvent.id.desc()).limit(limit).offset(offset)
    )
    return jsonify(
        [
            {
                "id": str(event.id),
                "tenant_id": str(event.workspace_id),
                "lead_id": str(event.lead_id) if event.lead_id else None,
                "event_type": event.event_type,
                "actor": event.actor,
                "metadata": event.details,
                "created_at": iso(event.created_at),
            }
            for event in rows
        ]
    )

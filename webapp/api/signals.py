"""The signals API: leads in the vocabulary of social signals (docs/api.md §4)."""

from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Response, jsonify, request

from webapp.api import auth
from webapp.api.openapi import documented
from webapp.api.schemas import Signals, SignalsQuery
from webapp.api.triage import iso
from webapp.extensions import db
from webapp.leads.errors import Invalid, Problem
from webapp.leads.states import LABEL_VIEW, PRIORITY_VIEW, LeadStatus, Scope
from webapp.models.lead import Lead
from webapp.security.fields import is_sealed
from webapp.security.keys import Principal

blueprint = Blueprint("signals", __name__)


@blueprint.get("/api/leads")
@documented(
    "Leads in the vocabulary of social signals, newest first", tag="Signals", query=SignalsQuery, answers={200: Signals}
)
@auth.needs(Scope.READ)
def listing(principal: Principal) -> Response:
    auth.tenant_param(principal, request.args.get("tenant_id"))
    limit, offset = auth.int_param("limit", 50, 1, 200), auth.int_param("offset", 0, 0, 10_000_000)
    mine = [Lead.workspace_id == principal.workspace_id]
    if status := request.args.get("status"):
        if status not in set(LeadStatus):
            raise Invalid(
                "status is not one that exists", details=(Problem("status", "one of " + ", ".join(LeadStatus)),)
            )
        mine.append(Lead.status == LeadStatus(status))
    total = db.session.scalar(sa.select(sa.func.count()).select_from(Lead).where(*mine))
    rows = db.session.scalars(
        sa.select(Lead)
        .options(sa.orm.joinedload(Lead.assignee), sa.orm.defer(Lead.search), sa.orm.defer(Lead.verdict))
        .where(*mine)
        .order_by(Lead.created_at.desc(), Lead.id.desc())
        .limit(limit)
        .offset(offset)
    )
    return jsonify(tenant_id=str(principal.workspace_id), leads=[signal_view(lead) for lead in rows], total=total)


def signal_view(lead: Lead) -> dict[str, Any]:
    """A lead in the vocabulary of the signals API."""
    return {
        "id": str(lead.id),
        "tenant_id": str(lead.workspace_id),
        "platform": lead.platform or lead.source,
        "source_type": lead.source_type,
        "source_subtype": lead.source_subtype,
        "external_post_id": lead.external_post_id,
        "external_thread_id": lead.external_thread_id,
        "external_message_id": lead.external_message_id,
        "author_name": lead.author_name or lead.name,
        "author_id": lead.author_id,
        "content_text": lead.message,
        "intent_label": LABEL_VIEW[lead.intent],
        "priority": PRIORITY_VIEW[lead.priority],
        "confidence_score": lead.confidence,
        "status": lead.status.value,
        "assignee": lead.assignee.name if lead.assignee else None,
        "follow_up_at": iso(lead.follow_up_at) if lead.follow_up_at else None,
        "last_contact_at": iso(lead.last_contact_at),
        "meta": {
            **{name: value for name, value in lead.attributes.items() if not is_sealed(value)},
            "score": lead.score,
            "qualified": lead.qualified,
            "touches": lead.touches,
        },
        "created_at": iso(lead.created_at),
        "updated_at": iso(lead.updated_at),
    }

"""``/api/v1/leads/{id}/outcome(s)``: what became of a lead (docs/api.md §5)."""

from typing import Annotated, Any

from flask import Blueprint, Response, jsonify
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from webapp.api import auth
from webapp.api.body import json_body
from webapp.api.fields import sane_moment
from webapp.api.openapi import Answer, documented
from webapp.api.problems import validated
from webapp.api.schemas import OutcomeOut, OutcomesOut
from webapp.api.triage import find, iso
from webapp.extensions import db
from webapp.leads import lead_outcomes
from webapp.leads.lead_outcomes import Report
from webapp.leads.states import DealState, OutcomeSource, Scope
from webapp.models.account import Workspace
from webapp.models.scoring import LeadOutcome
from webapp.security.keys import Principal

blueprint = Blueprint("v1_outcomes", __name__, url_prefix="/api/v1")

_BY_ID = {"lead_id": "The UUID, or the business id."}
Text = Annotated[str, Field(max_length=lead_outcomes.MAX_TEXT)]


class OutcomeV1(BaseModel):
    """Body of ``POST /api/v1/leads/{id}/outcome``."""

    model_config = ConfigDict(extra="forbid")

    outcome: DealState
    stage: Text | None = None
    value: Annotated[float, Field(ge=0, lt=float(lead_outcomes.MAX_VALUE), allow_inf_nan=False)] | None = None
    currency: Annotated[
        str, Field(min_length=3, max_length=3, description="ISO 4217; the workspace's if left out.")
    ] | (None) = None
    external_id: (
        Annotated[str, Field(min_length=1, max_length=lead_outcomes.MAX_TEXT, description="Your name for this report.")]
        | None
    ) = None
    occurred_at: Annotated[AwareDatetime, AfterValidator(sane_moment)] | None = None


@blueprint.post("/leads/<lead_id>/outcome")
@documented(
    "Report what became of a lead",
    tag="Leads",
    description="Added to the lead's history; the report that happened last stands. The same `external_id` with the same "
    "report is a repeat and answered 200, with another report 409.",
    path=_BY_ID,
    body=OutcomeV1,
    answers={201: OutcomeOut, 200: Answer(OutcomeOut, "The report was here already.")},
    errors=(404, 409),
)
@auth.needs(Scope.REVIEW)
def report(principal: Principal, lead_id: str) -> Response:
    body = validated(OutcomeV1, json_body())
    lead = find(principal, lead_id)
    recorded = lead_outcomes.record(
        db.session(),
        principal.workspace_id,
        lead.id,
        Report(body.outcome, body.stage, body.value, body.currency, body.external_id, body.occurred_at),
        source=OutcomeSource.API,
        actor=f"{principal.name} (API)",
        currency=db.session.get_one(Workspace, principal.workspace_id).currency,
    )
    answer = jsonify(outcome_view(recorded.row))
    db.session.commit()
    answer.status_code = 200 if recorded.replayed else 201
    return answer


@blueprint.get("/leads/<lead_id>/outcomes")
@documented("What became of a lead", tag="Leads", path=_BY_ID, answers={200: OutcomesOut}, errors=(404,))
@auth.needs(Scope.READ)
def listing(principal: Principal, lead_id: str) -> Response:
    lead = find(principal, lead_id)
    rows = lead_outcomes.history(db.session(), principal.workspace_id, lead.id)
    return jsonify(outcomes=[outcome_view(row) for row in rows])


def outcome_view(row: LeadOutcome) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "lead_id": str(row.lead_id),
        "outcome": row.outcome.value,
        "stage": row.stage,
        "value": float(row.value) if row.value is not None else None,
        "currency": row.currency,
        "source": row.source.value,
        "external_id": row.external_id,
        "occurred_at": iso(row.occurred_at),
        "created_at": iso(row.created_at),
    }

"""Our own API, ``/api/v1`` (docs/api.md §5)."""

from datetime import datetime
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from flask import Blueprint, Response, current_app, jsonify, request, url_for
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from jobs import queue
from webapp.api import auth
from webapp.api.body import json_body, json_object
from webapp.api.fields import attribution_of, consent_of, sane_moment
from webapp.api.openapi import IDEMPOTENCY_KEY, REPLAYED, Answer, documented
from webapp.api.problems import Email, validated
from webapp.api.schemas import DecidedLead, LeadDetail, LeadOut, LeadsPage, LeadsQuery, RunOut, RunsOut
from webapp.api.triage import find, iso
from webapp.errors import Unprocessable
from webapp.extensions import db
from webapp.leads import callbacks, intake, queries, review
from webapp.leads import run as runs
from webapp.leads.errors import Invalid, Problem
from webapp.leads.kinds.callback import address_problem
from webapp.leads.states import DecisionAction, Door, Intent, Priority, RejectReason, Scope
from webapp.models.lead import Lead
from webapp.models.work import Run
from webapp.security.keys import Principal

blueprint = Blueprint("v1", __name__, url_prefix="/api/v1")

Short = Annotated[str, Field(max_length=500)]
_BY_ID = {"lead_id": "The UUID, or the business id."}
ATTRIBUTES = (
    "first_name",
    "last_name",
    "job_title",
    "country",
    "city",
    "date_of_birth",
    "monthly_salary_min",
    "monthly_salary_max",
    "current_credit",
)


def _callback_address(url: str) -> str:
    if wrong := address_problem(url):
        raise ValueError(wrong)
    return url


class LeadV1(BaseModel):
    """Body of ``POST /api/v1/leads``. At least a message, an e-mail or a phone; other fields are kept as sent."""

    model_config = ConfigDict(strict=True, extra="ignore")

    lead_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    message: Annotated[str, Field(max_length=intake.MAX_MESSAGE)] = ""
    name: Short | None = None
    first_name: Short | None = None
    last_name: Short | None = None
    email: Email | None = None
    phone: Short | None = None
    company: Short | None = None
    job_title: Short | None = None
    country: Short | None = None
    city: Short | None = None
    source: Short | None = None
    budget: Annotated[float, Field(strict=False, ge=0, le=1e15)] | None = None
    date_of_birth: Short | None = None
    monthly_salary_min: float | None = None
    monthly_salary_max: float | None = None
    current_credit: Short | None = None
    utm_source: Short | None = None
    utm_medium: Short | None = None
    utm_campaign: Short | None = None
    utm_term: Short | None = None
    utm_content: Short | None = None
    gclid: Short | None = None
    fbclid: Short | None = None
    landing_page: Annotated[str, Field(max_length=2_000)] | None = None
    referrer: Annotated[str, Field(max_length=2_000)] | None = None
    consent: bool | Short | None = None
    consent_at: Annotated[AwareDatetime, Field(strict=False), AfterValidator(sane_moment)] | None = None
    callback_url: (
        Annotated[
            str,
            AfterValidator(_callback_address),
            Field(
                description="Where its result is posted once its run is done; below an address that an admin has set up."
            ),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _somebody(self) -> "LeadV1":
        if not (self.message.strip() or self.email or (self.phone or "").strip()):
            raise ValueError("a lead needs a message, an e-mail or a phone")
        return self


class DecisionV1(BaseModel):
    """Body of ``POST /api/v1/leads/{id}/decision``."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["approve", "override", "reject"]
    version: Annotated[int, Field(strict=True, ge=1)]
    intent: Intent | None = None
    priority: Priority | None = None
    reason: Annotated[str, Field(max_length=review.MAX_REASON)] | None = None


def idempotency_key(data: Any) -> intake.Key | None:
    """The request's ``Idempotency-Key``, with ``data`` (any JSON) to tell a repeat by; None without one."""
    raw = request.headers.get("Idempotency-Key")
    if raw is None:
        return None
    value = raw.strip()
    if not value or len(value) > 255 or not value.isprintable():
        raise Invalid(
            "Idempotency-Key must be 1 to 255 printable characters",
            details=(Problem("Idempotency-Key", "1 to 255 printable characters"),),
        )
    return intake.Key(value, intake.request_hash(data))


@blueprint.post("/leads")
@documented(
    "Send a lead",
    tag="Leads",
    description="At least a message, an e-mail or a phone. What is here already is 409 and names the lead.",
    body=LeadV1,
    headers=(IDEMPOTENCY_KEY,),
    answers={
        201: Answer(LeadOut, headers={"Location": "Where the lead can be read."}),
        200: Answer(LeadOut, "The lead of the first request with this key.", headers=REPLAYED),
    },
    errors=(409, 422),
)
@auth.needs(Scope.INGEST)
def create(principal: Principal) -> Response:
    data = json_object()
    key = idempotency_key(data)
    body = validated(LeadV1, data)
    sealed = current_app.extensions["cipher"].seal(data)
    received = intake.accept_new(db.session, principal.workspace, _lead_in(body, data, sealed), key=key)
    if received.created and body.callback_url is not None:
        _check_callback(principal, body.callback_url)
    db.session.commit()
    if received.touched:
        raise intake.exists(received.lead_id)
    if not received.replayed:
        queue.ring("runs")
    lead = db.session.get_one(Lead, received.lead_id)
    response = jsonify(lead_view(lead))
    response.headers["Location"] = url_for("v1.show", lead_id=str(lead.id))
    if received.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    else:
        response.status_code = 201
    return response


def _check_callback(principal: Principal, url: str) -> None:
    """After intake, which knows a repeat: its answer stays what it was. What was taken in is taken back."""
    if wrong := callbacks.problem_of(url, callbacks.places(db.session(), principal.workspace_id)):
        db.session.rollback()
        raise Unprocessable(
            "the result cannot be posted to that callback_url; nothing was stored",
            details=(Problem("callback_url", wrong),),
        )


def _lead_in(body: LeadV1, data: dict[str, Any], sealed: dict[str, Any]) -> intake.LeadIn:
    name = body.name or " ".join(part for part in (body.first_name, body.last_name) if part) or None
    return intake.LeadIn(
        door=Door.V1,
        message=body.message,
        source=body.source or "unknown",
        name=name,
        email=data.get("email"),
        phone=body.phone,
        company=body.company,
        budget=body.budget,
        external_id=body.lead_id,
        attributes={field: sealed[field] for field in ATTRIBUTES if sealed.get(field) is not None},
        attribution=attribution_of(data),
        consent=consent_of(body.consent),
        consent_at=body.consent_at,
        callback_url=body.callback_url,
        payload=sealed,
    )


@blueprint.get("/leads")
@documented("Leads, newest first", tag="Leads", query=LeadsQuery, answers={200: LeadsPage})
@auth.needs(Scope.READ)
def listing(principal: Principal) -> Response:
    limit = auth.int_param("limit", 50, 1, 200)
    chosen = queries.LeadFilter.parse(request.args)
    page = queries.page(
        db.session, principal.workspace_id, chosen, cursor=request.args.get("cursor"), limit=limit, order="newest"
    )
    ids = [row.id for row in page.rows]
    found = {
        lead.id: lead
        for lead in db.session.scalars(
            sa.select(Lead)
            .options(sa.orm.joinedload(Lead.assignee), sa.orm.defer(Lead.search))
            .where(Lead.workspace_id == principal.workspace_id, Lead.id.in_(ids))
        )
    }
    return jsonify(leads=[lead_view(found[i]) for i in ids if i in found], next_cursor=page.next_cursor)


@blueprint.get("/leads/<lead_id>")
@documented("One lead", tag="Leads", path=_BY_ID, answers={200: LeadDetail}, errors=(404,))
@auth.needs(Scope.READ)
def show(principal: Principal, lead_id: str) -> Response:
    lead = find(principal, lead_id)
    return jsonify(lead_view(lead) | {"facts": lead.facts})


def _moment(value: datetime | None) -> str | None:
    return iso(value) if value else None


def lead_view(lead: Lead) -> dict[str, Any]:
    """A lead in our own vocabulary; ``version`` is what a decision names."""
    return {
        "id": str(lead.id),
        "lead_id": lead.external_id,
        "status": lead.status.value,
        "version": lead.version,
        "intent": lead.intent.value,
        "priority": lead.priority.value,
        "next_action": lead.next_action.value,
        "confidence": lead.confidence,
        "score": lead.score,
        "qualified": lead.qualified,
        "name": lead.name or lead.author_name,
        "email": lead.email,
        "phone": lead.phone,
        "company": lead.company,
        "message": lead.message,
        "lang": lead.lang,
        "source": lead.source,
        "budget": lead.budget,
        "attribution": lead.attribution,
        "consent": lead.consent,
        "consent_at": _moment(lead.consent_at),
        "touches": lead.touches,
        "suppressed": lead.suppression_id is not None,
        "person_id": str(lead.person_id) if lead.person_id else None,
        "assignee_id": str(lead.assignee_id) if lead.assignee_id else None,
        "decided_by": lead.decided_by,
        "decided_at": _moment(lead.decided_at),
        "verdict": lead.verdict,
        "created_at": iso(lead.created_at),
        "updated_at": iso(lead.updated_at),
    }


@blueprint.get("/leads/<lead_id>/runs")
@documented("A lead's runs, newest first", tag="Runs", path=_BY_ID, answers={200: RunsOut}, errors=(404,))
@auth.needs(Scope.READ)
def lead_runs(principal: Principal, lead_id: str) -> Response:
    lead = find(principal, lead_id)
    rows = db.session.scalars(
        sa.select(Run).where(Run.lead_id == lead.id).order_by(Run.created_at.desc(), Run.id.desc()).limit(200)
    )
    return jsonify(runs=[run_view(run) for run in rows])


def run_view(run: Run) -> dict[str, Any]:
    """A run with its stages; ``state`` is ``success`` when done."""
    took = run.finished_at - run.started_at if run.finished_at and run.started_at else None
    return {
        "id": str(run.id),
        "lead_id": str(run.lead_id),
        "state": run.status.value,
        "trigger": run.trigger.value,
        "requested_by": run.requested_by,
        "attempt": run.attempt,
        "error": run.error,
        "stages": run.stages,
        "result": run.result_json,
        "ms": round(took.total_seconds() * 1000) if took else None,
        "created_at": iso(run.created_at),
        "started_at": _moment(run.started_at),
        "finished_at": _moment(run.finished_at),
    }


@blueprint.post("/leads/<lead_id>/rerun")
@documented("Run a lead again", tag="Runs", path=_BY_ID, answers={202: RunOut}, errors=(404,))
@auth.needs(Scope.REVIEW)
def rerun(principal: Principal, lead_id: str) -> Response:
    lead = find(principal, lead_id)
    run = runs.request_rerun(db.session, lead, requested_by=f"{principal.name} (API)")
    db.session.commit()
    queue.ring("runs")
    response = jsonify(run_view(run))
    response.status_code = 202
    return response


@blueprint.post("/leads/<lead_id>/decision")
@documented(
    "Approve, override or reject a lead",
    tag="Leads",
    path=_BY_ID,
    body=DecisionV1,
    answers={200: DecidedLead},
    errors=(404, 409),
)
@auth.needs(Scope.REVIEW)
def decision(principal: Principal, lead_id: str) -> Response:
    body = validated(DecisionV1, json_body())
    lead = find(principal, lead_id)
    action = DecisionAction(body.action)
    reject_reason, reason = _reject_reason(body) if action is DecisionAction.REJECT else (None, body.reason)
    made = review.decide(
        db.session,
        principal.workspace_id,
        lead.id,
        action=action,
        version=body.version,
        actor=review.Actor(f"{principal.name} (API)"),
        undo_seconds=auth.settings().undo_window_seconds,
        intent=body.intent,
        priority=body.priority,
        reject_reason=reject_reason,
        reason=reason,
    )
    undo_until = iso(made.undo_until)
    db.session.commit()
    queue.ring("deliveries")
    return jsonify(lead_view(find(principal, lead_id)) | {"undo_until": undo_until})


def _reject_reason(body: DecisionV1) -> tuple[RejectReason, str | None]:
    """A closed reason by its name; any other words are kept as the text of ``other``."""
    given = (body.reason or "").strip()
    if given in set(RejectReason) and given != RejectReason.OTHER:
        return RejectReason(given), None
    return RejectReason.OTHER, given if given and given != RejectReason.OTHER else "no reason given"

"""Leads from a CRM's clients: ``POST /leads`` (no slash) and ``GET /leads/search`` (docs/api.md)."""

import re
import uuid
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from flask import Blueprint, Response, current_app, jsonify
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from jobs import queue
from webapp.api import auth, problems
from webapp.api.body import json_object
from webapp.api.fields import attribution_of, consent_of, moment_of
from webapp.api.openapi import documented
from webapp.api.problems import Email, validated
from webapp.api.schemas import Out
from webapp.api.triage import iso
from webapp.extensions import db
from webapp.leads import crm
from webapp.leads.errors import Invalid, Problem
from webapp.leads.intake import LeadIn
from webapp.leads.states import Door, Scope
from webapp.security.keys import Principal

blueprint = Blueprint("crm", __name__)

#: As in the clients' vocabulary; kept as attributes of the lead, the sensitive ones encrypted.
ATTRIBUTES = (
    "first_name", "last_name", "address_line1", "address_line2", "city", "state_province", "postal_code", "country",
    "country_code", "vehicle_type", "date_of_birth", "current_credit", "monthly_salary_min", "monthly_salary_max",
    "employment_status", "job_title", "employment_length", "length_at_company", "length_at_home_address",
)  # fmt: skip
SOURCE = "crm"

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def _day_of_birth(value: str) -> str:
    try:
        born = date.fromisoformat(value) if _DATE.fullmatch(value) else None
    except ValueError:
        born = None
    if born is None:
        raise ValueError("must be a date such as 1985-06-30")
    if born.year < 1900 or born > datetime.now(UTC).date():
        raise ValueError("must lie between 1900 and today")
    return value


Line = Annotated[str, Field(max_length=200)]
Word = Annotated[str, Field(max_length=100)]
Money = Annotated[float, Field(ge=0, le=1e12)]
Day = Annotated[str, AfterValidator(_day_of_birth), WithJsonSchema({"type": "string", "format": "date"})]


class LeadCreate(BaseModel):
    """Body of ``POST /leads``; strict: a number is not a text. Attribution and consent may stand beside."""

    model_config = ConfigDict(strict=True, extra="ignore")

    lead_id: Annotated[str, Field(min_length=1, max_length=128, pattern=r"\S")]
    first_name: Line | None = None
    last_name: Line | None = None
    full_name: Annotated[str, Field(max_length=400)] | None = None
    email: Email | None = None
    phone: Word | None = None
    address_line1: Line | None = None
    address_line2: Line | None = None
    city: Line | None = None
    state_province: Line | None = None
    postal_code: Word | None = None
    country: Line | None = None
    country_code: Word | None = None
    vehicle_type: Line | None = None
    date_of_birth: Day | None = None
    current_credit: Line | None = None
    monthly_salary_min: Money | None = None
    monthly_salary_max: Money | None = None
    employment_status: Line | None = None
    job_title: Line | None = None
    company_name: Line | None = None
    employment_length: Line | None = None
    length_at_company: Line | None = None
    length_at_home_address: Line | None = None

    @model_validator(mode="after")
    def _salary(self) -> "LeadCreate":
        low, high = self.monthly_salary_min, self.monthly_salary_max
        if low is not None and high is not None and low > high:
            raise ValueError("monthly_salary_min must not be above monthly_salary_max")
        return self


class LeadKept(Out):
    """``lead_id``: of the lead that is stored: its business id, else its UUID."""

    status: Literal["created", "existing"]
    lead_id: str


class SearchQuery(BaseModel):
    """At least one; a lead has to fit all that are given."""

    phone: Annotated[str, Field(max_length=100, description="Part of a phone number; digits alone count.")] = ""
    email: Annotated[str, Field(max_length=320, description="Part of an e-mail address; case does not count.")] = ""
    name: Annotated[str, Field(max_length=200, description="Part of a name; neither case nor diacritics count.")] = ""


class LeadFound(Out):
    """``lead_id``: the business id, else the UUID."""

    id: uuid.UUID
    lead_id: str
    name: str | None
    email: str | None
    phone: str | None
    crm_synced: bool
    created_at: AwareDatetime


class LeadsFound(Out):
    results: Annotated[list[LeadFound], Field(max_length=crm.FOUND)]


@blueprint.post("/leads")
@documented(
    "Send a lead from a CRM client",
    tag="CRM",
    description="A lead with the same e-mail, else the same phone, else the same lead_id is here already (`existing`): "
    "what was sent is then kept with it.",
    body=LeadCreate,
    answers={200: LeadKept},
)
@auth.needs(Scope.INGEST)
def create(principal: Principal) -> Response:
    data = json_object()
    body = validated(LeadCreate, data)
    kept = crm.receive(db.session(), principal.workspace, _lead_in(body, data))
    db.session.commit()
    if kept.created:
        queue.ring("runs")
    return jsonify(status="created" if kept.created else "existing", lead_id=kept.reference)


def _lead_in(body: LeadCreate, data: dict[str, Any]) -> LeadIn:
    sealed = current_app.extensions["cipher"].seal(data)
    parts = [part.strip() for part in (body.first_name, body.last_name) if part and part.strip()]
    return LeadIn(
        door=Door.CRM,
        message="",
        source=SOURCE,
        name=body.full_name or " ".join(parts) or None,
        email=data.get("email"),
        phone=body.phone,
        company=body.company_name,
        external_id=body.lead_id,
        attributes={field: sealed[field] for field in ATTRIBUTES if sealed.get(field) is not None},
        attribution=attribution_of(data),
        consent=consent_of(data.get("consent")),
        consent_at=moment_of(data.get("consent_at")),
        payload=sealed,
    )


@blueprint.get("/leads/search")
@documented("Find leads by a part of a name, e-mail or phone", tag="CRM", query=SearchQuery, answers={200: LeadsFound})
@auth.needs(Scope.READ)
def search(principal: Principal) -> Response:
    asked = problems.query(SearchQuery)
    parts = {name: value.strip() or None for name, value in asked.model_dump().items()}
    if not any(parts.values()):
        raise Invalid(
            "phone, email or name is required",
            code="missing_param",
            details=tuple(Problem(name, "one of the three is required") for name in parts),
        )
    found = crm.search(db.session(), principal.workspace_id, **parts)
    return jsonify(
        results=[
            {
                "id": str(lead.id),
                "lead_id": lead.reference,
                "name": lead.name,
                "email": lead.email,
                "phone": lead.phone,
                "crm_synced": lead.crm_synced,
                "created_at": iso(lead.created_at),
            }
            for lead in found
        ]
    )

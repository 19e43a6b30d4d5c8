"""What the doors answer, exactly: the models that the OpenAPI document is made of (webapp.api.openapi).

Each forbids what it does not name, so a view that answers more or less than it says fails the suite.
"""

import uuid
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from webapp.leads.states import (
    COARSE_VIEW,
    LABEL_VIEW,
    PRIORITY_VIEW,
    DealState,
    Intent,
    LeadStatus,
    NextAction,
    OutcomeSource,
    Priority,
    RunStatus,
    RunTrigger,
    StageStatus,
)

Score = Annotated[int, Field(ge=0, le=100)]
Confidence = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
#: The older vocabularies, from the tables that translate into them.
Label = Annotated[str, Field(json_schema_extra={"enum": sorted(set(LABEL_VIEW.values()))})]
Coarse = Annotated[str, Field(json_schema_extra={"enum": sorted(set(COARSE_VIEW.values()))})]
Urgency = Annotated[str, Field(json_schema_extra={"enum": sorted(set(PRIORITY_VIEW.values()))})]
Code = Literal[
    "invalid_json",
    "invalid_param",
    "missing_param",
    "method_not_allowed",
    "version_conflict",
    "internal",
    "payload_too_large",
    "unsupported_media_type",
    "invalid_auth",
    "expired_key",
    "insufficient_scope",
    "not_found",
    "resource_exists",
    "idempotency_mismatch",
    "in_progress",
    "rate_limited",
    "upstream_failed",
    "unavailable",
]


class Out(BaseModel):
    """Base of all answers: these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class ProblemOut(Out):
    """One thing wrong with one field."""

    field: str
    reason: str


class ErrorBody(Out):
    code: Code
    message: str
    details: list[ProblemOut]
    request_id: str


class ErrorOut(Out):
    """The envelope of every error. ``request_id`` finds it in the log. ``detail``: what older clients of
    ``/leads/{lead_id}`` look for; there alone."""

    error: ErrorBody
    detail: str = ""


class Alive(Out):
    status: Literal["ok"]


class Ready(Out):
    """``degraded`` names the checks that are not ``ok``; ``ms`` is what the checks took."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, str]
    degraded: list[str]
    ms: float


class TriageLead(Out):
    """``email``, ``name`` and ``note`` as they were sent."""

    id: uuid.UUID
    email: str | None
    phone: str | None
    name: str | None
    note: str
    source: str | None
    created_at: AwareDatetime


class TriageLeadRead(TriageLead):
    """``lead_id``: the business id, else the UUID. ``crm_synced``: the person has been delivered to a CRM."""

    lead_id: str
    crm_synced: bool


class LeadBrief(Out):
    lead_id: str
    email: str | None
    crm_synced: bool


class Insight(Out):
    """The verdict in the coarse vocabulary. ``content_hash``: SHA-256 (hex) of the note."""

    id: uuid.UUID
    lead_id: uuid.UUID
    intent: Coarse
    priority: Priority
    next_action: NextAction
    confidence: Confidence
    tags: list[str]
    content_hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    created_at: AwareDatetime


class Received(Out):
    """What a provider's webhook made: new leads only, a repeat counts none."""

    ok: Literal[True]
    created: Count
    lead_ids: list[uuid.UUID]


class Signal(Out):
    """A lead in the vocabulary of the signals API."""

    id: uuid.UUID
    tenant_id: uuid.UUID
    platform: str
    source_type: str | None
    source_subtype: str | None
    external_post_id: str | None
    external_thread_id: str | None
    external_message_id: str | None
    author_name: str | None
    author_id: str | None
    content_text: str
    intent_label: Label
    priority: Urgency
    confidence_score: Confidence
    status: LeadStatus
    assignee: str | None
    follow_up_at: AwareDatetime | None
    last_contact_at: AwareDatetime
    meta: dict[str, Any]
    created_at: AwareDatetime
    updated_at: AwareDatetime


class Signals(Out):
    tenant_id: uuid.UUID
    leads: list[Signal]
    total: Count


class EventOut(Out):
    id: uuid.UUID
    tenant_id: uuid.UUID
    lead_id: uuid.UUID | None
    event_type: str
    actor: str
    metadata: dict[str, Any]
    created_at: AwareDatetime


class LeadOut(Out):
    """A lead in our own vocabulary. ``intent`` … ``status`` are what stands; ``verdict`` is the machine's own.
    ``version`` is what a decision names."""

    id: uuid.UUID
    lead_id: str | None
    status: LeadStatus
    version: Annotated[int, Field(ge=1)]
    intent: Intent
    priority: Priority
    next_action: NextAction
    confidence: Confidence
    score: Score | None
    qualified: bool | None
    name: str | None
    email: str | None
    phone: str | None
    company: str | None
    message: str
    lang: str
    source: str
    budget: float | None
    attribution: dict[str, str]
    consent: str | None
    consent_at: AwareDatetime | None
    touches: Annotated[int, Field(ge=1)]
    suppressed: Annotated[bool, Field(description="The suppression list holds it back: it is never delivered.")]
    person_id: uuid.UUID | None
    assignee_id: uuid.UUID | None
    decided_by: str | None
    decided_at: AwareDatetime | None
    verdict: dict[str, Any]
    created_at: AwareDatetime
    updated_at: AwareDatetime


class FactOut(Out):
    """One thing learned about the lead. Several providers may say different things under one name: the one of the
    highest ``confidence`` is used, all are told. ``at``: when it was learned."""

    name: str
    value: Any
    provider: str
    confidence: Confidence
    note: str
    at: AwareDatetime


class LeadDetail(LeadOut):
    """``facts``: what the last run learned."""

    facts: list[FactOut]


class OutcomeOut(Out):
    """A report of what became of a lead. ``source``: who reported it."""

    id: uuid.UUID
    lead_id: uuid.UUID
    outcome: DealState
    stage: str | None
    value: float | None
    currency: str | None
    source: OutcomeSource
    external_id: str | None
    occurred_at: AwareDatetime
    created_at: AwareDatetime


class OutcomesOut(Out):
    """The one that stands first."""

    outcomes: list[OutcomeOut]


class DecidedLead(LeadOut):
    """``undo_until``: the deliveries of the decision are held until then."""

    undo_until: AwareDatetime


class LeadsPage(Out):
    """``next_cursor``: hand it back as ``cursor`` with the same filters; null on the last page."""

    leads: list[LeadOut]
    next_cursor: str | None


class StageOut(Out):
    name: str
    status: StageStatus
    input: Any
    output: Any
    evidence: Any
    error: str | None
    started_at: AwareDatetime
    ms: Annotated[float, Field(ge=0)]


class RunOut(Out):
    """One passage of a lead through the stages."""

    id: uuid.UUID
    lead_id: uuid.UUID
    state: RunStatus
    trigger: RunTrigger
    requested_by: str | None
    attempt: Count
    error: str | None
    stages: list[StageOut]
    result: dict[str, Any] | None
    ms: Count | None
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


class RunsOut(Out):
    runs: list[RunOut]


# What lists may be asked for. The bounds are those that the doors hold to.

Offset = Annotated[int, Field(ge=0, le=10_000_000)]
Tenant = Annotated[uuid.UUID | None, Field(description="The key's own workspace; another's is 403.")]


class LeadsWindow(BaseModel):
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    offset: Offset = 0


class SignalsQuery(BaseModel):
    tenant_id: Tenant = None
    status: LeadStatus | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    offset: Offset = 0


class EventsQuery(BaseModel):
    tenant_id: Tenant = None
    lead_id: uuid.UUID | None = None
    event_type: str | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    offset: Offset = 0


class HubQuery(BaseModel):
    """Meta's handshake."""

    mode: Annotated[str, Field(alias="hub.mode", description="`subscribe`")]
    verify_token: Annotated[str, Field(alias="hub.verify_token", description="Equal to META_VERIFY_TOKEN.")]
    challenge: Annotated[str, Field(alias="hub.challenge", description="Comes back as it is.")] = ""


class LeadsQuery(BaseModel):
    """Filters of a list of leads (webapp.leads.filters reads them). Several values by repeating or with commas."""

    view: Literal[
        "waiting", "escalate", "draft", "auto", "decided", "approved", "overridden", "rejected", "suppressed", "all"
    ] = "all"
    status: list[LeadStatus] | None = None
    intent: list[Intent] | None = None
    priority: list[Priority] | None = None
    source: str | None = None
    assignee: Annotated[uuid.UUID | Literal["none"] | None, Field(description="A user's id, or `none`.")] = None
    person_id: uuid.UUID | None = None
    import_id: uuid.UUID | None = None
    q: Annotated[str | None, Field(description="Words, each as a prefix; or a phone number.")] = None
    utm_source: str | None = None
    utm_medium: str | None = None
    utm_campaign: str | None = None
    utm_term: str | None = None
    utm_content: str | None = None
    landing_page: str | None = None
    referrer: str | None = None
    gclid: Annotated[str | None, Field(description="`yes`: came with a Google click id; `no`; or the very one.")] = None
    fbclid: Annotated[str | None, Field(description="`yes`: came with a Facebook click id; `no`; or the very one.")] = (
        None
    )
    consent: Annotated[str | None, Field(description="`yes`, `no`, `none` (nothing said), or the words given.")] = None
    consent_from: Annotated[str | None, Field(description="Consent given at or after: a day (UTC) or a moment.")] = None
    consent_to: Annotated[str | None, Field(description="Consent given before: a day (UTC) or a moment.")] = None
    suppressed: Annotated[
        Literal["yes", "no"] | None, Field(description="Held back by the suppression list, or not.")
    ] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(description="`next_cursor` of the page before.")] = None

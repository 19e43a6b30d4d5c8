"""Closed vocabularies of the domain and the transitions that are legal between them.

Every enum is stored by value with a CHECK constraint (see ``webapp.models.base``); the words are defined in
docs/taxonomy.md, and the older vocabularies that clients expect are views of them (``LABEL_VIEW`` and friends).
"""

from enum import StrEnum


class Intent(StrEnum):
    PURCHASE_INTENT = "purchase_intent"
    INQUIRY_PRICE = "inquiry_price"
    DEMO_REQUEST = "demo_request"
    CONTACT_REQUEST = "contact_request"
    INQUIRY = "inquiry"
    SUPPORT = "support"
    COMPLAINT = "complaint"
    JOB = "job"
    PARTNERSHIP = "partnership"
    VENDOR_PITCH = "vendor_pitch"
    SPAM = "spam"
    UNSUBSCRIBE = "unsubscribe"
    THANKS = "thanks"
    ENGAGEMENT = "engagement"
    UNKNOWN = "unknown"

    __hash__ = str.__hash__  # Enum's own is Python, and the judge looks intents up all the time


class Priority(StrEnum):
    P0 = "P0"
    P1 = "P1"
    P2 = "P2"
    P3 = "P3"


class NextAction(StrEnum):
    CALL = "call"
    EMAIL = "email"
    QUALIFY = "qualify"
    IGNORE = "ignore"


class LeadStatus(StrEnum):
    NEW_AUTO = "new_auto"
    NEW_DRAFT = "new_draft"
    NEW_ESCALATE = "new_escalate"
    APPROVED = "approved"
    OVERRIDDEN = "overridden"
    REJECTED = "rejected"


class DecisionAction(StrEnum):
    APPROVE = "approve"
    OVERRIDE = "override"
    REJECT = "reject"


class RejectReason(StrEnum):
    """Why a lead is not one. A rejection always carries one of these; free text may be added."""

    SPAM = "spam"
    DUPLICATE = "duplicate"
    COMPETITOR = "competitor"
    EXISTING_CUSTOMER = "existing_customer"
    WRONG_REGION = "wrong_region"
    NO_BUDGET = "no_budget"
    TEST = "test"
    OTHER = "other"


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"


class StageStatus(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"  # went on with less: partial data, a fallback
    FAILED = "failed"
    SKIPPED = "skipped"


class RunTrigger(StrEnum):
    INTAKE = "intake"
    TOUCH = "touch"
    RERUN = "rerun"


class DeliveryState(StrEnum):
    """Where an effect stands. PENDING waits for ``due_at`` (undo window or back-off)."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    UNCERTAIN = "uncertain"  # may or may not have arrived, and the other side cannot tell
    DEAD = "dead"  # dead letter: needs a person
    CANCELLED = "cancelled"
    SHADOWED = "shadowed"  # recorded what would have been sent, and sent nothing
    WITHDRAWN = "withdrawn"  # was delivered, and has been taken back on the other side


class DeliveryOperation(StrEnum):
    """What the next call of a delivery does on the other side."""

    SEND = "send"
    UPDATE = "update"  # it is there: bring it up to date
    RESTORE = "restore"  # it is there, taken back: make it count again
    WITHDRAW = "withdraw"  # take it back


class TaskRequestState(StrEnum):
    """Where a round of follow-up tasks in the CRM stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class PullState(StrEnum):
    """Whether a worker is reading a CRM at this moment. QUEUED: until its next time, too."""

    QUEUED = "queued"
    RUNNING = "running"


class RerunState(StrEnum):
    """Where a re-run of many leads stands. QUEUED: between two looks at how far it is, too."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class TextState(StrEnum):
    """Where the text of a lead's follow-up task stands."""

    WANTED = "wanted"  # a model is to be asked
    WRITING = "writing"
    WRITTEN = "written"


class TaskStep(StrEnum):
    """What a follow-up task may tell people to do; a model chooses among these, and words none of its own."""

    CALL = "call"
    WRITE = "write"
    ANSWER_THERE = "answer_there"
    ASK_NEEDS = "ask_needs"
    ASK_QUANTITY = "ask_quantity"
    ASK_BUDGET = "ask_budget"
    ASK_TIMING = "ask_timing"
    ASK_DECIDER = "ask_decider"
    QUOTE = "quote"
    DEMO = "demo"
    PROPOSE_TIMES = "propose_times"
    CHECK_AVAILABLE = "check_available"
    LOOK_UP = "look_up"
    SOLVE = "solve"
    APOLOGISE = "apologise"
    TELL_LEAD = "tell_lead"
    ASK_CONTACT = "ask_contact"
    PARTNER = "partner"
    NOTE = "note"
    CLOSE = "close"


class TextAuthor(StrEnum):
    TEMPLATE = "template"
    MODEL = "model"
    PERSON = "person"


class DestinationKind(StrEnum):
    TWENTY = "twenty"
    WEBHOOK = "webhook"
    N8N = "n8n"  # the follow-up contract of WEBHOOK_URL
    SLACK = "slack"  # a bot
    SLACK_WEBHOOK = "slack_webhook"  # an incoming webhook
    HUBSPOT = "hubspot"
    SALESFORCE = "salesforce"
    SHEETS = "sheets"
    EMAIL = "email"
    CALLBACK = "callback"  # the address that came with the lead


class DestinationMode(StrEnum):
    LIVE = "live"
    SHADOW = "shadow"  # records what would be sent, and sends nothing
    OFF = "off"


class Trigger(StrEnum):
    """What about a lead makes a destination want it (webapp.leads.triggers)."""

    APPROVED = "approved"
    OVERRIDDEN = "overridden"
    NEW_AUTO = "new_auto"
    PRIORITY_HIGH = "priority_high"
    QUALIFIED = "qualified"
    COLD = "cold"
    REJECTED = "rejected"


class ReplayState(StrEnum):
    """Where a replay of many dead letters stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class Role(StrEnum):
    """Browser roles, weakest first; each includes the ones before it."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    MANAGER = "manager"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        order = list(Role)
        return order.index(self) >= order.index(other)


class Scope(StrEnum):
    """What an API key may do. PLATFORM keys belong to no workspace and may only create them."""

    INGEST = "ingest"
    READ = "read"
    REVIEW = "review"
    ADMIN = "admin"
    PLATFORM = "platform"


class Door(StrEnum):
    """Which inbound contract a lead came in by; idempotency keys are scoped by it."""

    TRIAGE = "triage"  # POST /leads/
    SOCIAL = "social"  # /webhooks/facebook
    V1 = "v1"  # /api/v1/leads
    ENRICH = "enrich"  # POST /enrich-lead
    CRM = "crm"  # POST /leads
    HOOK = "hook"  # /hooks/{source token}
    IMPORT = "import"  # a file, by API or browser
    WEB = "web"  # a public page that an admin named


class QuarantineState(StrEnum):
    HELD = "held"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class ImportState(StrEnum):
    """Where a file stands. UPLOADED waits for its columns to be mapped; CANCELLED and UNDONE keep their counts."""

    UPLOADED = "uploaded"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNDO_QUEUED = "undo_queued"
    UNDOING = "undoing"
    UNDONE = "undone"


class AlertState(StrEnum):
    """Where an alert stands. An acknowledged one still holds, and is somebody's; the next time makes no new one."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class TeamPolicy(StrEnum):
    """Who of a team's members that are there gets the next lead."""

    LEAST_LOADED = "least_loaded"  # fewest open leads, ties at random
    ROUND_ROBIN = "round_robin"  # whoever has waited longest
    WEIGHTED = "weighted"  # at random, by weight


class RouteState(StrEnum):
    """Why a lead that needs a person has none."""

    BACKLOG = "backlog"  # waits for its team to begin work
    MANUAL = "manual"  # nobody fits, or routing broke: a person assigns it


class FetchKind(StrEnum):
    LEADGEN = "leadgen"  # the answers of a Meta Lead Ads form, by the Graph API
    PAGE = "page"  # a public web page


class FetchState(StrEnum):
    PENDING = "pending"
    FETCHING = "fetching"
    DONE = "done"
    DEAD = "dead"  # given up, with the reason; a person can ask again


class DealState(StrEnum):
    """What became of a lead where deals are made."""

    OPEN = "open"
    WON = "won"
    LOST = "lost"


class OutcomeSource(StrEnum):
    """Who reported it."""

    API = "api"  # POST /api/v1/leads/{id}/outcome
    CRM = "crm"  # read from a CRM


class SuppressionKind(StrEnum):
    """Why somebody is on the suppression list."""

    OWN_STAFF = "own_staff"
    COMPETITOR = "competitor"
    TEST = "test"  # what somebody sends to see whether it works
    OTHER = "other"


class SuppressionMatch(StrEnum):
    """What of a lead an entry of the suppression list is compared with."""

    EMAIL = "email"
    DOMAIN = "domain"  # of the e-mail address, and what lies under it
    PHONE = "phone"
    PATTERN = "pattern"  # words with *, of the name, company, e-mail or message


class SuggestionState(StrEnum):
    """Of two people who may be one."""

    SUGGESTED = "suggested"
    MERGED = "merged"
    DISMISSED = "dismissed"


class Verification(StrEnum):
    """How a generic inbound webhook proves itself, besides the secret token in its address."""

    NONE = "none"
    HMAC = "hmac"  # HMAC-SHA256 of the raw body in a header
    STANDARD = "standard"  # Standard Webhooks
    BODY = "body"  # the secret itself stands in the body (Google Ads: google_key)
    HUBSPOT = "hubspot"  # X-HubSpot-Signature-v3
    WEBFLOW = "webflow"  # x-webflow-signature over "timestamp:body"


class LookupSubject(StrEnum):
    """What an enrichment provider is asked about."""

    DOMAIN = "domain"
    EMAIL = "email"


class AnswerState(StrEnum):
    """What asking a provider came to."""

    FOUND = "found"
    NOTHING = "nothing"  # it knows nothing of the subject: kept as well, so that it is not asked again at once
    FAILED = "failed"  # no answer for now


DECIDED_STATUSES = frozenset({LeadStatus.APPROVED, LeadStatus.OVERRIDDEN, LeadStatus.REJECTED})
#: What waits for a person. ``new_auto`` is its own view.
WAITING_STATUSES = frozenset({LeadStatus.NEW_DRAFT, LeadStatus.NEW_ESCALATE})
#: What no person has decided about.
OPEN_STATUSES = WAITING_STATUSES | {LeadStatus.NEW_AUTO}

BUYING_INTENTS = frozenset({Intent.PURCHASE_INTENT, Intent.INQUIRY_PRICE, Intent.DEMO_REQUEST, Intent.CONTACT_REQUEST})
QUALIFIABLE_INTENTS = BUYING_INTENTS | {Intent.INQUIRY, Intent.PARTNERSHIP}
#: Never delivered, whatever their status.
UNDELIVERABLE_INTENTS = frozenset(
    {
        Intent.SPAM,
        Intent.VENDOR_PITCH,
        Intent.JOB,
        Intent.UNSUBSCRIBE,
        Intent.THANKS,
        Intent.ENGAGEMENT,
        Intent.UNKNOWN,
    }
)

STATUS_AFTER = {
    DecisionAction.APPROVE: LeadStatus.APPROVED,
    DecisionAction.OVERRIDE: LeadStatus.OVERRIDDEN,
    DecisionAction.REJECT: LeadStatus.REJECTED,
}

#: Who wins when a message does several things (taxonomy: precedence). Pitches and spam stand above all.
PRECEDENCE: tuple[Intent, ...] = (
    Intent.UNSUBSCRIBE,
    Intent.COMPLAINT,
    Intent.PURCHASE_INTENT,
    Intent.INQUIRY_PRICE,
    Intent.DEMO_REQUEST,
    Intent.CONTACT_REQUEST,
    Intent.SUPPORT,
    Intent.PARTNERSHIP,
    Intent.JOB,
    Intent.INQUIRY,
    Intent.THANKS,
    Intent.ENGAGEMENT,
)

#: Signals API: the older, smaller set of labels.
LABEL_VIEW: dict[Intent, str] = {
    Intent.PURCHASE_INTENT: "purchase_intent",
    Intent.INQUIRY_PRICE: "inquiry_price",
    Intent.DEMO_REQUEST: "demo_request",
    Intent.CONTACT_REQUEST: "contact_request",
    Intent.INQUIRY: "inquiry",
    Intent.SUPPORT: "inquiry",
    Intent.COMPLAINT: "complaint",
    Intent.JOB: "inquiry",
    Intent.PARTNERSHIP: "contact_request",
    Intent.VENDOR_PITCH: "unknown",
    Intent.SPAM: "unknown",
    Intent.UNSUBSCRIBE: "unknown",
    Intent.THANKS: "thanks",
    Intent.ENGAGEMENT: "engagement",
    Intent.UNKNOWN: "unknown",
}

#: Insight API: the coarse set.
COARSE_VIEW: dict[Intent, str] = {
    Intent.PURCHASE_INTENT: "buy",
    Intent.INQUIRY_PRICE: "buy",
    Intent.DEMO_REQUEST: "buy",
    Intent.CONTACT_REQUEST: "buy",
    Intent.INQUIRY: "other",
    Intent.SUPPORT: "support",
    Intent.COMPLAINT: "support",
    Intent.JOB: "job",
    Intent.PARTNERSHIP: "other",
    Intent.VENDOR_PITCH: "spam",
    Intent.SPAM: "spam",
    Intent.UNSUBSCRIBE: "other",
    Intent.THANKS: "other",
    Intent.ENGAGEMENT: "other",
    Intent.UNKNOWN: "other",
}

PRIORITY_VIEW: dict[Priority, str] = {
    Priority.P0: "high",
    Priority.P1: "high",
    Priority.P2: "medium",
    Priority.P3: "low",
}


#: A workspace's thresholds until it sets its own.
AUTO_FROM, DRAFT_FROM = 0.85, 0.70


def status_for(confidence: float, *, auto_from: float, draft_from: float) -> LeadStatus:
    """The status that a machine's confidence (a probability, 0..1) gives under the workspace's thresholds."""
    if confidence >= auto_from:
        return LeadStatus.NEW_AUTO
    if confidence >= draft_from:
        return LeadStatus.NEW_DRAFT
    return LeadStatus.NEW_ESCALATE


def next_action_for(intent: Intent, priority: Priority) -> NextAction:
    """The next action that taxonomy.md gives for a verdict."""
    if intent in BUYING_INTENTS:
        if priority is Priority.P0 or (intent is Intent.CONTACT_REQUEST and priority is Priority.P1):
            return NextAction.CALL
        return NextAction.EMAIL
    if intent in (Intent.SUPPORT, Intent.COMPLAINT):
        return NextAction.CALL if priority is Priority.P0 else NextAction.EMAIL
    if intent in (Intent.PARTNERSHIP, Intent.INQUIRY, Intent.UNKNOWN):
        return NextAction.QUALIFY
    return NextAction.IGNORE

"""How the console says things: every enum and stored value in words (``events`` tells audit events, ``times`` moments).
Templates get these as filters and globals, so that no raw value ever stands on a page as text for people."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from webapp.leads import vocabulary
from webapp.leads.judging_policy import Mode
from webapp.leads.kinds import KINDS
from webapp.leads.states import (
    AlertState,
    DealState,
    DecisionAction,
    DeliveryState,
    DestinationKind,
    Door,
    FetchState,
    ImportState,
    Intent,
    LeadStatus,
    NextAction,
    OutcomeSource,
    Priority,
    QuarantineState,
    RejectReason,
    ReplayState,
    RerunState,
    Role,
    RunStatus,
    RunTrigger,
    Scope,
    StageStatus,
    SuppressionKind,
    SuppressionMatch,
    TeamPolicy,
    Verification,
)
from webapp.leads.vocabulary import INTENT, LANGUAGE, NEXT_ACTION, PRIORITY


class Status(NamedTuple):
    """A status as people see it: shape and word beside the colour that ``kind`` gives (a CSS class)."""

    shape: str
    word: str
    kind: str
    means: str


STATUS: dict[LeadStatus, Status] = {
    LeadStatus.NEW_AUTO: Status("●", "auto", "auto", "The machine is sure; sent without waiting for a person"),
    LeadStatus.NEW_DRAFT: Status("◐", "draft", "draft", "The machine is fairly sure; waits for a person"),
    LeadStatus.NEW_ESCALATE: Status("▲", "escalate", "esc", "The machine is unsure; waits for a person"),
    LeadStatus.APPROVED: Status("✓", "approved", "auto", "A person confirmed the verdict"),
    LeadStatus.OVERRIDDEN: Status("✎", "overridden", "over", "A person gave another verdict"),
    LeadStatus.REJECTED: Status("✕", "rejected", "off", "A person said this is not a lead"),
}
RUN_STATUS: dict[RunStatus, Status] = {
    RunStatus.QUEUED: Status("○", "queued", "off", "Waits for a worker"),
    RunStatus.RUNNING: Status("◔", "running", "over", "A worker has it"),
    RunStatus.SUCCESS: Status("●", "done", "auto", "Went through all stages"),
    RunStatus.FAILED: Status("▲", "failed", "esc", "Stopped by an error; the verdict before it stands"),
}
STAGE_STATUS: dict[StageStatus, Status] = {
    StageStatus.OK: Status("●", "done", "auto", "Did its work"),
    StageStatus.DEGRADED: Status("◐", "with less", "draft", "Went on with partial data or a fallback"),
    StageStatus.FAILED: Status("▲", "failed", "esc", "Stopped by an error"),
    StageStatus.SKIPPED: Status("○", "skipped", "off", "Nothing to do"),
}
DELIVERY_STATE: dict[DeliveryState, Status] = {
    DeliveryState.PENDING: Status("○", "waiting", "off", "Goes out when its time has come"),
    DeliveryState.SENDING: Status("◔", "sending", "over", "A worker is sending it"),
    DeliveryState.DELIVERED: Status("●", "delivered", "auto", "The other side has confirmed it"),
    DeliveryState.UNCERTAIN: Status("◐", "uncertain", "draft", "It may have arrived; the other side cannot say"),
    DeliveryState.DEAD: Status("▲", "not delivered", "esc", "Given up; needs a person"),
    DeliveryState.CANCELLED: Status("✕", "cancelled", "off", "Called off before it was sent"),
    DeliveryState.SHADOWED: Status("◌", "recorded", "over", "What would have been sent; nothing was"),
    DeliveryState.WITHDRAWN: Status(
        "↩", "taken back", "off", "It was delivered, and the other side knows that it no longer counts"
    ),
}
RERUN_STATE: dict[RerunState, Status] = {
    RerunState.QUEUED: Status("○", "under way", "over", "Its runs are queued and seen through"),
    RerunState.RUNNING: Status("◔", "under way", "over", "Its runs are being queued"),
    RerunState.DONE: Status("●", "done", "auto", "Every lead was looked at"),
    RerunState.CANCELLED: Status("✕", "stopped", "off", "Stopped by a person; what was done stays"),
}
REPLAY_STATE: dict[ReplayState, Status] = {
    ReplayState.QUEUED: Status("○", "waiting", "off", "Begins as soon as a worker is free"),
    ReplayState.RUNNING: Status("◔", "under way", "over", "They are being queued again"),
    ReplayState.DONE: Status("●", "done", "auto", "All of them were queued again"),
    ReplayState.CANCELLED: Status("✕", "stopped", "off", "Stopped by a person; what was queued before goes out"),
}
FETCH_STATE: dict[FetchState, Status] = {
    FetchState.PENDING: Status("○", "waiting", "off", "Comes in its turn"),
    FetchState.FETCHING: Status("◔", "fetching", "over", "A worker is fetching it"),
    FetchState.DONE: Status("●", "done", "auto", "Fetched; what it held was taken in"),
    FetchState.DEAD: Status("▲", "not fetched", "esc", "Given up; says why, and can be asked for again"),
}
IMPORT_STATE: dict[ImportState, Status] = {
    ImportState.UPLOADED: Status("○", "to be mapped", "draft", "Waits for its columns to be chosen"),
    ImportState.QUEUED: Status("○", "waiting", "off", "Waits for a worker"),
    ImportState.RUNNING: Status("◔", "running", "over", "A worker takes its rows in"),
    ImportState.DONE: Status("●", "done", "auto", "Every row was read"),
    ImportState.FAILED: Status("▲", "failed", "esc", "Stopped by an error; says why"),
    ImportState.CANCELLED: Status("✕", "cancelled", "off", "Stopped by a person; what came in before stays"),
    ImportState.UNDO_QUEUED: Status("○", "undo waits", "off", "Waits for a worker to take its leads away"),
    ImportState.UNDOING: Status("◔", "being undone", "over", "A worker takes its leads away"),
    ImportState.UNDONE: Status("✕", "undone", "off", "Its leads are gone, but for those that were worked on"),
}
QUARANTINE_STATE: dict[QuarantineState, Status] = {
    QuarantineState.HELD: Status("◐", "held", "draft", "Could not be read; waits for a person"),
    QuarantineState.REPLAYED: Status("✓", "replayed", "auto", "Read again, and a lead now"),
    QuarantineState.DISCARDED: Status("✕", "discarded", "off", "A person said that nothing is lost by it"),
}
ALERT_STATE: dict[AlertState, Status] = {
    AlertState.OPEN: Status("▲", "open", "esc", "Holds, and nobody has taken it on yet"),
    AlertState.ACKNOWLEDGED: Status("◐", "acknowledged", "draft", "Holds; somebody sees to it"),
    AlertState.RESOLVED: Status("✓", "resolved", "auto", "Has passed, or a person said so"),
}
#: Kinds of alerts; one without words here reads as its name.
ALERT = {
    "routing_nobody": "Leads that nobody gets",
    "routing_failed": "Routing breaks",
    "scoring_fallback": "Scores by fallback",
    "deliveries_stuck": "Deliveries given up",
    "destination_gone": "Destination gone",
    "destination_unusable": "Destination that cannot be called",
}

DEAL: dict[DealState, Status] = {
    DealState.OPEN: Status("◔", "deal open", "over", "A deal is under way"),
    DealState.WON: Status("●", "won", "auto", "The deal was made"),
    DealState.LOST: Status("✕", "lost", "off", "The deal was not made"),
}
SUPPRESSION_KIND: dict[SuppressionKind, str] = {
    SuppressionKind.OWN_STAFF: "own staff",
    SuppressionKind.COMPETITOR: "competitor",
    SuppressionKind.TEST: "test",
    SuppressionKind.OTHER: "another reason",
}
SUPPRESSION_MATCH: dict[SuppressionMatch, str] = {
    SuppressionMatch.EMAIL: "e-mail address",
    SuppressionMatch.DOMAIN: "domain",
    SuppressionMatch.PHONE: "phone number",
    SuppressionMatch.PATTERN: "pattern",
}
OUTCOME_SOURCE: dict[OutcomeSource, str] = {
    OutcomeSource.API: "told by the API",
    OutcomeSource.CRM: "read from the CRM",
}
REJECT_REASON: dict[RejectReason, str] = {
    RejectReason.SPAM: "spam",
    RejectReason.DUPLICATE: "duplicate",
    RejectReason.COMPETITOR: "competitor",
    RejectReason.EXISTING_CUSTOMER: "existing customer",
    RejectReason.WRONG_REGION: "wrong region",
    RejectReason.NO_BUDGET: "no budget",
    RejectReason.TEST: "test",
    RejectReason.OTHER: "another reason",
}
ROLE: dict[Role, str] = {
    Role.VIEWER: "viewer",
    Role.REVIEWER: "reviewer",
    Role.MANAGER: "manager",
    Role.ADMIN: "admin",
}
ROLE_MAY: dict[Role, str] = {
    Role.VIEWER: "reads everything",
    Role.REVIEWER: "decides, assigns, re-runs",
    Role.MANAGER: "and sets thresholds, repeats deliveries, settles quarantine",
    Role.ADMIN: "and manages members, keys, webhooks, destinations",
}
SCOPE: dict[Scope, str] = {
    Scope.INGEST: "send leads",
    Scope.READ: "read",
    Scope.REVIEW: "decide and re-run",
    Scope.ADMIN: "administer",
    Scope.PLATFORM: "create workspaces",
}
TRIGGER: dict[RunTrigger, str] = {
    RunTrigger.INTAKE: "on arrival",
    RunTrigger.TOUCH: "came again",
    RunTrigger.RERUN: "asked for again",
}
DESTINATION: dict[DestinationKind, str] = {kind: known.label for kind, known in KINDS.items()}
DOOR: dict[Door, str] = {
    Door.TRIAGE: "the triage API",
    Door.SOCIAL: "social media",
    Door.V1: "the API",
    Door.ENRICH: "the enrichment API",
    Door.CRM: "the CRM API",
    Door.HOOK: "an inbound webhook",
}
DONE: dict[DecisionAction, str] = {
    DecisionAction.APPROVE: "Approved",
    DecisionAction.OVERRIDE: "Overridden",
    DecisionAction.REJECT: "Rejected",
}
VERIFICATION: dict[Verification, str] = {
    Verification.NONE: "nothing but the secret in the address",
    Verification.HMAC: "HMAC-SHA256 of the body in a header",
    Verification.STANDARD: "Standard Webhooks signature",
    Verification.BODY: "a secret in the body (Google Ads)",
    Verification.HUBSPOT: "HubSpot signature, version 3",
    Verification.WEBFLOW: "Webflow signature",
}
DIALECT = {
    "facebook": "Facebook or Messenger",
    "whatsapp": "WhatsApp",
    "leadgen": "Lead Ads form",
    "hook": "inbound webhook",
}
FLAG = {
    "urgent": "says it is urgent",
    "deadline": "names a deadline",
    "put_off": "is put off",
    "threat": "threatens",
    "attack": "attacks the machine",
    "budget": "names a budget",
    "narrowed": "narrows a refusal to one channel",
}
MODE: dict[Mode, str] = {
    Mode.RULES: "rules only",
    Mode.RULES_THEN_LLM: "rules, and a model where they are unsure",
    Mode.LLM: "a model is required",
}
MODE_MEANS: dict[Mode, str] = {
    Mode.RULES: "No message leaves this server.",
    Mode.RULES_THEN_LLM: "Without an answer the rules’ verdict stands.",
    Mode.LLM: "It is asked about every lead. Without an answer a lead waits for a person, and /enrich-lead fails (502).",
}
PURPOSE = {"classify": "judging", "copywriting": "task texts"}
SOURCE = vocabulary.SOURCE
#: Who told a fact, where it goes by the name of a library; others have names of their own.
PROVIDER = {
    "phonenumbers": "numbering plans",
    "email-validator": "how the address is written",
    "disposable-email-domains": "list of throw-away mail services",
}
STAGE = {"enrich": "Enrich", "classify": "Judge", "score": "Score", "route": "Route"}
SCORE_PART = {
    "intent": "Intent",
    "urgency": "Urgency",
    "contactability": "Contactability",
    "budget": "Budget",
    "completeness": "Completeness",
    "engagement": "Engagement",
    "company_fit": "Company fit",
    "source": "Source",
    "freshness": "Freshness",
}
EFFECT = {
    "person": "person",
    "task": "follow-up task",
    "task_target": "task’s link to the person",
    "follow_up": "follow-up",
    "lead.auto_approved": "notice of an auto lead",
    "lead.approved": "notice of an approval",
    "lead.overridden": "notice of an override",
    "lead.high_priority": "notice of high priority",
    "lead.qualified": "notice of a qualified lead",
    "lead.cold": "notice of a cold lead",
    "lead.rejected": "notice of a rejection",
    "company": "company",
    "note": "note with the verdict",
    "message": "message",
    "lead.processed": "result",
    "lead.failed": "notice of a failed run",
    "row": "row",
    "mail": "mail",
}
POLICY: dict[TeamPolicy, str] = {
    TeamPolicy.LEAST_LOADED: "fewest open leads",
    TeamPolicy.ROUND_ROBIN: "in turn",
    TeamPolicy.WEIGHTED: "at random, by share",
}
LABEL = {
    "lang": "Language",
    "ms": "Took",
    "email_domain": "E-mail domain",
    "phone_e164": "Number",
    "phone_time_zones": "Time zones of the number",
    "runner_up": "Runner-up",
    "runner_up_confidence": "Confidence of the runner-up",
}
OUTCOME = {
    "delivered": "delivered",
    "retry": "to be tried again",
    "dead": "given up",
    "uncertain": "unknown whether it arrived",
    "reconciled": "found to have arrived",
    "withdrawn": "taken back",
    "shadowed": "recorded, not sent",
}

_BY_TYPE: dict[type, Mapping[Any, str]] = {
    Intent: INTENT,
    NextAction: NEXT_ACTION,
    RejectReason: REJECT_REASON,
    Role: ROLE,
    RunTrigger: TRIGGER,
    DestinationKind: DESTINATION,
    Door: DOOR,
    Scope: SCOPE,
    TeamPolicy: POLICY,
    Priority: {priority: priority.value for priority in Priority},
    LeadStatus: {status: said.word for status, said in STATUS.items()},
    RunStatus: {status: said.word for status, said in RUN_STATUS.items()},
    DeliveryState: {status: said.word for status, said in DELIVERY_STATE.items()},
    QuarantineState: {status: said.word for status, said in QUARANTINE_STATE.items()},
    AlertState: {status: said.word for status, said in ALERT_STATE.items()},
    Verification: VERIFICATION,
    Mode: MODE,
    SuppressionKind: SUPPRESSION_KIND,
    SuppressionMatch: SUPPRESSION_MATCH,
    OutcomeSource: OUTCOME_SOURCE,
    DealState: {state: said.word for state, said in DEAL.items()},
}
_STATUSES: tuple[Mapping[Any, Status], ...] = (
    STATUS, RUN_STATUS, DELIVERY_STATE, STAGE_STATUS, QUARANTINE_STATE, FETCH_STATE, IMPORT_STATE, RERUN_STATE, DEAL,
    ALERT_STATE, REPLAY_STATE,
)  # fmt: skip


def word(value: Any) -> str:
    """An enum's member in words."""
    known = _BY_TYPE.get(type(value))
    return known[value] if known else plain(str(value))


def pair(value: Any) -> tuple[str, str]:
    """(value, words) of an enum's member, for a choice in a form."""
    if isinstance(value, Priority):
        return value.value, f"{value.value} · {PRIORITY[value]}"
    return value.value, word(value)


def status_of(value: Any) -> Status:
    """Shape, word and colour of any of the status enums' members."""
    return next(known for table in _STATUSES if type(value) is type(next(iter(table))) for known in [table[value]])


def plain(value: str) -> str:
    """An identifier nobody has a word for, at least without its underscores: ``wrong_region`` → ``wrong region``."""
    return value.replace("_", " ").replace(".", " ").strip().lower()


def full_stop(text: str) -> str:
    """A stored message as a sentence among others."""
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def capitalize_first(text: str) -> str:
    """The beginning of a sentence; unlike ``capitalize`` it leaves the rest as it is."""
    return text[:1].upper() + text[1:]


def named(value: str, table: str) -> str:
    """A word from one of the tables of plain strings, such as ``named('google_ads', 'SOURCE')``."""
    words: Mapping[str, str] = globals()[table]
    return words.get(value) or words.get(value.lower()) or value.replace("_", " ")


def effect(action: Any, destination: str = "") -> str:
    """What is delivered; with its destination before it, unless that is named for the one thing that it does."""
    what = named(str(action), "EFFECT") if action else ""
    if not destination:
        return what
    return destination if what in destination else f"{destination}: {what}"


def sender(lead: Any) -> str:
    """Who wrote: the best name there is."""
    for value in (getattr(lead, "shown_name", lead.name), lead.author_name, lead.company, lead.email, lead.phone):
        if value and any(map(str.isalnum, value)):  # "-" is what forms send that insist on a name
            return str(value.strip())
    return "Unknown sender"


def member(kind: Any, value: Any) -> str:
    """The word for a stored value of ``kind``; one that it does not know reads as itself."""
    try:
        return word(kind(value))
    except ValueError:
        return plain(str(value))


def stage_said(value: str) -> Status:
    """The state of a stage as recorded; an unknown one reads as done with less."""
    try:
        return STAGE_STATUS[StageStatus(value)]
    except ValueError:
        return STAGE_STATUS[StageStatus.DEGRADED]


_VALUES = vocabulary.VALUES | {member.value: said.word for member, said in STATUS.items() if "_" in member.value}
#: As CRMs spell the members of their vocabularies: ``NOT_STARTED``.
_CONSTANT = re.compile(r"[A-Z]{2,}(_[A-Z]+)+|TODO|DONE|CALL|EMAIL|HIGH|MEDIUM|LOW|COMPLETED")


def sentence(text: str) -> str:
    """A sentence that the domain wrote, with any value of a closed vocabulary in it put into words."""
    return vocabulary.sentence(text, _VALUES)


def value(text: str) -> str:
    """The words for a stored value of a closed vocabulary; anything else as it is."""
    if "_" in text and text in SOURCE:
        return SOURCE[text]
    return LANGUAGE.get(text) or _VALUES.get(text) or (plain(text) if _CONSTANT.fullmatch(text) else text)


def size(count: float) -> str:
    """Bytes as people say them: ``812 bytes``, ``1.4 MB``."""
    units = ["bytes", "kB", "MB", "GB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1_000
        del units[0]
    return f"{count:.1f} {units[0]}" if count < 9.95 and units[0] != "bytes" else f"{count:.0f} {units[0]}"


def intent_word(value: str) -> str:
    """An intent given by its value."""
    return member(Intent, value)


def scope_word(value: str) -> str:
    return member(Scope, value)


def said_pairs(output: Any) -> list[tuple[str, str]]:
    """What a stage put out, as (label, value) in words; nothing that is empty, no id."""
    if not isinstance(output, Mapping):
        return []
    return [
        (named(str(name), "LABEL") if name in LABEL else plain(str(name)).capitalize(), said)
        for name, value in output.items()
        if not str(name).endswith("_id") and name not in ("ruleset", "judge") and (said := _said(value))
    ]


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list):
        return "; ".join(filter(None, map(_said, value)))
    if isinstance(value, Mapping):
        return ", ".join(f"{plain(str(name))} {_said(inner)}" for name, inner in value.items())
    text = "" if value is None else str(value)
    return LANGUAGE.get(text) or _VALUES.get(text) or sentence(text)

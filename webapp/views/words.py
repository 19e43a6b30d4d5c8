"""How the console says things: every enum, event and moment in words. Templates get these as filters and globals, so
that no raw value ever stands on a page as text for people."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from webapp.leads.states import (
    DecisionAction,
    DeliveryState,
    DestinationKind,
    Door,
    Intent,
    LeadStatus,
    NextAction,
    Priority,
    RejectReason,
    Role,
    RunStatus,
    RunTrigger,
    Scope,
    StageStatus,
)


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
    DeliveryState.CANCELLED: Status("✕", "cancelled", "off", "Withdrawn before it was sent"),
}

INTENT: dict[Intent, str] = {
    Intent.PURCHASE_INTENT: "purchase",
    Intent.INQUIRY_PRICE: "price inquiry",
    Intent.DEMO_REQUEST: "demo request",
    Intent.CONTACT_REQUEST: "contact request",
    Intent.INQUIRY: "product inquiry",
    Intent.SUPPORT: "support",
    Intent.COMPLAINT: "complaint",
    Intent.JOB: "job",
    Intent.PARTNERSHIP: "partnership",
    Intent.VENDOR_PITCH: "vendor pitch",
    Intent.SPAM: "spam",
    Intent.UNSUBSCRIBE: "unsubscribe",
    Intent.THANKS: "thanks",
    Intent.ENGAGEMENT: "engagement",
    Intent.UNKNOWN: "unknown",
}
PRIORITY: dict[Priority, str] = {
    Priority.P0: "now",
    Priority.P1: "today",
    Priority.P2: "this week",
    Priority.P3: "whenever",
}
NEXT_ACTION: dict[NextAction, str] = {
    NextAction.CALL: "call",
    NextAction.EMAIL: "e-mail",
    NextAction.QUALIFY: "qualify",
    NextAction.IGNORE: "nothing to do",
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
    Role.MANAGER: "and sets thresholds, repeats deliveries",
    Role.ADMIN: "and manages members, keys, destinations",
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
DESTINATION: dict[DestinationKind, str] = {
    DestinationKind.TWENTY: "Twenty CRM",
    DestinationKind.WEBHOOK: "Webhook",
    DestinationKind.N8N: "n8n follow-up",
}
DOOR: dict[Door, str] = {
    Door.TRIAGE: "the triage API",
    Door.SOCIAL: "social media",
    Door.V1: "the API",
    Door.ENRICH: "the enrichment API",
    Door.CRM: "the CRM API",
}
DONE: dict[DecisionAction, str] = {
    DecisionAction.APPROVE: "Approved",
    DecisionAction.OVERRIDE: "Overridden",
    DecisionAction.REJECT: "Rejected",
}
LANGUAGE = {"en": "English", "vi": "Vietnamese", "mixed": "English and Vietnamese"}
STAGE = {"enrich": "Enrich", "classify": "Judge", "score": "Score", "route": "Route"}
SCORE_PART = {
    "intent": "Intent",
    "urgency": "Urgency",
    "contactability": "Contactability",
    "budget": "Budget",
    "completeness": "Completeness",
    "engagement": "Engagement",
}
SOURCE = {
    "form": "form",
    "website_form": "website form",
    "contact_form": "contact form",
    "web": "website",
    "website": "website",
    "facebook": "Facebook",
    "instagram": "Instagram",
    "whatsapp": "WhatsApp",
    "zalo": "Zalo",
    "tiktok": "TikTok",
    "linkedin": "LinkedIn",
    "google_ads": "Google Ads",
    "csv_import": "CSV import",
    "api": "API",
    "email": "e-mail",
    "unknown": "unknown source",
}
EFFECT = {
    "person": "person",
    "task": "follow-up task",
    "task_target": "task's link to the person",
    "follow_up": "follow-up",
    "lead.auto_approved": "notice of an auto lead",
    "lead.approved": "notice of an approval",
    "lead.overridden": "notice of an override",
}
LABEL = {"lang": "Language", "ms": "Took"}
OUTCOME = {
    "delivered": "delivered",
    "retry": "to be tried again",
    "dead": "given up",
    "uncertain": "unknown whether it arrived",
    "reconciled": "found to have arrived",
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
    Priority: {priority: priority.value for priority in Priority},
    LeadStatus: {status: said.word for status, said in STATUS.items()},
    RunStatus: {status: said.word for status, said in RUN_STATUS.items()},
    DeliveryState: {status: said.word for status, said in DELIVERY_STATE.items()},
}
_STATUSES: tuple[Mapping[Any, Status], ...] = (STATUS, RUN_STATUS, DELIVERY_STATE, STAGE_STATUS)


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


def named(value: str, table: str) -> str:
    """A word from one of the tables of plain strings, such as ``named('google_ads', 'SOURCE')``."""
    words: Mapping[str, str] = globals()[table]
    return words.get(value) or words.get(value.lower()) or value.replace("_", " ")


def sender(lead: Any) -> str:
    """Who wrote: the best name there is."""
    for value in (lead.name, lead.author_name, lead.company, lead.email, lead.phone):
        if value and value.strip():
            return str(value.strip())
    return "Unknown sender"


_UNITS = ((60, "s", "second"), (60, "min", "minute"), (24, "h", "hour"), (365, "d", "day"))


def ago(moment: datetime, *, now: datetime | None = None, long: bool = False) -> str:
    """How long ago, in its largest unit: ``4 min``, or ``4 minutes ago`` when ``long``; the future reads ``in 4 min``."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    amount = abs(seconds)
    if amount < 1:
        return "just now" if long else "now"
    for size, short, full in _UNITS:
        if amount < size or full == "day":
            n = int(amount)
            text = f"{n} {full}{'s' if n != 1 else ''}" if long else f"{n} {short}"
            break
        amount /= size
    return f"in {text}" if seconds < 0 else (f"{text} ago" if long else text)


def moment(value: datetime) -> str:
    """The absolute time: ``20 Nov 2026, 14:02:11 UTC``."""
    return f"{value.astimezone(UTC):%-d %b %Y, %H:%M:%S} UTC"


def duration(ms: float | None) -> str:
    """Milliseconds for people: ``8 ms``, ``1.2 s``, ``3 min``."""
    if ms is None:
        return "–"
    if ms < 1:
        return "under 1 ms"
    if ms < 1_000:
        return f"{ms:.0f} ms"
    return f"{ms / 1_000:.1f} s" if ms < 60_000 else f"{ms / 60_000:.0f} min"


def verdict_words(values: Mapping[str, Any]) -> str:
    """``{intent, priority}`` as stored → ``price inquiry, P0``."""
    parts = []
    if values.get("intent"):
        parts.append(_member(Intent, values["intent"]))
    if values.get("priority"):
        parts.append(str(values["priority"]))
    return ", ".join(parts)


def _member(kind: Any, value: Any) -> str:
    try:
        return word(kind(value))
    except ValueError:
        return plain(str(value))


def event(kind: str, details: Mapping[str, Any]) -> str:
    """An audit event as a sentence; an event that this page does not know yet reads as its name in words."""
    teller = _EVENTS.get(kind)
    return teller(details) if teller else plain(kind).capitalize()


def _received(details: Mapping[str, Any]) -> str:
    status = _member(LeadStatus, details.get("status", ""))
    via = named(str(details.get("source") or "unknown"), "SOURCE")
    return f"Received ({via}), judged {status} at once" if status else f"Received ({via})"


def _overridden(details: Mapping[str, Any]) -> str:
    before, after = (verdict_words(details.get(side) or {}) for side in ("before", "after"))
    return _because(f"Overridden: {before} became {after}" if before != after else f"Overridden: {after}", details)


def _rejected(details: Mapping[str, Any]) -> str:
    reason = _member(RejectReason, details.get("reject_reason") or "other")
    return _because(f"Rejected as {reason}", details)


def _because(text: str, details: Mapping[str, Any]) -> str:
    return f"{text} – “{details['reason']}”" if details.get("reason") else text


def _run_done(details: Mapping[str, Any]) -> str:
    said = [verdict_words(details)] if details.get("intent") else []
    if details.get("score") is not None:
        said.append(f"score {details['score']}")
    changed = "Run changed the verdict to" if details.get("before") else "Run finished:"
    return f"{changed} {', '.join(said)}" if said else "Run finished"


def _assigned(details: Mapping[str, Any]) -> str:
    return f"Assigned to {details['assignee']}" if details.get("assignee") else "Assigned to nobody"


def _stage(details: Mapping[str, Any]) -> str:
    stage = named(str(details.get("stage") or "a stage"), "STAGE")
    return f"Stage “{stage}” went on with less"


def _delivery(text: str) -> Any:
    def tell(details: Mapping[str, Any]) -> str:
        where = details.get("destination")
        what = named(str(details["action"]), "EFFECT") if details.get("action") else ""
        return text + "".join(
            f" {part}" for part in (f"({what})" if what else "", f"to {where}" if where else "") if part
        )

    return tell


_EVENTS: dict[str, Any] = {
    "LEAD_SIGNAL_CREATED": _received,
    "LEAD_TOUCHED": lambda d: "The same request came again; counted here",
    "LEAD_APPROVED": lambda d: _because("Approved", d),
    "LEAD_OVERRIDDEN": _overridden,
    "LEAD_REJECTED": _rejected,
    "LEAD_ASSIGNED": _assigned,
    "DECISION_UNDONE": lambda d: (
        f"Decision taken back: {_member(LeadStatus, (d.get('after') or {}).get('status', ''))} again"
    ),
    "RUN_REQUESTED": lambda d: "Another run was asked for",
    "RUN_SUCCEEDED": _run_done,
    "RUN_FAILED": lambda d: "Run failed; the verdict before it stands",
    "STAGE_DEGRADED": _stage,
    "DELIVERY_DELIVERED": _delivery("Delivered"),
    "DELIVERY_SENT": _delivery("Delivered"),
    "DELIVERY_FAILED": _delivery("Delivery given up"),
    "DELIVERY_DEAD": _delivery("Delivery given up"),
    "DELIVERY_UNCERTAIN": _delivery("Unknown whether it arrived"),
    "DELIVERY_CANCELLED": lambda d: (
        f"Deliveries withdrawn: {d['reason']}" if d.get("reason") else "Deliveries withdrawn"
    ),
    "DELIVERY_REPLAYED": _delivery("Delivery asked for again"),
}


def stage_said(value: str) -> Status:
    """The state of a stage as recorded; an unknown one reads as done with less."""
    try:
        return STAGE_STATUS[StageStatus(value)]
    except ValueError:
        return STAGE_STATUS[StageStatus.DEGRADED]


_VALUES = {
    member.value: said for table in (INTENT, NEXT_ACTION) for member, said in table.items() if "_" in member.value
}
_VALUES |= {member.value: said.word for member, said in STATUS.items() if "_" in member.value}
_VALUES |= {f"event {name}": said for name, said in EFFECT.items() if name.startswith("lead.")}


def sentence(text: str) -> str:
    """A sentence that the domain wrote, with any value of a closed vocabulary in it put into words."""
    for value, said in _VALUES.items():
        text = text.replace(value, said)
    return text


def scope_word(value: str) -> str:
    return _member(Scope, value)


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

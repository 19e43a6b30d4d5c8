"""Intake: what every door calls. One transaction, one statement, no network but PostgreSQL.

A door parses its dialect into :class:`LeadIn` and calls :func:`accept` (requests, forms) or :func:`accept_signals`
(social signals, many at once). Normalise → judge → insert lead, person, queued run and audit event. The caller
commits, then rings for the run; a lead is never without a status, even with everything but PostgreSQL down.

Core and plain SQL here and nowhere else: the same rows through ORM look-ups and flushes cost four times as much.
"""

import hashlib
import json
import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from sqlalchemy.orm import Session

from webapp.leads import cleansing, dedupe, intake_sql, jsontext, sla, suppression, suspicion, verdict
from webapp.leads.errors import Conflict, Invalid, Problem, Transient
from webapp.leads.intake_sql import Database
from webapp.leads.judging_policy import NO_PREFERENCES, Preferences
from webapp.leads.ruleset import Ruleset
from webapp.leads.search import search_tokens
from webapp.leads.sla import Sla
from webapp.leads.states import Door, Priority
from webapp.leads.types import Verdict
from webapp.models.base import new_ids

#: Longest message a door takes, in characters.
MAX_MESSAGE = 20_000
#: Fields of ``LeadIn.attribution`` (docs/api.md).
ATTRIBUTION = (
    "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "landing_page", "referrer",
)  # fmt: skip
#: How often an expired key or a lead past the duplicate window may stand in the way before the caller is asked to
#: come again; each time another request must have been quicker.
_ATTEMPTS = 4
#: Backlog order by priority: P0 first.
RANK = {Priority.P0: 0, Priority.P1: 1, Priority.P2: 2, Priority.P3: 3}


@dataclass(frozen=True, slots=True)
class Tenant:
    """What intake has to know of a workspace; thresholds are probabilities. ``rules``: the workspace's own, None for
    the shipped ones."""

    id: uuid.UUID
    name: str
    auto_from: float
    draft_from: float
    default_region: str
    duplicate_days: int = 30
    idempotency_days: int = 30
    sla: Sla = sla.DEFAULT
    rules: Ruleset | None = None
    judging: Preferences = NO_PREFERENCES


@dataclass(slots=True)
class LeadIn:
    """A lead as a door understood it, words as sent. ``payload``: the raw body, sensitive values already sealed. Nobody changes
    one; with so many fields, a frozen class would take five times as long to make it."""

    door: Door
    message: str
    source: str = "unknown"
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    company: str | None = None
    budget: float | None = None
    external_id: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    attribution: dict[str, Any] = field(default_factory=dict)
    consent: str | None = None
    consent_at: datetime | None = None
    platform: str | None = None
    source_type: str | None = None
    source_subtype: str | None = None
    external_post_id: str | None = None
    external_thread_id: str | None = None
    external_message_id: str | None = None
    author_name: str | None = None
    author_id: str | None = None
    import_id: uuid.UUID | None = None
    source_id: uuid.UUID | None = None
    callback_url: str | None = None
    #: The verdict on words that no lead wrote is no surer than this.
    confidence_cap: float = 1.0
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Key:
    """A caller's idempotency key; ``request_hash`` tells a repeat from a reuse with another body."""

    value: str
    request_hash: str


@dataclass(frozen=True, slots=True)
class Received:
    """What became of it. ``created``: a new lead; ``replayed``: the same request again; ``touched``: the same person
    said the same again, counted on the lead named here."""

    lead_id: uuid.UUID
    created_at: datetime
    created: bool = False
    replayed: bool = False
    touched: bool = False


def request_hash(parsed: Any) -> str:
    """sha256 hex of a parsed JSON body: equal JSON, equal hash, whatever its spacing or key order."""
    canonical = json.dumps(_canonical(parsed), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """1.0 and 1 are the same number in JSON."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value


def accept(database: Database, tenant: Tenant, lead: LeadIn, *, key: Key | None = None) -> Received:
    """Take one lead in. Conflict with code ``idempotency_mismatch`` when ``key`` was used with another body.

    ``database``: an engine, and each statement is a transaction of its own (a lead costs one); or a session, whose
    owner commits. Safe under any concurrency: of many requests with one key, or with one person's same message,
    exactly one creates the lead; the others wait for its commit inside PostgreSQL and are answered from it.
    """
    row = row_for(tenant, lead)
    suppression.hold_back(database, tenant.id, [row])
    if key:
        row |= {
            "key": key.value,
            "run_key": key.value,
            "request_hash": key.request_hash,
            "idempotency_days": tenant.idempotency_days,
        }
    for _ in range(_ATTEMPTS):
        try:
            found = intake_sql.insert_one(database, row, keyed=key is not None)
        except intake_sql.KeyTaken:
            assert key is not None
            if earlier := _replay(database, tenant, lead.door, key):
                return earlier
            continue  # the key had outlived its days and is free now
        except intake_sql.ExternalIdTaken:
            # By a file that came in between the caller's look and now: such do not take the lock of accept_new.
            if here := intake_sql.by_external_id(database, tenant.id, lead.external_id):
                return Received(*here, touched=True)
            continue
        if found is None:
            # The same words by the same person are older than the duplicate window: they may start a lead anew.
            intake_sql.retire_dedupe_key(database, row)
            continue
        lead_id, created_at = found
        return Received(lead_id, created_at, created=lead_id == row["id"], touched=lead_id != row["id"])
    raise Transient("this lead is being taken in by several requests at once; send it again", retry_after=1)


def accept_new(session: Session, tenant: Tenant, lead: LeadIn, *, key: Key | None = None) -> Received:
    """Like :func:`accept` for doors whose contract refuses duplicates: ``touched`` also when the external id is here
    already. The caller commits (a repeat is counted), then answers with :func:`exists`."""
    if lead.external_id is not None:
        # Held until the end of the transaction, so that two posts of one external id cannot both find nothing.
        intake_sql.lock_external_id(session, tenant.id, lead.external_id)
        here = dedupe.by_external_id(session, tenant.id, lead.external_id)
        if here is not None:
            earlier = _replay(session, tenant, lead.door, key) if key else None
            return earlier or Received(*here, touched=True)
    return accept(session, tenant, lead, key=key)


def exists(lead_id: uuid.UUID) -> Conflict:
    """The error for a door that refuses what is here already."""
    return Conflict("this lead is here already", code="resource_exists", details=(Problem("lead_id", str(lead_id)),))


def accept_signals(database: Database, tenant: Tenant, leads: Sequence[LeadIn]) -> list[uuid.UUID]:
    """Take social signals in, all at once. Returns the ids of the new ones; a message id seen before creates none."""
    verdicts = judge_all(leads, tenant.rules)
    rows = {
        (lead.platform, lead.external_message_id): row_for(tenant, lead, said)
        for lead, said in zip(leads, verdicts, strict=True)
    }
    suppression.hold_back(database, tenant.id, rows.values())
    return intake_sql.insert_signals(database, list(rows.values()))


def _replay(database: Database, tenant: Tenant, door: Door, key: Key) -> Received | None:
    stored = intake_sql.stored_key(database, tenant.id, door, key.value)
    if stored is None:
        return None
    if stored.request_hash != key.request_hash:
        raise Conflict("this Idempotency-Key was used with another body", code="idempotency_mismatch")
    return Received(stored.lead_id, stored.created_at, replayed=True)


def check(lead: LeadIn) -> tuple[Problem, ...]:
    """What PostgreSQL cannot hold or nobody could mean: NUL characters, lone surrogates, numbers without end."""
    problems = []
    texts = _texts_of(lead)
    if text_problem("".join([text for text in texts if text])):
        for name, value in zip(_TEXTS, texts, strict=True):
            if value is not None and (problem := text_problem(value)):
                problems.append(Problem(name, problem))
    if lead.budget is not None and not math.isfinite(lead.budget):
        problems.append(Problem("budget", "must be a finite number"))
    return tuple(problems)


def text_problem(value: str) -> str | None:
    """Why ``value`` cannot be stored as text, or None."""
    if "\x00" in value:
        return "must not contain NUL characters"
    if value.isascii():
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return "must be valid Unicode (it holds a lone surrogate)"
    return None


_TEXTS = (
    "message", "source", "name", "email", "phone", "company", "external_id", "external_post_id", "external_thread_id",
    "external_message_id", "author_name", "author_id", "callback_url",
)  # fmt: skip
_texts_of = attrgetter(*_TEXTS)


def judge(lead: LeadIn, rules: Ruleset | None = None) -> Verdict:
    """The verdict at intake: the rules' (None: the shipped ones), microseconds, no network."""
    return judge_all([lead], rules)[0]


def judge_all(leads: Sequence[LeadIn], rules: Ruleset | None = None) -> list[Verdict]:
    """:func:`judge` of many, one stage after the other for all of them: the rules, and what looks for suspicious words,
    fill a processor's cache each by itself, and going to and fro between them costs a third more."""
    said = [_first_look(lead, rules) for lead in leads]
    checked = [
        one if surely else suspicion.checked(one, lead.message) for (one, surely), lead in zip(said, leads, strict=True)
    ]
    return [
        one if one.confidence <= lead.confidence_cap else one._replace(confidence=lead.confidence_cap)
        for one, lead in zip(checked, leads, strict=True)
    ]


def _first_look(lead: LeadIn, rules: Ruleset | None) -> tuple[Verdict, bool]:
    """The verdict on what it says, and whether that is none of its writer's words."""
    handed_over = lead.door is Door.CRM or lead.source_type == "leadgen"
    if handed_over and (lead.email or lead.phone) and not lead.message.strip():
        return verdict.of_contact_details(), True
    if lead.door is Door.WEB:
        return verdict.of_public_page(), True
    return verdict.judge(lead.message, rules=rules), False


def cleaned_of(lead: LeadIn, person: dedupe.Identity) -> dict[str, Any]:
    """What cleansing makes of the lead's name and address (``leads.cleaned``)."""
    cleaned: dict[str, Any] = {}
    if name := cleansing.clean_name(lead.name):
        cleaned["name"] = name
    if email := cleansing.suggest_email(person.email or lead.email):
        cleaned["email_suggestion"] = email
    return cleaned


def row_for(tenant: Tenant, lead: LeadIn, said: Verdict | None = None) -> dict[str, Any]:
    """The row that the statements of intake take: normalised, judged (``said``: it was already), with fresh ids.
    Invalid when it cannot be stored."""
    if problems := check(lead):
        raise Invalid("some fields cannot be stored", details=problems)
    said = said or judge(lead, tenant.rules)
    region, region_from = cleansing.region_of(
        lead.phone, lead.attributes, lead.email, said.lang, default=tenant.default_region
    )
    person = dedupe.identify(lead, region=region)
    cleaned = cleaned_of(lead, person)
    if region_from != "default" and person.phone:
        cleaned |= {"phone_region": region, "phone_region_from": region_from}
    status = suspicion.status_of(said, auto_from=tenant.auto_from, draft_from=tenant.draft_from)
    lead_id, (person_id, run_id, event_id) = new_ids(3)
    return {
        "id": lead_id,
        "workspace_id": tenant.id,
        "person_new_id": person_id,
        "identity_key": person.key,
        "email_normalized": person.email,
        "phone_e164": person.phone,
        "dedupe_key": dedupe.message_key(person.key, lead.message) if lead.platform is None else None,
        "duplicate_days": tenant.duplicate_days,
        "door": lead.door.value,
        "source": lead.source,
        "external_id": lead.external_id,
        "name": lead.name,
        "email": lead.email,
        "phone": lead.phone,
        "company": lead.company,
        "message": lead.message,
        "content_hash": hashlib.sha256(lead.message.encode()).hexdigest(),
        "lang": said.lang,
        "budget": lead.budget,
        "attributes": jsontext.dumps(lead.attributes) if lead.attributes else "{}",
        "attribution": jsontext.dumps(lead.attribution) if lead.attribution else "{}",
        "cleaned": jsontext.dumps(cleaned) if cleaned else "{}",
        "person_name": cleaned.get("name") or lead.name or lead.author_name,
        "import_id": lead.import_id,
        "source_id": lead.source_id,
        "suppression_id": None,
        "callback_url": lead.callback_url,
        "consent": lead.consent,
        "consent_at": lead.consent_at,
        "platform": lead.platform,
        "source_type": lead.source_type,
        "source_subtype": lead.source_subtype,
        "external_post_id": lead.external_post_id,
        "external_thread_id": lead.external_thread_id,
        "external_message_id": lead.external_message_id,
        "author_name": lead.author_name,
        "author_id": lead.author_id,
        "status": status.value,
        "intent": said.intent.value,
        "priority": said.priority.value,
        "next_action": said.next_action.value,
        "confidence": said.confidence,
        "verdict": jsontext.dumps(said.as_json()),
        "sla_due_at": tenant.sla.due(said.priority, datetime.now(UTC)),
        "search": " ".join(
            search_tokens(
                lead.name, lead.author_name, lead.email, lead.company, lead.message, phone=person.phone or lead.phone
            )
        ),
        "run_id": run_id,
        "run_key": None,
        "rank": RANK[said.priority],
        "payload": jsontext.dumps(lead.payload),
        "event_id": event_id,
        "event": jsontext.dumps({"door": lead.door.value, "source": lead.source, "status": status.value}),
    }

"""``POST /enrich-lead``: qualify a lead while its sender waits (docs/api.md)."""

import hashlib
import json
import re
from typing import Any, Literal

from flask import Blueprint, Flask, Response, current_app, request
from pydantic import Field

from jobs import queue
from webapp.api import auth
from webapp.api.body import json_object
from webapp.api.fields import attribution_of, consent_of, moment_of
from webapp.api.openapi import REPLAYED, Answer, Header, documented
from webapp.api.schemas import Out, Score
from webapp.api.waiting import Turns
from webapp.config import Settings
from webapp.extensions import db
from webapp.leads import amounts, intake, judging, qualify, qualify_keys
from webapp.leads.errors import Invalid
from webapp.leads.intake import LeadIn, Tenant
from webapp.leads.judging import Heard
from webapp.leads.qualify import Begun, Conditions
from webapp.leads.qualify_keys import InProgress, KeyOf
from webapp.leads.states import Door, Intent, RunStatus, Scope
from webapp.security.keys import Principal

blueprint = Blueprint("enrich", __name__)

BODY_LIMIT = 1 << 16
NAMED_KEY = Header("Idempotency-Key", {"type": "string"}, text="Counts for a lead that has neither e-mail nor phone.")
#: Longest text taken over into a field; the raw payload keeps the rest.
_LONGEST = 500


class QualifiedLead(Out):
    """The sender's own words, and what was made of them. ``intent`` as in the taxonomy."""

    name: str | None
    email: str | None
    phone: str | None
    budget: float | None
    intent: Intent
    urgency: Literal["low", "medium", "high"] | None
    industry: str | None


class Qualified(Out):
    """``reasons``: what the score is made of, then why the intent."""

    qualified: bool
    score: Score
    reasons: list[str] = Field(min_length=0)
    lead: QualifiedLead


def install(app: Flask) -> None:
    """The turns of this process, and what its settings say about judging."""
    settings: Settings = app.extensions["settings"]
    turns = Turns(app.wsgi_app, settings.web_threads)
    app.wsgi_app = turns  # type: ignore[method-assign]
    app.extensions["turns"] = turns
    app.extensions["qualifying"] = Conditions(
        policy=judging.policy(
            settings.classify_mode, use_model=settings.lead_classify_use_llm, available=settings.has_model
        ),
        region=settings.default_region,
        hold_seconds=settings.undo_window_seconds,
        patience=settings.processing_timeout,
    )


@blueprint.post("/enrich-lead")
@documented(
    "Qualify a lead while you wait",
    tag="Qualification",
    description="Any JSON object; fields are found under their usual names. The same e-mail and phone again: the first "
    "answer again.",
    body=dict[str, Any],
    answers={200: Answer(Qualified, headers=REPLAYED)},
    errors=(409, 502),
    headers=(NAMED_KEY,),
)
@auth.needs(Scope.INGEST)
def enrich(principal: Principal) -> Response:
    data = json_object(BODY_LIMIT)
    lead = read(data, current_app.extensions["cipher"].seal(data))
    value = key_of(data) or named_key()
    if problems := intake.check(lead):
        raise Invalid("some fields cannot be stored", details=problems)
    key = KeyOf(principal.workspace, value, intake.request_hash(data)) if value else None
    if key and (replay := _replay(key, lead)):
        return replay
    conditions: Conditions = current_app.extensions["qualifying"]
    turns: Turns = current_app.extensions["turns"]
    if qualify.needs_model(conditions, principal.workspace, lead.message):
        turns.require_place()
    try:
        begun = qualify.begin(db.session(), conditions, principal.workspace, lead, key)
    except InProgress:
        db.session.rollback()
        if key and (replay := _replay(key, lead)):  # answered a moment ago
            return replay
        raise
    if begun.waits:
        with turns.place():  # none: what has begun is undone
            begun = _wait(turns, conditions, principal.workspace, begun, key)
    elif begun.run_id:
        heard = Heard(error=begun.unheard) if begun.unheard else None
        qualify.settle_by_rules(db.session(), conditions, begun.run_id, heard)
    return _answer(principal.workspace, begun, key, lead)


def _replay(key: KeyOf, lead: LeadIn) -> Response | None:
    """The answer that is stored under the key. InProgress when another request is about to give it."""
    with current_app.extensions["autocommit"].connect() as connection:
        stored = qualify_keys.stored(connection, key)
    if stored is None or (stored.response is None and not stored.held):
        return None
    if stored.response is None:
        raise InProgress
    if stored.lead_id and qualify.keep_if_changed(db.session(), key.tenant, key, stored.lead_id, lead):
        db.session.commit()
        queue.ring("runs")
    db.session.rollback()
    response = Response(stored.response, 200, content_type="application/json")
    response.headers["Idempotent-Replayed"] = "true"
    return response


def _wait(turns: Turns, conditions: Conditions, tenant: Tenant, begun: Begun, key: KeyOf | None) -> Begun:
    """Leave the run to a worker and wait for it. Afterwards it is settled, if need be by the rules; where the model is
    required and was not heard, Permanent (502), and the key is free again."""
    assert begun.run_id is not None
    db.session.commit()
    queue.ring("runs")
    with turns.lent():
        status, begun = qualify.wait(current_app.extensions["autocommit"], begun, key, seconds=conditions.patience)
    session, run_id = db.session(), begun.run_id
    assert run_id is not None
    required = qualify.is_required(conditions, tenant)
    if status is RunStatus.SUCCESS and not required:
        return begun
    late = f"no answer within {conditions.patience:g} s"
    if not required:
        if status is RunStatus.FAILED:
            return qualify.once_more(session, conditions, begun, key)
        qualify.settle_by_rules(session, conditions, run_id, Heard(error=late))
        return begun
    if status not in (RunStatus.SUCCESS, RunStatus.FAILED):
        qualify.fail(session, run_id, f"The model is required, and was not heard: {late}.")
    session.flush()
    if qualify.is_by_model(session, begun.lead_id):  # perhaps it was heard in the last moment
        return begun
    failure = qualify.failure_of(session, run_id)
    if key and begun.lease:
        qualify_keys.release(session, key, begun.lease)
    session.commit()
    raise failure


def _answer(tenant: Tenant, begun: Begun, key: KeyOf | None, lead: LeadIn) -> Response:
    """The lead as it stands now, stored under the key."""
    session = db.session()
    found = qualify.found(session, begun.lead_id)
    if found is None:
        if key and begun.lease:
            qualify_keys.let_go(session, key, begun.lease)
        session.commit()
        queue.ring("runs")
        raise qualify.not_now()
    said = {
        "qualified": found["qualified"],
        "score": found["score"],
        "reasons": found["reasons"],
        "lead": {
            "name": lead.name,
            "email": lead.email,
            "phone": lead.phone,
            "budget": lead.budget,
            "intent": found["intent"],
            "urgency": found["urgency"],
            "industry": lead.attributes.get("industry") or found["industry"],
        },
    }
    text = json.dumps(said, ensure_ascii=False)
    if key and begun.lease:
        qualify_keys.answer(session, key, begun.lease, begun.lead_id, text)
    changed = bool(key and begun.taken_over and qualify.keep_if_changed(session, tenant, key, begun.lead_id, lead))
    session.commit()
    if changed or begun.run_id:  # there may be sources to ask now that the sender has the answer
        queue.ring("runs")
    return Response(text, 200, content_type="application/json")


# What senders call things. The first of these that holds something counts; spelling is compared without case, and
# with "-" and " " as "_".
ALIASES = {
    "email": ("email", "e_mail", "mail", "email_address"),
    "phone": ("phone", "mobile", "tel", "phone_number"),
    "name": ("name", "full_name"),
    "message": ("message", "note", "text", "comments", "body"),
    "company": ("company", "company_name", "organization"),
    "budget": ("budget",),
    "source": ("source", "origin", "channel"),
    "industry": ("industry",),
    "country": ("country",),
    "country_code": ("country_code",),
}


def read(data: dict[str, Any], sealed: dict[str, Any]) -> LeadIn:
    """The lead in a body of any shape. What has no place in it stays in the payload (``sealed``)."""
    given = _folded(data)
    name = _short(given, "name") or " ".join(
        filter(None, (_text(given.get(one)) for one in ("first_name", "last_name")))
    )
    known = {field: text for field in ("industry", "country", "country_code") if (text := _short(given, field))}
    return LeadIn(
        door=Door.ENRICH,
        message=(_first(given, "message", keep=True) or "")[: intake.MAX_MESSAGE],
        source=_short(given, "source") or "unknown",
        name=name[:_LONGEST] or None,
        email=_short(given, "email"),
        phone=_short(given, "phone"),
        company=_short(given, "company"),
        budget=amounts.of(given.get("budget")),
        attributes=known,
        attribution=attribution_of(data),
        consent=consent_of(data.get("consent")),
        consent_at=moment_of(data.get("consent_at")),
        payload=sealed,
    )


def key_of(data: dict[str, Any]) -> str | None:
    """The idempotency key: sha256 hex of the e-mail in lower case and the phone's digits; None without either."""
    given = _folded(data)
    email, phone = _first(given, "email") or "", _first(given, "phone") or ""
    told = email.strip().lower() + re.sub(r"\D", "", phone)
    return hashlib.sha256(told.encode()).hexdigest() if told else None


def named_key() -> str | None:
    """For a lead without e-mail and phone: what the caller's Idempotency-Key comes to, if there is one."""
    given = request.headers.get("Idempotency-Key", "").strip()
    return hashlib.sha256(f"Idempotency-Key {given}".encode()).hexdigest() if given else None


def _folded(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        folded = re.sub(r"[-\s]+", "_", name.strip().lower())
        if _text(value) or folded not in found:
            found.setdefault(folded, value) if _text(found.get(folded)) else found.update({folded: value})
    return found


def _first(given: dict[str, Any], field: str, *, keep: bool = False) -> str | None:
    """The first alias's text. ``keep``: with the white space around it."""
    for name in ALIASES[field]:
        if text := _text(given.get(name)):
            value = given[name]
            return value if keep and isinstance(value, str) else text
    return None


def _short(given: dict[str, Any], field: str) -> str | None:
    found = _first(given, field)
    return found[:_LONGEST] if found else None


def _text(value: Any) -> str:
    """Text, or a number as people write it; nothing else is one."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

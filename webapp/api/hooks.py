"""Inbound webhooks that admins configure: ``POST /hooks/{token}`` (docs/api.md: inbound webhooks)."""

import uuid
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import parse_qsl

from flask import Blueprint, Response, current_app, jsonify, request

from jobs import queue
from webapp import logs
from webapp.api import auth
from webapp.api.body import check_storable, parse_leniently, raw_body, require_json_type
from webapp.api.openapi import Answer, Header, documented
from webapp.api.schemas import Count, Out
from webapp.extensions import db
from webapp.leads import hooked, sources
from webapp.leads.errors import Forbidden, Invalid, LeadError, Transient
from webapp.leads.hooked import Outcome
from webapp.leads.paths import BadPath, compiled
from webapp.leads.quarantine import Bad, quarantine_all
from webapp.leads.states import Door, Verification
from webapp.models.account import Workspace
from webapp.models.inbound import InboundSource
from webapp.security import inbound
from webapp.security.ratelimit import Limits

blueprint = Blueprint("hooks", __name__)
log = logs.get(__name__)

DIALECT = "hook"
#: Longest array that is taken, and most fields of a form.
MAX_ENTRIES = 1_000
_FORM = "application/x-www-form-urlencoded"
_TOLD = "[removed: the secret]"
_TELLING = frozenset({"google_key"})


class Hooked(Out):
    """``existing``: leads that were here already (a retry, the same words again). ``held``: kept in quarantine."""

    ok: Literal[True]
    created: Count
    existing: Count
    held: Count
    lead_ids: list[uuid.UUID]


@blueprint.post("/hooks/<token>")
@documented(
    "Send a lead to a configured webhook",
    tag="Webhooks",
    description="Any JSON object, or an array of them, or a form; read by the mapping that an admin has set. What "
    "cannot be read is kept in quarantine and answered 200, or 202 while there is no mapping.",
    body=dict[str, Any] | list[Any],
    bodies={_FORM: str},
    path={"token": "The secret in the webhook's address."},
    headers=(Header("webhook-id", text="Standard Webhooks: makes a retry the same lead."),),
    answers={200: Hooked, 202: Answer(Hooked, "Kept: there is no mapping yet.")},
    errors=(401, 403, 404, 413, 415, 429),
    public=True,
)
def receive(token: str) -> Response:
    source = sources.by_token(db.session(), token)
    workspace = db.session.get_one(Workspace, source.workspace_id)
    tenant = current_app.extensions["keyring"].tenant(workspace)
    db.session.expunge(source)
    db.session.commit()  # ends the read; leads are transactions of their own
    if not source.enabled:
        raise Forbidden("this webhook is switched off")
    limits = Limits(source.limit_max, source.limit_burst, source.limit_day)
    auth.limit(source.id, limits)
    payload = _proven(source)
    entries = payload if isinstance(payload, list) else [payload]
    if len(entries) > 1:  # an array counts as many as its leads would one by one
        auth.limit(source.id, limits, count=len(entries), paid=1)
    _blot_out(entries)
    outcomes = _take_in(source, tenant, entries)
    _remember(source, entries, outcomes)
    return _answer(source, outcomes)


def _proven(source: InboundSource) -> Any:
    """The parsed body. LeadError (401) when the request does not prove itself as the source wants; then nothing of it
    is stored."""
    body = raw_body()
    if source.verification is Verification.BODY:
        payload = _parsed(body)
        _check_proof(source, body, _claimed(source, payload))
        return payload
    _check_proof(source, body, None)
    return _parsed(body)


def _check_proof(source: InboundSource, body: bytes, claimed: str | None) -> None:
    secret = ""
    if source.secret:
        try:
            secret = current_app.extensions["cipher"].decrypt(source.secret)
        except ValueError as error:
            log.error("a webhook's secret cannot be read", source=str(source.id), error=str(error))
            raise Transient("the webhook's secret cannot be read; an admin has to set it again") from None
    proof = inbound.Proof(source.verification, secret, source.signature_header or "", source.signature_prefix or "")
    path = request.full_path if request.query_string else request.path
    url = (auth.settings().public_url or request.url_root).rstrip("/") + path
    headers = {name.lower(): value for name, value in request.headers.items()}
    if not inbound.proven(proof, inbound.Delivered(body, headers, url, claimed)):
        raise LeadError("the request does not carry the proof that this webhook expects", code="invalid_auth")


def _claimed(source: InboundSource, payload: Any) -> str | None:
    """The secret that stands in the body, of an array in each entry; it is blotted out, so that it is stored nowhere."""
    try:
        expression = compiled(source.signature_header or "")
    except BadPath:
        return None
    claims = set()
    for entry in payload if isinstance(payload, list) else [payload]:
        claims.add(expression.find(entry).text if isinstance(entry, dict) else None)
        expression.replace(entry, _TOLD)
    return claims.pop() if len(claims) == 1 else None


def _blot_out(entries: list[Any]) -> None:
    """Secrets that senders are known to put into each body, also where nobody looks for them there."""
    for entry in entries:
        if isinstance(entry, dict):
            entry |= dict.fromkeys(_TELLING & entry.keys(), _TOLD)


def _parsed(body: bytes) -> Any:
    """An object, or a list of entries. Invalid for anything else; what is bad inside of an entry is that entry's."""
    if (request.mimetype or "").lower() == _FORM:
        return _form(body)
    require_json_type()
    payload = parse_leniently(body)
    if not isinstance(payload, dict | list):
        raise Invalid("the body must be a JSON object, or an array of them", code="invalid_json")
    if isinstance(payload, list) and len(payload) > MAX_ENTRIES:
        raise Invalid(f"an array may have at most {MAX_ENTRIES:,} entries", code="payload_too_large")
    return payload


def _form(body: bytes) -> dict[str, Any]:
    """Fields as text; one that comes more than once as a list."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_ENTRIES)
    except ValueError as error:  # also broken UTF-8
        raise Invalid(f"the form cannot be read: {str(error)[:200]}", code="invalid_json") from None
    if not pairs:
        raise Invalid("the body is empty; a form or JSON is expected", code="invalid_json")
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name not in fields:
            fields[name] = value
        elif isinstance(fields[name], list):
            fields[name].append(value)
        else:
            fields[name] = [fields[name], value]
    return fields


def _take_in(source: InboundSource, tenant: Any, entries: list[Any]) -> list[Outcome]:
    """One entry is a statement and a transaction of its own; an array is one transaction, which ends in
    :func:`_remember`."""
    origin = hooked.Origin(source.id, source.name, source.mapping)
    seal = current_app.extensions["cipher"].seal
    unsound = {place: reason for place, entry in enumerate(entries) if (reason := _unsound(entry))}
    sound = [place for place in range(len(entries)) if place not in unsound]
    ids = [_request_id(source, place) for place in sound]
    if len(entries) == 1 and sound:
        database = current_app.extensions["autocommit"]
        return [hooked.take_in(database, tenant, origin, entries[0], seal=seal, request_id=ids[0])]
    taken = hooked.take_in_all(
        db.session(), tenant, origin, [entries[place] for place in sound], seal=seal, request_ids=ids
    )
    by_place = dict(zip(sound, taken, strict=True))
    return [by_place.get(place) or Outcome(held=unsound[place]) for place in range(len(entries))]


def _unsound(entry: Any) -> str:
    """Why it cannot be stored, or nothing."""
    try:
        check_storable(entry)
    except Invalid as error:
        return "; ".join(f"{p.field} {p.reason}" for p in error.details) or error.message
    return ""


def _request_id(source: InboundSource, place: int) -> str | None:
    """What the sender calls this request, and so each retry of it; with its place for a further entry of an array."""
    if source.verification is not Verification.STANDARD:
        return None
    given = request.headers.get("webhook-id")
    return f"{given}:{place}" if given and place else given


def _remember(source: InboundSource, entries: list[Any], outcomes: list[Outcome]) -> None:
    """What was held, and the newest entry to edit the mapping against."""
    session = db.session()
    seal = current_app.extensions["cipher"].seal
    held = [
        Bad(outcome.held, seal(entry), _identity(entry), _request_id(source, place))
        for place, (entry, outcome) in enumerate(zip(entries, outcomes, strict=True))
        if outcome.held
    ]
    quarantine_all(session, source.workspace_id, Door.HOOK, DIALECT, held, source.id)
    if entries:
        with suppress(RecursionError):  # nested too deep to be written down again
            sources.received(session, source.id, sources.sample_of(seal(entries[-1])))
    session.commit()


def _identity(entry: Any) -> str:
    try:
        return str(current_app.extensions["cipher"].fingerprint(entry))
    except RecursionError:
        return ""


def _answer(source: InboundSource, outcomes: list[Outcome]) -> Response:
    created = [outcome for outcome in outcomes if outcome.created]
    taken = [str(outcome.lead_id) for outcome in outcomes if outcome.lead_id]
    if taken:
        queue.ring("runs")
    response = jsonify(
        ok=True,
        created=len(created),
        existing=len(taken) - len(created),
        held=len(outcomes) - len(taken),
        lead_ids=taken,
    )
    response.status_code = 200 if source.mapping else 202
    return response

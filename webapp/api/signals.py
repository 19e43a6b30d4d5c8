"""Social signals: the Facebook webhook and the signals API (docs/api.md §4)."""

import hmac
import json
import uuid
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Response, current_app, jsonify, request
from sqlalchemy.dialects.postgresql import ARRAY

from jobs import queue
from webapp import logs
from webapp.api import auth
from webapp.api.body import parse_leniently, raw_body, require_json_type
from webapp.api.facebook import Bad, entries, page_of
from webapp.api.triage import iso
from webapp.extensions import db
from webapp.leads import destinations, intake
from webapp.leads.errors import Forbidden, Invalid, LeadError, Problem
from webapp.leads.intake import text_problem
from webapp.leads.states import LABEL_VIEW, PRIORITY_VIEW, Door, LeadStatus, Scope
from webapp.models.account import SocialPage, Workspace
from webapp.models.lead import Lead, Quarantined
from webapp.security.fields import is_sealed
from webapp.security.keys import Principal
from webapp.security.signatures import meta_signature_valid

blueprint = Blueprint("signals", __name__)
log = logs.get(__name__)


@blueprint.get("/webhooks/facebook")
def verify() -> Response:
    """The subscription handshake: the challenge back as plain text, or 403."""
    token = auth.settings().meta_verify_token
    given = request.args.get("hub.verify_token", "")
    good = token is not None and hmac.compare_digest(given.encode(), token.get_secret_value().encode())
    if request.args.get("hub.mode") != "subscribe" or not good:
        raise Forbidden("the verify token does not match")
    return Response(request.args.get("hub.challenge", ""), 200, content_type="text/plain; charset=utf-8")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who posts: a key's principal, or the workspaces whose app secret verified the signature."""

    principal: Principal | None
    signed_for: frozenset[uuid.UUID]


@blueprint.post("/webhooks/facebook")
def receive() -> Response:
    require_json_type()
    body = raw_body()
    caller = _authenticate(body)
    payload = parse_leniently(body)
    if not isinstance(payload, dict):
        raise Invalid("the body must be a JSON object", code="invalid_json")
    created = [lead_id for share in _shares(caller, payload) for lead_id in _take_in(share)]
    db.session.commit()
    if created:
        queue.ring("runs")
    return jsonify(ok=True, created=len(created), lead_ids=[str(lead_id) for lead_id in created])


def _take_in(share: "Share") -> list[uuid.UUID]:
    """One workspace's entries: leads for what can be read, quarantine for what cannot."""
    log.info("facebook webhook", tenant_id=str(share.workspace.id), tenant_id_source=share.decided_by)
    tenant = current_app.extensions["keyring"].tenant(share.workspace)
    good: list[intake.LeadIn] = []
    for found in entries(share.payload, seal=current_app.extensions["cipher"].seal):
        problem = found if isinstance(found, Bad) else _unfit(found)
        if isinstance(problem, Bad):
            _quarantine(share.workspace.id, problem)
        elif isinstance(found, intake.LeadIn):
            good.append(found)
    return intake.accept_signals(db.session, tenant, good)


def _unfit(lead: intake.LeadIn) -> Bad | None:
    problems = intake.check(lead)
    if len(lead.message) > intake.MAX_MESSAGE:
        problems += (Problem("message", f"longer than {intake.MAX_MESSAGE:,} characters"),)
    return Bad("; ".join(f"{p.field} {p.reason}" for p in problems), lead.payload) if problems else None


def _quarantine(workspace_id: uuid.UUID, bad: Bad) -> None:
    raw = json.dumps(bad.raw)  # ASCII: whatever the entry holds, it can be stored
    db.session.add(Quarantined(workspace_id=workspace_id, door=Door.SOCIAL, reason=bad.reason, raw=raw))


def _authenticate(body: bytes) -> Caller:
    """A key with scope ``ingest`` if one is presented, else a good signature. LeadError (401) without either."""
    if auth.presented_key() is not None:
        principal = auth.identify()
        principal.require(Scope.INGEST)
        return Caller(principal, frozenset())
    header = request.headers.get("X-Hub-Signature-256")
    signed = _verified_workspaces(body, header) if header else frozenset()
    if not signed:
        raise LeadError("a valid X-Hub-Signature-256 or an API key is needed", code="invalid_auth")
    return Caller(None, signed)


def _verified_workspaces(body: bytes, header: str) -> frozenset[uuid.UUID]:
    """Workspaces that hold an app secret which verifies the signature; META_APP_SECRET is ``default``'s."""
    good = set()
    own = auth.settings().meta_app_secret
    if own and meta_signature_valid(own.get_secret_value(), body, header):
        workspace_id = db.session.scalar(
            sa.select(Workspace.id).where(Workspace.name == destinations.DEFAULT_WORKSPACE)
        )
        if workspace_id:
            good.add(workspace_id)
    cipher = current_app.extensions["cipher"]
    holders = sa.select(Workspace.id, Workspace.meta_app_secret).where(Workspace.meta_app_secret.is_not(None))
    for workspace_id, sealed in db.session.execute(holders):
        try:
            secret = cipher.decrypt(sealed)
        except ValueError as error:  # one workspace's unreadable secret must not stop the others' webhooks
            log.error("app secret cannot be read", workspace_id=str(workspace_id), error=str(error))
            continue
        if meta_signature_valid(secret, body, header):
            good.add(workspace_id)
    return frozenset(good)


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a body that belongs to one workspace, and what decided so (header|body|page|key)."""

    workspace: Workspace
    decided_by: str
    payload: dict[str, Any]


def _shares(caller: Caller, payload: dict[str, Any]) -> list[Share]:
    """Whose leads these are, as the contract says; none for a workspace that does not exist (a provider that were
    told so would only send it again). Invalid or Forbidden where the contract refuses."""
    named, decided_by = _named_tenant(payload)
    if caller.principal:
        mine = caller.principal.workspace_id
        if named is None:
            pages = set(_mapped(payload).values())
            if pages - {mine}:
                raise Forbidden("a page in this body belongs to another workspace")
            named, decided_by = mine, "page" if pages else "key"
        workspace = db.session.get(Workspace, named)
        if workspace and workspace.id != mine:
            raise Forbidden("this key belongs to another workspace")
        return [Share(workspace, decided_by, payload)] if workspace else []
    return _signed_shares(caller, payload, named, decided_by)


def _signed_shares(caller: Caller, payload: dict[str, Any], named: uuid.UUID | None, decided_by: str) -> list[Share]:
    """Signed only: the header is not signed and the body's tenant is anybody's word, so a mapped page decides, entry
    by entry; header and body choose for unmapped pages alone."""
    mapped = _mapped(payload)
    if set(mapped.values()) - caller.signed_for:
        raise Forbidden("a page belongs to a workspace that this signature does not speak for")
    if named and set(mapped.values()) - {named}:
        raise Forbidden("tenant_id disagrees with the workspace of the page")
    given = payload.get("entry")
    parts: dict[uuid.UUID | None, list[Any]] = {}
    for entry in given if isinstance(given, list) else [payload]:
        parts.setdefault(mapped.get(page_of(entry) or "", named), []).append(entry)
    if None in parts and len(parts) == 1:
        raise Invalid(
            "whose lead is it? The page is not mapped to a workspace, and there is no tenant_id",
            code="missing_param",
            details=(Problem("tenant_id", "missing"),),
        )
    strangers = parts.pop(None, [])
    shares = []
    for workspace_id, entries_of in parts.items():
        workspace = db.session.get(Workspace, workspace_id)
        if workspace and workspace.id not in caller.signed_for:
            raise Forbidden("the signature does not speak for this workspace")
        if workspace:
            source = "page" if workspace_id in mapped.values() else decided_by
            share = payload if not isinstance(given, list) else payload | {"entry": entries_of}
            shares.append(Share(workspace, source, share))
    for entry in strangers if shares else []:  # beside entries that somebody owns: kept where a person can see them
        _quarantine(shares[0].workspace.id, Bad("its page is not mapped to a workspace", entry))
    return shares


def _named_tenant(payload: dict[str, Any]) -> tuple[uuid.UUID | None, str]:
    raw, source = request.headers.get("X-Tenant-ID"), "header"
    if not raw:
        raw, source = payload.get("tenant_id"), "body"
    if raw is None or raw == "":
        return None, ""
    try:
        return uuid.UUID(str(raw)), source
    except ValueError:
        raise Invalid("tenant_id must be a UUID", details=(Problem("tenant_id", "must be a UUID"),)) from None


def _mapped(payload: dict[str, Any]) -> dict[str, uuid.UUID]:
    """Page id → workspace, for the pages of the body that are mapped."""
    given = payload.get("entry")
    page_ids = [page for entry in given if (page := page_of(entry))] if isinstance(given, list) else []
    page_ids = [page for page in page_ids if text_problem(page) is None]
    if not page_ids:
        return {}
    rows = db.session.execute(
        sa.select(SocialPage.page_id, SocialPage.workspace_id).where(
            SocialPage.platform == "facebook", SocialPage.page_id == sa.any_(sa.literal(page_ids, ARRAY(sa.Text)))
        )
    )
    return {row.page_id: row.workspace_id for row in rows}


@blueprint.get("/api/leads")
@auth.needs(Scope.READ)
def listing(principal: Principal) -> Response:
    auth.tenant_param(principal, request.args.get("tenant_id"))
    limit, offset = auth.int_param("limit", 50, 1, 200), auth.int_param("offset", 0, 0, 10_000_000)
    mine = [Lead.workspace_id == principal.workspace_id]
    if status := request.args.get("status"):
        if status not in set(LeadStatus):
            raise Invalid(
                "status is not one that exists", details=(Problem("status", "one of " + ", ".join(LeadStatus)),)
            )
        mine.append(Lead.status == LeadStatus(status))
    total = db.session.scalar(sa.select(sa.func.count()).select_from(Lead).where(*mine))
    rows = db.session.scalars(
        sa.select(Lead)
        .options(sa.orm.joinedload(Lead.assignee), sa.orm.defer(Lead.search), sa.orm.defer(Lead.verdict))
        .where(*mine)
        .order_by(Lead.created_at.desc(), Lead.id.desc())
        .limit(limit)
        .offset(offset)
    )
    return jsonify(tenant_id=str(principal.workspace_id), leads=[signal_view(lead) for lead in rows], total=total)


def signal_view(lead: Lead) -> dict[str, Any]:
    """A lead in the vocabulary of the signals API."""
    return {
        "id": str(lead.id),
        "tenant_id": str(lead.workspace_id),
        "platform": lead.platform or lead.source,
        "source_type": lead.source_type,
        "source_subtype": lead.source_subtype,
        "external_post_id": lead.external_post_id,
        "external_thread_id": lead.external_thread_id,
        "external_message_id": lead.external_message_id,
        "author_name": lead.author_name or lead.name,
        "author_id": lead.author_id,
        "content_text": lead.message,
        "intent_label": LABEL_VIEW[lead.intent],
        "priority": PRIORITY_VIEW[lead.priority],
        "confidence_score": lead.confidence,
        "status": lead.status.value,
        "assignee": lead.assignee.name if lead.assignee else None,
        "follow_up_at": iso(lead.follow_up_at) if lead.follow_up_at else None,
        "last_contact_at": iso(lead.last_contact_at),
        "meta": {
            **{name: value for name, value in lead.attributes.items() if not is_sealed(value)},
            "score": lead.score,
            "qualified": lead.qualified,
            "touches": lead.touches,
        },
        "created_at": iso(lead.created_at),
        "updated_at": iso(lead.updated_at),
    }

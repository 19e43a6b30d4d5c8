"""``/webhooks/facebook`` and ``/webhooks/whatsapp``: prove, share out, take in, answer at once."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from flask import Blueprint, Flask, Response, current_app, jsonify

from jobs import queue
from webapp import logs
from webapp.api.body import is_sound, parse_leniently, raw_body, require_json_type
from webapp.api.meta import page, proof, whatsapp
from webapp.api.meta.reading import Found, Seal, sealed
from webapp.api.meta.sources import Sources
from webapp.api.meta.tenants import PagesOf, Share, shares
from webapp.api.openapi import Answer, Header, documented
from webapp.api.schemas import HubQuery, Received
from webapp.config import Settings
from webapp.extensions import db
from webapp.leads import intake, leadgen
from webapp.leads.errors import Invalid
from webapp.leads.intake import LeadIn
from webapp.leads.leadgen import Announced
from webapp.leads.quarantine import Bad, quarantine_all
from webapp.leads.states import Door, Scope

blueprint = Blueprint("meta", __name__)
log = logs.get(__name__)


class Entries(Protocol):
    """A body's reader."""

    def __call__(self, payload: dict[str, Any], seal: Seal, *, sound: bool = False) -> Iterator[Found | Bad]: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """One kind of body. ``name``: the platform's, and quarantine's. ``by_change``: see ``tenants.shares``. ``kept``: an
    entry as quarantine keeps it."""

    name: str
    entries: Entries
    pages_of: PagesOf
    by_change: bool
    kept: Callable[[Any, Seal], Any]


FACEBOOK = Dialect("facebook", page.entries, page.pages_of, by_change=False, kept=sealed)
WHATSAPP = Dialect("whatsapp", whatsapp.entries, whatsapp.pages_of, by_change=True, kept=whatsapp.kept)
#: ``object`` of a body → how to read it, at whichever of the two addresses it arrives: Meta's dialogs make it easy to
#: give one for the other, and what is read wrongly would be lost.
DIALECTS = {"page": FACEBOOK, "whatsapp_business_account": WHATSAPP}

_TENANT = (Header("X-Tenant-ID", {"type": "string", "format": "uuid"}, text="Whose lead it is."),)


def install(app: Flask) -> None:
    """One memory of pages, secrets and tenants per process."""
    config: Settings = app.extensions["settings"]
    secret = config.meta_app_secret.get_secret_value() if config.meta_app_secret else None
    app.extensions["meta_sources"] = Sources(app.extensions["cipher"], app.extensions["keyring"].tenant, secret)


@blueprint.get("/webhooks/facebook")
@documented(
    "Subscription handshake",
    tag="Webhooks",
    public=True,
    query=HubQuery,
    answers={200: Answer(str, "The challenge.", media="text/plain")},
    errors=(403,),
)
def verify_facebook() -> Response:
    """The subscription handshake: the challenge back as plain text, or 403."""
    return proof.handshake()


@blueprint.post("/webhooks/facebook")
@documented(
    "Comments, messages and lead forms from Facebook",
    tag="Webhooks",
    description="Proven by the signature or by a key with the scope. An entry that cannot be read is kept in quarantine "
    "and holds up none of its neighbours. A lead form is only announced here: its answers are fetched by a worker.",
    scope=Scope.INGEST,
    proofs=("metaSignature",),
    body=dict[str, Any],
    headers=_TENANT,
    answers={200: Received},
)
def receive_facebook() -> Response:
    return _receive(FACEBOOK)


@blueprint.get("/webhooks/whatsapp")
@documented(
    "Subscription handshake of WhatsApp Cloud",
    tag="Webhooks",
    public=True,
    query=HubQuery,
    answers={200: Answer(str, "The challenge.", media="text/plain")},
    errors=(403,),
)
def verify_whatsapp() -> Response:
    """The subscription handshake: the challenge back as plain text, or 403."""
    return proof.handshake()


@blueprint.post("/webhooks/whatsapp")
@documented(
    "Messages from WhatsApp Cloud",
    tag="Webhooks",
    description="Proven by the signature or by a key with the scope. A message that cannot be read is kept in "
    "quarantine and holds up none of its neighbours; statuses and reactions are passed over.",
    scope=Scope.INGEST,
    proofs=("metaSignature",),
    body=dict[str, Any],
    headers=_TENANT,
    answers={200: Received},
)
def receive_whatsapp() -> Response:
    return _receive(WHATSAPP)


def _receive(expected: Dialect) -> Response:
    require_json_type()
    body = raw_body()
    sources = proof.sources()
    caller = proof.caller(body, sources)
    payload = parse_leniently(body)
    if not isinstance(payload, dict):
        raise Invalid("the body must be a JSON object", code="invalid_json")
    named = payload.get("object")
    dialect = DIALECTS.get(named) if isinstance(named, str) else expected
    if dialect is None:  # an answer other than 200 would have Meta switch the subscription off
        log.info("webhook about something else", object=str(named)[:80])
        return jsonify(ok=True, created=0, lead_ids=[])
    created: list[uuid.UUID] = []
    sound = is_sound(body)
    for share in shares(caller, payload, dialect.name, dialect.pages_of, sources, by_change=dialect.by_change):
        log.info(f"{dialect.name} webhook", tenant_id=str(share.tenant.id), tenant_id_source=share.decided_by)
        created += _take_in(share, dialect, sound=sound)
    if created:
        queue.ring("runs")
    return jsonify(ok=True, created=len(created), lead_ids=[str(lead_id) for lead_id in created])


def _take_in(share: Share, dialect: Dialect, *, sound: bool) -> list[uuid.UUID]:
    """One workspace's entries: leads for what can be read, a fetch for what is announced, quarantine for the rest;
    all of it, or nothing."""
    good: list[LeadIn] = []
    announced: list[Announced] = []
    seal: Seal = current_app.extensions["cipher"].seal
    bad = [Bad(stray.reason, dialect.kept(stray.entry, seal)) for stray in share.strays]
    for found in dialect.entries(share.payload, seal, sound=sound):
        if isinstance(found, LeadIn):
            good.append(found)
        elif isinstance(found, Announced):
            announced.append(found)
        else:
            bad.append(found)
    if not bad and not announced:  # the usual case: one statement, which is a transaction of its own
        return intake.accept_signals(current_app.extensions["autocommit"], share.tenant, good)
    quarantine_all(db.session(), share.tenant.id, Door.SOCIAL, dialect.name, bad)
    waiting = leadgen.announce(db.session(), share.tenant.id, announced)
    created = intake.accept_signals(db.session(), share.tenant, good)
    db.session.commit()
    if waiting:
        queue.ring("fetches")
    return created

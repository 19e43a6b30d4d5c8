"""Who posts to Meta's webhooks: a key, or whoever knows an app secret."""

import hmac
import uuid
from dataclasses import dataclass

from flask import Response, current_app, request

from webapp.api import auth
from webapp.api.meta.sources import Sources
from webapp.extensions import db
from webapp.leads.errors import Forbidden, LeadError
from webapp.leads.states import Scope
from webapp.security.keys import Principal
from webapp.security.signatures import meta_signature_valid


@dataclass(frozen=True, slots=True)
class Caller:
    """Who posts: a key's principal, or the workspaces whose app secret verified the signature."""

    principal: Principal | None
    signed_for: frozenset[uuid.UUID]


def handshake() -> Response:
    """The challenge back as plain text, or Forbidden."""
    token = auth.settings().meta_verify_token
    given = request.args.get("hub.verify_token", "")
    good = token is not None and hmac.compare_digest(given.encode(), token.get_secret_value().encode())
    if request.args.get("hub.mode") != "subscribe" or not good:
        raise Forbidden("the verify token does not match")
    return Response(request.args.get("hub.challenge", ""), 200, content_type="text/plain; charset=utf-8")


def caller(body: bytes, sources: Sources) -> Caller:
    """A key with scope ``ingest`` if one is presented, else a good signature. LeadError (401) without either."""
    if auth.presented_key() is not None:
        principal: Principal = auth.identify()
        principal.require(Scope.INGEST)
        return Caller(principal, frozenset())
    header = request.headers.get("X-Hub-Signature-256")
    signed: frozenset[uuid.UUID] = frozenset()
    if header:
        signed = sources.verified(db.session(), lambda secret: meta_signature_valid(secret, body, header))
    if not signed:
        raise LeadError("a valid X-Hub-Signature-256 or an API key is needed", code="invalid_auth")
    return Caller(None, signed)


def sources() -> Sources:
    """This process's."""
    found: Sources = current_app.extensions["meta_sources"]
    return found

"""How a configured inbound webhook proves itself, besides the secret token in its address. Over the raw bytes."""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from webapp.leads.states import Verification

#: How far a signed timestamp may be off, in seconds.
TOLERANCE = 300


@dataclass(frozen=True, slots=True)
class Proof:
    """What a source expects. ``header`` and ``prefix`` are used by HMAC alone."""

    how: Verification
    secret: str = ""
    header: str = ""
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A request as it came; ``headers`` by names in lower case. ``url``: the address as its sender called it; ``claimed``: the secret that stands in the
    body, if the source looks for one there."""

    body: bytes
    headers: Mapping[str, str]
    url: str = ""
    claimed: str | None = None


def secret_problem(how: Verification, secret: str) -> str | None:
    """Why ``secret`` cannot be the one, or None."""
    if how is Verification.NONE:
        return None
    if not secret:
        return "is needed for this kind of proof"
    if len(secret) > 500 or not secret.isprintable():
        return "must be at most 500 printable characters"
    if how is Verification.STANDARD:
        try:
            size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
        except (binascii.Error, ValueError):
            size = 0
        if not 24 <= size <= 64:
            return "must be whsec_ and 24 to 64 bytes in base64"
    return None


def proven(proof: Proof, sent: Delivered) -> bool:
    """Does the request prove that it is from who knows the secret? Timestamps may be 5 minutes off."""
    match proof.how:
        case Verification.NONE:
            return True
        case Verification.HMAC:
            return _signed(proof.secret, sent.body, sent.headers.get(proof.header.lower()), proof.prefix)
        case Verification.STANDARD:
            return _standard(proof.secret, sent)
        case Verification.BODY:
            return _same(sent.claimed or "", proof.secret)
        case Verification.HUBSPOT:
            return _hubspot(proof.secret, sent)
        case Verification.WEBFLOW:
            at = sent.headers.get("x-webflow-timestamp", "")
            said = at.encode("utf-8", "replace") + b":" + sent.body
            return _recent(at) and _signed(proof.secret, said, sent.headers.get("x-webflow-signature"))
    return False


def _signed(secret: str, said: bytes, presented: str | None, prefix: str = "") -> bool:
    """HMAC-SHA256 in hexadecimal or base64; the prefix must be there when one is configured."""
    if not presented or not presented.startswith(prefix):
        return False
    digest = hmac.new(secret.encode(), said, hashlib.sha256).digest()
    given = presented.removeprefix(prefix).strip()
    either = [_same(given.lower(), digest.hex()), _same(given, base64.b64encode(digest).decode())]
    return any(either)


def _same(given: str, expected: str) -> bool:
    # Bytes, since compare_digest refuses text that is not ASCII.
    return bool(expected) and hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _standard(secret: str, sent: Delivered) -> bool:
    try:
        Webhook(secret).verify(sent.body, dict(sent.headers), json_parse=False)
    except (WebhookVerificationError, ValueError):  # ValueError: a header or a body that is no text of that kind
        return False
    return True


def _hubspot(secret: str, sent: Delivered) -> bool:
    """``X-HubSpot-Signature-v3``: method, address, body and timestamp (milliseconds), in base64."""
    at = sent.headers.get("x-hubspot-request-timestamp", "")
    said = b"POST" + sent.url.encode() + sent.body + at.encode("utf-8", "replace")
    return _recent(at) and _signed(secret, said, sent.headers.get("x-hubspot-signature-v3"))


def _recent(timestamp: str) -> bool:
    """A unix time in seconds or milliseconds that is not far off."""
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 15:
        return False
    seconds = int(timestamp) / (1000 if len(timestamp) > 11 else 1)
    return abs(time.time() - seconds) <= TOLERANCE

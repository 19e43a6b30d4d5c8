"""Meta's Graph API: read one object with a page's access token, and tell whether a token works.

Graph words its errors in the body, whatever the status: ``{"error": {"message", "code", "error_subcode"?,
"is_transient"?}}``. What each code means for us is in :func:`raise_said`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from webapp.clients.http import Answer, HttpClient
from webapp.leads.errors import LeadError, Permanent
from webapp.leads.ports import Throttled, TokenState, Unreached

#: Statuses whose body says more than they do. Not 429, whose Retry-After does.
_WORDED = frozenset({400, 401, 403, 404, 500, 502, 503, 504})
_RATE = frozenset({4, 17, 32, 613, *range(80_000, 80_015)})
_TRANSIENT = frozenset({1, 2})
_TOKEN = frozenset({102, 190})
_PERMISSION = frozenset({10, *range(200, 300)})
#: How long a page's limit is left to recover, in seconds: Graph counts by the hour and the day.
_RATE_PAUSE = 300.0
#: What lead forms need besides a token that works.
LEADS = "leads_retrieval"


class TokenRefused(Permanent):
    """The access token does not work (any more), or may not do this; every other call with it fails the same way."""


class GraphClient:
    """One Graph API; used by several threads at a time."""

    def __init__(self, base_url: str, version: str, *, timeout: float) -> None:
        """``base_url``: the operator's own, such as https://graph.facebook.com; ``timeout`` in seconds."""
        self._http = HttpClient(f"{base_url}/{version}", timeout=timeout)

    def read(self, object_id: str, *, token: str, fields: str, **params: str) -> Mapping[str, Any]:
        """An object's fields. TokenRefused, another Permanent, Throttled or another Transient; messages are for
        people and hold no token."""
        # The token is no parameter: addresses end up in logs.
        answer = self._http.call(
            "GET",
            f"/{object_id}",
            params=({"fields": fields} if fields else {}) | params,
            headers={"Authorization": f"Bearer {token}"},
            accept=_WORDED,
        )
        raise_said(answer)
        if not isinstance(answer.data, dict):
            raise Unreached("Facebook's answer is not what was expected", exchange=answer.exchange)
        return answer.data

    def check(self, platform: str, page_id: str, token: str) -> TokenState:
        """Does ``token`` work for this page? Transient when nobody can tell now."""
        try:
            self.read(page_id, token=token, fields="id")
        except Permanent as error:
            return TokenState(problem=error.message)
        try:
            about = self.read("debug_token", token=token, fields="", input_token=token).get("data")
        except Permanent:
            about = None  # not every token may ask about itself; that it works has been seen
        if not isinstance(about, dict):
            return TokenState()
        if about.get("is_valid") is False:
            return TokenState(problem="Facebook says that the access token is no longer valid; connect the page again")
        scopes = about.get("scopes")
        lacks = (LEADS,) if platform == "facebook" and isinstance(scopes, list) and LEADS not in scopes else ()
        return TokenState(expires_at=_expiry(about), lacks=lacks)


def raise_said(answer: Answer) -> None:
    """Raise what an answer says went wrong; nothing for one without an error."""
    error = answer.data.get("error") if isinstance(answer.data, dict) else None
    if not isinstance(error, dict):
        if answer.status >= 500:
            raise Unreached(f"Facebook answered {answer.status}", exchange=answer.exchange)
        if answer.status >= 400:
            raise Permanent(f"Facebook answered {answer.status}")
        return
    raise said(error, answer)


def said(error: Mapping[str, Any], answer: Answer) -> LeadError:
    """An error of Graph in the domain's words."""
    code = error.get("code")
    number = code if isinstance(code, int) and not isinstance(code, bool) else 0
    if number in _RATE:
        return Throttled(
            "Facebook asks to wait: too many requests for this page", retry_after=_RATE_PAUSE, exchange=answer.exchange
        )
    if number in _TOKEN:
        return TokenRefused(
            f"Facebook no longer accepts the page's access token (code {number}); connect the page again"
        )
    if number in _PERMISSION:
        return TokenRefused(
            f"the page's access token lacks a permission (code {number}); connect the page again with {LEADS}"
        )
    if number in _TRANSIENT or error.get("is_transient") is True or (answer.status >= 500 and number != 100):
        return Unreached(f"Facebook has a problem of its own (code {number})", exchange=answer.exchange)
    if number == 100:
        return Permanent("Facebook knows no such thing, or this access token may not see it (code 100)")
    return Permanent(f"Facebook refused (code {number})")


def _expiry(about: Mapping[str, Any]) -> datetime | None:
    """The earlier of the token's own end and that of its access to data; 0 is never."""
    ends = [about.get(name) for name in ("expires_at", "data_access_expires_at")]
    found = [end for end in ends if isinstance(end, int) and not isinstance(end, bool) and 0 < end < 1 << 40]
    try:
        return datetime.fromtimestamp(min(found), UTC) if found else None
    except (OverflowError, ValueError, OSError):
        return None

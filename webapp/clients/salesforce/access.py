"""The access token of a Salesforce org: fetched once for all threads, renewed once when it is refused."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from webapp.clients.http import HttpClient, redact
from webapp.leads.errors import LeadError
from webapp.leads.ports import Unreached, Unusable

TOKEN_PATH = "/services/oauth2/token"
#: A login that failed is not tried again at once by every thread that waits for it.
_REMEMBERED = 2.0
#: What the login may answer besides a token: an error in JSON.
_SAID = frozenset({400, 401, 403})
_IN_WORDS = {
    "invalid_client_id": "Salesforce does not know the consumer key",
    "invalid_client": "the consumer key and secret do not fit",
    "invalid_grant": "Salesforce does not log us in",
    "unsupported_grant_type": "the connected app does not allow this way of logging in",
    "inactive_user": "the user that it logs in as is not active",
    "inactive_org": "the org is not active",
}
_REMEDY = "Put its settings right, or the connected app there."


@dataclass(frozen=True, slots=True)
class Access:
    """``http`` calls the org that the token is for."""

    token: str
    http: HttpClient


class Login:
    """Used by several threads at a time. ``http`` calls the login address; ``org`` makes the client of an instance,
    which keeps the token out of what is shown."""

    def __init__(
        self,
        http: HttpClient,
        form: Mapping[str, str],
        *,
        login_url: str,
        org: Callable[[str, str], HttpClient],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._form = dict(form)
        self._login_url = login_url
        self._org = org
        self._clock = clock
        self._lock = threading.Lock()
        self._access: Access | None = None
        self._failed: tuple[LeadError, float] | None = None

    def access(self, refused: Access | None = None) -> Access:
        """A token that is good as far as anybody knows; another one than ``refused``. Raises Unusable when Salesforce does
        not log us in, Unreached when it does not answer, Throttled."""
        with self._lock:
            if self._access is not None and self._access is not refused:
                return self._access
            if self._failed is not None and self._clock() < self._failed[1]:
                raise self._failed[0]
            self._access = None
            try:
                self._access = self._log_in()
            except LeadError as error:
                self._failed = (error, self._clock() + _REMEMBERED)
                raise
            self._failed = None
            return self._access

    def _log_in(self) -> Access:
        # Without effect on any record, so a lost answer leaves nothing to find out.
        answer = self._http.call("POST", TOKEN_PATH, form=self._form, accept=_SAID, reads=True)
        data = answer.data if isinstance(answer.data, dict) else {}
        if answer.status >= 300:
            said = str(data.get("error") or "")
            why = redact(str(data.get("error_description") or ""))[:200]
            words = _IN_WORDS.get(said, f"Salesforce does not log us in ({answer.status})")
            raise Unusable(f"{words}: {why}" if why else words, remedy=_REMEDY)
        token, url = data.get("access_token"), data.get("instance_url")
        if not isinstance(token, str) or not token or not isinstance(url, str):
            raise Unreached("the login answered something that is not Salesforce's", exchange=answer.exchange)
        if wrong := _wrong_instance(url, self._login_url):
            raise Unusable(f"the login names an instance that {wrong}", remedy=_REMEDY)
        if isinstance(fresh := data.get("refresh_token"), str) and fresh and "refresh_token" in self._form:
            self._form["refresh_token"] = fresh  # an org that rotates them: as long as this process lives
        return Access(token, self._org(url.rstrip("/"), token))


def _wrong_instance(url: str, login_url: str) -> str | None:
    """The token goes to this address, so it is held against what we were given; where it leads is checked by the guard."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0 or parts.username or parts.password or parts.query or parts.fragment:
        return "is no address"
    if parts.path.strip("/"):
        return "has a path"
    if parts.scheme not in ("http", "https") or (parts.scheme == "http" and urlsplit(login_url).scheme == "https"):
        return "is not reached over https"
    return None

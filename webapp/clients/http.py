"""HTTP as the destinations need it: time limits, no redirects, and errors in the domain's words.

Which error says what (contracts: integrations): a certificate that is not good → nobody can be called there; no connection
→ nothing happened, try again; reset, timeout or 5xx after a write was sent → unknown; 429 → everybody waits; 408, 409, 425
→ try again; any other answer but 2xx → refused.
"""

import contextlib
import json
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import requests
from requests.utils import default_headers, get_environ_proxies
from urllib3.exceptions import NewConnectionError

from webapp.clients.deadline import TimedAdapter, within
from webapp.clients.guard import Blocked, GuardedAdapter, Network, Unencrypted
from webapp.leads.errors import Transient
from webapp.leads.ports import Exchange, OutcomeUnknown, Refused, Throttled, Unreached, Unusable

CONNECT_TIMEOUT = 5.0
#: More of an answer than this is never needed, and a receiver must not fill our memory.
MAX_BODY = 1_048_576
_EXCERPT = 400
#: Asked to wait without being told how long (Twenty's long bucket is a minute).
DEFAULT_PAUSE = 60.0

#: What to do where a certificate is not good (:class:`Unusable`).
CERTIFICATE = (
    "Have the certificate put right there. If an authority of your own has signed it, name a file with that authority's "
    "certificate in SSL_CERT_FILE and start the console anew."
)

#: None are kept and none sent: one delivery has nothing to do with another. Shared, as each jar has a lock of its own to be
#: made.
_NO_COOKIES = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
_RETRY = frozenset({408, 409, 425})
#: Would be answered to every other delivery as well: credential, quota.
_DESTINATION_WIDE = frozenset({401, 402, 403, 407})
_SECRETS = re.compile(r"(?i)(bearer\s+|whsec_|xox[a-z]-|api[_-]?key[\"'=:\s]+|token[\"'=:\s]+)[^\s\"',;]{6,}")
_EMAIL = re.compile(r"[\w.+-]+@([\w-]+\.[\w.-]+)")
_PHONE = re.compile(r"\+\d[\d ().-]{6,}\d")


@dataclass(frozen=True, slots=True)
class Answer:
    """A 2xx, or whatever the caller asked to see. ``data``: the parsed JSON, None when it is none. ``retry_after``: seconds
    that it asks to wait. ``cut``: the body was longer than we read."""

    status: int
    data: Any
    exchange: Exchange
    retry_after: float | None = None
    cut: bool = False


class HttpClient:
    """Calls one base URL. Used by several threads: each call borrows a session, so connections are reused."""

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float,
        allow: Sequence[Network] | None = None,
        encrypted: bool = False,
        secrets: Sequence[str] = (),
        pace: Callable[[], None] = lambda: None,
    ) -> None:
        """``allow`` None: the operator's own URL, not guarded; else what is allowed besides public addresses.
        ``encrypted``: of a guarded URL: plain http reaches ``allow`` alone; Unusable otherwise.
        ``secrets`` never appear in an excerpt. ``pace`` waits for the call's turn in the rate budget."""
        self._base_url = base_url
        own = {"User-Agent": "lead-ops-console", "Accept": "application/json"}
        self._headers = {**default_headers(), **own, **(headers or {})}
        self._timeout = timeout
        self._allow = allow
        self._encrypted = encrypted
        self._secrets = tuple(secret for secret in secrets if secret)
        self._pace = pace
        self._idle: deque[requests.Session] = deque()

    def call(
        self,
        method: str,
        path: str = "",
        *,
        params: Mapping[str, str] | None = None,
        json_body: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        shown: dict[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
        reads: bool | None = None,
        max_body: int = MAX_BODY,
    ) -> Answer:
        """One request. Returns for 2xx and the statuses in ``accept``; else raises Throttled, Unreached,
        OutcomeUnknown, Refused or, where the certificate there is not good, Unusable. ``shown``: the body as the delivery's
        page may show it. ``form``: a body of form fields. ``reads``: it has no effect there, whatever its method.
        ``max_body``: bytes of an answer that are read."""
        if json_body is not None:
            body = json.dumps(json_body, ensure_ascii=False, separators=(",", ":")).encode()
        extra = {"Content-Type": "application/json"} if body is not None else {}
        session = self._borrow()
        reads = method in ("GET", "HEAD") if reads is None else reads
        self._pace()
        try:
            with within(self._timeout) as ends_at:
                # Not by the session, which makes three jars of cookies for each.
                request = requests.PreparedRequest()
                request.prepare(
                    method,
                    self._base_url.rstrip("/") + path if path else self._base_url,
                    headers={**self._headers, **extra, **(headers or {})},
                    params=params or {},
                    data=body if form is None else form,
                    cookies=_NO_COOKIES,
                )
                response = session.send(
                    request,
                    timeout=(min(CONNECT_TIMEOUT, self._timeout), self._timeout),
                    allow_redirects=False,
                    stream=True,
                )
                content = _read(response, ends_at, max_body)
        except Unencrypted as error:
            raise Unusable(
                f"its credential would go over plain http: {error}",
                remedy="Enter its https:// address in its settings.",
            ) from None
        except Blocked as error:
            raise Refused(f"blocked: {error}", exchange=Exchange(payload=shown)) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise Refused(f"bad address: {type(error).__name__}", exchange=Exchange(payload=shown)) from None
        except (requests.RequestException, OSError) as error:
            session.close()  # whatever it still holds is not worth keeping
            if wrong := wrong_certificate(_innermost(error)):
                raise Unusable(wrong, remedy=CERTIFICATE) from None
            raise _no_answer(error, reads, Exchange(payload=shown)) from None
        self._idle.append(session)
        exchange = Exchange(response.status_code, self._excerpt(content), shown)
        if 200 <= response.status_code < 300 or response.status_code in accept:
            asked = parse_retry_after(response.headers.get("Retry-After"))
            return Answer(response.status_code, _parsed(content), exchange, asked, len(content) > max_body)
        raise _said_no(response, exchange, reads)

    def _borrow(self) -> requests.Session:
        try:
            return self._idle.pop()
        except IndexError:
            return self._new_session()

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        # Not requests' own idea of the environment: a .netrc would replace our credential.
        session.trust_env = False
        session.cookies = _NO_COOKIES  # type: ignore[assignment]
        if self._allow is None:
            session.proxies.update(get_environ_proxies(self._base_url))
            adapter = TimedAdapter(pool_connections=2, pool_maxsize=2, max_retries=0)
        else:
            adapter = GuardedAdapter(
                self._allow, encrypted=self._encrypted, pool_connections=2, pool_maxsize=2, max_retries=0
            )
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        return session

    def _excerpt(self, content: bytes) -> str:
        text = content[: _EXCERPT * 4].decode("utf-8", "replace").replace("\x00", "")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return redact(text)[:_EXCERPT]


@contextlib.contextmanager
def kept_waiting(remedy: str, words: Mapping[int, str] = {}) -> Iterator[None]:
    """For a delivery's calls to a service that holds a credential of ours: what it would say to every other delivery too
    leaves the destination unusable, so that deliveries wait until people have put it right. ``words``: by status."""
    try:
        yield
    except Refused as error:
        if not error.destination_wide:
            raise
        raise Unusable(words.get(error.exchange.http_status or 0, error.message), remedy=remedy) from None


def _read(response: requests.Response, ends_at: float, max_body: int) -> bytes:
    """The body, or as much of it as came by ``ends_at``: the status is known by then."""
    found = bytearray()
    try:
        for chunk in response.iter_content(16_384):
            found += chunk
            if len(found) > max_body:
                response.close()
                break
    except requests.ConnectionError:
        if time.monotonic() < ends_at:
            raise
        response.close()
    return bytes(found)


def redact(text: str) -> str:
    """Without credentials, and without the personal data that services echo."""
    text = _SECRETS.sub(r"\1***", text)
    return _PHONE.sub("+***", _EMAIL.sub(r"***@\1", text))


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _no_answer(error: Exception, reads: bool, exchange: Exchange) -> Transient:
    if _never_sent(error):
        return Unreached(f"no connection: {_kind(error)}", exchange=exchange)
    words = "timed out" if isinstance(error, requests.Timeout) else f"connection lost: {_kind(error)}"
    # A read has no effect, so losing its answer leaves nothing to find out.
    return (Unreached if reads else OutcomeUnknown)(words, exchange=exchange)


def _never_sent(error: Exception) -> bool:
    if isinstance(error, requests.ConnectTimeout | requests.exceptions.SSLError | requests.exceptions.ProxyError):
        return True
    cause = error.args[0] if error.args else None
    # A name that cannot be resolved is a NewConnectionError too.
    return isinstance(getattr(cause, "reason", None), NewConnectionError)


def wrong_certificate(error: Exception) -> str | None:
    """What is wrong with the certificate that the other side shows, in words; None when the trouble is another."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return None
    return f"its certificate is not good: {(error.verify_message or 'nobody vouches for it').rstrip('.')}"


#: By the types of urllib3 and Python, whose own texts hold addresses of objects.
_KINDS = {
    "NameResolutionError": "no server of that name is found",
    "NewConnectionError": "nothing answers at that address",
    "ConnectTimeoutError": "nothing answers at that address in time",
    "RemoteDisconnected": "the other side hung up",
    "ConnectionResetError": "the other side hung up",
    "BrokenPipeError": "the other side hung up",
    "IncompleteRead": "the answer broke off",
}


def _kind(error: Exception) -> str:
    """The reason in words, else its type."""
    name = type(_innermost(error)).__name__
    return _KINDS.get(name, name)


def _innermost(error: Exception) -> Exception:
    inner: Any = error
    for _ in range(4):
        following = getattr(inner, "reason", None) or next(
            (arg for arg in getattr(inner, "args", ()) if isinstance(arg, Exception)), None
        )
        if following is None or not isinstance(following, Exception):
            break
        inner = following
    found: Exception = inner
    return found


def _said_no(response: requests.Response, exchange: Exchange, reads: bool) -> Exception:
    status = response.status_code
    asked = parse_retry_after(response.headers.get("Retry-After"))
    words = f"answered {status}"
    if status == 429:
        return Throttled(words, retry_after=DEFAULT_PAUSE if asked is None else max(asked, 1.0), exchange=exchange)
    if status in _RETRY:
        return Unreached(words, retry_after=asked, exchange=exchange)
    if status >= 500:
        return (Unreached if reads else OutcomeUnknown)(words, retry_after=asked, exchange=exchange)
    if 300 <= status < 400:
        return Refused(f"{words}: redirects are not followed", exchange=exchange)
    return Refused(words, exchange=exchange, destination_wide=status in _DESTINATION_WIDE, gone=status == 410)


def parse_retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """``Retry-After`` as seconds from now (0 or more); it may be a number or an HTTP date. None: absent or nonsense."""
    if not value:
        return None
    try:
        number = float(value)
        return number if 0 <= number < 1e9 else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())

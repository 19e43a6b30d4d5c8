"""Public web pages, fetched as a guest: what robots.txt allows, one request at a time to a host, small, and soon over.

A page's own address comes from an admin and those of its redirects from anybody, so every connection goes through the
SSRF guard (``webapp.clients.guard``), on each hop anew. Errors are sentences that an admin reads beside the address.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urldefrag, urljoin, urlsplit

import requests
from charset_normalizer import from_bytes
from protego import Protego
from w3lib.encoding import html_to_unicode

from webapp.clients import page_facts
from webapp.clients.deadline import within
from webapp.clients.guard import Blocked, GuardedAdapter, Network
from webapp.clients.http import parse_retry_after
from webapp.leads.errors import LeadError, Permanent, Transient
from webapp.leads.ports import Fetched, FetchTask, Throttled

#: What robots.txt files know us by (RFC 9309, product token).
PRODUCT = "LeadOpsConsole"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Of a robots.txt so much is read (RFC 9309 asks for at least 500 KiB).
_MAX_ROBOTS = 512 * 1024
_HTML = frozenset({"text/html", "application/xhtml+xml"})
#: Hosts remembered at a time; a process that has seen more forgets them all.
_MAX_HOSTS = 10_000


@dataclass(frozen=True, slots=True)
class PageLimits:
    """Sizes in bytes after decompression, times in seconds.

    ``total``: everything that one page costs, redirects and robots.txt included, however slowly it trickles in.
    ``gap``: from one request to a host to the next. ``patience``: a longer wait for one's turn is spent in the queue
    rather than in a thread. ``max_crawl_delay``: a robots.txt that asks for more is a refusal.
    """

    max_bytes: int = 2 * 1024 * 1024
    connect: float = 5.0
    read: float = 10.0
    total: float = 30.0
    redirects: int = 5
    gap: float = 1.0
    patience: float = 2.0
    robots_seconds: float = 3_600.0
    robots_retry: float = 600.0
    max_crawl_delay: float = 600.0


class _Hosts:
    """When each host may be asked next, for all threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_at: dict[str, float] = {}

    def turn(self, host: str, gap: float, patience: float) -> None:
        """Wait for one's turn at ``host``; Throttled when it is further off than ``patience``."""
        with self._lock:
            if len(self._free_at) > _MAX_HOSTS:
                self._free_at.clear()
            now = time.monotonic()
            wait = max(0.0, self._free_at.get(host, 0.0) - now)
            if wait > patience:
                raise Throttled(f"waiting for its turn at {host}", retry_after=wait)
            self._free_at[host] = now + wait + gap
        if wait:
            time.sleep(wait)

    def again(self, host: str, pause: float, gap: float) -> None:
        """The next request of a visit that goes on at ``host``, after ``pause``, whatever others wait for; they wait
        for ``gap`` after it."""
        time.sleep(pause)
        with self._lock:
            self._free_at[host] = max(self._free_at.get(host, 0.0), time.monotonic() + gap)


@dataclass(frozen=True, slots=True)
class _Rules:
    """A host's robots.txt, good until ``until`` (monotonic). ``parsed`` None: it has none, so all is allowed; or it could
    not be read, for the reason in ``silent``."""

    parsed: Protego | None
    until: float
    silent: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it was got. ``url``: where it was in the end. ``html``: decoded text."""

    url: str
    html: str
    encoding: str


class PageFetcher:
    """``leads.ports.Fetcher`` for public pages; used by several threads at a time."""

    def __init__(
        self, *, allow: Sequence[Network] = (), contact_url: str = "", limits: PageLimits = PageLimits()
    ) -> None:
        """``contact_url``: where a site's owner can see who we are; part of the User-Agent."""
        self._allow = tuple(allow)
        self._agent = f"{PRODUCT}/1.0 (+{contact_url})" if contact_url else f"{PRODUCT}/1.0"
        self._limits = limits
        self._hosts = _Hosts()
        self._rules: dict[str, _Rules] = {}

    def fetch(self, task: FetchTask) -> Fetched:
        """The contacts of the page and the facts of its company (see ``webapp.clients.page_facts``)."""
        page, pause = self.get(task.target)
        found = page_facts.extract(page.html, page.url)
        return replace(page_facts.as_leads(found, asked=task.target), pause=pause)

    def get(self, url: str) -> tuple[Page, float]:
        """The page at ``url`` and the seconds its host asks to be left alone after it."""
        with within(self._limits.total) as ends_at, self._session() as session:
            try:
                return self._follow(session, url)
            except Blocked:
                raise Permanent("The address leads to a private network, which is not fetched.") from None
            except LeadError:
                if time.monotonic() >= ends_at:
                    raise self._too_long() from None
                raise
            except (requests.exceptions.InvalidSchema, ValueError):  # InvalidURL among them
                raise Permanent("The page leads to an address that is not valid.") from None
            except (requests.RequestException, OSError) as error:
                raise self._no_answer(error, ends_at) from None

    def _too_long(self) -> Transient:
        return Transient(f"The page took longer than {self._limits.total:g} s, so it was left.")

    def _no_answer(self, error: Exception, ends_at: float) -> Transient:
        if time.monotonic() >= ends_at:
            return self._too_long()
        if isinstance(error, requests.exceptions.SSLError):
            return Transient("The site's certificate is not valid, or TLS failed.")
        if isinstance(error, requests.Timeout):
            return Transient("The site did not answer in time.")
        if "NameResolutionError" in repr(error):
            return Transient("There is no site of that name.")
        return Transient("The site could not be reached, or it closed the connection.")

    @contextlib.contextmanager
    def _session(self) -> Iterator[requests.Session]:
        with requests.Session() as session:
            session.trust_env = False  # neither a proxy, which would resolve names past the guard, nor a .netrc
            session.headers.clear()
            session.headers.update(
                {
                    "User-Agent": self._agent,
                    "Accept": "text/html,application/xhtml+xml;q=0.9",
                    "Accept-Encoding": "gzip, deflate",
                    "Connection": "close",
                }
            )
            adapter = GuardedAdapter(self._allow, pool_connections=2, pool_maxsize=1, max_retries=0)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            yield session

    # A page

    def _follow(self, session: requests.Session, url: str) -> tuple[Page, float]:
        visited = ""
        for _ in range(self._limits.redirects + 1):
            host = _checked(url)
            gap, asked = self._allowed(session, url, host)
            if host == visited or asked:
                self._hosts.again(host, self._limits.gap, gap)
            else:
                self._hosts.turn(host, gap, self._limits.patience)
            visited = host
            with self._ask(session, url) as answer:
                if answer.status_code in _REDIRECTS and (to := session.get_redirect_target(answer)):
                    url = _joined(url, to)
                    continue
                _refuse(answer)
                return self._read_page(answer, url), gap
        raise Permanent(f"The page was sent on more than {self._limits.redirects} times.")

    def _ask(self, session: requests.Session, url: str) -> requests.Response:
        limits = self._limits
        return session.get(url, timeout=(limits.connect, limits.read), allow_redirects=False, stream=True)

    def _read_page(self, answer: requests.Response, url: str) -> Page:
        declared = answer.headers.get("Content-Type", "")
        kind = declared.partition(";")[0].strip().lower()
        if kind and kind not in _HTML:
            raise Permanent(f"The address holds no web page but {kind[:60]}.")
        body, whole = _read(answer, self._limits.max_bytes)
        if not whole:
            raise Permanent(f"The page is larger than {self._limits.max_bytes / 1024 / 1024:g} MiB.")
        if not kind and not body.lstrip()[:1] == b"<":
            raise Permanent("The address holds no web page.")
        encoding, text = html_to_unicode(declared or None, body, auto_detect_fun=_guess)
        return Page(url, text, encoding)

    # robots.txt

    def _allowed(self, session: requests.Session, url: str, host: str) -> tuple[float, bool]:
        """(seconds between requests that the site asks for, whether it was asked just now); Permanent when it wants no
        visit, Transient when it cannot say at the moment, which is remembered for as long as it is left alone."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        rules = self._rules.get(origin)
        asked = rules is None or rules.until < time.monotonic()
        if rules is None or asked:
            self._hosts.turn(host, self._limits.gap, self._limits.patience)
            rules = self._ask_robots(session, origin)
            if len(self._rules) > _MAX_HOSTS:
                self._rules.clear()
            self._rules[origin] = rules
        if rules.silent is not None:
            raise Transient(rules.silent, retry_after=max(1.0, rules.until - time.monotonic()))
        if rules.parsed is None:
            return self._limits.gap, asked
        if not rules.parsed.can_fetch(url, PRODUCT):
            raise Permanent("The site's robots.txt asks programs not to fetch this page.")
        delay = rules.parsed.crawl_delay(PRODUCT) or 0.0
        if delay > self._limits.max_crawl_delay:
            raise Permanent(
                f"The site's robots.txt asks programs to wait {delay:.0f} s between pages, which is too long."
            )
        return max(self._limits.gap, delay), asked

    def _ask_robots(self, session: requests.Session, origin: str) -> _Rules:
        try:
            parsed = self._robots(session, origin)
        except Transient as error:
            if error.retry_after is None:  # no answer at all is the page's trouble as well
                raise
            return _Rules(None, time.monotonic() + error.retry_after, silent=error.message)
        return _Rules(parsed, time.monotonic() + self._limits.robots_seconds)

    def _robots(self, session: requests.Session, origin: str) -> Protego | None:
        """RFC 9309: 4xx means that there are no rules; no answer or 5xx, that nothing may be fetched for now."""
        url = f"{origin}/robots.txt"
        for _ in range(self._limits.redirects + 1):
            _checked(url)
            with self._ask(session, url) as answer:
                if answer.status_code in _REDIRECTS and (to := session.get_redirect_target(answer)):
                    url = _joined(url, to)
                    continue
                if answer.status_code == 429 or answer.status_code >= 500:
                    asked = parse_retry_after(answer.headers.get("Retry-After"))
                    raise Transient(
                        f"The site's robots.txt could not be read (it answered {answer.status_code}), so the page was "
                        "left alone.",
                        retry_after=self._limits.robots_retry if asked is None else asked,
                    )
                if not 200 <= answer.status_code < 300:
                    return None
                body, _whole = _read(answer, _MAX_ROBOTS)
                return Protego.parse(body.decode("utf-8-sig", "replace"))
        return None


def _joined(url: str, to: str) -> str:
    """Where a redirect of ``url`` leads."""
    try:
        return urldefrag(urljoin(url, to)).url
    except ValueError:
        raise Permanent("The page leads to an address that is not valid.") from None


def _checked(url: str) -> str:
    """The host of ``url``; Permanent when it is no address that is fetched at all."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise Permanent("The page leads to an address that is not valid.") from None
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise Permanent("Only http:// and https:// addresses without a password are fetched.")
    return host


_REASONS: dict[int, str] = {
    401: "The page asks for a password (401).",
    403: "The site does not let us in (403).",
    404: "There is no such page (404).",
    410: "The page is gone for good (410).",
    451: "The page is withheld for legal reasons (451).",
}


def _refuse(answer: requests.Response) -> None:
    """Raise for everything but a 2xx."""
    status = answer.status_code
    if 200 <= status < 300:
        return
    if status in (408, 425, 429) or status >= 500:
        asked = parse_retry_after(answer.headers.get("Retry-After"))
        words = "The site asks us to come back later" if status == 429 else "The site has a problem of its own"
        raise Transient(f"{words} ({status}).", retry_after=asked)
    raise Permanent(_REASONS.get(status, f"The site answered {status} instead of the page."))


def _read(answer: requests.Response, limit: int) -> tuple[bytes, bool]:
    """(at most ``limit`` bytes of the body, whether that is all of it)."""
    found = bytearray()
    for chunk in answer.iter_content(16_384):
        found += chunk
        if len(found) > limit:
            return bytes(found[:limit]), False
    return bytes(found), True


def _guess(body: bytes) -> str | None:
    """The encoding of a page that does not say."""
    with contextlib.suppress(UnicodeDecodeError):
        body.decode("utf-8")
        return "utf-8"
    best = from_bytes(body[:200_000]).best()
    return best.encoding if best else "cp1252"

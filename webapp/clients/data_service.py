"""A company-data or e-mail-verification service that an admin described: one GET, JSON back.

Its address is a user's, so every connection goes through the SSRF guard and under one deadline; redirects are not
followed, since they would carry the key elsewhere.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from webapp.clients.deadline import within
from webapp.clients.guard import Blocked, GuardedAdapter, Network
from webapp.clients.http import DEFAULT_PAUSE, parse_retry_after
from webapp.leads.errors import NotFound, Permanent, Transient
from webapp.leads.ports import Refused, Service, Throttled, Unreached

#: More of an answer about one company is a mistake.
MAX_BODY = 512 * 1024
#: It knows nothing of the subject (Clearbit, PDL: 404; Apollo: 422; some 204).
_NOTHING = frozenset({204, 404, 410, 422})
_OUR_KEY = frozenset({401, 402, 403, 407})


class DataServices:
    """``seconds``: for one question as a whole."""

    def __init__(self, decrypt: Callable[[str], Any], *, seconds: float, allow: Sequence[Network] = ()) -> None:
        self._decrypt = decrypt
        self._seconds = seconds
        self._allow = tuple(allow)

    def ask(self, service: Service, subject: str) -> Any:
        """The parsed answer. NotFound: it knows nothing; Refused (``destination_wide``): our key; else see ports."""
        url, params, headers = self._request(service, subject)
        with within(self._seconds) as ends_at, requests.Session() as session:
            session.trust_env = False
            session.headers.clear()
            adapter = GuardedAdapter(self._allow, pool_connections=2, pool_maxsize=1, max_retries=0)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            try:
                times = (min(3.0, self._seconds), self._seconds)
                with session.get(
                    url, params=params, headers=headers, timeout=times, allow_redirects=False, stream=True
                ) as answer:
                    _refuse(answer)
                    body = _body(answer)
                return _parsed(body)
            except Blocked:
                raise Permanent("its address leads to a private network, which is not asked") from None
            except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL):
                raise Permanent("its address is not valid") from None
            except (requests.RequestException, OSError) as error:
                if time.monotonic() >= ends_at or isinstance(error, requests.Timeout):
                    raise self._too_long() from None
                if isinstance(error, requests.exceptions.SSLError):
                    raise Unreached("its certificate is not valid, or TLS failed") from None
                raise Unreached("it could not be reached") from None

    def _too_long(self) -> Transient:
        return Transient(f"it did not answer within {self._seconds:g} s")

    def _request(self, service: Service, subject: str) -> tuple[str, dict[str, str], dict[str, str]]:
        """(address, query, headers) with the subject and the key in place."""
        encoded = quote(subject, safe="")
        url = service.url.replace("{domain}", encoded).replace("{email}", encoded)
        headers = {"User-Agent": "lead-ops-console", "Accept": "application/json", "Accept-Encoding": "gzip, deflate"}
        params: dict[str, str] = {}
        if service.auth != "none":
            try:
                secret = str(self._decrypt(service.secret or ""))
            except ValueError:
                raise Permanent("its key cannot be read; enter it again") from None
            value = f"{service.auth_prefix}{secret}"
            (headers if service.auth == "header" else params)[str(service.auth_name)] = value
        if not urlsplit(url).hostname:
            raise Permanent("its address is not valid")
        return url, params, headers


def _refuse(answer: requests.Response) -> None:
    status = answer.status_code
    if status in _NOTHING:
        raise NotFound(f"it knows nothing of it ({status})")
    if status == 202:
        raise Transient("it is still looking (202)")
    if 200 <= status < 300:
        return
    if status == 429:
        asked = parse_retry_after(answer.headers.get("Retry-After"))
        raise Throttled("it asks us to wait (429)", retry_after=DEFAULT_PAUSE if asked is None else max(1.0, asked))
    if status in _OUR_KEY:
        raise Refused(f"it answered {status}", destination_wide=True)
    if 300 <= status < 400:
        raise Transient(f"it answered {status}: redirects are not followed")
    if status >= 500:
        raise Transient(f"it has a problem of its own ({status})")
    raise Permanent(f"it answered {status}")


def _body(answer: requests.Response) -> bytes:
    found = bytearray()
    for chunk in answer.iter_content(16_384):
        found += chunk
        if len(found) > MAX_BODY:
            raise Transient(f"its answer is larger than {MAX_BODY // 1024} KiB")
    return bytes(found)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Transient("its answer is no JSON") from None

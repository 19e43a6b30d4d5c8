"""Access tokens of a Google service account: a signed assertion is exchanged for one, which is kept until it expires.

google-auth signs; the exchange is a call of our own HTTP client, since the address is in the key that a user pasted.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from google.auth import crypt, jwt

from webapp.clients.http import HttpClient
from webapp.leads.ports import Refused, Unreached, Unusable

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LIFETIME = 3_600
NEW_KEY = "Make a new key of the service account in Google Cloud, and paste it in its settings."
#: A token is renewed so many seconds before it expires.
_EARLY = 60


class ServiceAccount:
    """Used by several threads. ``key``: the JSON key; ValueError when it is none. ``http``: for its ``token_uri``."""

    def __init__(
        self, key: Mapping[str, Any], http: HttpClient, *, scope: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.email = str(key["client_email"])
        self._audience = str(key["token_uri"])
        self._signer: Any = crypt.RSASigner.from_service_account_info(key)  # type: ignore[no-untyped-call]
        self._http = http
        self._scope = scope
        self._clock = clock
        self._lock = threading.Lock()
        self._token, self._until = "", 0.0

    def token(self, refused: str | None = None) -> str:
        """One that is good for another minute, and another one than ``refused``. Errors as of a read: nothing has
        happened yet. Unusable when Google does not accept the key."""
        with self._lock:
            if not self._token or self._token == refused or self._clock() >= self._until:
                self._token, self._until = self._exchanged()
            return self._token

    def _exchanged(self) -> tuple[str, float]:
        now, began = int(time.time()), self._clock()
        claims = {
            "iss": self.email,
            "scope": self._scope,
            "aud": self._audience,
            "iat": now,
            "exp": now + _LIFETIME,
        }
        assertion = jwt.encode(self._signer, claims).decode()  # type: ignore[no-untyped-call]
        try:
            answer = self._http.call("POST", form={"grant_type": _GRANT, "assertion": assertion}, reads=True)
        except Unreached as error:
            raise Unreached(f"no access token: {error.message}", exchange=error.exchange) from None
        except Refused as error:
            if error.exchange.http_status in (400, 401, 403):
                raise Unusable("Google does not accept the service account's key", remedy=NEW_KEY) from None
            raise Refused(f"no access token: {error.message}", exchange=error.exchange, destination_wide=True) from None
        data = answer.data if isinstance(answer.data, dict) else {}
        token, seconds = data.get("access_token"), data.get("expires_in", _LIFETIME)
        if not isinstance(token, str) or not token or not isinstance(seconds, int | float):
            raise Unreached("the answer to asking for an access token makes no sense", exchange=answer.exchange)
        return token, began + max(float(seconds) - _EARLY, 0.0)

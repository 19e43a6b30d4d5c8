"""Which client serves which destination. ``jobs.wiring`` makes one :class:`Registry` per process."""

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from webapp.clients import guard
from webapp.clients.http import HttpClient
from webapp.clients.n8n import FollowUpClient
from webapp.clients.twenty import TwentyClient
from webapp.clients.webhook import WebhookClient
from webapp.leads.errors import Permanent
from webapp.leads.ports import DestinationClient, Target
from webapp.leads.states import DestinationKind

#: ``managed_by`` of what the operator configured: its URL skips the SSRF guard.
_OPERATOR = "environment"


class OutboundSettings(Protocol):
    """The part of ``webapp.config.Settings`` that clients need. Times in seconds."""

    @property
    def delivery_timeout(self) -> float: ...
    @property
    def n8n_webhook_timeout_seconds(self) -> float: ...
    @property
    def outbound_allow_cidrs(self) -> Sequence[str]: ...


class Registry:
    """``leads.ports.Clients``: one client per destination as it is configured now, kept for its connections."""

    def __init__(self, settings: OutboundSettings, decrypt: Callable[[str], Any]) -> None:
        self._settings = settings
        self._decrypt = decrypt
        self._lock = threading.Lock()
        self._made: dict[uuid.UUID, tuple[object, DestinationClient]] = {}

    def client_for(self, target: Target) -> DestinationClient:
        """The target's client. Permanent when its configuration or credentials make no sense."""
        now = (target.kind, dict(target.config), target.credentials, target.managed_by)
        with self._lock:
            known = self._made.get(target.id)
            if known is None or known[0] != now:
                try:
                    credentials = self._decrypt(target.credentials) if target.credentials else {}
                except ValueError as error:
                    raise Permanent(f"the destination's credentials cannot be read: {error}") from None
                known = (now, client_for(target, credentials, self._settings))
                self._made[target.id] = known
            return known[1]


def client_for(target: Target, credentials: Mapping[str, Any], settings: OutboundSettings) -> DestinationClient:
    """A new client of ``target`` with its decrypted ``credentials``."""
    allow = None if target.managed_by == _OPERATOR else guard.networks(settings.outbound_allow_cidrs)
    try:
        match target.kind:
            case DestinationKind.TWENTY:
                token = str(credentials["token"])
                http = HttpClient(
                    str(target.config["url"]),
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=settings.delivery_timeout,
                    allow=allow,
                    secrets=(token,),
                )
                field = str(target.config.get("task_target_field") or "targetPersonId")
                return TwentyClient(http, task_target_field=field)
            case DestinationKind.WEBHOOK:
                secret = str(credentials["secret"])
                http = HttpClient(
                    str(target.config["url"]), timeout=settings.delivery_timeout, allow=allow, secrets=(secret,)
                )
                return WebhookClient(http, secret=secret)
            case DestinationKind.N8N:
                url = str(credentials["url"])
                timeout = settings.n8n_webhook_timeout_seconds
                return FollowUpClient(HttpClient(url, timeout=timeout, allow=allow, secrets=(url,)))
    except (KeyError, ValueError) as error:
        raise Permanent(f"the destination is not configured well: {type(error).__name__}") from None
    raise Permanent(f"there is no client for {target.kind}")

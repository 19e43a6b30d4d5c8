"""Which client serves which destination. ``jobs.wiring`` makes one :class:`Registry` per process."""

import json
import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from webapp.clients import guard
from webapp.clients.callback import CallbackClient
from webapp.clients.google_tokens import ServiceAccount
from webapp.clients.guard import Network
from webapp.clients.http import HttpClient
from webapp.clients.hubspot.client import HubspotClient
from webapp.clients.mail import MailClient
from webapp.clients.n8n import FollowUpClient
from webapp.clients.salesforce.access import Login
from webapp.clients.salesforce.client import SalesforceClient
from webapp.clients.sheets import SCOPE, SheetsClient
from webapp.clients.slack import IncomingClient, SlackClient
from webapp.clients.smtp import Server, SmtpClient
from webapp.clients.twenty.client import TwentyClient
from webapp.clients.webhook import WebhookClient
from webapp.leads.ports import DestinationClient, Target, Unusable
from webapp.leads.states import DestinationKind

log = logging.getLogger(__name__)

#: ``managed_by`` of what the operator configured: its URL skips the SSRF guard.
_OPERATOR = "environment"

#: Waits for a call's turn in the destination's rate budget.
Pace = Callable[[Target], None]


class OutboundSettings(Protocol):
    """The part of ``webapp.config.Settings`` that clients need. Times in seconds."""

    @property
    def delivery_timeout(self) -> float: ...
    @property
    def n8n_webhook_timeout_seconds(self) -> float: ...
    @property
    def outbound_allow_cidrs(self) -> Sequence[str]: ...
    @property
    def slack_api_url(self) -> str: ...
    @property
    def sheets_api_url(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Making:
    """What a client is made of. An error in the making means that the destination is not set up well."""

    target: Target
    credentials: Mapping[str, Any]
    settings: Any
    allow: tuple[Network, ...] | None
    pace: Callable[[], None]

    def http(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        operators: bool = False,
        encrypted: bool = False,
        secrets: Sequence[str] = (),
        paced: bool = True,
    ) -> HttpClient:
        """``operators``: the address is not a user's, so it skips the SSRF guard. ``encrypted``: plain http only
        where the operator allows it. ``secrets``: besides the credentials.
        ``paced``: its calls count for the rate budget."""
        return HttpClient(
            base_url,
            headers=headers,
            timeout=timeout or self.settings.delivery_timeout,
            allow=None if operators else self.allow,
            encrypted=encrypted,
            secrets=(*(str(value) for value in self.credentials.values()), *secrets),
            pace=self.pace if paced else lambda: None,
        )


def _twenty(making: Making) -> DestinationClient:
    config = making.target.config
    http = making.http(str(config["url"]), headers={"Authorization": f"Bearer {making.credentials['token']}"})
    return TwentyClient(http, task_target_field=str(config.get("task_target_field") or "targetPersonId"))


def _webhook(making: Making) -> DestinationClient:
    return WebhookClient(making.http(str(making.target.config["url"])), secrets=_secrets(making))


def _secrets(making: Making) -> list[str]:
    secrets = [making.credentials["secret"], making.credentials.get("old_secret")]
    return [str(one) for one in secrets if one]


def _callback(making: Making) -> DestinationClient:
    return CallbackClient(making.http(""), secrets=_secrets(making))


def _n8n(making: Making) -> DestinationClient:
    timeout = making.settings.n8n_webhook_timeout_seconds
    return FollowUpClient(making.http(str(making.credentials["url"]), timeout=timeout))


def _slack(making: Making) -> DestinationClient:
    headers = {"Authorization": f"Bearer {making.credentials['token']}"}
    http = making.http(making.settings.slack_api_url, headers=headers, operators=True)
    return SlackClient(http, channel=str(making.target.config["channel"]))


def _slack_webhook(making: Making) -> DestinationClient:
    return IncomingClient(making.http(str(making.credentials["url"])))


def _hubspot(making: Making) -> DestinationClient:
    config = making.target.config
    headers = {"Authorization": f"Bearer {making.credentials['token']}"}
    http = making.http(str(config["url"]), headers=headers, encrypted=True)
    return HubspotClient(http, id_property=config.get("id_property"))


def _salesforce(making: Making) -> DestinationClient:
    config, credentials = making.target.config, making.credentials
    grant, url = str(config["grant"]), str(config["url"])
    needed = "refresh_token" if grant == "refresh_token" else "client_secret"
    form = {"grant_type": grant, "client_id": str(config["client_id"]), needed: str(credentials[needed])}
    if credentials.get("client_secret"):
        form["client_secret"] = str(credentials["client_secret"])
    login = Login(
        making.http(url, encrypted=True, paced=False),
        form,
        login_url=url,
        org=lambda instance, token: making.http(instance, encrypted=True, secrets=(token,)),
    )
    return SalesforceClient(login, lead_field=str(config["lead_field"]), task_field=config.get("task_field"))


def _sheets(making: Making) -> DestinationClient:
    key = json.loads(making.credentials["key"])
    account = ServiceAccount(key, making.http(str(key["token_uri"]), paced=False), scope=SCOPE)
    http = making.http(making.settings.sheets_api_url, operators=True)
    config = making.target.config
    columns = [name for name, template in making.target.mapping.items() if template.strip()]
    return SheetsClient(http, account, spreadsheet=str(config["spreadsheet"]), tab=str(config["tab"]), columns=columns)


def _mail(making: Making) -> DestinationClient:
    config = making.target.config
    server = Server(
        host=str(config["host"]),
        port=int(config["port"]),
        security=str(config["security"]),
        user=config.get("user"),
        password=making.credentials.get("password"),
        timeout=making.settings.delivery_timeout,
        allow=making.allow or (),
    )
    smtp = SmtpClient(server, pace=making.pace)
    return MailClient(smtp, sender=str(config["sender"]), recipients=[str(one) for one in config["to"].split(", ")])


#: One line per kind.
FACTORIES: dict[DestinationKind, Callable[[Making], DestinationClient]] = {
    DestinationKind.TWENTY: _twenty,
    DestinationKind.WEBHOOK: _webhook,
    DestinationKind.N8N: _n8n,
    DestinationKind.SLACK: _slack,
    DestinationKind.SLACK_WEBHOOK: _slack_webhook,
    DestinationKind.HUBSPOT: _hubspot,
    DestinationKind.SALESFORCE: _salesforce,
    DestinationKind.SHEETS: _sheets,
    DestinationKind.CALLBACK: _callback,
    DestinationKind.EMAIL: _mail,
}


class Registry:
    """``leads.ports.Clients``: one client per destination as it is configured now, kept for its connections."""

    def __init__(
        self, settings: OutboundSettings, decrypt: Callable[[str], Any], pace: Pace = lambda target: None
    ) -> None:
        self._settings = settings
        self._decrypt = decrypt
        self._pace = pace
        self._lock = threading.Lock()
        self._made: dict[uuid.UUID, tuple[object, DestinationClient]] = {}

    def client_for(self, target: Target) -> DestinationClient:
        """The target's client. Unusable when its configuration or credentials make no sense."""
        now = (
            target.kind,
            dict(target.config),
            dict(target.mapping),
            dict(target.options),
            target.credentials,
            target.managed_by,
        )
        with self._lock:
            known = self._made.get(target.id)
            if known is None or known[0] != now:
                known = (now, self._make(target))
                self._made[target.id] = known
            return known[1]

    def _make(self, target: Target) -> DestinationClient:
        operators = target.managed_by == _OPERATOR
        try:
            credentials = self._decrypt(target.credentials) if target.credentials else {}
        except ValueError:
            anew = "start the console anew, which reads them" if operators else "enter them again in its settings"
            raise Unusable(
                "its credentials cannot be read with the keys of this server",
                remedy=f"Put the key that they were encrypted with back into FIELD_ENCRYPTION_KEYS, or {anew}.",
            ) from None
        factory = FACTORIES.get(target.kind)
        if factory is None:
            raise Unusable(
                f"this version of the console has no client for the kind “{target.kind.value}”",
                remedy="Run the version that it was made with.",
            )
        allow = None if operators else guard.networks(self._settings.outbound_allow_cidrs)
        try:
            return factory(Making(target, credentials, self._settings, allow, lambda: self._pace(target)))
        except Exception as error:  # making one calls nothing, so whatever it trips over is stored here
            what = f"“{error.args[0]}” is missing" if isinstance(error, KeyError) else "a value makes no sense"
            log.warning("no client for destination %s: %s", target.id, type(error).__name__)
            where = "the console's environment" if operators else "its settings"
            raise Unusable(f"it is not set up well: {what}", remedy=f"Put it right in {where}.") from None

"""``leads.ports.LookupClients``: the ways outside that enrichment has, in one place."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from webapp.clients.data_service import DataServices
from webapp.clients.guard import Network
from webapp.clients.mail_servers import MailServers
from webapp.leads.ports import Clients, CrmMatch, Service, Target
from webapp.leads.types import Fact


class Lookups:
    """``home_pages`` makes what reads pages at its first use: it weighs 40 MB."""

    def __init__(
        self,
        clients: Clients,
        decrypt: Callable[[str], Any],
        *,
        seconds: float,
        allow: Sequence[Network] = (),
        contact_url: str = "",
        mail_servers: MailServers | None = None,
        home_page_places: Sequence[str] | None = None,
    ) -> None:
        self._clients = clients
        self._services = DataServices(decrypt, seconds=seconds, allow=allow)
        self._mail = mail_servers or MailServers(seconds=min(3.0, seconds))
        self._seconds, self._allow, self._contact_url = seconds, allow, contact_url
        self._places = home_page_places
        self._lock = threading.Lock()
        self._pages: Any = None

    def mail_server(self, domain: str) -> Sequence[Fact]:
        return self._mail.mail_server(domain)

    def home_page(self, domain: str) -> Sequence[Fact]:
        with self._lock:
            if self._pages is None:
                from webapp.clients.home_page import PLACES, HomePages

                self._pages = HomePages(
                    seconds=self._seconds, allow=self._allow, contact_url=self._contact_url,
                    places=self._places or PLACES,
                )  # fmt: skip
        return self._pages.home_page(domain)  # type: ignore[no-any-return]

    def ask(self, service: Service, subject: str) -> Any:
        return self._services.ask(service, subject)

    def crm(self, target: Target, email: str | None, phone: str | None, domain: str | None) -> Sequence[Fact]:
        client = self._clients.client_for(target)
        return client.match(email, phone, domain) if isinstance(client, CrmMatch) else ()

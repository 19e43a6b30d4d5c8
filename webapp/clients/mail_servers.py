"""Does a domain take mail? Its MX records (RFC 5321), an address record in their place, or a null MX (RFC 7505)."""

from collections.abc import Sequence

import dns.exception
import dns.resolver

from webapp.leads.errors import Transient
from webapp.leads.types import Fact


class MailServers:
    """``seconds``: for all that one domain costs. ``nameservers`` and ``port``: asked instead of the host's own."""

    def __init__(self, *, seconds: float = 3.0, nameservers: Sequence[str] = (), port: int = 53) -> None:
        self._seconds = seconds
        self._nameservers, self._port = list(nameservers), port

    def mail_server(self, domain: str) -> list[Fact]:
        """``email_mx``. Transient when nobody answers, which says nothing about the domain."""
        try:
            resolver = dns.resolver.Resolver(configure=not self._nameservers)
        except dns.exception.DNSException:
            raise Transient("this host has no DNS server configured") from None
        if self._nameservers:
            resolver.nameservers, resolver.port = self._nameservers, self._port
        resolver.timeout = resolver.lifetime = self._seconds / 2
        name = f"{domain.rstrip('.')}."
        try:
            found = resolver.resolve(name, "MX", search=False)
            hosts = [str(record.exchange).rstrip(".") for record in sorted(found, key=lambda one: one.preference)]
            if not any(hosts):
                return [_fact(False, 0.97, "the domain says that it takes no mail")]
            return [_fact(True, 0.95, f"mail goes to {hosts[0][:100]}")]
        except dns.resolver.NXDOMAIN:
            return [_fact(False, 0.95, "there is no such domain")]
        except dns.resolver.NoAnswer:
            return self._by_address(resolver, name)
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise Transient(_words(error)) from None

    @staticmethod
    def _by_address(resolver: dns.resolver.Resolver, name: str) -> list[Fact]:
        """Without MX, mail goes to the domain's own address, if it has one."""
        for kind in ("A", "AAAA"):
            try:
                resolver.resolve(name, kind, search=False)
                return [_fact(True, 0.6, "no mail server is named; mail goes to the domain's own address")]
            except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
                continue
            except (dns.exception.DNSException, OSError, ValueError) as error:
                raise Transient(_words(error)) from None
        return [_fact(False, 0.9, "the domain has no mail server")]


def _fact(takes: bool, sure: float, note: str) -> Fact:
    return Fact("email_mx", takes, "", sure, note=note)


def _words(error: Exception) -> str:
    if isinstance(error, dns.resolver.NoNameservers):
        return "no DNS server gives an answer about the domain"
    if isinstance(error, dns.exception.Timeout):
        return "the DNS does not answer"
    return "the DNS gave no usable answer"

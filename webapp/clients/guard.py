"""SSRF guard: URLs that users enter may only reach public addresses.

The check is made on the very address that the socket connects to, after the name was resolved, so a name that
resolves to something else a moment later (DNS rebinding) gains nothing. Host header, TLS server name and certificate
check keep the name. Proxies are not used, since they would resolve the name themselves.
"""

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from webapp.clients.deadline import TimedAdapter, TimedHTTPConnection, TimedHTTPSConnection, remaining

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Blocked(Exception):
    """The URL's host resolves to an address that is not allowed."""


class Unencrypted(Blocked):
    """The URL is plain http, and what is sent there has to be encrypted on its way through public networks."""


def networks(cidrs: Sequence[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(cidr) for cidr in cidrs)


def is_allowed(address: str, allow: Sequence[Network] = ()) -> bool:
    """Public (globally routable unicast), or inside ``allow``. IPv4 inside IPv6 is judged as the IPv4 it is."""
    if is_listed(address, allow):
        return True
    ip: Address = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def is_listed(address: str, allow: Sequence[Network]) -> bool:
    """Inside ``allow``: a network that the operator vouches for."""
    ip = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    return any(ip.version == network.version and ip in network for network in allow)


def _unwrapped(ip: Address) -> Address:
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return inner
    return ip


def _connect(connection: HTTPConnection, allow: Sequence[Network], *, listed: bool = False) -> socket.socket:
    host, port = connection._dns_host, connection.port
    timeout = connection.timeout if isinstance(connection.timeout, int | float) else None
    try:
        return connected(host, port, allow, timeout, connection.socket_options or (), listed=listed)
    except (socket.gaierror, UnicodeError) as error:
        raise NameResolutionError(host, connection, error) from error  # type: ignore[arg-type]
    except TimeoutError as error:
        raise ConnectTimeoutError(connection, f"Connection to {connection.host} timed out") from error
    except OSError as error:
        raise NewConnectionError(connection, f"Failed to establish a new connection: {error}") from error


def connected(
    host: str,
    port: int,
    allow: Sequence[Network],
    timeout: float | None,
    options: Sequence[Any] = (),
    *,
    listed: bool = False,
) -> socket.socket:
    """Resolve, keep what is allowed, connect to the first of those that answers. Blocked when none is allowed; OSError
    when none answers, and UnicodeError for a name that is none. ``listed``: only ``allow`` counts, since it is plain http;
    Unencrypted otherwise."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    allowed = [entry for entry in found if is_allowed(str(entry[4][0]), allow)]
    if not allowed:
        raise Blocked(f"{host} is not a public address")
    if listed:
        allowed = [entry for entry in allowed if is_listed(str(entry[4][0]), allow)]
        if not allowed:
            raise Unencrypted(f"{host} would be reached without encryption")
    last: OSError | None = None
    for family, kind, protocol, _, address in allowed:
        sock = socket.socket(family, kind, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            if timeout is not None:
                sock.settimeout(remaining(timeout))
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            last = error
    assert last is not None
    raise last


class GuardedAdapter(TimedAdapter):
    """Mount it on a requests.Session for http:// and https://."""

    def __init__(self, allow: Sequence[Network] = (), *, encrypted: bool = False, **kwargs: Any) -> None:
        """``encrypted``: http:// only reaches what is in ``allow``."""
        allowed = tuple(allow)

        class GuardedHTTPConnection(TimedHTTPConnection):
            def _new_conn(self) -> socket.socket:
                return _connect(self, allowed, listed=encrypted)

        class GuardedHTTPSConnection(TimedHTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return _connect(self, allowed)

        class GuardedHTTPPool(HTTPConnectionPool):
            ConnectionCls = GuardedHTTPConnection

        class GuardedHTTPSPool(HTTPSConnectionPool):
            ConnectionCls = GuardedHTTPSConnection

        self.pools = {"http": GuardedHTTPPool, "https": GuardedHTTPSPool}
        super().__init__(**kwargs)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        raise Blocked("proxies are not used for addresses that users enter")

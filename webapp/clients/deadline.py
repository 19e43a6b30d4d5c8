"""A time limit for a whole call, or several: connecting, status, headers and body, however slowly they trickle.

A socket's timeout counts from one received byte to the next, so that a receiver that sends one byte a second holds its
caller for ever. Here each read is given what is left of the call's own limit, and no more than the socket's own. (Python
counts a TLS handshake as a whole by itself.)
"""

import http.client
import io
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from webapp.clients.trust import trusted

_call = threading.local()


@contextmanager
def within(seconds: float) -> Iterator[float]:
    """Answers that begin inside end by the time that this yields (``time.monotonic``), or raise TimeoutError."""
    _call.ends_at = time.monotonic() + seconds
    try:
        yield _call.ends_at
    finally:
        del _call.ends_at


def remaining(most: float) -> float:
    """Seconds left of the call, at most ``most``; TimeoutError when there are none."""
    ends_at = getattr(_call, "ends_at", None)
    left = most if ends_at is None else min(most, ends_at - time.monotonic())
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class _Reader(io.RawIOBase):
    """What a socket holds, read within the limit."""

    def __init__(self, sock: socket.socket, raw: Any, ends_at: float) -> None:
        self._sock, self._raw, self._ends_at = sock, raw, ends_at
        self._longest = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left if self._longest is None else min(left, self._longest))
        found: int | None = self._raw.readinto(buffer)
        return found

    def close(self) -> None:
        self._raw.close()
        super().close()


def reading(sock: socket.socket) -> io.BufferedReader:
    """What a socket receives, within the call's limit."""
    return io.BufferedReader(_Reader(sock, sock.makefile("rb", buffering=0), _call.ends_at))


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        ends_at = getattr(_call, "ends_at", None)
        if ends_at is not None:
            self.fp = io.BufferedReader(_Reader(sock, self.fp.detach(), ends_at))  # type: ignore[attr-defined]


class TimedHTTPConnection(HTTPConnection):
    response_class = _TimedResponse


class TimedHTTPSConnection(HTTPSConnection):
    response_class = _TimedResponse


class _TimedHTTPPool(HTTPConnectionPool):
    ConnectionCls = TimedHTTPConnection


class _TimedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = TimedHTTPSConnection


class TimedAdapter(HTTPAdapter):
    """Mount it on a requests.Session, and call within :func:`within`. Certificates are checked, against :func:`trusted`,
    whatever the session's ``verify`` says."""

    pools: Mapping[str, type[HTTPConnectionPool]] = MappingProxyType({"http": _TimedHTTPPool, "https": _TimedHTTPSPool})

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self.pools

    def build_connection_pool_key_attributes(self, *args: Any, **kwargs: Any) -> Any:
        host, pool = super().build_connection_pool_key_attributes(*args, **kwargs)
        if host["scheme"] == "https":
            pool["ssl_context"] = trusted()
        return host, pool

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing: the context knows the authorities, and would read those of requests again for each connection."""

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if proxy.lower().startswith("https:"):
            kwargs["proxy_ssl_context"] = trusted()
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self.pools
        return manager

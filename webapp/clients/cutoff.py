"""Calls that end in time whatever the other side does: every connection of theirs is cut when their time is over."""

import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import Any

from webapp.clients.guard import GuardedAdapter, Network


class Deadline:
    """Cuts the connections of one fetch when its time is over. A socket's own time limit is per read, so that a
    server which sends a byte now and then (in its headers, or in the TLS handshake) would hold a thread for hours."""

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def watch(self, sock: socket.socket) -> None:
        # A duplicate: TLS takes the descriptor of the one we were given, and shutting down works on either.
        twin = sock.dup()
        with self._lock:
            self._sockets.append(twin)
            if self.over:
                _shut(twin)

    def _cut(self) -> None:
        with self._lock:
            self.over = True
            for sock in self._sockets:
                _shut(sock)

    def __enter__(self) -> "Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class CutAdapter(GuardedAdapter):
    """The guard, with every connection under the deadline."""

    def __init__(self, allow: Sequence[Network], deadline: Deadline) -> None:
        self._deadline = deadline
        super().__init__(allow, pool_connections=2, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        deadline = self._deadline
        pools: dict[str, Any] = self.poolmanager.pool_classes_by_scheme

        def timed(pool: Any) -> Any:
            class Connection(pool.ConnectionCls):  # type: ignore[misc]
                def _new_conn(self) -> socket.socket:
                    sock: socket.socket = super()._new_conn()
                    deadline.watch(sock)
                    return sock

            return type(f"Cut{pool.__name__}", (pool,), {"ConnectionCls": Connection})

        self.poolmanager.pool_classes_by_scheme = {scheme: timed(pool) for scheme, pool in pools.items()}

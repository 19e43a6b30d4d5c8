"""Request limits per API key: counted in the process, reconciled through Redis in the background.

A counter that asked Redis at every request would put a round trip, and Redis's health, into the intake path. Here a
request costs a dictionary look-up, so a limit holds within the number of web processes (each may let through what the
others did since the last exchange), and with Redis away each process goes on counting for itself.
"""

import threading
import time
import uuid
from dataclasses import dataclass

import redis

SYNC_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Budget:
    """Where a key stands. ``reset``: unix seconds at which the window ends."""

    limit: int
    remaining: int
    reset: int
    allowed: bool

    def headers(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset),
        }


class _Window:
    __slots__ = ("here", "index", "others", "unsent")

    def __init__(self, index: int) -> None:
        self.index = index
        self.here = 0  # counted in this process
        self.unsent = 0  # of those, not yet told to Redis
        self.others = 0  # counted by the other processes, as of the last exchange


class RateLimiter:
    """Fixed windows of ``window`` seconds with at most ``limit`` requests a key."""

    def __init__(self, limit: int, window: int, redis_url: str) -> None:
        self._limit = limit
        self._seconds = window
        self._redis_url = redis_url
        self._windows: dict[uuid.UUID, _Window] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def take(self, key_id: uuid.UUID) -> Budget:
        """Count one request; ``allowed`` False when it is one too many (it is not counted then)."""
        now = time.time()
        index = int(now // self._seconds)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._exchange_forever, name="ratelimit", daemon=True)
                self._thread.start()
            window = self._windows.get(key_id)
            if window is None or window.index != index:
                window = self._windows[key_id] = _Window(index)
            used = window.here + window.others
            allowed = used < self._limit
            if allowed:
                window.here += 1
                window.unsent += 1
                used += 1
        return Budget(self._limit, max(0, self._limit - used), (index + 1) * self._seconds, allowed)

    def _exchange_forever(self) -> None:
        client = redis.Redis.from_url(self._redis_url, socket_timeout=0.5, socket_connect_timeout=0.5)
        while True:
            time.sleep(SYNC_SECONDS)
            try:
                self.exchange(client)
            except redis.RedisError:
                continue  # each process counts for itself until Redis is back

    def exchange(self, client: "redis.Redis") -> None:
        """Tell Redis what was counted here and learn what the others counted."""
        with self._lock:
            index = int(time.time() // self._seconds)
            for key_id in [k for k, w in self._windows.items() if w.index < index]:
                del self._windows[key_id]
            pending = [(key_id, w, w.unsent, w.here) for key_id, w in self._windows.items()]
        if not pending:
            return
        pipe = client.pipeline(transaction=False)
        for key_id, window, unsent, _ in pending:
            name = f"leadops:limit:{key_id}:{window.index}"
            pipe.incrby(name, unsent)
            pipe.expire(name, self._seconds + 60)
        totals = pipe.execute()[::2]
        with self._lock:
            for (_, window, unsent, here), total in zip(pending, totals, strict=True):
                window.unsent -= unsent
                window.others = max(0, int(total) - here)

"""Request limits per owner (an API key, an inbound source): counted in the process, reconciled through Redis in the
background.

A counter that asked Redis at every request would put a round trip, and Redis's health, into the intake path. Here a
request costs a dictionary look-up, so a limit holds within the number of web processes (each may let through what the
others did since the last exchange). With Redis away each process goes on counting for itself: the limiter is
*degraded*, which ``on_state`` is told, so that a metric can say it.

A request counts once, an array of leads as many times as it has entries. Three limits stand beside each other, and a
request has to pass all: so many per window (a fixed one of ``window``
seconds), so many per day (UTC), and a *burst*, so many per second as a token bucket. The bucket is each process's own:
an exchange every half second could not keep seconds.
"""

import math
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import redis

SYNC_SECONDS = 0.5
DAY = 86_400


@dataclass(frozen=True, slots=True)
class Limits:
    """An owner's own limits. None: what the settings say; 0: no such limit."""

    max: int | None = None
    burst: int | None = None
    day: int | None = None


DEFAULT = Limits()


@dataclass(frozen=True, slots=True)
class Budget:
    """Where an owner stands in the window that leaves them the least. ``reset``: unix seconds at which it ends."""

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
    """One owner's count in one window. ``name`` tells the processes' Redis key."""

    __slots__ = ("ends", "here", "name", "others", "unsent")

    def __init__(self, name: str, ends: int) -> None:
        self.name = name
        self.ends = ends
        self.here = 0  # counted in this process
        self.unsent = 0  # of those, not yet told to Redis
        self.others = 0  # counted by the other processes, as of the last exchange

    @property
    def used(self) -> int:
        return self.here + self.others


class _Bucket:
    """A token bucket that holds ``burst`` tokens and gains as many a second."""

    __slots__ = ("at", "tokens")

    def __init__(self, burst: int, now: float) -> None:
        self.tokens = float(burst)
        self.at = now

    def fill(self, burst: int, now: float) -> None:
        self.tokens = min(float(burst), self.tokens + max(0.0, now - self.at) * burst)
        self.at = now


class RateLimiter:
    """At most ``limit`` requests an owner in ``window`` seconds, ``per_day`` a day and ``burst`` a second (0: no such
    limit), unless the owner has :class:`Limits` of its own."""

    def __init__(
        self,
        limit: int,
        window: int,
        redis_url: str,
        *,
        burst: int = 0,
        per_day: int = 0,
        on_state: Callable[[bool], None] | None = None,
    ) -> None:
        self._limit = limit
        self._seconds = window
        self._burst = burst
        self._per_day = per_day
        self._redis_url = redis_url
        self._on_state = on_state
        self._windows: dict[tuple[uuid.UUID, str], _Window] = {}
        self._buckets: dict[uuid.UUID, _Bucket] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.degraded = False

    def take(
        self, owner: uuid.UUID, limits: Limits = DEFAULT, *, count: int = 1, paid: int = 0
    ) -> Budget | None:  # fmt: skip
        """Count a request as ``count``, of which ``paid`` were counted before; ``allowed`` False when it is too many
        (nothing is counted then). None: no limit.

        What counts more than a whole limit passes when all of that limit is left, and is owed: otherwise it never
        could.
        """
        now = time.time()
        most = self._limit if limits.max is None else limits.max
        day = self._per_day if limits.day is None else limits.day
        burst = self._burst if limits.burst is None else limits.burst
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._exchange_forever, name="ratelimit", daemon=True)
                self._thread.start()
            windows: list[tuple[int, _Window]] = []
            if most:
                windows.append((most, self._window(owner, "w", self._seconds, now)))
            if day:
                windows.append((day, self._window(owner, "d", DAY, now)))
            bucket = self._bucket(owner, burst, now) if burst else None
            # What stands in the way: (ends, left, limit).
            refusing = [
                (window.ends, max(0, limit - window.used), limit)
                for limit, window in windows
                if limit - window.used + paid < min(count, limit)
            ]
            if bucket and (missing := min(count, burst) - paid - bucket.tokens) > 0:
                refusing.append((int(now) + math.ceil(missing / burst), max(0, int(bucket.tokens)), burst))
            if refusing:
                ends, remaining, limit = max(refusing)  # the one that lasts longest
                return Budget(limit, remaining, ends, allowed=False)
            for _, window in windows:
                window.here += count - paid
                window.unsent += count - paid
            # (left, ends, limit): what leaves the least, and of what leaves nothing the one that lasts longest.
            left = [(max(0, limit - window.used), -window.ends, limit) for limit, window in windows]
            if bucket:
                bucket.tokens -= count - paid
                left.append((max(0, int(bucket.tokens)), -(int(now) + 1), burst))
        if not left:
            return None
        remaining, ends, limit = min(left)
        return Budget(limit, remaining, -ends, allowed=True)

    def _window(self, owner: uuid.UUID, kind: str, seconds: int, now: float) -> _Window:
        ends = (int(now // seconds) + 1) * seconds
        window = self._windows.get((owner, kind))
        if window is None or window.ends != ends:
            window = self._windows[(owner, kind)] = _Window(f"leadops:limit:{owner}:{kind}:{ends}", ends)
        return window

    def _bucket(self, owner: uuid.UUID, burst: int, now: float) -> _Bucket:
        bucket = self._buckets.get(owner)
        if bucket is None:
            bucket = self._buckets[owner] = _Bucket(burst, now)
        bucket.fill(burst, now)
        return bucket

    def _exchange_forever(self) -> None:
        client = redis.Redis.from_url(self._redis_url, socket_timeout=0.5, socket_connect_timeout=0.5)
        while True:
            time.sleep(SYNC_SECONDS)
            self.attempt(client)

    def attempt(self, client: "redis.Redis") -> None:
        """Exchange, or note that each process counts for itself until Redis is back."""
        try:
            self.exchange(client)
            self.degraded = False
        except redis.RedisError:
            self.degraded = True
        if self._on_state:
            self._on_state(self.degraded)

    def exchange(self, client: "redis.Redis") -> None:
        """Tell Redis what was counted here and learn what the others counted. RedisError when it does not answer."""
        now = time.time()
        with self._lock:
            for name in [name for name, window in self._windows.items() if window.ends <= now]:
                del self._windows[name]
            for owner in [owner for owner, bucket in self._buckets.items() if bucket.at < now - 60]:
                del self._buckets[owner]  # full again since long
            pending = [(window, window.unsent, window.here) for window in self._windows.values()]
        if not pending:
            if self.degraded:
                client.ping()
            return
        pipe = client.pipeline(transaction=False)
        for window, unsent, _ in pending:
            pipe.incrby(window.name, unsent)
            pipe.expireat(window.name, window.ends + 60)
        totals = pipe.execute()[::2]
        with self._lock:
            for (window, unsent, here), total in zip(pending, totals, strict=True):
                window.unsent -= unsent
                window.others = max(0, int(total) - here)

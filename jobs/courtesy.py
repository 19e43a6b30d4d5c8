"""Stepping back while cores are short: what is being taken in comes before what is only queued (docs/adr/0068).

A worker is nice (``worker.NICENESS``), but what PostgreSQL does for it is not, and takes cores from requests all the same.
So one that had to wait for a core, and is behind the leads that come in all the same, rests between two batches.
"""

import time
from collections.abc import Callable
from pathlib import Path

#: Of the time in which a batch could have run, the share that it waited for a core, from which on cores are short.
SHORT = 0.3
#: How long it then rests, in batches; at most so many seconds.
REST, MOST_SECONDS = 6.0, 2.0
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class Courtesy:
    """One thread's. ``wait`` sleeps so many seconds, or less when the process is to stop; ``is_behind`` tells
    whether leads come in faster than they are worked."""

    def __init__(
        self,
        wait: Callable[[float], object],
        is_behind: Callable[[], bool],
        ran_and_waited: "Callable[[], tuple[int, int]] | None" = None,
    ) -> None:
        self._wait, self._is_behind = wait, is_behind
        self._times = ran_and_waited or _ran_and_waited
        self._begin()

    def step_back(self) -> None:
        """Between two batches."""
        ran, waited = (now - before for now, before in zip(self._times(), self._before, strict=True))
        took = time.monotonic() - self._began
        if waited > SHORT * (ran + waited) and self._is_behind():
            self._wait(min(REST * took, MOST_SECONDS))
        self._begin()

    def _begin(self) -> None:
        self._began, self._before = time.monotonic(), self._times()


def _ran_and_waited() -> tuple[int, int]:
    """Nanoseconds that this thread ran, and that it waited for a core; zeros where the system does not say."""
    try:
        ran, waited, _ = _SCHEDSTAT.read_text().split()
    except (OSError, ValueError):
        return 0, 0
    return int(ran), int(waited)

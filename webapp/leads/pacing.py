"""The rate budget of a destination, shared by all workers: when the next call may be made is a row in PostgreSQL.

Calls a second are spaced evenly, so that no second, wherever it begins, holds more of them. Calls a minute may come in a
burst of a tenth of them; the rest is spaced so that burst and rest together keep to the limit in any minute.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads.ports import Target, Throttled

_BURST = 0.1


@dataclass(frozen=True, slots=True)
class Spacing:
    """Seconds from one call to the next, by either limit (0: no limit), and how many may come at once by the latter (1 or more)."""

    second: float
    minute: float
    burst: int


def spacing(options: Mapping[str, Any]) -> Spacing | None:
    """None: the destination has no limit."""
    per_second, per_minute = options.get("per_second"), options.get("per_minute")
    if not per_second and not per_minute:
        return None
    minute, burst = 0.0, 1
    if per_minute:
        burst = max(1, int(float(per_minute) * _BURST))
        minute = 60 / (float(per_minute) - (burst if burst > 1 else 0))
    return Spacing(1 / float(per_second) if per_second else 0.0, minute, burst)


def wait_for(options: Mapping[str, Any], *, second: float, minute: float) -> float:
    """How long the next call would wait, where the next places are so many seconds ahead."""
    wanted = spacing(options)
    if wanted is None:
        return 0.0
    return max(0.0, second if wanted.second else 0.0, minute - wanted.minute * (wanted.burst - 1))


#: Each caller takes the next place in both rows of places and learns how long it is until then. The statement's own
#: transaction is over at once, so callers wait for one another for microseconds.
_TAKE = sa.text(
    """
    UPDATE destinations SET
        second_at = greatest(second_at, clock_timestamp()) + make_interval(secs => :second),
        minute_at = greatest(minute_at, clock_timestamp()) + make_interval(secs => :minute)
    WHERE id = :id AND (CAST(:longest AS float8) IS NULL OR coalesce(greatest(
        second_at,
        minute_at - make_interval(secs => :minute * (:burst - 1))
    ), clock_timestamp()) <= clock_timestamp() + make_interval(secs => :longest))
    RETURNING extract(epoch FROM greatest(
        second_at - make_interval(secs => :second),
        minute_at - make_interval(secs => :minute * :burst)
    ) - clock_timestamp())
    """
)


class Pacer:
    """Gives each call its turn; used by several threads at a time, outside any transaction. ``longest``: seconds beyond
    which a turn is not taken at all."""

    def __init__(
        self,
        session_factory: Callable[[], AbstractContextManager[Session]],
        *,
        sleep: Callable[[float], None] = time.sleep,
        longest: float | None = None,
    ) -> None:
        self._session_factory = session_factory
        self._sleep = sleep
        self._longest = longest

    def wait(self, target: Target) -> None:
        """Until the next call to ``target`` may be made. Throttled when that is further away than ``longest``."""
        wanted = spacing(target.options)
        if wanted is None:
            return
        with self._session_factory() as session:
            seconds = session.scalar(
                _TAKE,
                {
                    "id": target.id,
                    "second": wanted.second,
                    "minute": wanted.minute,
                    "burst": wanted.burst,
                    "longest": self._longest,
                },
            )
            session.commit()
        if seconds is None and self._longest is not None:
            busy = f"its rate budget is used up for more than {self._longest:g} s"
            raise Throttled(busy, retry_after=self._longest)
        if seconds is not None and seconds > 0:
            self._sleep(float(seconds))

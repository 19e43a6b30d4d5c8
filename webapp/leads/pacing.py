"""The rate budget of a destination, shared by all workers: when the next call may be made is a row in PostgreSQL.

Calls a second are spaced evenly, so that no second, wherever it begins, holds more of them. Calls a minute may come in a
burst of a tenth of them; the rest is spaced so that burst and rest together keep to the limit in any minute.

Look-ups (who is in the CRM already, whose tasks are open) are calls of the same budget, but deliveries come first: a
look-up takes a place that nobody waits for, and otherwise at most :data:`LOOKUP_SHARE` of all places.
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
#: Of the budget, for look-ups while deliveries use the rest of it.
LOOKUP_SHARE = 0.25
#: Two of them that find no place now look again after so long, in seconds, however near the next place is.
_LOOK_AGAIN = 0.02


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
_TAKE = """
    UPDATE destinations SET
        second_at = greatest(second_at, clock_timestamp()) + make_interval(secs => :second),
        minute_at = greatest(minute_at, clock_timestamp()) + make_interval(secs => :minute){also}
    WHERE id = :id{only_if}
    RETURNING extract(epoch FROM greatest(
        second_at - make_interval(secs => :second),
        minute_at - make_interval(secs => :minute * :burst)
    ) - clock_timestamp())
"""
#: When the next place is.
_NEXT = """coalesce(greatest(
            second_at, minute_at - make_interval(secs => :minute * (:burst - 1))
        ), clock_timestamp())"""
_TAKE_NEXT = sa.text(_TAKE.replace("{also}", "").replace("{only_if}", ""))
#: Only a place that is free now, or one of the look-ups' share that is near enough.
_TAKE_LEFT = sa.text(
    _TAKE.replace("{also}", ",\n        lookup_at = clock_timestamp() + make_interval(secs => :apart)").replace(
        "{only_if}",
        f""" AND ({_NEXT} <= clock_timestamp() OR (
            coalesce(lookup_at, clock_timestamp()) <= clock_timestamp()
            AND {_NEXT} <= clock_timestamp() + make_interval(secs => :longest)
        ))""",
    )
)
#: How long until a place is free, and until the look-ups' share is due.
_LOOK = sa.text(
    """
    SELECT extract(epoch FROM {next} - clock_timestamp()),
        extract(epoch FROM coalesce(lookup_at, clock_timestamp()) - clock_timestamp())
    FROM destinations WHERE id = :id
    """.replace("{next}", _NEXT)
)


class Pacer:
    """Gives each call of a delivery its turn; used by several threads at a time, outside any transaction."""

    def __init__(
        self,
        session_factory: Callable[[], AbstractContextManager[Session]],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._session_factory = session_factory
        self._sleep = sleep

    def wait(self, target: Target) -> None:
        """Until the next call to ``target`` may be made."""
        wanted = spacing(target.options)
        if wanted is None:
            return
        with self._session_factory() as session:
            seconds = session.scalar(_TAKE_NEXT, _places(target, wanted))
            session.commit()
        if seconds is not None and seconds > 0:
            self._sleep(float(seconds))


class LookupPacer:
    """The same for look-ups, which leave deliveries their turns. ``longest``: seconds that one waits at most."""

    def __init__(
        self,
        session_factory: Callable[[], AbstractContextManager[Session]],
        *,
        longest: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._session_factory = session_factory
        self._sleep = sleep
        self._longest = longest

    def wait(self, target: Target) -> None:
        """Until ``target`` may be asked. Throttled, having taken no place, when that would be longer than ``longest``."""
        wanted = spacing(target.options)
        if wanted is None:
            return
        left = self._longest
        while True:
            taken, soon = self._try(target, wanted, left)
            if not taken and soon > left:
                raise Throttled("its rate budget is used up by deliveries", retry_after=max(1.0, soon))
            if soon > 0:
                self._sleep(soon)
            if taken:
                return
            left -= soon

    def _try(self, target: Target, wanted: Spacing, left: float) -> tuple[bool, float]:
        """(a place was taken, seconds until it); or seconds until it is worth while to try again."""
        apart = max(wanted.second, wanted.minute) / LOOKUP_SHARE
        values = _places(target, wanted) | {"apart": apart, "longest": left}
        with self._session_factory() as session:
            seconds = session.scalar(_TAKE_LEFT, values)
            found = session.execute(_LOOK, values).first() if seconds is None else None
            session.commit()
        if seconds is not None or found is None:  # or it was deleted meanwhile
            return True, float(seconds or 0)
        free, due = float(found[0]), float(found[1])
        return False, free if free > left else max(_LOOK_AGAIN, min(free, due))


def _places(target: Target, wanted: Spacing) -> dict[str, Any]:
    return {"id": target.id, "second": wanted.second, "minute": wanted.minute, "burst": wanted.burst}

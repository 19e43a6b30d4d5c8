"""Working hours: when somebody works, when the next ones begin, and when a working time has passed. Pure.

A :class:`Calendar` is a week of shifts in a time zone, less holidays. A shift that ends at or before its start ends on
the next day, and belongs to the day it starts on: a holiday takes away the shifts that start on it. Shifts are told in
wall-clock time and counted in real time, so that a night with a change of the clocks is an hour shorter or longer.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from webapp.leads.errors import Invalid, Problem

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: How far ahead working time is looked for, in days.
HORIZON = 380
MAX_DAYS_OFF = 400
_DAY = 24 * 60

#: (first minute, last minute) of a day; the last may lie in the next day.
Shift = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Calendar:
    """``week``: the shifts of each day, Monday first; None: around the clock, and no holiday counts. ``country`` and
    ``subdivision`` (ISO 3166): whose public holidays are kept. ``days_off``: further days without work; ``days_on``:
    public holidays that are worked."""

    time_zone: str = "UTC"
    week: tuple[tuple[Shift, ...], ...] | None = None
    country: str = ""
    subdivision: str = ""
    days_off: frozenset[date] = frozenset()
    days_on: frozenset[date] = frozenset()

    @property
    def always(self) -> bool:
        return self.week is None

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)

    def as_json(self) -> dict[str, Any]:
        """The stored form; :func:`read` reads it back."""
        week = None
        if self.week is not None:
            week = {
                day: [f"{_clock(a)}-{_clock(b)}" for a, b in shifts]
                for day, shifts in zip(DAYS, self.week, strict=True)
            }
        return {
            "time_zone": self.time_zone,
            "week": week,
            "country": self.country,
            "subdivision": self.subdivision,
            "days_off": sorted(day.isoformat() for day in self.days_off),
            "days_on": sorted(day.isoformat() for day in self.days_on),
        }


ALWAYS = Calendar()


def is_open(calendar: Calendar, at: datetime) -> bool:
    """Is ``at`` (aware) within working hours?"""
    return calendar.always or any(start <= at < end for start, end in _near(calendar, at))


def next_open(calendar: Calendar, at: datetime) -> datetime | None:
    """The first moment from ``at`` on that is within working hours, in UTC; None when there is none within
    :data:`HORIZON` days."""
    if calendar.always:
        return at.astimezone(UTC)
    return next((max(start, at.astimezone(UTC)) for start, _ in spans(calendar, at)), None)


def add(calendar: Calendar, at: datetime, seconds: float) -> datetime | None:
    """When ``seconds`` of working time have passed since ``at``, in UTC. What begins outside working hours is counted
    from their next beginning. None when so much working time does not come within :data:`HORIZON` days."""
    at = at.astimezone(UTC)
    if calendar.always:
        return at + timedelta(seconds=seconds)
    left = timedelta(seconds=seconds)
    for start, end in spans(calendar, at):
        begins = max(start, at)
        if end - begins >= left:
            return begins + left
        left -= end - begins
    return None


def worked(calendar: Calendar, start: datetime, end: datetime) -> float:
    """Seconds of working time between two moments, at most :data:`HORIZON` days apart; 0 when ``end`` is not later."""
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    if calendar.always:
        return max(0.0, (end - start).total_seconds())
    total = timedelta()
    for a, b in spans(calendar, start):
        if a >= end:
            break
        total += max(timedelta(), min(b, end) - max(a, start))
    return total.total_seconds()


def spans(calendar: Calendar, at: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Stretches of working time that end after ``at``, in order and apart from one another, in UTC."""
    pending: tuple[datetime, datetime] | None = None
    first = at.astimezone(calendar.zone).date() - timedelta(days=1)  # a shift of yesterday may still last
    for offset in range(HORIZON):
        for start, end in _shifts_of(calendar, first + timedelta(days=offset)):
            if end <= at:
                continue
            if pending and start <= pending[1]:
                pending = (pending[0], max(pending[1], end))
                continue
            if pending:
                yield pending
            pending = (start, end)
    if pending:
        yield pending


def is_holiday(calendar: Calendar, day: date) -> bool:
    """A day on which no shift starts."""
    if day in calendar.days_off:
        return True
    return day not in calendar.days_on and day in _public(calendar.country, calendar.subdivision, day.year)


def _near(calendar: Calendar, at: datetime) -> Iterator[tuple[datetime, datetime]]:
    today = at.astimezone(calendar.zone).date()
    for day in (today - timedelta(days=1), today):
        yield from _shifts_of(calendar, day)


def _shifts_of(calendar: Calendar, day: date) -> list[tuple[datetime, datetime]]:
    shifts = calendar.week[day.weekday()] if calendar.week else ()
    if not shifts or is_holiday(calendar, day):
        return []
    found = [(_moment(calendar, day, a), _moment(calendar, day, b if b > a else b + _DAY)) for a, b in shifts]
    return sorted((start, end) for start, end in found if end > start)


def _moment(calendar: Calendar, day: date, minute: int) -> datetime:
    """A wall-clock time that the clocks skip is as much later as they skip; one that comes twice is the first."""
    day += timedelta(days=minute // _DAY)
    wall = datetime.combine(day, time(minute % _DAY // 60, minute % 60), tzinfo=calendar.zone)
    return wall.astimezone(UTC)


@lru_cache(maxsize=512)
def _public(country: str, subdivision: str, year: int) -> frozenset[date]:
    """Public holidays; none where no country is given."""
    if not country:
        return frozenset()
    # Imported here: it weighs 20 MB, and most workspaces do without.
    import holidays

    return frozenset(holidays.country_holidays(country, subdiv=subdivision or None, years=year))


def public_holidays(calendar: Calendar, year: int) -> list[tuple[date, str]]:
    """(day, name) of the public holidays that the calendar keeps in ``year``, for a page."""
    if not calendar.country:
        return []
    import holidays

    found = holidays.country_holidays(calendar.country, subdiv=calendar.subdivision or None, years=year)
    return sorted((day, name) for day, name in found.items() if day not in calendar.days_on)


@lru_cache(maxsize=1)
def countries() -> dict[str, tuple[str, ...]]:
    """ISO 3166 country → subdivisions, as far as public holidays are known."""
    import holidays

    return {code: tuple(parts) for code, parts in sorted(holidays.list_supported_countries().items()) if len(code) == 2}


@lru_cache(maxsize=1)
def time_zones() -> tuple[str, ...]:
    """IANA names, for a choice in a form."""
    named = (name for name in available_timezones() if "/" in name and not name.startswith("Etc/"))
    return (*sorted(named), "UTC")


@lru_cache(maxsize=1024)
def read_text(text: str | None) -> Calendar | None:
    """:func:`read` of JSON text, remembered; None for NULL, and for what cannot be read."""
    if not text:
        return None
    try:
        stored = json.loads(text)
        return read(stored) if stored else None
    except (Invalid, ValueError, TypeError, AttributeError, KeyError):
        return None


def read(stored: Mapping[str, Any]) -> Calendar:
    """A calendar from its stored form, or as a form gives it (shifts as ``09:00-12:30, 13:30-18:00``). Invalid names
    every field that is not understood."""
    problems: list[Problem] = []
    zone = str(stored.get("time_zone") or "UTC")
    if zone not in available_timezones():
        problems.append(Problem("time_zone", "is not a time zone such as Asia/Ho_Chi_Minh"))
    week = None
    if stored.get("week") is not None:
        week = tuple(_day(day, stored["week"].get(day), problems) for day in DAYS)
        if not any(week) and not problems:
            problems.append(Problem("week", "has no working hours at all"))
    country, subdivision = str(stored.get("country") or "").upper(), str(stored.get("subdivision") or "").upper()
    if country and country not in countries():
        problems.append(Problem("country", "is none of which public holidays are known"))
    elif subdivision and subdivision not in countries().get(country, ()):
        problems.append(Problem("subdivision", "is no part of that country whose holidays are known"))
    off, on = (_dates(name, stored.get(name), problems) for name in ("days_off", "days_on"))
    if problems:
        raise Invalid("The working hours are not understood.", details=tuple(problems))
    return Calendar(zone, week, country, subdivision, off, on)


def _day(day: str, said: Any, problems: list[Problem]) -> tuple[Shift, ...]:
    listed = said.split(",") if isinstance(said, str) else list(said or ())
    shifts: list[Shift] = []
    try:
        for one in filter(None, (str(part).replace("–", "-").strip() for part in listed)):
            start, end = (_minute(part) for part in one.split("-"))
            if start in (end, _DAY):
                raise ValueError(one)
            shifts.append((start, end))
    except ValueError:
        problems.append(Problem(day, "must be times such as 09:00-12:30, 13:30-18:00, or empty"))
        return ()
    shifts.sort()
    ends = [end if end > start else end + _DAY for start, end in shifts]
    if any(start < end for (start, _), end in zip(shifts[1:], ends, strict=False)):
        problems.append(Problem(day, "has hours that overlap"))
    return tuple(shifts)


def _minute(text: str) -> int:
    hours, _, minutes = text.strip().partition(":")
    if not (hours.isascii() and hours.isdigit() and len(hours) <= 2 and len(minutes) == 2 and minutes.isdigit()):
        raise ValueError(text)
    found = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or found > _DAY:
        raise ValueError(text)
    return found


def _dates(name: str, said: Any, problems: list[Problem]) -> frozenset[date]:
    listed = said.replace(",", " ").split() if isinstance(said, str) else list(said or ())
    try:
        found = frozenset(date.fromisoformat(str(one)) for one in listed)
    except ValueError:
        problems.append(Problem(name, "must be dates such as 2026-12-24, with spaces or commas between"))
        return frozenset()
    if len(found) > MAX_DAYS_OFF:
        problems.append(Problem(name, f"must be at most {MAX_DAYS_OFF} days"))
    return found


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"

"""Moments and durations for people. app.js says moments in the same words, in the reader's zone."""

from datetime import UTC, datetime

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UNITS = ((60, "s", "second"), (60, "min", "minute"), (24, "h", "hour"), (365, "d", "day"))


def ago(moment: datetime, *, now: datetime | None = None, long: bool = False) -> str:
    """How long ago, in its largest unit: ``4 min``, or ``4 minutes ago`` when ``long``; the future reads ``in 4 min``."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    amount = abs(seconds)
    if amount < 1:
        return "just now" if long else "now"
    for size, short, full in _UNITS:
        if amount < size or full == "day":
            n = int(amount)
            text = f"{n} {full}{'s' if n != 1 else ''}" if long else f"{n} {short}"
            break
        amount /= size
    return f"in {text}" if seconds < 0 else (f"{text} ago" if long else text)


def moment(value: datetime) -> str:
    """The absolute time: ``20 Nov 2026, 14:02:11 UTC``."""
    at = value.astimezone(UTC)
    # Not by strftime, which takes ten times as long, and a list has a hundred of them.
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}, {at.hour:02}:{at.minute:02}:{at.second:02} UTC"


def duration(ms: float | None) -> str:
    """Milliseconds for people: ``8 ms``, ``1.2 s``, ``3 min``."""
    if ms is None:
        return "–"
    if ms < 1:
        return "under 1 ms"
    if ms < 1_000:
        return f"{ms:.0f} ms"
    return f"{ms / 1_000:.1f} s" if ms < 60_000 else f"{ms / 60_000:.0f} min"


def parsed(text: str) -> datetime | None:
    """A stored moment (ISO 8601 with its zone); None when it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None

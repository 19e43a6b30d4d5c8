"""When the next digest goes out: every so many minutes, or at an hour of the day. Pure."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_UTC = ZoneInfo("UTC")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Digest:
    """``minutes``: between two of them, counted from midnight UTC where they divide a day; else ``hour`` of the day in
    ``zone``."""

    minutes: int | None = None
    hour: int = 0
    zone: ZoneInfo = _UTC

    def next(self, at: datetime) -> datetime:
        """The first one at ``at`` or later; the same for all who ask in between."""
        if self.minutes is not None:
            step = timedelta(minutes=self.minutes)
            return _EPOCH - ((_EPOCH - at) // step) * step
        today = at.astimezone(self.zone).date()
        found = self._on(today)
        return found if found >= at else self._on(today + timedelta(days=1))

    def _on(self, day: date) -> datetime:
        """An hour that the clocks skip is the one after it."""
        return datetime.combine(day, time(self.hour), self.zone).astimezone(UTC)

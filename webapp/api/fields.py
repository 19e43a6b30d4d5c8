"""Fields that every form and API door keeps when they are sent (docs/api.md: attribution and consent)."""

from datetime import UTC, datetime
from typing import Any

from webapp.leads.intake import ATTRIBUTION

_LONGEST = 2_000


def attribution_of(data: dict[str, Any]) -> dict[str, str]:
    """The attribution in a body whose own fields are something else; what is no text of a sane length is left in the
    raw payload."""
    found = {name: data.get(name) for name in ATTRIBUTION}
    return {name: value for name, value in found.items() if isinstance(value, str) and 0 < len(value) <= _LONGEST}


def consent_of(value: Any) -> str | None:
    """``consent`` as it is stored: ``yes`` or ``no`` for a boolean, words as they are."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST else None


def sane_moment(value: datetime) -> datetime:
    """Refuses what no clock has shown and PostgreSQL might not hold in UTC."""
    if not 1900 <= value.year <= 2200:
        raise ValueError("must lie between 1900 and 2200")
    return value.astimezone(UTC)


def moment_of(value: Any) -> datetime | None:
    """``consent_at`` of a door that has no field of its own for it; what is no moment stays in the raw payload."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        return sane_moment(moment) if moment and moment.tzinfo else None
    except ValueError:
        return None

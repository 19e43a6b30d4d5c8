"""What the readers of Meta's webhooks share: ids, words, and one bad entry that never costs its neighbours."""

from collections.abc import Callable
from typing import Any

from webapp.api.body import check_storable
from webapp.leads.errors import Invalid
from webapp.leads.intake import MAX_MESSAGE, LeadIn
from webapp.leads.leadgen import Announced
from webapp.leads.quarantine import Bad

Seal = Callable[[Any], Any]
#: What an entry turns out to be.
Found = LeadIn | Announced

#: Longest id that is taken.
_MAX_ID = 512


class Undigestible(Exception):
    """The entry cannot be read; ``str()`` says why, in words for people."""


def guarded(entry: dict[str, Any], seal: Seal, read: Callable[[], Found], *, sound: bool) -> Found | Bad:
    """What ``read`` makes of ``entry``, or why it cannot. ``entry`` is what quarantine would keep, so it is complete:
    one element of ``entry[]`` with nothing in it but what ``read`` looks at. ``sound``: all of it can be stored, as
    somebody has seen already."""
    try:
        if not sound:
            check_storable(entry)
        found = read()
    except Undigestible as error:
        return Bad(str(error), sealed(entry, seal))
    except Invalid as error:
        reasons = "; ".join(f"{problem.field} {problem.reason}" for problem in error.details)
        return Bad(reasons or error.message, sealed(entry, seal))
    if isinstance(found, LeadIn) and len(found.message) > MAX_MESSAGE:
        return Bad(f"message longer than {MAX_MESSAGE:,} characters", sealed(entry, seal))
    return found


def sealed(raw: Any, seal: Seal) -> Any:
    """``seal(raw)``; what is nested too deep for that holds nothing that people wrote."""
    try:
        return seal(raw)
    except RecursionError:
        return raw


def text(value: Any) -> str | None:
    """Ids come as strings or numbers; anything else is none."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def required(value: Any, what: str) -> str:
    """An id that an entry is nothing without. Undigestible names it as ``what``."""
    found = text(value)
    if found is None:
        raise Undigestible(f"{what} is missing or no text")
    if len(found) > _MAX_ID:
        raise Undigestible(f"{what} is longer than {_MAX_ID} characters")
    return found


def words(value: Any, what: str = "message") -> str:
    """What a person wrote; nothing is no words. Undigestible when it is something else than text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Undigestible(f"{what} is not text")
    return value


def part(value: Any, name: str) -> dict[str, Any]:
    """``value[name]`` if that is an object, else an empty one."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def parts(value: Any, name: str) -> list[dict[str, Any]]:
    """The objects in the list ``value[name]``; what is none is left out."""
    found = value.get(name) if isinstance(value, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def known(**values: Any) -> dict[str, Any]:
    """Attributes of a lead: those that there are."""
    return {name: value for name, value in values.items() if value not in (None, "", [])}

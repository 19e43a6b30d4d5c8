"""A webhook body of a Facebook page → leads as intake takes them, announced forms, and what could not be understood."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from webapp.api.meta import feed, leadgen, messenger
from webapp.api.meta.reading import Found, Seal, guarded, sealed, text
from webapp.leads.quarantine import Bad


def pages_of(entry: Any) -> tuple[str, ...]:
    """The page that an element of ``entry[]`` is from."""
    page_id = text(entry.get("id")) if isinstance(entry, dict) else None
    return (page_id,) if page_id else ()


def entries(payload: dict[str, Any], seal: Seal, *, sound: bool = False) -> Iterator[Found | Bad]:
    """Every comment, message and announced form of a body. What is no lead by its nature (echoes, read receipts,
    edits, the page's own replies, other fields) is passed over; what should be one and cannot be read comes back as
    Bad. ``sound``: see :func:`reading.guarded`."""
    if "entry" not in payload:
        if "message" in payload or "comment_id" in payload:
            yield guarded(payload, seal, lambda: feed.flat(payload, seal), sound=sound)
        else:
            yield Bad("neither entries nor a message", sealed(payload, seal))
        return
    if not isinstance(payload["entry"], list):
        yield Bad("entry is not a list", sealed(payload, seal))
        return
    for entry in payload["entry"]:
        if isinstance(entry, dict):
            yield from _entry(entry, seal, sound)
        else:
            yield Bad("an entry is not an object", sealed(entry, seal))


def _entry(entry: dict[str, Any], seal: Seal, sound: bool) -> Iterator[Found | Bad]:
    page_id = text(entry.get("id"))
    changes, messaging = entry.get("changes", []), entry.get("messaging", [])
    if not isinstance(changes, list) or not isinstance(messaging, list):
        yield Bad("changes or messaging is not a list", sealed(entry, seal))
        return
    around = {name: entry[name] for name in ("id", "time") if name in entry}
    for change in changes:
        found = _change(change, page_id, around | {"changes": [change]}, seal, sound)
        if found is not None:
            yield found
    for event in messaging:
        alone = around | {"messaging": [event]}
        if not isinstance(event, dict):
            yield Bad("a messaging event is not an object", sealed(alone, seal))
        elif messenger.is_lead(event, page_id):
            read = partial(messenger.lead, event, page_id, seal)
            yield guarded(alone, seal, read, sound=sound)


def _change(change: Any, page_id: str | None, alone: dict[str, Any], seal: Seal, sound: bool) -> Found | Bad | None:
    """``alone``: an entry with this change and no other."""
    if not isinstance(change, dict):
        return Bad("a change is not an object", sealed(alone, seal))
    field = change.get("field", "feed")
    if field not in ("feed", "leadgen"):
        return None
    if not isinstance(change.get("value"), dict):
        return Bad("a change without a value", sealed(alone, seal))
    if field == "leadgen":
        return guarded(alone, seal, lambda: leadgen.announced(change, page_id), sound=sound)
    if feed.is_comment(change, page_id):
        return guarded(alone, seal, lambda: feed.comment(change, page_id, seal), sound=sound)
    return None

"""The Facebook dialect: a webhook body → leads as intake takes them, and what could not be understood."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from webapp.api.body import check_storable
from webapp.leads.errors import Invalid
from webapp.leads.intake import LeadIn
from webapp.leads.states import Door

Seal = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Bad:
    """An entry that cannot be digested, raw, and why."""

    reason: str
    raw: Any


class _Undigestible(Exception):
    pass


def page_of(entry: Any) -> str | None:
    """The page that an element of ``entry[]`` is from."""
    return _text(entry.get("id")) if isinstance(entry, dict) else None


def entries(payload: dict[str, Any], *, seal: Seal) -> Iterator[LeadIn | Bad]:
    """Every comment and message of a body. What is no lead by its nature (echoes, read receipts, edits, the page's
    own replies, other objects) is passed over; what should be one and cannot be read comes back as :class:`Bad`."""
    if "entry" not in payload:
        if "message" in payload or "comment_id" in payload:
            yield _guarded(payload, seal, _flat)
        else:
            yield Bad("neither entries nor a message", seal(payload))
        return
    if not isinstance(payload["entry"], list):
        yield Bad("entry is not a list", seal(payload))
        return
    for entry in payload["entry"]:
        if not isinstance(entry, dict):
            yield Bad("an entry is not an object", seal(entry))
            continue
        yield from _entry(entry, seal)


def _entry(entry: dict[str, Any], seal: Seal) -> Iterator[LeadIn | Bad]:
    page_id = _text(entry.get("id"))
    changes, messaging = entry.get("changes", []), entry.get("messaging", [])
    if not isinstance(changes, list) or not isinstance(messaging, list):
        yield Bad("changes or messaging is not a list", seal(entry))
        return
    for change in changes:
        if _is_comment(change, page_id):
            yield _guarded(change, seal, lambda raw: _comment(raw, page_id))
        elif isinstance(change, dict) and change.get("field") == "leadgen":
            yield Bad("a Lead Ads form: fetching its answers is not set up", seal(change))
        elif not isinstance(change, dict) or not isinstance(change.get("value"), dict):
            yield Bad("a change without a value", seal(change))
    for event in messaging:
        if not isinstance(event, dict):
            yield Bad("a messaging event is not an object", seal(event))
        elif _is_message(event):
            yield _guarded(event, seal, lambda raw: _message(raw, page_id))


def _guarded(raw: dict[str, Any], seal: Seal, read: Callable[[dict[str, Any]], dict[str, Any]]) -> LeadIn | Bad:
    try:
        check_storable(raw)
        fields = read(raw)
    except _Undigestible as error:
        return Bad(str(error), seal(raw))
    except Invalid as error:
        return Bad("; ".join(f"{p.field} {p.reason}" for p in error.details) or error.message, raw)
    return LeadIn(door=Door.SOCIAL, platform="facebook", source="facebook", payload=seal(raw), **fields)


def _text(value: Any) -> str | None:
    """Ids come as strings or numbers; anything else is none."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def _required(value: Any, what: str) -> str:
    text = _text(value)
    if text is None:
        raise _Undigestible(f"{what} is missing or no text")
    if len(text) > 512:
        raise _Undigestible(f"{what} is longer than 512 characters")
    return text


def _words(value: Any) -> str:
    if value is None:
        return ""  # a comment that is only a picture
    if not isinstance(value, str):
        raise _Undigestible("message is not text")
    return value


def _is_comment(change: Any, page_id: str | None) -> bool:
    if not isinstance(change, dict) or change.get("field", "feed") != "feed":
        return False
    value = change.get("value")
    if not isinstance(value, dict) or value.get("item", "comment") != "comment" or value.get("verb", "add") != "add":
        return False
    author = value.get("from")
    # The page's own replies are ours, not a lead's.
    return not (isinstance(author, dict) and page_id is not None and _text(author.get("id")) == page_id)


def _comment(change: dict[str, Any], page_id: str | None) -> dict[str, Any]:
    value = change["value"]
    author = value.get("from") if isinstance(value.get("from"), dict) else {}
    return {
        "message": _words(value.get("message")),
        "external_message_id": _required(value.get("comment_id"), "comment_id"),
        "external_post_id": _text(value.get("post_id")),
        "external_thread_id": _text(value.get("parent_id")),
        "author_id": _text(author.get("id")) or _text(value.get("sender_id")),
        "author_name": _text(author.get("name")) or _text(value.get("sender_name")),
        "source_type": "comment",
        "source_subtype": "feed",
        "attributes": {"page_id": page_id} if page_id else {},
    }


def _is_message(event: dict[str, Any]) -> bool:
    message = event.get("message")
    return isinstance(message, dict) and not message.get("is_echo")


def _message(event: dict[str, Any], page_id: str | None) -> dict[str, Any]:
    message = event["message"]
    sender = event.get("sender") if isinstance(event.get("sender"), dict) else {}
    author = _text(sender.get("id")) or _text(sender.get("user_ref"))
    return {
        "message": _words(message.get("text")),
        "external_message_id": _required(message.get("mid"), "message.mid"),
        "external_thread_id": author,
        "author_id": author,
        "source_type": "message",
        "source_subtype": "messenger",
        "attributes": {"page_id": page_id} if page_id else {},
    }


def _flat(payload: dict[str, Any]) -> dict[str, Any]:
    """The flat test entry ``{message, sender_name, sender_id, post_id, comment_id}``."""
    return {
        "message": _words(payload.get("message")),
        "external_message_id": _required(payload.get("comment_id"), "comment_id"),
        "external_post_id": _text(payload.get("post_id")),
        "author_id": _text(payload.get("sender_id")),
        "author_name": _text(payload.get("sender_name")),
        "source_type": "comment",
        "source_subtype": "feed",
    }

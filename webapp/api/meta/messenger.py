"""Messenger: what people write to a page, and the buttons they press."""

from typing import Any

from webapp.api.meta.reading import Seal, Undigestible, known, part, parts, required, text, words
from webapp.leads.intake import LeadIn
from webapp.leads.states import Door


def is_lead(event: dict[str, Any], page_id: str | None) -> bool:
    """Somebody's message or pressed button; not our own echo, nor what only reports (read, delivery, opt-in,
    referral, reaction)."""
    message = event.get("message")
    if isinstance(message, dict):
        said = not message.get("is_echo") and not message.get("is_deleted")
    else:
        said = isinstance(event.get("postback"), dict)
    return said and (page_id is None or text(part(event, "sender").get("id")) != page_id)


def lead(event: dict[str, Any], page_id: str | None, seal: Seal) -> LeadIn:
    """A message, else a postback. ``sender`` may hold a ``user_ref`` instead of an id (checkbox plugin)."""
    sender = part(event, "sender")
    author = text(sender.get("id")) or text(sender.get("user_ref"))
    if isinstance(event.get("message"), dict):
        kind, said, key, pressed = _message(event["message"])
    else:
        kind, said, key, pressed = _postback(event, author)
    return LeadIn(
        door=Door.SOCIAL,
        platform="facebook",
        source="facebook",
        message=said,
        external_message_id=key,
        external_thread_id=author,
        author_id=author,
        source_type=kind,
        source_subtype="messenger",
        attributes=known(page_id=page_id, pressed=pressed),
        payload=seal(event),
    )


def _message(message: dict[str, Any]) -> tuple[str, str, str, str | None]:
    """(kind, words, key, what the button that was pressed stands for)."""
    said = words(message.get("text")) or "\n".join(filter(None, map(_attachment, parts(message, "attachments"))))
    return (
        "message",
        said,
        required(message.get("mid"), "message.mid"),
        text(part(message, "quick_reply").get("payload")),
    )


def _postback(event: dict[str, Any], author: str | None) -> tuple[str, str, str, str | None]:
    """Like :func:`_message`. A button has a mid on newer versions; else who pressed it and when names it."""
    postback = event["postback"]
    pressed = text(postback.get("payload"))
    said = words(postback.get("title"), "postback.title") or pressed or ""
    key = text(postback.get("mid"))
    if key is None:
        when = text(event.get("timestamp"))
        if author is None or when is None:
            raise Undigestible("postback.mid is missing, and sender and timestamp do not name it either")
        key = f"postback:{author}:{when}"
    return "postback", said, required(key, "postback.mid"), pressed


def _attachment(attachment: dict[str, Any]) -> str:
    """A file as words: a shared link by its title and address, anything else by its kind."""
    shared = [text(attachment.get("title")), text(attachment.get("url"))]
    kind = text(attachment.get("type"))
    if kind == "location":
        place = part(part(attachment, "payload"), "coordinates")
        return f"(location {place.get('lat')}, {place.get('long')})" if place else "(location)"
    if kind in ("fallback", "template", None) and any(shared):
        return " ".join(filter(None, shared))
    return f"({kind})" if kind else ""

"""Comments under a page's posts."""

from typing import Any

from webapp.api.meta.reading import Seal, known, part, required, text, words
from webapp.leads.intake import LeadIn
from webapp.leads.states import Door


def is_comment(change: dict[str, Any], page_id: str | None) -> bool:
    """A new comment by somebody else than the page: edits, removals and the page's own replies are no leads."""
    value = change["value"]
    if value.get("item", "comment") != "comment" or value.get("verb", "add") != "add":
        return False
    author = text(part(value, "from").get("id")) or text(value.get("sender_id"))
    return page_id is None or author != page_id


def comment(change: dict[str, Any], page_id: str | None, seal: Seal) -> LeadIn:
    """``from`` is absent where the app may not see it, ``message`` where there is only a picture."""
    value = change["value"]
    author = part(value, "from")
    return LeadIn(
        door=Door.SOCIAL,
        platform="facebook",
        source="facebook",
        message=words(value.get("message")) or _picture(value),
        external_message_id=required(value.get("comment_id"), "comment_id"),
        external_post_id=text(value.get("post_id")),
        external_thread_id=text(value.get("parent_id")),
        author_id=text(author.get("id")) or text(value.get("sender_id")),
        author_name=text(author.get("name")) or text(value.get("sender_name")),
        source_type="comment",
        source_subtype="feed",
        attributes=known(page_id=page_id),
        payload=seal(change),
    )


def _picture(value: dict[str, Any]) -> str:
    return next((f"({kind})" for kind in ("photo", "video") if value.get(kind)), "")


def flat(payload: dict[str, Any], seal: Seal) -> LeadIn:
    """The flat test entry ``{message, sender_name, sender_id, post_id, comment_id}``."""
    return LeadIn(
        door=Door.SOCIAL,
        platform="facebook",
        source="facebook",
        message=words(payload.get("message")),
        external_message_id=required(payload.get("comment_id"), "comment_id"),
        external_post_id=text(payload.get("post_id")),
        author_id=text(payload.get("sender_id")),
        author_name=text(payload.get("sender_name")),
        source_type="comment",
        source_subtype="feed",
        payload=seal(payload),
    )

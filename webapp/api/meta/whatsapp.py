"""A webhook body of WhatsApp Cloud → leads as intake takes them, and what could not be understood."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from webapp.api.meta.reading import (
    Found,
    Seal,
    Undigestible,
    guarded,
    known,
    part,
    parts,
    required,
    sealed,
    text,
    words,
)
from webapp.leads.dedupe import normalize_phone
from webapp.leads.intake import LeadIn
from webapp.leads.quarantine import Bad
from webapp.leads.states import Door
from webapp.security.fields import is_sensitive

#: Types that are nobody's request: a thumb under one of our messages, news about the account.
_NO_LEADS = frozenset({"reaction", "system", "ephemeral", "request_welcome"})
#: Levels of a form's answers that are looked into.
_MAX_DEPTH = 32


def pages_of(entry: Any) -> tuple[str, ...]:
    """Whom an element of ``entry[]`` with one change was sent to, the narrower name first: the phone number's id, the
    account's (WABA) id."""
    if not isinstance(entry, dict):
        return ()
    changes = parts(entry, "changes")
    number = text(part(part(changes[0], "value"), "metadata").get("phone_number_id")) if changes else None
    return tuple(filter(None, (number, text(entry.get("id")))))


def entries(payload: dict[str, Any], seal: Seal, *, sound: bool = False) -> Iterator[Found | Bad]:
    """Every message of a body. Statuses, reactions and other fields are passed over; what should be a message and
    cannot be read comes back as Bad. ``sound``: see :func:`reading.guarded`."""
    given = payload.get("entry")
    if not isinstance(given, list):
        yield Bad("entry is missing or not a list", kept(payload, seal))
        return
    for entry in given:
        changes = entry.get("changes", []) if isinstance(entry, dict) else None
        if not isinstance(changes, list):
            yield Bad("an entry is not an object, or its changes are not a list", kept(entry, seal))
            continue
        for change in changes:
            yield from _change(entry, change, seal, sound)


def _change(entry: dict[str, Any], change: Any, seal: Seal, sound: bool) -> Iterator[Found | Bad]:
    around = {name: value for name, value in entry.items() if name != "changes"}
    if not isinstance(change, dict) or change.get("field", "messages") != "messages":
        if not isinstance(change, dict):
            yield Bad("a change is not an object", kept(around | {"changes": [change]}, seal))
        return
    value = change.get("value")
    messages = value.get("messages", []) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(messages, list):
        yield Bad(
            "a change without a value, or its messages are not a list", kept(around | {"changes": [change]}, seal)
        )
        return
    rest = {name: item for name, item in value.items() if name not in ("messages", "statuses")}
    for given in messages:
        message = _opened(given)
        alone = around | {"changes": [change | {"value": rest | {"messages": [message]}}]}
        if not isinstance(message, dict):
            yield Bad("a message is not an object", kept(alone, seal))
        elif text(message.get("type")) not in _NO_LEADS:
            # JSON inside the JSON can hold what nobody has seen yet.
            whole = sound and message is given
            yield guarded(alone, seal, partial(_lead, message, rest, seal), sound=whole)


def _lead(message: dict[str, Any], value: dict[str, Any], seal: Seal) -> LeadIn:
    """With user names, people need not show a number: ``from`` and ``wa_id`` may be missing, or be no number."""
    kind = text(message.get("type")) or "text"
    sender = text(message.get("from")) or text(message.get("from_user_id")) or text(message.get("user_id"))
    contact = _contact(value, sender)
    number = text(message.get("from")) or text(contact.get("wa_id"))
    author = sender or text(contact.get("wa_id")) or text(contact.get("user_id"))
    profile, advert = part(contact, "profile"), part(message, "referral")
    return LeadIn(
        door=Door.SOCIAL,
        platform="whatsapp",
        source="whatsapp",
        message=_words(kind, message),
        external_message_id=required(message.get("id"), "message id"),
        external_thread_id=author,
        author_id=author,
        author_name=text(profile.get("name")) or text(profile.get("username")),
        phone=_phone(number),
        source_type="message",
        source_subtype=kind[:64],
        attributes=known(
            phone_number_id=text(part(value, "metadata").get("phone_number_id")),
            sent_at=text(message.get("timestamp")),
            answers_message=text(part(message, "context").get("id")),
            ad_id=text(advert.get("source_id")),
            ad_headline=text(advert.get("headline")),
        )
        | _private(message, seal),
        payload=seal({"message": message, "contact": contact}),
    )


def kept(raw: Any, seal: Seal) -> Any:
    """What quarantine keeps of something that may hold filled-in forms, whose answers are JSON inside the JSON."""
    try:
        opened = _opened_all(raw)
    except RecursionError:  # nested deeper than anything that people wrote
        opened = raw
    return sealed(opened, seal)


def _opened_all(raw: Any) -> Any:
    if isinstance(raw, dict):
        return {name: _opened_all(_answers(value) if name == "response_json" else value) for name, value in raw.items()}
    return [_opened_all(value) for value in raw] if isinstance(raw, list) else raw


def _opened(message: Any) -> Any:
    """A message whose form's answers are JSON instead of text that holds JSON, so that sealing sees their names; the
    very same one when it holds no such text."""
    form = part(part(message, "interactive"), "nfm_reply")
    given = form.get("response_json")
    answers = _answers(given)
    if answers is given:
        return message
    return message | {"interactive": message["interactive"] | {"nfm_reply": form | {"response_json": answers}}}


def _answers(given: Any) -> Any:
    """The parsed answers of a form; ``given`` itself where it is none in JSON, or nested past anything that a form
    asks."""
    if not isinstance(given, str):
        return given
    try:
        parsed = json.loads(given)
    except (ValueError, RecursionError):
        return given
    return parsed if isinstance(parsed, dict | list) and not _deeper(parsed, _MAX_DEPTH) else given


def _deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(one, levels - 1) for one in inner)


def _private(message: dict[str, Any], seal: Seal) -> dict[str, Any]:
    """Sealed answers of a form that are never shown in the clear, by their names."""
    answers = part(part(part(message, "interactive"), "nfm_reply"), "response_json")
    private = {name: answer for name, answer in answers.items() if is_sensitive(name) and answer not in (None, "", [])}
    sealed_answers: dict[str, Any] = seal(private)
    return sealed_answers


def _contact(value: dict[str, Any], sender: str | None) -> dict[str, Any]:
    """The sender's contact card; the only one, when nothing says whose it is."""
    cards = parts(value, "contacts")
    for card in cards:
        if sender is not None and sender in (text(card.get("wa_id")), text(card.get("user_id"))):
            return card
    return cards[0] if len(cards) == 1 else {}


def _phone(number: str | None) -> str | None:
    """Digits that make a phone number, as E.164; None for anything else that may stand for a person."""
    if number is None or not number.isascii() or not number.isdigit():
        return None
    return normalize_phone(f"+{number}", region="ZZ")


def _words(kind: str, message: dict[str, Any]) -> str:
    """What the message says, or says that it holds."""
    reader = _READERS.get(kind)
    if reader is not None:
        content = message.get(kind)
        if kind in ("text", "interactive", "button") and not isinstance(content, dict):
            raise Undigestible(f"{kind} is missing or no object")
        return reader(content if isinstance(content, dict) else {}, message)
    problems = [text(error.get("title")) for error in parts(message, "errors")]
    return f"({_named(kind)}: {problems[0]})" if problems and problems[0] else f"({_named(kind)})"


def _named(kind: str) -> str:
    return "a message that WhatsApp does not pass on" if kind in ("unsupported", "unknown") else kind.replace("_", " ")


def _text(content: dict[str, Any], message: dict[str, Any]) -> str:
    return words(content.get("body"), "text.body")


def _button(content: dict[str, Any], message: dict[str, Any]) -> str:
    return words(content.get("text"), "button.text") or text(content.get("payload")) or "(button)"


def _interactive(content: dict[str, Any], message: dict[str, Any]) -> str:
    """A pressed button, a choice from a list, a filled-in form (flow)."""
    for name in ("button_reply", "list_reply"):
        chosen = part(content, name)
        if chosen:
            said = [
                words(chosen.get("title"), f"{name}.title"),
                words(chosen.get("description"), f"{name}.description"),
            ]
            return "\n".join(filter(None, said)) or text(chosen.get("id")) or "(choice)"
    form = part(content, "nfm_reply")
    if form:
        return (
            "\n".join(filter(None, [*_said(part(form, "response_json"))]))
            or words(form.get("body"), "body")
            or "(form)"
        )
    return "(choice)"


def _said(answers: dict[str, Any]) -> Iterator[str]:
    """A line for each answer, but for what is never shown (see :func:`_private`)."""
    for name, answer in answers.items():
        if name != "flow_token" and not is_sensitive(name) and isinstance(answer, str | int | float):
            yield f"{name.replace('_', ' ')}: {answer}"


def _media(name: str) -> Callable[[dict[str, Any], dict[str, Any]], str]:
    """The caption, else that there is such a file, and its name if it has one."""

    def read(content: dict[str, Any], message: dict[str, Any]) -> str:
        file = text(content.get("filename"))
        kind = "voice message" if content.get("voice") is True else name
        return words(content.get("caption"), f"{name}.caption") or (f"({kind}: {file})" if file else f"({kind})")

    return read


def _location(content: dict[str, Any], message: dict[str, Any]) -> str:
    at = f"{content.get('latitude')}, {content.get('longitude')}" if "latitude" in content else None
    said = [text(content.get("name")), text(content.get("address")), at]
    return f"(location: {', '.join(filter(None, said))})" if any(said) else "(location)"


def _contacts(content: dict[str, Any], message: dict[str, Any]) -> str:
    cards = []
    for card in parts(message, "contacts"):
        numbers = [text(one.get("phone")) or text(one.get("wa_id")) for one in parts(card, "phones")]
        emails = [text(one.get("email")) for one in parts(card, "emails")]
        cards.append(" ".join(filter(None, [text(part(card, "name").get("formatted_name")), *numbers, *emails])))
    return f"(contact: {'; '.join(filter(None, cards))})" if any(cards) else "(contact)"


def _order(content: dict[str, Any], message: dict[str, Any]) -> str:
    """``2 × SKU at 10 EUR`` per item, after what the customer wrote."""
    lines = [words(content.get("text"), "order.text")]
    for item in parts(content, "product_items"):
        price = " ".join(filter(None, [_number(item.get("item_price")), text(item.get("currency"))]))
        line = f"{_number(item.get('quantity')) or '1'} × {text(item.get('product_retailer_id')) or 'product'}"
        lines.append(f"{line} at {price}" if price else line)
    return "\n".join(filter(None, lines)) or "(order)"


def _number(value: Any) -> str | None:
    return f"{value:g}" if isinstance(value, float) else text(value)


_READERS: dict[str, Callable[[dict[str, Any], dict[str, Any]], str]] = {
    "text": _text,
    "button": _button,
    "interactive": _interactive,
    "image": _media("image"),
    "video": _media("video"),
    "audio": _media("audio"),
    "document": _media("document"),
    "sticker": _media("sticker"),
    "location": _location,
    "contacts": _contacts,
    "order": _order,
}

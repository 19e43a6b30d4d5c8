"""What a delivery carried, in words: the fields there by their names, with what they held; and what was answered.

``payloads`` shows the same as it was sent, for who has to compare."""

import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

from markupsafe import Markup

from webapp.leads import kinds
from webapp.leads.judging import masked
from webapp.leads.states import DestinationKind
from webapp.models.work import Delivery
from webapp.views import payloads, times, words
from webapp.views.markdown import markdown

LONGEST, MOST = 4_000, 100
#: From here on a text gets a place of its own.
_LONG = 120
#: What only programs care for: links between records, marks by which one is found again, how a message is shown.
_TECHNICAL = frozenset(
    {
        "id", "associations", "metadata", "unfurl_links", "unfurl_media", "idproperty", "objectwritetraceid",
        "message_truncated", "attributes", "text_format", "whoid", "ownerid", "hubspot_owner_id", "author_id",
    }
)  # fmt: skip
#: Names of fields that their own words do not explain; what a destination's kind calls them counts first.
_LABELS = {
    "hs_task_subject": "Title",
    "hs_task_body": "Text",
    "hs_task_status": "State",
    "hs_task_priority": "Priority",
    "hs_task_type": "Kind of task",
    "hs_timestamp": "Date",
    "hs_note_body": "Note",
    "mobilephone": "Mobile phone",
    "bodyV2 markdown": "Text",
    "name firstName": "First name",
    "name lastName": "Last name",
    "emails primaryEmail": "E-mail",
    "phones primaryPhoneNumber": "Phone",
    "phones primaryPhoneCallingCode": "Calling code",
    "phones primaryPhoneCountryCode": "Country of the number",
    "domainName primaryLinkUrl": "Website",
    "dueAt": "Due",
    "ActivityDate": "Due",
    "Subject": "Title",
    "Description": "Text",
    "type": "Event",
    "timestamp": "When",
    "lang": "Language",
    "consent_at": "Consent given",
    "created_at": "Received",
    "email": "E-mail",
    "Email": "E-mail",
    "author_name": "Name",
    "content_text": "Message",
    "intent_label": "Intent",
    "to": "To",
}
#: What stands first and last; a stored payload has no order of its own.
_FIRST = (
    "Event",
    "When",
    "To",
    "From",
    "Subject",
    "First line",
    "Title",
    "Name",
    "First name",
    "Last name",
    "E-mail",
    "Phone",
)
_LAST = ("Message", "Text", "Note")
_BREAKS = re.compile(r"</(?:p|h\d|li|blockquote|div|ol|ul)>\s*|<br\s*/?>\s*", re.IGNORECASE)
_HEADING, _SPACE = re.compile(r"<h\d[ >]", re.IGNORECASE), "\u200b"
_ITEM = re.compile(r"<li[^>]*>", re.IGNORECASE)
_HTML = re.compile(r"</(?:p|h\d|li|ol|ul|blockquote|div)>", re.IGNORECASE)
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_MARK = re.compile(r"\s*\[lead-ops:[0-9a-f-]{36}\]")
_SLACK = re.compile(r"<([^|>]+)\|([^>]*)>")
#: Whose values are those of a vocabulary; what other fields hold are people's own words.
_OF_VOCABULARIES = frozenset(
    {"Intent", "Priority", "Status", "State", "Source", "Lead source", "Language", "Next action", "Kind of task"}
)
#: Where services say what is the matter, in JSON that may have been cut; the first of these that says something counts.
_SAID = re.compile(r'"(\w+)"\s*:\s*\[?\s*"((?:[^"\\]|\\.)+)"')
_SAY = ("error_description", "message", "messages", "detail", "error", "title", "reason")
#: Of an answer of success: the others may be the record's own.
_SAY_THOUGH_TAKEN = ("error_description", "detail", "error")


class Line(NamedTuple):
    """One field: what it is called, and what it held. ``long``: a text of its own, perhaps of several lines."""

    label: str
    text: str
    long: bool


def of(delivery: Delivery) -> list[Line]:
    """What was last sent of it, as people read it; personal data masked as in ``payloads``."""
    kind, payload = delivery.destination.kind, delivery.payload
    if not payload:
        return []
    if kind in (DestinationKind.SLACK, DestinationKind.SLACK_WEBHOOK):
        found = _of_slack(payload)
    else:
        known = kinds.KINDS.get(kind)
        labels = {field.name: field.label for field in known.mapping} if known else {}
        found = ((labels.get(name) or _label(name), value) for name, value in _leaves((), payload))
    lines = [
        Line(label, text, "\n" in text or len(text) > _LONG)
        for label, value in found
        if (text := _text(value, label)) and not _is_id(text)
    ]
    return sorted(lines, key=_place)[:MOST]


def _place(line: Line) -> int:
    if line.label in _FIRST:
        return _FIRST.index(line.label)
    return len(_FIRST) + (1 + _LAST.index(line.label) if line.label in _LAST else 0)


def answered(status: int | None) -> str:
    """``201 Created``; a dash where nothing came."""
    if not status:
        return "–"
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def said(excerpt: str | None, status: int | None) -> str:
    """What the other side said, if there are words for people in it. ``status``: of HTTP, if any came."""
    text = (excerpt or "").strip()
    if text.startswith(("{", "[")):
        found = dict(reversed(_SAID.findall(text)))  # the first of each name is the outermost
        names = _SAY_THOUGH_TAKEN if status and status < HTTPStatus.BAD_REQUEST else _SAY
        return next((_unquoted(found[name]) for name in names if name in found), "")
    if text.startswith("<"):
        return Markup(text).striptags()[:200]
    return text


def _unquoted(text: str) -> str:
    """What stood between the quotes of a JSON string."""
    try:
        plain = str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text
    return plain.encode(errors="replace").decode()  # half a character (a lone surrogate) fits on no page


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[str, Any]]:
    """(name, value) of each value; the name without what only wraps it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if str(key).lower() in _TECHNICAL:
                continue
            if payloads.is_secret(str(key)):
                yield " ".join((*path, str(key))), "hidden"
            elif key == "markdown":
                yield _name((*path, key)), markdown(str(inner or ""))
            else:
                yield from _leaves((*path, str(key)), inner)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for inner in value:
            yield from _leaves(path, inner)
    elif isinstance(value, list):
        yield _name(path), "; ".join(filter(None, map(_text, value)))
    else:
        yield _name(path), value


def _name(path: tuple[str, ...]) -> str:
    return " ".join(part for part in path if part not in ("properties", "inputs", "data", "fields", "records"))


def _label(name: str) -> str:
    if found := _LABELS.get(name):
        return found
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", re.sub(r"__c$", "", name)).replace("_", " ").strip().lower()
    return words.capitalize_first(text) or "Content"


def _text(value: Any, label: str = "") -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    if (moment := times.parsed(text)) is not None:
        return times.moment(moment)
    text = _MARK.sub("", _plain(text)).strip()
    if label == "Event":
        text = words.EFFECT.get(text, text)
    elif label in _OF_VOCABULARIES:
        text = words.value(text)
    text = masked(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def _plain(text: str) -> str:
    """HTML as the lines that people see; other text as it is."""
    if not _HTML.search(text):
        return text
    text = _BREAKS.sub("\n", _ITEM.sub("– ", _HEADING.sub(rf"{_SPACE}\n\g<0>", text)))
    lines = (Markup(line).striptags() for line in text.split("\n"))
    return "\n".join(line for line in lines if line).replace(_SPACE, "").strip()


def _is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def _of_slack(payload: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The parts of a message: its first line, what it quotes, its fields."""
    for number, block in enumerate(payload.get("blocks") or ()):
        text = str((block.get("text") or {}).get("text") or "")
        if text:
            plain = _unescaped("\n".join(line.removeprefix(">") for line in text.splitlines()))
            yield ("First line" if number == 0 else "Message"), plain.strip("*~ ") if number == 0 else plain
        for field in block.get("fields") or ():
            name, _, held = str(field.get("text") or "").partition("\n")
            yield _unescaped(name.strip("*")), _unescaped(held)


def _unescaped(text: str) -> str:
    text = _SLACK.sub(r"\2", text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")

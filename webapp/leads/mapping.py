"""Somebody else's JSON → a lead: an inbound webhook's mapping, read against one entry of a body.

A mapping is ``{field: expression}`` with the fields of :data:`FIELDS` and the expressions of ``webapp.leads.paths``.
"""

import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from webapp.leads import amounts, dedupe, intake
from webapp.leads.errors import Invalid, Problem
from webapp.leads.paths import BadPath, compiled
from webapp.leads.states import Door

Seal = Callable[[Any], Any]

_ATTRIBUTES = ("first_name", "last_name", "job_title", "country", "city", "date_of_birth")
#: The sender's own id of the submission, and what marks one as a test; neither is a field of the lead.
DEDUPE, TEST = "dedupe", "test"
#: All that can be mapped, in the order in which a form shows it.
FIELDS = (
    "message", "name", "email", "phone", "company", "budget", *_ATTRIBUTES, "consent", "consent_at", DEDUPE, TEST,
    *intake.ATTRIBUTION,
)  # fmt: skip

_LONGEST = 500
_LONGEST_LINK = 2_000
_LONGEST_KEY = 200
#: What one entry may hold: looking for values costs time for each of them.
MAX_VALUES, MAX_CHILDREN, MAX_DEPTH = 10_000, 1_000, 50


@dataclass(frozen=True, slots=True)
class Reading:
    """What a mapping makes of an entry. ``values``: field → text as found; ``notes``: field → why it yields nothing, or
    is left out of the lead. ``refused``: why there is no lead; else ``lead`` is one, under ``key`` if the sender has an
    id for it."""

    values: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    lead: intake.LeadIn | None = None
    key: intake.Key | None = None
    refused: str = ""


def problems_of(mapping: Mapping[str, str]) -> tuple[Problem, ...]:
    """What is wrong with the expressions themselves, and with fields that do not exist."""
    problems = []
    for name, text in mapping.items():
        if name not in FIELDS:
            problems.append(Problem(name, "is not a field of a lead"))
            continue
        try:
            compiled(text)
        except BadPath as error:
            problems.append(Problem(name, str(error)))
    return tuple(problems)


def checked(given: Mapping[str, str]) -> dict[str, str]:
    """A mapping as it is stored: fields in order, empty ones left out. Invalid names every bad expression."""
    stored = {name: given[name].strip() for name in FIELDS if given.get(name, "").strip()}
    unknown = {name: text for name, text in given.items() if name not in FIELDS}
    if problems := problems_of(stored | unknown):
        raise Invalid("The mapping cannot be saved.", details=problems)
    if stored and not stored.keys() & {"message", "email", "phone"}:
        raise Invalid(
            "The mapping cannot be saved.",
            details=(Problem("message", "is needed, or an e-mail or a phone: a lead without all three is none"),),
        )
    return stored


def read(
    mapping: Mapping[str, str], entry: Any, *, source: str, source_id: uuid.UUID, seal: Seal, request_id: str | None = None
) -> Reading:  # fmt: skip
    """The lead that ``mapping`` finds in ``entry``. ``source``: what the lead's source is called; ``request_id``: an
    id that the request itself carried (Standard Webhooks), used where the mapping names none."""
    if not isinstance(entry, dict):
        return Reading(refused="the entry is not a JSON object")
    if too_much := size_problem(entry):
        return Reading(refused=too_much)
    values, notes = _values(mapping, entry)
    if _is_yes(values.get(TEST)):
        return Reading(values, notes, refused="the entry is marked as a test by its sender")
    refused = _refusal(values, notes, mapped=bool(mapping))
    if refused:
        return Reading(values, notes, refused=refused)
    lead = _lead(values, notes, entry, source, source_id, seal)
    if problems := intake.check(lead):
        said = "; ".join(f"{problem.field} {problem.reason}" for problem in problems)
        return Reading(values, notes, refused=said)
    return Reading(values, notes, lead, _key(values, lead, source_id, request_id))


def _values(mapping: Mapping[str, str], entry: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    values: dict[str, str] = {}
    notes: dict[str, str] = {}
    for name, text in mapping.items():
        try:
            found = compiled(text).find(entry, every=name == "message")
        except BadPath as error:
            notes[name] = str(error)
            continue
        if found.text is not None:
            values[name] = found.text if name == "message" else found.text.strip()
        elif found.container:
            notes[name] = "finds a group of values, not one of them; go one level deeper"
        else:
            notes[name] = "finds nothing here"
    return values, notes


def _refusal(values: dict[str, str], notes: dict[str, str], *, mapped: bool) -> str:
    """Why these are no lead, or nothing. What can be left out is, with a note."""
    if not mapped:
        return "no mapping yet"
    if len(values.get("message", "")) > intake.MAX_MESSAGE:
        return f"message is longer than {intake.MAX_MESSAGE:,} characters"
    for name in ("name", "email", "phone", "company", *_ATTRIBUTES, "consent"):
        if len(values.get(name, "")) > _LONGEST:
            return f"{name.replace('_', ' ')} is longer than {_LONGEST} characters"
    email = values.get("email")
    if email and (wrong := _email_problem(email)):
        notes["email"] = wrong
        if not values.get("message") and not values.get("phone"):
            return f"e-mail {wrong}, and there is neither a message nor a phone"
    elif not email and not values.get("message") and not values.get("phone"):
        return "neither a message nor an e-mail nor a phone was found"
    return ""


def _email_problem(email: str) -> str | None:
    try:
        dedupe.checked_email(email)
    except ValueError as error:
        return str(error)
    return None


def _lead(
    values: dict[str, str], notes: dict[str, str], entry: dict[str, Any], source: str, source_id: uuid.UUID, seal: Seal
) -> intake.LeadIn:
    attribution = {name: values[name] for name in intake.ATTRIBUTION if name in values}
    for name in [name for name, value in attribution.items() if len(value) > _LONGEST_LINK]:
        notes[name] = f"is longer than {_LONGEST_LINK:,} characters and left in the raw request"
        del attribution[name]
    attributes = {name: values[name] for name in _ATTRIBUTES if name in values}
    names = " ".join(values[part] for part in ("first_name", "last_name") if part in values)
    return intake.LeadIn(
        door=Door.HOOK,
        message=values.get("message", ""),
        source=source,
        name=values.get("name") or names or None,
        email=values.get("email"),
        phone=values.get("phone"),
        company=values.get("company"),
        budget=_budget(values.get("budget"), notes),
        attributes=seal(attributes),
        attribution=attribution,
        consent=_consent(values.get("consent")),
        consent_at=_moment(values.get("consent_at"), notes),
        source_id=source_id,
        payload=seal(entry),
    )


def _budget(text: str | None, notes: dict[str, str]) -> float | None:
    if text is None:
        return None
    amount = amounts.read(text)
    if amount is None:
        notes["budget"] = "is not one amount of 0 or more; left in the raw request"
    return amount


def _is_yes(text: str | None) -> bool:
    return text is not None and text.strip().lower() in ("true", "yes", "1", "on")


def _consent(text: str | None) -> str | None:
    """``yes`` or ``no`` for a boolean, words as they are."""
    if text is None:
        return None
    return {"true": "yes", "false": "no"}.get(text, text)


def _moment(text: str | None, notes: dict[str, str]) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo and 1900 <= moment.year <= 2200:
            return moment.astimezone(UTC)
    except ValueError:
        pass
    notes["consent_at"] = "is not a time with its zone, such as 2026-11-20T08:00:00Z; left in the raw request"
    return None


def _key(
    values: dict[str, str], lead: intake.LeadIn, source_id: uuid.UUID, request_id: str | None
) -> intake.Key | None:
    """The sender's id makes a retry the same lead. What it said is compared, not the body, which may count attempts:
    other words under the same id are somebody else's and must not be swallowed."""
    value = values.get(DEDUPE) or request_id
    if not value:
        return None
    if len(value) > _LONGEST_KEY or intake.text_problem(value):
        value = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    said = [lead.message, lead.name, lead.email, lead.phone, lead.company]
    return intake.Key(f"{source_id}:{value}", intake.request_hash(said))


def size_problem(entry: Any) -> str | None:
    """Why an entry is too large to look for values in it, or None."""
    todo, seen = [(entry, 1)], 0
    while todo:
        value, depth = todo.pop()
        if not isinstance(value, dict | list):
            continue
        if len(value) > MAX_CHILDREN:
            return f"the entry holds a list or a group of more than {MAX_CHILDREN:,} values"
        seen += len(value)
        if seen > MAX_VALUES:
            return f"the entry holds more than {MAX_VALUES:,} values"
        if depth > MAX_DEPTH:
            return f"the entry is nested more than {MAX_DEPTH} levels deep"
        todo.extend((inner, depth + 1) for inner in (value.values() if isinstance(value, dict) else value))
    return None

"""Comparing leads with the suppression list: what an entry says, and whether it is about somebody. No database here."""

import fnmatch
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from webapp.leads.dedupe import folded_email, normalize_email, normalize_phone
from webapp.leads.errors import Invalid, Problem
from webapp.leads.stages.enrich import is_free_mail
from webapp.leads.states import LeadStatus, SuppressionKind, SuppressionMatch
from webapp.leads.textnorm import fold_search

MAX_VALUE = 254
#: Letters and digits that a pattern must have, so that none is about everybody.
LEAST_OF_PATTERN = 3
#: Characters of a message that patterns are compared with.
_MESSAGE = 2_000
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
#: Second levels under which anybody can have a domain, as countries have them.
_REGISTRIES = frozenset({"ac", "co", "com", "edu", "gov", "net", "or", "org"})


class Contact(NamedTuple):
    """What of a lead is compared. ``email`` normalised or as sent, ``phone`` E.164."""

    email: str | None
    phone: str | None
    name: str | None
    company: str | None
    message: str


NOBODY = Contact(None, None, None, None, "")


class Key(NamedTuple):
    match: SuppressionMatch
    key: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as far as comparing needs it."""

    id: UUID
    kind: SuppressionKind
    match: SuppressionMatch
    key: str
    value: str
    expires_at: datetime | None = None

    def holds(self, now: datetime) -> bool:
        return self.expires_at is None or self.expires_at > now


def keys_of(contact: Contact) -> Iterator[Key]:
    """By what entries an exact one could be found, the most particular first."""
    email = (contact.email or "").strip().lower()
    if "@" in email:
        yield Key(SuppressionMatch.EMAIL, folded_email(email))
    if contact.phone:
        yield Key(SuppressionMatch.PHONE, contact.phone)
    if "@" in email:
        labels = email.rpartition("@")[2].split(".")
        for first in range(len(labels) - 1):
            yield Key(SuppressionMatch.DOMAIN, ".".join(labels[first:]))


@dataclass(slots=True)
class Matcher:
    """A workspace's entries, ready to be compared with many leads."""

    _exact: dict[Key, Entry] = field(default_factory=dict)
    _patterns: list[tuple[re.Pattern[str], Entry]] = field(default_factory=list)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Matcher":
        found = cls()
        for entry in entries:
            if entry.match is SuppressionMatch.PATTERN:
                found._patterns.append((_compiled(entry.key), entry))
            else:
                found._exact[Key(entry.match, entry.key)] = entry
        return found

    def __bool__(self) -> bool:
        return bool(self._exact or self._patterns)

    def find(self, contact: Contact, *, now: datetime | None = None) -> Entry | None:
        """The entry that is about the lead: by address, number, domain, and only then by words."""
        if not self:
            return None
        now = now or datetime.now(UTC)
        for key in keys_of(contact):
            entry = self._exact.get(key)
            if entry is not None and entry.holds(now):
                return entry
        if not self._patterns:
            return None
        texts = [
            fold_search(text)
            for text in (contact.email, contact.name, contact.company, contact.message[:_MESSAGE].strip())
            if text
        ]
        return next(
            (entry for rule, entry in self._patterns if entry.holds(now) and any(map(rule.fullmatch, texts))), None
        )


def _compiled(key: str) -> re.Pattern[str]:
    """``*`` is any characters; nothing else is special. fnmatch makes atomic groups of it, so no text makes it slow."""
    escaped = re.sub(r"[?\[]", r"[\g<0>]", key)
    return re.compile(fnmatch.translate(escaped))


def lowered(status: LeadStatus) -> LeadStatus:
    """The status of what is held back: nothing of it goes out by itself."""
    return LeadStatus.NEW_DRAFT if status is LeadStatus.NEW_AUTO else status


# Entries that people write


def parsed(text: str, *, region: str, match: SuppressionMatch | None = None) -> tuple[SuppressionMatch, str, str]:
    """(what it is compared with, as shown, key) of what somebody wrote; ``match`` None: told by its looks. ``region``:
    where a number without a country code is from. Invalid says in words what is wrong."""
    text = " ".join(text.split())
    if not text or len(text) > MAX_VALUE or not text.isprintable():
        raise _bad(f"must have 1 to {MAX_VALUE} printable characters")
    match = match or _looks_like(text)
    if match is SuppressionMatch.EMAIL:
        email = normalize_email(text)
        if email is None:
            raise _bad("is no e-mail address")
        return match, email, folded_email(email)
    if match is SuppressionMatch.PHONE:
        phone = normalize_phone(text, region=region)
        if phone is None:
            raise _bad("is no phone number; write it with its country code, such as +49 30 1234567")
        return match, phone, phone
    if match is SuppressionMatch.DOMAIN:
        domain = _domain(text)
        return match, domain, domain
    key = fold_search(text)
    if sum(character.isalnum() for character in key) < LEAST_OF_PATTERN:
        raise _bad(f"must have at least {LEAST_OF_PATTERN} letters or digits, or it would be about nearly everybody")
    return match, text, key


def _looks_like(text: str) -> SuppressionMatch:
    if "*" in text:
        return SuppressionMatch.PATTERN
    if "@" in text.lstrip("@"):
        return SuppressionMatch.EMAIL
    digits = sum(character.isdigit() for character in text)
    if digits >= 6 and not any(character.isalpha() for character in text):
        return SuppressionMatch.PHONE
    return SuppressionMatch.DOMAIN


def _domain(text: str) -> str:
    host = re.sub(r"^[a-z]+://", "", text.lower().lstrip("@")).split("/")[0].split(":")[0].strip(".")
    host = host.removeprefix("www.")
    try:
        domain = host.encode("idna").decode()
    except UnicodeError:
        domain = ""
    if len(domain) > 253 or not _DOMAIN.fullmatch(domain):
        raise _bad("is no domain such as acme.com; for words write * where anything may stand")
    labels = domain.split(".")
    if len(labels) == 2 and labels[0] in _REGISTRIES and len(labels[1]) == 2:
        raise _bad("is a domain under which anybody can have one")
    if is_free_mail(domain):
        raise _bad("is a mail service for everybody; put single addresses on the list instead")
    return domain


def _bad(reason: str) -> Invalid:
    return Invalid("The entry cannot be put on the list.", details=(Problem("value", reason),))

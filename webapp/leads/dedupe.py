"""Who wrote, and whether they said it before (contracts: duplicates; one rule set for all doors)."""

import hashlib
import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

import email_validator
import phonenumbers
import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import phones
from webapp.leads.textnorm import normalize_message
from webapp.models.lead import Lead

if TYPE_CHECKING:
    from webapp.leads.intake import LeadIn


@dataclass(frozen=True, slots=True)
class Identity:
    """A person's keys. ``key``: the e-mail as its provider reads it, else the phone, else the author on a platform; None: nobody in
    particular, who is never linked to anyone. ``phone`` is E.164."""

    key: str | None
    email: str | None
    phone: str | None


def normalize_email(email: str | None) -> str | None:
    """Lower case, IDN domain in ASCII; None when it is not an address. Nothing is looked up."""
    try:
        return checked_email(email) if email else None
    except ValueError:
        return None


@lru_cache(maxsize=4096)  # a door checks the address, intake then normalises it
def checked_email(email: str) -> str:
    """The normalised form of an address; ValueError says in words what is wrong with it."""
    if len(email) > 320:
        raise ValueError("must have at most 320 characters")
    plain = _PLAIN_EMAIL.fullmatch(email)
    if plain and len(email) <= 254 and len(plain[1]) <= 64 and _is_domain(plain[2]):
        return email.lower()
    try:
        parsed = email_validator.validate_email(email.strip(), check_deliverability=False)
    except email_validator.EmailNotValidError as error:
        raise ValueError(f"is not a valid e-mail address: {str(error).rstrip('.')}") from None
    return f"{parsed.local_part}@{parsed.ascii_domain}".lower()


#: Addresses in which nothing but the domain can be wrong: nearly all, for a thirtieth of the price.
_PLAIN_EMAIL = re.compile(r"([A-Za-z0-9]+(?:[._+-][A-Za-z0-9]+)*)@([A-Za-z0-9.-]+)")


#: Domains in which nothing but their length or a special use can be wrong; those of companies differ lead by lead.
_PLAIN_DOMAIN = re.compile(r"(?:[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\.)+[A-Za-z]{2,}")
_DOMAIN_MAX = 253
_SPECIAL_USE = tuple(f".{name}" for name in email_validator.SPECIAL_USE_DOMAIN_NAMES)


@lru_cache(maxsize=4096)
def _is_domain(domain: str) -> bool:
    if (
        len(domain) <= _DOMAIN_MAX
        and _PLAIN_DOMAIN.fullmatch(domain)
        and max(map(len, domain.split("."))) <= 63
        and not f".{domain.lower()}".endswith(_SPECIAL_USE)
    ):
        return True
    try:
        parsed = email_validator.validate_email(f"a@{domain}", check_deliverability=False)
    except email_validator.EmailNotValidError:
        return False
    return parsed.ascii_domain.lower() == domain.lower()


def normalize_phone(phone: str | None, *, region: str) -> str | None:
    """E.164, or None when the digits cannot be a number. ``region``: where a number without country code is from."""
    return _e164(phone, region) if phone and len(phone) <= 64 else None


@lru_cache(maxsize=4096)  # imports and retries bring the same numbers again
def parsed_phone(phone: str, region: str) -> phonenumbers.PhoneNumber | None:
    """What the digits say; None when they cannot be a number. Shared by its callers, who must not change it."""
    if found := phones.plain(phone, region):
        zero = True if found[1].startswith("0") else None  # which numbers of Italy began, and keep abroad
        return phonenumbers.PhoneNumber(int(found[0]), int(found[1]), italian_leading_zero=zero)
    try:
        return phonenumbers.parse(phone, region)
    except phonenumbers.NumberParseException:
        return None


@lru_cache(maxsize=4096)
def _e164(phone: str, region: str) -> str | None:
    if found := phones.plain(phone, region):
        return f"+{found[0]}{found[1]}"
    number = parsed_phone(phone, region)
    if number is None or not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


#: Providers that deliver ``name+anything@`` to ``name@``; Gmail passes over dots as well.
_PLUS_DOMAINS = frozenset(
    {
        "outlook.com", "hotmail.com", "live.com", "msn.com", "icloud.com", "me.com", "mac.com", "fastmail.com",
        "proton.me", "protonmail.com", "pm.me",
    }
)  # fmt: skip
_GMAIL = frozenset({"gmail.com", "googlemail.com"})


def folded_email(email: str) -> str:
    """A normalised address as its provider reads it, to match by: ``a.na+shop@googlemail.com`` → ``ana@gmail.com``.
    Other providers may tell such addresses apart, so theirs stay as they are."""
    local, _, domain = email.rpartition("@")
    if domain in _GMAIL:
        folded = local.partition("+")[0].replace(".", "")
        return f"{folded}@gmail.com" if folded else email
    if domain in _PLUS_DOMAINS and "+" in local[1:]:
        return f"{local[0]}{local[1:].partition('+')[0]}@{domain}"
    return email


def identify(lead: "LeadIn", *, region: str) -> Identity:
    """The person's keys as far as the lead tells them. ``region``: see :func:`normalize_phone`."""
    email = normalize_email(lead.email)
    phone = normalize_phone(lead.phone, region=region)
    key = folded_email(email) if email else phone
    if key is None and lead.platform and lead.author_id:
        key = f"{lead.platform}:{lead.author_id}"
    return Identity(key, email, phone)


def message_key(identity_key: str | None, message: str) -> str | None:
    """Same person and same normalised message, same key; None for nobody in particular."""
    if identity_key is None:
        return None
    return hashlib.sha256(f"{identity_key}\n{normalize_message(message)}".encode()).hexdigest()


def by_external_id(session: Session, workspace_id: uuid.UUID, external_id: str) -> tuple[uuid.UUID, datetime] | None:
    """(id, created_at) of the lead with this business id."""
    found = session.execute(
        sa.select(Lead.id, Lead.created_at).where(Lead.workspace_id == workspace_id, Lead.external_id == external_id)
    ).first()
    return (found[0], found[1]) if found else None

"""Cleansing at intake: what was plainly mistyped is put right beside what was sent, never over it.

A name in capitals is re-cased and used (``Lead.shown_name``); an address that looks mistyped is only suggested; a number
without a country code is read as of the country that the lead itself speaks of. All of it is kept in ``leads.cleaned``
with the reason, shown on the lead's page and taken back there (``webapp.leads.corrections``).
"""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import phonenumbers
import pycountry
from nameparser import HumanName
from rapidfuzz.distance import OSA

from webapp.leads.dedupe import parsed_phone

#: Names longer than this are no person's; they are left alone.
_LONGEST_NAME = 120
_SPACES = re.compile(r"\s+")
_LETTERS = re.compile(r"[^\W\d_]")

#: Where most private mail goes. A domain one slip of the finger away from one of these is suggested to be it.
_MAIL_DOMAINS = (
    "gmail.com", "yahoo.com", "hotmail.com", "outlook.com", "icloud.com", "googlemail.com", "protonmail.com",
    "yahoo.com.vn", "yahoo.co.uk", "hotmail.co.uk", "yahoo.fr", "hotmail.fr", "yahoo.de", "live.com", "fastmail.com",
)  # fmt: skip
#: Real services that lie that close to another one.
_REAL_DOMAINS = frozenset(
    {
        "ymail.com", "email.com", "mail.com", "gmx.com", "gmx.de", "gmail.de", "live.co", "live.ca", "yahoo.co",
        "yahoo.ca", "yahoo.es", "yahoo.in", "yahoo.it", "hotmail.co", "hotmail.ca", "hotmail.es", "hotmail.it",
        "outlook.co", "outlook.de", "outlook.fr", "like.com", "love.com", "line.com", "olive.com", "alive.com",
        "five.com",
    }
)  # fmt: skip
#: Endings that exist nowhere and are a slip for one that does.
_ENDINGS = {
    "con": "com", "cmo": "com", "ocm": "com", "comm": "com", "vom": "com", "xom": "com", "cpm": "com", "coom": "com",
    "ogr": "org", "orgg": "org", "nett": "net", "ner": "net", "nte": "net",
}  # fmt: skip
#: Languages that are written in one country only, as far as phone numbers are concerned.
_REGION_OF_LANGUAGE = {"vi": "VN"}
#: Country endings that are used for much else.
_NOT_A_COUNTRY = frozenset({"io", "co", "me", "tv", "ai", "fm", "cc", "ws", "to", "ly", "gg", "sh"})


def clean_name(name: str | None) -> str | None:
    """The name as it should be shown, when that differs from ``name``: white space in order, and re-cased when it is
    all in capitals or all in small letters. None when there is nothing to do."""
    if not name or len(name) > _LONGEST_NAME:
        return None
    if not (name.isupper() or name.islower()) and name.isascii() and "  " not in name and name == name.strip():
        return None  # the usual case, and the cheap one
    tidy = _SPACES.sub(" ", unicodedata.normalize("NFC", name)).strip()
    if (tidy.isupper() or tidy.islower()) and "@" not in tidy:
        tidy = _recased(tidy)
    return tidy if tidy and tidy != name else None


@lru_cache(maxsize=4096)
def _recased(name: str) -> str:
    letters = len(_LETTERS.findall(name))
    if letters < 2 or (letters == 2 and name.isupper()):  # a letter, or initials
        return name
    parsed = HumanName(name)
    parsed.capitalize(force=True)
    found = str(parsed)
    # The parser also puts parts in its own order; only its letters are wanted.
    return found if found.casefold() == name.casefold() else name


def suggest_email(email: str | None) -> str | None:
    """The address that ``email`` (normalised, or as typed) was probably meant to be; None when it looks right."""
    if not email:
        return None
    local, at, domain = email.strip().lower().rpartition("@")
    if not at or not local:
        return None
    meant = _meant_domain(domain)
    return f"{local}@{meant}" if meant else None


@lru_cache(maxsize=8192)
def _meant_domain(domain: str) -> str | None:
    if domain in _MAIL_DOMAINS or domain in _REAL_DOMAINS or len(domain) > 253:
        return None
    rest, _, ending = domain.rpartition(".")
    fixed = f"{rest}.{_ENDINGS[ending]}" if rest and ending in _ENDINGS else domain
    for known in _MAIL_DOMAINS:
        if OSA.distance(fixed, known, score_cutoff=1) <= 1:
            return known
    return fixed if fixed != domain else None


def region_of(
    phone: str | None, attributes: Mapping[str, Any], email: str | None, lang: str, *, default: str
) -> tuple[str, str]:
    """(region, why): the country that a number without a country code is read as of, ISO 3166 two letters.

    ``why`` is ``country`` (the lead names it), ``email`` (its address ends in it), ``language``, or ``default`` (the
    workspace's). A guess counts only where the number is a valid one of that country.
    """
    if not phone or len(phone) > 64 or phone.lstrip(" (").startswith(("+", "00")):
        return default, "default"
    named = attributes.get("country_code") or attributes.get("country")
    if named and (region := region_by_name(str(named))):
        return region, "country"
    for region, why in ((_region_of_email(email), "email"), (_REGION_OF_LANGUAGE.get(lang), "language")):
        if region and region != default and _is_valid(phone, region):
            return region, why
    return default, "default"


@lru_cache(maxsize=2048)
def region_by_name(named: str) -> str | None:
    """``VN``, ``vnm``, ``Vietnam`` or ``Viet Nam`` → ``VN``; None for what is no country."""
    text = named.strip()
    if not 2 <= len(text) <= 60:
        return None
    if text.upper() in phonenumbers.SUPPORTED_REGIONS:
        return text.upper()
    try:
        region = str(pycountry.countries.lookup(text).alpha_2)
    except LookupError:
        return None
    return region if region in phonenumbers.SUPPORTED_REGIONS else None


def _region_of_email(email: str | None) -> str | None:
    ending = (email or "").rpartition("@")[2].rpartition(".")[2].lower()
    if len(ending) != 2 or ending in _NOT_A_COUNTRY:
        return None
    region = "GB" if ending == "uk" else ending.upper()
    return region if region in phonenumbers.SUPPORTED_REGIONS else None


def _is_valid(phone: str, region: str) -> bool:
    number = parsed_phone(phone, region)
    return number is not None and phonenumbers.is_valid_number(number)

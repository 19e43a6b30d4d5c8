"""What two people are compared by: named fields, folded so that case, diacritics and punctuation do not count.

Every field may be missing (``""``); a missing field says nothing for or against. Nothing here is shown or stored.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from webapp.leads.textnorm import fold_search

_WORD = re.compile(r"[^\W_]+")
_LEADING_NUMBER = re.compile(r"^\s*(?:(?:unit|flat|apt|suite|no\.?|số)\s*)?(\d+\w?(?:[/-]\d+\w?)?)[\s,]+(?=\S)", re.I)
_DATE_PARTS = re.compile(r"\d+")
#: The commonest Vietnamese family names, folded (together borne by well over nine in ten); they come first in a name.
_VIETNAMESE_FAMILY_NAMES = frozenset(
    [
        "nguyen",
        "tran",
        "le",
        "pham",
        "hoang",
        "huynh",
        "phan",
        "vu",
        "vo",
        "dang",
        "bui",
        "do",
        "ho",
        "ngo",
        "duong",
        "ly",
        "dinh",
        "trinh",
        "doan",
        "luong",
        "dao",
        "truong",
        "lam",
        "mai",
        "to",
        "ta",
        "cao",
        "chau",
        "thai",
        "quach",
        "luu",
        "la",
        "kieu",
        "tong",
        "phung",
        "vuong",
        "trieu",
        "ha",
    ]
)
_SYLLABLE = re.compile(r"(?:ngh|ng|nh|gh|gi|kh|ph|qu|th|tr|ch|[bcdghklmnpqrstvx])?[aeiouy]{1,3}(?:ch|ng|nh|[cmnpt])?")
_TITLES = frozenset(["mr", "mrs", "ms", "miss", "dr", "prof", "sir", "mx"])
_LEGAL_FORMS = frozenset(
    [
        "inc",
        "llc",
        "ltd",
        "limited",
        "co",
        "corp",
        "corporation",
        "company",
        "plc",
        "gmbh",
        "ag",
        "sa",
        "sarl",
        "bv",
        "nv",
        "pty",
        "pte",
        "srl",
        "spa",
        "oy",
        "ab",
        "as",
        "cong",
        "ty",
        "tnhh",
        "cp",
        "the",
    ]
)
_STREET_KINDS = {
    "st": "street", "str": "street", "rd": "road", "ave": "avenue", "av": "avenue", "pl": "place", "cres": "crescent",
    "cct": "circuit", "crt": "court", "ct": "court", "dr": "drive", "ln": "lane", "blvd": "boulevard", "tce": "terrace",
    "hwy": "highway", "pde": "parade", "sq": "square",
}  # fmt: skip
#: Domains of free mail say nothing about where somebody works; as far as comparing goes they need no full list.
_DOTLESS_DOMAINS = frozenset({"gmail.com", "googlemail.com"})


@dataclass(frozen=True, slots=True)
class Record:
    """One person's comparable fields. Texts are folded and squeezed (no spaces): ``mc carthy`` is ``mccarthy``.

    ``birth`` is ``yyyymmdd``; ``phone`` the last nine digits, which are the same with or without country code.
    """

    first: str = ""
    last: str = ""
    middle: str = ""
    company: str = ""
    number: str = ""
    street: str = ""
    extra: str = ""  # second line of the address: unit, building, village
    city: str = ""
    postcode: str = ""
    state: str = ""
    country: str = ""
    birth: str = ""
    email: str = ""
    phone: str = ""


FIELDS = tuple(Record.__slots__)


def from_fields(fields: Mapping[str, str | None]) -> Record:
    """A record of ``first, last, name, company, street_number, address, address_2, city, postcode, state, country,
    date_of_birth, email, phone``, as far as there; anything else is ignored."""

    def given(name: str) -> str:
        return (fields.get(name) or "").strip()[:300]

    first, middle, last = _names(given("first"), given("last"), given("name"))
    number, street = _street(given("street_number"), given("address"))
    return Record(
        first=first,
        last=last,
        middle=middle,
        company=squeeze_company(given("company")),
        number=number,
        street=street,
        extra=squeeze(given("address_2")),
        city=squeeze(given("city")),
        postcode=squeeze(given("postcode")),
        state=squeeze(given("state")),
        country=squeeze(given("country")),
        birth=birth_date(given("date_of_birth")),
        email=plain_email(given("email")),
        phone=phone_digits(given("phone")),
    )


def words(text: str) -> list[str]:
    """Folded words: ``Đặng Thị Hà`` → ``dang thi ha``."""
    return _WORD.findall(fold_search(text).replace("'", "").replace("’", ""))


def squeeze(text: str) -> str:
    return "".join(words(text))


@lru_cache(maxsize=65_536)
def squeeze_company(text: str) -> str:
    """Without legal forms, unless nothing else is there."""
    parts = words(text)
    return "".join(part for part in parts if part not in _LEGAL_FORMS) or "".join(parts)


def _names(first: str, last: str, name: str) -> tuple[str, str, str]:
    """(first, middle, last), squeezed. A full name alone is split; given parts go before it."""
    if first or last:
        given = [word for word in words(first) if word not in _TITLES] or words(first)
        return "".join(given), "", squeeze(last)
    return split_name(name)


@lru_cache(maxsize=65_536)
def split_name(name: str) -> tuple[str, str, str]:
    """(first, middle, last) of a full name. ``Last, First`` is understood; in a name of Vietnamese syllables that
    begins with a Vietnamese family name, that is the last name; otherwise the last word is."""
    before, comma, after = name.partition(",")
    if comma and after.strip():
        given = words(after)
        return (given[0] if given else ""), "".join(given[1:]), squeeze(before)
    parts = words(name)
    while len(parts) > 1 and parts[0] in _TITLES:
        parts = parts[1:]
    if len(parts) < 2:
        return "".join(parts), "", ""
    family_first = parts[0] in _VIETNAMESE_FAMILY_NAMES and all(_SYLLABLE.fullmatch(part) for part in parts)
    if family_first:
        return parts[-1], "".join(parts[1:-1]), parts[0]
    return parts[0], "".join(parts[1:-1]), parts[-1]


def _street(number: str, address: str) -> tuple[str, str]:
    """(house number, street); the number may stand before the street in one field."""
    if not number and (match := _LEADING_NUMBER.match(address)):
        number, address = match[1], address[match.end() :]
    parts = [_STREET_KINDS.get(part, part) for part in words(address)]
    return squeeze(number), "".join(parts)


@lru_cache(maxsize=65_536)
def birth_date(text: str) -> str:
    """``yyyymmdd`` of ISO, compact, ``dd/mm/yyyy`` or ``mm/dd/yyyy`` dates; ``""`` when it is none.

    Which of day and month is which cannot be told from ``03/04/1980``: a swap counts as nearly equal anyway.
    """
    parts = _DATE_PARTS.findall(text.split("T")[0])
    if len(parts) == 1 and len(parts[0]) == 8:
        digits = parts[0]
        year_first = 1800 <= int(digits[:4]) <= 2200
        return str(digits if year_first else digits[4:] + digits[2:4] + digits[:2])
    if len(parts) < 3:
        return ""
    a, b, c = parts[:3]
    if len(a) == 4:
        year, month, day = a, b, c
    elif len(c) == 4:
        year, month, day = c, b, a
        if int(month) > 12:
            month, day = day, month
    else:
        return ""
    return f"{year}{int(month):02d}{int(day):02d}"[:8]


def plain_email(text: str) -> str:
    """Lower case, without ``+tag`` and, where the provider ignores them, without dots; ``""`` without an ``@``."""
    local, at, domain = text.lower().strip(" <>\"';,").rpartition("@")
    if not at or not local or not domain:
        return ""
    local = local.partition("+")[0] or local
    if domain in _DOTLESS_DOMAINS:
        local = local.replace(".", "")
    return f"{local}@{domain}"


def phone_digits(text: str) -> str:
    """The last nine digits; ``""`` when there are fewer than six. Extensions are dropped."""
    main: str = re.split(r"(?i)\s*(?:ext\.?|x)\s*\d+\s*$", text)[0]
    digits = "".join(c for c in main if c.isdecimal())
    return digits[-9:] if len(digits) >= 6 else ""

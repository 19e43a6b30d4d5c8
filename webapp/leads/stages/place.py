"""Where a lead is: country, state, city, postal code and time zone, brought to their standard forms.

What the sender said counts most; the ending of a mail address, a number's country and the language are hints of low
confidence. All of them are kept, so that a page can show who contradicts whom.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

import pycountry

from webapp.leads.types import Fact, best

_FORM = "what was sent"
#: Country endings that are used for much else, or are no country's.
_NOT_A_COUNTRY = frozenset(
    {
        "io",
        "co",
        "me",
        "tv",
        "ai",
        "fm",
        "cc",
        "ws",
        "to",
        "ly",
        "gg",
        "sh",
        "eu",
        "su",
        "nu",
        "la",
        "vc",
        "st",
        "im",
        "is",
    }
)
_POSTAL = ("postal_code", "postcode", "zip", "zip_code")
#: Names that the standard does not list.
_ALSO = {
    "uk": "GB", "england": "GB", "scotland": "GB", "wales": "GB", "great britain": "GB", "usa": "US", "u.s.": "US",
    "u.s.a.": "US", "america": "US", "viet nam": "VN", "việt nam": "VN", "russia": "RU", "south korea": "KR",
    "korea": "KR", "deutschland": "DE", "österreich": "AT", "schweiz": "CH", "suisse": "CH", "españa": "ES",
    "italia": "IT", "nederland": "NL", "holland": "NL", "belgië": "BE", "belgique": "BE", "polska": "PL",
    "brasil": "BR", "méxico": "MX", "türkiye": "TR", "turkey": "TR", "uae": "AE", "czech republic": "CZ",
    "hong kong": "HK", "macau": "MO", "taiwan": "TW", "laos": "LA", "iran": "IR", "syria": "SY", "bolivia": "BO",
    "venezuela": "VE", "moldova": "MD", "tanzania": "TZ", "sverige": "SE", "norge": "NO", "danmark": "DK", "suomi": "FI",
}  # fmt: skip


@lru_cache(maxsize=2048)
def country_code(text: str) -> str | None:
    """ISO 3166-1 alpha-2 of a country's code or name, in English and some of its own languages."""
    wanted = " ".join(text.split()).casefold()
    if not 2 <= len(wanted) <= 80:
        return None
    if wanted in _ALSO:
        return _ALSO[wanted]
    try:
        return str(pycountry.countries.lookup(wanted).alpha_2)
    except LookupError:
        return None


@lru_cache(maxsize=2048)
def state_name(text: str, country: str) -> str | None:
    """The name of a state or province of ``country`` by its code ("CA") or name; None when it has no such one."""
    wanted = " ".join(text.split()).casefold()
    for one in pycountry.subdivisions.get(country_code=country) or ():  # type: ignore[no-untyped-call]
        if wanted in (one.name.casefold(), one.code.casefold(), one.code.partition("-")[2].casefold()):
            return str(one.name)
    return None


@lru_cache(maxsize=1)
def _zones() -> Mapping[str, str]:
    """Country → its time zone, of countries in which all clocks show the same."""
    found: dict[str, list[str]] = {}
    table = resources.files("tzdata").joinpath("zoneinfo", "zone.tab").read_text(encoding="utf-8")
    for line in table.splitlines():
        if line and not line.startswith("#"):
            country, _, zone = line.split("\t")[:3]
            found.setdefault(country, []).append(zone)
    return {country: zones[0] for country, zones in found.items() if len({_clock(zone) for zone in zones}) == 1}


def _clock(zone: str) -> tuple[object, object]:
    """What its clocks show in winter and in summer, as far from UTC."""
    moments = (datetime(2026, month, 1, 12, tzinfo=ZoneInfo(zone)) for month in (1, 7))
    return tuple(moment.utcoffset() for moment in moments)  # type: ignore[return-value]


def country_of_domain(domain: str | None) -> str | None:
    """The country whose ending the domain has; None for endings that anybody uses."""
    ending = (domain or "").rpartition(".")[2].lower()
    if len(ending) != 2 or ending in _NOT_A_COUNTRY:
        return None
    return "GB" if ending == "uk" else country_code(ending)


def place_facts(sent: Mapping[str, Any], learned: Sequence[Fact], *, language: str | None = None) -> tuple[Fact, ...]:
    """The place as far as it can be told. ``sent``: the lead's attributes; ``learned``: facts so far."""
    known = best(learned)
    found = [*_countries(sent, known, language)]
    country = best([*learned, *found]).get("country")
    found += _sent_place(sent, str(country.value) if country else None)
    zone = _zones().get(str(country.value)) if country else None
    phone = known.get("phone_time_zones")
    if phone and isinstance(phone.value, list) and len(phone.value) == 1:
        found.append(Fact("time_zone", phone.value[0], phone.provider, 0.55, note="by the phone number"))
    if country and zone:
        note = "the country has one time zone"
        found.append(Fact("time_zone", zone, country.provider, round(0.9 * country.confidence, 3), note=note))
    return tuple(found)


def _countries(sent: Mapping[str, Any], known: Mapping[str, Fact], language: str | None) -> Iterable[Fact]:
    for name in ("country", "country_code"):
        text = sent.get(name)
        if isinstance(text, str) and (code := country_code(text)):
            note = "" if text.strip().upper() == code else f"written as {text.strip()[:60]}"
            yield Fact("country", code, _FORM, 0.9, note=note)
            break
    phone = known.get("phone_region")
    if phone and isinstance(phone.value, str) and len(phone.value) == 2:
        yield Fact("country", phone.value, phone.provider, 0.5, note="a hint: the phone number's country")
    domain = known.get("email_domain")
    code = country_of_domain(str(domain.value)) if domain else None
    if domain and code:
        ending = str(domain.value).rpartition(".")[2]
        yield Fact("country", code, "e-mail address", 0.4, note=f"a hint: the address ends in .{ending}")
    if language == "vi":
        yield Fact("country", "VN", "message", 0.3, note="a hint: written in Vietnamese")


def _sent_place(sent: Mapping[str, Any], country: str | None) -> Iterable[Fact]:
    state = _text(sent.get("state") or sent.get("region") or sent.get("province"))
    if state:
        name = state_name(state, country) if country else None
        yield Fact("state", name or state, _FORM, 0.9 if name else 0.6)
    if city := _text(sent.get("city")):
        yield Fact("city", city.title() if city.isupper() or city.islower() else city, _FORM, 0.85)
    if postal := next((text for name in _POSTAL if (text := _text(sent.get(name)))), None):
        yield Fact("postal_code", postal.upper(), _FORM, 0.9)


def _text(value: Any) -> str | None:
    """A short text as sent; None for anything else, and for what is kept encrypted."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        return None
    text = " ".join(str(value).split())
    return text if text and len(text) <= 120 and not text.startswith("enc:") else None

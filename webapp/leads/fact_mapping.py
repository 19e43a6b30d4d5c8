"""A service's JSON → facts: a provider's mapping, ``{fact: expression}`` with the expressions of ``webapp.leads.paths``.

Values are brought to the form that each fact has everywhere (docs/enrichment.md); what cannot be is left out, with a word
about it, rather than stored as it came.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import pycountry

from webapp.leads import industries
from webapp.leads.errors import Invalid, Problem
from webapp.leads.mapping import size_problem
from webapp.leads.paths import BadPath, compiled
from webapp.leads.stages.place import country_code
from webapp.leads.types import Fact

_LONGEST = 500
SIZES = ((10, "1-10"), (50, "11-50"), (200, "51-200"), (1_000, "201-1000"), (5_000, "1001-5000"))
_LARGEST = "5001+"
_DELIVERABLE = {
    "deliverable": "deliverable", "valid": "deliverable", "ok": "deliverable", "good": "deliverable", "true": "deliverable",
    "safe": "deliverable", "risky": "risky", "accept_all": "risky", "accept-all": "risky", "catch_all": "risky",
    "catch-all": "risky", "catchall": "risky", "webmail": "deliverable", "disposable": "risky", "do_not_mail": "risky",
    "undeliverable": "undeliverable", "invalid": "undeliverable", "bad": "undeliverable", "false": "undeliverable",
    "spamtrap": "undeliverable", "abuse": "risky", "unknown": "unknown", "timeout": "unknown",
}  # fmt: skip


def size_of(employees: int) -> str:
    """The class of a number of employees."""
    return next((name for most, name in SIZES if employees <= most), _LARGEST)


def _text(value: str) -> str | None:
    text = " ".join("".join(char if char.isprintable() else " " for char in value).split())
    return text[:_LONGEST] or None


def _yes(value: str) -> bool | None:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(value.strip().lower())


def _number(value: str) -> int | None:
    digits = re.match(r"\s*(\d[\d,. ]*)", value)
    number = int(re.sub(r"\D", "", digits[1].partition(".")[0]) or 0) if digits else 0
    return number if 0 < number < 10_000_000 else None


def _size(value: str) -> str | None:
    """ "11-50", "51 to 200", "5,001+", "1200"."""
    numbers = [int(found.replace(",", "")) for found in re.findall(r"\d[\d,]*", value)]
    if not numbers or max(numbers) > 10_000_000:
        return None
    return _LARGEST if numbers[-1] > 5_000 or (numbers[-1] == 5_000 and "+" in value) else size_of(numbers[-1])


def _link(value: str) -> str | None:
    text = value.strip()
    address = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    good = parts.scheme in ("http", "https") and "." in (parts.hostname or "") and len(address) <= 2_000
    return address if good and address.isprintable() and not re.search(r"[\s<>\"]", address) else None


def _links(value: str) -> list[str] | None:
    found = [link for line in re.split(r"[\n,]+", value) if line.strip() and (link := _link(line))]
    return list(dict.fromkeys(found))[:10] or None


def _domain(value: str) -> str | None:
    link = _link(value)
    return (urlsplit(link).hostname or "").removeprefix("www.") or None if link else None


def _zone(value: str) -> str | None:
    return value.strip() if re.fullmatch(r"[A-Z][A-Za-z_+-]+(?:/[A-Za-z0-9_+-]+){1,2}", value.strip()) else None


def _language(value: str) -> str | None:
    text = value.strip()
    found = pycountry.languages.get(alpha_2=text[:2].lower()) if re.fullmatch(r"[A-Za-z]{2}([-_].*)?", text) else None
    if found is None and text:
        found = pycountry.languages.get(name=text.title())
    return str(found.alpha_2) if found is not None and hasattr(found, "alpha_2") else None


def _industry(value: str) -> str | None:
    found = industries.of_words(value)
    return found[0] if found else None


#: Every fact that a mapping may have, and how its value is brought to form.
FACTS: dict[str, Callable[[str], Any]] = {
    "company_name": _text, "company_description": _text, "company_domain": _domain, "company_employees": _number,
    "company_size": _size, "industry": _industry, "company_address": _text, "company_logo": _link,
    "company_social": _links, "country": country_code, "state": _text, "city": _text, "postal_code": _text,
    "time_zone": _zone, "language": _language, "first_name": _text, "last_name": _text,
    "email_deliverable": lambda value: _DELIVERABLE.get(value.strip().lower()), "email_disposable": _yes,
    "email_role": _yes, "email_free": _yes, "email_mx": _yes,
}  # fmt: skip
_LISTS = frozenset({"company_social"})


def checked(given: Mapping[str, str]) -> dict[str, str]:
    """A mapping as it is stored: empty lines left out. Invalid names every expression that is wrong."""
    stored = {name: given[name].strip() for name in FACTS if given.get(name, "").strip()}
    problems = []
    for name, text in stored.items():
        try:
            compiled(text)
        except BadPath as error:
            problems.append(Problem(name, str(error)))
    if not stored and not problems:
        problems.append(Problem("mapping", "needs at least one fact, or nothing could be learned"))
    if problems:
        raise Invalid("The mapping cannot be saved.", details=tuple(problems))
    return stored


def read(mapping: Mapping[str, str], body: Any, *, trust: float) -> tuple[list[Fact], str]:
    """The facts that ``mapping`` finds in ``body``, and a word about what it could not use. The provider is filled in by
    whoever knows it."""
    if not isinstance(body, dict | list):
        return [], "the answer is no JSON object"
    entry = body if isinstance(body, dict) else {"items": body}
    if too_much := size_problem(entry):
        return [], too_much
    facts, unused = [], []
    for name, text in mapping.items():
        if name not in FACTS:
            continue
        try:
            found = compiled(text).find(entry, every=name in _LISTS)
        except BadPath:
            continue
        if found.text is None or not found.text.strip():
            continue
        value = FACTS[name](found.text[:20_000])
        if value is None:
            unused.append(name.replace("_", " "))
            continue
        note = f"from “{(_text(found.text) or '')[:80]}”" if name == "industry" else ""
        facts.append(Fact(name, value, "", trust, note=note))
    return facts, f"could not be used: {', '.join(unused)}" if unused else ""

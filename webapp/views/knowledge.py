"""What is known of a lead, for reading: facts in groups, the most trusted first, whoever says otherwise beside it."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pycountry

from webapp.leads import industries, knowledge
from webapp.leads.knowledge import Known
from webapp.leads.types import Fact
from webapp.models.lead import Lead
from webapp.views import times, words


class Source(NamedTuple):
    """Who said it, how sure that is (0..1), when, and what there is to know about it."""

    said: str
    provider: str
    confidence: float
    at: datetime | None
    note: str


class Row(NamedTuple):
    """One thing known. ``link``: where it leads, only ever http(s); ``links``: of a list, each an address.
    ``others``: what somebody else says instead; ``kind``: a CSS class for what a reviewer must not miss."""

    label: str
    value: str
    sources: list[Source]
    others: list[Source]
    links: list[str]
    kind: str = ""


class Group(NamedTuple):
    title: str
    rows: list[Row]


_DELIVERABLE = {
    "deliverable": "can be delivered to",
    "risky": "risky: may bounce",
    "undeliverable": "does not exist",
    "unknown": "could not be told",
}


def _yes(yes: str, no: str) -> Callable[[Any], str]:
    return lambda value: yes if value else no


def _country(value: Any) -> str:
    found = pycountry.countries.get(alpha_2=str(value).upper())
    return str(getattr(found, "common_name", found.name)) if found else str(value)


def _zone(value: Any) -> str:
    try:
        now = datetime.now(UTC).astimezone(ZoneInfo(str(value)))
    except (KeyError, ValueError, OSError):
        return str(value)
    return f"{str(value).replace('_', ' ')} · {now:%H:%M} now"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _people(value: Any) -> str:
    return f"{value:,} people" if isinstance(value, int) else f"{str(value).replace('-', '–')} people"


#: Group → (fact, its label, how its value reads), in the order in which a reviewer wants them.
_GROUPS: dict[str, tuple[tuple[str, str, Callable[[Any], str]], ...]] = {
    "In the CRM": (
        ("crm_customer", "Customer", _yes("already a customer", "not a customer yet")),
        ("crm_open_deal", "Open deal", _plain),
        ("crm_owner", "Owner", _plain),
    ),
    "Person": (
        ("honorific", "Title", _plain),
        ("first_name", "First name", _plain),
        ("last_name", "Last name", _plain),
        ("language", "Language", lambda value: words.LANGUAGE.get(str(value), _language(value))),
    ),
    "Company": (
        ("company_name", "Name", _plain),
        ("company_domain", "Website", _plain),
        ("industry", "Industry", lambda value: industries.NAMES.get(str(value), str(value))),
        ("company_size", "Size", _people),
        ("company_employees", "Employees", _plain),
        ("company_description", "What it does", _plain),
        ("company_address", "Address", _plain),
        ("company_social", "Profiles", _plain),
        ("company_logo", "Logo", _plain),
    ),
    "Place": (
        ("country", "Country", _country),
        ("state", "State", _plain),
        ("city", "City", _plain),
        ("postal_code", "Postal code", _plain),
        ("time_zone", "Local time", _zone),
    ),
    "How to reach them": (
        ("email_valid", "E-mail", _yes("well-formed", "not a valid address")),
        ("email_mx", "Mail server", _yes("takes mail", "none: mail cannot arrive")),
        ("email_deliverable", "Mailbox", lambda value: _DELIVERABLE.get(str(value), str(value))),
        ("email_disposable", "Throw-away", _yes("throw-away address", "")),
        ("email_free", "Mail service", _yes("private mail service", "the company's own")),
        ("email_role", "Mailbox of", _yes("a function, shared by several people", "")),
        ("phone_valid", "Phone", _yes("fits the numbering plan", "not a valid number")),
        ("phone_type", "Kind", _plain),
        ("phone_region", "Of", _country),
        ("phone_carrier", "Carrier", _plain),
    ),
}
#: How a form calls each fact.
LABELS = {
    name: (label if title in ("Person", "Place") else f"{title}: {label}")
    for title, listed in _GROUPS.items()
    for name, label, _ in listed
}
#: Labels of those that are not understood without the one above.
_ALONE = {"phone_type": "Kind of number", "phone_region": "Country of the number"}
#: What a reviewer must not miss, by fact and value.
_WARNS = {
    ("email_valid", False), ("email_mx", False), ("email_deliverable", "undeliverable"), ("email_deliverable", "risky"),
    ("email_disposable", True), ("phone_valid", False),
}  # fmt: skip


def said_pairs(output: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run found out, as (label, value): facts as on the lead's page, then the rest."""
    known = {
        name: value for name, value in output.items() if name in LABELS and name != "time_zone"
    }  # has a time of now
    listed = [one for group in _GROUPS.values() for one in group if known.get(one[0]) is not None]
    found = [(_ALONE.get(name, label), said(known[name])) for name, label, said in listed]
    rest = {name: value for name, value in output.items() if name not in known}
    return [pair for pair in found if pair[1]] + words.said_pairs(rest)


def of(lead: Lead) -> list[Group]:
    """The groups of which something is known."""
    return groups(knowledge.by_name(knowledge.read(lead.facts or ())))


def groups(known: Mapping[str, Known]) -> list[Group]:
    """``known``: name → all that is said under it."""
    found = []
    for title, wanted in _GROUPS.items():
        rows = [row for name, label, said in wanted if name in known and (row := _row(known[name], label, said))]
        if rows:
            found.append(Group(title, rows))
    return found


def conflicts(groups: list[Group]) -> int:
    """How many facts somebody contradicts."""
    return sum(bool(row.others) for group in groups for row in group.rows)


def _row(known: Known, label: str, said: Callable[[Any], str]) -> Row | None:
    value = said(known.best.value)
    if not value:
        return None
    links = _links(known.name, known.best.value)
    warns = isinstance(known.best.value, bool | str) and (known.name, known.best.value) in _WARNS
    return Row(
        label,
        value,
        [_source(fact, said) for fact in known.agreeing],
        [_source(fact, said) for fact in known.others],
        links,
        "wrong" if warns else "",
    )


def _source(fact: Fact, said: Callable[[Any], str]) -> Source:
    who = words.PROVIDER.get(fact.provider, fact.provider)
    return Source(said(fact.value) or _plain(fact.value), who, fact.confidence, times.parsed(fact.at), fact.note)


def _links(name: str, value: Any) -> list[str]:
    """Addresses are a stranger's words: only http(s) ones become links."""
    if name == "company_domain":
        return [f"https://{value}/"] if isinstance(value, str) and _is_web(f"https://{value}/") else []
    if name not in ("company_social", "company_logo"):
        return []
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str) and _is_web(one)]


def _is_web(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _language(value: Any) -> str:
    found = pycountry.languages.get(alpha_2=str(value).lower())
    return str(found.name) if found else str(value)

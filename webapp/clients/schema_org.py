"""Structured data of a page (JSON-LD, microdata, Open Graph) → one company and its contacts. Pure.

extruct reads the three syntaxes; here their items are brought to one form (schema.org names without prefix, lists
where several values may be) and understood as far as they tell who is who.
"""

import html
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import lxml.etree
from extruct.jsonld import JsonLdExtractor
from extruct.opengraph import OpenGraphExtractor
from extruct.w3cmicrodata import MicrodataExtractor

Item = dict[str, Any]

#: A page is read no further than this; more is a directory, not a contact page, or a trap.
_MAX_ITEMS = 500
_MAX_DEPTH = 12
_MAX_SCRIPT = 512 * 1024
_MAX_PROPERTIES = 2_000
_MAX_REFERENCES = 200
#: Longest text of one fact, in characters.
_MAX_TEXT = 300
_MAX_LINKS = 10

_PEOPLE = frozenset({"Person", "Patient"})
#: Names that end like this are companies and their many kinds (schema.org has hundreds).
_COMPANIES = ("Organization", "Corporation", "Business", "Store", "Company", "Agency", "NGO", "Agent")
_SERVICES = frozenset({"ProfessionalService", "LegalService", "FinancialService", "AccountingService"})
#: What only a company has, whatever its type is called ("Dentist", "Restaurant").
_COMPANY_ONLY = frozenset({"legalName", "vatID", "taxID", "foundingDate", "openingHours", "priceRange", "contactPoint"})
_HAVE_PEOPLE = ("employee", "employees", "founder", "founders", "member", "members", "department", "contactPoint")


@dataclass(frozen=True, slots=True)
class Company:
    """Facts of the company, as the page says them. ``country``: as written, a code or a name."""

    name: str | None = None
    description: str | None = None
    address: str | None = None
    country: str | None = None
    website: str | None = None
    logo: str | None = None
    links: tuple[str, ...] = ()
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    employees: int | None = None

    def completed(self, other: "Company") -> "Company":
        """This, with ``other`` where it says nothing."""
        return replace(self, **{f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(self)})


@dataclass(frozen=True, slots=True)
class Contact:
    """A way to reach somebody. ``role``: what it is for ("sales"), where the page says so."""

    email: str | None = None
    phone: str | None = None
    name: str | None = None
    job_title: str | None = None
    role: str | None = None
    company: str | None = None


@dataclass(frozen=True, slots=True)
class Structured:
    company: Company = Company()
    contacts: tuple[Contact, ...] = ()
    title: str | None = None
    by_id: dict[str, Item] = field(default_factory=dict)


def read(tree: Any, url: str) -> Structured:
    """What the parsed page at ``url`` says in structured data. Broken data is passed over, piece by piece."""
    items = [*_json_ld(tree), *_microdata(tree, url)]
    by_id = {item["@id"]: item for item in items if isinstance(item.get("@id"), str) and len(item) > 1}
    company, contacts = Company(), list[Contact]()
    graph = _open_graph(tree)
    for item in items[:_MAX_ITEMS]:
        item = by_id.get(item.get("@id", ""), item)
        if _is_company(item):
            facts = _company(item, url)
            if company.name is None or facts.name in (None, company.name):  # not a partner's or a customer's
                company = company.completed(facts)
            contacts += _contacts_of(item)
        elif _is_person(item):
            contacts += [_person(item, by_id)]
    company = company.completed(_company_of_graph(graph, url))
    contacts += [Contact(email=_text(graph.get("og:email")), phone=_text(graph.get("og:phone_number")))]
    named = [replace(found, company=found.company or company.name) for found in contacts]
    reachable = tuple(found for found in named if found.email or found.phone)
    return Structured(company, reachable, _text(graph.get("og:title")), by_id)


# Items


def _json_ld(tree: Any) -> Iterator[Item]:
    for script in tree.iter("script"):
        kind = (script.get("type") or "").partition(";")[0].strip().lower()
        if kind != "application/ld+json" or len(script.text or "") > _MAX_SCRIPT:
            continue
        script.set("type", "application/ld+json")  # as extruct looks for it
        try:
            found = JsonLdExtractor().extract_items(script)
        except (ValueError, RecursionError, IndexError):
            continue
        for item in found:
            yield from _walk(item, 0)


def _walk(value: Any, depth: int) -> Iterator[Item]:
    """Each object in ``value``, outermost first; names brought to their short form."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for one in value:
            yield from _walk(one, depth + 1)
    elif isinstance(value, dict):
        item = {_short(key): inner for key, inner in value.items() if isinstance(key, str)}
        if "@type" in item or "@id" in item:
            yield item
        for name, inner in item.items():
            if name not in ("@type", "@id", "@context"):
                yield from _walk(inner, depth + 1)


def _microdata(tree: Any, url: str) -> Iterator[Item]:
    if sum(len(refs.split()) for refs in tree.xpath("//@itemref")) > _MAX_REFERENCES:
        return
    # Text is copied for each property, so nested ones cost the square of their depth.
    if tree.xpath(f"count(//*[@itemprop]) > {_MAX_PROPERTIES}") or tree.xpath(
        f"boolean(//*[@itemprop][count(ancestor::*[@itemprop]) > {_MAX_DEPTH}])"
    ):
        return
    try:
        found = MicrodataExtractor().extract_items(tree, base_url=url)
    except (ValueError, RecursionError, lxml.etree.LxmlError):
        return
    for item in found:
        yield from _walk(_plain(item, 0), 0)


def _plain(item: Any, depth: int) -> Any:
    """extruct's form of a microdata item → that of JSON-LD."""
    if isinstance(item, list):
        return [_plain(one, depth) for one in item]
    if not isinstance(item, dict) or depth > _MAX_DEPTH:
        return item
    values = {name: _plain(value, depth + 1) for name, value in (item.get("properties") or {}).items()}
    return {"@type": item.get("type", ""), **values} if values else item.get("value")


def _open_graph(tree: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        for item in OpenGraphExtractor().extract_items(tree):
            for name, value in item["properties"]:
                found.setdefault(name, value)
    except (ValueError, AttributeError, IndexError):
        return found
    return found


def _short(name: str) -> str:
    """``https://schema.org/Person``, ``schema:Person`` → ``Person``."""
    if name.startswith("@"):
        return name
    return name.rsplit("/", 1)[-1].rsplit("#", 1)[-1].rsplit(":", 1)[-1]


def _types(item: Item) -> list[str]:
    return [_short(kind) for kind in _list(item.get("@type")) if isinstance(kind, str)]


def _is_person(item: Item) -> bool:
    return any(kind in _PEOPLE for kind in _types(item))


def _is_company(item: Item) -> bool:
    types = _types(item)
    if any(kind in _PEOPLE or kind in ("ContactPoint", "PostalAddress", "WebSite", "WebPage") for kind in types):
        return False
    if any(kind.endswith(_COMPANIES) or kind in _SERVICES for kind in types):
        return True
    return bool(types) and (
        any(item.get(name) for name in _COMPANY_ONLY)
        or (bool(item.get("address")) and bool(item.get("telephone") or item.get("email")))
    )


# Meaning


def _company(item: Item, url: str) -> Company:
    address = _first(item.get("address"))
    return Company(
        name=_text(item.get("name")) or _text(item.get("legalName")),
        description=_text(item.get("description")),
        address=_address(address),
        country=_country(address),
        website=_link(item.get("url"), url),
        logo=_link(item.get("logo"), url) or _link(item.get("image"), url),
        links=tuple(dict.fromkeys(link for one in _list(item.get("sameAs")) if (link := _link(one, url))))[:_MAX_LINKS],
        city=_part(address, "addressLocality"),
        state=_part(address, "addressRegion"),
        postal_code=_part(address, "postalCode"),
        employees=_people(item.get("numberOfEmployees")),
    )


def _contacts_of(item: Item) -> list[Contact]:
    """The company's own address, and its contact points. People have items of their own."""
    name = _text(item.get("name")) or _text(item.get("legalName"))
    found = [Contact(_email(item.get("email")), _phone(item.get("telephone")), company=name)]
    for point in _list(item.get("contactPoint"))[:_MAX_ITEMS]:
        if isinstance(point, dict):
            point = {_short(key): value for key, value in point.items()}
            found.append(
                Contact(
                    _email(point.get("email")),
                    _phone(point.get("telephone")),
                    role=_text(point.get("contactType")),
                    company=name,
                )
            )
    for one in _HAVE_PEOPLE:
        for person in _list(item.get(one))[:_MAX_ITEMS]:
            if isinstance(person, dict):
                # Walked as an item of its own as well, which tells no company: this one comes first and has it.
                person = {_short(key): value for key, value in person.items()}
                if _is_person(person):
                    found.append(replace(_person(person, {}), company=name))
    return found


def _person(item: Item, by_id: dict[str, Item]) -> Contact:
    name = _text(item.get("name")) or " ".join(
        part for part in (_text(item.get("givenName")), _text(item.get("familyName"))) if part
    )
    employer = _first(item.get("worksFor")) or _first(item.get("affiliation"))
    if isinstance(employer, dict):
        employer = by_id.get(str(employer.get("@id", "")), employer)
        employer = employer.get("name")
    return Contact(
        _email(item.get("email")),
        _phone(item.get("telephone")),
        name=name or None,
        job_title=_text(item.get("jobTitle")),
        company=_text(employer),
    )


def _company_of_graph(graph: dict[str, str], url: str) -> Company:
    parts = ("og:street-address", "og:postal-code", "og:locality", "og:region")
    return Company(
        name=_text(graph.get("og:site_name")),
        description=_text(graph.get("og:description")),
        address=", ".join(part for name in parts if (part := _text(graph.get(name)))) or None,
        country=_text(graph.get("og:country-name")),
        city=_text(graph.get("og:locality")),
        state=_text(graph.get("og:region")),
        postal_code=_text(graph.get("og:postal-code")),
        logo=_link(graph.get("og:logo"), url),
    )


def _address(value: Any) -> str | None:
    if not isinstance(value, dict):
        return _text(value)
    value = {_short(key): inner for key, inner in value.items()}
    names = ("streetAddress", "postalCode", "addressLocality", "addressRegion")
    return ", ".join(part for name in names if (part := _text(value.get(name)))) or None


def _part(address: Any, name: str) -> str | None:
    """One part of a structured address."""
    if not isinstance(address, dict):
        return None
    return _text({_short(key): inner for key, inner in address.items()}.get(name))


def _people(value: Any) -> int | None:
    """``numberOfEmployees``: a number, or a QuantitativeValue, whose upper end counts."""
    value = _first(value)
    if isinstance(value, dict):
        item = {_short(key): inner for key, inner in value.items()}
        value = item.get("value") or item.get("maxValue") or item.get("minValue")
    text = str(value).replace(",", "").strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return int(text) if text.isdecimal() and 0 < len(text) < 8 and int(text) else None


def _country(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    country = _first({_short(key): inner for key, inner in value.items()}.get("addressCountry"))
    return _text(country.get("name") if isinstance(country, dict) else country)


def _link(value: Any, url: str) -> str | None:
    value = _first(value)
    if isinstance(value, dict):
        value = _first(value.get("url") or value.get("contentUrl") or value.get("@id"))
    text = _text(value)
    if text is None:
        return None
    try:
        link = urljoin(url, text)
        return link if urlsplit(link).scheme in ("http", "https") and len(link) <= 2_000 else None
    except ValueError:
        return None


def _email(value: Any) -> str | None:
    text = _text(value)
    return unquote(text[7:] if text.lower().startswith("mailto:") else text).partition("?")[0] if text else None


def _phone(value: Any) -> str | None:
    text = _text(value)
    return unquote(text[4:]) if text and text.lower().startswith("tel:") else text


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _first(value: Any) -> Any:
    return next(iter(value), None) if isinstance(value, list) else value


def _text(value: Any) -> str | None:
    """Plain text on one line: entities resolved, control characters and lone surrogates left out."""
    value = _first(value)
    if isinstance(value, dict):
        value = value.get("@value") or value.get("value")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return None
    return clean(value, _MAX_TEXT)


def clean(value: str, limit: int) -> str | None:
    """``value`` as people read it, at most ``limit`` characters; None when nothing is left."""
    text = html.unescape(value[: limit * 8]).encode("utf-8", "ignore").decode()
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return (text if len(text) <= limit else text[: limit - 1].rstrip() + "…") or None

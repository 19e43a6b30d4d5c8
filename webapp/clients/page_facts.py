"""What a public page says of a company and of how to reach it: HTML → :class:`PageFacts` → leads. Pure.

Beside structured data (``schema_org``) count ``mailto:`` and ``tel:`` links, addresses written out in the text, and
two disguises that have one meaning only: "jane [at] acme [dot] com" in brackets, and Cloudflare's. Nothing is
guessed: a name beside an address is its owner's only where the markup says so.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import chain, islice
from typing import Any
from urllib.parse import unquote, urlsplit

import email_validator
import lxml.etree
import lxml.html

from webapp.clients import schema_org
from webapp.clients.schema_org import Company, Contact, clean
from webapp.leads.ports import Fetched, LeadIn
from webapp.leads.states import Door

#: More ways to reach somebody than this make a directory; the first ones are taken.
MAX_CONTACTS = 50
#: Contacts that are looked at, in the order in which the page tells them: checking an address costs time.
_MAX_MERGED = 1_000
#: Looked at at most, since a page of 2 MiB may hold a hundred thousand.
_MAX_CANDIDATES = 1_000
_SOURCE = "web"
_ADDRESS = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]+(?:\.[\w-]+){1,5}(?![\w@-])")
_DISGUISED = re.compile(
    r"(?<![\w.+-])([\w.+-]{1,64})\s*[\[({<]\s*(?:at|@)\s*[\])}>]\s*"
    r"([\w-]+(?:\s*(?:\.|[\[({<]\s*(?:dot|\.)\s*[\])}>])\s*[\w-]+){1,5})",
    re.IGNORECASE,
)
_DOT = re.compile(r"\s*(?:\.|[\[({<]\s*(?:dot|\.)\s*[\])}>])\s*", re.IGNORECASE)
_FILES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".css", ".js")
#: Addresses that nobody reads.
_DEAF = re.compile(r"^(no-?reply|do-?not-?reply|mailer-daemon|postmaster|bounces?)@", re.IGNORECASE)
_FAX = re.compile(r"\b(tele)?fax\b", re.IGNORECASE)
_CLOUDFLARE = re.compile(r"/cdn-cgi/l/email-protection#([0-9a-fA-F]{6,400})$")


@dataclass(frozen=True, slots=True)
class PageFacts:
    """``url``: where the page was in the end. Contacts are valid and each is there once."""

    url: str
    title: str | None
    company: Company
    contacts: tuple[Contact, ...]


def extract(html: str, url: str) -> PageFacts:
    """The facts of a page; empty ones for a page that says nothing."""
    # As bytes: lxml refuses text with an XML declaration. NUL would end the document for some versions of libxml2.
    data = html.replace("\x00", "").encode("utf-8", "ignore")
    try:
        tree = lxml.html.document_fromstring(data, parser=lxml.html.HTMLParser(encoding="utf-8"))
    except (lxml.etree.LxmlError, ValueError):
        return PageFacts(url, None, Company(), ())
    said = schema_org.read(tree, url)
    found = [*said.contacts, *_loose(tree, said.company.name)]
    title = next((clean(node.text_content(), 200) for node in tree.iter("title")), None)
    return PageFacts(url, said.title or title, said.company, _merged(found)[:MAX_CONTACTS])


def as_leads(facts: PageFacts, *, asked: str) -> Fetched:
    """A lead for each contact. The same contact on the same site has the same external id, whatever page it was on
    and however often that is fetched, so it is one lead."""
    host = (urlsplit(facts.url).hostname or "").removeprefix("www.")
    company = {field.name: value for field in fields(facts.company) if (value := getattr(facts.company, field.name))}
    return Fetched(
        leads=[_lead(facts, contact, host, asked) for contact in facts.contacts],
        result={"url": facts.url, "title": facts.title, "contacts": len(facts.contacts), "company": company},
    )


def _lead(facts: PageFacts, contact: Contact, host: str, asked: str) -> LeadIn:
    company = contact.company or facts.company.name
    who = contact.name or (f"the {contact.role} contact" if contact.role else "a contact")
    # Neither the title nor the job: this is no message of theirs, and the rules must find no wish in it.
    message = f"Found on {facts.url}: {who} of {company or host}."
    about = facts.company
    attributes = {
        "job_title": contact.job_title,
        "contact_role": contact.role,
        "country": about.country,
        "company_description": about.description,
        "company_address": about.address,
        "company_website": about.website,
        "company_logo": about.logo,
        "company_links": ", ".join(about.links) or None,
        "page_title": facts.title,
    }
    reached_by = (contact.email or "").lower() or re.sub(r"[^\d+]", "", contact.phone or "")
    digest = hashlib.sha256(f"{host}\n{reached_by}".encode()).hexdigest()
    return LeadIn(
        door=Door.WEB,
        source=_SOURCE,
        message=message,
        name=contact.name,
        email=contact.email,
        phone=contact.phone,
        company=company,
        external_id=f"web:{digest[:32]}",
        attributes={name: value for name, value in attributes.items() if value},
        attribution={"landing_page": facts.url},
        payload={"asked": asked, "url": facts.url},
    )


# Contacts outside structured data


def _loose(tree: Any, company: str | None) -> list[Contact]:
    """Addresses and numbers in links and text. One of each belong together; otherwise nobody can tell."""
    links, phones = _links(tree)
    candidates = dict.fromkeys(islice(chain(links, _in_text(tree)), _MAX_CANDIDATES))
    emails = list(dict.fromkeys(address for one in candidates if (address := checked_email(one))))
    numbers = list(dict.fromkeys(phones[:_MAX_CANDIDATES]))
    if len(emails) == 1 and len(numbers) == 1:
        return [Contact(emails[0], numbers[0], company=company)]
    return [Contact(email=one, company=company) for one in emails] + [
        Contact(phone=one, company=company) for one in numbers
    ]


def _links(tree: Any) -> tuple[list[str], list[str]]:
    emails: list[str] = []
    phones: list[str] = []
    for node in tree.iter("a", "area", "span"):
        href = (node.get("href") or "").strip()
        scheme, _, rest = href.partition(":")
        if scheme.lower() == "mailto":
            emails += [part.strip() for part in unquote(rest).partition("?")[0].split(",")]
        elif scheme.lower() == "tel" and not _is_fax(node):
            phones.append(unquote(rest).partition(";")[0].strip())
        hidden = node.get("data-cfemail") or ((found := _CLOUDFLARE.search(href)) and found[1])
        if hidden and (shown := _uncloaked(hidden)):
            emails.append(shown)
    return emails, [phone for phone in phones if sum(map(str.isdigit, phone)) >= 5]


def _is_fax(node: Any) -> bool:
    """Its own text, or what stands right before it, says fax."""
    before = node.getprevious()
    leading = (
        before.tail if before is not None else node.getparent().text if node.getparent() is not None else ""
    ) or ""
    return bool(_FAX.search(node.text_content()) or _FAX.search(leading[-30:]))


def _uncloaked(hexadecimal: str) -> str | None:
    """Cloudflare's disguise: the first byte is XORed with each of the others."""
    try:
        key, *rest = bytes.fromhex(hexadecimal)
        return bytes(byte ^ key for byte in rest).decode().partition("?")[0]
    except ValueError:
        return None


def _in_text(tree: Any) -> Iterator[str]:
    for node in tree.iter():
        if node.tag in ("script", "style", "template", "noscript", "textarea") or not isinstance(node.tag, str):
            texts = (node.tail,)
        else:
            texts = (node.text, node.tail)
        for text in texts:
            if text and ("@" in text or "at" in text.lower()):
                yield from _ADDRESS.findall(text)
                for local, domain in _DISGUISED.findall(text):
                    yield f"{local}@{_DOT.sub('.', domain)}"


def checked_email(value: str | None) -> str | None:
    """The address in its normal form; None when it is none, or one that nobody reads."""
    if not value or len(value) > 320 or value.lower().endswith(_FILES):
        return None
    try:
        found = email_validator.validate_email(value.strip(), check_deliverability=False)
    except email_validator.EmailNotValidError:
        return None
    return None if _DEAF.match(found.normalized) else found.normalized


def _merged(found: list[Contact]) -> tuple[Contact, ...]:
    """Each way to reach somebody once; what was said first, and knows more, stands."""
    kept: list[Contact] = []
    emails: dict[str, int] = {}
    phones: dict[str, int] = {}
    for one in found[:_MAX_MERGED]:
        email, phone = checked_email(one.email), clean(one.phone or "", 64)
        digits = re.sub(r"\D", "", phone or "")
        if len(digits) < 5:
            phone, digits = None, ""
        if email is None and phone is None:
            continue
        one = replace(one, email=email, phone=phone)
        place = emails.get(email.lower()) if email else phones.get(digits)
        if place is not None and not email and one.name and one.name != kept[place].name:
            place = None  # somebody else behind the same switchboard
        if place is None:
            place = len(kept)
            kept.append(one)
        else:
            kept[place] = _filled(kept[place], one)
        if email:
            emails.setdefault(email.lower(), place)
        if digits:
            phones.setdefault(digits, place)
    return tuple(_joined(kept))


def _joined(kept: list[Contact]) -> list[Contact]:
    """The company's one address and its one number, found in different places, are one contact."""
    general = [one for one in kept if not one.name and not one.role]
    addresses = [one for one in general if one.email]
    numbers = [one for one in general if not one.email]
    if len(addresses) != 1 or len(numbers) != 1 or addresses[0].phone:
        return kept
    return [_filled(one, numbers[0]) if one is addresses[0] else one for one in kept if one is not numbers[0]]


def _filled(first: Contact, second: Contact) -> Contact:
    return replace(first, **{f.name: getattr(first, f.name) or getattr(second, f.name) for f in fields(first)})

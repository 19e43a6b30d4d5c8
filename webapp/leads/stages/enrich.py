"""Enrich: what a lead's e-mail address and phone number tell by themselves, without asking anyone.

Facts come from libraries and short lists, so they are cheap and always the same; each names its provider and
how far to trust it. Facts that ask the outside (firmographics, deliverability) are further providers of the
same shape.
"""

from functools import lru_cache
from importlib import import_module

import phonenumbers
from email_validator import EmailNotValidError, ValidatedEmail, validate_email
from phonenumbers import carrier, timezone

from webapp.leads.types import Fact, LeadFacts

_EMAIL = "email-validator"
_PHONE = "phonenumbers"
_LISTS = "built-in lists"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Mail for private people. An address there says nothing about a company.
FREE_MAIL = _words(
    "gmail googlemail yahoo ymail rocketmail hotmail outlook live msn aol icloud me mac gmx web proton "
    "protonmail pm mail zoho yandex qq 163 126 naver hanmail daum fastmail tutanota hey inbox"
)
_FREE_MAIL_ENDINGS = _words(
    "com net de fr es it at ch me ru ua in jp cn kr vn com.vn co.uk co.jp co.in co.kr com.br com.au ca eu"
)
#: Free-mail domains of one country or one name only.
_FREE_MAIL_DOMAINS = _words(
    "mail.ru list.ru bk.ru orange.fr laposte.net free.fr libero.it t-online.de freenet.de comcast.net "
    "verizon.net att.net btinternet.com seznam.cz wp.pl o2.pl onet.pl vnn.vn fpt.vn tuta.com pm.me"
)
#: Enough to know the best-known throw-away services by when the maintained list is not installed.
_DISPOSABLE = _words(
    "10minutemail.com discard.email getnada.com guerrillamail.com maildrop.cc mailinator.com "
    "mailnesia.com sharklasers.com temp-mail.org tempmail.com throwawaymail.com trashmail.com "
    "yopmail.com"
)
#: Addresses of a function rather than a person (RFC 2142 and common usage).
_ROLES = _words(
    "abuse accounting accounts admin administrator billing careers contact contacto enquiries finance "
    "hello help helpdesk hi hostmaster hr info information inquiries jobs kontakt legal lienhe mail "
    "marketing media news newsletter no-reply noreply office orders postmaster press privacy sales "
    "security service support team tuyendung webmaster"
)

_PHONE_KINDS = {
    phonenumbers.PhoneNumberType.MOBILE: "mobile",
    phonenumbers.PhoneNumberType.FIXED_LINE: "landline",
    phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE: "landline or mobile",
    phonenumbers.PhoneNumberType.TOLL_FREE: "toll-free",
    phonenumbers.PhoneNumberType.PREMIUM_RATE: "premium rate",
    phonenumbers.PhoneNumberType.SHARED_COST: "shared cost",
    phonenumbers.PhoneNumberType.VOIP: "internet",
    phonenumbers.PhoneNumberType.PERSONAL_NUMBER: "personal",
    phonenumbers.PhoneNumberType.PAGER: "pager",
    phonenumbers.PhoneNumberType.UAN: "company-wide",
    phonenumbers.PhoneNumberType.VOICEMAIL: "voicemail",
}
#: What phonenumbers answers where it knows no time zone.
_NO_ZONE = "Etc/Unknown"


def enrich(facts: LeadFacts, *, default_region: str) -> tuple[Fact, ...]:
    """The facts about one lead; empty when it gave neither address nor number.

    ``default_region``: ISO 3166 country that a number written without a country code is taken to be of.
    """
    return email_facts(facts.email_normalized or facts.email) + phone_facts(
        facts.phone_e164 or facts.phone, default_region=default_region
    )


def email_facts(address: str | None) -> tuple[Fact, ...]:
    """``email_valid``, and for a valid address ``email_domain``, ``email_free``, ``email_disposable``,
    ``email_role``, ``email_ascii`` (an international name in its wire form) and, unless it is free mail,
    ``company_domain``."""
    if not address or not address.strip():
        return ()
    try:
        # `.example` and its like are legal here: such an address is well-formed, which is all that is
        # claimed.
        parsed = validate_email(address, check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        return (Fact("email_valid", False, _EMAIL, 0.99, note=str(error)),)
    return (
        Fact("email_valid", True, _EMAIL, 0.95, note="well-formed; not asked whether it exists"),
        *_about(parsed),
    )


def _about(parsed: ValidatedEmail) -> tuple[Fact, ...]:
    domain = parsed.ascii_domain.lower()
    free, disposable = is_free_mail(domain), is_disposable(domain)
    facts = [
        Fact("email_domain", domain, _EMAIL, 1.0),
        Fact("email_free", free, _LISTS, 0.95),
        Fact("email_disposable", disposable, _disposable_domains()[0], 0.95 if disposable else 0.8),
        Fact("email_role", parsed.local_part.split("+")[0].lower() in _ROLES, _LISTS, 0.9),
    ]
    if domain != parsed.domain:
        facts.append(Fact("email_ascii", parsed.ascii_email or f"@{domain}", _EMAIL, 1.0, note="international domain"))
    if not free and not disposable:
        facts.append(Fact("company_domain", domain, _LISTS, 0.7, note="the address is not a private mail service's"))
    return tuple(facts)


@lru_cache(maxsize=4096)
def is_free_mail(domain: str) -> bool:
    """Is it a mail service for private people? ``gmail.example`` and the like stand in for them in
    examples."""
    if domain in _FREE_MAIL_DOMAINS:
        return True
    name, _, ending = domain.partition(".")
    return name in FREE_MAIL and (ending in _FREE_MAIL_ENDINGS or ending == "example")


@lru_cache(maxsize=4096)
def is_disposable(domain: str) -> bool:
    """Does the domain, or one that it lies under, hand out throw-away addresses?"""
    known = _disposable_domains()[1]
    labels = domain.split(".")
    parents = [".".join(labels[i:]) for i in range(len(labels) - 1)]
    return any(parent in known or _stands_in(parent) for parent in parents)


def _stands_in(domain: str) -> bool:
    name, _, ending = domain.rpartition(".")
    return ending == "example" and f"{name}.com" in _DISPOSABLE


@lru_cache(maxsize=1)
def _disposable_domains() -> tuple[str, frozenset[str]]:
    """(who says so, the domains): the maintained list where it is installed, a short one elsewhere."""
    try:
        module = import_module("disposable_email_domains")
    except ImportError:
        return _LISTS, _DISPOSABLE
    return "disposable-email-domains", frozenset(module.blocklist) | _DISPOSABLE


def phone_facts(number: str | None, *, default_region: str) -> tuple[Fact, ...]:
    """``phone_valid``, and for a valid number ``phone_e164``, ``phone_type``, ``phone_region``,
    ``phone_carrier`` and ``phone_time_zones`` as far as the numbering plan tells."""
    if not number or not number.strip():
        return ()
    try:
        parsed = phonenumbers.parse(number, default_region)
    except phonenumbers.NumberParseException as error:
        return (Fact("phone_valid", False, _PHONE, 0.95, note=str(error)),)
    if not phonenumbers.is_valid_number(parsed):
        return (Fact("phone_valid", False, _PHONE, 0.95, note="no such number in the country's numbering plan"),)
    facts = [
        Fact("phone_valid", True, _PHONE, 0.95, note="fits the numbering plan; not asked whether it is in use"),
        Fact("phone_e164", phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164), _PHONE, 1.0),
        Fact("phone_type", _PHONE_KINDS.get(phonenumbers.number_type(parsed), "unknown"), _PHONE, 0.9),
        Fact("phone_region", phonenumbers.region_code_for_number(parsed), _PHONE, 0.95),
    ]
    company = carrier.name_for_number(parsed, "en")
    if company:
        facts.append(Fact("phone_carrier", company, _PHONE, 0.6, note="the range's first owner; numbers can move"))
    zones = [zone for zone in timezone.time_zones_for_number(parsed) if zone != _NO_ZONE]
    if zones:
        facts.append(Fact("phone_time_zones", zones, _PHONE, 0.8 if len(zones) == 1 else 0.5))
    return tuple(facts)

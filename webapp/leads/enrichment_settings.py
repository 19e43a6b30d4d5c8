"""What an admin decides about enrichment: which built-in sources are asked, and the workspace's own services.

Nothing here commits or calls the outside. A service's key is kept encrypted and never shown again.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, enrichment_store, fact_mapping, workspaces
from webapp.leads.destinations import Cipher
from webapp.leads.enrichment import CRM, DAY, DNS, HOME, MAX_AGE
from webapp.leads.enrichment_store import BUILT_IN, MAX_AGE_DAYS, SETTINGS
from webapp.leads.errors import Conflict, Invalid, NotFound, Problem
from webapp.leads.intake import text_problem
from webapp.leads.states import LookupSubject
from webapp.models.account import Workspace
from webapp.models.base import scoped
from webapp.models.enrichment import EnrichmentHealth, EnrichmentProvider

#: Services of one workspace: each is asked about every lead.
MAX_PROVIDERS = 10
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_PARAMETER = re.compile(r"[A-Za-z0-9_.\[\]-]{1,100}")
#: Headers that would change how the request is made.
_TAKEN = frozenset({"host", "content-length", "connection", "transfer-encoding", "cookie", "accept-encoding"})


@dataclass(frozen=True, slots=True)
class Preset:
    """A service that is met often: what a form starts from."""

    name: str
    title: str
    subject: LookupSubject
    url: str
    auth: str
    auth_name: str
    auth_prefix: str
    mapping: Mapping[str, str]


PRESETS = (
    Preset(
        "clearbit", "Clearbit-like", LookupSubject.DOMAIN,
        "https://company.clearbit.com/v2/companies/find?domain={domain}", "header", "Authorization", "Bearer ",
        {"company_name": "name", "company_description": "description", "company_employees": "metrics.employees",
         "industry": "category.naicsCode | category.industry", "company_logo": "logo",
         "country": "geo.countryCode", "state": "geo.state", "city": "geo.city", "postal_code": "geo.postalCode",
         "time_zone": "timeZone"},
    ),
    Preset(
        "apollo", "Apollo-like", LookupSubject.DOMAIN,
        "https://api.apollo.io/api/v1/organizations/enrich?domain={domain}", "header", "X-Api-Key", "",
        {"company_name": "organization.name", "company_description": "organization.short_description",
         "company_employees": "organization.estimated_num_employees",
         "industry": "organization.industry | organization.naics_codes[0]",
         "company_logo": "organization.logo_url", "company_social": "organization.linkedin_url",
         "country": "organization.country", "state": "organization.state", "city": "organization.city",
         "postal_code": "organization.postal_code"},
    ),
    Preset(
        "pdl", "People Data Labs-like", LookupSubject.DOMAIN,
        "https://api.peopledatalabs.com/v5/company/enrich?website={domain}", "query", "api_key", "",
        {"company_name": "display_name | name", "company_description": "summary", "company_employees": "employee_count",
         "company_size": "size", "industry": "naics[0].naics_code | industry", "company_social": "profiles[*]",
         "country": "location.country", "state": "location.region", "city": "location.locality",
         "postal_code": "location.postal_code"},
    ),
    Preset(
        "hunter", "Hunter-like e-mail check", LookupSubject.EMAIL,
        "https://api.hunter.io/v2/email-verifier?email={email}", "query", "api_key", "",
        {"email_deliverable": "data.status", "email_mx": "data.mx_records"},
    ),
    Preset(
        "zerobounce", "ZeroBounce-like e-mail check", LookupSubject.EMAIL,
        "https://api.zerobounce.net/v2/validate?email={email}&ip_address=", "query", "api_key", "",
        {"email_deliverable": "status", "first_name": "firstname", "last_name": "lastname"},
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Given:
    """A service as a form has it. ``secret`` None: as it is."""

    name: str = ""
    subject: str = LookupSubject.DOMAIN.value
    url: str = ""
    auth: str = "none"
    auth_name: str = ""
    auth_prefix: str = ""
    secret: str | None = None
    trust: str = "0.8"
    mapping: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Health:
    """How a source is doing. ``open_until``: it is left alone until then."""

    failures: int = 0
    open_until: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    last_ok_at: datetime | None = None


def given_of(row: EnrichmentProvider) -> Given:
    return Given(
        row.name, LookupSubject(row.subject).value, row.url, row.auth, row.auth_name or "", row.auth_prefix, None,
        f"{row.trust:g}", row.mapping,
    )  # fmt: skip


def from_preset(name: str) -> Given:
    """An empty form for a name that is none."""
    for one in PRESETS:
        if one.name == name:
            return Given(
                one.title.removesuffix("-like").removesuffix("-like e-mail check"), one.subject.value, one.url, one.auth,
                one.auth_name, one.auth_prefix, mapping=one.mapping,
            )  # fmt: skip
    return Given()


def built_in(workspace: Workspace) -> tuple[dict[str, bool], int]:
    """(built-in source → is it asked, days for which an answer serves)."""
    off, age = enrichment_store.settings_of(workspace.settings.get(SETTINGS))
    return {name: name not in off for name in BUILT_IN}, round(age / DAY)


def save_built_in(session: Session, workspace_id: uuid.UUID, on: Mapping[str, bool], days: str, *, actor: str) -> None:
    """Invalid when ``days`` is no whole number of days."""
    if not days.isascii() or not days.isdigit() or not 1 <= int(days) <= MAX_AGE_DAYS:
        problem = Problem("max_age_days", f"must be a whole number of days from 1 to {MAX_AGE_DAYS}")
        raise Invalid("Nothing was saved.", details=(problem,))
    workspace = workspaces.locked(session, workspace_id)
    before = workspace.settings.get(SETTINGS) or {}
    after = {name: bool(on.get(name)) for name in (DNS, HOME, CRM)} | {"max_age_days": int(days)}
    if after == before:
        return
    workspace.settings = workspace.settings | {SETTINGS: after}
    audit.record(session, workspace_id, "ENRICHMENT_CHANGED", actor=actor, before=before, after=after)
    session.flush()


def providers(session: Session, workspace_id: uuid.UUID) -> list[EnrichmentProvider]:
    found = scoped(EnrichmentProvider, workspace_id).order_by(EnrichmentProvider.created_at, EnrichmentProvider.id)
    return list(session.scalars(found))


def provider(session: Session, workspace_id: uuid.UUID, provider_id: uuid.UUID) -> EnrichmentProvider:
    row = session.scalar(
        scoped(EnrichmentProvider, workspace_id).where(EnrichmentProvider.id == provider_id).with_for_update()
    )
    if row is None:
        raise NotFound("This service is not there any more.")
    found: EnrichmentProvider = row
    return found


def health(session: Session, workspace_id: uuid.UUID) -> dict[str, Health]:
    """Source's key → how it is doing: the workspace's own, and those that serve everybody."""
    rows = session.scalars(
        sa.select(EnrichmentHealth).where(
            sa.or_(EnrichmentHealth.workspace_id == workspace_id, EnrichmentHealth.workspace_id.is_(None))
        )
    )
    return {
        row.provider: Health(row.failures, row.open_until, row.last_error, row.last_error_at, row.last_ok_at)
        for row in rows
    }


def save(
    session: Session,
    workspace_id: uuid.UUID,
    given: Given,
    row: EnrichmentProvider | None,
    *,
    cipher: Cipher,
    actor: str,
) -> EnrichmentProvider:
    """Make a service, or change ``row``. Invalid names every field that is wrong; Conflict: the name is taken."""
    values = _checked(given, has_secret=row is not None and row.secret is not None)
    taken = scoped(EnrichmentProvider, workspace_id).where(EnrichmentProvider.name == values["name"])
    if session.scalar(taken.where(EnrichmentProvider.id != row.id) if row else taken) is not None:
        raise Conflict("There is a service of that name already.")
    event = "ENRICHMENT_SERVICE_CHANGED" if row else "ENRICHMENT_SERVICE_ADDED"
    if row is None:
        count = sa.select(sa.func.count()).where(EnrichmentProvider.workspace_id == workspace_id)
        if (session.scalar(count) or 0) >= MAX_PROVIDERS:
            raise Conflict(f"A workspace can have {MAX_PROVIDERS} services. Remove one first.")
        row = EnrichmentProvider(workspace_id=workspace_id, version=0)
        session.add(row)
    for name, value in values.items():
        setattr(row, name, value)
    if given.auth == "none":
        row.secret = None
    elif given.secret:
        row.secret = cipher.encrypt(given.secret)
    row.version += 1
    session.flush()
    audit.record(session, workspace_id, event, actor=actor, service=row.name, url=row.url)
    return row


def _checked(given: Given, *, has_secret: bool) -> dict[str, Any]:
    problems = list[Problem]()
    try:
        mapping = fact_mapping.checked(given.mapping)
    except Invalid as error:
        problems += error.details
        mapping = {}
    name = " ".join(given.name.split())
    if not 1 <= len(name) <= 80 or text_problem(name):
        problems.append(Problem("name", "must have 1 to 80 characters"))
    elif name in BUILT_IN.values() or name == "DNS":
        problems.append(Problem("name", "is that of a built-in source"))
    subject = given.subject if given.subject in set(LookupSubject) else LookupSubject.DOMAIN.value
    if wrong := url_problem(given.url, subject):
        problems.append(Problem("url", wrong))
    auth = given.auth if given.auth in ("none", "header", "query") else "none"
    if auth != "none":
        shape = _HEADER if auth == "header" else _PARAMETER
        if not shape.fullmatch(given.auth_name) or given.auth_name.lower() in _TAKEN:
            problems.append(Problem("auth_name", "must be the name of a header or parameter, such as X-Api-Key"))
        if not given.secret and not has_secret:
            problems.append(Problem("secret", "is needed where a key is sent"))
        if given.secret and (not given.secret.isascii() or not given.secret.isprintable() or len(given.secret) > 2_000):
            problems.append(Problem("secret", "must be plain characters on one line"))
    if not given.auth_prefix.isascii() or not given.auth_prefix.isprintable() or len(given.auth_prefix) > 40:
        problems.append(Problem("auth_prefix", "must be at most 40 plain characters"))
    trust = _trust(given.trust)
    if trust is None:
        problems.append(Problem("trust", "must be a number above 0 and up to 1, such as 0.8"))
    if problems:
        raise Invalid("Nothing was saved.", details=tuple(problems))
    return {
        "name": name, "subject": LookupSubject(subject), "url": given.url.strip(), "auth": auth,
        "auth_name": given.auth_name if auth != "none" else None, "auth_prefix": given.auth_prefix, "trust": trust,
        "mapping": mapping,
    }  # fmt: skip


def _trust(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number <= 1 else None


def url_problem(url: str, subject: str) -> str | None:
    """Why ``url`` is no template of a service that is asked about a ``subject`` (domain | email), or None."""
    text = url.strip()
    mark = f"{{{subject}}}"
    if len(text) > 2_000 or text_problem(text) or any(char.isspace() for char in text):
        return "must be one address, without spaces"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a web address"
    if parts.scheme not in ("http", "https") or not host:
        return "must begin with https:// or http://"
    if parts.username is not None:
        return "must not hold a user name or password; the key has a field of its own"
    if mark not in text:
        return f"must hold {mark}, where the {subject} is put"
    if "{" in parts.netloc:
        return f"must not have {mark} in its host"
    if re.search(r"\{(?!" + subject + r"\})", text):
        return f"may hold {mark} and no other braces"
    return None


def switch(
    session: Session, workspace_id: uuid.UUID, provider_id: uuid.UUID, on: bool, *, actor: str
) -> EnrichmentProvider:
    row = provider(session, workspace_id, provider_id)
    if row.enabled is not on:
        row.enabled = on
        session.flush()
        audit.record(session, workspace_id, "ENRICHMENT_SERVICE_SWITCHED", actor=actor, service=row.name, on=on)
    return row


def remove(session: Session, workspace_id: uuid.UUID, provider_id: uuid.UUID, *, actor: str) -> str:
    """What it said of leads stays with them. Returns its name."""
    row = provider(session, workspace_id, provider_id)
    name = row.name
    session.delete(row)
    session.flush()
    audit.record(session, workspace_id, "ENRICHMENT_SERVICE_REMOVED", actor=actor, service=name)
    return name


def reset(session: Session, workspace_id: uuid.UUID, provider_id: uuid.UUID) -> EnrichmentProvider:
    """Ask it again at once, whatever its breaker says."""
    row = provider(session, workspace_id, provider_id)
    key = enrichment_store.own(row).key
    session.execute(
        sa.update(EnrichmentHealth)
        .where(EnrichmentHealth.workspace_id == workspace_id, EnrichmentHealth.provider == key)
        .values(failures=0, open_until=None)
    )
    return row


DEFAULT_DAYS = round(MAX_AGE / DAY)

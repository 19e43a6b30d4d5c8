"""The CRM door's side of leads: is this one here already, and who is found by a part of a name, e-mail or phone."""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, intake, intake_sql
from webapp.leads.errors import Invalid, Problem, Transient
from webapp.leads.intake import LeadIn, Tenant
from webapp.leads.states import DeliveryState, Door
from webapp.models.lead import Lead, Person, Touch
from webapp.models.work import Delivery

#: Most that a search answers.
FOUND = 50
#: Looks at a lead that others move from person to person before the caller is asked to come again.
_ATTEMPTS = 5
_NOT_DIGITS = re.compile(r"\D")


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of it. ``reference``: the business id of the lead, else its UUID."""

    lead_id: uuid.UUID
    reference: str
    created: bool


def receive(session: Session, tenant: Tenant, lead: LeadIn) -> Kept:
    """Take in a lead of the CRM door, or count it on the one that is here: the same e-mail, else the same phone, else
    the same business id, each as normalised. ``lead.external_id`` is required. The caller commits.

    Posts that have one of the three in common go one after another, so that of many at once one creates the lead.
    What an existing lead is told is kept whole as a touch; what its person lacks (name, phone, company) is filled in.
    """
    assert lead.external_id is not None
    row = intake.row_for(tenant, lead)
    _serialise(session, row)
    found = _by_email(session, row) or _by_phone(session, row) or _by_business_id(session, row)
    if found is not None:
        person = _locked(session, found)
        if person is not None:
            _fill_in(person, lead, row)
        _touch(session, found, lead, row)
        return Kept(found.id, found.external_id or str(found.id), created=False)
    received = intake.accept(session, tenant, lead)
    if received.created:
        return Kept(received.lead_id, lead.external_id, created=True)
    # Another door was quicker with this person and no message either.
    here = session.get_one(Lead, received.lead_id)
    return Kept(here.id, here.external_id or str(here.id), created=False)


def _serialise(session: Session, row: dict[str, Any]) -> None:
    """Until the transaction ends, in one order for all: by person key, then by business id, which the other doors
    lock alone."""
    keys = {f"crm:{row['workspace_id']}:{key}" for key in (row["identity_key"], row["phone_e164"]) if key}
    for key in sorted(keys):
        session.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})
    intake_sql.lock_external_id(session, row["workspace_id"], row["external_id"])


def _first(session: Session, row: dict[str, Any], *where: Any) -> Lead | None:
    """Of several leads of one person the one with the same business id, else the oldest that has one, else the
    oldest: every repeat gets the same answer."""
    found: Lead | None = session.scalar(
        sa.select(Lead)
        .where(Lead.workspace_id == row["workspace_id"], *where)
        .order_by(
            sa.func.coalesce(Lead.external_id == row["external_id"], False).desc(),
            Lead.external_id.is_(None),
            Lead.created_at,
            Lead.id,
        )
        .limit(1)
        .execution_options(populate_existing=True)
    )
    return found


def _by_email(session: Session, row: dict[str, Any]) -> Lead | None:
    if row["email_normalized"] is None:
        return None
    person = session.execute(
        sa.select(Person.id, Person.merged_into).where(
            Person.workspace_id == row["workspace_id"], Person.identity_key == row["identity_key"]
        )
    ).first()
    return _first(session, row, Lead.person_id.in_([one for one in person if one])) if person else None


def _by_phone(session: Session, row: dict[str, Any]) -> Lead | None:
    phone = row["phone_e164"]
    if phone is None:
        return None
    # The number is one of the lead's search words, so that no index of its own is needed; what it finds is looked at.
    word = sa.func.to_tsquery("simple", f"'{phone.lstrip('+')}'")
    return _first(session, row, Lead.search.op("@@")(word), Lead.phone_e164 == phone)


def _by_business_id(session: Session, row: dict[str, Any]) -> Lead | None:
    return _first(session, row, Lead.external_id == row["external_id"])


def _touch(session: Session, found: Lead, lead: LeadIn, row: dict[str, Any]) -> None:
    """``found`` is locked (:func:`_locked`). Consent is the newest that was told, attribution the first: what is new
    of it is added (as in ``intake_sql``)."""
    session.add(
        Touch(
            workspace_id=found.workspace_id,
            lead_id=found.id,
            door=lead.door,
            message=lead.message,
            payload=lead.payload,
        )
    )
    told: dict[str, Any] = {"new": _news(found, lead, row)}
    if lead.consent is not None:
        if lead.consent != found.consent:
            told["consent"] = lead.consent
            found.consent, found.consent_at = lead.consent, lead.consent_at
        elif lead.consent_at is not None:
            found.consent_at = lead.consent_at
    if any(name not in found.attribution for name in lead.attribution):
        found.attribution = lead.attribution | found.attribution
    found.touches += 1
    found.last_contact_at = found.updated_at = sa.func.now()
    audit.record(
        session,
        found.workspace_id,
        "LEAD_TOUCHED",
        lead_id=found.id,
        door=Door.CRM.value,
        source=lead.source,
        **told,
    )


def _locked(session: Session, found: Lead) -> Person | None:
    """Lock the lead's person and then the lead, in intake's order; the person, if it has one. Both are read anew.

    Transient when the lead goes from person to person meanwhile, or is gone."""
    lead_id, person_id = found.id, found.person_id
    fresh = {"populate_existing": True}
    for _ in range(_ATTEMPTS):
        with session.begin_nested() as attempt:
            of_person = sa.select(Person).where(Person.id == person_id).with_for_update(of=Person, key_share=True)
            person = session.scalar(of_person, execution_options=fresh) if person_id else None
            of_lead = sa.select(Lead).where(Lead.id == lead_id).with_for_update(of=Lead, key_share=True)
            here = session.scalar(of_lead, execution_options=fresh)
            if here is not None and here.person_id == (person and person.id):
                return person
            person_id = here.person_id if here else None
            attempt.rollback()  # which lets go of them
    raise Transient("this lead is being changed by several requests at once; send it again", retry_after=1)


def _fill_in(person: Person, lead: LeadIn, row: dict[str, Any]) -> None:
    """What is not known of the person yet; look-alikes are then searched anew. The person is locked."""
    known = {"name": row["person_name"], "phone": row["phone_e164"], "company": lead.company}
    lacking = {name: value for name, value in known.items() if value and getattr(person, name) is None}
    for name, value in lacking.items():
        setattr(person, name, value)
    if lacking:
        person.looked_at = None
        person.updated_at = sa.func.now()


def _news(found: Lead, lead: LeadIn, row: dict[str, Any]) -> list[str]:
    """Names of the fields that say something else than the lead does. Of an encrypted value only its absence shows."""
    pairs = {
        "lead_id": (lead.external_id, found.external_id),
        "name": (lead.name, found.name),
        "email": (row["email_normalized"], found.email_normalized),
        "phone": (row["phone_e164"] or lead.phone, found.phone_e164 or found.phone),
        "company": (lead.company, found.company),
    }
    new = [name for name, (given, stored) in pairs.items() if given and given != stored]
    for name, value in lead.attributes.items():
        stored = found.attributes.get(name)
        sealed = isinstance(value, str) and value.startswith("enc:")
        if stored is None or (not sealed and value != stored):
            new.append(name)
    return new


@dataclass(frozen=True, slots=True)
class Found:
    """A lead as a search answers it. ``reference``: the business id, else the UUID."""

    id: uuid.UUID
    reference: str
    name: str | None
    email: str | None
    phone: str | None
    crm_synced: bool
    created_at: datetime


def synced() -> sa.ColumnElement[bool]:
    """The lead's person has been delivered to a CRM."""
    return sa.exists().where(
        Delivery.lead_id == Lead.id, Delivery.action == "person", Delivery.state == DeliveryState.DELIVERED
    )


def search(
    session: Session, workspace_id: uuid.UUID, *, name: str | None, email: str | None, phone: str | None
) -> Sequence[Found]:
    """At most :data:`FOUND` leads, newest first, that have all the given parts: of the name (without case and
    diacritics), of the e-mail (without case), of the phone (digits alone). Invalid for a phone without a digit.

    A part of a word cannot be looked up, so the narrow index ix_leads_contact is read from its newest end until
    enough is found: 15 ms for 100,000 leads when nothing is.
    """
    parts = [(1, name), (2, email)]
    if phone is not None:
        digits = _NOT_DIGITS.sub("", phone)
        if not digits:
            raise Invalid("a phone has digits", details=(Problem("phone", "must have at least one digit"),))
        parts.append((3, digits))
    chosen = sa.select(Lead.id, Lead.created_at).where(Lead.workspace_id == workspace_id)
    for line, part in parts:
        if part is not None:
            # A sub-select is evaluated once; a plain call would be at each row once the plan is a generic one.
            folded = sa.select(sa.func.search_fold(part)).scalar_subquery()
            whole = sa.func.strpos(Lead.contact, folded) > 0  # cheap, and passes over almost all
            chosen = chosen.where(whole, sa.func.strpos(sa.func.split_part(Lead.contact, "\n", line), folded) > 0)
    ids = (
        chosen.order_by(Lead.created_at.desc(), Lead.id.desc())
        .limit(FOUND)
        .cte("chosen")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    shown = sa.func.coalesce(Lead.name, Lead.author_name)
    rows = session.execute(
        sa.select(
            Lead.id,
            Lead.external_id,
            shown.label("name"),
            Lead.email,
            Lead.phone,
            Lead.created_at,
            synced().label("synced"),
        )
        .join(ids, ids.c.id == Lead.id)
        .order_by(Lead.created_at.desc(), Lead.id.desc())
    )
    return [
        Found(row.id, row.external_id or str(row.id), row.name, row.email, row.phone, row.synced, row.created_at)
        for row in rows
    ]

"""Corrections: a person uses what cleansing found, or takes it back. What was sent is never changed.

See ``webapp.leads.cleansing`` for what is found at intake; ``leads.cleaned`` says what stands.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads import audit, dedupe
from webapp.leads.errors import Conflict, NotFound
from webapp.leads.review import Actor
from webapp.leads.search import search_tokens
from webapp.models.base import new_id
from webapp.models.lead import Lead, Person

FIELDS = ("name", "email", "phone")
#: Looks at a lead that others are changing before the person is asked to press again.
_ATTEMPTS = 5


def correct(
    session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID, field: str, *, use: bool, actor: Actor, region: str
) -> Lead:
    """Use (or, with ``use`` False, no longer use) what cleansing found for ``field`` (one of :data:`FIELDS`).

    ``region``: how the workspace reads numbers without a country code. The lead goes to whoever its keys name then.
    Doing twice what is done already changes nothing. NotFound; Conflict when there is nothing found for the field.
    """
    found = sa.select(Lead).where(Lead.id == lead_id, Lead.workspace_id == workspace_id)
    found = found.execution_options(populate_existing=True)
    apply = {"name": _name, "email": _email, "phone": _phone}.get(field)
    for _ in range(_ATTEMPTS):
        with session.begin_nested() as attempt:
            lead = session.scalar(found)
            if lead is None:
                raise NotFound("Lead not found")
            if apply is None:
                raise NotFound("There is no such field to correct")
            with session.no_autoflush:  # tried on, to tell whose it will be: the person is locked before the lead
                if not apply(lead, use, region):
                    return lead
                aim = _aim(session, lead)
                session.expire(lead)
            lead = session.scalar(found.with_for_update(of=Lead))
            if lead is not None:
                before, key = (lead.shown_name, lead.email_normalized, lead.phone_e164), _key(lead)
                if not apply(lead, use, region):
                    return lead
                if (_key(lead), lead.person_id) == (aim.key, aim.before):
                    break
            attempt.rollback()  # others changed it since the look at it; this lets go of the person
    else:
        raise Conflict("Others were changing this lead at the same time. Nothing was changed; press it again.")
    after = (lead.shown_name, lead.email_normalized, lead.phone_e164)
    _follow(session, lead, aim)
    if aim.key != key:
        _rekey(session, lead, aim.key)
    lead.version += 1
    lead.updated_at = datetime.now(UTC)
    changed = next(
        ((old, new) for old, new in zip(before, after, strict=True) if old != new),
        (None, None),
    )
    audit.record(
        session, workspace_id, "LEAD_CORRECTED", actor=actor.name, lead_id=lead.id, field=field, used=use,
        before=changed[0], after=changed[1],
    )  # fmt: skip
    session.flush()
    return lead


def _name(lead: Lead, use: bool, region: str) -> bool:
    return _moved(lead, "name_unused", "name") if use else _moved(lead, "name", "name_unused")


def _email(lead: Lead, use: bool, region: str) -> bool:
    if use == bool(lead.cleaned.get("email_used")):
        return False
    meant = lead.cleaned.get("email_suggestion")
    if not meant:
        raise _nothing_found()
    lead.cleaned = {**lead.cleaned, "email_used": use}
    lead.email_normalized = meant if use else dedupe.normalize_email(lead.email)
    return True


def _phone(lead: Lead, use: bool, region: str) -> bool:
    moved = (
        _moved(lead, "phone_region_unused", "phone_region")
        if use
        else _moved(lead, "phone_region", "phone_region_unused")
    )
    if moved:
        lead.phone_e164 = dedupe.normalize_phone(lead.phone, region=lead.cleaned.get("phone_region") or region)
    return moved


def _moved(lead: Lead, of: str, to: str) -> bool:
    """Keep what was found under ``of`` as ``to``. False when it is there already."""
    cleaned: dict[str, Any] = dict(lead.cleaned)
    if of not in cleaned:
        if to in cleaned:
            return False
        raise _nothing_found()
    cleaned[to] = cleaned.pop(of)
    lead.cleaned = cleaned
    return True


def _nothing_found() -> Conflict:
    return Conflict("Nothing was found to correct in this lead.")


@dataclass(frozen=True, slots=True)
class _Aim:
    """Whose a lead will be. ``key``: its sender's; ``before``: whose it is; ``stays``: that person, if it stays."""

    key: str | None
    before: uuid.UUID | None
    person_id: uuid.UUID | None
    stays: Person | None


def _key(lead: Lead) -> str | None:
    """The key under which intake would know the lead's sender, as it stands now."""
    if lead.email_normalized:
        return dedupe.folded_email(lead.email_normalized)
    if lead.phone_e164:
        return lead.phone_e164
    return f"{lead.platform}:{lead.author_id}" if lead.platform and lead.author_id else None


def _aim(session: Session, lead: Lead) -> _Aim:
    """Find the person whom the lead's keys name now, or make them. The one row of theirs that holds the key is locked
    as intake locks it: nobody takes in another lead under that key until the transaction ends."""
    key, before = _key(lead), lead.person_id
    known = session.scalar(sa.select(Person.identity_key).where(Person.id == before)) if before else None
    if key and (before is None or known != key):
        return _Aim(key, before, _person(session, lead, key), None)
    if before is None:
        return _Aim(key, None, None, None)
    query = sa.select(Person).where(Person.id == before).with_for_update(of=Person, key_share=True)
    return _Aim(key, before, before, session.scalar(query.execution_options(populate_existing=True)))


def _rekey(session: Session, lead: Lead, key: str | None) -> None:
    """The same words are a repeat of this lead for who is its sender now, unless another lead of theirs has them."""
    wanted = dedupe.message_key(key, lead.message) if lead.platform is None else None
    other = sa.exists().where(Lead.workspace_id == lead.workspace_id, Lead.dedupe_key == wanted, Lead.id != lead.id)
    lead.dedupe_key = wanted if wanted and not session.scalar(sa.select(other)) else None


def _follow(session: Session, lead: Lead, aim: _Aim) -> None:
    """The lead goes to whom it is aimed at, and the words that it is found by are made anew."""
    lead.person_id, known = aim.person_id, aim.stays
    if known is not None and known.name in (lead.name, lead.cleaned.get("name"), lead.cleaned.get("name_unused")):
        known.name = lead.shown_name or lead.author_name
    tokens = search_tokens(
        lead.name, lead.author_name, lead.email, lead.email_normalized, lead.company, lead.message,
        phone=lead.phone_e164 or lead.phone,
    )  # fmt: skip
    session.flush()
    session.execute(
        sa.update(Lead)
        .where(Lead.id == lead.id)
        .values(search=sa.func.array_to_tsvector(tokens))
        .execution_options(synchronize_session=False)
    )


def _person(session: Session, lead: Lead, key: str) -> uuid.UUID:
    given = insert(Person).values(
        id=new_id(),
        workspace_id=lead.workspace_id,
        identity_key=key,
        name=lead.shown_name or lead.author_name,
        email=lead.email_normalized,
        phone=lead.phone_e164,
        company=lead.company,
    )
    found: uuid.UUID = session.execute(
        given.on_conflict_do_update(
            index_elements=["workspace_id", "identity_key"],
            set_={"updated_at": sa.func.now(), "looked_at": None},
        ).returning(sa.func.coalesce(Person.merged_into, Person.id))
    ).scalar_one()
    return found

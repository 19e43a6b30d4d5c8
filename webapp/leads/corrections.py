"""Corrections: a person uses what cleansing found, or takes it back. What was sent is never changed.

See ``webapp.leads.cleansing`` for what is found at intake; ``leads.cleaned`` says what stands.
"""

import uuid
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


def correct(
    session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID, field: str, *, use: bool, actor: Actor, region: str
) -> Lead:
    """Use (or, with ``use`` False, no longer use) what cleansing found for ``field`` (one of :data:`FIELDS`).

    ``region``: how the workspace reads numbers without a country code. The lead goes to whoever its keys name then.
    Doing twice what is done already changes nothing. NotFound; Conflict when there is nothing found for the field.
    """
    lead = session.scalar(
        sa.select(Lead)
        .where(Lead.id == lead_id, Lead.workspace_id == workspace_id)
        .with_for_update(of=Lead)
        .execution_options(populate_existing=True)
    )
    if lead is None:
        raise NotFound("Lead not found")
    apply = {"name": _name, "email": _email, "phone": _phone}.get(field)
    if apply is None:
        raise NotFound("There is no such field to correct")
    before = (lead.shown_name, lead.email_normalized, lead.phone_e164)
    if not apply(lead, use, region):
        return lead
    after = (lead.shown_name, lead.email_normalized, lead.phone_e164)
    _follow(session, lead)
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


def _follow(session: Session, lead: Lead) -> None:
    """The person whom the lead's keys name now, and the words that it is found by."""
    key = dedupe.folded_email(lead.email_normalized) if lead.email_normalized else lead.phone_e164
    if key is None and lead.platform and lead.author_id:
        key = f"{lead.platform}:{lead.author_id}"
    known = session.get(Person, lead.person_id) if lead.person_id else None
    if key and (known is None or known.identity_key != key):
        lead.person_id = _person(session, lead, key)
    elif known is not None and known.name in (lead.name, lead.cleaned.get("name"), lead.cleaned.get("name_unused")):
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

"""Trying a destination out: what its fields would hold for a real lead, and a call that does no harm."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from webapp.leads import fieldmap, kinds
from webapp.leads.errors import Conflict
from webapp.leads.ports import LeadSnapshot, Target
from webapp.leads.sending import snapshot, target_of
from webapp.leads.states import UNDELIVERABLE_INTENTS, LeadStatus
from webapp.models.account import User
from webapp.models.base import scoped
from webapp.models.lead import Lead, Person
from webapp.models.work import Destination


@dataclass(frozen=True, slots=True)
class Example:
    """A lead and what each target field would hold for it; a field that is not in ``values`` is left out."""

    lead: LeadSnapshot
    values: Mapping[str, str]


def target(row: Destination) -> Target:
    """The destination as a client needs it, whatever its mode. Conflict where no call is harmless."""
    if not kinds.of(row.kind).testable:
        raise Conflict("There is no harmless call to try this kind of destination with.")
    return target_of(row)


def example(
    session: Session,
    workspace_id: uuid.UUID,
    mapping: Mapping[str, str],
    *,
    lead_id: uuid.UUID | None = None,
    public_url: str | None = None,
) -> Example | None:
    """With the lead that is named, else the newest one that could be delivered; None while there is none."""
    query = scoped(Lead, workspace_id).where(Lead.status != LeadStatus.REJECTED)
    if lead_id is not None:
        query = query.where(Lead.id == lead_id)
    else:
        query = query.where(Lead.intent.not_in(UNDELIVERABLE_INTENTS))
    lead = session.scalars(query.order_by(Lead.created_at.desc(), Lead.id.desc()).limit(1)).first()
    if lead is None:
        return None
    person = session.get(Person, lead.person_id) if lead.person_id else None
    assignee = session.get(User, lead.assignee_id) if lead.assignee_id else None
    shot = snapshot(lead, person, assignee, public_url=public_url)
    return Example(shot, fieldmap.filled(mapping, fieldmap.document(shot)))

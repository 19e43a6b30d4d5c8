"""What a way of scoring would make of a lead that is here: the same stage on the facts that its last run learned."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session, defer

from webapp.leads import knowledge, lead_outcomes
from webapp.leads.stages import score
from webapp.leads.types import LeadFacts, Score, Verdict
from webapp.models.base import scoped
from webapp.models.lead import Lead

#: Other leads of a person, as far as the score counts them.
MAX_OTHERS = 10


@dataclass(frozen=True, slots=True)
class Preview:
    lead: Lead
    score: Score


def of_latest(session: Session, workspace_id: uuid.UUID, model: score.Model, *, currency: str) -> Preview | None:
    """Of the newest lead that has been scored; None while there is none."""
    lead: Lead | None = session.scalar(
        scoped(Lead, workspace_id)
        .where(Lead.score.is_not(None))
        .options(defer(Lead.search))
        .order_by(Lead.created_at.desc(), Lead.id.desc())
        .limit(1)
    )
    return Preview(lead, of_lead(session, lead, model, currency=currency)) if lead else None


def of_lead(session: Session, lead: Lead, model: score.Model, *, currency: str) -> Score:
    """The score of ``lead`` under ``model`` at this moment. Nothing is written."""
    records = lead_outcomes.source_records(session, [lead.workspace_id])[lead.workspace_id]
    facts = LeadFacts(
        str(lead.id),
        str(lead.workspace_id),
        lead.message,
        name=lead.name,
        email=lead.email,
        email_normalized=lead.email_normalized,
        phone=lead.phone,
        phone_e164=lead.phone_e164,
        company=lead.company,
        source=lead.source,
        budget=lead.budget,
        touches=lead.touches,
        wrote_at=lead.last_contact_at,
        other_leads=_others(session, lead),
        record=records.of(lead.source),
    )
    stands = Verdict(lead.intent, lead.priority, lead.next_action, lead.confidence)
    learned = knowledge.read(lead.facts)
    return score.score(facts, stands, learned, currency=currency, model=model, now=datetime.now(UTC))


def _others(session: Session, lead: Lead) -> int:
    if lead.person_id is None:
        return 0
    some = sa.select(Lead.id).where(
        Lead.workspace_id == lead.workspace_id, Lead.person_id == lead.person_id, Lead.id != lead.id
    )
    return session.scalar(sa.select(sa.func.count()).select_from(some.limit(MAX_OTHERS).subquery())) or 0

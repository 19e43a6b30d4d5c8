"""Two people who are one: a reviewer merges them, says that they are not, or takes a merge back.

Merging moves the leads of one person to the other and leaves ``merged_into`` behind, which intake follows: what comes
later under the merged person's address lands with the kept one. Whether somebody may be contacted is derived from
their leads (``Person.do_not_contact``) and so is right by itself. Undoing moves back what was moved and what has come
since under the merged person's own address.

Locks are taken in intake's order: people by key, then leads by id. Everything here flushes; the caller commits.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, dedupe
from webapp.leads.errors import Conflict, Invalid, NotFound
from webapp.leads.review import Actor
from webapp.leads.states import SuggestionState
from webapp.models.base import scoped
from webapp.models.lead import Lead, Person
from webapp.models.people import DuplicateSuggestion, PersonMerge

#: Leads that a merge is told of in their history, the newest of each side.
TOLD = 500
SHOWN = 10


@dataclass(frozen=True, slots=True)
class LookAlike:
    """Somebody who may be the person of a lead. ``reasons`` in words; ``lead_id``: their newest lead, to look at."""

    suggestion_id: uuid.UUID
    person: Person
    score: float
    reasons: list[str]
    leads: int
    lead_id: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class Merged:
    """Somebody who was merged into the person of a lead, by whom and when."""

    merge_id: uuid.UUID
    person: Person
    actor: str
    at: datetime
    leads: int


def look_alikes(session: Session, lead: Lead) -> list[LookAlike]:
    """Who is suggested as the same person as the lead's, likeliest first. Those merged already are not."""
    if lead.person_id is None:
        return []
    mine = _family(session, lead.workspace_id, lead.person_id)
    query = (
        scoped(DuplicateSuggestion, lead.workspace_id)
        .where(
            DuplicateSuggestion.state == SuggestionState.SUGGESTED,
            sa.or_(DuplicateSuggestion.person_a_id.in_(mine), DuplicateSuggestion.person_b_id.in_(mine)),
        )
        .order_by(DuplicateSuggestion.score.desc(), DuplicateSuggestion.id)
        .limit(SHOWN * 3)
    )
    found: dict[uuid.UUID, LookAlike] = {}
    for suggestion in session.scalars(query):
        other_id = suggestion.person_b_id if suggestion.person_a_id in mine else suggestion.person_a_id
        person = standing(session, lead.workspace_id, other_id)
        if person.id in mine or person.id in found or len(found) == SHOWN:
            continue
        leads, newest = _leads_of(session, person)
        found[person.id] = LookAlike(suggestion.id, person, suggestion.score, list(suggestion.reasons), leads, newest)
    return list(found.values())


def merges(session: Session, lead: Lead) -> list[Merged]:
    """Who was merged into the lead's person, newest first."""
    if lead.person_id is None:
        return []
    query = (
        sa.select(PersonMerge, Person)
        .join(Person, Person.id == PersonMerge.merged_id)
        .where(
            PersonMerge.workspace_id == lead.workspace_id,
            PersonMerge.undone_at.is_(None),
            Person.merged_into == lead.person_id,
        )
        .order_by(PersonMerge.created_at.desc(), PersonMerge.id.desc())
        .limit(SHOWN)
    )
    return [
        Merged(merge.id, person, merge.actor, merge.created_at, len(merge.lead_ids))
        for merge, person in session.execute(query)
    ]


def merge_suggested(
    session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID, suggestion_id: uuid.UUID, *, actor: Actor
) -> PersonMerge:
    """Merge the other person of the suggestion into the person of the lead. NotFound; Conflict when somebody decided
    about one of them meanwhile."""
    lead, suggestion = _suggested(session, workspace_id, lead_id, suggestion_id)
    pair = {
        standing(session, workspace_id, person_id).id for person_id in (suggestion.person_a_id, suggestion.person_b_id)
    }
    if suggestion.state is not SuggestionState.SUGGESTED or len(pair) == 1:
        raise _decided(session, suggestion)
    if lead.person_id not in pair:
        raise Conflict("This lead belongs to another person now.")
    (other,) = pair - {lead.person_id}
    assert lead.person_id is not None
    return merge(session, workspace_id, kept_id=lead.person_id, merged_id=other, actor=actor)


def dismiss(
    session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID, suggestion_id: uuid.UUID, *, actor: Actor
) -> DuplicateSuggestion:
    """Say that the two are not the same; they are not suggested again. Twice is once. NotFound; Conflict when they
    were merged meanwhile."""
    lead, suggestion = _suggested(session, workspace_id, lead_id, suggestion_id)
    if suggestion.state is SuggestionState.DISMISSED:
        return suggestion
    if suggestion.state is SuggestionState.MERGED:
        raise _decided(session, suggestion)
    mine = _family(session, workspace_id, lead.person_id) if lead.person_id else set()
    if mine.isdisjoint((suggestion.person_a_id, suggestion.person_b_id)):
        raise Conflict("This lead belongs to another person now.")
    _decide(suggestion, SuggestionState.DISMISSED, actor)
    other = suggestion.person_b_id if suggestion.person_a_id in mine else suggestion.person_a_id
    audit.record(
        session, workspace_id, "DUPLICATE_DISMISSED", actor=actor.name, lead_id=lead.id,
        person=_called(session.get_one(Person, other)),
    )  # fmt: skip
    session.flush()
    return suggestion


def merge(
    session: Session, workspace_id: uuid.UUID, *, kept_id: uuid.UUID, merged_id: uuid.UUID, actor: Actor
) -> PersonMerge:
    """Make two people one: all leads of ``merged`` are ``kept``'s from now on.

    NotFound; Invalid for one person twice; Conflict when one of them has been merged meanwhile.
    """
    if kept_id == merged_id:
        raise Invalid("These are one person already.")
    people = _locked(session, workspace_id, (kept_id, merged_id))
    kept, merged = people[kept_id], people[merged_id]
    for person in (kept, merged):
        if person.merged_into is not None:
            raise _merged_meanwhile(session, person)
    moved = _move(session, workspace_id, merged_id, kept_id)
    session.execute(_pointing(workspace_id, merged_id).values(merged_into=kept_id))
    merged.merged_into = kept_id
    done = PersonMerge(
        workspace_id=workspace_id,
        kept_id=kept_id,
        merged_id=merged_id,
        lead_ids=[str(one) for one in moved],
        actor=actor.name,
        user_id=actor.user_id,
    )
    session.add(done)
    suggestion = _suggestion_of(session, workspace_id, kept_id, merged_id)
    if suggestion is not None:
        _decide(suggestion, SuggestionState.MERGED, actor)
    session.flush()
    for lead_id in _told(session, workspace_id, kept_id):
        audit.record(
            session, workspace_id, "PERSON_MERGED", actor=actor.name, lead_id=lead_id, merge_id=str(done.id),
            person=_called(merged), into=_called(kept), leads=len(moved),
        )  # fmt: skip
    session.flush()
    return done


def undo(session: Session, workspace_id: uuid.UUID, merge_id: uuid.UUID, *, actor: Actor) -> PersonMerge:
    """Take a merge back: the leads return that were moved, and those that have come since under the merged person's
    own address. NotFound; Conflict when it was taken back already."""
    found: PersonMerge | None = session.scalar(scoped(PersonMerge, workspace_id).where(PersonMerge.id == merge_id))
    if found is None:
        raise NotFound("There is no such merge in this workspace.")
    people = _locked(session, workspace_id, (found.kept_id, found.merged_id))
    session.refresh(found)
    if found.undone_at is not None:
        raise Conflict(f"{found.undone_by or 'Somebody'} has taken this merge back already.")
    merged = people[found.merged_id]
    holder = merged.merged_into or found.kept_id
    told = set(_told(session, workspace_id, holder))
    returning = _returning(session, found, holder)
    _set_person(session, returning, merged.id)
    merged.merged_into = None
    merged.looked_at = None  # its look-alikes are searched anew
    for earlier in _merged_into(session, workspace_id, merged.id):
        session.execute(sa.update(Person).where(Person.id == earlier).values(merged_into=merged.id))
    found.undone_at, found.undone_by = sa.func.now(), actor.name
    suggestion = _suggestion_of(session, workspace_id, found.kept_id, found.merged_id)
    if suggestion is not None and suggestion.state is SuggestionState.MERGED:
        suggestion.state, suggestion.decided_by, suggestion.decided_at = SuggestionState.SUGGESTED, None, None
    for lead_id in told:
        audit.record(
            session, workspace_id, "PERSON_MERGE_UNDONE", actor=actor.name, lead_id=lead_id, merge_id=str(found.id),
            person=_called(merged), leads=len(returning),
        )  # fmt: skip
    session.flush()
    return found


def standing(session: Session, workspace_id: uuid.UUID, person_id: uuid.UUID) -> Person:
    """The person, or whom they were merged into. NotFound."""
    found: Person | None = session.scalar(_fresh(workspace_id).where(Person.id == person_id))
    if found is not None and found.merged_into is not None:
        found = session.scalar(_fresh(workspace_id).where(Person.id == found.merged_into))
    if found is None:
        raise NotFound("There is no such person in this workspace.")
    return found


def _fresh(workspace_id: uuid.UUID) -> sa.Select[Any]:
    return scoped(Person, workspace_id).execution_options(populate_existing=True)


def _locked(session: Session, workspace_id: uuid.UUID, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Person]:
    """Both people, locked in the order of their keys, as intake locks them. NotFound."""
    wanted = set(ids)
    query = _fresh(workspace_id).where(Person.id.in_(wanted)).order_by(Person.identity_key).with_for_update()
    found = {person.id: person for person in session.scalars(query)}
    if set(found) != wanted:
        raise NotFound("There is no such person in this workspace.")
    return found


def _suggested(
    session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID, suggestion_id: uuid.UUID
) -> tuple[Lead, DuplicateSuggestion]:
    """The lead, and a suggestion about its person, locked. NotFound."""
    lead: Lead | None = session.scalar(scoped(Lead, workspace_id).where(Lead.id == lead_id))
    suggestion: DuplicateSuggestion | None = session.scalar(
        scoped(DuplicateSuggestion, workspace_id).where(DuplicateSuggestion.id == suggestion_id).with_for_update()
    )
    if lead is None or suggestion is None:
        raise NotFound("There is no such suggestion in this workspace.")
    return lead, suggestion


def _decide(suggestion: DuplicateSuggestion, state: SuggestionState, actor: Actor) -> None:
    suggestion.state, suggestion.decided_by, suggestion.decided_at = state, actor.name, sa.func.now()


def _suggestion_of(
    session: Session, workspace_id: uuid.UUID, one: uuid.UUID, two: uuid.UUID
) -> DuplicateSuggestion | None:
    found: DuplicateSuggestion | None = session.scalar(
        scoped(DuplicateSuggestion, workspace_id).where(
            DuplicateSuggestion.person_a_id == min(one, two), DuplicateSuggestion.person_b_id == max(one, two)
        )
    )
    return found


def _decided(session: Session, suggestion: DuplicateSuggestion) -> Conflict:
    if suggestion.state is SuggestionState.SUGGESTED:
        return Conflict("These two are one person already.")
    did = "merged these two" if suggestion.state is SuggestionState.MERGED else "said that these two are not the same"
    return Conflict(f"{suggestion.decided_by or 'Somebody'} has {did} meanwhile.")


def _merged_meanwhile(session: Session, person: Person) -> Conflict:
    by = session.scalar(
        sa.select(PersonMerge.actor).where(PersonMerge.merged_id == person.id, PersonMerge.undone_at.is_(None))
    )
    return Conflict(f"{by or 'Somebody'} has merged {_called(person)} into another person meanwhile.")


def _called(person: Person) -> str:
    return person.name or person.email or person.phone or "somebody without a name"


def _move(session: Session, workspace_id: uuid.UUID, source: uuid.UUID, target: uuid.UUID) -> list[uuid.UUID]:
    """All leads of one person to another; which they were."""
    query = (
        sa.select(Lead.id)
        .where(Lead.workspace_id == workspace_id, Lead.person_id == source)
        .order_by(Lead.id)
        .with_for_update()
    )
    moved = list(session.scalars(query))
    _set_person(session, moved, target)
    return moved


def _set_person(session: Session, lead_ids: Iterable[uuid.UUID], person_id: uuid.UUID) -> None:
    session.execute(
        sa.update(Lead)
        .where(Lead.id.in_(list(lead_ids)))
        .values(person_id=person_id, updated_at=sa.func.now())
        .execution_options(synchronize_session="fetch")
    )


def _pointing(workspace_id: uuid.UUID, person_id: uuid.UUID) -> sa.Update:
    """People merged into this one before. Intake follows one step, so they point at the end of the chain."""
    return sa.update(Person).where(Person.workspace_id == workspace_id, Person.merged_into == person_id)


def _merged_into(session: Session, workspace_id: uuid.UUID, person_id: uuid.UUID) -> set[uuid.UUID]:
    """Who was merged into this person, directly or through others, by merges that stand."""
    found: set[uuid.UUID] = set()
    looking = {person_id}
    while looking:
        query = sa.select(PersonMerge.merged_id).where(
            PersonMerge.workspace_id == workspace_id,
            PersonMerge.kept_id.in_(looking),
            PersonMerge.undone_at.is_(None),
        )
        looking = set(session.scalars(query)) - found
        found |= looking
    return found


def _family(session: Session, workspace_id: uuid.UUID, person_id: uuid.UUID) -> set[uuid.UUID]:
    """The person and who was merged into them."""
    pointing = sa.select(Person.id).where(Person.workspace_id == workspace_id, Person.merged_into == person_id)
    return {person_id, *session.scalars(pointing)}


def _returning(session: Session, merge: PersonMerge, holder: uuid.UUID) -> list[uuid.UUID]:
    """Leads of ``holder`` that go back on undo, locked."""
    moved = {uuid.UUID(one) for one in merge.lead_ids}
    mine = {merge.merged_id, *_merged_into(session, merge.workspace_id, merge.merged_id)}
    addresses = set(session.scalars(sa.select(Person.identity_key).where(Person.id.in_(mine))))
    query = (
        sa.select(Lead.id, Lead.created_at, Lead.email_normalized, Lead.phone_e164, Lead.platform, Lead.author_id)
        .where(Lead.workspace_id == merge.workspace_id, Lead.person_id == holder)
        .order_by(Lead.id)
        .with_for_update()
    )
    back = []
    for lead in session.execute(query):
        came_since = lead.created_at >= merge.created_at
        if lead.id in moved or (came_since and _identity(lead) in addresses):
            back.append(lead.id)
    return back


def _identity(lead: Any) -> str | None:
    """The key under which intake knew the sender."""
    if lead.email_normalized:
        return dedupe.folded_email(lead.email_normalized)
    if lead.phone_e164:
        return str(lead.phone_e164)
    return f"{lead.platform}:{lead.author_id}" if lead.platform and lead.author_id else None


def _leads_of(session: Session, person: Person) -> tuple[int, uuid.UUID | None]:
    """(how many leads, the newest)."""
    query = (
        sa.select(sa.func.count().over(), Lead.id)
        .where(Lead.workspace_id == person.workspace_id, Lead.person_id == person.id)
        .order_by(Lead.created_at.desc(), Lead.id.desc())
        .limit(1)
    )
    row = session.execute(query).first()
    return (row[0], row[1]) if row else (0, None)


def _told(session: Session, workspace_id: uuid.UUID, person_id: uuid.UUID) -> list[uuid.UUID | None]:
    """The leads whose history tells of it; an event of no lead when there is none, so that it is never silent."""
    query = (
        sa.select(Lead.id)
        .where(Lead.workspace_id == workspace_id, Lead.person_id == person_id)
        .order_by(Lead.created_at.desc(), Lead.id.desc())
        .limit(TOLD)
    )
    return list(session.scalars(query)) or [None]

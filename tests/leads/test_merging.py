"""Merging two people: their leads, what comes later, and the way back."""

import threading
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests.factories import make_lead, make_user, make_workspace
from webapp.leads import merging
from webapp.leads.errors import Conflict, Invalid, NotFound
from webapp.leads.review import Actor
from webapp.leads.states import Intent, SuggestionState
from webapp.models import AuditEvent, DuplicateSuggestion, Lead, Person, PersonMerge, Workspace

ANA = Actor("Ana Torres")
BEN = Actor("Ben Okri")


def lead_of(session: Session, workspace: Workspace, email: str, message: str = "hello there", **over: Any) -> Lead:
    return make_lead(session, workspace, message, email=email, **over)


def suggest(session: Session, workspace: Workspace, one: Lead, two: Lead) -> DuplicateSuggestion:
    a, b = sorted([one.person_id, two.person_id])
    made = DuplicateSuggestion(
        workspace_id=workspace.id, person_a_id=a, person_b_id=b, score=0.9, reasons=["same phone"]
    )
    session.add(made)
    session.commit()
    return made


def person_of(session: Session, lead: Lead) -> uuid.UUID | None:
    session.expire_all()
    return session.get_one(Lead, lead.id).person_id


def merge(session: Session, workspace: Workspace, kept: uuid.UUID, merged: uuid.UUID) -> PersonMerge:
    done = merging.merge(session, workspace.id, kept_id=kept, merged_id=merged, actor=ANA)
    session.commit()
    return done


@pytest.fixture
def two(session: Session, workspace: Workspace) -> tuple[Lead, Lead]:
    return lead_of(session, workspace, "ana@mail.example"), lead_of(session, workspace, "ana@work.example")


def test_the_leads_move_and_later_ones_follow(session: Session, workspace: Workspace, two: tuple[Lead, Lead]) -> None:
    one, other = two
    done = merge(session, workspace, one.person_id, other.person_id)
    assert done.lead_ids == [str(other.id)] and done.actor == "Ana Torres"
    assert person_of(session, other) == one.person_id
    later = lead_of(session, workspace, "ana@work.example", "and another thing")
    assert later.person_id == one.person_id


def test_undoing_brings_back_what_moved_and_what_came_since(
    session: Session, workspace: Workspace, two: tuple[Lead, Lead]
) -> None:
    one, other = two
    kept, merged = one.person_id, other.person_id
    done = merge(session, workspace, kept, merged)
    theirs = lead_of(session, workspace, "ana@work.example", "for the merged one")
    mine = lead_of(session, workspace, "ana@mail.example", "for the kept one")
    merging.undo(session, workspace.id, done.id, actor=BEN)
    session.commit()
    assert [person_of(session, lead) for lead in (one, other, theirs, mine)] == [kept, merged, merged, kept]
    person = session.get_one(Person, merged)
    assert person.merged_into is None and person.looked_at is None
    assert session.get_one(PersonMerge, done.id).undone_by == "Ben Okri"
    assert lead_of(session, workspace, "ana@work.example", "after all that").person_id == merged
    with pytest.raises(Conflict, match="Ben Okri has taken this merge back already"):
        merging.undo(session, workspace.id, done.id, actor=ANA)


def test_undoing_leaves_alone_a_lead_that_somebody_gave_to_another_person(
    session: Session, workspace: Workspace, two: tuple[Lead, Lead]
) -> None:
    one, other = two
    done = merge(session, workspace, one.person_id, other.person_id)
    third = lead_of(session, workspace, "third@mail.example")
    session.execute(sa.update(Lead).where(Lead.id == other.id).values(person_id=third.person_id))
    session.commit()
    merging.undo(session, workspace.id, done.id, actor=ANA)
    session.commit()
    assert person_of(session, other) == third.person_id


def test_do_not_contact_is_right_after_a_merge_and_after_its_undo(
    session: Session, workspace: Workspace, two: tuple[Lead, Lead]
) -> None:
    one, other = two
    session.execute(sa.update(Lead).where(Lead.id == other.id).values(intent=Intent.UNSUBSCRIBE))
    session.commit()
    kept, merged = one.person_id, other.person_id

    def silent() -> tuple[bool, bool]:
        session.expire_all()
        return session.get_one(Person, kept).do_not_contact, session.get_one(Person, merged).do_not_contact

    assert silent() == (False, True)
    done = merge(session, workspace, kept, merged)
    assert silent() == (True, False)
    merging.undo(session, workspace.id, done.id, actor=ANA)
    session.commit()
    assert silent() == (False, True)


def test_a_chain_of_merges_is_followed_to_its_end_and_taken_apart_in_any_order(
    session: Session, workspace: Workspace
) -> None:
    leads = [lead_of(session, workspace, f"p{n}@mail.example") for n in range(3)]
    a, b, c = (lead.person_id for lead in leads)
    first = merge(session, workspace, b, a)
    second = merge(session, workspace, c, b)
    assert [person_of(session, lead) for lead in leads] == [c, c, c]
    late = lead_of(session, workspace, "p0@mail.example", "late")
    assert late.person_id == c

    merging.undo(session, workspace.id, second.id, actor=ANA)
    session.commit()
    assert [person_of(session, lead) for lead in (*leads, late)] == [b, b, c, b]
    assert lead_of(session, workspace, "p0@mail.example", "later").person_id == b

    again = merge(session, workspace, c, b)
    merging.undo(session, workspace.id, first.id, actor=ANA)
    session.commit()
    assert [person_of(session, lead) for lead in (*leads, late)] == [a, c, c, a]
    merging.undo(session, workspace.id, again.id, actor=ANA)
    session.commit()
    assert [person_of(session, lead) for lead in (*leads, late)] == [a, b, c, a]


def test_what_happened_stands_in_the_history_of_each_lead(
    session: Session, workspace: Workspace, two: tuple[Lead, Lead]
) -> None:
    one, other = two
    done = merge(session, workspace, one.person_id, other.person_id)
    merging.undo(session, workspace.id, done.id, actor=BEN)
    session.commit()
    told = session.execute(
        sa.select(AuditEvent.lead_id, AuditEvent.event_type, AuditEvent.actor).where(
            AuditEvent.event_type.in_(["PERSON_MERGED", "PERSON_MERGE_UNDONE"])
        )
    ).all()
    assert set(told) == {
        (lead.id, *what) for lead in two
        for what in (("PERSON_MERGED", "Ana Torres"), ("PERSON_MERGE_UNDONE", "Ben Okri"))
    }  # fmt: skip
    assert len(told) == 4


def test_a_merge_of_people_without_leads_is_not_silent(session: Session, workspace: Workspace) -> None:
    people = [Person(workspace_id=workspace.id, identity_key=f"k{n}", name=f"N{n}") for n in range(2)]
    session.add_all(people)
    session.commit()
    merge(session, workspace, people[0].id, people[1].id)
    event = session.scalars(sa.select(AuditEvent).where(AuditEvent.event_type == "PERSON_MERGED")).one()
    assert event.lead_id is None and event.details["person"] == "N1" and event.details["into"] == "N0"


def test_a_suggestion_is_merged_from_either_side_and_shown_until_then(
    session: Session, workspace: Workspace, two: tuple[Lead, Lead]
) -> None:
    one, other = two
    suggestion = suggest(session, workspace, one, other)
    (shown,) = merging.look_alikes(session, one)
    assert (shown.person.id, shown.leads, shown.lead_id) == (other.person_id, 1, other.id)
    assert merging.look_alikes(session, other)[0].person.id == one.person_id
    kept = other.person_id
    merging.merge_suggested(session, workspace.id, other.id, suggestion.id, actor=ANA)
    session.commit()
    assert person_of(session, one) == kept
    assert merging.look_alikes(session, session.get_one(Lead, one.id)) == []
    (merged,) = merging.merges(session, session.get_one(Lead, one.id))
    assert (merged.actor, merged.leads) == ("Ana Torres", 1)
    session.refresh(suggestion)
    assert suggestion.state is SuggestionState.MERGED and suggestion.decided_by == "Ana Torres"
    with pytest.raises(Conflict, match="Ana Torres has merged these two meanwhile"):
        merging.merge_suggested(session, workspace.id, one.id, suggestion.id, actor=BEN)
    with pytest.raises(Conflict, match="Ana Torres has merged these two meanwhile"):
        merging.dismiss(session, workspace.id, one.id, suggestion.id, actor=BEN)
    merging.undo(session, workspace.id, merged.merge_id, actor=ANA)
    session.commit()
    session.refresh(suggestion)
    assert suggestion.state is SuggestionState.SUGGESTED and suggestion.decided_by is None


def test_a_suggestion_about_somebody_merged_is_shown_for_whom_they_were_merged_into(
    session: Session, workspace: Workspace
) -> None:
    one, other, third = (lead_of(session, workspace, f"p{n}@mail.example") for n in range(3))
    suggestion = suggest(session, workspace, other, third)
    merge(session, workspace, one.person_id, other.person_id)
    session.expire_all()
    (shown,) = merging.look_alikes(session, one)
    assert shown.person.id == third.person_id
    assert merging.look_alikes(session, third)[0].person.id == one.person_id
    merging.merge_suggested(session, workspace.id, one.id, suggestion.id, actor=ANA)
    session.commit()
    assert person_of(session, third) == one.person_id


def test_dismissing_is_final_and_twice_is_once(session: Session, workspace: Workspace, two: tuple[Lead, Lead]) -> None:
    one, other = two
    suggestion = suggest(session, workspace, one, other)
    merging.dismiss(session, workspace.id, one.id, suggestion.id, actor=ANA)
    merging.dismiss(session, workspace.id, one.id, suggestion.id, actor=BEN)
    session.commit()
    assert merging.look_alikes(session, one) == []
    session.refresh(suggestion)
    assert suggestion.decided_by == "Ana Torres"
    events = session.scalars(sa.select(AuditEvent).where(AuditEvent.event_type == "DUPLICATE_DISMISSED")).all()
    assert len(events) == 1 and events[0].lead_id == one.id
    with pytest.raises(Conflict, match="Ana Torres has said that these two are not the same meanwhile"):
        merging.merge_suggested(session, workspace.id, one.id, suggestion.id, actor=BEN)


def test_who_is_merged_already_is_not_merged_again(session: Session, workspace: Workspace) -> None:
    one, other, third = (lead_of(session, workspace, f"p{n}@mail.example").person_id for n in range(3))
    merge(session, workspace, one, other)
    for kept, merged in ((third, other), (other, third), (one, other)):
        with pytest.raises(Conflict, match=r"Ana Torres has merged .* meanwhile"):
            merging.merge(session, workspace.id, kept_id=kept, merged_id=merged, actor=BEN)
    with pytest.raises(Invalid):
        merging.merge(session, workspace.id, kept_id=one, merged_id=one, actor=BEN)


def test_nothing_reaches_into_another_workspace(session: Session, workspace: Workspace, two: tuple[Lead, Lead]) -> None:
    elsewhere = make_workspace(session)
    theirs = lead_of(session, elsewhere, "x@mail.example"), lead_of(session, elsewhere, "y@mail.example")
    suggestion = suggest(session, elsewhere, *theirs)
    done = merging.merge(session, elsewhere.id, kept_id=theirs[0].person_id, merged_id=theirs[1].person_id, actor=ANA)
    session.commit()
    mine = two[0]
    for call in (
        lambda: merging.merge(session, workspace.id, kept_id=mine.person_id, merged_id=theirs[0].person_id, actor=ANA),
        lambda: merging.merge_suggested(session, workspace.id, mine.id, suggestion.id, actor=ANA),
        lambda: merging.dismiss(session, workspace.id, mine.id, suggestion.id, actor=ANA),
        lambda: merging.undo(session, workspace.id, done.id, actor=ANA),
    ):
        with pytest.raises(NotFound):
            call()
        session.rollback()


def test_a_suggestion_about_other_people_is_not_decided_from_this_lead(
    session: Session, workspace: Workspace, two: tuple[Lead, Lead]
) -> None:
    suggestion = suggest(session, workspace, *two)
    stranger = lead_of(session, workspace, "stranger@mail.example")
    with pytest.raises(Conflict, match="another person"):
        merging.merge_suggested(session, workspace.id, stranger.id, suggestion.id, actor=ANA)
    with pytest.raises(Conflict, match="another person"):
        merging.dismiss(session, workspace.id, stranger.id, suggestion.id, actor=ANA)


def test_two_who_merge_at_once_in_opposite_directions_leave_one_merge(
    session: Session, session_factory: sessionmaker[Session], workspace: Workspace, two: tuple[Lead, Lead]
) -> None:
    make_user(session, workspace)
    one, other = two[0].person_id, two[1].person_id
    start, results = threading.Barrier(2), []

    def go(kept: uuid.UUID, merged: uuid.UUID) -> None:
        start.wait()
        try:
            with session_factory.begin() as mine:
                merging.merge(mine, workspace.id, kept_id=kept, merged_id=merged, actor=ANA)
            results.append("merged")
        except Conflict:
            results.append("conflict")

    threads = [threading.Thread(target=go, args=pair) for pair in ((one, other), (other, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(results) == ["conflict", "merged"]
    standing = session.scalars(sa.select(PersonMerge)).one()
    session.expire_all()
    people = session.scalars(sa.select(Lead.person_id).where(Lead.id.in_([lead.id for lead in two]))).all()
    assert set(people) == {standing.kept_id}

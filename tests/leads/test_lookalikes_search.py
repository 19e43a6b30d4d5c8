"""The background search for look-alikes: who is suggested, who is not, and that it can be done again and again."""

import random
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests.factories import make_workspace
from webapp.leads.lookalikes import search
from webapp.leads.ports import Drained
from webapp.leads.states import SuggestionState
from webapp.models import DuplicateSuggestion, Person, Workspace

Sessions = sessionmaker[Session]


@pytest.fixture(autouse=True)
def _fresh_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_scorers", search._Scorers())


def add(session: Session, workspace: Workspace, name: str | None, **over: Any) -> uuid.UUID:
    person = Person(workspace_id=workspace.id, name=name, identity_key=uuid.uuid4().hex, **over)
    session.add(person)
    session.commit()
    return person.id


def suggestions(session: Session) -> dict[frozenset[uuid.UUID], DuplicateSuggestion]:
    session.expire_all()
    return {
        frozenset((found.person_a_id, found.person_b_id)): found
        for found in session.scalars(sa.select(DuplicateSuggestion))
    }


def again(session: Session) -> None:
    session.execute(sa.update(Person).values(looked_at=None))
    session.commit()


def test_a_name_with_a_near_match_is_suggested_with_the_reasons(
    session: Session, session_factory: Sessions, workspace: Workspace
) -> None:
    one = add(
        session, workspace, "Ruth Pettigrove", email="ruth@mail.example", phone="+442079460111", company="Alddale"
    )
    assert search.process(session_factory) == Drained(1, False)
    two = add(session, workspace, "Ruth Petigrove", email="rp@post.example", phone="+442079460111")
    three = add(session, workspace, "Ruth Pettigrove", email="ruth.p@work.example", company="Alddale Ltd")
    add(session, workspace, "Simon Quilliam", email="simon@mail.example", phone="+442079460999", company="Other")
    assert search.process(session_factory) == Drained(3, False)

    found = suggestions(session)
    assert {frozenset((one, two)), frozenset((one, three))} <= set(found)
    assert found[frozenset((one, two))].reasons == [
        "same first name", "surname one letter off", "same phone", "another e-mail address",
    ]  # fmt: skip
    assert "same company" in found[frozenset((one, three))].reasons
    assert all(0.4 <= one.score <= 1 for one in found.values())
    assert not session.scalars(sa.select(Person.id).where(Person.looked_at.is_(None))).all()


def test_people_who_come_together_find_each_other_once(
    session: Session, session_factory: Sessions, workspace: Workspace
) -> None:
    one = add(session, workspace, "Đặng Thị Hà", email="ha.dang@mail.example", phone="+84912243292")
    two = add(session, workspace, "dang thi ha", phone="+84912243292")
    assert search.process(session_factory) == Drained(2, False)
    assert set(suggestions(session)) == {frozenset((one, two))}


def test_a_phone_that_belongs_to_another_identity_is_always_suggested(
    session: Session, session_factory: Sessions, workspace: Workspace
) -> None:
    one = add(session, workspace, "Ruth Pettigrove", email="ruth@mail.example", phone="+442079460111")
    two = add(session, workspace, "Simon Quilliam", email="simon@post.example", phone="+442079460111")
    search.process(session_factory)
    assert "same phone" in suggestions(session)[frozenset((one, two))].reasons


def test_neither_a_name_alone_nor_a_company_alone_is_suggested(
    session: Session, session_factory: Sessions, workspace: Workspace
) -> None:
    add(session, workspace, "Maria Keller", email="maria.keller@mail.example", phone="+442079460111", company="Alddale")
    add(session, workspace, "Maria Keller", email="mkeller7@post.example", phone="+442079460222", company="Hollowrise")
    add(session, workspace, "Simon Quilliam", email="simon@alddale.example", company="Alddale")
    search.process(session_factory)
    assert suggestions(session) == {}


def test_no_key_reaches_into_another_workspace(
    session: Session, session_factory: Sessions, workspace: Workspace
) -> None:
    for here in (workspace, make_workspace(session)):
        add(session, here, "Ruth Pettigrove", phone="+442079460111", company="Alddale")
    search.process(session_factory)
    assert suggestions(session) == {}


def test_done_again_it_changes_nothing_and_what_was_decided_stays(
    session: Session, session_factory: Sessions, workspace: Workspace
) -> None:
    one = add(session, workspace, "Ruth Pettigrove", email="ruth@mail.example", phone="+442079460111")
    two = add(session, workspace, "Ruth Pettigrove", phone="+442079460111")
    search.process(session_factory)
    pair = frozenset((one, two))
    before = suggestions(session)[pair].id
    suggestions(session)[pair].state = SuggestionState.DISMISSED
    session.commit()
    again(session)
    assert search.process(session_factory).done == 2
    found = suggestions(session)
    assert set(found) == {pair} and found[pair].id == before and found[pair].state is SuggestionState.DISMISSED


def test_a_waiting_suggestion_follows_what_is_known_of_the_people(
    session: Session, session_factory: Sessions, workspace: Workspace
) -> None:
    one = add(session, workspace, "Ruth Pettigrove", phone="+442079460111")
    two = add(session, workspace, "Simon Quilliam", phone="+442079460111")
    search.process(session_factory)
    before = suggestions(session)[frozenset((one, two))].score
    session.execute(sa.update(Person).where(Person.id == two).values(name="Ruth Pettigrove", looked_at=None))
    session.commit()
    search.process(session_factory)
    after = suggestions(session)[frozenset((one, two))]
    assert after.score > before and "same name" in after.reasons


def test_who_was_merged_is_not_suggested(session: Session, session_factory: Sessions, workspace: Workspace) -> None:
    one = add(session, workspace, "Ruth Pettigrove", phone="+442079460111")
    add(session, workspace, "Ruth Pettigrove", phone="+442079460111", merged_into=one)
    assert search.process(session_factory).done == 2
    assert suggestions(session) == {}


def test_a_key_of_too_many_people_is_passed_over(
    session: Session, session_factory: Sessions, workspace: Workspace
) -> None:
    letters = random.Random(5)
    session.add_all([
        Person(
            workspace_id=workspace.id, identity_key=f"k{n}", phone="+442079460111",
            name=" ".join("".join(letters.choices("abdegiklmnoprstuvz", k=8)) for _ in range(2)),
        )
        for n in range(search.MAX_PER_KEY + 5)
    ])  # fmt: skip
    session.commit()
    assert search.process(session_factory).done == search.MAX_PER_KEY + 5
    assert suggestions(session) == {}


def test_a_drain_is_bounded_and_says_that_more_is_due(
    session: Session, session_factory: Sessions, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "BATCH", 2)
    for number in range(5):
        add(session, workspace, f"Person {number}", email=f"p{number}@mail.example")
    assert search.process(session_factory, max_rows=2) == Drained(2, True)
    assert search.process(session_factory, stop=lambda: True) == Drained(2, True)
    assert search.process(session_factory) == Drained(1, False)


def test_two_workers_do_not_compare_side_by_side(
    session: Session, session_factory: Sessions, workspace: Workspace
) -> None:
    add(session, workspace, "Ruth Pettigrove", phone="+442079460111")
    with session_factory.begin() as other:
        assert other.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(search._LOCK)))
        assert search.process(session_factory) == Drained(0, False)
    assert search.process(session_factory) == Drained(1, False)


def test_somebody_who_is_being_changed_meanwhile_is_compared_again(
    session: Session, session_factory: Sessions, workspace: Workspace
) -> None:
    one = add(session, workspace, "Ruth Pettigrove", phone="+442079460111")
    with session_factory.begin() as other:
        other.execute(sa.update(Person).where(Person.id == one).values(company="Alddale", updated_at=sa.func.now()))
        assert search.process(session_factory, max_rows=1).done == 1
    session.expire_all()
    assert session.get_one(Person, one).looked_at is None
    search.process(session_factory)
    session.expire_all()
    assert session.get_one(Person, one).looked_at is not None


def test_people_of_whom_nothing_is_known_are_passed(
    session: Session, session_factory: Sessions, workspace: Workspace
) -> None:
    for name in (None, "", "???", "X" * 5_000, "Ruth\u0301 🙂"):
        add(session, workspace, name)
    assert search.process(session_factory) == Drained(5, False)
    assert suggestions(session) == {}

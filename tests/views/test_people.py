"""Possible duplicates on the lead page: shown with reasons, merged, dismissed and undone by plain forms."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from tests.factories import make_lead
from tests.views.conftest import fragment
from webapp.leads.lookalikes import search
from webapp.leads.states import Role
from webapp.models import DuplicateSuggestion, Lead, PersonMerge, Workspace


def look_alikes(session: Session, workspace: Workspace, factory: sessionmaker[Session]) -> tuple[Lead, Lead]:
    """Two leads of two people whom the search holds to be alike."""
    phone = "+44 20 7946 0111"
    one = make_lead(session, workspace, "one", name="Ruth Pettigrove", email="ruth@mail.example", phone=phone)
    two = make_lead(session, workspace, "two", name="Ruth Petigrove", email="rp@post.example", phone=phone)
    search.process(factory)
    return one, two


def ids(session: Session) -> str:
    return str(session.scalars(sa.select(DuplicateSuggestion.id)).one())


def test_a_look_alike_is_shown_in_words(
    client: FlaskClient, session: Session, session_factory: sessionmaker[Session], workspace: Workspace, reviewer: Any
) -> None:
    one, two = look_alikes(session, workspace, session_factory)
    page = client.get(f"/queue/{one.id}").text
    assert "Possible duplicates" in page and "Ruth Petigrove" in page and f"/queue/{two.id}" in page
    assert "same phone" in page and "surname one letter off" in page and "the same:" in page
    assert "Same person: merge" in page and "Not the same" in page
    assert "Possible duplicates" in client.get(f"/queue/{two.id}").text


def test_merging_shows_the_other_leads_and_can_be_undone(
    client: FlaskClient, session: Session, session_factory: sessionmaker[Session], workspace: Workspace, reviewer: Any
) -> None:
    one, two = look_alikes(session, workspace, session_factory)
    answer = client.post(f"/queue/{one.id}/duplicates/{ids(session)}/merge", data={"back": "view=draft"})
    assert answer.status_code == 303 and answer.location == f"/queue/{one.id}?view=draft"
    page = client.get(answer.location).text
    assert "1 lead moved to this person" in page and "Possible duplicates" not in page
    assert "Merged from Ruth Petigrove" in page and "Ana Torres" in page and "Undo merge" in page
    assert "Same person" in page and f"/queue/{two.id}" in page
    assert "Ruth Petigrove and Ruth Pettigrove were merged as one person" in page
    merge_id = session.scalars(sa.select(PersonMerge.id)).one()
    answer = client.post(f"/queue/{two.id}/merges/{merge_id}/undo", follow_redirects=True)
    assert "Merge undone" in answer.text and "taken back" in answer.text and "Merged from" not in answer.text
    session.expire_all()
    assert session.get_one(Lead, two.id).person_id != session.get_one(Lead, one.id).person_id


def test_not_the_same_is_remembered(
    client: FlaskClient, session: Session, session_factory: sessionmaker[Session], workspace: Workspace, reviewer: Any
) -> None:
    one, two = look_alikes(session, workspace, session_factory)
    answer = client.post(f"/queue/{one.id}/duplicates/{ids(session)}/dismiss", follow_redirects=True)
    assert "not suggested again" in answer.text and "Possible duplicates" not in answer.text
    assert "Not the same person: Ruth Petigrove" in answer.text
    session.execute(sa.text("UPDATE people SET looked_at = NULL"))
    session.commit()
    search.process(session_factory)
    assert "Possible duplicates" not in client.get(f"/queue/{two.id}").text


def test_who_comes_second_is_told_who_did_what(
    app: Flask,
    client: FlaskClient,
    session: Session,
    session_factory: sessionmaker[Session],
    workspace: Workspace,
    reviewer: Any,
    login: Callable[..., Any],
) -> None:
    one, two = look_alikes(session, workspace, session_factory)
    suggestion = ids(session)
    colleague = app.test_client()
    login(colleague, Role.REVIEWER, name="Ben Okri")
    assert colleague.post(f"/queue/{two.id}/duplicates/{suggestion}/merge").status_code == 303
    for door in ("merge", "dismiss"):
        answer = client.post(f"/queue/{one.id}/duplicates/{suggestion}/{door}")
        assert answer.status_code == 409 and "Ben Okri has merged these two meanwhile" in answer.text
    merge_id = session.scalars(sa.select(PersonMerge.id)).one()
    assert colleague.post(f"/queue/{two.id}/merges/{merge_id}/undo").status_code == 303
    answer = client.post(f"/queue/{one.id}/merges/{merge_id}/undo")
    assert answer.status_code == 409 and "Ben Okri has taken this merge back already" in answer.text


def test_by_htmx_the_lead_alone_comes_back(
    client: FlaskClient, session: Session, session_factory: sessionmaker[Session], workspace: Workspace, reviewer: Any
) -> None:
    one, _ = look_alikes(session, workspace, session_factory)
    answer = client.post(
        f"/queue/{one.id}/duplicates/{ids(session)}/merge", headers=fragment("pane"), follow_redirects=True
    )
    assert answer.status_code == 200 and "<html" not in answer.text and "Undo merge" in answer.text


def test_viewers_see_the_duplicates_and_no_buttons(
    client: FlaskClient,
    session: Session,
    session_factory: sessionmaker[Session],
    workspace: Workspace,
    login: Callable[..., Any],
) -> None:
    one, _ = look_alikes(session, workspace, session_factory)
    login(client, Role.VIEWER)
    page = client.get(f"/queue/{one.id}").text
    assert "Possible duplicates" in page and "Same person: merge" not in page
    assert client.post(f"/queue/{one.id}/duplicates/{ids(session)}/merge").status_code == 403


def test_a_lead_of_nobody_has_no_duplicates(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace, email=None, phone=None, name="Nobody")
    assert lead.person_id is None
    page = client.get(f"/queue/{lead.id}")
    assert page.status_code == 200 and "Possible duplicates" not in page.text

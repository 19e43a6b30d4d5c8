"""Approve, override, reject, undo, many at once: by plain forms, as a browser without JavaScript sends them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests.factories import make_lead, make_user
from tests.views.conftest import fragment, version_in
from webapp.leads.states import Intent, LeadStatus, Priority, RejectReason, Role
from webapp.models import Decision, Lead, Run, Workspace

DRAFT = {"status": LeadStatus.NEW_DRAFT}


def test_approving_leads_on_to_the_next_and_can_be_undone(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    first = make_lead(session, workspace, "one", name="First One", **DRAFT)
    second = make_lead(session, workspace, "two", name="Second One", **DRAFT)
    page = client.get(f"/queue/{first.id}?view=draft").text
    answer = client.post(f"/queue/{first.id}/approve", data={"version": version_in(page), "back": "view=draft"})
    assert answer.status_code == 303
    assert answer.location == f"/queue/{second.id}?view=draft"
    after = client.get(answer.location).text
    assert "Approved" in after and "First One" in after and f"/queue/{first.id}/undo" in after
    session.refresh(first)
    assert (first.status, first.decided_by) == (LeadStatus.APPROVED, "Ana Torres")

    answer = client.post(f"/queue/{first.id}/undo", data={"back": "view=draft"}, follow_redirects=True)
    assert "Taken back" in answer.text
    session.refresh(first)
    assert first.status is LeadStatus.NEW_DRAFT


def test_overriding_says_what_changed(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace, "Could you tell me the price?", **DRAFT)
    form = client.get(f"/queue/{lead.id}/override").text
    data = {"version": version_in(form), "intent": "complaint", "priority": "P0", "reason": "they are angry"}
    assert client.post(f"/queue/{lead.id}/override", data=data).status_code == 303
    session.refresh(lead)
    assert (lead.status, lead.intent, lead.priority) == (LeadStatus.OVERRIDDEN, Intent.COMPLAINT, Priority.P0)
    shown = client.get(f"/queue/{lead.id}").text
    assert "became complaint, P0" in shown and "they are angry" in shown and "the machine said price inquiry" in shown


def test_an_override_that_changes_nothing_is_explained_and_keeps_what_was_typed(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace, **DRAFT)
    data = {
        "version": lead.version,
        "intent": lead.intent.value,
        "priority": lead.priority.value,
        "reason": "typed words",
    }
    answer = client.post(f"/queue/{lead.id}/override", data=data)
    assert answer.status_code == 422
    assert "That is the verdict already" in answer.text and "typed words" in answer.text


def test_rejecting_takes_a_reason(client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any) -> None:
    lead = make_lead(session, workspace, **DRAFT)
    assert client.post(f"/queue/{lead.id}/reject", data={"version": lead.version}).status_code == 422
    other = client.post(f"/queue/{lead.id}/reject", data={"version": lead.version, "reject_reason": "other"})
    assert other.status_code == 422 and "needs a few words" in other.text
    ok = client.post(f"/queue/{lead.id}/reject", data={"version": lead.version, "reject_reason": "wrong_region"})
    assert ok.status_code == 303
    assert "Rejected: wrong region" in client.get(f"/queue/{lead.id}").text
    assert session.scalars(sa.select(Decision.reject_reason)).one() is RejectReason.WRONG_REGION


def test_a_stale_decision_says_who_did_what(
    app: Flask, client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any, login: Callable[..., Any]
) -> None:
    lead = make_lead(session, workspace, name="Wanted Twice", **DRAFT)
    colleague = app.test_client()
    login(colleague, Role.REVIEWER, name="Max Weber")
    data = {"version": lead.version, "reject_reason": "spam"}
    assert colleague.post(f"/queue/{lead.id}/reject", data=data).status_code == 303
    for headers in ({}, fragment("pane")):
        answer = client.post(f"/queue/{lead.id}/approve", data={"version": lead.version}, headers=headers)
        assert answer.status_code == 409
        assert "Max Weber" in answer.text and "rejected" in answer.text and "Load the current state" in answer.text
        assert ("<html" in answer.text) is not bool(headers)
    session.refresh(lead)
    assert lead.status is LeadStatus.REJECTED


def test_a_double_click_decides_once_and_complains_of_nothing(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace, **DRAFT)
    for _ in range(2):
        assert client.post(f"/queue/{lead.id}/approve", data={"version": lead.version}).status_code == 303
    assert session.scalar(sa.select(sa.func.count()).select_from(Decision)) == 1


def test_undo_after_the_window_says_so(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace, **DRAFT)
    client.post(f"/queue/{lead.id}/approve", data={"version": lead.version})
    session.execute(sa.update(Decision).values(undo_until=datetime.now(UTC) - timedelta(seconds=1)))
    session.commit()
    answer = client.post(f"/queue/{lead.id}/undo")
    assert answer.status_code == 409 and "time to undo has passed" in answer.text


def test_a_form_without_a_version_decides_nothing(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace, **DRAFT)
    for version in ("", "x", "-1", "9" * 30):
        assert client.post(f"/queue/{lead.id}/approve", data={"version": version}).status_code == 400


def test_many_at_once_give_a_result_each(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    leads = [make_lead(session, workspace, f"lead {n}", name=f"Person {n}", **DRAFT) for n in range(3)]
    chosen = [
        f"{leads[0].id}:{leads[0].version}",
        f"{leads[1].id}:{leads[1].version + 5}",
        f"{leads[2].id}:{leads[2].version}",
    ]
    answer = client.post("/queue/bulk", data={"lead": chosen, "action": "approve"})
    assert answer.status_code == 200
    assert "2 of 3 done" in answer.text and "1 could not be done" in answer.text and "Undo these" in answer.text
    statuses = session.scalars(sa.select(Lead.status).order_by(Lead.message)).all()
    assert statuses == [LeadStatus.APPROVED, LeadStatus.NEW_DRAFT, LeadStatus.APPROVED]
    undone = [f"{lead.id}:2" for lead in (leads[0], leads[2])]
    assert "2 of 2 done" in client.post("/queue/bulk", data={"lead": undone, "action": "undo"}).text


def test_bulk_reject_needs_a_reason_and_bulk_assign_a_member(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead, mate = make_lead(session, workspace, **DRAFT), make_user(session, workspace, name="Max Weber")
    chosen = {"lead": f"{lead.id}:{lead.version}"}
    assert client.post("/queue/bulk", data=chosen | {"action": "reject"}).status_code == 400
    assert "assigned" in client.post("/queue/bulk", data=chosen | {"action": "assign", "assignee": str(mate.id)}).text
    stranger = client.post("/queue/bulk", data=chosen | {"action": "assign", "assignee": "nonsense"})
    assert "no such member" in stranger.text
    session.refresh(lead)
    assert lead.assignee_id == mate.id


def test_a_rerun_is_queued_and_the_page_follows_it(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace)
    session.execute(sa.update(Run).values(status="success", finished_at=sa.func.now()))
    session.commit()
    assert 'hx-trigger="every 2s"' not in client.get(f"/queue/{lead.id}").text
    answer = client.post(f"/queue/{lead.id}/rerun", follow_redirects=True)
    assert "Run queued" in answer.text and 'hx-trigger="every 2s"' in answer.text
    assert session.scalars(sa.select(Run.requested_by).where(Run.status == "queued")).one() == "Ana Torres"


def test_opening_a_lead_claims_it_softly(
    app: Flask, client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any, login: Callable[..., Any]
) -> None:
    lead = make_lead(session, workspace)
    assert "yours" in client.get(f"/queue/{lead.id}").text
    colleague = app.test_client()
    login(colleague, Role.REVIEWER, name="Max Weber")
    assert "Ana Torres has it open" in colleague.get(f"/queue/{lead.id}").text
    assert "Max Weber has it open" in client.post(f"/queue/{lead.id}/here").text
    assert colleague.post(f"/queue/{lead.id}/leave").status_code == 204
    assert "Max Weber" not in client.post(f"/queue/{lead.id}/here").text


def test_a_viewer_claims_nothing_by_reading(
    client: FlaskClient, session: Session, workspace: Workspace, login: Callable[..., Any]
) -> None:
    login(client, Role.VIEWER)
    assert "yours" not in client.get(f"/queue/{make_lead(session, workspace).id}").text


def test_forged_forms_are_refused(
    app: Flask, client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace, **DRAFT)
    app.config["WTF_CSRF_ENABLED"] = True
    try:
        answer = client.post(f"/queue/{lead.id}/approve", data={"version": lead.version})
        assert answer.status_code == 400 and "form has expired" in answer.text
        assert client.post("/login", data={"email": "a@b.c", "password": "x"}).status_code == 400
    finally:
        app.config["WTF_CSRF_ENABLED"] = False
    session.refresh(lead)
    assert lead.status is LeadStatus.NEW_DRAFT

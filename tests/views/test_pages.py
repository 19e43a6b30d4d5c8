"""What pages show: every state in words, nothing hostile let through, fragments for htmx."""

import csv
import io
import re
from collections.abc import Callable
from contextlib import suppress
from html import unescape
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from flask import Flask, before_render_template
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests.factories import PASSWORD, make_lead, make_user, make_workspace
from tests.views.conftest import fragment
from webapp.extensions import limiter
from webapp.leads import audit, run
from webapp.leads.states import DeliveryState, DestinationKind, LeadStatus, Role, RunStatus
from webapp.models import Delivery, DeliveryAttempt, Destination, Lead, Membership, Presence, Run, User, Workspace
from webapp.views import evidence, export
from webapp.views.lead import stored_verdict

HOSTILE = "<script>alert('x')</script> urgent \"price\" & <b>how much</b>?"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}")


def text_of(html: str) -> str:
    """What a person reads."""
    html = re.sub(r"(?s)<(head|option|datalist).*?</\1>", "", html)
    return unescape(re.sub(r"(?s)<[^>]*>", " ", html))


@pytest.mark.parametrize(
    "path", ["/queue", "/queue?view=mine", "/queue?view=all&q=x", "/runs", "/runs?status=failed", "/deliveries",
             "/deliveries?state=stuck", "/settings", "/settings/members", "/settings/keys", "/settings/destinations"],
)  # fmt: skip
def test_empty_pages_say_what_is_missing(
    client: FlaskClient, workspace: Workspace, login: Callable[..., Any], path: str
) -> None:
    login(client, Role.ADMIN)
    answer = client.get(path)
    assert answer.status_code == 200
    assert "None" not in text_of(answer.text)


def test_a_workspace_without_leads_is_told_how_to_get_some(
    client: FlaskClient, session: Session, workspace: Workspace, login: Callable[..., Any]
) -> None:
    login(client, Role.ADMIN)
    html = client.get("/queue").text
    assert "No leads yet" in html and "All done" not in html and "Choose one from the list" not in html
    assert all(path in html for path in ('"/settings/keys"', '"/imports/new"', '"/settings/inbound"'))
    make_lead(session, workspace, status=LeadStatus.APPROVED)
    html = client.get("/queue").text
    assert "No leads yet" not in html and "All done" in html


def test_hostile_text_is_shown_as_text(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace, HOSTILE, name="<img src=x onerror=alert(1)>", company='"><svg onload=1>')
    for path in ("/queue?view=all", f"/queue/{lead.id}", "/runs", f"/queue?q={HOSTILE}"):
        html = client.get(path).text
        assert "<script>alert" not in html and "<img src=x" not in html and "<svg onload" not in html
        assert "&lt;img src=x" in html or path.startswith("/queue?q")


@pytest.mark.parametrize(
    "message", [HOSTILE, "Cho tôi báo giá gói Enterprise", "Cần báo giá gấp", "Need urgent pricing for 50 seats ASAP! 🙂🙂 Want to buy",
                "", "\n\n price \n", "x" * 5000],
)  # fmt: skip
def test_highlighting_keeps_every_character_and_marks_the_evidence(
    session: Session, workspace: Workspace, message: str
) -> None:
    lead = make_lead(session, workspace, message)
    verdict = stored_verdict(lead)
    assert verdict is not None
    pieces = evidence.pieces(lead.message, verdict)
    assert "".join(piece.text for piece in pieces) == message
    marked = [piece.text for piece in pieces if piece.kind]
    decisive = {message[s.start : s.end] for s in verdict.evidence if s.label == verdict.intent or s.kind == "priority"}
    assert {text for text in decisive if evidence.telling(text)} <= set(marked)
    assert set(marked) <= {message[span.start : span.end] for span in verdict.evidence}
    assert all(evidence.telling(text) for text in marked)


def test_overlapping_and_outlying_spans_lose_no_text() -> None:
    from webapp.leads.states import Intent, NextAction, Priority
    from webapp.leads.types import Span, Verdict

    spans = tuple(Span(a, b, "intent", "spam", "") for a, b in ((-5, 3), (2, 4), (3, 99), (50, 60), (4, 2)))
    verdict = Verdict(Intent.SPAM, Priority.P3, NextAction.IGNORE, 0.5, evidence=spans)
    assert "".join(piece.text for piece in evidence.pieces("0123456789", verdict)) == "0123456789"


def test_a_lead_page_reads_without_ids_or_raw_values(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace, "Could you call me? Not interested in a demo", source="contact_form")
    read = text_of(client.get(f"/queue/{lead.id}").text)
    assert not UUID.search(read)
    for raw in ("new_", "contact_request", "inquiry_price", "LEAD_SIGNAL", "{", "None"):
        assert raw not in read, raw
    assert "not yet measured" in read and "runner-up" in read


def test_a_verdict_that_cannot_be_read_breaks_nothing(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace)
    session.execute(sa.update(Lead).values(verdict={"intent": "from the future"}))
    session.commit()
    assert "cannot be read" in client.get(f"/queue/{lead.id}").text


def test_the_score_is_the_sum_of_what_is_shown(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    parts = [
        {"name": "intent", "points": 40, "reason": "wants a price"},
        {"name": "budget", "points": 15, "reason": "50 seats"},
    ]
    lead = make_lead(session, workspace, score=55, score_parts=parts, qualified=False)
    read = re.sub(r"\s+", " ", text_of(client.get(f"/queue/{lead.id}").text))
    assert "+40" in read and "+15" in read and "Total not qualified · from 60 55" in read


def test_fragments_hold_only_their_part_and_caches_know(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace, status=LeadStatus.NEW_DRAFT)
    full = client.get(f"/queue/{lead.id}")
    pane = client.get(f"/queue/{lead.id}", headers=fragment("pane"))
    results = client.get("/queue?view=draft", headers=fragment("results"))
    back = client.get(f"/queue/{lead.id}", headers=fragment("pane") | {"HX-Request-Type": "full"})
    assert "<html" in full.text and "<html" in back.text
    assert "<html" not in pane.text and 'class="rows"' not in pane.text and "Verdict and why" in pane.text
    assert "<html" not in results.text and 'class="rows"' in results.text
    assert "HX-Request" in full.headers["Vary"]


def test_an_expired_session_sends_htmx_to_the_log_in_page(client: FlaskClient, workspace: Workspace) -> None:
    answer = client.get("/queue", headers=fragment("results") | {"HX-Current-URL": "http://localhost/queue?view=auto"})
    assert answer.status_code == 401
    assert answer.headers["HX-Redirect"] == "/login?next=/queue?view%3Dauto"


def test_a_lead_with_a_long_history_takes_no_more_statements(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace)
    asked: list[str] = []
    sa.event.listen(session.get_bind(), "before_cursor_execute", note := lambda *args: asked.append(args[2]))
    try:
        client.get(f"/queue/{lead.id}")
        few = len(asked)
        for n in range(5):
            audit.record(session, workspace.id, "LEAD_ASSIGNED", actor="Ana", lead_id=lead.id, assignee=f"User {n}")
            run.request_rerun(session, lead, requested_by="Ana")
            session.commit()
        asked.clear()
        html = client.get(f"/queue/{lead.id}").text
    finally:
        sa.event.remove(session.get_bind(), "before_cursor_execute", note)
    assert "User 4" in html
    assert len(asked) <= few


def test_nobody_waits_for_a_lead_whose_page_is_put_together(
    app: Flask, client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    lead = make_lead(session, workspace)
    take = sa.select(Lead.id).where(Lead.id == lead.id).with_for_update(nowait=True)
    taken = []

    def decide(*_: Any, **__: Any) -> None:
        taken.append(session.scalar(take))
        session.rollback()

    with before_render_template.connected_to(decide, app):
        client.get(f"/queue/{lead.id}")
        client.get(f"/queue/{lead.id}", headers=fragment("pane"))
    assert taken and set(taken) == {lead.id}
    assert session.scalar(sa.select(sa.func.count()).select_from(Presence)) == 1


def test_new_leads_wait_to_be_asked_for(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    page = client.get("/queue?view=all").text
    path = unescape(re.search(r'hx-get="(/queue/news[^"]+)"', page)[1])  # type: ignore[index]
    assert "new" not in text_of(client.get(path).text)
    make_lead(session, workspace)
    make_lead(session, workspace, "another")
    assert "2 new" in client.get(path).text


def test_a_filter_that_is_not_understood_is_named(client: FlaskClient, workspace: Workspace, reviewer: Any) -> None:
    answer = client.get("/queue?intent=nonsense&cursor=x")
    assert answer.status_code == 200 and "not understood" in answer.text and "“intent”" in answer.text


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "＝", " ="])
def test_cells_that_spreadsheets_would_run_are_defused(start: str) -> None:
    assert export.cell(f"{start}cmd|'/c calc'!A1").startswith("'")


def test_the_export_is_the_list(client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any) -> None:
    make_lead(session, workspace, '=HYPERLINK("http://evil.example")', name="+1", status=LeadStatus.NEW_DRAFT)
    make_lead(session, workspace, 'Tiếng Việt, "quoted"\nsecond line', status=LeadStatus.NEW_DRAFT)
    make_lead(session, workspace, "not in this view", status=LeadStatus.APPROVED)
    answer = client.get("/queue/export.csv?view=draft")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    rows = list(csv.DictReader(io.StringIO(answer.data.decode("utf-8-sig"))))
    assert [row["message"] for row in rows] == [
        'Tiếng Việt, "quoted"\nsecond line',
        '\'=HYPERLINK("http://evil.example")',
    ]
    assert rows[1]["name"] == "'+1"


def test_runs_show_what_went_wrong(client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any) -> None:
    lead = make_lead(session, workspace, name="Jane Roe")
    session.execute(sa.update(Run).values(status=RunStatus.FAILED, error="The run crashed (ValueError: bad row)"))
    session.commit()
    for path in ("/runs", "/runs?status=failed", "/runs?status=unrepaired"):
        assert "bad row" in client.get(path).text and "Jane Roe" in client.get(path).text
    assert "Jane Roe" not in text_of(client.get("/runs?status=success").text)
    assert "1 failed run" in client.get("/queue").text
    client.post(f"/queue/{lead.id}/rerun")
    assert "Jane Roe" not in text_of(client.get("/runs?status=unrepaired").text)


def test_dead_deliveries_are_seen_and_sent_again(
    client: FlaskClient, session: Session, workspace: Workspace, login: Callable[..., Any]
) -> None:
    login(client, Role.MANAGER)
    lead = make_lead(session, workspace, name="Jane Roe")
    hook = Destination(
        workspace_id=workspace.id, kind=DestinationKind.WEBHOOK, name="Ops hook", config={"url": "https://a.example"}
    )
    session.add(hook)
    session.flush()
    dead = Delivery(
        workspace_id=workspace.id, lead_id=lead.id, destination_id=hook.id, action="lead.approved",
        state=DeliveryState.DEAD, last_error="It answered 500", tries=8,
    )  # fmt: skip
    session.add(dead)
    session.flush()
    session.add(
        DeliveryAttempt(workspace_id=workspace.id, delivery_id=dead.id, attempt=1, outcome="dead", http_status=500)
    )
    session.commit()
    assert "1 not delivered" in client.get("/queue").text
    assert "It answered 500" in client.get("/deliveries?state=stuck").text
    assert "Send again" in client.get(f"/deliveries/{dead.id}").text
    assert "Queued again" in client.post(f"/deliveries/{dead.id}/replay", follow_redirects=True).text
    session.refresh(dead)
    assert dead.state is DeliveryState.PENDING
    assert client.post(f"/deliveries/{dead.id}/replay").status_code == 409


def test_thresholds_are_checked_and_kept(
    client: FlaskClient, session: Session, workspace: Workspace, login: Callable[..., Any]
) -> None:
    login(client, Role.MANAGER)
    for bad in (
        {"auto_from": "nan"},
        {"auto_from": "1.1"},
        {"draft_from": "0.9"},
        {"qualified_from": "101"},
        {"qualified_from": "²"},
    ):
        given = {"auto_from": "0.85", "draft_from": "0.70", "qualified_from": "60"} | bad
        assert client.post("/settings", data=given).status_code == 422, bad
    good = {"auto_from": "0.9", "draft_from": "0.6", "qualified_from": "50"}
    assert "Saved" in client.post("/settings", data=good, follow_redirects=True).text
    session.refresh(workspace)
    assert (workspace.auto_from, workspace.draft_from, workspace.qualified_from) == (0.9, 0.6, 50)


def test_a_new_member_gets_a_password_once_and_can_log_in(
    client: FlaskClient, session: Session, workspace: Workspace, login: Callable[..., Any]
) -> None:
    login(client, Role.ADMIN)
    data = {"name": "Nora New", "email": "Nora@Example.com", "role": "reviewer"}
    created = client.post("/settings/members", data=data)
    assert created.status_code == 201
    password = re.search(r'class="secret">([^<]+)<', created.text)[1]  # type: ignore[index]
    assert password not in client.get("/settings/members").text
    assert client.post("/settings/members", data=data).status_code == 422
    fresh = client.application.test_client()
    assert fresh.post("/login", data={"email": "nora@example.com", "password": password}).status_code == 302
    nora = session.scalars(sa.select(User).where(User.email == "nora@example.com")).one()
    client.post(f"/settings/members/{nora.id}", data={"role": "viewer"})
    membership = session.get_one(Membership, (workspace.id, nora.id), populate_existing=True)
    assert (membership.role, membership.takes_leads) == (Role.VIEWER, False)
    client.post(f"/settings/members/{nora.id}/remove")
    assert fresh.get("/queue").status_code == 302


def test_the_last_admin_stays(client: FlaskClient, workspace: Workspace, login: Callable[..., Any]) -> None:
    admin = login(client, Role.ADMIN)
    assert client.post(f"/settings/members/{admin.id}", data={"role": "viewer"}).status_code == 409
    assert client.post(f"/settings/members/{admin.id}/remove").status_code == 409


def test_a_key_is_shown_once_and_ends_when_revoked(
    client: FlaskClient, workspace: Workspace, login: Callable[..., Any]
) -> None:
    login(client, Role.ADMIN)
    created = client.post("/settings/keys", data={"name": "website", "scopes": ["ingest", "read"]})
    secret = re.search(r'class="secret">([^<]+)<', created.text)[1]  # type: ignore[index]
    listed = client.get("/settings/keys").text
    assert secret not in listed and secret[:8] in listed
    key_id = re.search(r"/settings/keys/([0-9a-f-]{36})/revoke", listed)[1]  # type: ignore[index]
    assert "Revoked" in client.post(f"/settings/keys/{key_id}/revoke", follow_redirects=True).text
    assert client.post("/settings/keys", data={"name": "", "scopes": ["platform"]}).status_code == 422


def test_webhooks_are_added_switched_and_environment_ones_are_not(
    client: FlaskClient, session: Session, workspace: Workspace, login: Callable[..., Any]
) -> None:
    login(client, Role.ADMIN)
    add = "/settings/destinations/new/webhook"
    on = {"on": ["approved", "overridden", "new_auto"]}
    assert client.get("/settings/destinations/new/nonsense").status_code == 404
    assert client.post(add, data={"name": "a\x00b"}).status_code == 400
    assert client.post(add, data={"name": "x", "url": "ftp://x", **on}).status_code == 422
    created = client.post(add, data={"name": "Ops", "url": "https://ops.example/hook", **on})
    assert created.status_code == 201 and "whsec_" in created.text
    hook = session.scalars(sa.select(Destination)).one()
    there = f"/settings/destinations/{hook.id}"
    assert not re.search(r"whsec_[A-Za-z0-9]", client.get(there).text)
    shown = client.post(there, data={"preview": "1", "more-name": "who", "more-value": "Lead: {message}", **on}).text
    assert "what it would hold" in shown and "Lead: {message}" in shown
    assert "Switched off" in client.post(f"{there}/off", follow_redirects=True).text
    assert "only watching" in client.post(f"{there}/shadow", follow_redirects=True).text
    session.execute(sa.update(Destination).values(managed_by="environment"))
    session.commit()
    assert client.post(f"{there}/live").status_code == 409
    assert "set by the environment" in client.get("/settings/destinations").text
    assert "set by the environment" in client.get(there).text


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("n8n", {"url": "https://n8n.example/hook"}, "Social leads of high priority"),
        ("callback", {"url": "https://hooks.example.com"}, "Leads that came with a callback_url"),
    ],
)
def test_a_kind_that_chooses_its_leads_itself_takes_no_rules_and_no_test(
    client: FlaskClient, session: Session, login: Callable[..., Any], kind: str, values: dict[str, str], said: str
) -> None:
    login(client, Role.ADMIN)
    add = f"/settings/destinations/new/{kind}"
    empty = client.get(add).text
    assert said in empty and 'name="on"' not in empty
    refused = client.post(add, data={"name": "There", "form": "1", "on": ["approved"], **values})
    assert refused.status_code == 422
    assert client.post(add, data={"name": "There", "form": "1", **values}).status_code in (201, 303)
    there = session.scalars(sa.select(Destination)).one()
    assert there.rules == {}
    page = client.get(f"/settings/destinations/{there.id}").text
    assert said in page and "Send a test" not in page and "no failure" in page
    assert client.post(f"/settings/destinations/{there.id}/test").status_code == 409
    assert said.lower() in client.get("/settings/destinations").text.lower()
    if kind == "callback":
        fresh = client.post(f"/settings/destinations/{there.id}/secret").text
        assert "Give up the old secret" in fresh and "whsec_" in fresh


def test_log_in_tells_nobody_who_exists_and_goes_only_to_our_pages(
    client: FlaskClient, session: Session, workspace: Workspace
) -> None:
    user = make_user(session, workspace)
    wrong = [client.post("/login", data={"email": e, "password": "no"}) for e in (user.email, "nobody@example.com")]
    assert {answer.status_code for answer in wrong} == {401}
    assert client.post("/login", data={"email": "\x00", "password": "no"}).status_code == 400
    for there in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "\\\\evil"):
        fresh = client.application.test_client()
        answer = fresh.post("/login", data={"email": user.email, "password": PASSWORD, "next": there})
        assert answer.location == "/queue", there
    fresh = client.application.test_client()
    answer = fresh.post("/login", data={"email": user.email, "password": PASSWORD, "next": "/runs?status=failed"})
    assert answer.location == "/runs?status=failed"
    assert fresh.post("/logout").status_code == 303
    assert fresh.get("/queue").status_code == 302


def test_guessing_passwords_is_slowed_down(app: Flask, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "enabled", True)
    guesser = app.test_client()
    seen = [guesser.post("/login", data={"email": "a@b.c", "password": "x"}).status_code for _ in range(22)]
    assert seen[-1] == 429
    assert "too many log-in attempts" in guesser.post("/login", data={}).text
    # The limiter is of all apps of a process: a test before may have left it with a Redis that is away.
    with app.app_context(), suppress(redis.exceptions.ConnectionError):
        limiter.reset()


def test_the_workspace_switcher_shows_only_where_there_is_a_choice(
    client: FlaskClient, session: Session, workspace: Workspace, login: Callable[..., Any]
) -> None:
    user = login(client)
    assert "/workspace" not in client.get("/queue").text
    other = make_workspace(session, "Another One")
    session.add(Membership(workspace_id=other.id, user_id=user.id, role=Role.VIEWER))
    session.commit()
    assert "Another One" in client.get("/queue").text
    client.post("/workspace", data={"workspace": str(other.id)})
    assert re.search(r'class="name">Another One', client.get("/queue").text)
    assert client.post("/workspace", data={"workspace": str(make_workspace(session).id)}).status_code == 404


def test_error_pages_say_what_to_press(client: FlaskClient, workspace: Workspace, reviewer: Any) -> None:
    answer = client.get("/nowhere")
    assert answer.status_code == 404 and 'class="btn go"' in answer.text
    assert "<html" not in client.get("/queue/00000000-0000-0000-0000-000000000000", headers=fragment("pane")).text


def test_nothing_inline_that_the_policy_would_block(
    client: FlaskClient, session: Session, workspace: Workspace, login: Callable[..., Any]
) -> None:
    login(client, Role.ADMIN)
    lead = make_lead(session, workspace)
    for path in (
        "/queue",
        f"/queue/{lead.id}",
        "/runs",
        "/deliveries",
        "/settings/members",
        "/login",
        f"/queue/{lead.id}/reject",
    ):
        html = client.get(path, follow_redirects=True).text
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|hx-on|js:", html), path


def test_assets_may_be_kept_since_their_address_changes_with_them(client: FlaskClient, workspace: Workspace) -> None:
    html = client.get("/login").text
    css = re.search(r'href="(/static/app\.css\?v=[0-9a-f]+)"', html)
    assert css
    with client.get(css[1]) as answer:
        assert "immutable" in answer.headers["Cache-Control"]

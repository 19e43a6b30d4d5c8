"""``/api/v1``, docs/api.md §5."""

import json
import uuid
from typing import Any

import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests import factories
from webapp.leads.states import Scope
from webapp.models import Decision, Lead, Run, Workspace

LEAD = {"message": "Cho tôi báo giá gói Enterprise", "email": "an@example.com", "name": "An"}


def test_a_full_lead(client: FlaskClient, headers: dict[str, str], session: Session, app: Flask) -> None:
    sent = LEAD | {
        "lead_id": "crm-7", "company": "Acme", "budget": 12000, "utm_source": "google", "gclid": "g1",
        "consent": True, "consent_at": "2026-11-20T08:00:00Z", "date_of_birth": "1990-01-02", "job_title": "CTO",
        "nested": {"monthly_salary": 3}, "anything": "else",
    }  # fmt: skip
    answer = client.post("/api/v1/leads", json=sent, headers=headers)
    assert answer.status_code == 201, answer.text
    body = answer.json
    assert answer.headers["Location"] == f"/api/v1/leads/{body['id']}"
    assert (body["intent"], body["priority"], body["status"]) == ("inquiry_price", "P1", "new_auto")
    assert body["confidence"] >= 0.85 and body["version"] == 1
    assert body["attribution"] == {"utm_source": "google", "gclid": "g1"}
    assert body["consent"] == "yes" and body["consent_at"].startswith("2026-11-20T08:00:00")
    stored = str(
        tuple(
            session.execute(sa.text("SELECT attributes, payload_json FROM leads JOIN runs ON lead_id = leads.id")).one()
        )
    )
    assert "1990-01-02" not in stored and "CTO" in stored and "else" in stored
    lead = session.scalars(sa.select(Lead)).one()
    assert app.extensions["cipher"].decrypt(lead.attributes["date_of_birth"]) == "1990-01-02"
    assert client.get("/api/v1/leads/crm-7", headers=headers).json["id"] == body["id"]


def test_every_problem_at_once(client: FlaskClient, headers: dict[str, str]) -> None:
    answer = client.post(
        "/api/v1/leads", json={"message": 1, "email": "x", "budget": "lots", "name": []}, headers=headers
    )
    assert answer.status_code == 400
    assert {d["field"] for d in answer.json["error"]["details"]} == {"message", "email", "budget", "name"}
    assert client.post("/api/v1/leads", json={"name": "An"}, headers=headers).status_code == 400


def test_duplicates_are_409_and_name_the_lead(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    first = client.post("/api/v1/leads", json=LEAD | {"lead_id": "x1"}, headers=headers).json
    for again in (
        LEAD | {"lead_id": "x1", "message": "other", "email": "b@example.com"},
        LEAD,
        LEAD | {"lead_id": "x2"},
    ):
        answer = client.post("/api/v1/leads", json=again, headers=headers)
        assert (answer.status_code, answer.json["error"]["code"]) == (409, "resource_exists")
        assert answer.json["error"]["details"] == [{"field": "lead_id", "reason": first["id"]}]
    assert session.scalar(sa.select(sa.func.count()).select_from(Lead)) == 1


def test_an_idempotency_key_replays(client: FlaskClient, headers: dict[str, str]) -> None:
    keyed = headers | {"Idempotency-Key": "any token"}
    first = client.post("/api/v1/leads", json=LEAD | {"lead_id": "k1"}, headers=keyed)
    again = client.post("/api/v1/leads", json=LEAD | {"lead_id": "k1"}, headers=keyed)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json["id"] == first.json["id"] and again.headers["Idempotent-Replayed"] == "true"
    other = client.post("/api/v1/leads", json=LEAD | {"lead_id": "k2"}, headers=keyed)
    assert (other.status_code, other.json["error"]["code"]) == (409, "idempotency_mismatch")
    long = headers | {"Idempotency-Key": "x" * 256}
    assert client.post("/api/v1/leads", json=LEAD, headers=long).status_code == 400


def test_listing_pages_by_cursor_without_gap_or_repeat(
    client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace
) -> None:
    made = {str(factories.make_lead(session, workspace).id) for _ in range(7)}
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = client.get("/api/v1/leads", query_string=query, headers=headers).json
        seen += [lead["id"] for lead in page["leads"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert len(seen) == 7 and set(seen) == made
    assert client.get("/api/v1/leads?cursor=garbage", headers=headers).status_code == 400
    assert client.get("/api/v1/leads?status=nonsense", headers=headers).status_code == 400


def decide(client: FlaskClient, headers: dict[str, str], lead: Any, **body: Any) -> Any:
    return client.post(f"/api/v1/leads/{lead.id}/decision", json={"version": 1} | body, headers=headers)


def test_decisions(client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace) -> None:
    approved, overridden, rejected, plain = (factories.make_lead(session, workspace) for _ in range(4))
    assert decide(client, headers, approved, action="approve").json["status"] == "approved"
    answer = decide(client, headers, overridden, action="override", intent="demo_request", reason="wants to see it")
    assert (answer.json["status"], answer.json["intent"], answer.json["version"]) == ("overridden", "demo_request", 2)
    assert decide(client, headers, rejected, action="reject", reason="competitor").json["status"] == "rejected"
    assert decide(client, headers, plain, action="reject", reason="they sell boats").json["status"] == "rejected"
    reasons = {
        (d.reject_reason, d.reason) for d in session.scalars(sa.select(Decision).where(Decision.action == "reject"))
    }
    assert reasons == {("competitor", None), ("other", "they sell boats")}


def test_a_stale_version_is_409_with_who_and_what(
    client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace
) -> None:
    lead = factories.make_lead(session, workspace)
    assert decide(client, headers, lead, action="approve").status_code == 200
    stale = decide(client, headers, lead, action="reject", reason="spam")
    assert (stale.status_code, stale.json["error"]["code"]) == (409, "version_conflict")
    assert "test key (API) approved this lead" in stale.json["error"]["message"]
    assert {"field": "status", "reason": "approved"} in stale.json["error"]["details"]
    assert session.scalar(sa.select(sa.func.count()).select_from(Decision)) == 1


def test_bad_decisions(client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace) -> None:
    lead = factories.make_lead(session, workspace)
    for body in (
        {"action": "explode"}, {"action": "approve", "version": "1"}, {"action": "approve", "version": True},
        {"action": "override"}, {"action": "override", "intent": "buy"}, {"action": "approve", "priority": "P0"},
        {"action": "approve", "extra": 1},
    ):  # fmt: skip
        assert decide(client, headers, lead, **body).status_code == 400, body
    reader = {"X-API-Key": factories.make_key(session, workspace, scopes={Scope.READ, Scope.INGEST})}
    assert decide(client, reader, lead, action="approve").status_code == 403
    other = {"X-API-Key": factories.make_key(session, factories.make_workspace(session))}
    assert decide(client, other, lead, action="approve").status_code == 404


def test_runs_and_reruns(client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace) -> None:
    lead = factories.make_lead(session, workspace)
    runs = client.get(f"/api/v1/leads/{lead.id}/runs", headers=headers).json["runs"]
    assert [(run["state"], run["trigger"]) for run in runs] == [("queued", "intake")]
    session.execute(sa.update(Run).values(status="success"))
    session.commit()
    answer = client.post(f"/api/v1/leads/{lead.id}/rerun", headers=headers)
    assert answer.status_code == 202 and answer.json["trigger"] == "rerun"
    assert client.post(f"/api/v1/leads/{uuid.uuid4()}/rerun", headers=headers).status_code == 404


def test_a_refused_repeat_is_counted_all_the_same(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    client.post("/api/v1/leads", json=LEAD, headers=headers)
    assert client.post("/api/v1/leads", json=LEAD, headers=headers).status_code == 409
    assert session.scalar(sa.select(Lead.touches)) == 2
    assert client.get("/audit/events", headers=headers).json[0]["event_type"] == "LEAD_TOUCHED"


def test_equal_numbers_are_equal_bodies(client: FlaskClient, headers: dict[str, str]) -> None:
    keyed = headers | {"Idempotency-Key": "n"}
    assert client.post("/api/v1/leads", json=LEAD | {"budget": 5}, headers=keyed).status_code == 201
    again = client.post(
        "/api/v1/leads", data=json.dumps(LEAD | {"budget": 5.0}), headers=keyed, content_type="application/json"
    )
    assert again.status_code == 200


def test_names_are_kept_apart(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    client.post(
        "/api/v1/leads", json=LEAD | {"name": None, "first_name": "Mary Ann", "last_name": "Van Dyke"}, headers=headers
    )
    lead = session.scalars(sa.select(Lead)).one()
    assert lead.name == "Mary Ann Van Dyke"
    assert (lead.attributes["first_name"], lead.attributes["last_name"]) == ("Mary Ann", "Van Dyke")

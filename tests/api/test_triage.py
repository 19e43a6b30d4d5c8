"""``POST /leads/`` and its readers, to the letter of docs/api.md §2."""

import threading
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests import factories
from webapp.leads.states import Scope
from webapp.models import AuditEvent, Lead, Person, Run, Touch, Workspace

NOTE = "Need urgent pricing for 50 seats ASAP! Want to buy next week."


def post(client: FlaskClient, headers: dict[str, str], key: str | None = None, **body: Any) -> Any:
    sent = headers | {"Idempotency-Key": key or str(uuid.uuid4())}
    return client.post("/leads/", json={"note": NOTE} | body, headers=sent)


def test_a_lead_is_judged_and_echoed_as_sent(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    answer = post(client, headers, email="Ana.Silva@Example.COM", phone="(202) 555-0123", name=" Ana ", source="web")
    assert answer.status_code == 201
    body = answer.json
    assert list(body) == ["id", "email", "phone", "name", "note", "source", "created_at"]
    assert body["email"] == "Ana.Silva@Example.COM" and body["name"] == " Ana " and body["note"] == NOTE
    assert body["created_at"].endswith("Z")
    lead = session.get_one(Lead, uuid.UUID(body["id"]))
    assert lead.email_normalized == "ana.silva@example.com"
    assert lead.phone_e164 == "+12025550123"
    assert (lead.priority, lead.intent) == ("P0", "purchase_intent")
    assert session.scalar(sa.select(Run.status).where(Run.lead_id == lead.id)) == "queued"
    event = session.scalars(sa.select(AuditEvent).where(AuditEvent.lead_id == lead.id)).one()
    assert (event.event_type, event.actor) == ("LEAD_SIGNAL_CREATED", "SYSTEM")
    insight = client.get(f"/leads/{lead.id}/insight", headers=headers).json
    assert insight["intent"] == "buy" and insight["priority"] == "P0" and insight["next_action"] == "call"
    assert insight["content_hash"] == lead.content_hash


def test_a_repeat_is_byte_for_byte_the_same_and_says_so(client: FlaskClient, headers: dict[str, str]) -> None:
    key = str(uuid.uuid4())
    first = post(client, headers, key, email="a@example.com")
    again = post(client, headers, key, email="a@example.com")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.data == again.data
    assert again.headers["Idempotent-Replayed"] == "true" and "Idempotent-Replayed" not in first.headers


def test_the_same_key_with_another_body_is_a_mismatch(client: FlaskClient, headers: dict[str, str]) -> None:
    key = str(uuid.uuid4())
    post(client, headers, key, email="a@example.com")
    answer = post(client, headers, key, email="b@example.com")
    assert answer.status_code == 409 and answer.json["error"]["code"] == "idempotency_mismatch"


def test_a_key_belongs_to_its_workspace(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    key = str(uuid.uuid4())
    other = {"X-API-Key": factories.make_key(session, factories.make_workspace(session))}
    assert post(client, headers, key).status_code == 201
    assert post(client, other, key).status_code == 201


def test_an_expired_key_may_be_used_anew(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    key = str(uuid.uuid4())
    first = post(client, headers, key, email="a@example.com")
    session.execute(sa.text("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'"))
    session.commit()
    again = post(client, headers, key, email="c@example.com")
    assert again.status_code == 201 and again.json["id"] != first.json["id"]


def test_fifty_posts_of_one_key_make_one_lead(app: Flask, headers: dict[str, str], session: Session) -> None:
    key = str(uuid.uuid4())
    barrier = threading.Barrier(50)
    answers: list[Any] = []

    def one() -> None:
        with app.test_client() as client:
            barrier.wait()
            answers.append(post(client, headers, key, email="a@example.com", phone="+12025550123"))

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses.count(201) == 1, statuses
    assert set(statuses) <= {200, 201, 409}
    assert len({answer.data for answer in answers if answer.status_code < 300}) == 1
    assert session.scalar(sa.select(sa.func.count()).select_from(Lead)) == 1


def test_the_same_person_saying_the_same_is_a_touch(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    first = post(client, headers, email="a@example.com")
    again = post(client, headers, email="A@Example.com", note=f"  {NOTE.upper()} ")
    assert again.status_code == 201
    assert again.json["id"] == first.json["id"] and again.json["created_at"] == first.json["created_at"]
    assert session.scalar(sa.select(Lead.touches)) == 2
    assert session.scalar(sa.select(sa.func.count()).select_from(Touch)) == 1


def test_a_touch_is_replayed_with_the_lead_it_touched(client: FlaskClient, headers: dict[str, str]) -> None:
    first = post(client, headers, email="a@example.com")
    key = str(uuid.uuid4())
    touched, replayed = (post(client, headers, key, email="a@example.com") for _ in range(2))
    assert (touched.status_code, replayed.status_code) == (201, 200)
    assert touched.data == replayed.data and touched.json["id"] == first.json["id"]


def test_the_same_words_after_the_window_are_a_new_lead(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    first = post(client, headers, email="a@example.com")
    session.execute(sa.text("UPDATE leads SET created_at = now() - interval '31 days'"))
    session.commit()
    key = str(uuid.uuid4())
    second = post(client, headers, key, email="a@example.com")
    assert second.status_code == 201 and second.json["id"] != first.json["id"]
    assert post(client, headers, key, email="a@example.com").json["id"] == second.json["id"]


def test_another_message_of_a_person_is_a_new_lead_linked_to_them(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    post(client, headers, email="a@example.com")
    post(client, headers, email="a@example.com", note="Could we get a demo?")
    people = session.scalars(sa.select(Lead.person_id)).all()
    assert len(people) == 2 and len(set(people)) == 1
    assert session.scalar(sa.select(sa.func.count()).select_from(Person)) == 1


def test_an_unsubscribe_sets_do_not_contact(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    post(client, headers, email="a@example.com", note="I would like to unsubscribe")
    assert session.scalar(sa.select(Person.do_not_contact)) is True


def test_what_a_reviewer_lifted_stays_lifted_when_the_same_comes_again(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    first = post(client, headers, email="a@example.com", note="I would like to unsubscribe").json["id"]
    override = {"action": "override", "intent": "inquiry", "version": 1}
    assert client.post(f"/api/v1/leads/{first}/decision", json=override, headers=headers).status_code == 200
    post(client, headers, email="a@example.com", note="I would like to unsubscribe")  # a touch
    assert session.scalar(sa.select(Person.do_not_contact)) is False


def test_one_unsubscribe_of_two_found_wrong_leaves_the_other_standing(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    first = post(client, headers, email="a@example.com", note="I would like to unsubscribe").json["id"]
    post(client, headers, email="a@example.com", note="unsubscribe me, this is the second time I ask")
    override = {"action": "override", "intent": "inquiry", "version": 1}
    client.post(f"/api/v1/leads/{first}/decision", json=override, headers=headers)
    assert session.scalar(sa.select(Person.do_not_contact)) is True


@pytest.mark.parametrize(
    ("over", "field"),
    [
        ({"email": "not an address"}, "email"),
        ({"note": ""}, "note"),
        ({"note": "x" * 20_001}, "note"),
        ({"note": 7}, "note"),
        ({"note": None}, "note"),
        ({"phone": 12025550123}, "phone"),
        ({"name": ["Ana"]}, "name"),
    ],
)
def test_what_does_not_fit_is_422_and_stores_nothing(
    client: FlaskClient, headers: dict[str, str], session: Session, over: dict[str, Any], field: str
) -> None:
    answer = post(client, headers, **over)
    assert answer.status_code == 422
    assert [detail["field"] for detail in answer.json["error"]["details"]] == [field]
    assert session.scalar(sa.select(sa.func.count()).select_from(Lead)) == 0


def test_the_key_header_is_required_and_must_be_a_uuid(client: FlaskClient, headers: dict[str, str]) -> None:
    missing = client.post("/leads/", json={"note": "hi"}, headers=headers)
    assert (missing.status_code, missing.json["error"]["code"]) == (400, "missing_param")
    assert post(client, headers, "not-a-uuid").status_code == 422


def test_readers(client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace) -> None:
    made = post(client, headers, email="a@example.com").json
    read = client.get(f"/leads/{made['id']}", headers=headers).json
    assert read | made == read
    assert read["lead_id"] == made["id"] and read["crm_synced"] is False
    assert client.get("/leads/", headers=headers).json == [
        {"lead_id": made["id"], "email": "a@example.com", "crm_synced": False}
    ]
    missing = client.get(f"/leads/{uuid.uuid4()}", headers=headers)
    assert (missing.status_code, missing.json["error"]["code"]) == (404, "not_found")
    assert client.get("/leads/garbage/insight", headers=headers).status_code == 404
    other = {"X-API-Key": factories.make_key(session, factories.make_workspace(session))}
    assert client.get(f"/leads/{made['id']}", headers=other).status_code == 404


def test_credentials(client: FlaskClient, session: Session, workspace: Workspace) -> None:
    assert post(client, {}).status_code == 401
    assert post(client, {"X-API-Key": "nope"}).json["error"]["code"] == "invalid_auth"
    reader = factories.make_key(session, workspace, scopes={Scope.READ})
    refused = post(client, {"Authorization": f"Bearer {reader}"})
    assert (refused.status_code, refused.json["error"]["code"]) == (403, "insufficient_scope")
    assert client.get("/leads/", headers={"Authorization": f"Bearer {reader}"}).status_code == 200


def test_attribution_and_consent_are_kept_as_fields(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    post(client, headers, utm_source="google", gclid="g1", referrer=7, consent=True)
    lead = session.scalars(sa.select(Lead)).one()
    assert lead.attribution == {"utm_source": "google", "gclid": "g1"}
    assert lead.consent == "yes"


def test_without_the_slash_nothing_is_redirected_into_another_door(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    assert client.get("/leads", headers=headers).json == []
    answer = client.post("/leads", json={"lead_id": "x"}, headers=headers)
    assert (answer.status_code, answer.json) == (200, {"status": "created", "lead_id": "x"})


def test_a_uuid_names_the_lead_with_that_id_whatever_business_ids_exist(
    client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace
) -> None:
    mine = factories.make_lead(session, workspace)
    factories.make_lead(session, workspace, external_id=str(mine.id))
    assert client.get(f"/leads/{mine.id}", headers=headers).json["id"] == str(mine.id)

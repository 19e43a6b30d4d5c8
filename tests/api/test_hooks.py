"""``POST /hooks/{token}``: every preset, every proof, retries, hostile bodies, limits, tenancy."""

import base64
import copy
import hashlib
import hmac
import json
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from standardwebhooks.webhooks import Webhook

from tests import factories
from tests.api import hook_bodies as bodies
from webapp.leads import sources
from webapp.leads.presets import PRESETS, suggested
from webapp.leads.states import Door, QuarantineState, Verification
from webapp.models import IdempotencyKey, Lead, Person, Quarantined, Run, Workspace
from webapp.models.inbound import InboundSource

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def hook(app: Flask, session: Session, workspace: Workspace) -> Callable[..., tuple[str, InboundSource]]:
    """``hook(preset, **columns)`` → (path, source) of a new inbound webhook."""

    def make(
        preset: str = "plain", *, name: str | None = None, into: Workspace | None = None, **columns: Any
    ) -> tuple[str, InboundSource]:
        cipher = app.extensions["cipher"]
        source = sources.create(
            session, (into or workspace).id, name or f"Form {uuid.uuid4().hex[:6]}", cipher=cipher, actor="Ada"
        )
        if preset:
            sources.save_mapping(session, source, PRESETS[preset].mapping, actor="Ada")
        if "secret" in columns:
            columns["secret"] = cipher.encrypt(columns["secret"])
        for column, value in columns.items():
            setattr(source, column, value)
        session.commit()
        return "/hooks/" + cipher.decrypt(source.token), source

    return make


Hook = Callable[..., tuple[str, InboundSource]]


def leads(session: Session) -> list[Lead]:
    session.rollback()
    return list(session.scalars(sa.select(Lead).order_by(Lead.created_at, Lead.id)))


def held(session: Session) -> list[Quarantined]:
    session.rollback()
    return list(session.scalars(sa.select(Quarantined).order_by(Quarantined.created_at, Quarantined.id)))


def stored(session: Session) -> tuple[int, int]:
    return len(leads(session)), len(held(session))


EXPECTED = {
    "typeform": (bodies.TYPEFORM, {
        "name": "Ada Lovelace", "email": "ada@analytical.example", "phone_e164": "+442071838750", "budget": 12_000.0,
        "message": "Need urgent pricing for 50 seats, please send a quote", "consent": "yes",
        "attribution": {"utm_source": "newsletter", "gclid": "Cj0KCQ"},
    }),
    "google": (bodies.GOOGLE, {
        "name": "Nguyễn Hạnh", "email": "hanh@congty.example", "phone_e164": "+84912345678", "company": "Công ty Hạnh",
        "message": "Cho tôi báo giá gói Enterprise\ntrong tháng này", "attributes": {"job_title": "CTO"},
        "attribution": {"utm_campaign": "123498765", "gclid": "EAIaIQobChMI"},
    }),
    "hubspot": (bodies.HUBSPOT_FORM, {
        "name": "Grace Hopper", "email": "grace@navy.example", "company": "Navy",
        "message": "Could we get a demo next week?", "attribution": {"landing_page": "https://example.com/contact"},
    }),
    "hubspot-contact": (bodies.HUBSPOT_CONTACT, {
        "name": "Grace Hopper", "email": "grace@navy.example", "message": "Could we get a demo next week?",
    }),
    "webflow": (bodies.WEBFLOW, {
        "name": "Zaphod Beeblebrox", "email": "zaphod@heartofgold.example", "phone": "15550000000",
        "message": "Please call me about buying 3 ships",
    }),
    "plain": (bodies.PLAIN, {
        "name": "Linus T", "email": "linus@kernel.example", "phone": "+358401234567", "company": "Kernel",
        "budget": 1_500.0, "message": "How much for 20 licences?", "attribution": {"utm_source": "google"},
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_each_preset_reads_what_its_sender_posts(client: FlaskClient, session: Session, hook: Hook, name: str) -> None:
    body, expected = EXPECTED[name]
    path, source = hook(name.split("-")[0], name=f"Our {name}")
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    (lead,) = leads(session)
    assert answer.json == {"ok": True, "created": 1, "existing": 0, "held": 0, "lead_ids": [str(lead.id)]}
    assert {field: getattr(lead, field) for field in expected} == expected
    assert (lead.door, lead.source, lead.source_id) == (Door.HOOK, f"Our {name}", source.id)
    assert lead.status.startswith("new_") and lead.verdict["intent"]
    assert session.scalar(sa.select(sa.func.count()).select_from(Run)) == 1
    again = client.post(path, json=body)
    assert again.json == {"ok": True, "created": 0, "existing": 1, "held": 0, "lead_ids": [str(lead.id)]}
    assert stored(session) == (1, 0)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_preset_is_guessed_from_a_body(name: str) -> None:
    found = suggested(EXPECTED[name][0])
    assert found is not None and found.name == name.split("-")[0]
    assert suggested({"foo": 1}) is None and suggested([1]) is None


def test_a_retry_with_the_senders_id_is_the_same_lead_whatever_else_changed(
    client: FlaskClient, session: Session, hook: Hook
) -> None:
    path, _ = hook("typeform")
    client.post(path, json=bodies.TYPEFORM)
    retry = copy.deepcopy(bodies.TYPEFORM) | {"event_id": "another", "attempt": 2}
    assert client.post(path, json=retry).json["existing"] == 1
    (lead,) = leads(session)
    assert lead.touches == 1  # the very same, not the person saying it again


def test_other_words_under_an_id_that_was_used_are_not_swallowed(
    client: FlaskClient, session: Session, hook: Hook
) -> None:
    path, _ = hook()
    client.post(path, json={"email": "a@b.example", "message": "price?", "submission_id": "same"})
    answer = client.post(path, json={"email": "c@d.example", "message": "a demo?", "submission_id": "same"})
    assert answer.status_code == 200 and answer.json["held"] == 1
    assert "really unique" in held(session)[0].reason


def test_without_an_id_the_same_words_of_a_person_are_a_touch(
    client: FlaskClient, session: Session, hook: Hook
) -> None:
    path, _ = hook()
    for message in ("What is the price?", "what is the  PRICE?", "And a demo?"):
        assert client.post(path, json={"email": "a@b.example", "message": message}).status_code == 200
    assert [lead.touches for lead in leads(session)] == [2, 1]
    assert session.scalar(sa.select(sa.func.count()).select_from(Person)) == 1


def test_one_id_at_two_webhooks_is_two_submissions(client: FlaskClient, session: Session, hook: Hook) -> None:
    for path in (hook()[0], hook()[0]):
        assert client.post(path, json={"email": f"{path[-5:]}@b.example", "event_id": "1"}).json["created"] == 1
    assert len(leads(session)) == 2


def test_twenty_retries_at_once_make_one_lead(app: Flask, session: Session, hook: Hook) -> None:
    path, _ = hook("typeform")
    answers: list[Any] = []

    def post() -> None:
        answers.append(app.test_client().post(path, json=bodies.TYPEFORM))

    threads = [threading.Thread(target=post) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json["created"] for answer in answers) == 1
    assert stored(session) == (1, 0)


def test_without_a_mapping_a_request_is_kept_as_sample_and_held(
    client: FlaskClient, session: Session, hook: Hook
) -> None:
    path, source = hook("")
    answer = client.post(path, json=bodies.PLAIN | {"salary": 90_000})
    assert answer.status_code == 202
    assert answer.json == {"ok": True, "created": 0, "existing": 0, "held": 1, "lead_ids": []}
    (entry,) = held(session)
    assert (entry.door, entry.dialect, entry.source_id, entry.state) == (
        Door.HOOK, "hook", source.id, QuarantineState.HELD)  # fmt: skip
    assert "no mapping yet" in entry.reason and json.loads(entry.raw)["Email"] == "linus@kernel.example"
    session.refresh(source)
    assert sources.sample(source)["note"] == bodies.PLAIN["note"]
    assert source.last_received_at is not None
    for kept in (entry.raw, source.last_sample):
        assert "90000" not in (kept or "") and "enc:" in (kept or "")


def test_a_form_is_read_like_json(client: FlaskClient, session: Session, hook: Hook) -> None:
    path, _ = hook()
    answer = client.post(path, data={"email": "a@b.example", "message": "Giá bao nhiêu?", "tag": ["x", "y"]})
    assert answer.json["created"] == 1
    (lead,) = leads(session)
    assert lead.message == "Giá bao nhiêu?"
    payload = session.scalar(sa.select(Run.payload_json))
    assert payload["tag"] == ["x", "y"]


def test_an_array_is_one_lead_each_and_a_bad_one_costs_no_other(
    client: FlaskClient, session: Session, hook: Hook
) -> None:
    path, _ = hook()
    sent = [
        {"email": "a@b.example"},
        "what?",
        {"email": "not an address"},
        {"colour": "red"},
        {"phone": "+84912345678"},
    ]
    answer = client.post(path, json=sent)
    assert (answer.status_code, answer.json["created"], answer.json["held"]) == (200, 2, 3)
    assert len(answer.json["lead_ids"]) == 2
    reasons = [entry.reason for entry in held(session)]
    assert "not a JSON object" in reasons[0] and "not a valid e-mail" in reasons[1] and "neither" in reasons[2]
    assert client.post(path, json=[]).json == {"ok": True, "created": 0, "existing": 0, "held": 0, "lead_ids": []}


def test_a_bad_address_beside_a_message_is_kept_as_sent(client: FlaskClient, session: Session, hook: Hook) -> None:
    path, _ = hook()
    assert client.post(path, json={"email": "ada(at)b", "message": "price?"}).json["created"] == 1
    (lead,) = leads(session)
    assert (lead.email, lead.email_normalized) == ("ada(at)b", None)


def test_what_its_sender_marks_as_a_test_is_held(client: FlaskClient, session: Session, hook: Hook) -> None:
    path, _ = hook("google")
    assert client.post(path, json=bodies.GOOGLE | {"is_test": True}).json["held"] == 1
    assert "test" in held(session)[0].reason
    assert client.post(path, json=bodies.GOOGLE | {"is_test": False}).json["created"] == 1


def refused(answer: Any, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json["error"]
    assert error["code"] == code and error["message"] and error["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"", JSON, 400, "invalid_json"), (b"  ", JSON, 400, "invalid_json"), (b"{", JSON, 400, "invalid_json"),
        (b'"text"', JSON, 400, "invalid_json"), (b"7", JSON, 400, "invalid_json"), (b"null", JSON, 400, "invalid_json"),
        (b'{"a": "\xff"}', JSON, 400, "invalid_json"), (b'{"a": "\x00"}', JSON, 400, "invalid_json"),
        (b"[" * 100_000, JSON, 400, "invalid_json"), (b"[" * 100_000 + b"]" * 100_000, JSON, 400, "invalid_json"),
        (b"9" * 5_000, JSON, 400, "invalid_json"),
        (b"[" + b"1," * 1_000 + b"1]", JSON, 413, "payload_too_large"),
        (b'{"message": "' + b"x" * (1 << 20) + b'"}', JSON, 413, "payload_too_large"),
        (b"", FORM, 400, "invalid_json"), (b"email=%ff", FORM, 400, "invalid_json"),
        (b"&".join(b"a=1" for _ in range(1_001)), FORM, 400, "invalid_json"),
        (b"<lead/>", "application/xml", 415, "unsupported_media_type"),
        (b"x", "multipart/form-data", 415, "unsupported_media_type"),
    ],
)  # fmt: skip
def test_a_body_that_is_none_is_refused_and_nothing_is_stored(
    client: FlaskClient, session: Session, hook: Hook, body: bytes, content_type: str, status: int, code: str
) -> None:
    path, source = hook()
    refused(client.post(path, data=body, content_type=content_type), status, code)
    assert stored(session) == (0, 0)
    session.refresh(source)
    assert source.last_sample is None and source.last_received_at is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"email": "a@b.example", "message": "x\\u0000y"}', b'{"email": "a@b.example", "message": "\\ud800"}',
        b'{"email": "a@b.example", "budget": 1e999}', b'{"email": "a@b.example", "budget": NaN}',
        b'{"email": "a@b.example", "x": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"email": "a@b.example", "x": [' + b"1," * 5_000 + b"1]}",
        json.dumps({"email": "a@b.example", "x": {str(n): list(range(900)) for n in range(20)}}).encode(),
        json.dumps({"message": "x" * 20_001}).encode(), json.dumps({"email": "a@b.example", "name": "n" * 501}).encode(),
        b'{"submission_id": "x", "email": ""}', b'{"message": {"text": "hi"}}', b"{}",
    ],
)  # fmt: skip
def test_what_cannot_be_digested_is_answered_200_and_kept(
    client: FlaskClient, session: Session, headers: dict[str, str], hook: Hook, body: bytes
) -> None:
    path, _ = hook()
    answer = client.post(path, data=body, content_type=JSON)
    assert (answer.status_code, answer.json["held"], answer.json["created"]) == (200, 1, 0), answer.text
    (entry,) = held(session)
    assert entry.reason and leads(session) == []
    shown = client.get(f"/api/v1/quarantine/{entry.id}", headers=headers)
    assert shown.status_code == 200 and shown.json["reason"] == entry.reason
    replayed = client.post(f"/api/v1/quarantine/{entry.id}/replay", headers=headers)
    assert replayed.status_code in (200, 400), replayed.text
    assert leads(session) == []


def test_unknown_and_switched_off_addresses(client: FlaskClient, session: Session, hook: Hook) -> None:
    refused(client.post("/hooks/nobodys", json=bodies.PLAIN), 404, "not_found")
    refused(client.post("/hooks/\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), json={}), 404, "not_found")
    path, _ = hook(enabled=False)
    refused(client.post(path, json=bodies.PLAIN), 403, "insufficient_scope")
    assert client.get(path).status_code == 405
    assert stored(session) == (0, 0)


def test_a_new_address_ends_the_old_one(app: Flask, client: FlaskClient, session: Session, hook: Hook) -> None:
    path, source = hook()
    sources.rotate(session, source, cipher=app.extensions["cipher"], actor="Ada")
    session.commit()
    refused(client.post(path, json=bodies.PLAIN), 404, "not_found")
    fresh = "/hooks/" + app.extensions["cipher"].decrypt(source.token)
    assert client.post(fresh, json=bodies.PLAIN).json["created"] == 1


def test_a_webhook_fills_its_own_workspace_alone(
    client: FlaskClient, session: Session, workspace: Workspace, headers: dict[str, str], hook: Hook
) -> None:
    other = factories.make_workspace(session)
    path, _ = hook(into=other)
    sent = bodies.PLAIN | {"tenant_id": str(workspace.id)}
    # Neither a key of another workspace nor a header nor the body moves it.
    answer = client.post(path, json=sent, headers=headers | {"X-Tenant-ID": str(workspace.id)})
    assert answer.json["created"] == 1
    (lead,) = leads(session)
    assert lead.workspace_id == other.id
    assert client.get("/api/v1/leads", headers=headers).json["leads"] == []
    client.post(path, json={"colour": "red"})
    assert client.get("/api/v1/quarantine", headers=headers).json["entries"] == []


def test_its_limit_is_its_own_and_said_on_every_answer(client: FlaskClient, session: Session, hook: Hook) -> None:
    path, _ = hook(limit_max=2)
    answers = [client.post(path, json=bodies.PLAIN | {"note": f"price {n}?"}) for n in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
    refused(answers[2], 429, "rate_limited")
    assert int(answers[2].headers["Retry-After"]) >= 1
    assert client.post(hook()[0], json=bodies.PLAIN).status_code == 200


def test_an_array_counts_for_the_limit_as_many_as_it_has_entries(
    client: FlaskClient, session: Session, hook: Hook
) -> None:
    path, _ = hook(limit_max=6, limit_burst=0, limit_day=0)
    four = [{"email": f"p{n}@b.example"} for n in range(4)]
    first = client.post(path, json=four)
    assert (first.json["created"], first.headers["X-RateLimit-Remaining"]) == (4, "2")
    refused(second := client.post(path, json=[{"email": f"q{n}@b.example"} for n in range(4)]), 429, "rate_limited")
    assert (second.headers["X-RateLimit-Limit"], second.headers["X-RateLimit-Remaining"]) == ("6", "1")
    assert "counts as 4" in second.json["error"]["message"] and int(second.headers["Retry-After"]) >= 1
    assert stored(session) == (4, 0)
    assert client.post(path, json={"email": "q@b.example"}).json["created"] == 1


def test_an_array_is_one_transaction(client: FlaskClient, session: Session, hook: Hook) -> None:
    path, _ = hook()
    sent = [{"email": f"p{n}@b.example", "message": "price?", "submission_id": f"s{n}"} for n in range(50)]
    sent += [{"colour": n} for n in range(50)] + [{"email": f"q{n}@b.example"} for n in range(50)]
    answer = client.post(path, json=sent)
    assert (answer.json["created"], answer.json["held"]) == (100, 50), answer.text
    began = [row.created_at for row in (*leads(session), *held(session))]  # now(): the transaction's
    assert len(began) == 150 and len(set(began)) == 1


def test_nothing_of_an_array_is_kept_when_its_end_cannot_be(
    app: Flask, client: FlaskClient, session: Session, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = hook()
    sent = [{"email": "a@b.example", "submission_id": "1"}, {"colour": "red"}]
    with monkeypatch.context() as patch:
        patch.setitem(app.config, "ANSWER_ERRORS", True)
        session.execute(sa.text("ALTER TABLE quarantine ADD CONSTRAINT no_room CHECK (false) NOT VALID"))
        session.commit()
        try:
            assert client.post(path, json=sent).status_code == 500
        finally:
            session.execute(sa.text("ALTER TABLE quarantine DROP CONSTRAINT no_room"))
            session.commit()
    assert stored(session) == (0, 0)
    again = client.post(path, json=sent).json
    assert (again["created"], again["existing"], again["held"]) == (1, 0, 1)


def test_ids_and_words_that_repeat_are_told_within_an_array_and_across(
    client: FlaskClient, session: Session, hook: Hook
) -> None:
    path, _ = hook()
    one = {"email": "a@b.example", "message": "price?", "submission_id": "1"}
    sent = [
        one,
        one,  # the same submission
        one | {"message": "a demo?"},  # its id with other words
        {"email": "c@d.example", "message": "how much?"},
        {"email": "c@d.example", "message": "How  much?"},  # the same person, the same words
        {"phone": "no number", "submission_id": "2"},
    ]
    first = client.post(path, json=sent).json
    assert (first["created"], first["existing"], first["held"]) == (3, 2, 1)
    ids = first["lead_ids"]
    assert ids[0] == ids[1] and ids[2] == ids[3] and len(set(ids)) == 3
    assert "really unique" in held(session)[0].reason
    assert {lead.email: lead.touches for lead in leads(session)} == {"a@b.example": 1, "c@d.example": 2, None: 1}
    assert client.post(path, json=one).json["lead_ids"] == [ids[0]]  # alone, by the other way
    again = client.post(path, json=sent).json
    assert (again["created"], again["existing"], again["held"], again["lead_ids"]) == (0, 5, 1, ids)
    assert {lead.email: lead.touches for lead in leads(session)} == {"a@b.example": 1, "c@d.example": 4, None: 1}
    used = session.scalars(sa.select(IdempotencyKey.key)).all()
    assert len(used) == 2 and set(used) == set(
        session.scalars(sa.select(Run.idempotency_key).where(Run.idempotency_key.is_not(None)))
    )
    # An id that is past its days is free.
    session.execute(sa.update(IdempotencyKey).values(expires_at=sa.func.now() - timedelta(seconds=1)))
    session.commit()
    assert client.post(path, json=[one | {"message": "a visit?"}, {"colour": 1}]).json["created"] == 1


def test_the_same_array_ten_times_at_once_is_taken_in_once(app: Flask, session: Session, hook: Hook) -> None:
    path, _ = hook()
    sent: list[Any] = [{"email": f"p{n}@b.example", "message": "price?", "submission_id": str(n)} for n in range(20)]
    sent += [{"email": f"q{n}@b.example", "message": "price?"} for n in range(20)] + [{"colour": n} for n in range(5)]
    answers: list[Any] = []

    def post(turned: bool) -> None:
        answers.append(app.test_client().post(path, json=sent[::-1] if turned else sent))

    threads = [threading.Thread(target=post, args=(n % 2 == 1,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} <= {200, 503}
    good = [answer.json for answer in answers if answer.status_code == 200]
    assert sum(one["created"] for one in good) == 40 and {one["held"] for one in good} == {5}
    assert stored(session) == (40, 5)
    assert {entry.times for entry in held(session)} == {len(good)}


def test_a_retry_of_what_is_held_is_counted_not_held_again(client: FlaskClient, session: Session, hook: Hook) -> None:
    path, source = hook()
    body = {"colour": "red", "salary": 90_000}  # sealed anew each time
    for _ in range(3):
        assert client.post(path, json=body).json["held"] == 1
    (entry,) = held(session)
    assert entry.times == 3 and entry.last_at and entry.last_at > entry.created_at
    assert client.post(path, json=[body, body, body | {"salary": 1}]).json["held"] == 3
    assert [entry.times for entry in held(session)] == [5, 1]
    client.post(hook()[0], json=body)  # by another webhook
    session.execute(sa.update(Quarantined).where(Quarantined.id == entry.id).values(state=QuarantineState.DISCARDED))
    session.commit()
    client.post(path, json=body)  # it was decided about: held anew
    assert [(one.times, one.state.value) for one in held(session)] == [
        (5, "discarded"), (1, "held"), (1, "held"), (1, "held"),
    ]  # fmt: skip
    # The newest reason counts, until somebody has mended it.
    sources.save_mapping(
        session, session.get_one(InboundSource, source.id), {"phone": "tel", "test": "colour"}, actor="A"
    )
    session.commit()
    client.post(path, json=body)
    newest = held(session)[-1]
    assert newest.times == 2 and "neither" in newest.reason


# ---- proofs ---------------------------------------------------------------------------------------------------------

SECRET = "a-shared-secret"
RAW = json.dumps(bodies.PLAIN).encode()


def digest(said: bytes, secret: str = SECRET) -> bytes:
    return hmac.new(secret.encode(), said, hashlib.sha256).digest()


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("prefix", "signature", "good"),
    [
        ("sha256=", "sha256=" + b64(digest(RAW)), True), ("", digest(RAW).hex(), True),
        ("", digest(RAW).hex().upper(), True), ("v0=", "v0=" + digest(RAW).hex(), True),
        ("sha256=", b64(digest(RAW)), False), ("", "sha256=" + b64(digest(RAW)), False),
        ("", digest(RAW, "another").hex(), False), ("", digest(RAW + b" ").hex(), False), ("", "", False),
        ("", "đ" * 64, False), ("sha256=", "sha256=", False),
    ],
)  # fmt: skip
def test_hmac(client: FlaskClient, session: Session, hook: Hook, prefix: str, signature: str, good: bool) -> None:
    path, source = hook(
        verification=Verification.HMAC, secret=SECRET, signature_header="Typeform-Signature", signature_prefix=prefix
    )
    sent = {"Typeform-Signature": signature.encode().decode("latin-1")}
    answer = client.post(path, data=RAW, content_type=JSON, headers=sent)
    if good:
        assert answer.json["created"] == 1
    else:
        refused(answer, 401, "invalid_auth")
        assert stored(session) == (0, 0)
        session.refresh(source)
        assert source.last_sample is None


def standard(secret: str, at: datetime, *, body: bytes = RAW, identity: str = "msg_1") -> dict[str, str]:
    signature = Webhook(secret).sign(identity, at, body.decode())
    return {"webhook-id": identity, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


def test_standard_webhooks(client: FlaskClient, session: Session, hook: Hook) -> None:
    secret = "whsec_" + b64(b"k" * 32)
    path, source = hook(verification=Verification.STANDARD, secret=secret)
    now = datetime.now(UTC)
    bad = [
        {}, standard(secret, now - timedelta(minutes=6)), standard(secret, now + timedelta(minutes=6)),
        standard("whsec_" + b64(b"x" * 32), now), standard(secret, now) | {"webhook-id": "msg_2"},
        standard(secret, now) | {"webhook-timestamp": "soon"}, standard(secret, now) | {"webhook-timestamp": "nan"},
        standard(secret, now) | {"webhook-signature": "v1"}, standard(secret, now) | {"webhook-signature": "v1,%%%"},
        standard(secret, now) | {"webhook-signature": "v1a,abc v2,def"}, standard(secret, now, body=RAW + b" "),
    ]  # fmt: skip
    for headers in bad:
        refused(client.post(path, data=RAW, content_type=JSON, headers=headers), 401, "invalid_auth")
    assert stored(session) == (0, 0)
    assert client.post(path, data=b"\xff", content_type=JSON, headers=bad[1]).status_code == 401
    good = standard(secret, now) | {"webhook-signature": "v1,bm9wZQ== " + standard(secret, now)["webhook-signature"]}
    assert client.post(path, data=RAW, content_type=JSON, headers=good).json["created"] == 1
    assert source.verification is Verification.STANDARD


def test_the_webhook_id_makes_a_retry_the_same_lead(client: FlaskClient, session: Session, hook: Hook) -> None:
    secret = "whsec_" + b64(b"k" * 32)
    path, _ = hook(verification=Verification.STANDARD, secret=secret)
    raw = json.dumps({"message": "price?", "phone": "no number"}).encode()  # nobody in particular
    now = datetime.now(UTC)
    for at in (now, now + timedelta(seconds=5)):
        sent = standard(secret, at, body=raw, identity="msg_7")
        answer = client.post(path, data=raw, content_type=JSON, headers=sent)
        assert answer.status_code == 200
    assert answer.json["existing"] == 1 and len(leads(session)) == 1
    sent = standard(secret, now, body=raw, identity="msg_8")
    assert client.post(path, data=raw, content_type=JSON, headers=sent).json["created"] == 1


def test_the_webhook_id_goes_through_quarantine(
    client: FlaskClient, session: Session, headers: dict[str, str], hook: Hook
) -> None:
    secret = "whsec_" + b64(b"k" * 32)
    path, source = hook("", verification=Verification.STANDARD, secret=secret)
    said = [{"message": "price?", "phone": "no number"}, {"message": "demo?", "phone": "no number"}]  # nobody
    raw = json.dumps(said).encode()

    def send() -> dict[str, Any]:
        sent = standard(secret, datetime.now(UTC), body=raw, identity="msg_7")
        answer: dict[str, Any] = client.post(path, data=raw, content_type=JSON, headers=sent).json
        return answer

    assert send()["held"] == 2
    assert sorted(str(entry.request_id) for entry in held(session)) == ["msg_7", "msg_7:1"]
    sources.save_mapping(
        session, session.get_one(InboundSource, source.id), {"message": "message", "phone": "phone"}, actor="Ada"
    )
    session.commit()
    made = [
        client.post(f"/api/v1/quarantine/{entry.id}/replay", headers=headers).json["lead_ids"]
        for entry in held(session)
    ]
    again = send()  # the provider has not given up
    assert (again["created"], again["existing"]) == (0, 2)
    assert sorted(again["lead_ids"]) == sorted(made[0] + made[1])
    assert [lead.touches for lead in leads(session)] == [1, 1]


def test_a_form_can_be_signed_too(client: FlaskClient, hook: Hook) -> None:
    secret = "whsec_" + b64(b"k" * 32)
    path, _ = hook(verification=Verification.STANDARD, secret=secret)
    raw = b"email=a%40b.example&message=price%3F"
    sent = standard(secret, datetime.now(UTC), body=raw)
    assert client.post(path, data=raw, content_type=FORM, headers=sent).json["created"] == 1


def test_a_secret_in_the_body(client: FlaskClient, session: Session, hook: Hook) -> None:
    path, source = hook(
        "google", verification=Verification.BODY, secret="a-shared-google-key", signature_header="google_key"
    )
    for wrong in ("", "A-shared-google-key", "a-shared-google-key ", None, 7, ["a-shared-google-key", "x"]):
        refused(client.post(path, json=bodies.GOOGLE | {"google_key": wrong}), 401, "invalid_auth")
    refused(client.post(path, json=[bodies.GOOGLE, {"google_key": "no"}]), 401, "invalid_auth")
    refused(client.post(path, json=[]), 401, "invalid_auth")
    assert stored(session) == (0, 0)
    assert client.post(path, json=bodies.GOOGLE).json["created"] == 1
    # The secret itself is stored nowhere.
    session.refresh(source)
    client.post(path, json=bodies.GOOGLE | {"user_column_data": []})
    everything = str(
        [session.scalars(sa.select(Run.payload_json)).all(), [e.raw for e in held(session)], source.last_sample]
    )
    assert "a-shared-google-key" not in everything and "campaign_id" in everything
    # Nor before anybody has said that it is one.
    path, source = hook("")
    client.post(path, json=bodies.GOOGLE)
    session.refresh(source)
    assert "a-shared-google-key" not in f"{source.last_sample} {held(session)[-1].raw}"


def test_hubspots_signature(client: FlaskClient, session: Session, hook: Hook) -> None:
    path, _ = hook("hubspot", verification=Verification.HUBSPOT, secret=SECRET)
    raw = json.dumps(bodies.HUBSPOT_FORM).encode()
    url = f"http://localhost{path}?a=1"

    def sent(at: int, said_url: str = url) -> dict[str, str]:
        said = b"POST" + said_url.encode() + raw + str(at).encode()
        return {"X-HubSpot-Signature-v3": b64(digest(said)), "X-HubSpot-Request-Timestamp": str(at)}

    now = int(time.time() * 1000)
    for headers in (
        {},
        sent(now - 301_000),
        sent(now, "https://elsewhere.example"),
        sent(now) | {"X-HubSpot-Request-Timestamp": "now"},
    ):
        refused(client.post(path + "?a=1", data=raw, content_type=JSON, headers=headers), 401, "invalid_auth")
    assert client.post(path + "?a=1", data=raw, content_type=JSON, headers=sent(now)).json["created"] == 1


def test_webflows_signature(client: FlaskClient, session: Session, hook: Hook) -> None:
    path, _ = hook("webflow", verification=Verification.WEBFLOW, secret=SECRET)
    raw = json.dumps(bodies.WEBFLOW).encode()

    def sent(at: int, secret: str = SECRET) -> dict[str, str]:
        signature = digest(f"{at}:".encode() + raw, secret).hex()
        return {"X-Webflow-Signature": signature, "X-Webflow-Timestamp": str(at)}

    now = int(time.time() * 1000)
    for headers in ({}, sent(now - 400_000), sent(now, "another"), sent(now) | {"X-Webflow-Timestamp": str(now + 1)}):
        refused(client.post(path, data=raw, content_type=JSON, headers=headers), 401, "invalid_auth")
    assert client.post(path, data=raw, content_type=JSON, headers=sent(now)).json["created"] == 1


def test_a_secret_that_nothing_decrypts_loses_no_request(client: FlaskClient, session: Session, hook: Hook) -> None:
    path, source = hook(verification=Verification.HMAC, signature_header="X-Sig")
    source.secret = "enc:nonsense"
    session.commit()
    answer = client.post(path, json=bodies.PLAIN)
    refused(answer, 503, "unavailable")  # the sender tries again
    assert answer.headers["Retry-After"]

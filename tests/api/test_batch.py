"""``POST /api/v1/leads/batch``."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from tests.leads.importing import work
from webapp.config import Settings
from webapp.models import Import, Lead, Run

URL = "/api/v1/leads/batch"
Factory = sessionmaker[Session]


@pytest.fixture
def folder(settings: Settings) -> Path:
    return settings.imports_folder


def files(folder: Path) -> set[Path]:
    return set(folder.iterdir()) if folder.exists() else set()


def number(session: Session, model: Any = Lead) -> int:
    session.rollback()
    return session.scalar(sa.select(sa.func.count()).select_from(model)) or 0


GOOD = [
    {"email": "ada@example.com", "message": "Please quote 5 seats", "lead_id": "x1", "city": "Huế"},
    {"phone": "+84912345678", "message": "Cho tôi báo giá"},
]


def test_all_rows_fine_is_200(client: FlaskClient, headers: dict[str, str], session: Session, folder: Path) -> None:
    before = files(folder)
    answer = client.post(URL, json=GOOD, headers=headers)
    assert answer.status_code == 200, answer.text
    ids = list(session.scalars(sa.select(Lead.id).order_by(Lead.id)))
    assert answer.json == {
        "results": [{"index": n, "status": "created", "id": str(ids[n]), "problems": []} for n in range(2)],
        "created": 2,
        "touched": 0,
        "exists": 0,
        "invalid": 0,
        "failed": 0,
    }
    lead = session.get_one(Lead, ids[0])
    assert (lead.external_id, lead.attributes, lead.door.value, lead.import_id) == ("x1", {"city": "Huế"}, "v1", None)
    assert set(session.scalars(sa.select(Run.rank))) == {5}
    assert files(folder) == before


def test_a_bad_row_never_stops_the_others(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    rows = [
        GOOD[0],
        {"email": "not an address", "budget": "a lot"},
        GOOD[0] | {"lead_id": "x2", "message": "please quote 5 SEATS"},
        {"lead_id": "x1", "email": "other@example.com"},
        5,
        {"name": "nobody"},
        {"email": {"a": 1}, "message": "hi"},
        {"email": "b@example.com", "message": "x" * 20_001},
        GOOD[1],
    ]
    answer = client.post(URL, json=rows, headers=headers)
    assert answer.status_code == 207
    found = answer.json["results"]
    assert [one["status"] for one in found] == [
        "created", "invalid", "touched", "exists", "invalid", "invalid", "invalid", "invalid", "created",
    ]  # fmt: skip
    assert found[2]["id"] == found[3]["id"] == found[0]["id"]
    assert [problem["field"] for problem in found[1]["problems"]] == ["row", "email", "budget"] or [
        problem["field"] for problem in found[1]["problems"]
    ] == ["email", "budget"]
    assert [found[n]["problems"][0]["field"] for n in (4, 5, 6, 7)] == ["row", "row", "email", "message"]
    assert {key: answer.json[key] for key in ("created", "touched", "exists", "invalid")} == {
        "created": 2, "touched": 1, "exists": 1, "invalid": 5,
    }  # fmt: skip
    assert number(session) == 2


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("text/csv", "E-mail;Nachricht\na@example.com;Angebot bitte\n;\nb@;x\n".encode("cp1252")),
        ("application/x-ndjson", b'{"email": "a@example.com", "message": "Quote"}\n\n{"email": "b@"}\n'),
        ("application/json", b'[{"email": "a@example.com", "message": "Quote"}, {"email": "b@"}]'),
    ],
)
def test_three_formats(client: FlaskClient, headers: dict[str, str], kind: str, data: bytes) -> None:
    answer = client.post(URL, data=data, content_type=kind, headers=headers)
    assert answer.status_code == 207
    assert [one["status"] for one in answer.json["results"]] == ["created", "invalid"]


def test_a_row_that_fails_by_our_own_error_can_be_sent_again(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    keyed = headers | {"Idempotency-Key": "b-9"}
    rows = [GOOD[0], GOOD[1] | {"name": "Poison"}, {"email": "b@"}]
    session.execute(sa.text("ALTER TABLE leads ADD CONSTRAINT ck_leads_test CHECK (name <> 'Poison')"))
    session.commit()
    try:
        answer = client.post(URL, json=rows, headers=keyed)
    finally:
        session.rollback()
        session.execute(sa.text("ALTER TABLE leads DROP CONSTRAINT ck_leads_test"))
        session.commit()
    assert answer.status_code == 207
    assert [one["status"] for one in answer.json["results"]] == ["created", "failed", "invalid"]
    assert (answer.json["failed"], answer.json["invalid"]) == (1, 1)
    assert answer.json["results"][1]["id"] is None and "error of ours" in str(answer.json["results"][1]["problems"])
    again = client.post(URL, json=rows, headers=keyed)
    assert "Idempotent-Replayed" not in again.headers
    assert [one["status"] for one in again.json["results"]] == ["exists", "created", "invalid"]
    third = client.post(URL, json=rows, headers=keyed)
    assert third.headers["Idempotent-Replayed"] == "true" and third.data == again.data


def test_an_empty_list_is_fine(client: FlaskClient, headers: dict[str, str]) -> None:
    answer = client.post(URL, json=[], headers=headers)
    assert (answer.status_code, answer.json["results"]) == (200, [])


@pytest.mark.parametrize(
    ("data", "kind", "status", "code"),
    [
        (b"", "application/json", 400, "invalid_json"),
        (b"{}", "application/json", 400, "invalid_json"),
        (b'[{"email": "a@example.com"}, {]', "application/json", 400, "invalid_json"),
        (b'[{"email": "a@example.com"}', "application/json", 400, "invalid_json"),
        (b'["\xff\xfe"]', "application/json", 400, "invalid_json"),
        (b"[" * 10_000, "application/json", 400, "invalid_json"),
        (b"<a/>", "text/xml", 415, "unsupported_media_type"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    ],
)
def test_a_body_that_is_none_is_refused(
    client: FlaskClient, headers: dict[str, str], session: Session, folder: Path, data: bytes, kind: str, status: int, code: str
) -> None:  # fmt: skip
    before = files(folder)
    answer = client.post(URL, data=data, content_type=kind, headers=headers)
    assert (answer.status_code, answer.json["error"]["code"]) == (status, code), answer.text
    assert number(session) == 0 and files(folder) == before


def test_rows_that_cannot_be_stored_are_those_rows_problems(client: FlaskClient, headers: dict[str, str]) -> None:
    data = (
        b'[{"email": "a@example.com", "message": "a\\u0000b"}, {"email": "a@example.com", "x": "\\ud83d"},'
        b' {"email": "a@example.com", "budget": 1e999}, {"email": "a@example.com", "budget": NaN},'
        b' {"email": "a@example.com", "deep": {"\\u0000": [1]}}, {"email": "a@example.com", "n": 1e999}]'
    )
    answer = client.post(URL, data=data, content_type="application/json", headers=headers)
    assert answer.status_code == 207
    assert [one["status"] for one in answer.json["results"]] == ["invalid"] * 5 + ["created"]


def test_more_rows_than_one_answer_holds_become_an_import(
    client: FlaskClient, headers: dict[str, str], session: Session, session_factory: Factory, folder: Path
) -> None:
    rows = [{"email": f"p{n}@example.com", "message": "Quote"} for n in range(1_001)]
    keyed = headers | {"Idempotency-Key": "big"}
    answer = client.post(URL, json=rows, headers=keyed)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/api/v1/imports/{answer.json['id']}"
    again = client.post(URL, json=rows, headers=keyed)
    assert (again.status_code, again.data) == (202, answer.data)
    assert (number(session), number(session, Import)) == (0, 1)
    work(session_factory, folder)
    shown = client.get(answer.headers["Location"], headers=headers).json
    assert (shown["state"], shown["created"]) == ("done", 1_001)
    assert client.post(URL, json=rows[:1_000], headers=headers).status_code == 200


def test_the_same_key_is_answered_once(
    app: Flask, client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    keyed = headers | {"Idempotency-Key": "b-1"}
    body = [*GOOD, {"email": "no"}]

    def post(_: int) -> tuple[int, bytes, str | None]:
        answer = app.test_client().post(URL, json=body, headers=keyed)
        return answer.status_code, answer.data, answer.headers.get("Idempotent-Replayed")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(post, range(8)))
    assert {(status, data) for status, data, _ in found} == {(207, found[0][1])}
    assert sorted(str(replayed) for *_, replayed in found) == ["None", *["true"] * 7]
    other = client.post(URL, json=GOOD, headers=keyed)
    assert (other.status_code, other.json["error"]["code"]) == (409, "idempotency_mismatch")
    assert number(session) == 2
    # A request that failed leaves its key free.
    bad = client.post(URL, data="[", content_type="application/json", headers=headers | {"Idempotency-Key": "b-2"})
    assert bad.status_code == 400
    assert client.post(URL, json=GOOD[1:], headers=headers | {"Idempotency-Key": "b-2"}).status_code == 200
    assert json.loads(found[0][1])["created"] == 2

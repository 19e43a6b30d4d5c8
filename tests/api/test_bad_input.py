"""What must never get in, at every JSON door that takes a body: a 4xx with the envelope, nothing stored half."""

import uuid

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from webapp.models import AuditEvent, IdempotencyKey, Lead, Person, Quarantined, Run

DOORS = ["/leads/", "/api/v1/leads", "/enrich-lead", "/webhooks/facebook", "/webhooks/whatsapp"]

BODIES = {
    "empty": b"",
    "blank": b"  \n",
    "not JSON": b"note=hello",
    "broken": b'{"note": "hi"',
    "trailing": b'{"note": "hi"} x',
    "array": b'["note"]',
    "string": b'"note"',
    "null": b"null",
    "NUL character": b'{"note": "a\\u0000b", "message": "a\\u0000b", "comment_id": "1"}',
    "NUL in a key": b'{"no\\u0000te": 1, "note": "x", "message": "x", "comment_id": "1"}',
    "raw NUL": b'{"note": "a\x00b"}',
    "lone surrogate": b'{"note": "\\ud800", "message": "\\ud800", "comment_id": "1"}',
    "invalid UTF-8": b'{"note": "\xff\xfe"}',
    "deep nesting": b'{"note": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "1e999": b'{"note": "hi", "message": "hi", "comment_id": "1", "budget": 1e999}',
    "NaN": b'{"note": "hi", "message": "hi", "comment_id": "1", "budget": NaN}',
    "Infinity": b'{"note": "hi", "message": "hi", "comment_id": "1", "budget": -Infinity}',
    "endless integer": b'{"note": "hi", "message": "hi", "comment_id": "1", "budget": 1' + b"0" * 400 + b"}",
    "10 MB string": b'{"note": "' + b"x" * 10_000_000 + b'"}',
}


def stored(session: Session) -> int:
    return sum(
        session.scalar(sa.select(sa.func.count()).select_from(table)) or 0
        for table in (Lead, Person, Run, IdempotencyKey, Quarantined, AuditEvent)
    )


#: What a provider's webhook keeps in quarantine instead, since a provider cannot mend it.
KEPT = {"NUL character", "NUL in a key", "lone surrogate", "1e999", "NaN", "Infinity", "endless integer"}


@pytest.mark.parametrize(
    ("door", "name"),
    [(d, n) for d in DOORS for n in BODIES if not (d.startswith("/webhooks/") and n in KEPT)],
)
def test_bad_bodies_are_refused_with_the_envelope(
    client: FlaskClient, headers: dict[str, str], session: Session, door: str, name: str
) -> None:
    answer = client.post(
        door,
        data=BODIES[name],
        content_type="application/json",
        headers=headers | {"Idempotency-Key": str(uuid.uuid4())},
    )
    assert 400 <= answer.status_code < 500, answer.text
    error = answer.json["error"]
    assert set(error) == {"code", "message", "details", "request_id"}
    assert error["code"] == ("payload_too_large" if name == "10 MB string" else "invalid_json")
    assert error["request_id"] == answer.headers["X-Request-ID"]
    assert stored(session) == 0


@pytest.mark.parametrize("door", DOORS[:3])
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "image/png"]
)
def test_wrong_content_types(client: FlaskClient, headers: dict[str, str], door: str, kind: str) -> None:
    answer = client.post(
        door, data=b'{"note": "hi"}', content_type=kind, headers=headers | {"Idempotency-Key": str(uuid.uuid4())}
    )
    assert (answer.status_code, answer.json["error"]["code"]) == (415, "unsupported_media_type")


def test_a_number_is_not_confused_with_its_spelling_in_text(client: FlaskClient, headers: dict[str, str]) -> None:
    """The walk for what cannot be stored must not refuse what merely looks like it."""
    body = {"note": "literally \\u0000 and 1e999 and 00000000"}
    answer = client.post("/leads/", json=body, headers=headers | {"Idempotency-Key": str(uuid.uuid4())})
    assert answer.status_code == 201 and answer.json["note"] == body["note"]


@pytest.mark.parametrize(
    "wrong", ["tenant_id=x", "limit=0", "limit=201", "limit=ten", "limit=１", "offset=-1", "status=new"]
)
def test_bad_query_parameters_are_named(client: FlaskClient, headers: dict[str, str], wrong: str) -> None:
    answer = client.get(f"/api/leads?{wrong}", headers=headers)
    assert answer.status_code == 400
    assert answer.json["error"]["details"][0]["field"] == wrong.split("=")[0]


def test_methods_and_paths_that_do_not_exist(client: FlaskClient, headers: dict[str, str]) -> None:
    wrong = client.delete("/leads/", headers=headers)
    assert (wrong.status_code, wrong.json["error"]["code"]) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["Allow"]
    assert client.get("/api/nothing", headers=headers).json["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-123", True), ("a" * 129, False), ("a b", False), ("<script>", False), ("", False)]
)
def test_a_sane_request_id_is_kept(client: FlaskClient, given: str, kept: bool) -> None:
    answer = client.get("/healthz", headers={"X-Request-ID": given})
    assert (answer.headers["X-Request-ID"] == given) is kept

"""``callback_url`` at the doors: where it may lead, and what a repeat does with it."""

import json
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests import factories
from webapp.leads.states import DestinationKind
from webapp.models import Destination, Lead, Workspace

URL = "/api/v1/leads"
LEAD = {"email": "ada@example.com", "message": "Please quote 5 seats", "callback_url": "https://hooks.example.com/7"}


@pytest.fixture
def place(session: Session, workspace: Workspace) -> Destination:
    row = Destination(
        workspace_id=workspace.id,
        kind=DestinationKind.CALLBACK,
        name="Callbacks",
        config={"url": "https://hooks.example.com"},
    )
    session.add(row)
    session.commit()
    return row


def _urls(session: Session) -> list[str | None]:
    session.rollback()
    return list(session.scalars(sa.select(Lead.callback_url).order_by(Lead.id)))


def test_an_address_that_nobody_has_set_up_is_refused_and_nothing_is_stored(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    answer = client.post(URL, json=LEAD, headers=headers)
    assert answer.status_code == 422
    (problem,) = answer.json["error"]["details"]
    assert problem["field"] == "callback_url"
    assert "hooks.example.com: an admin adds it under Settings" in problem["reason"]
    assert _urls(session) == []


def test_a_bad_address_is_told_with_all_else_that_is_wrong(
    client: FlaskClient, headers: dict[str, str], place: Destination
) -> None:
    answer = client.post(URL, json={"email": "x", "callback_url": "nonsense"}, headers=headers)
    assert answer.status_code == 400
    assert {problem["field"] for problem in answer.json["error"]["details"]} == {"email", "callback_url"}


@pytest.mark.parametrize("url", ["", "ftp://hooks.example.com", "https://hooks.example.com.evil.example/", "x\x00", 7])
def test_bad_addresses_are_refused(
    client: FlaskClient, headers: dict[str, str], session: Session, place: Destination, url: Any
) -> None:
    answer = client.post(URL, json=LEAD | {"callback_url": url}, headers=headers)
    assert answer.status_code in (400, 422)
    assert [problem["field"] for problem in answer.json["error"]["details"]] == ["callback_url"]
    assert _urls(session) == []


def test_another_workspace_s_places_are_not_ours(
    client: FlaskClient, headers: dict[str, str], session: Session, place: Destination
) -> None:
    theirs = {"X-API-Key": factories.make_key(session, factories.make_workspace(session))}
    assert client.post(URL, json=LEAD, headers=theirs).status_code == 422
    assert client.post(URL, json=LEAD, headers=headers).status_code == 201
    assert _urls(session) == [LEAD["callback_url"]]


def test_a_repeat_changes_nothing_about_it(
    client: FlaskClient, headers: dict[str, str], session: Session, place: Destination
) -> None:
    keyed = headers | {"Idempotency-Key": "k-1"}
    assert client.post(URL, json=LEAD, headers=keyed).status_code == 201
    assert (
        client.post(URL, json=LEAD | {"callback_url": "https://hooks.example.com/8"}, headers=headers).status_code
        == 409
    )
    place.config = {"url": "https://elsewhere.example"}
    session.commit()
    again = client.post(URL, json=LEAD, headers=keyed)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert _urls(session) == ["https://hooks.example.com/7"]


ROWS = [
    {"email": "ada@example.com", "message": "one", "callback_url": "https://hooks.example.com/1"},
    {"email": "bo@example.com", "message": "two", "callback_url": "https://elsewhere.example/2"},
    {"email": "cy@example.com", "message": "three", "callback_url": ""},
]


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson", "text/csv"])
def test_rows_of_a_batch_have_their_own(
    client: FlaskClient, headers: dict[str, str], session: Session, place: Destination, kind: str
) -> None:
    body = {
        "application/json": json.dumps(ROWS),
        "application/x-ndjson": "\n".join(json.dumps(row) for row in ROWS),
        "text/csv": "\n".join([",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS)]),
    }[kind]
    answer = client.post(f"{URL}/batch", data=body, content_type=kind, headers=headers)
    assert answer.status_code == 207
    assert [row["status"] for row in answer.json["results"]] == ["created", "invalid", "created"]
    (problem,) = answer.json["results"][1]["problems"]
    assert problem["field"] == "callback_url"
    assert _urls(session) == ["https://hooks.example.com/1", None]

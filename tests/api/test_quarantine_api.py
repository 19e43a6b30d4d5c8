"""``/api/v1/quarantine``: list, read, mend and replay, discard; by admins of the workspace alone."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from webapp.leads import sources
from webapp.leads.quarantine import Bad, quarantine
from webapp.leads.states import Door, FetchKind, QuarantineState
from webapp.models import AuditEvent, Fetch, Lead, Quarantined, Workspace

BASE = "/api/v1/quarantine"
COMMENT = {"message": "Giá bao nhiêu?", "sender_id": "u1", "sender_name": "Hạnh", "post_id": "p1"}
Hold = Callable[..., uuid.UUID]


@pytest.fixture
def hold(session: Session, workspace: Workspace) -> Hold:
    def do(raw: Any, dialect: str = "facebook", source_id: uuid.UUID | None = None) -> uuid.UUID:
        door = Door.HOOK if dialect == "hook" else Door.SOCIAL
        entry = quarantine(session, workspace.id, door, dialect, Bad("unreadable", raw), source_id)
        session.commit()
        return entry.id

    return do


def test_the_list_is_filtered_and_paged(
    client: FlaskClient, headers: dict[str, str], hold: Hold, app: Flask, session: Session, workspace: Workspace
) -> None:
    source = sources.create(session, workspace.id, "Form", cipher=app.extensions["cipher"], actor="Ada")
    source_id = source.id
    session.commit()
    ids = [str(hold({"n": n}, "hook", source_id)) for n in range(5)]
    other = str(hold(COMMENT))
    seen, cursor = [], ""
    while True:
        page = client.get(BASE, query_string={"limit": 2, "cursor": cursor, "dialect": "hook"}, headers=headers).json
        seen += [entry["id"] for entry in page["entries"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert seen == ids[::-1]
    by_source = client.get(f"{BASE}?source_id={source_id}&limit=200", headers=headers).json["entries"]
    assert {entry["id"] for entry in by_source} == set(ids)
    assert {entry["source_id"] for entry in by_source} == {str(source_id)}
    client.post(f"{BASE}/{other}/discard", headers=headers)
    assert [e["id"] for e in client.get(f"{BASE}?state=discarded", headers=headers).json["entries"]] == [other]
    assert "raw" not in by_source[0]
    for bad in ("state=odd", "limit=0", "limit=201", "source_id=x", "cursor=x", f"dialect={'x' * 41}"):
        answer = client.get(f"{BASE}?{bad}", headers=headers)
        assert answer.status_code == 400 and answer.json["error"]["details"], bad


def test_an_entry_is_mended_and_replayed_once(
    client: FlaskClient, headers: dict[str, str], hold: Hold, session: Session
) -> None:
    path = f"{BASE}/{hold(COMMENT)}"
    shown = client.get(path, headers=headers).json
    assert (shown["raw"], shown["fixed"], shown["state"], shown["lead_ids"]) == (COMMENT, None, "held", [])
    still = client.post(f"{path}/replay", headers=headers)
    assert still.status_code == 200 and still.json["state"] == "held" and "comment_id" in still.json["reason"]
    done = client.post(f"{path}/replay", json={"fixed": COMMENT | {"comment_id": "c1"}}, headers=headers)
    assert done.status_code == 200 and done.json["state"] == "replayed" and done.json["created"] == 1
    assert done.json["decided_by"] == "test key (API)" and len(done.json["lead_ids"]) == 1
    again = client.post(f"{path}/replay", json={}, headers=headers).json
    assert again == done.json | {"created": 0}
    session.rollback()
    lead = session.scalars(sa.select(Lead)).one()
    assert str(lead.id) == done.json["lead_ids"][0] and lead.external_message_id == "c1"
    assert client.post(f"{path}/discard", headers=headers).status_code == 409


def test_one_whose_comment_came_meanwhile_names_the_lead_that_is_there(
    client: FlaskClient, headers: dict[str, str], hold: Hold
) -> None:
    mended = COMMENT | {"comment_id": "c9"}
    entry_id = hold(COMMENT)
    here = client.post("/webhooks/facebook", json=mended, headers=headers).json["lead_ids"]
    done = client.post(f"{BASE}/{entry_id}/replay", json={"fixed": mended}, headers=headers).json
    assert (done["state"], done["created"], done["lead_ids"]) == ("replayed", 0, here)


def test_a_lead_ads_form_is_fetched_again(
    client: FlaskClient, headers: dict[str, str], hold: Hold, session: Session, workspace: Workspace
) -> None:
    change = {"field": "leadgen", "value": {"leadgen_id": "lg1", "page_id": "p1", "form_id": "f1"}}
    entry_id = hold(change, "leadgen")
    done = client.post(f"{BASE}/{entry_id}/replay", headers=headers).json
    assert done["state"] == "replayed" and done["fetching"] is True and done["lead_ids"] == []
    session.rollback()
    fetch = session.scalars(sa.select(Fetch)).one()
    assert (fetch.kind, fetch.target, fetch.workspace_id) == (FetchKind.LEADGEN, "lg1", workspace.id)


def test_discarding(client: FlaskClient, headers: dict[str, str], hold: Hold, session: Session) -> None:
    entry_id = hold(COMMENT)
    for _ in range(2):
        answer = client.post(f"{BASE}/{entry_id}/discard", headers=headers)
        assert answer.status_code == 200 and answer.json["state"] == "discarded"
    refused = client.post(f"{BASE}/{entry_id}/replay", headers=headers)
    assert refused.status_code == 409 and "discarded" in refused.json["error"]["message"]
    session.rollback()
    assert session.scalars(sa.select(AuditEvent.event_type)).all() == ["QUARANTINE_DISCARDED"]


def test_a_discarded_one_is_put_back(
    client: FlaskClient, headers: dict[str, str], hold: Hold, session: Session
) -> None:
    entry_id = hold(COMMENT)
    client.post(f"{BASE}/{entry_id}/discard", headers=headers)
    for _ in range(2):
        answer = client.post(f"{BASE}/{entry_id}/restore", headers=headers)
        assert answer.status_code == 200, answer.text
        assert (answer.json["state"], answer.json["decided_by"], answer.json["times"]) == ("held", None, 1)
    events = sa.select(AuditEvent.event_type, AuditEvent.actor).order_by(AuditEvent.id)
    assert session.execute(events).all()[-1] == ("QUARANTINE_RESTORED", "test key (API)")
    client.post(f"{BASE}/{entry_id}/discard", headers=headers)
    twin = hold(COMMENT)  # it comes again
    assert twin != entry_id
    refused = client.post(f"{BASE}/{entry_id}/restore", headers=headers)
    assert refused.status_code == 409 and "come again" in refused.json["error"]["message"]
    client.post(f"{BASE}/{twin}/replay", json={"fixed": COMMENT | {"comment_id": "c1"}}, headers=headers)
    assert client.post(f"{BASE}/{twin}/restore", headers=headers).status_code == 409


def test_how_often_it_came_is_told(client: FlaskClient, headers: dict[str, str], hold: Hold) -> None:
    ids = {hold(COMMENT) for _ in range(3)} | {hold(COMMENT, "leadgen")}
    assert len(ids) == 2
    listed = client.get(BASE, headers=headers).json["entries"]
    assert [(one["times"], one["last_at"] is None) for one in listed] == [(1, True), (3, False)]


def test_a_sealed_value_of_elsewhere_is_text(
    client: FlaskClient, headers: dict[str, str], hold: Hold, app: Flask, session: Session, workspace: Workspace
) -> None:
    """Nobody gets a credential or somebody's salary read by pasting its encrypted form into an entry."""
    cipher = app.extensions["cipher"]
    stolen = cipher.encrypt("the secret of a destination")
    source = sources.create(session, workspace.id, "Form", cipher=cipher, actor="Ada")
    sources.save_mapping(session, source, {"message": "note", "date_of_birth": "birth", "name": "salary"}, actor="Ada")
    session.commit()

    def replayed(entry_id: uuid.UUID, fixed: Any = None) -> tuple[Lead, Any]:
        body = {"fixed": fixed} if fixed else {}
        done = client.post(f"{BASE}/{entry_id}/replay", json=body, headers=headers).json
        assert done["state"] == "replayed", done
        session.rollback()
        return session.get_one(Lead, uuid.UUID(done["lead_ids"][0])), done

    # By the door, in the clear part and in the sensitive one; the entry's own value is read.
    sent = {"note": stolen, "birth": "1990-01-02", "salary": stolen}
    lead, _ = replayed(hold(cipher.seal(sent), "hook", source.id))
    assert (lead.message, lead.name) == (stolen, stolen)
    assert cipher.decrypt(lead.attributes["date_of_birth"]) == "1990-01-02"
    # Pasted by somebody who mends an entry, and the entry's own token moved to where it would be shown.
    kept = cipher.seal({"birth": "1991-02-03"})
    lead, done = replayed(
        hold(kept, "hook", source.id), {"note": kept["birth"], "birth": kept["birth"], "salary": stolen}
    )
    assert (lead.message, lead.name) == (kept["birth"], stolen)
    assert cipher.decrypt(lead.attributes["date_of_birth"]) == "1991-02-03"
    assert done["fixed"]["birth"] == kept["birth"] and cipher.decrypt(done["fixed"]["salary"]) == stolen


def test_what_is_typed_under_a_sensitive_name_is_stored_sealed_and_read(
    client: FlaskClient, headers: dict[str, str], hold: Hold, app: Flask, session: Session, workspace: Workspace
) -> None:
    cipher = app.extensions["cipher"]
    source = sources.create(session, workspace.id, "Form", cipher=cipher, actor="Ada")
    sources.save_mapping(session, source, {"email": "mail", "date_of_birth": "birth"}, actor="Ada")
    session.commit()
    path = f"{BASE}/{hold({'x': 1}, 'hook', source.id)}"
    still = client.post(f"{path}/replay", json={"fixed": {"birth": "1990-01-02"}}, headers=headers).json
    assert still["state"] == "held" and "1990" not in str(still) and still["fixed"]["birth"].startswith("enc:")
    mended = still["fixed"] | {"mail": "a@b.example"}
    done = client.post(f"{path}/replay", json={"fixed": mended}, headers=headers).json
    session.rollback()
    lead = session.get_one(Lead, uuid.UUID(done["lead_ids"][0]))
    assert cipher.decrypt(lead.attributes["date_of_birth"]) == "1990-01-02"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200), (b"{}", 200), (b'{"fixed": null}', 200), (b"{", 400), (b"[]", 400), (b"null", 400),
        (b'{"fixed": []}', 400), (b'{"fixed": "x"}', 400), (b'{"other": 1}', 400), (b'{"fixed": {"a": "\\u0000"}}', 400),
        (b'{"fixed": {"a": 1e999}}', 400), (b"x" * ((1 << 20) + 1), 413),
    ],
)  # fmt: skip
def test_bodies_of_a_replay(
    client: FlaskClient, headers: dict[str, str], hold: Hold, session: Session, body: bytes, status: int
) -> None:
    entry_id = hold(COMMENT)
    path = f"{BASE}/{entry_id}/replay"
    answer = client.post(path, data=body, content_type="application/json", headers=headers)
    assert answer.status_code == status, answer.text
    session.rollback()
    assert session.get_one(Quarantined, entry_id).state is QuarantineState.HELD
    wrong = client.post(path, data=b"a=1", content_type="text/plain", headers=headers)
    assert wrong.status_code == 415


@pytest.mark.parametrize("raw", ['{"a": NaN}', "no JSON", '{"a": "\\ud800\\u0000"}', "[" * 900 + "]" * 900, "7"])
def test_whatever_is_held_can_be_read(
    client: FlaskClient, headers: dict[str, str], hold: Hold, session: Session, raw: str
) -> None:
    entry_id = hold(COMMENT)
    session.execute(sa.update(Quarantined).values(raw=raw))
    session.commit()
    answer = client.get(f"{BASE}/{entry_id}", headers=headers)
    assert answer.status_code == 200 and answer.json["id"] == str(entry_id)
    replayed = client.post(f"{BASE}/{entry_id}/replay", headers=headers)
    assert replayed.status_code in (200, 400), replayed.text


def test_nothing_there(client: FlaskClient, headers: dict[str, str]) -> None:
    for method, path in (("GET", ""), ("POST", "/replay"), ("POST", "/discard"), ("POST", "/restore")):
        answer = client.open(f"{BASE}/{uuid.uuid4()}{path}", method=method, headers=headers)
        assert answer.status_code == 404 and answer.json["error"]["code"] == "not_found"
    assert client.get(f"{BASE}/not-a-uuid", headers=headers).status_code == 404

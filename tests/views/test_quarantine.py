"""Quarantine: to look at, mend, replay once, discard and put back; one by one and all of a list."""

import html
import json
import re
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from tests import factories
from tests.views.conftest import fragment
from webapp.leads import quarantine_replay, sources
from webapp.leads.quarantine import Bad, quarantine
from webapp.leads.states import Door, QuarantineState, Role
from webapp.models import AuditEvent, Lead, Quarantined, Workspace
from webapp.models.inbound import InboundSource
from webapp.views.quarantine import excerpt, heading

COMMENT = {
    "field": "feed",
    "value": {
        "item": "comment", "verb": "add", "message": "Giá bao nhiêu?", "post_id": "p1",
        "from": {"id": "u1", "name": "Nguyễn Hạnh"},
    },
}  # fmt: skip
MENDED = COMMENT | {"value": COMMENT["value"] | {"comment_id": "c1"}}


@pytest.fixture
def manager(client: FlaskClient, login: Callable[..., Any]) -> Any:
    return login(client, Role.MANAGER, name="Mai Manager")


@pytest.fixture
def source(app: Flask, session: Session, workspace: Workspace) -> InboundSource:
    made = sources.create(session, workspace.id, "Contact form", cipher=app.extensions["cipher"], actor="Ada")
    sources.save_mapping(session, made, {"email": "email", "message": "message", "dedupe": "id"}, actor="Ada")
    session.commit()
    return made


@pytest.fixture
def hold(session: Session, workspace: Workspace) -> Callable[..., uuid.UUID]:
    """``hold(raw, dialect, source)`` → the id of an entry in quarantine."""

    def do(
        raw: Any = COMMENT,
        dialect: str = "facebook",
        origin: InboundSource | None = None,
        reason: str = "comment_id is missing or no text",
    ) -> uuid.UUID:
        door = Door.HOOK if dialect == "hook" else Door.SOCIAL
        entry = quarantine(session, workspace.id, door, dialect, Bad(reason, raw), origin.id if origin else None)
        session.commit()
        return entry.id

    return do


Hold = Callable[..., uuid.UUID]


def read(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"(?s)<(script|head).*?</\1>|<[^>]*>", " ", text)).split())


def editor(text: str) -> str:
    found = re.search(r"(?s)<textarea[^>]*>\n?(.*?)</textarea>", text)
    assert found
    return html.unescape(found[1])


def entry(session: Session, entry_id: uuid.UUID) -> Quarantined:
    session.rollback()
    return session.get_one(Quarantined, entry_id, populate_existing=True)


def leads(session: Session) -> list[Lead]:
    session.rollback()
    return list(session.scalars(sa.select(Lead)))


def test_an_empty_quarantine_says_so(client: FlaskClient, manager: Any) -> None:
    said = read(client.get("/quarantine").text)
    assert "Nothing is held" in said and "None" not in said
    assert "No such entry" in client.get("/quarantine?state=discarded").text


def test_held_entries_are_counted_where_managers_look(
    app: Flask, client: FlaskClient, manager: Any, login: Callable[..., Any], hold: Hold
) -> None:
    hold(), hold(MENDED)
    queue = client.get("/queue").text
    assert "2 in quarantine" in read(queue) and re.search(r'id="n-quarantine"[^>]*>2<', queue)
    other = app.test_client()
    login(other, Role.REVIEWER)
    assert "uarantine" not in other.get("/queue").text
    assert other.get("/quarantine").status_code == 403


def test_the_list_reads_as_words(client: FlaskClient, manager: Any, hold: Hold, source: InboundSource) -> None:
    hold()
    hold({"email": "ada@b.example", "note": "a <b>price</b>?", "salary": "enc:abc"}, "hook", source, "neither found")
    said = read(client.get("/quarantine").text)
    assert "comment_id is missing or no text" in said and "Facebook or Messenger" in said
    assert "email ada@b.example · note a <b>price</b>?" in said and "Contact form" in said
    assert "enc:" not in said and "{" not in said
    assert "<b>price</b>" not in client.get("/quarantine").text


def test_how_often_it_came_is_shown(client: FlaskClient, manager: Any, hold: Hold) -> None:
    entry_id = hold()
    assert "times" not in read(client.get("/quarantine").text) + read(client.get(f"/quarantine/{entry_id}").text)
    assert {hold(), hold()} == {entry_id}
    assert "came 3 times" in read(client.get("/quarantine").text)
    assert "came 3 times, last" in read(client.get(f"/quarantine/{entry_id}").text)


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("message.mid is missing or no text", "message.mid is missing or no text"),
        ("comment_id is missing or no text", "comment_id is missing or no text"), ("entry[0] is odd", "entry[0] is odd"),
        ("id is missing or no text", "id is missing or no text"), ("message is not text", "message is not text"),
        ("the entry is not a JSON object", "The entry is not a JSON object"),
        ("e-mail is not a valid address", "E-mail is not a valid address"), ("neither found. Or", "Neither found. Or"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_reason_begins_like_a_sentence_unless_with_a_path(reason: str, shown: str) -> None:
    assert heading(reason) == shown


def test_the_list_is_filtered_and_paged(
    client: FlaskClient, manager: Any, hold: Hold, source: InboundSource, session: Session
) -> None:
    for number in range(60):
        hold({"n": number}, "hook", source, f"reason {number:02}")
    hold()
    first = client.get(f"/quarantine?from={source.id}", headers=fragment("results")).text
    assert "<html" not in first and first.count("reason ") == 0 and first.count("Reason ") == 50
    link = re.search(r'href="(/quarantine\?[^"]*cursor=[^"]*)"', first)
    assert link
    second = client.get(html.unescape(link[1])).text
    assert second.count("Reason ") == 10 and "Reason 09" in second and "comment_id" not in second
    assert "comment_id" in client.get("/quarantine?from=facebook").text
    assert "No such entry" in client.get("/quarantine?from=whatsapp").text
    assert client.get("/quarantine?from=nonsense&state=odd").status_code == 200
    assert client.get("/quarantine?cursor=x").status_code == 400


def test_an_entry_is_mended_and_replayed_once(client: FlaskClient, manager: Any, hold: Hold, session: Session) -> None:
    entry_id = hold()
    text = client.get(f"/quarantine/{entry_id}").text
    assert json.loads(editor(text)) == COMMENT and "Giá bao nhiêu?" in editor(text)
    assert "comment_id is missing" in read(text)
    still = client.post(f"/quarantine/{entry_id}/replay", data={"raw": editor(text)}, follow_redirects=True)
    assert "Still held" in read(still.text) and leads(session) == []
    mended = json.dumps(MENDED, indent=2).replace("\n", "\r\n")  # as browsers post
    done = client.post(f"/quarantine/{entry_id}/replay", data={"raw": mended}, follow_redirects=True)
    (lead,) = leads(session)
    assert "Replayed by Mai Manager" in read(done.text) and f"/queue/{lead.id}" in done.text
    assert "Nguyễn Hạnh" in done.text and "As it was received" in done.text
    again = client.post(f"/quarantine/{entry_id}/replay", data={"raw": mended}, follow_redirects=True)
    assert again.status_code == 200 and len(leads(session)) == 1
    kept = entry(session, entry_id)
    assert (kept.state, kept.lead_ids, kept.decided_by) == (QuarantineState.REPLAYED, [str(lead.id)], "Mai Manager")
    assert json.loads(kept.raw) == COMMENT and json.loads(kept.fixed or "") == MENDED
    said = session.scalars(sa.select(AuditEvent.event_type).order_by(AuditEvent.id)).all()
    assert said.count("QUARANTINE_REPLAYED") == 1 and "QUARANTINE_HELD" in said
    assert "Taken in from quarantine; it was held because" in read(client.get(f"/queue/{lead.id}").text)
    assert "Put back" not in done.text and client.post(f"/quarantine/{entry_id}/discard").status_code == 409


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("{", "line 1, column 2"), ('{\n  "a": 1,\n  "b" 2\n}', "line 3, column 7"), ("", "line 1, column 1"),
        ('{"a": NaN}', "NaN is not a JSON number"), ("[" * 5_000, "deep"), ("9" * 5_000, "not valid JSON"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_and_kept_as_typed(
    client: FlaskClient, manager: Any, hold: Hold, session: Session, typed: str, said: str
) -> None:
    entry_id = hold()
    answer = client.post(f"/quarantine/{entry_id}/replay", data={"raw": typed})
    assert answer.status_code == 422 and said in read(answer.text)
    assert editor(answer.text) == typed
    kept = entry(session, entry_id)
    assert (kept.state, kept.fixed, kept.reason) == (QuarantineState.HELD, None, "comment_id is missing or no text")


@pytest.mark.parametrize("typed", ['"x"', "[]", "7", "null", "{}", '{"value": {"message": "\\ud800", "comment_id": "c"}}',
                                   '{"value": {"message": "x\\u0000", "comment_id": "c"}}', '{"entry": 5}'])  # fmt: skip
def test_what_is_json_and_still_no_entry_stays_held_with_the_new_reason(
    client: FlaskClient, manager: Any, hold: Hold, session: Session, typed: str
) -> None:
    entry_id = hold()
    answer = client.post(f"/quarantine/{entry_id}/replay", data={"raw": typed}, follow_redirects=True)
    assert answer.status_code == 200 and "Still held" in read(answer.text)
    kept = entry(session, entry_id)
    assert kept.state is QuarantineState.HELD and kept.reason != "comment_id is missing or no text"
    assert json.loads(kept.fixed or "") == json.loads(typed) and leads(session) == []


def test_a_hook_is_replayed_with_the_mapping_of_now(
    app: Flask, client: FlaskClient, manager: Any, hold: Hold, session: Session, source: InboundSource
) -> None:
    cipher = app.extensions["cipher"]
    raw = cipher.seal({"mail": "a@b.example", "message": "What is the price?", "id": "7", "salary": 90_000})
    entry_id = hold(raw, "hook", source, "neither found")
    client.post(f"/quarantine/{entry_id}/replay")
    (lead,) = leads(session)  # the message is mapped, the address is not
    assert lead.email is None
    entry_id = hold(raw | {"id": "8"}, "hook", source)
    sources.save_mapping(session, source, {"email": "mail", "message": "message", "dedupe": "id"}, actor="Ada")
    session.commit()
    client.post(f"/quarantine/{entry_id}/replay")
    session.rollback()
    found = session.scalars(sa.select(Lead).where(Lead.email == "a@b.example")).one()
    assert found.source_id == source.id
    # The same id by the door afterwards is the same lead.
    path = "/hooks/" + cipher.decrypt(source.token)
    sent = {"mail": "a@b.example", "message": "What is the price?", "id": "8"}
    assert client.post(path, json=sent).json["existing"] == 1


def test_an_entry_of_a_deleted_webhook_cannot_be_replayed(
    client: FlaskClient, manager: Any, hold: Hold, session: Session, source: InboundSource
) -> None:
    entry_id = hold({"email": "a@b.example"}, "hook", source)
    sources.delete(session, source, actor="Ada")
    session.commit()
    answer = client.post(f"/quarantine/{entry_id}/replay", follow_redirects=True)
    assert "was deleted" in read(answer.text) and leads(session) == []


def test_an_unknown_dialect_stays_held(client: FlaskClient, manager: Any, hold: Hold, session: Session) -> None:
    entry_id = hold({"a": 1}, "telegraph")
    assert "Still held" in client.post(f"/quarantine/{entry_id}/replay", follow_redirects=True).text
    assert "telegraph" in read(client.get("/quarantine").text)


def test_discarding_can_be_taken_back(client: FlaskClient, manager: Any, hold: Hold, session: Session) -> None:
    entry_id = hold(MENDED)
    gone = client.post(f"/quarantine/{entry_id}/discard", follow_redirects=True)
    assert "Discarded by Mai Manager" in read(gone.text) and "Put back" in gone.text
    assert client.post(f"/quarantine/{entry_id}/replay").status_code == 409
    back = client.post(f"/quarantine/{entry_id}/restore", follow_redirects=True)
    assert "it waits again" in read(back.text) and "Replay" in back.text
    assert entry(session, entry_id).decided_by is None
    client.post(f"/quarantine/{entry_id}/replay")
    assert len(leads(session)) == 1
    assert client.post(f"/quarantine/{entry_id}/restore").status_code == 409


def test_two_at_once_make_one_lead(
    app: Flask, hold: Hold, session_factory: sessionmaker[Session], session: Session, workspace: Workspace
) -> None:
    from webapp.api import dialects
    from webapp.security.keys import tenant_of

    entry_id = hold(MENDED)
    tenant = tenant_of(workspace, default_region="US", duplicate_days=30, idempotency_days=30)
    tools = quarantine_replay.Tools(tenant, dialects.read, app.extensions["cipher"], "Mai")
    workspace_id = workspace.id
    created: list[int] = []

    def press() -> None:
        with session_factory() as mine:
            created.append(quarantine_replay.replay(mine, workspace_id, entry_id, tools).created)
            mine.commit()

    threads = [threading.Thread(target=press) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created) == [0] * 7 + [1] and len(leads(session)) == 1
    count = sa.select(sa.func.count()).where(AuditEvent.event_type == "QUARANTINE_REPLAYED")
    assert session.scalar(count) == 1


def test_all_of_a_list(client: FlaskClient, manager: Any, hold: Hold, session: Session, source: InboundSource) -> None:
    for number in range(3):
        hold({"email": f"p{number}@b.example"}, "hook", source)
    hold({"colour": "red"}, "hook", source)
    facebook = hold(MENDED)
    done = client.post("/quarantine/bulk", data={"do": "replay", "state": "held", "from": str(source.id)})
    assert done.status_code == 303 and str(source.id) in done.location
    assert "3 new leads, 1 still held" in read(client.get(done.location).text)
    assert entry(session, facebook).state is QuarantineState.HELD
    client.post("/quarantine/bulk", data={"do": "discard", "state": "held"})
    listed = client.get("/quarantine?state=discarded").text
    assert "2 entries" in read(listed) and "Put all back" in listed and listed.count('class="st off"') == 2
    client.post("/quarantine/bulk", data={"do": "restore", "state": "discarded", "from": "facebook"})
    assert entry(session, facebook).state is QuarantineState.HELD
    assert client.post("/quarantine/bulk", data={"do": "burn"}).status_code == 400
    client.post("/quarantine/bulk", data={"do": "replay", "from": "whatsapp"})
    assert "nothing was waiting" in client.get("/quarantine").text


def test_another_workspaces_entries_are_out_of_reach_of_bulk(
    client: FlaskClient, manager: Any, hold: Hold, session: Session
) -> None:
    theirs = factories.make_workspace(session)
    other = quarantine(session, theirs.id, Door.SOCIAL, "facebook", Bad("x", MENDED))
    session.commit()
    for do in ("replay", "discard"):
        client.post("/quarantine/bulk", data={"do": do, "state": "held"})
    assert entry(session, other.id).state is QuarantineState.HELD and leads(session) == []
    assert client.get(f"/quarantine/{other.id}").status_code == 404


def test_hostile_entries_are_shown_as_text(client: FlaskClient, manager: Any, hold: Hold, session: Session) -> None:
    nasty = "</textarea><script>alert(1)</script>"
    for raw in ({"a": nasty}, {"a": "\ud800\x00"}, nasty, [1, [2]], {"a": float("nan")}, None, {"\u202e": "\n\n"}):
        entry_id = hold(raw, reason=nasty)
        for path in ("/quarantine", f"/quarantine/{entry_id}"):
            answer = client.get(path)
            assert answer.status_code == 200 and "<script>alert" not in answer.text
    session.execute(sa.update(Quarantined).values(raw="no JSON at all {"))
    session.commit()
    assert "no JSON at all {" in editor(client.get(f"/quarantine/{entry_id}").text)
    assert client.post(f"/quarantine/{entry_id}/replay", data={"raw": "no JSON at all {"}).status_code == 422


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ('{"a": "x", "b": 5, "c": {"d": true}}', "a x · b 5 · d true"), ("[]", "nothing that can be shown in a line"),
        ('{"a": "cut off in the mid', "a cut off in the mid"), ('{"a": "cut \\u12', "a cut"), ('{"s": "enc:x"}', "nothing that can be shown in a line"),
        ('{"a": "\\ud800"}', "a ?"),
    ],
)  # fmt: skip
def test_the_excerpt(raw: str, line: str) -> None:
    assert excerpt(raw).strip() == line

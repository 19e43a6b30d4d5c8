"""The Facebook webhook and the signals API, docs/api.md §4."""

import hashlib
import hmac
import json
import threading
import time
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests import factories
from tests.conftest import FERNET_KEY, environment
from tests.waiting import until
from webapp import create_app
from webapp.api import dialects
from webapp.api.meta.sources import Sources
from webapp.config import load_settings
from webapp.leads.intake import LeadIn
from webapp.leads.states import Scope
from webapp.models import Lead, Person, Quarantined, Run, SocialPage, Workspace, db
from webapp.security.fields import FieldCipher

SECRET = "meta-app-secret"


def comment(
    number: int | str, message: str = "Giá bao nhiêu vậy shop?", author: str = "u1", **over: Any
) -> dict[str, Any]:
    value = {
        "from": {"id": author, "name": "Nguyễn Hạnh"}, "item": "comment", "verb": "add", "comment_id": f"c{number}",
        "post_id": "p1", "created_time": 1520544814, "message": message,
    } | over  # fmt: skip
    return {"field": "feed", "value": value}


def body(*changes: Any, page: str = "PAGE", **more: Any) -> dict[str, Any]:
    return {"object": "page", "entry": [{"id": page, "time": 1520544814, "changes": list(changes)}], **more}


def leads(session: Session) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(Lead)) or 0


def test_every_entry_is_a_lead_with_its_verdict_at_once(
    client: FlaskClient, headers: dict[str, str], workspace: Workspace
) -> None:
    sent = body(comment(1), comment(2, "show me the money"))
    sent["entry"].append(
        {"id": "PAGE", "time": 1, "messaging": [
            {"sender": {"id": "psid"}, "recipient": {"id": "PAGE"}, "timestamp": 1, "message": {"mid": "m1", "text": "demo?"}},
            {"sender": {"id": "PAGE"}, "recipient": {"id": "psid"}, "message": {"mid": "m2", "text": "hi", "is_echo": True}},
            {"sender": {"id": "psid"}, "recipient": {"id": "PAGE"}, "read": {"watermark": 1}},
        ]}
    )  # fmt: skip
    answer = client.post("/webhooks/facebook", json=sent, headers=headers)
    assert answer.status_code == 200
    assert answer.json["ok"] is True and answer.json["created"] == 3 and len(answer.json["lead_ids"]) == 3
    listed = client.get(f"/api/leads?tenant_id={workspace.id}", headers=headers).json
    assert listed["tenant_id"] == str(workspace.id) and listed["total"] == 3
    first = next(lead for lead in listed["leads"] if lead["external_message_id"] == "c1")
    assert first["platform"] == "facebook" and first["author_name"] == "Nguyễn Hạnh" and first["author_id"] == "u1"
    assert first["intent_label"] == "inquiry_price" and first["priority"] == "high"
    assert first["status"].startswith("new_") and 0 < first["confidence_score"] <= 1
    assert set(first) == {
        "id", "tenant_id", "platform", "source_type", "source_subtype", "external_post_id", "external_thread_id",
        "external_message_id", "author_name", "author_id", "content_text", "intent_label", "priority",
        "confidence_score", "status", "assignee", "follow_up_at", "last_contact_at", "meta", "created_at", "updated_at",
    }  # fmt: skip
    events = client.get(f"/audit/events?tenant_id={workspace.id}", headers=headers).json
    assert {event["event_type"] for event in events} == {"LEAD_SIGNAL_CREATED"}
    assert set(events[0]) == {"id", "tenant_id", "lead_id", "event_type", "actor", "metadata", "created_at"}


def test_a_repeat_creates_nothing(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    sent = body(comment(1), comment(2))
    assert client.post("/webhooks/facebook", json=sent, headers=headers).json["created"] == 2
    again = client.post("/webhooks/facebook", json=sent, headers=headers)
    assert again.json == {"ok": True, "created": 0, "lead_ids": []}
    assert leads(session) == 2


def test_the_same_words_twice_are_two_leads_of_one_author(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    assert client.post("/webhooks/facebook", json=body(comment(1), comment(2)), headers=headers).json["created"] == 2
    assert session.scalar(sa.select(sa.func.count()).select_from(Person)) == 1


def test_the_flat_test_entry(client: FlaskClient, headers: dict[str, str]) -> None:
    flat = {"message": "Giá?", "sender_name": "An", "sender_id": "1", "post_id": "2", "comment_id": "3"}
    assert client.post("/webhooks/facebook", json=flat, headers=headers).json["created"] == 1
    assert client.post("/webhooks/facebook", json=flat, headers=headers).json["created"] == 0


@pytest.mark.parametrize(
    "change",
    [
        comment(1, verb="edited"), comment(1, verb="remove"), comment(1, item="status"),
        comment(1, author="PAGE"), {"field": "ratings", "value": {"item": "comment", "verb": "add"}},
    ],
)  # fmt: skip
def test_what_is_no_lead_is_passed_over(
    client: FlaskClient, headers: dict[str, str], session: Session, change: Any
) -> None:
    assert client.post("/webhooks/facebook", json=body(change), headers=headers).json["created"] == 0
    assert session.scalar(sa.select(sa.func.count()).select_from(Quarantined)) == 0


def test_a_picture_without_words_is_a_lead(client: FlaskClient, headers: dict[str, str]) -> None:
    picture = comment(1)
    del picture["value"]["message"], picture["value"]["from"]
    assert client.post("/webhooks/facebook", json=body(picture), headers=headers).json["created"] == 1


def test_a_bad_entry_is_quarantined_and_its_neighbours_are_kept(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    nameless = comment(3)
    del nameless["value"]["comment_id"]
    bad = [
        nameless,
        comment(4, message={"rich": 1}),
        "nonsense",
        {"field": "leadgen", "value": {"form_id": 1}},
        comment(5, "x" * 20_001),
    ]
    answer = client.post("/webhooks/facebook", json=body(comment(1), *bad, comment(2)), headers=headers)
    assert answer.status_code == 200 and answer.json["created"] == 2
    kept = session.scalars(sa.select(Quarantined)).all()
    assert len(kept) == len(bad)
    assert all(row.reason and json.loads(row.raw) for row in kept)


def test_a_batch_twenty_times_in_parallel_makes_each_comment_one_lead(
    app: Flask, headers: dict[str, str], session: Session
) -> None:
    """Each post has the comments, and their authors, in another order: the order of locks must not follow it."""
    changes = [comment(n, author=f"u{n % 7}") for n in range(20)]
    barrier, created, statuses = threading.Barrier(20), [], []

    def one(shift: int) -> None:
        with app.test_client() as client:
            barrier.wait()
            answer = client.post("/webhooks/facebook", json=body(*changes[shift:], *changes[:shift]), headers=headers)
            statuses.append(answer.status_code)
            created.append(answer.json["created"])

    threads = [threading.Thread(target=one, args=(shift,)) for shift in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 20
    assert sum(created) == 20 and leads(session) == 20
    assert session.scalar(sa.select(sa.func.count()).select_from(Run)) == 20


def test_tenants_by_key(client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace) -> None:
    other = factories.make_workspace(session)

    def sent(extra: dict[str, str] | None = None, **more: Any) -> Any:
        return client.post(
            "/webhooks/facebook", json=body(comment(uuid.uuid4().hex), **more), headers=headers | (extra or {})
        )

    assert sent({"X-Tenant-ID": str(workspace.id)}).json["created"] == 1
    assert sent(tenant_id=str(workspace.id)).json["created"] == 1
    assert sent({"X-Tenant-ID": str(workspace.id)}, tenant_id="garbage").json["created"] == 1  # the header comes first
    assert sent({"X-Tenant-ID": str(other.id)}).status_code == 403
    assert sent(tenant_id=str(uuid.uuid4())).json == {"ok": True, "created": 0, "lead_ids": []}
    assert sent({"X-Tenant-ID": "garbage"}).status_code == 400
    assert client.get(f"/api/leads?tenant_id={other.id}", headers=headers).status_code == 403


def test_a_mapped_page_of_another_workspace_is_refused(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    other = factories.make_workspace(session)
    session.add(SocialPage(platform="facebook", page_id="PAGE", workspace_id=other.id))
    session.commit()
    assert client.post("/webhooks/facebook", json=body(comment(1)), headers=headers).status_code == 403


def test_no_credential_and_weak_credential(client: FlaskClient, session: Session, workspace: Workspace) -> None:
    assert client.post("/webhooks/facebook", json=body(comment(1))).status_code == 401
    reader = factories.make_key(session, workspace, scopes={Scope.READ})
    assert client.post("/webhooks/facebook", json=body(comment(1)), headers={"X-API-Key": reader}).status_code == 403
    forged = {"X-Hub-Signature-256": "sha256=" + "0" * 64}
    assert client.post("/webhooks/facebook", json=body(comment(1)), headers=forged).status_code == 401


@pytest.fixture
def signed_app(app: Flask, database_url: str, redis_url: str) -> Any:
    made = create_app(
        load_settings(environment(database_url, redis_url, META_APP_SECRET=SECRET, META_VERIFY_TOKEN="verify me"))
    )
    yield made
    with made.app_context():
        db.engine.dispose()
    made.extensions["autocommit"].dispose()


def signed(client: FlaskClient, sent: Any, secret: str = SECRET, **extra: str) -> Any:
    raw = json.dumps(sent).encode()
    signature = "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": signature, "Content-Type": "application/json"} | extra
    return client.post("/webhooks/facebook", data=raw, headers=headers)


def test_tenants_by_signature(signed_app: Flask, session: Session, workspace: Workspace) -> None:
    client = signed_app.test_client()
    other = factories.make_workspace(session)
    assert signed(client, body(comment(1))).status_code == 400  # whose page is it?
    assert signed(client, body(comment(1)), **{"X-Tenant-ID": str(workspace.id)}).json["created"] == 1
    assert signed(client, body(comment(2)), **{"X-Tenant-ID": str(other.id)}).status_code == 403
    assert signed(client, body(comment(2)), **{"X-Tenant-ID": str(uuid.uuid4())}).json["created"] == 0
    session.add(SocialPage(platform="facebook", page_id="PAGE", workspace_id=workspace.id))
    session.commit()
    assert signed(client, body(comment(3))).json["created"] == 1
    assert signed(client, body(comment(4), tenant_id=str(other.id))).status_code == 403
    assert signed(client, body(comment(4)), secret="wrong").status_code == 401


def test_a_secret_of_another_workspace_does_not_speak_for_this_one(
    signed_app: Flask, session: Session, workspace: Workspace
) -> None:
    cipher = signed_app.extensions["cipher"]
    other = factories.make_workspace(session, meta_app_secret=cipher.encrypt("their secret"))
    session.add(SocialPage(platform="facebook", page_id="PAGE", workspace_id=workspace.id))
    session.commit()
    client = signed_app.test_client()
    assert signed(client, body(comment(1)), secret="their secret").status_code == 403
    own = {"X-Tenant-ID": str(other.id)}
    assert signed(client, body(comment(1), page="FREE"), secret="their secret", **own).json["created"] == 1


def test_the_handshake(signed_app: Flask, client: FlaskClient) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "verify me", "hub.challenge": "<b>1158201444</b>"}
    answer = signed_app.test_client().get("/webhooks/facebook", query_string=query)
    assert (answer.status_code, answer.text) == (200, "<b>1158201444</b>")
    assert answer.content_type.startswith("text/plain")
    wrong = query | {"hub.verify_token": "no"}
    assert signed_app.test_client().get("/webhooks/facebook", query_string=wrong).status_code == 403
    assert client.get("/webhooks/facebook", query_string=query).status_code == 403  # no token is configured


def test_one_unreadable_secret_does_not_stop_the_others(
    signed_app: Flask, session: Session, workspace: Workspace
) -> None:
    factories.make_workspace(session, meta_app_secret="enc:of a key that is gone")
    answer = signed(signed_app.test_client(), body(comment(1)), **{"X-Tenant-ID": str(workspace.id)})
    assert answer.json["created"] == 1


def test_one_comment_that_cannot_be_stored_costs_only_itself(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    sent = body(comment(1), comment(2, "a\x00b"), comment(3, "half an emoji \ud83d"), comment(4))
    answer = client.post("/webhooks/facebook", data=json.dumps(sent), content_type="application/json", headers=headers)
    assert (answer.status_code, answer.json["created"]) == (200, 2)
    assert session.scalar(sa.select(sa.func.count()).select_from(Quarantined)) == 2


def test_pages_of_two_workspaces_in_one_signed_body(signed_app: Flask, session: Session, workspace: Workspace) -> None:
    cipher = signed_app.extensions["cipher"]
    other = factories.make_workspace(session, meta_app_secret=cipher.encrypt(SECRET))
    session.add(SocialPage(platform="facebook", page_id="P1", workspace_id=workspace.id))
    session.add(SocialPage(platform="facebook", page_id="P2", workspace_id=other.id))
    session.commit()
    sent = body(comment(1), page="P1")
    sent["entry"] += body(comment(2), page="P2")["entry"] + body(comment(3), page="NOBODY'S")["entry"]
    assert signed(signed_app.test_client(), sent).json["created"] == 2
    owners = dict(session.execute(sa.select(Lead.external_message_id, Lead.workspace_id)).all())
    assert owners == {"c1": workspace.id, "c2": other.id}
    assert "not mapped" in session.scalars(sa.select(Quarantined.reason)).one()


def test_another_workspaces_page_costs_only_its_own_entries(
    signed_app: Flask, session: Session, workspace: Workspace
) -> None:
    """Any admin can map any page that is not mapped yet, so that must not stop another workspace's webhooks."""
    other = factories.make_workspace(session)
    session.add(SocialPage(platform="facebook", page_id="OURS", workspace_id=workspace.id))
    session.add(SocialPage(platform="facebook", page_id="THEIRS", workspace_id=other.id))
    session.commit()
    sent = body(comment(1, date_of_birth="1990-01-02"), page="THEIRS")
    sent["entry"] += body(comment(2), page="OURS")["entry"] + body(comment(3), page="OURS")["entry"]
    client = signed_app.test_client()
    assert signed(client, sent).json["created"] == 2
    assert set(session.execute(sa.select(Lead.external_message_id, Lead.workspace_id))) == {
        ("c2", workspace.id), ("c3", workspace.id),
    }  # fmt: skip
    kept = session.scalars(sa.select(Quarantined)).one()
    assert (kept.workspace_id, kept.dialect) == (workspace.id, "facebook")
    assert "mapped to another workspace" in kept.reason
    assert "1990" not in kept.raw
    seal = signed_app.extensions["cipher"].seal
    (lead,) = dialects.read("facebook", json.loads(kept.raw), seal=seal)  # nothing of it is lost
    assert isinstance(lead, LeadIn) and lead.external_message_id == "c1"
    # Nobody's business here: refused as ever, and so is a tenant that disagrees with a page.
    assert signed(client, body(comment(4), page="THEIRS")).status_code == 403
    unmapped = body(comment(4), page="THEIRS")
    unmapped["entry"] += body(comment(5), page="NOBODY'S")["entry"]
    assert signed(client, unmapped).status_code == 403
    assert signed(client, sent, **{"X-Tenant-ID": str(workspace.id)}).status_code == 403
    assert leads(session) == 2


def test_entries_of_unmapped_pages_are_sealed(signed_app: Flask, session: Session, workspace: Workspace) -> None:
    session.add(SocialPage(platform="facebook", page_id="PAGE", workspace_id=workspace.id))
    session.commit()
    sent = body(comment(1))
    sent["entry"] += body(comment(2, monthly_salary="4711 EUR"), page="NOBODY'S")["entry"]
    assert signed(signed_app.test_client(), sent).json["created"] == 1
    kept = session.scalars(sa.select(Quarantined)).one()
    assert "not mapped" in kept.reason
    sealed = json.loads(kept.raw)["changes"][0]["value"]["monthly_salary"]
    assert signed_app.extensions["cipher"].decrypt(sealed) == "4711 EUR"


def test_a_workspace_that_was_removed_a_moment_ago_loses_nothing(
    signed_app: Flask, session: Session, workspace: Workspace
) -> None:
    """Its pages and its secret may still be remembered. What comes for it is sent again, or kept by who else there is."""
    gone = factories.make_workspace(session, meta_app_secret=signed_app.extensions["cipher"].encrypt(SECRET))
    session.add(SocialPage(platform="facebook", page_id="GONE", workspace_id=gone.id))
    session.add(SocialPage(platform="facebook", page_id="PAGE", workspace_id=workspace.id))
    session.commit()
    gone_id, sources, client = gone.id, signed_app.extensions["meta_sources"], signed_app.test_client()
    session.execute(sa.delete(SocialPage).where(SocialPage.workspace_id == gone_id))
    session.execute(sa.delete(Workspace).where(Workspace.id == gone_id))
    session.commit()

    def remembered() -> None:
        sources._pages.keep([(("facebook", "GONE"), gone_id)])
        sources._secrets.keep([(None, [(gone_id, SECRET), (workspace.id, SECRET)])])

    sent = body(comment(1), page="GONE")
    sent["entry"] += body(comment(2), page="NOBODY'S")["entry"]
    remembered()
    answer = signed(client, sent)
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "missing_param")
    sent["entry"] += body(comment(3))["entry"]
    remembered()
    assert signed(client, sent).json["created"] == 1
    kept = session.scalars(sa.select(Quarantined)).all()
    assert {json.loads(one.raw)["id"] for one in kept} == {"GONE", "NOBODY'S"}
    assert {one.workspace_id for one in kept} == {workspace.id}


def test_ten_thousand_entries_that_are_none_are_kept(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    sent = {"object": "page", "entry": list(range(10_000))}
    assert client.post("/webhooks/facebook", json=sent, headers=headers).json["created"] == 0
    assert session.scalar(sa.select(sa.func.count()).select_from(Quarantined)) == 10_000


def test_wrong_signatures_cost_one_reading_a_second(signed_app: Flask, session: Session, workspace: Workspace) -> None:
    """Anybody can post with a signature of their own; that must not read and decrypt all secrets each time."""
    decrypted: list[str] = []

    class Counting(FieldCipher):
        def decrypt(self, token: str) -> Any:
            decrypted.append(token)
            return super().decrypt(token)

    cipher = Counting([FERNET_KEY])
    for number in range(3):
        factories.make_workspace(session, meta_app_secret=cipher.encrypt(f"secret {number}"))
    with signed_app.app_context():
        engine = db.engine
    sources, asked = Sources(cipher, lambda _: None, None), []  # type: ignore[arg-type, return-value]
    sa.event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))

    def verified(secret: str) -> frozenset[uuid.UUID]:
        with signed_app.app_context():
            return sources.verified(db.session(), lambda known: known == secret)

    started = time.monotonic()
    assert not any(verified("wrong") for _ in range(100))
    assert len(asked) <= 2 + (time.monotonic() - started)
    assert len(decrypted) == 3
    assert len(verified("secret 1")) == 1
    # A new one is found all the same, soon and without the old ones being decrypted again.
    new = factories.make_workspace(session, meta_app_secret=cipher.encrypt("a new secret"))
    assert until(lambda: verified("a new secret")) == {new.id}
    assert len(decrypted) == 4


def test_a_key_beside_a_signature_says_whose_it_is(
    signed_app: Flask, headers: dict[str, str], session: Session
) -> None:
    assert signed(signed_app.test_client(), body(comment(1)), **headers).json["created"] == 1


def test_a_header_names_the_tenant_whatever_pages_there_are(
    client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace
) -> None:
    for page in ("P1", "P2"):
        owner = factories.make_workspace(session)
        session.add(SocialPage(platform="facebook", page_id=page, workspace_id=owner.id))
    session.commit()
    sent = body(comment(1), page="P1")
    sent["entry"] += body(comment(2), page="P2")["entry"]
    named = headers | {"X-Tenant-ID": str(workspace.id)}
    assert client.post("/webhooks/facebook", json=sent, headers=named).json["created"] == 2


def test_seventy_thousand_pages_are_no_reason_to_give_up(client: FlaskClient, headers: dict[str, str]) -> None:
    sent = {"entry": [{"id": n} for n in range(70_000)]}
    raw = json.dumps(sent, separators=(",", ":"))
    assert len(raw) < 1 << 20
    answer = client.post("/webhooks/facebook", data=raw, content_type="application/json", headers=headers)
    assert (answer.status_code, answer.json["created"]) == (200, 0)


def test_sealed_attributes_are_not_handed_out(client: FlaskClient, headers: dict[str, str]) -> None:
    lead = {"message": "hi", "email": "a@example.com", "date_of_birth": "1990-01-02", "job_title": "CTO"}
    assert client.post("/api/v1/leads", json=lead, headers=headers).status_code == 201
    meta = client.get("/api/leads", headers=headers).json["leads"][0]["meta"]
    assert meta["job_title"] == "CTO" and "date_of_birth" not in meta


def test_what_is_known_already_is_not_asked_again(signed_app: Flask, session: Session, workspace: Workspace) -> None:
    """A body of comments costs the one statement that takes them in; whose page it is, and which secret signs, is
    remembered for a moment."""
    session.add(SocialPage(platform="facebook", page_id="PAGE", workspace_id=workspace.id))
    session.commit()
    client, asked = signed_app.test_client(), []
    with signed_app.app_context():
        engine = db.engine
    sa.event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    assert signed(client, body(comment(1))).json["created"] == 1
    assert len(asked) == 3  # the secrets, the page, the tenant
    assert signed(client, body(comment(2), comment(3))).json["created"] == 2
    assert len(asked) == 3
    # What is not known is looked for each time: it may be there by now.
    assert signed(client, body(comment(4), page="NEW")).status_code == 400
    session.add(SocialPage(platform="facebook", page_id="NEW", workspace_id=workspace.id))
    session.commit()
    assert signed(client, body(comment(4), page="NEW")).json["created"] == 1

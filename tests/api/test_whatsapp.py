"""The WhatsApp Cloud webhook, docs/api.md §4."""

import copy
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests import factories
from tests.conftest import environment
from tests.meta import SECRET, page_body, signed, whatsapp_body, whatsapp_message
from webapp import create_app
from webapp.api import dialects
from webapp.api.body import is_sound
from webapp.config import load_settings
from webapp.leads.intake import LeadIn
from webapp.leads.states import Scope
from webapp.models import Lead, Person, Quarantined, Run, SocialPage, Workspace, db

PATH = "/webhooks/whatsapp"
message, body = whatsapp_message, whatsapp_body


def post(client: FlaskClient, headers: dict[str, str], sent: Any) -> Any:
    answer = client.post(PATH, json=sent, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json


def the_lead(session: Session) -> Lead:
    session.rollback()
    return session.scalars(sa.select(Lead)).one()


@pytest.fixture
def signed_app(app: Flask, database_url: str, redis_url: str) -> Iterator[Flask]:
    made = create_app(
        load_settings(environment(database_url, redis_url, META_APP_SECRET=SECRET, META_VERIFY_TOKEN="verify me"))
    )
    yield made
    with made.app_context():
        db.engine.dispose()
    made.extensions["autocommit"].dispose()


def test_a_message_is_a_lead_with_its_verdict_at_once(
    client: FlaskClient, headers: dict[str, str], workspace: Workspace, session: Session
) -> None:
    answer = post(client, headers, body(message(1)))
    assert answer["ok"] is True and answer["created"] == 1
    listed = client.get(f"/api/leads?tenant_id={workspace.id}", headers=headers).json["leads"]
    assert [lead["id"] for lead in listed] == answer["lead_ids"]
    (lead,) = listed
    assert lead["platform"] == "whatsapp" and lead["external_message_id"] == "wamid.1"
    assert lead["author_name"] == "Hạnh" and lead["author_id"] == "14155552671"
    assert lead["intent_label"] == "inquiry_price" and lead["priority"] == "high"
    assert lead["meta"]["phone_number_id"] == "NUMBER" and lead["meta"]["sent_at"] == "1749416383"
    stored = the_lead(session)
    assert (stored.phone, stored.phone_e164, stored.source) == ("+14155552671", "+14155552671", "whatsapp")
    assert session.scalar(sa.select(sa.func.count()).select_from(Run)) == 1


def test_a_repeat_creates_nothing_and_the_same_words_twice_are_two(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    sent = body(message(1), message(2))
    assert post(client, headers, sent)["created"] == 2
    assert post(client, headers, sent) == {"ok": True, "created": 0, "lead_ids": []}
    assert session.scalar(sa.select(sa.func.count()).select_from(Person)) == 1


def test_the_number_links_to_who_wrote_by_a_form(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    form = {"message": "Hello, a demo please", "phone": "+1 415 555 2671"}
    assert client.post("/api/v1/leads", json=form, headers=headers).status_code == 201
    post(client, headers, body(message(1)))
    assert session.scalar(sa.select(sa.func.count()).select_from(Person)) == 1


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("text", {"body": "hello"}, "hello"),
        ("button", {"payload": "PRICES", "text": "Show me prices"}, "Show me prices"),
        ("interactive", {"type": "button_reply", "button_reply": {"id": "b1", "title": "Yes"}}, "Yes"),
        (
            "interactive",
            {"type": "list_reply", "list_reply": {"id": "l1", "title": "Gold", "description": "50 seats"}},
            "Gold\n50 seats",
        ),
        (
            "interactive",
            {"type": "nfm_reply", "nfm_reply": {"body": "Sent", "response_json": '{"flow_token":"x","how_many":"50"}'}},
            "how many: 50",
        ),
        ("interactive", {"type": "nfm_reply", "nfm_reply": {"body": "Sent", "response_json": "{broken"}}, "Sent"),
        ("image", {"id": "1", "mime_type": "image/jpeg", "caption": "how much is this?"}, "how much is this?"),
        ("image", {"id": "1", "mime_type": "image/jpeg"}, "(image)"),
        ("video", {"id": "1", "caption": "this one"}, "this one"),
        ("document", {"id": "1", "filename": "order.pdf"}, "(document: order.pdf)"),
        ("document", {"id": "1", "filename": "order.pdf", "caption": "our order"}, "our order"),
        ("audio", {"id": "1", "voice": True}, "(voice message)"),
        ("sticker", {"id": "1"}, "(sticker)"),
        (
            "location",
            {"latitude": 10.77, "longitude": 106.7, "name": "Shop", "address": "1 Lê Lợi"},
            "(location: Shop, 1 Lê Lợi, 10.77, 106.7)",
        ),
        (
            "contacts",
            [{"name": {"formatted_name": "Bo"}, "phones": [{"phone": "+1 415"}], "emails": [{"email": "b@x.example"}]}],
            "(contact: Bo +1 415 b@x.example)",
        ),
        (
            "order",
            {
                "text": "please",
                "product_items": [
                    {"product_retailer_id": "SKU1", "quantity": 2, "item_price": 9.5, "currency": "EUR"},
                ],
            },
            "please\n2 × SKU1 at 9.5 EUR",
        ),
    ],
)
def test_every_type_says_something(
    client: FlaskClient, headers: dict[str, str], session: Session, kind: str, content: Any, words: str
) -> None:
    assert post(client, headers, body(message(1, kind, content)))["created"] == 1
    lead = the_lead(session)
    assert (lead.message, lead.source_type, lead.source_subtype) == (words, "message", kind)


def test_what_whatsapp_does_not_pass_on_is_still_somebody_who_wrote(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    unknown = message(1, "unsupported", None, errors=[{"code": 131051, "title": "Message type is unknown"}])
    assert post(client, headers, body(unknown))["created"] == 1
    assert the_lead(session).message == "(a message that WhatsApp does not pass on: Message type is unknown)"


@pytest.mark.parametrize(
    "sent",
    [
        body(message(1, "reaction", {"message_id": "wamid.9", "emoji": "👍"})),
        body(message(1, "system", {"body": "user changed number", "wa_id": "1"})),
        body(messages=None, contacts=None, statuses=[{"id": "wamid.8", "status": "delivered", "recipient_id": "1"}]),
        {"object": "whatsapp_business_account", "entry": [
            {"id": "WABA", "changes": [{"field": "message_template_status_update", "value": {"event": "APPROVED"}}]}
        ]},
        {"object": "whatsapp_business_account", "entry": []},
        {"object": "permissions", "entry": [{"id": 1, "changes": [{"field": "x", "value": {}}]}]},
    ],
)  # fmt: skip
def test_what_is_no_lead_is_passed_over(
    client: FlaskClient, headers: dict[str, str], session: Session, sent: Any
) -> None:
    assert post(client, headers, sent)["created"] == 0
    assert session.scalar(sa.select(sa.func.count()).select_from(Quarantined)) == 0


@pytest.mark.parametrize(
    ("over", "contacts", "author", "name", "phone"),
    [
        # A user name instead of a number: a BSUID, in the message or in the contact alone.
        ({"from": None, "from_user_id": "US.1349"}, [{"profile": {"name": "Bo"}, "user_id": "US.1349"}], "US.1349", "Bo", None),
        ({"from": None}, [{"profile": {"username": "bo.x"}, "user_id": "US.1349"}], "US.1349", "bo.x", None),
        ({"from": "US.1349"}, None, "US.1349", None, None),
        ({"from": None}, None, None, None, None),
        # The contact's number stands in for one that the message does not say.
        ({"from": None}, [{"profile": {"name": "Bo"}, "wa_id": "84912345678"}], "84912345678", "Bo", "+84912345678"),
        ({"from": "84912345678"}, [{"profile": {"name": "Else"}, "wa_id": "1"}, {"profile": {"name": "Bo"}, "wa_id": "84912345678"}], "84912345678", "Bo", "+84912345678"),
        # Digits that are no telephone number.
        ({"from": "12"}, None, "12", None, None),
        ({"from": 84912345678}, None, "84912345678", None, "+84912345678"),
    ],
)  # fmt: skip
def test_who_wrote(
    client: FlaskClient,
    headers: dict[str, str],
    session: Session,
    over: dict[str, Any],
    contacts: Any,
    author: str | None,
    name: str | None,
    phone: str | None,
) -> None:
    assert post(client, headers, body(_with(over), contacts=contacts))["created"] == 1
    lead = the_lead(session)
    assert (lead.author_id, lead.author_name, lead.phone_e164) == (author, name, phone)


def _with(over: dict[str, Any]) -> dict[str, Any]:
    made = message(1) | over
    return {key: value for key, value in made.items() if value is not None}


def test_a_bad_message_is_quarantined_and_its_neighbours_are_kept(
    client: FlaskClient, headers: dict[str, str], session: Session, app: Flask
) -> None:
    bad = [
        {"from": "14155552671", "type": "text", "text": {"body": "no id"}},
        message(3, "text", "not an object"),
        message(4, "text", {"body": ["not text"]}),
        message(5, "text", {"body": "x" * 20_001}),
        message(6, "text", {"body": "a\x00b"}),
        message(7, "text", {"body": "half \ud83d"}),
        message(8, "interactive", {"nfm_reply": {"response_json": '{"a":"\\u0000"}'}}),
        message("9" * 600),
        "nonsense",
    ]
    sent = body(message(1), *bad, message(2))
    sent["entry"] += [
        "nonsense", {"id": "WABA", "changes": {}}, {"id": "WABA", "changes": ["nonsense"]},
        {"id": "WABA", "changes": [{"field": "messages", "value": {"messages": 7}}]},
    ]  # fmt: skip
    sent["entry"] += body(message(10))["entry"]
    assert post(client, headers, json.loads(json.dumps(sent)))["created"] == 3
    kept = session.scalars(sa.select(Quarantined)).all()
    assert len(kept) == len(bad) + 4
    assert all(row.reason and row.dialect == "whatsapp" for row in kept)
    # Each is read again on its own, and says the same; once it is fixed, it is the lead that it should have been.
    for row in kept:
        (again,) = dialects.read("whatsapp", json.loads(row.raw), seal=app.extensions["cipher"].seal)
        assert not isinstance(again, LeadIn) and again.reason == row.reason
    fixed = json.loads(next(row.raw for row in kept if "no id" in row.raw))
    fixed["changes"][0]["value"]["messages"][0]["id"] = "wamid.fixed"
    (lead,) = dialects.read("whatsapp", fixed, seal=app.extensions["cipher"].seal)
    assert isinstance(lead, LeadIn)
    assert (lead.message, lead.author_name, lead.phone) == ("no id", "Hạnh", "+14155552671")


@pytest.mark.parametrize("sent", [{}, {"entry": "x"}, {"object": "whatsapp_business_account"}])
def test_a_body_that_is_none_is_kept_as_a_whole(
    client: FlaskClient, headers: dict[str, str], session: Session, sent: Any
) -> None:
    assert post(client, headers, sent)["created"] == 0
    assert json.loads(session.scalars(sa.select(Quarantined.raw)).one()) == sent


def test_the_proof(client: FlaskClient, session: Session, workspace: Workspace) -> None:
    assert client.post(PATH, json=body(message(1))).status_code == 401
    reader = factories.make_key(session, workspace, scopes={Scope.READ})
    assert client.post(PATH, json=body(message(1)), headers={"X-API-Key": reader}).status_code == 403
    forged = {"X-Hub-Signature-256": "sha256=" + "0" * 64}
    assert client.post(PATH, json=body(message(1)), headers=forged).status_code == 401


def test_the_handshake(signed_app: Flask, client: FlaskClient) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "verify me", "hub.challenge": "1158201444"}
    answer = signed_app.test_client().get(PATH, query_string=query)
    assert (answer.status_code, answer.text) == (200, "1158201444")
    assert answer.content_type.startswith("text/plain")
    assert signed_app.test_client().get(PATH, query_string=query | {"hub.verify_token": "no"}).status_code == 403
    assert client.get(PATH, query_string=query).status_code == 403  # no token is configured


def test_tenants_by_key(client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace) -> None:
    other = factories.make_workspace(session)
    named = {"X-Tenant-ID": str(other.id)}
    assert client.post(PATH, json=body(message(1)), headers=headers | named).status_code == 403
    session.add(SocialPage(platform="whatsapp", page_id="NUMBER", workspace_id=other.id))
    session.commit()
    assert client.post(PATH, json=body(message(1)), headers=headers).status_code == 403
    # The same id on Facebook is another page.
    session.add(SocialPage(platform="facebook", page_id="FREE", workspace_id=other.id))
    session.commit()
    assert post(client, headers, body(message(1), number="FREE"))["created"] == 1


def test_tenants_by_signature(signed_app: Flask, session: Session, workspace: Workspace) -> None:
    client = signed_app.test_client()
    other = factories.make_workspace(session)
    assert signed(client, body(message(1)), PATH).status_code == 400  # whose number is it?
    assert signed(client, body(message(1)), PATH, **{"X-Tenant-ID": str(workspace.id)}).json["created"] == 1
    assert signed(client, body(message(2)), PATH, **{"X-Tenant-ID": str(other.id)}).status_code == 403
    assert signed(client, body(message(2)), PATH, **{"X-Tenant-ID": str(uuid.uuid4())}).json["created"] == 0
    session.add(SocialPage(platform="whatsapp", page_id="WABA", workspace_id=workspace.id))
    session.commit()
    assert signed(client, body(message(3)), PATH).json["created"] == 1  # by the account
    assert signed(client, body(message(4)), PATH, secret="wrong").status_code == 401


def test_numbers_of_two_workspaces_in_one_entry(signed_app: Flask, session: Session, workspace: Workspace) -> None:
    """The number decides before the account does."""
    other = factories.make_workspace(session, meta_app_secret=signed_app.extensions["cipher"].encrypt(SECRET))
    session.add(SocialPage(platform="whatsapp", page_id="WABA", workspace_id=workspace.id))
    session.add(SocialPage(platform="whatsapp", page_id="N2", workspace_id=other.id))
    session.commit()
    sent = body(message(1), number="N1")
    sent["entry"][0]["changes"] += body(message(2), number="N2")["entry"][0]["changes"]
    sent["entry"] += body(message(3), number="N3", account="NOBODY'S")["entry"]
    assert signed(signed_app.test_client(), sent, PATH).json["created"] == 2
    owners = dict(session.execute(sa.select(Lead.external_message_id, Lead.workspace_id)).all())
    assert owners == {"wamid.1": workspace.id, "wamid.2": other.id}
    kept = session.scalars(sa.select(Quarantined)).one()
    assert "not mapped" in kept.reason and kept.dialect == "whatsapp"


ANSWERS = {
    "how_many": 50, "screen_0_date_of_birth_1": "1990-01-02", "monthly_income": 4711, "SSN": "078-05-1120",
    "details": {"passport": "X1234567"}, "flow_token": "t",
}  # fmt: skip
PRIVATE = ("1990-01-02", "4711", "078-05-1120", "X1234567")


def form(number: int | str, answers: Any) -> dict[str, Any]:
    """A filled-in flow, its answers as JSON inside the JSON."""
    reply = {"name": "flow", "body": "Sent", "response_json": answers}
    return message(number, "interactive", {"type": "nfm_reply", "nfm_reply": reply})


def test_sensitive_answers_of_a_form_are_sealed_and_not_shown(
    client: FlaskClient, headers: dict[str, str], session: Session, app: Flask
) -> None:
    assert post(client, headers, body(form(1, json.dumps(ANSWERS))))["created"] == 1
    lead, cipher = the_lead(session), app.extensions["cipher"]
    assert lead.message == "how many: 50"
    private = {name: cipher.decrypt(lead.attributes[name]) for name in ANSWERS if name in lead.attributes}
    assert private == {name: ANSWERS[name] for name in ("screen_0_date_of_birth_1", "monthly_income", "SSN")}
    payload = session.scalars(sa.select(Run.payload_json)).one()
    answers = payload["message"]["interactive"]["nfm_reply"]["response_json"]
    assert answers["how_many"] == 50 and cipher.decrypt(answers["details"]["passport"]) == "X1234567"
    stored = json.dumps([lead.message, lead.attributes, lead.verdict, payload])
    assert not [value for value in PRIVATE if value in stored]


def test_sensitive_answers_are_sealed_in_quarantine_too(
    signed_app: Flask, headers: dict[str, str], session: Session, workspace: Workspace
) -> None:
    session.add(SocialPage(platform="whatsapp", page_id="NUMBER", workspace_id=workspace.id))
    session.commit()
    sent = body(message(1), form("9" * 600, json.dumps(ANSWERS)))
    sent["entry"] += body(form(2, json.dumps(ANSWERS)), number="N2", account="NOBODY'S")["entry"]
    sent["entry"][0]["changes"].append({"value": {"messages": {"0": form(3, json.dumps(ANSWERS))}}})
    sent["entry"][0]["changes"][1]["value"]["metadata"] = {"phone_number_id": "NUMBER"}
    assert signed(signed_app.test_client(), sent, PATH).json["created"] == 1
    kept = session.scalars(sa.select(Quarantined)).all()
    assert len(kept) == 3
    assert not [value for row in kept for value in PRIVATE if value in row.raw]
    # A replay reads the same answers, sealed as they are.
    waits = next(row.id for row in kept if "not mapped" in row.reason)
    again = signed_app.test_client().post(f"/api/v1/quarantine/{waits}/replay", headers=headers)
    assert again.status_code == 200, again.text
    session.rollback()
    lead = session.scalars(sa.select(Lead).where(Lead.external_message_id == "wamid.2")).one()
    assert lead.message == "how many: 50"
    assert signed_app.extensions["cipher"].decrypt(lead.attributes["SSN"]) == "078-05-1120"


@pytest.mark.parametrize(
    "answers", ['{"a":"\\u0000"}', '{"a":{"b":["\\ud800"]}}', '{"a":1e999}', '{"a":NaN}', '{"date_of_birth":"\\u0000"}']
)
def test_answers_that_cannot_be_stored_cost_only_themselves(
    client: FlaskClient, headers: dict[str, str], session: Session, answers: str
) -> None:
    """Also where they are escaped twice over, so that the body's bytes do not show it."""
    sent = json.dumps(body(message(1), form(2, answers)), ensure_ascii=False)
    raw = sent.replace("\\\\u", "\\u005cu").encode()
    assert is_sound(raw) is ("u" in answers)
    answer = client.post(PATH, data=raw, content_type="application/json", headers=headers)
    assert (answer.status_code, answer.json["created"]) == (200, 1)
    assert session.scalar(sa.select(sa.func.count()).select_from(Quarantined)) == 1


@pytest.mark.parametrize("answers", ["[" * 20_000, '{"a":' * 500 + "1" + "}" * 500, "[1]", "7", "null", "{}"])
def test_answers_that_are_none_leave_the_words_around_them(
    client: FlaskClient, headers: dict[str, str], session: Session, answers: str
) -> None:
    assert post(client, headers, body(form(1, answers)))["created"] == 1
    assert the_lead(session).message == "Sent"


def test_the_addresses_may_be_mixed_up(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    """Meta's dialogs take either address; the body says what it is."""
    answer = client.post("/webhooks/facebook", json=body(message(1)), headers=headers)
    assert answer.json["created"] == 1
    comment = {"field": "feed", "value": {"item": "comment", "verb": "add", "comment_id": "c1", "message": "price?"}}
    assert post(client, headers, page_body(comment))["created"] == 1
    assert set(session.scalars(sa.select(Lead.platform))) == {"whatsapp", "facebook"}


def test_reading_changes_nothing_of_what_was_sent(app: Flask) -> None:
    sent = body(message(1), "nonsense")
    before = copy.deepcopy(sent)
    dialects.read("whatsapp", sent, seal=app.extensions["cipher"].seal)
    assert sent == before
    with pytest.raises(ValueError, match="no dialect"):
        dialects.read("telegram", sent, seal=app.extensions["cipher"].seal)

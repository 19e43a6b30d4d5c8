"""Messenger and the edges of the feed, docs/api.md §4."""

import json
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests.meta import event, page_body
from webapp.api import dialects
from webapp.api.body import check_storable, is_sound
from webapp.leads.errors import Invalid
from webapp.leads.intake import LeadIn
from webapp.models import Lead, Quarantined

BUTTON = {"title": "See prices", "payload": "PRICES"}


def post(client: FlaskClient, headers: dict[str, str], sent: Any) -> int:
    answer = client.post("/webhooks/facebook", json=sent, headers=headers)
    assert answer.status_code == 200, answer.text
    return int(answer.json["created"])


def the_lead(session: Session) -> Lead:
    session.rollback()
    return session.scalars(sa.select(Lead)).one()


def test_a_message_and_who_sent_it(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    assert post(client, headers, page_body(messaging=[event("m1", "What is the price?", sender=123)])) == 1
    lead = the_lead(session)
    assert (lead.external_message_id, lead.author_id, lead.external_thread_id) == ("m1", "123", "123")
    assert (lead.source_type, lead.source_subtype, lead.message) == ("message", "messenger", "What is the price?")
    assert lead.attributes["page_id"] == "PAGE"


def test_somebody_without_an_id_is_known_by_the_reference(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    assert post(client, headers, page_body(messaging=[event("m1", "hi") | {"sender": {"user_ref": "ref-1"}}])) == 1
    assert the_lead(session).author_id == "ref-1"


def test_a_quick_reply_keeps_what_it_stands_for(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    pressed = event("m1", "Prices")
    pressed["message"]["quick_reply"] = {"payload": "PRICES"}
    assert post(client, headers, page_body(messaging=[pressed])) == 1
    lead = the_lead(session)
    assert (lead.message, lead.attributes["pressed"]) == ("Prices", "PRICES")


@pytest.mark.parametrize(
    ("attachments", "words"),
    [
        ([{"type": "image", "payload": {"url": "https://x.example/1"}}], "(image)"),
        ([{"type": "image"}, {"type": "file"}], "(image)\n(file)"),
        ([{"type": "fallback", "title": "Our shop", "url": "https://x.example"}], "Our shop https://x.example"),
        ([{"type": "location", "payload": {"coordinates": {"lat": 10.5, "long": 106.5}}}], "(location 10.5, 106.5)"),
        ("nonsense", ""),
        (["nonsense", {}], ""),
    ],
)
def test_attachments_without_words(
    client: FlaskClient, headers: dict[str, str], session: Session, attachments: Any, words: str
) -> None:
    sent = event("m1")
    sent["message"]["attachments"] = attachments
    assert post(client, headers, page_body(messaging=[sent])) == 1
    assert the_lead(session).message == words


def test_a_pressed_button_is_known_by_its_mid(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    pressed = page_body(messaging=[event(postback=BUTTON | {"mid": "m9"})])
    assert [post(client, headers, pressed) for _ in range(2)] == [1, 0]
    lead = the_lead(session)
    assert (lead.external_message_id, lead.message, lead.source_type) == ("m9", "See prices", "postback")
    assert lead.attributes["pressed"] == "PRICES"


def test_or_by_who_pressed_it_and_when(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    first, later, other = (
        page_body(messaging=[event(postback=BUTTON, timestamp=when, sender=who)])
        for when, who in ((1, "a"), (2, "a"), (1, "b"))
    )
    assert [post(client, headers, sent) for sent in (first, first, later, other)] == [1, 0, 1, 1]
    session.rollback()
    assert session.scalar(sa.select(sa.func.count()).select_from(Lead)) == 3


@pytest.mark.parametrize(
    "quiet",
    [
        {"read": {"watermark": 1}}, {"delivery": {"mids": ["m1"]}}, {"optin": {"ref": "x"}},
        {"referral": {"ref": "x", "source": "ADS"}}, {"reaction": {"emoji": "👍", "mid": "m1"}}, {"account_linking": {}},
        {"message": {"mid": "m2", "text": "ours", "is_echo": True}}, {"message": {"mid": "m2", "is_deleted": True}},
        {"message": {"mid": "m2", "text": "ours too"}, "sender": {"id": "PAGE"}},
        {"message": None}, {"postback": "nonsense"}, {},
    ],
)  # fmt: skip
def test_what_is_no_lead_is_passed_over(
    client: FlaskClient, headers: dict[str, str], session: Session, quiet: dict[str, Any]
) -> None:
    assert post(client, headers, page_body(messaging=[event() | quiet])) == 0
    assert session.scalar(sa.select(sa.func.count()).select_from(Quarantined)) == 0


def test_a_bad_event_costs_only_itself_and_can_be_replayed(
    client: FlaskClient, headers: dict[str, str], session: Session, app: Flask
) -> None:
    bad = [
        event() | {"message": {"text": "no mid"}},
        event("m3") | {"message": {"mid": "m3", "text": {"no": "text"}}},
        {"sender": {"id": "a"}, "postback": BUTTON},
        {"timestamp": 1, "postback": BUTTON},
        event(postback=BUTTON | {"title": 7}),
        "nonsense",
    ]
    assert post(client, headers, page_body(messaging=[event("m1", "a"), *bad, event("m2", "b")])) == 2
    kept = session.scalars(sa.select(Quarantined)).all()
    assert len(kept) == len(bad)
    seal = app.extensions["cipher"].seal
    for row in kept:
        (again,) = dialects.read(row.dialect, json.loads(row.raw), seal=seal)
        assert not isinstance(again, LeadIn)
    fixed = json.loads(next(row.raw for row in kept if "no mid" in row.raw))
    fixed["messaging"][0]["message"]["mid"] = "m9"
    (lead,) = dialects.read("facebook", fixed, seal=seal)
    assert isinstance(lead, LeadIn) and lead.attributes == {"page_id": "PAGE"}
    # As rows of the version before held them: the event alone, the change alone.
    (lead,) = dialects.read("facebook", fixed["messaging"][0], seal=seal)
    assert isinstance(lead, LeadIn)
    change = {"field": "feed", "value": {"item": "comment", "verb": "add", "comment_id": "c1", "message": "hi"}}
    assert [isinstance(found, LeadIn) for found in dialects.read("facebook", change, seal=seal)] == [True]
    assert dialects.read("facebook", event(read={"watermark": 1}), seal=seal) == []


def test_a_page_id_that_cannot_be_stored_costs_its_entry_alone(
    client: FlaskClient, headers: dict[str, str], session: Session
) -> None:
    sent = page_body(messaging=[event("m1", "a")], page="PA\x00GE")
    sent["entry"] += page_body(messaging=[event("m2", "b")])["entry"]
    assert post(client, headers, sent) == 1
    assert session.scalar(sa.select(sa.func.count()).select_from(Quarantined)) == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [({"photo": "https://x.example/1.jpg"}, "(photo)"), ({"video": "https://x.example/1"}, "(video)"), ({}, "")],
)
def test_a_comment_that_is_only_a_picture(
    client: FlaskClient, headers: dict[str, str], session: Session, value: dict[str, str], words: str
) -> None:
    comment = {"item": "comment", "verb": "add", "comment_id": "P_1", "post_id": "PAGE_P", "parent_id": "PAGE_P"}
    assert post(client, headers, page_body({"field": "feed", "value": comment | value})) == 1
    lead = the_lead(session)
    assert (lead.message, lead.author_id, lead.external_post_id) == (words, None, "PAGE_P")


@pytest.mark.parametrize(
    "over",
    [{"verb": "edit"}, {"verb": "hide"}, {"verb": "unhide"}, {"verb": "remove"}, {"item": "reaction"},
     {"item": "share"}, {"from": {"id": 99}}],
)  # fmt: skip
def test_edits_reactions_and_our_own_replies_are_no_leads(
    client: FlaskClient, headers: dict[str, str], session: Session, over: dict[str, Any]
) -> None:
    comment = {"item": "comment", "verb": "add", "comment_id": "c1", "message": "hi", "from": {"id": "u"}} | over
    sent = page_body({"field": "feed", "value": comment})
    sent["entry"][0]["id"] = 99  # ids come as numbers, too
    assert post(client, headers, sent) == 0
    assert session.scalar(sa.select(sa.func.count()).select_from(Quarantined)) == 0


@pytest.mark.parametrize(
    ("written", "sound"),
    [
        ('{"a": "Giá 5 \\ud83d\\ude00\\ud83d\\ude00!"}', True),
        ('{"a": "half \\ud83d"}', False),
        ('{"a": "half \\ude00"}', False),
        ('{"a": "turned round \\ude00\\ud83d"}', False),
        ('{"a": "\\uD83Dx"}', False),
        ('{"a": "half a pair, then a pair \\ud83d\\ud83d\\ude00"}', False),
        ('{"a": "nothing \\u0000"}', False),
        ('{"a": "raw \ud83d"}', False),
        ('{"a": 1e999}', False),
        ('{"a": NaN}', False),
        ('{"a": -Infinity}', False),
        ('{"a": 1' + "0" * 400 + "}", False),
    ],
)
def test_only_what_surely_can_be_stored_is_spared_a_look(written: str, sound: bool) -> None:
    assert is_sound(written.encode("utf-8", "surrogatepass")) is sound
    if sound:
        check_storable(json.loads(written))
    else:
        with pytest.raises(Invalid):
            check_storable(json.loads(written))

"""What was sent and what was answered, as people read it."""

from typing import Any

import pytest

from webapp.clients.crm import as_html
from webapp.leads.states import DestinationKind
from webapp.models import Delivery, Destination
from webapp.views import sent


def lines(kind: DestinationKind, payload: Any) -> dict[str, str]:
    found = sent.of(Delivery(destination=Destination(kind=kind), payload=payload))
    return {line.label: line.text for line in found}


def test_a_note_is_read_as_lines_not_as_html() -> None:
    body = as_html("## Why\n\n- asked for *a price* & <b>soon</b>\n- by jane@acme.example\n\n## Facts\n\nnone")
    mark = "[lead-ops:01a221d8-dfea-7235-88e7-ebd5348ed48f]"
    note = {"properties": {"hs_note_body": f"{body}<p>{mark}</p>", "hs_timestamp": "2026-11-28T09:05:07.000Z"}}
    assert lines(DestinationKind.HUBSPOT, note) == {
        "Note": "Why\n– asked for a price & <b>soon</b>\n– by [email]\n\nFacts\nnone",
        "Date": "28 Nov 2026, 09:05:07 UTC",
    }


def test_links_between_records_are_nothing_to_read() -> None:
    body = {
        "properties": {"hs_task_subject": "Call them", "hs_task_status": "NOT_STARTED"},
        "associations": [{"to": {"id": "512"}, "types": [{"associationTypeId": 204}]}],
    }
    assert lines(DestinationKind.HUBSPOT, body) == {"Title": "Call them", "State": "not started"}
    assert lines(DestinationKind.TWENTY, {"taskId": "01a221d8-e3a2-79fd-a4d7-0b522697b68e"}) == {}


def test_fields_have_the_names_that_the_destination_gives_them() -> None:
    contact = {"firstname": "Ada", "jobtitle": "Head of Sales", "our_tier__c": "gold", "api_token": "x"}
    assert lines(DestinationKind.HUBSPOT, contact) == {
        "First name": "Ada", "Job title": "Head of Sales", "Our tier": "gold", "Api token": "hidden",
    }  # fmt: skip
    person = {"name": {"firstName": "Ada", "lastName": "Byron"}, "emails": {"primaryEmail": "ada@acme.example"}}
    assert lines(DestinationKind.TWENTY, person) == {"First name": "Ada", "Last name": "Byron", "E-mail": "[email]"}
    task = {"bodyV2": {"markdown": "## Next steps\n\n1. Call \\*them\\*."}, "status": "TODO"}
    assert lines(DestinationKind.TWENTY, task) == {"Text": "Next steps\n– Call *them*.", "Status": "todo"}


def test_an_event_is_told_in_words() -> None:
    event = {
        "type": "lead.approved",
        "data": {"intent": "inquiry_price", "source": "google_ads", "qualified": True, "email": None, "lang": "vi"},
    }
    assert lines(DestinationKind.WEBHOOK, event) == {
        "Event": "notice of an approval", "Intent": "price inquiry", "Source": "Google Ads", "Qualified": "yes",
        "Language": "Vietnamese",
    }  # fmt: skip


def test_a_follow_up_is_told_in_words_and_without_ids() -> None:
    follow_up = {
        "lead_id": "01a2228e-617c-7bd2-987a-d838dc0df9ad", "author_id": "u-1", "author_name": "Minh",
        "content_text": "giá sao shop", "intent_label": "inquiry_price", "priority": "high",
    }  # fmt: skip
    assert list(lines(DestinationKind.N8N, follow_up).items()) == [
        ("Name", "Minh"),
        ("Intent", "price inquiry"),
        ("Priority", "high"),
        ("Message", "giá sao shop"),
    ]
    task = {"WhoId": "00Q000000000006AAA", "OwnerId": "005000000000002AAA", "Status": "Not Started"}
    assert lines(DestinationKind.SALESFORCE, task) == {"Status": "Not Started"}
    task = {"properties": {"hs_task_type": "EMAIL", "hubspot_owner_id": "7000"}}
    assert lines(DestinationKind.HUBSPOT, task) == {"Kind of task": "email"}


def test_what_people_wrote_is_shown_as_they_wrote_it() -> None:
    own = {"message": "task", "name": "note", "company": "HIGH", "platform": "vi", "external_id": "0" * 32}
    assert lines(DestinationKind.WEBHOOK, {"type": "lead.approved", "data": own}) == {
        "Event": "notice of an approval", "Name": "note", "Company": "HIGH", "Platform": "vi", "External id": "0" * 32,
        "Message": "task",
    }  # fmt: skip


def test_a_message_of_slack_is_read_without_its_marks() -> None:
    blocks = [
        {"type": "section", "text": {"type": "mrkdwn", "text": "*<https://x.example/1|P1 · Support: A &amp; B>*"}},
        {"type": "section", "text": {"type": "mrkdwn", "text": ">one\n>two"}},
        {"type": "section", "fields": [{"type": "mrkdwn", "text": "*Score*\n63"}]},
    ]
    assert lines(DestinationKind.SLACK, {"text": "x", "blocks": blocks, "unfurl_links": False}) == {
        "First line": "P1 · Support: A & B", "Score": "63", "Message": "one\ntwo",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("excerpt", "words"),
    [
        ('{"status":"error","message":"Property \\"x\\" does not exist","category":"VALIDATION', 'Property "x" does not exist'),
        ('[{"message":"bad","errorCode":"X"}]', "bad"),
        ('{"statusCode": 400, "error": "BadRequestException", "messages": ["No such field", "x"]}', "No such field"),
        ('{"ok":true,"ts":"1.2"}', ""), ("", ""), (None, ""),
        ("<html><body><h1>502 Bad Gateway</h1></body></html>", "502 Bad Gateway"), ("250 2.0.0 queued", "250 2.0.0 queued"),
    ],
)  # fmt: skip
def test_of_an_answer_the_words_are_shown(excerpt: str | None, words: str) -> None:
    assert sent.said(excerpt, 400) == words


@pytest.mark.parametrize(
    ("excerpt", "words"),
    [
        (r'{"message":"Tr\u01b0\u1eddng kh\u00f4ng có\nline \ud83d\ude00"}', "Trường không có\nline 😀"),
        (r'{"message":"cut \ud83d"}', "cut ?"), (r'{"message":"C:\x"}', r"C:\x"), ('{"message":"a\nb"}', "a\nb"),
    ],
)  # fmt: skip
def test_escapes_of_an_answer_are_undone(excerpt: str, words: str) -> None:
    assert sent.said(excerpt, 400) == words


def test_a_description_says_more_than_a_name() -> None:
    assert (
        sent.said('{"error":"invalid_grant","error_description":"Invalid JWT Signature."}', 400)
        == "Invalid JWT Signature."
    )
    assert sent.said('{"title":"Bad Request","status":400,"detail":"No such owner."}', 400) == "No such owner."


def test_a_record_that_was_taken_says_nothing_of_its_own() -> None:
    assert sent.said('{"id":"1","title":"Call Jane","message":"How much is it?","reason":"x"}', 201) == ""
    assert sent.said('{"ok":false,"error":"channel_not_found"}', 200) == "channel_not_found"
    assert sent.said("250 2.0.0 queued", None) == "250 2.0.0 queued"


def test_a_status_has_its_name() -> None:
    assert [sent.answered(status) for status in (201, 599, None)] == ["201 Created", "599", "–"]

"""Slack: found again, changed, told in words; a lead's words stay text."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.support import a_request
from tests.fakes.server import Response
from tests.fakes.slack import TOKEN, SlackFake
from webapp.clients.http import HttpClient
from webapp.clients.slack import IncomingClient, SlackClient, escaped, message
from webapp.leads.ports import DeliveryRequest, OutcomeUnknown, Refused, Throttled, Unusable
from webapp.leads.states import DeliveryOperation, DestinationKind


@pytest.fixture
def slack() -> Iterator[SlackFake]:
    with SlackFake() as fake:
        yield fake


def _client(slack: SlackFake, token: str = TOKEN, channel: str = "C0LEADS") -> SlackClient:
    headers = {"Authorization": f"Bearer {token}"}
    http = HttpClient(slack.api_url.rstrip("/"), headers=headers, timeout=2, secrets=(token,))
    return SlackClient(http, channel=channel)


def _request(**over: Any) -> DeliveryRequest:
    return a_request("message", kind=DestinationKind.SLACK, **over)


def _again(request: DeliveryRequest, operation: DeliveryOperation, remote_id: str | None) -> DeliveryRequest:
    remote = {} if remote_id is None else {"message": remote_id}
    return DeliveryRequest(
        request.delivery_id, "message", 2, request.lead, remote, request.fields, operation, revision=1
    )


@pytest.mark.parametrize("kind", ["reset_after", "500_after", "hang_after", "garbage"])
def test_a_message_whose_answer_was_lost_is_found_by_its_metadata(slack: SlackFake, kind: str) -> None:
    client, request = _client(slack), _request()
    slack.fail_next("POST", kind=kind)
    with pytest.raises(OutcomeUnknown):
        client.send(request)
    found = client.reconcile(request)
    if kind == "garbage":  # nothing was done
        assert found is None
        return
    assert found is not None and found.remote_id == f"C0LEADS/{slack.messages['C0LEADS'][0]['ts']}"
    assert client.reconcile(_request()) is None


def test_a_message_is_changed_and_struck_out_rather_than_posted_again(slack: SlackFake) -> None:
    client, request = _client(slack), _request()
    sent = client.send(request)
    client.send(_again(request, DeliveryOperation.UPDATE, sent.remote_id))
    client.send(_again(request, DeliveryOperation.WITHDRAW, sent.remote_id))
    (stored,) = slack.messages["C0LEADS"]
    assert stored["text"].startswith("Withdrawn: ")
    assert client.send(_again(_request(), DeliveryOperation.WITHDRAW, None)).remote_id is None
    slack.messages.clear()
    client.send(_again(request, DeliveryOperation.WITHDRAW, sent.remote_id))  # somebody deleted it: nothing to do


@pytest.mark.parametrize("operation", [DeliveryOperation.UPDATE, DeliveryOperation.RESTORE])
def test_a_message_whose_id_never_came_back_is_looked_for_before_another_is_posted(
    slack: SlackFake, operation: DeliveryOperation
) -> None:
    client, request = _client(slack), _request()
    slack.fail_next("POST", kind="reset_after")
    with pytest.raises(OutcomeUnknown):
        client.send(request)
    found = client.send(_again(request, operation, None))
    assert found.remote_id == f"C0LEADS/{slack.messages['C0LEADS'][0]['ts']}"
    assert len(slack.messages["C0LEADS"]) == 1
    client.send(_again(_request(), operation, None))  # one that never arrived
    assert len(slack.messages["C0LEADS"]) == 2


@pytest.mark.parametrize(
    ("token", "channel", "words"),
    [
        ("wrong", "C0LEADS", "Slack does not know this token"),
        (TOKEN, "C0OTHER", "there is no such channel, or the bot cannot see it"),
        (TOKEN, "C0CLOSED", "the bot is no member of the channel; invite it there"),
    ],
)
def test_what_every_message_would_meet_leaves_the_destination_unusable(
    slack: SlackFake, token: str, channel: str, words: str
) -> None:
    slack.channels["C0CLOSED"] = False
    client = _client(slack, token, channel)
    for call in (client.send, client.reconcile)[: 1 if channel == "C0CLOSED" else 2]:  # its history may be read
        with pytest.raises(Unusable) as refused:
            call(_request())
        assert refused.value.message == words and "SLACK_BOT_TOKEN" in refused.value.remedy


@pytest.mark.parametrize("error", ["account_inactive", "token_revoked", "token_expired", "missing_scope"])
def test_a_credential_that_slack_takes_no_more_does_too(slack: SlackFake, error: str) -> None:
    slack.expired = lambda: Response(200, {"ok": False, "error": error})  # type: ignore[method-assign]
    slack.fail_next(kind="expired")
    client = _client(slack)
    with pytest.raises(Unusable):
        client.send(_request())
    assert client.send(_request()).remote_id


def test_a_message_in_a_channel_that_was_left_is_refused_alone(slack: SlackFake) -> None:
    request = _again(_request(), DeliveryOperation.WITHDRAW, "C0GONE/1.000001")
    with pytest.raises(Refused) as refused:
        _client(slack).send(request)
    assert not refused.value.destination_wide


@pytest.mark.parametrize(("asked", "low", "high"), [("7", 7, 7), ("date", 1, 3)])
def test_asked_to_wait_it_says_how_long(slack: SlackFake, asked: str, low: float, high: float) -> None:
    slack.fail_next(kind="429", retry_after=asked)
    with pytest.raises(Throttled) as throttled:
        _client(slack).send(_request())
    assert throttled.value.retry_after is not None
    assert low <= throttled.value.retry_after <= high


def test_a_lead_s_words_are_text_and_cut(slack: SlackFake) -> None:
    request = _request(message="<!channel> & <https://evil.example|here>\n" * 500, name="<b>*Ana*")
    sent = message(request)
    text = sent["blocks"][1]["text"]["text"]
    assert "<" not in text and "&lt;!channel&gt; &amp;" in text
    assert len(text) <= 3_000 and text.endswith("…")
    assert "<b>" not in str(sent["blocks"])
    assert escaped("&" * 100, most=12) == "&amp;&amp; …"
    _client(slack).send(request)


def test_probes_say_what_they_found_and_post_nothing(slack: SlackFake) -> None:
    assert "knows the bot as bot in Test" in _client(slack).probe()
    assert "Nothing was posted" in IncomingClient(HttpClient(slack.webhook_url, timeout=2)).probe()
    with pytest.raises(Refused):
        IncomingClient(HttpClient(slack.webhook_url + "x", timeout=2)).probe()
    assert slack.messages == {}


def test_an_incoming_webhook_cannot_be_asked(slack: SlackFake) -> None:
    client = IncomingClient(HttpClient(slack.webhook_url, timeout=2))
    slack.fail_next(kind="reset_after")
    with pytest.raises(OutcomeUnknown):
        client.send(_request())
    assert client.reconcile(_request()) is None and not client.reconciles
    assert len(slack.messages["webhook"]) == 1


@pytest.mark.parametrize(("kind", "posted"), [("garbage", 0), ("garbage_after", 1)])
def test_an_incoming_webhook_s_answer_that_is_not_slack_s_leaves_it_unknown(
    slack: SlackFake, kind: str, posted: int
) -> None:
    client = IncomingClient(HttpClient(slack.webhook_url, timeout=2))
    slack.fail_next(kind=kind)
    with pytest.raises(OutcomeUnknown):
        client.send(_request())
    assert len(slack.messages.get("webhook", [])) == posted


def test_of_an_answer_that_does_not_come_to_its_end_the_status_counts(slack: SlackFake) -> None:
    client = IncomingClient(HttpClient(slack.webhook_url, timeout=0.5))
    slack.fail_next(kind="drip", seconds=20)
    client.send(_request())
    assert len(slack.messages["webhook"]) == 1

"""Outgoing webhooks (Standard Webhooks) and the n8n follow-up."""

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from tests.clients.support import a_request
from tests.fakes.webhook_receiver import SECRET, WebhookReceiver
from webapp.clients.http import HttpClient
from webapp.clients.n8n import FollowUpClient
from webapp.clients.webhook import MAX_BYTES, WebhookClient, event, minified
from webapp.leads.ports import OutcomeUnknown, Refused
from webapp.leads.states import DestinationKind, Intent, Priority


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as fake:
        yield fake


@pytest.fixture
def workflow() -> Iterator[WebhookReceiver]:
    with WebhookReceiver(secret=None) as fake:
        yield fake


def test_a_receiver_can_verify_it(receiver: WebhookReceiver) -> None:
    request = a_request("lead.approved", kind=DestinationKind.WEBHOOK)
    WebhookClient(HttpClient(receiver.url, timeout=2), secrets=[SECRET]).send(request)
    (call,) = receiver.requests
    assert call.headers["webhook-id"] == str(request.delivery_id)
    assert abs(int(call.headers["webhook-timestamp"]) - time.time()) < 5
    sent = receiver.events[str(request.delivery_id)]
    assert sent["type"] == "lead.approved"
    assert sent["timestamp"] == "2026-01-02T03:05:00.000Z"
    assert sent["data"]["intent"] == "inquiry_price"
    assert call.body.decode() == json.dumps(sent, ensure_ascii=False, separators=(",", ":"))


def test_the_specification_s_own_vector() -> None:
    signature = Webhook("whsec_plJ3nmyCDGBKInavdOK15jsl").sign(
        "msg_loFOjxBNrRLzqYUf", datetime.fromtimestamp(1731705121, UTC), '{"event_type":"ping","data":{"success":true}}'
    )
    assert signature == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


def test_a_retry_has_the_same_id_and_counts_once(receiver: WebhookReceiver) -> None:
    request, client = (
        a_request("lead.approved", kind=DestinationKind.WEBHOOK),
        WebhookClient(HttpClient(receiver.url, timeout=2), secrets=[SECRET]),
    )
    receiver.fail_next(kind="reset_after")
    with pytest.raises(OutcomeUnknown):
        client.send(request)
    assert client.reconcile(request) is None
    client.send(request)
    assert len(receiver.deliveries) == 2
    assert len(receiver.events) == 1


def test_another_secret_is_refused(receiver: WebhookReceiver) -> None:
    other = "whsec_" + "A" * 43 + "="
    with pytest.raises(Refused) as refused:
        WebhookClient(HttpClient(receiver.url, timeout=2), secrets=[other]).send(
            a_request("lead.approved", kind=DestinationKind.WEBHOOK)
        )
    assert refused.value.exchange.http_status == 401


@pytest.mark.parametrize("message", ["báo giá " * 2_500, "x" * 20_000, '"\\\n' * 6_000, "🙂" * 9_000])
def test_a_long_message_is_cut_to_the_size_limit(message: str) -> None:
    body = minified(event(a_request("lead.approved", kind=DestinationKind.WEBHOOK, message=message)))
    assert len(body.encode()) < MAX_BYTES
    data = json.loads(body)["data"]
    assert data["message_truncated"] is True
    assert message.startswith(data["message"])
    assert len(body.encode()) > MAX_BYTES * 0.8


def test_the_follow_up_s_body_is_the_contract_s(workflow: WebhookReceiver) -> None:
    request = a_request(
        "follow_up",
        kind=DestinationKind.N8N,
        intent=Intent.SUPPORT,
        priority=Priority.P0,
        author_name="Ana",
        author_id="77",
    )
    FollowUpClient(HttpClient(workflow.url, timeout=3)).send(request)
    assert workflow.deliveries == [
        {
            "lead_id": str(request.lead.lead_id),
            "tenant_id": str(request.lead.workspace_id),
            "author_name": "Ana",
            "author_id": "77",
            "content_text": "Cho tôi báo giá gói Enterprise",
            "intent_label": "inquiry",
            "priority": "high",
        }
    ]


@pytest.mark.parametrize(("failures", "calls"), [(1, 2), (2, 2)])
def test_the_follow_up_has_one_fast_retry(workflow: WebhookReceiver, failures: int, calls: int) -> None:
    waits: list[float] = []
    client = FollowUpClient(HttpClient(workflow.url, timeout=3), sleep=waits.append)
    workflow.fail_next(kind="503", times=failures)
    if failures == 1:
        client.send(a_request("follow_up", kind=DestinationKind.N8N))
    else:
        with pytest.raises(OutcomeUnknown):
            client.send(a_request("follow_up", kind=DestinationKind.N8N))
    assert (len(workflow.requests), len(waits)) == (calls, 1)
    assert len(workflow.deliveries) == (1 if failures == 1 else 0)


def test_a_follow_up_that_is_refused_is_not_repeated(workflow: WebhookReceiver) -> None:
    workflow.fail_next(kind="404")
    with pytest.raises(Refused):
        FollowUpClient(HttpClient(workflow.url, timeout=3)).send(a_request("follow_up", kind=DestinationKind.N8N))
    assert len(workflow.requests) == 1


def test_while_a_secret_is_changed_receivers_of_either_can_verify(receiver: WebhookReceiver) -> None:
    fresh = "whsec_" + base64.b64encode(b"n" * 32).decode()
    client = WebhookClient(HttpClient(receiver.url, timeout=2), secrets=[fresh, SECRET])
    client.send(a_request("lead.approved", kind=DestinationKind.WEBHOOK))
    (call,) = receiver.requests
    assert len(receiver.deliveries) == 1
    assert Webhook(fresh).verify(call.body, call.headers)


def test_a_test_is_about_no_lead(receiver: WebhookReceiver) -> None:
    said = WebhookClient(HttpClient(receiver.url, timeout=2), secrets=[SECRET]).probe()
    assert [(event["type"], event["data"]) for event in receiver.deliveries] == [("test.ping", {})]
    assert "answered 200" in said


def test_mapped_fields_stand_beside_the_lead_s_own(receiver: WebhookReceiver) -> None:
    request = a_request("lead.approved", kind=DestinationKind.WEBHOOK, mapping={"owner": 'assignee.name | "nobody"'})
    WebhookClient(HttpClient(receiver.url, timeout=2), secrets=[SECRET]).send(request)
    assert receiver.deliveries[0]["data"]["owner"] == "Rep"


def test_the_follow_up_is_not_repeated_at_once_where_the_workflow_has_said_when(workflow: WebhookReceiver) -> None:
    workflow.fail_next(kind="busy", retry_after="7")
    waits: list[float] = []
    client = FollowUpClient(HttpClient(workflow.url, timeout=3), sleep=waits.append)
    with pytest.raises(OutcomeUnknown) as caught:
        client.send(a_request("follow_up", kind=DestinationKind.N8N))
    assert (caught.value.retry_after, waits, len(workflow.calls())) == (7.0, [], 1)

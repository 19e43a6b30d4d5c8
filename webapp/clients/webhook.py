"""Outgoing webhooks as Standard Webhooks has them: signed, with an id that is the same on every attempt."""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from standardwebhooks.webhooks import Webhook

from webapp.clients.http import Answer, HttpClient
from webapp.leads.ports import DeliveryRequest, LeadSnapshot, Receipt

#: Sent in place of the event when a lead is taken back later (webapp.leads.kinds.webhook).
WITHDRAWN = "lead.withdrawn"
#: Sent by the test button; it is about no lead.
TEST_EVENT = "test.ping"
#: The specification's limit of a body.
MAX_BYTES = 20_000


class WebhookClient:
    """The action of a request is the event's type. Receivers deduplicate by ``webhook-id``, which is the delivery's."""

    reconciles = False

    def __init__(self, http: HttpClient, *, secrets: Sequence[str]) -> None:
        """``secrets``: the one that counts, and the one before while receivers change over; each signs."""
        self._http = http
        self._signers = [Webhook(secret) for secret in secrets]

    def send(self, request: DeliveryRequest) -> Receipt:
        return Receipt(None, self._post(request.message_id, event(request)).exchange)

    def render(self, request: DeliveryRequest) -> dict[str, Any]:
        return event(request)

    def probe(self) -> str:
        payload = {"type": TEST_EVENT, "timestamp": _iso(datetime.now(UTC)), "data": {}}
        answer = self._post(str(uuid.uuid4()), payload)
        return f"It took an event of the type {TEST_EVENT} and answered {answer.status}."

    def _post(self, message_id: str, payload: dict[str, Any], address: str = "") -> Answer:
        body = minified(payload)
        sent_at = datetime.now(UTC)  # of this attempt, aware: sign() takes the wall clock as UTC
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": " ".join(signer.sign(message_id, sent_at, body) for signer in self._signers),
        }
        return self._http.call("POST", address, body=body.encode(), headers=headers, shown=payload)

    def reconcile(self, request: DeliveryRequest) -> Receipt | None:
        """A receiver cannot be asked: it is sent again, under the same id."""
        return None


def event(request: DeliveryRequest, **more: Any) -> dict[str, Any]:
    """``{"type", "timestamp": of the event, "data": the lead}``, cut to the size limit at the message. ``more``: of the
    data."""
    lead = request.lead
    kind = WITHDRAWN if request.withdrawn else request.action
    payload = {"type": kind, "timestamp": _iso(lead.event_at), "data": lead_view(lead) | more | dict(request.fields)}
    data = payload["data"]
    assert isinstance(data, dict)
    if _size(payload) >= MAX_BYTES:
        data["attribution"] = {}
        data["message_truncated"] = True
    while _size(payload) >= MAX_BYTES and data["message"]:
        over = _size(payload) - MAX_BYTES + 1
        # A character is at most 6 bytes in this JSON, so this never cuts far too much.
        data["message"] = data["message"][: -max(1, over // 6)]
    return payload


def minified(payload: dict[str, Any]) -> str:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def _size(payload: dict[str, Any]) -> int:
    return len(minified(payload).encode())


def lead_view(lead: LeadSnapshot) -> dict[str, Any]:
    """The lead as receivers see it; times are ISO 8601 in UTC."""
    return {
        "id": str(lead.lead_id),
        "workspace_id": str(lead.workspace_id),
        "external_id": lead.external_id,
        "name": lead.name,
        "email": lead.email,
        "phone": lead.phone_e164 or lead.phone,
        "company": lead.company,
        "message": lead.message,
        "message_truncated": False,
        "lang": lead.lang,
        "source": lead.source,
        "platform": lead.platform,
        "author_name": lead.author_name,
        "author_id": lead.author_id,
        "status": lead.status.value,
        "intent": lead.intent.value,
        "priority": lead.priority.value,
        "next_action": lead.next_action.value,
        "confidence": lead.confidence,
        "score": lead.score,
        "qualified": lead.qualified,
        "budget": lead.budget,
        "attribution": dict(lead.attribution),
        "consent": lead.consent,
        "consent_at": _iso(lead.consent_at) if lead.consent_at else None,
        "assignee": lead.assignee_email,
        "decided_by": lead.decided_by,
        "created_at": _iso(lead.created_at),
    }


def _iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

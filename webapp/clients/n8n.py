"""The n8n follow-up of ``WEBHOOK_URL``: social leads of high priority, as the workflows out there expect them."""

import time
from collections.abc import Callable
from typing import Any

from webapp.clients.http import HttpClient
from webapp.leads.errors import Permanent, Transient
from webapp.leads.ports import DeliveryRequest, LeadSnapshot, Receipt, Throttled, Unusable
from webapp.leads.states import LABEL_VIEW, PRIORITY_VIEW

#: Before the one fast retry, in seconds. What fails then as well takes the ordinary schedule.
FAST_RETRY = 0.3


class FollowUpClient:
    reconciles = False

    def __init__(self, http: HttpClient, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._http = http
        self._sleep = sleep

    def send(self, request: DeliveryRequest) -> Receipt:
        body = follow_up(request.lead)
        # Workflows that want to can deduplicate by it; the body's keys are a contract.
        headers = {"Idempotency-Key": str(request.delivery_id)}
        try:
            answer = self._http.call("POST", json_body=body, headers=headers, shown=body)
        except (Throttled, Unusable):
            raise
        except Transient as error:
            if error.retry_after is not None:
                raise  # the workflow has said when
            self._sleep(FAST_RETRY)
            answer = self._http.call("POST", json_body=body, headers=headers, shown=body)
        return Receipt(None, answer.exchange)

    def render(self, request: DeliveryRequest) -> dict[str, Any]:
        return follow_up(request.lead)

    def probe(self) -> str:
        raise Permanent("A workflow has no harmless call: posting to it would start it.")

    def reconcile(self, request: DeliveryRequest) -> Receipt | None:
        """A workflow cannot be asked whether it ran."""
        return None


def follow_up(lead: LeadSnapshot) -> dict[str, Any]:
    """The body, whose keys are a contract with existing workflows."""
    return {
        "lead_id": str(lead.lead_id),
        "tenant_id": str(lead.workspace_id),
        "author_name": lead.author_name or lead.name,
        "author_id": lead.author_id,
        "content_text": lead.message,
        "intent_label": LABEL_VIEW[lead.intent],
        "priority": PRIORITY_VIEW[lead.priority],
    }

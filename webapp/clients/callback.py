"""Callbacks: a lead's result, posted to the address that came with it."""

from dataclasses import replace
from typing import Any

from webapp.clients.webhook import WebhookClient, event
from webapp.leads.errors import Permanent
from webapp.leads.ports import DeliveryRequest, Receipt, Refused


class CallbackClient(WebhookClient):
    """Its HTTP client has no address of its own: each request brings one."""

    def send(self, request: DeliveryRequest) -> Receipt:
        if not request.address:
            raise Permanent("The lead has no address for its result.")
        try:
            answer = self._post(request.message_id, result(request), request.address)
        except Refused as error:
            # The address is the lead's own: that it is gone or wants another credential says nothing of its neighbours.
            raise Refused(str(error), exchange=error.exchange) from None
        return Receipt(None, answer.exchange)

    def render(self, request: DeliveryRequest) -> dict[str, Any]:
        return result(request)

    def probe(self) -> str:
        raise Permanent("Callbacks have no address of their own; the first one shows whether it works.")


def result(request: DeliveryRequest) -> dict[str, Any]:
    """The event of a webhook, with the verdict's reasons; its time is that of the run."""
    lead = request.lead
    told = replace(request, lead=replace(lead, event_at=lead.settled_at or lead.created_at))
    return event(told, reasons=list(lead.reasons))

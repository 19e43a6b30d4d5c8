"""Requests as the outbox makes them."""

import uuid
from datetime import UTC, datetime
from typing import Any

from webapp.leads import fieldmap, kinds
from webapp.leads.ports import DeliveryRequest, LeadSnapshot
from webapp.leads.states import DeliveryOperation, DestinationKind, Intent, LeadStatus, NextAction, Priority


def a_lead(**over: Any) -> LeadSnapshot:
    values: dict[str, Any] = {
        "lead_id": uuid.uuid4(),
        "workspace_id": uuid.UUID(int=7),
        "external_id": None,
        "name": "Ana Nguyễn",
        "first_name": None,
        "last_name": None,
        "email": "ana@example.com",
        "phone": "(415) 555-2671",
        "phone_e164": "+14155552671",
        "company": "Ánh Dương",
        "job_title": None,
        "city": None,
        "message": "Cho tôi báo giá gói Enterprise",
        "lang": "vi",
        "source": "website_form",
        "budget": None,
        "platform": None,
        "author_name": None,
        "author_id": None,
        "status": LeadStatus.APPROVED,
        "intent": Intent.INQUIRY_PRICE,
        "priority": Priority.P1,
        "next_action": NextAction.EMAIL,
        "confidence": 0.91,
        "score": 74,
        "qualified": True,
        "reasons": ("asks for a quote",),
        "attribution": {},
        "consent": None,
        "assignee_name": "Rep",
        "assignee_email": "rep@example.com",
        "decided_by": "Mai",
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "event_at": datetime(2026, 1, 2, 3, 5, tzinfo=UTC),
    }
    return LeadSnapshot(**(values | over))


def a_request(
    action: str,
    *,
    kind: DestinationKind = DestinationKind.TWENTY,
    remote: dict[str, str] | None = None,
    mapping: dict[str, str] | None = None,
    operation: DeliveryOperation = DeliveryOperation.SEND,
    revision: int = 0,
    **over: Any,
) -> DeliveryRequest:
    """With the fields that the kind's own mapping gives, and ``mapping`` over it."""
    lead = a_lead(**over)
    fields = fieldmap.filled(fieldmap.complete(kinds.of(kind).mapping, mapping or {}), fieldmap.document(lead))
    return DeliveryRequest(uuid.uuid4(), action, 1, lead, remote or {}, fields, operation, revision)

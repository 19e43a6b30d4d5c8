"""Audit events: written in the transaction of what they tell of, never changed afterwards."""

import uuid
from typing import Any

from sqlalchemy.orm import Session

from webapp.models.lead import AuditEvent

SYSTEM = "SYSTEM"


def record(
    session: Session,
    workspace_id: uuid.UUID,
    event_type: str,
    *,
    actor: str = SYSTEM,
    lead_id: uuid.UUID | None = None,
    **details: Any,
) -> None:
    """Add one event to the session. ``details`` must be JSON and hold no secrets."""
    session.add(
        AuditEvent(workspace_id=workspace_id, lead_id=lead_id, event_type=event_type, actor=actor, details=details)
    )

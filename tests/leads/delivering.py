"""What the tests of deliveries share: a decided lead, its destinations, and a drain."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests.conftest import FERNET_KEY
from tests.factories import make_lead
from tests.fakes.twenty import TwentyFake
from tests.fakes.webhook_receiver import SECRET, WebhookReceiver
from webapp.clients.registry import Registry
from webapp.leads import deliver
from webapp.leads.claims import Holder, enter
from webapp.leads.deliver import DeliveryPolicy, Drained
from webapp.leads.ports import Clients
from webapp.leads.states import DestinationKind, Intent, LeadStatus
from webapp.models import AuditEvent, Delivery, DeliveryAttempt, Destination, Lead, Workspace
from webapp.security.fields import FieldCipher

CIPHER = FieldCipher([FERNET_KEY])
#: Retries at once, so that tests need not wait; the breaker is out of the way unless a test asks for it.
EAGER = DeliveryPolicy(retry_delay=0.001, max_delay=0.001, throttle_delay=0.2, breaker_failures=1_000)


@dataclass
class Limits:
    delivery_timeout: float = 5.0
    n8n_webhook_timeout_seconds: float = 3.0
    outbound_allow_cidrs: Sequence[str] = field(default=("127.0.0.0/8",))
    slack_api_url: str = "https://slack.invalid/api"
    sheets_api_url: str = "https://sheets.invalid"


def clients(**over: Any) -> Registry:
    return Registry(Limits(**over), CIPHER.decrypt)


def twenty_destination(session: Session, workspace: Workspace, fake: TwentyFake, **over: Any) -> Destination:
    values: dict[str, Any] = {
        "workspace_id": workspace.id,
        "kind": DestinationKind.TWENTY,
        "name": "Twenty",
        "config": {"url": fake.url},
        "credentials": CIPHER.encrypt({"token": fake.token}),
        "managed_by": "environment",
    }
    row = Destination(**(values | over))
    session.add(row)
    session.commit()
    return row


def webhook_destination(session: Session, workspace: Workspace, fake: WebhookReceiver, **over: Any) -> Destination:
    values: dict[str, Any] = {
        "workspace_id": workspace.id,
        "kind": DestinationKind.WEBHOOK,
        "name": "Hook",
        "config": {"url": fake.url},
        "credentials": CIPHER.encrypt({"secret": SECRET}),
    }
    row = Destination(**(values | over))
    session.add(row)
    session.commit()
    return row


def decided_lead(session: Session, workspace: Workspace, **over: Any) -> Lead:
    """An approved lead with a deliverable intent."""
    values = {"status": LeadStatus.APPROVED, "intent": Intent.INQUIRY_PRICE, "settled_at": sa.func.now()}
    return make_lead(session, workspace, **(values | over))


def planned(session: Session, workspace: Workspace, **over: Any) -> Lead:
    """A decided lead whose deliveries are due now."""
    lead = decided_lead(session, workspace, **over)
    deliver.plan(session, lead, due_in_seconds=0)
    session.commit()
    return lead


def drain(
    session_factory: sessionmaker[Session],
    *,
    registry: Clients | None = None,
    holder: Holder | None = None,
    policy: DeliveryPolicy = EAGER,
    max_rows: int = 1_000,
    max_seconds: float = 10.0,
) -> Drained:
    return deliver.process(
        session_factory,
        holder or Holder(),
        registry or clients(),
        max_rows=max_rows,
        max_seconds=max_seconds,
        policy=policy,
    )


def new_holder(session: Session, slot: str) -> Holder:
    """As a worker that starts in ``slot``: frees what its predecessor held."""
    incarnation = enter(session, slot)
    session.commit()
    return Holder(slot, incarnation)


def rows(session: Session, lead: Lead | None = None) -> dict[str, Delivery]:
    """The deliveries of one lead (of the only one, unless given) as stored now, by action."""
    found = sa.select(Delivery).order_by(Delivery.step).execution_options(populate_existing=True)
    if lead is not None:
        found = found.where(Delivery.lead_id == lead.id)
    result = {row.action: row for row in session.scalars(found)}
    session.commit()
    return result


def states(session: Session, lead: Lead | None = None) -> dict[str, str]:
    return {action: row.state.value for action, row in rows(session, lead).items()}


def all_states(session: Session) -> set[str]:
    """Where the deliveries of all leads stand."""
    result = {state.value for state in session.scalars(sa.select(Delivery.state).distinct())}
    session.commit()
    return result


def outcomes(session: Session, delivery: Delivery) -> list[str]:
    found = sa.select(DeliveryAttempt.outcome).where(DeliveryAttempt.delivery_id == delivery.id)
    result = list(session.scalars(found.order_by(DeliveryAttempt.attempt)))
    session.commit()
    return result


def events(session: Session, lead_id: uuid.UUID | None, event_type: str) -> list[AuditEvent]:
    found = sa.select(AuditEvent).where(AuditEvent.event_type == event_type).order_by(AuditEvent.id)
    if lead_id is not None:
        found = found.where(AuditEvent.lead_id == lead_id)
    result = list(session.scalars(found))
    session.commit()
    return result


def count(session: Session, model: Any) -> int:
    result = session.scalar(sa.select(sa.func.count()).select_from(model))
    session.commit()
    return int(result or 0)

"""What the domain asks of the outside: one Protocol per port, and the frozen values that cross it.

``webapp.clients`` implements these; the domain never imports it. A client makes its calls outside any transaction and
tells what happened by returning a :class:`Receipt` or raising one of the errors below.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from webapp.leads.errors import Ambiguous, Permanent, Transient
from webapp.leads.states import DestinationKind, Intent, LeadStatus, NextAction, Priority


@dataclass(frozen=True, slots=True)
class Drained:
    """What one bounded drain of a backlog did. ``more``: something is still due, so ring again."""

    done: int
    more: bool


@dataclass(frozen=True, slots=True)
class Target:
    """A destination as a client needs it. ``credentials`` is still encrypted; whoever builds the client decrypts."""

    id: uuid.UUID
    workspace_id: uuid.UUID
    kind: DestinationKind
    name: str
    config: Mapping[str, Any]
    credentials: str | None
    managed_by: str | None


@dataclass(frozen=True, slots=True)
class LeadSnapshot:
    """What a destination may learn of a lead, as it stood just before sending. Times are aware UTC."""

    lead_id: uuid.UUID
    workspace_id: uuid.UUID
    external_id: str | None
    name: str | None
    first_name: str | None
    last_name: str | None
    email: str | None  # normalised when it could be
    phone: str | None  # as sent
    phone_e164: str | None
    company: str | None
    job_title: str | None
    city: str | None
    message: str
    lang: str
    source: str
    budget: float | None
    platform: str | None
    author_name: str | None
    author_id: str | None
    status: LeadStatus
    intent: Intent
    priority: Priority
    next_action: NextAction
    confidence: float
    score: int | None
    qualified: bool | None
    reasons: tuple[str, ...]
    attribution: Mapping[str, Any]
    consent: str | None
    assignee_name: str | None
    assignee_email: str | None
    decided_by: str | None
    created_at: datetime
    event_at: datetime  # of the decision, else of the settling run: the same on every retry

    @property
    def display_name(self) -> str:
        """Whatever tells people best who this is."""
        return self.name or self.author_name or self.company or self.email or self.phone or "Unknown"


@dataclass(frozen=True, slots=True)
class DeliveryRequest:
    """One effect to bring about. ``delivery_id`` never changes for it, so it is the idempotency key.

    ``remote``: remote ids of the steps before, by action. ``attempt``: the fencing token, for logs only.
    """

    delivery_id: uuid.UUID
    action: str
    attempt: int
    lead: LeadSnapshot
    remote: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was seen on the wire. ``excerpt``: start of the answer, redacted. ``payload``: the body sent, no secrets."""

    http_status: int | None = None
    excerpt: str | None = None
    payload: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The effect is there. ``remote_id``: its id on the other side, if it has one."""

    remote_id: str | None = None
    exchange: Exchange = Exchange()


class DestinationClient(Protocol):
    """One outside service; used by several threads at a time.

    ``reconciles``: the service can be asked, or deduplicates by itself, so that a delivery whose outcome is unknown
    may be tried again without ever taking effect twice.
    """

    reconciles: bool

    def send(self, request: DeliveryRequest) -> Receipt:
        """Bring the effect about. Raises Transient, Ambiguous or Permanent (see below)."""
        ...

    def reconcile(self, request: DeliveryRequest) -> Receipt | None:
        """After an unknown outcome: the receipt when the effect is there, None when it has to be sent (again)."""
        ...


class Clients(Protocol):
    """Gives the client of a destination; called often, so it caches."""

    def client_for(self, target: Target) -> DestinationClient: ...


class Throttled(Transient):
    """The other side asks everybody to wait (429). Not the delivery's fault, so it costs none of its tries."""

    def __init__(self, message: str, *, retry_after: float, exchange: Exchange = Exchange()) -> None:
        super().__init__(message, retry_after=retry_after)
        self.exchange = exchange


class Unreached(Transient):
    """Failed for now, and surely without effect (no connection, or an answer that says so)."""

    def __init__(self, message: str, *, retry_after: float | None = None, exchange: Exchange = Exchange()) -> None:
        super().__init__(message, retry_after=retry_after)
        self.exchange = exchange


class OutcomeUnknown(Ambiguous):
    """Sent, and then a timeout, a reset or a 5xx: it may have taken effect."""

    def __init__(self, message: str, *, retry_after: float | None = None, exchange: Exchange = Exchange()) -> None:
        super().__init__(message, retry_after=retry_after)
        self.exchange = exchange


class Refused(Permanent):
    """The other side said no for good.

    ``destination_wide``: it would refuse every other delivery too (bad credential), which counts for the breaker.
    ``gone``: it wants no more deliveries at all (410), so the destination is switched off.
    """

    def __init__(
        self,
        message: str,
        *,
        exchange: Exchange = Exchange(),
        destination_wide: bool = False,
        gone: bool = False,
    ) -> None:
        super().__init__(message)
        self.exchange = exchange
        self.destination_wide = destination_wide
        self.gone = gone


def exchange_of(error: BaseException) -> Exchange:
    """What an error knows of the wire; empty when it never got there."""
    found = getattr(error, "exchange", None)
    return found if isinstance(found, Exchange) else Exchange()

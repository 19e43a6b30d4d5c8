"""The idempotency keys of ``POST /enrich-lead``: a claim under a lease, then the answer for good.

Elsewhere a key is written in the transaction that makes its lead. Here a request may wait for a model meanwhile, and
other requests must see that: so the claim is committed first, with a lease that its holder renews. A holder that died
renews nothing, and the next request takes over. ``lease_until`` is the holder's token as well: whoever does not know
the latest one has lost the claim.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads.errors import Conflict
from webapp.leads.intake import Tenant
from webapp.leads.states import Door
from webapp.models.base import interval
from webapp.models.lead import IdempotencyKey

#: Seconds after which a holder that renews no more counts as dead, and how often it renews.
LEASE_SECONDS = 3.0
RENEW_SECONDS = 1.0


class InProgress(Conflict):
    """Another request holds the key."""

    code = "in_progress"
    retry_after = 5.0

    def __init__(self) -> None:
        super().__init__("another request with the same e-mail and phone is being answered; send it again")


@dataclass(frozen=True, slots=True)
class KeyOf:
    """A key within its workspace, as the statements here take it."""

    tenant: Tenant
    value: str
    request_hash: str


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of a key. ``response``: the answer, once there is one; ``held``: a request is at work on it."""

    response: str | None
    lead_id: UUID | None
    held: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A key held. ``lead_id``: what a holder that died had already taken in; ``lease`` proves the claim."""

    lead_id: UUID | None
    lease: datetime


# A key past its days begins anew. One whose holder let go, or died, goes on with the lead that is there.
_CLAIM = sa.text(
    """
    INSERT INTO idempotency_keys AS k (workspace_id, door, key, request_hash, lease_until, expires_at)
    VALUES (:workspace_id, :door, :key, :request_hash, clock_timestamp() + make_interval(secs => :lease),
            now() + make_interval(days => :days))
    ON CONFLICT (workspace_id, door, key) DO UPDATE
      SET lease_until = excluded.lease_until, response = NULL, request_hash = excluded.request_hash,
          lead_id = CASE WHEN k.expires_at > now() THEN k.lead_id END,
          created_at = CASE WHEN k.expires_at > now() THEN k.created_at ELSE now() END, expires_at = excluded.expires_at
      WHERE k.expires_at <= now()
         OR (k.response IS NULL AND coalesce(k.lease_until <= clock_timestamp(), true))
    RETURNING lead_id, lease_until
    """
)


def _mine(key: KeyOf, held: datetime) -> sa.Update:
    """An UPDATE that finds the key as long as the claim stands."""
    return _this(key).where(IdempotencyKey.lease_until == held)


def _this(key: KeyOf) -> sa.Update:
    return (
        sa.update(IdempotencyKey)
        .where(
            IdempotencyKey.workspace_id == key.tenant.id,
            IdempotencyKey.door == Door.ENRICH,
            IdempotencyKey.key == key.value,
        )
        .execution_options(synchronize_session=False)
    )


def stored(connection: sa.Connection, key: KeyOf) -> Stored | None:
    """None for a key that is not in use."""
    held = sa.func.coalesce(IdempotencyKey.lease_until > sa.func.clock_timestamp(), False)
    row = connection.execute(
        sa.select(IdempotencyKey.response, IdempotencyKey.lead_id, held.label("held")).where(
            IdempotencyKey.workspace_id == key.tenant.id,
            IdempotencyKey.door == Door.ENRICH,
            IdempotencyKey.key == key.value,
            IdempotencyKey.expires_at > sa.func.now(),
        )
    ).first()
    return Stored(row.response, row.lead_id, row.held) if row else None


def claim(session: Session, key: KeyOf) -> Claim | None:
    """Hold the key, also one whose holder has died. None when it is held, or answered, by another request; one that
    is about to commit is waited for."""
    values = {
        "workspace_id": key.tenant.id, "door": Door.ENRICH.value, "key": key.value, "request_hash": key.request_hash,
        "lease": LEASE_SECONDS, "days": key.tenant.idempotency_days,
    }  # fmt: skip
    row = session.execute(_CLAIM, values).first()
    return Claim(row.lead_id, row.lease_until) if row else None


def bind(session: Session, key: KeyOf, lead_id: UUID) -> None:
    """Tell whoever may have to take over which lead it is about."""
    session.execute(_this(key).values(lead_id=lead_id))


def renew(connection: sa.Connection, key: KeyOf, lease: datetime) -> datetime:
    """The next lease. InProgress when another request has taken over."""
    until = sa.func.clock_timestamp() + interval(LEASE_SECONDS)
    renewed = connection.scalar(_mine(key, lease).values(lease_until=until).returning(IdempotencyKey.lease_until))
    if renewed is None:
        raise InProgress
    assert isinstance(renewed, datetime)
    return renewed


def answer(session: Session, key: KeyOf, lease: datetime, lead_id: UUID, response: str) -> None:
    """Store the answer for good. InProgress when another request has taken over, whose answer counts."""
    values = {"response": response, "lead_id": lead_id, "lease_until": None}
    if session.scalar(_mine(key, lease).values(values).returning(IdempotencyKey.key)) is None:
        raise InProgress


def let_go(session: Session, key: KeyOf, lease: datetime) -> None:
    """End the claim without an answer: the next request goes on with the same lead."""
    session.execute(_mine(key, lease).values(lease_until=None))


def release(session: Session, key: KeyOf, lease: datetime) -> None:
    """Forget the key: the next request begins anew."""
    session.execute(
        sa.delete(IdempotencyKey)
        .where(
            IdempotencyKey.workspace_id == key.tenant.id,
            IdempotencyKey.door == Door.ENRICH,
            IdempotencyKey.key == key.value,
            IdempotencyKey.lease_until == lease,
        )
        .execution_options(synchronize_session=False)
    )

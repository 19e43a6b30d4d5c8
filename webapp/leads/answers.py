"""Answers by idempotency key, for doors whose answer is more than one lead (those have intake's own keys).

The key's row is written first, in the transaction that does the work: a second request with the key waits for it
inside PostgreSQL and is then answered from it, word for word.
"""

import uuid

from sqlalchemy.orm import Session

from webapp.leads import intake_sql
from webapp.leads.errors import Conflict, Transient
from webapp.leads.intake import Key, Tenant
from webapp.leads.states import Door

_CLAIM = """
INSERT INTO idempotency_keys AS k (workspace_id, door, key, request_hash, expires_at)
VALUES (%(workspace_id)s, %(door)s, %(key)s, %(request_hash)s, now() + make_interval(days => %(days)s))
ON CONFLICT (workspace_id, door, key) DO UPDATE
  SET request_hash = excluded.request_hash, response = NULL, expires_at = excluded.expires_at, created_at = now()
  WHERE k.expires_at <= now()
RETURNING 1
"""
_EARLIER = """
SELECT request_hash, response FROM idempotency_keys
WHERE workspace_id = %(workspace_id)s AND door = %(door)s AND key = %(key)s
"""
_KEEP = """
UPDATE idempotency_keys SET response = %(response)s
WHERE workspace_id = %(workspace_id)s AND door = %(door)s AND key = %(key)s
"""
_RELEASE = """
DELETE FROM idempotency_keys WHERE workspace_id = %(workspace_id)s AND door = %(door)s AND key = %(key)s
"""


def claim(session: Session, tenant: Tenant, door: Door, key: Key) -> str | None:
    """The answer that was given under ``key``; None: the key is the caller's now, who does the work in this
    transaction and tells :func:`keep` the answer, or :func:`release` that there is none to keep. Conflict when the key was used with another body."""
    values = _values(tenant.id, door, key)
    if intake_sql.run(session, _CLAIM, values | {"days": tenant.idempotency_days}):
        return None
    found = intake_sql.run(session, _EARLIER, values)
    if not found:
        raise Transient("this request is being repeated; send it again", retry_after=1)
    request_hash, response = found[0]
    if request_hash != key.request_hash or response is None:
        raise Conflict("this Idempotency-Key was used with another body", code="idempotency_mismatch")
    return str(response)


def keep(session: Session, tenant: Tenant, door: Door, key: Key, response: str) -> None:
    """Store the answer to give again."""
    intake_sql.run(session, _KEEP, _values(tenant.id, door, key) | {"response": response})


def release(session: Session, tenant: Tenant, door: Door, key: Key) -> None:
    """Keep no answer: the next request with the key does the work again."""
    intake_sql.run(session, _RELEASE, _values(tenant.id, door, key))


def _values(workspace_id: uuid.UUID, door: Door, key: Key) -> dict[str, object]:
    return {"workspace_id": workspace_id, "door": door.value, "key": key.value, "request_hash": key.request_hash}

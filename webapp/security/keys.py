"""API keys: making them, and telling whose a presented one is."""

import hashlib
import secrets
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session, object_session

from webapp.leads import rulebook, sla
from webapp.leads.errors import Forbidden, Invalid, LeadError
from webapp.leads.intake import Tenant
from webapp.leads.judging_policy import Preferences
from webapp.leads.states import Scope
from webapp.models.account import ApiKey, Workspace
from webapp.security.ratelimit import DEFAULT, Limits

#: How long a process believes what it read of a key: a revocation or a new threshold holds everywhere within this.
CACHE_SECONDS = 2.0
_CACHE_SIZE = 10_000
_USED_EVERY = 60.0
#: The largest limit that can be set: what the column holds.
MOST = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Principal:
    """The program behind a key. ``tenant`` None: a platform key."""

    key_id: uuid.UUID
    name: str
    tenant: Tenant | None
    scopes: frozenset[str]
    rate_limited: bool
    expires_at: datetime | None
    limits: Limits = DEFAULT

    def require(self, scope: Scope) -> None:
        """Forbidden when the key lacks ``scope``."""
        if scope.value not in self.scopes:
            raise Forbidden(f"this key lacks the scope '{scope.value}'", code="insufficient_scope")

    @property
    def workspace_id(self) -> uuid.UUID:
        return self.workspace.id

    @property
    def workspace(self) -> Tenant:
        if self.tenant is None:
            raise Forbidden("a platform key belongs to no workspace", code="insufficient_scope")
        return self.tenant


def create_key(
    session: Session,
    *,
    workspace_id: uuid.UUID | None,
    name: str,
    scopes: set[Scope],
    rate_limited: bool = True,
    limits: Limits = DEFAULT,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which cannot be had again. Invalid when the scopes make no sense together, a limit is
    out of range, or the key would have expired already."""
    if not scopes:
        raise Invalid("a key needs at least one scope")
    if (Scope.PLATFORM in scopes) != (workspace_id is None) or (Scope.PLATFORM in scopes and len(scopes) > 1):
        raise Invalid("the scope 'platform' stands alone and belongs to no workspace")
    if any(value is not None and not 0 <= value <= MOST for value in (limits.max, limits.burst, limits.day)):
        raise Invalid(f"a limit is a whole number from 0 (no limit) to {MOST:,}")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise Invalid("the key would have expired already")
    secret = "lo_" + secrets.token_urlsafe(32)
    key = ApiKey(
        workspace_id=workspace_id,
        name=name,
        prefix=secret[:8],
        key_hash=_hash(secret),
        scopes=sorted(scope.value for scope in scopes),
        rate_limited=rate_limited,
        limit_max=limits.max,
        limit_burst=limits.burst,
        limit_day=limits.day,
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    return key, secret


def _hash(secret: str) -> bytes:
    # 256 random bits need no slow hash: there is nothing to guess.
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class KeyRing:
    """Finds the principal behind a presented secret; remembers it for :data:`CACHE_SECONDS`."""

    def __init__(self, *, default_region: str, duplicate_days: int, idempotency_days: int) -> None:
        self._known: dict[bytes, tuple[float, Principal]] = {}
        self._used: dict[uuid.UUID, float] = {}
        self._lock = threading.Lock()
        self._limits = {
            "default_region": default_region,
            "duplicate_days": duplicate_days,
            "idempotency_days": idempotency_days,
        }

    def identify(self, session: Session, presented: str) -> Principal:
        """LeadError with code ``invalid_auth`` or ``expired_key`` when it is nobody's, revoked or past its day."""
        digest = _hash(presented)
        now = time.monotonic()
        known = self._known.get(digest)
        principal = known[1] if known and known[0] > now else self._read(session, digest, now)
        if principal is None:
            raise LeadError("this API key is not valid", code="invalid_auth")
        if principal.expires_at and principal.expires_at <= datetime.now(UTC):
            raise LeadError("this API key has expired", code="expired_key")
        return principal

    def tenant(self, workspace: Workspace) -> Tenant:
        """What intake has to know of a workspace, with the limits of the settings."""
        return tenant_of(workspace, **self._limits)

    def _read(self, session: Session, digest: bytes, now: float) -> Principal | None:
        row = session.execute(
            sa.select(ApiKey, Workspace)
            .outerjoin(Workspace, Workspace.id == ApiKey.workspace_id)
            .where(ApiKey.key_hash == digest, ApiKey.revoked_at.is_(None))
        ).first()
        if row is None:
            return None
        key, workspace = row
        principal = Principal(
            key_id=key.id,
            name=key.name,
            tenant=self.tenant(workspace) if workspace else None,
            scopes=frozenset(key.scopes),
            rate_limited=key.rate_limited,
            expires_at=key.expires_at,
            limits=Limits(key.limit_max, key.limit_burst, key.limit_day),
        )
        with self._lock:
            if len(self._known) >= _CACHE_SIZE:
                self._known.clear()
            self._known[digest] = (now + CACHE_SECONDS, principal)
            stale = now - self._used.get(key.id, -_USED_EVERY) >= _USED_EVERY
            if stale:
                self._used[key.id] = now
        if stale:
            session.execute(
                sa.update(ApiKey)
                .where(ApiKey.id == key.id)
                .values(last_used_at=sa.func.now())
                .execution_options(synchronize_session=False)
            )
        # Ends the read (and keeps last_used_at) before the door's own transaction begins.
        session.commit()
        return principal


def tenant_of(workspace: Workspace, *, default_region: str, duplicate_days: int, idempotency_days: int) -> Tenant:
    """What intake has to know of a workspace, which belongs to a session."""
    session = object_session(workspace)
    assert session is not None
    return Tenant(
        id=workspace.id,
        name=workspace.name,
        auto_from=workspace.auto_from,
        draft_from=workspace.draft_from,
        default_region=str(workspace.settings.get("region") or default_region),
        duplicate_days=duplicate_days,
        idempotency_days=idempotency_days,
        sla=sla.of_settings(workspace.settings),
        rules=rulebook.compiled(session, workspace.ruleset_id),
        judging=Preferences.of(workspace.settings.get("classify")),
    )

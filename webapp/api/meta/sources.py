"""What Meta's webhooks ask of the database at every request, remembered for a moment: a body of comments then costs
one statement, the one that takes them in."""

import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from webapp import logs
from webapp.leads.destinations import DEFAULT_WORKSPACE
from webapp.leads.intake import Tenant, text_problem
from webapp.models.account import SocialPage, Workspace
from webapp.security.fields import FieldCipher
from webapp.security.keys import CACHE_SECONDS

log = logs.get(__name__)

Key = TypeVar("Key")
Value = TypeVar("Value")
#: Seconds between two readings of all app secrets on account of a signature that no known one made.
_AGAIN_SECONDS = 1.0
#: Entries of one memory; a body may name tens of thousands of pages.
_MOST = 10_000


class _Memory(Generic[Key, Value]):
    """What was found, for :data:`CACHE_SECONDS`. What was not found is looked for again every time, so that whatever
    an admin adds works at once."""

    def __init__(self) -> None:
        self._known: dict[Key, tuple[float, Value]] = {}
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        known = self._known.get(key)
        return known[1] if known is not None and known[0] > time.monotonic() else None

    def keep(self, found: Iterable[tuple[Key, Value]]) -> None:
        until = time.monotonic() + CACHE_SECONDS
        with self._lock:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known.update((key, (until, value)) for key, value in found)

    def clear(self) -> None:
        with self._lock:
            self._known.clear()


class Sources:
    """Pages, app secrets and tenants; one per process. A removal or a changed threshold holds within
    :data:`CACHE_SECONDS`, a new app secret within :data:`_AGAIN_SECONDS`, everything else that is new at once."""

    def __init__(self, cipher: FieldCipher, tenant_of: Callable[[Workspace], Tenant], app_secret: str | None) -> None:
        """``app_secret``: the environment's, which is the workspace ``default``'s."""
        self._cipher = cipher
        self._tenant_of = tenant_of
        self._app_secret = app_secret
        self._pages: _Memory[tuple[str, str], uuid.UUID] = _Memory()
        self._tenants: _Memory[uuid.UUID, Tenant] = _Memory()
        self._secrets: _Memory[None, list[tuple[uuid.UUID, str]]] = _Memory()
        self._decrypted: dict[str, str | None] = {}
        self._read_again_at = 0.0
        self._turn = threading.Lock()

    def clear(self) -> None:
        """Forget everything."""
        for memory in (self._pages, self._tenants, self._secrets):
            memory.clear()
        self._decrypted = {}
        self._read_again_at = 0.0

    def owners(self, session: Session, platform: str, page_ids: Collection[str]) -> dict[str, uuid.UUID]:
        """Page id → workspace, for those of ``page_ids`` that are mapped."""
        found: dict[str, uuid.UUID] = {}
        unknown = []
        for page_id in set(page_ids):
            owner = self._pages.get((platform, page_id))
            if owner is not None:
                found[page_id] = owner
            elif text_problem(page_id) is None:
                unknown.append(page_id)
        if unknown:
            rows = session.execute(
                sa.select(SocialPage.page_id, SocialPage.workspace_id).where(
                    SocialPage.platform == platform, SocialPage.page_id == sa.any_(sa.literal(unknown, ARRAY(sa.Text)))
                )
            ).all()
            session.commit()  # ends the read: what takes the leads in may use another connection
            read = {row.page_id: row.workspace_id for row in rows}
            self._pages.keep(((platform, page_id), owner) for page_id, owner in read.items())
            found |= read
        return found

    def tenant(self, session: Session, workspace_id: uuid.UUID) -> Tenant | None:
        """What intake has to know of a workspace, None when there is none of this id."""
        tenant = self._tenants.get(workspace_id)
        if tenant is None:
            workspace = session.get(Workspace, workspace_id)
            tenant = self._tenant_of(workspace) if workspace else None
            session.commit()
            if tenant is not None:
                self._tenants.keep([(workspace_id, tenant)])
        return tenant

    def verified(self, session: Session, fits: Callable[[str], bool]) -> frozenset[uuid.UUID]:
        """Workspaces that hold an app secret which ``fits``; a secret that is not known yet is looked for, but not for
        each of those who post without knowing any."""
        known = self._secrets.get(None)
        if known is not None:
            good = frozenset(owner for owner, secret in known if fits(secret))
            if good or not self._may_read_again():
                return good
        read = self._read_secrets(session)
        self._secrets.keep([(None, read)])
        return frozenset(owner for owner, secret in read if fits(secret))

    def _may_read_again(self) -> bool:
        """Once in :data:`_AGAIN_SECONDS`, for whoever comes first."""
        with self._turn:
            now = time.monotonic()
            if now < self._read_again_at:
                return False
            self._read_again_at = now + _AGAIN_SECONDS
            return True

    def _read_secrets(self, session: Session) -> list[tuple[uuid.UUID, str]]:
        query: Any = sa.select(Workspace.id, Workspace.name, Workspace.meta_app_secret).where(
            sa.or_(Workspace.meta_app_secret.is_not(None), Workspace.name == DEFAULT_WORKSPACE)
        )
        rows = session.execute(query).all()
        session.commit()
        found = []
        before, decrypted = self._decrypted, {}
        for workspace_id, name, sealed in rows:
            if name == DEFAULT_WORKSPACE and self._app_secret:
                found.append((workspace_id, self._app_secret))
            if sealed is None:
                continue
            decrypted[sealed] = before[sealed] if sealed in before else self._decrypt(workspace_id, sealed)
            if (secret := decrypted[sealed]) is not None:
                found.append((workspace_id, secret))
        self._decrypted = decrypted  # only those that there still are
        return found

    def _decrypt(self, workspace_id: uuid.UUID, sealed: str) -> str | None:
        """None, which the log tells, when no key fits: it must not stop the other workspaces' webhooks."""
        try:
            return str(self._cipher.decrypt(sealed))
        except ValueError as error:
            log.error("app secret cannot be read", workspace_id=str(workspace_id), error=str(error))
            return None

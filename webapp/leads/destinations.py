"""Destinations: where effects go. Made from the environment by the operator, or in the browser by an admin.

Credentials are encrypted before they reach a row. Nothing here commits.
"""

import base64
import binascii
import secrets
import uuid
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.orm import Session

from webapp.leads import audit
from webapp.leads.errors import Conflict, Invalid, NotFound, Problem
from webapp.leads.states import DeliveryState, DestinationKind, DestinationMode
from webapp.models.account import Workspace
from webapp.models.base import scoped
from webapp.models.work import Delivery, Destination

#: ``managed_by`` of the destinations that settings make; pages show them and cannot change them.
ENVIRONMENT = "environment"
DEFAULT_WORKSPACE = "default"
TWENTY_NAME, FOLLOW_UP_NAME = "Twenty", "n8n follow-up"

#: Standard Webhooks: a secret has 24 to 64 random bytes.
_SECRET_BYTES = (24, 64)


class Cipher(Protocol):
    """Field encryption, as ``webapp.security.fields`` has it."""

    def encrypt(self, value: Any) -> str: ...
    def decrypt(self, token: str) -> Any:
        """ValueError when no key fits."""
        ...


class OutboundSettings(Protocol):
    """The part of ``webapp.config.Settings`` that makes destinations."""

    @property
    def twenty_rest_url(self) -> str | None: ...
    @property
    def twenty_rest_token(self) -> SecretStr | None: ...
    @property
    def twenty_task_target_field(self) -> Any: ...
    @property
    def webhook_url(self) -> str | None: ...


def sync_environment(session: Session, settings: OutboundSettings, cipher: Cipher) -> None:
    """Make the environment's destinations of the workspace ``default`` what ``settings`` say; idempotent.

    A variable that is gone switches its destination off: its deliveries stay to be seen. Without a workspace of that
    name nothing is done. Several processes may call it at once: the first locks the workspace, the others wait.
    """
    workspace_id = session.scalar(
        sa.select(Workspace.id).where(Workspace.name == DEFAULT_WORKSPACE).with_for_update(key_share=True)
    )
    if workspace_id is None:
        return
    token = settings.twenty_rest_token
    _sync(
        session,
        cipher,
        workspace_id,
        DestinationKind.TWENTY,
        TWENTY_NAME,
        {"url": settings.twenty_rest_url, "task_target_field": settings.twenty_task_target_field},
        {"token": token.get_secret_value()} if token else None,
    )
    # The whole URL is a credential: whoever knows it can start the workflow.
    url = settings.webhook_url
    _sync(
        session,
        cipher,
        workspace_id,
        DestinationKind.N8N,
        FOLLOW_UP_NAME,
        {"url": _origin(url)},
        {"url": url} if url else None,
    )


def _sync(
    session: Session,
    cipher: Cipher,
    workspace_id: uuid.UUID,
    kind: DestinationKind,
    name: str,
    config: dict[str, Any],
    credentials: dict[str, str] | None,
) -> None:
    here = scoped(Destination, workspace_id)
    row = session.scalar(here.where(Destination.kind == kind, Destination.managed_by == ENVIRONMENT))
    if not config["url"] or credentials is None:
        if row is not None and row.mode is not DestinationMode.OFF:
            row.mode = DestinationMode.OFF
            audit.record(session, workspace_id, "DESTINATION_OFF", destination=row.name, reason="not configured")
        return
    if row is None:
        row = Destination(
            workspace_id=workspace_id,
            kind=kind,
            name=_free_name(session, workspace_id, name),
            managed_by=ENVIRONMENT,
            config={},
        )
        session.add(row)
    unchanged = row.config == config and _reads_as(cipher, row.credentials, credentials)
    if unchanged and row.mode is DestinationMode.LIVE:
        return
    if not unchanged:
        row.config, row.credentials = config, cipher.encrypt(credentials)
    row.mode, row.failures, row.open_until, row.paused_until = DestinationMode.LIVE, 0, None, None
    session.flush()
    audit.record(session, workspace_id, "DESTINATION_SET", destination=row.name, url=config["url"])


def _reads_as(cipher: Cipher, stored: str | None, credentials: dict[str, str]) -> bool:
    """Encryption is salted, so only the clear values can be compared. A value no key opens is simply replaced."""
    try:
        return stored is not None and bool(cipher.decrypt(stored) == credentials)
    except ValueError:
        return False


def _origin(url: str | None) -> str | None:
    if not url:
        return None
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _free_name(session: Session, workspace_id: uuid.UUID, name: str) -> str:
    """``name``, or a numbered one when an admin has given it to a destination of their own."""
    taken = set(session.scalars(sa.select(Destination.name).where(Destination.workspace_id == workspace_id)))
    return next(n for i in range(1, len(taken) + 2) if (n := name if i == 1 else f"{name} {i}") not in taken)


def listing(session: Session, workspace_id: uuid.UUID) -> Sequence[Destination]:
    """The workspace's destinations by name, for the settings page."""
    return session.scalars(scoped(Destination, workspace_id).order_by(Destination.name)).all()


def create_webhook(
    session: Session,
    workspace_id: uuid.UUID,
    name: str,
    url: str,
    secret: str | None = None,
    *,
    cipher: Cipher,
    actor: str = audit.SYSTEM,
    only_qualified: bool = False,
) -> tuple[Destination, str]:
    """A signed outgoing webhook. Returns it with its signing secret (``whsec_…``, made unless given), to be shown once.

    Invalid names every bad field, Conflict a name that is taken. Whether the URL points to a public address is
    checked when it is called, since names may resolve to anything later.
    """
    name, url = name.strip(), url.strip()
    secret = secret.strip() if secret and secret.strip() else new_secret()
    problems = [
        problem for problem in (_name_problem(name), _url_problem(url), _secret_problem(secret)) if problem is not None
    ]
    if problems:
        raise Invalid("The webhook cannot be saved.", details=tuple(problems))
    if session.scalar(scoped(Destination, workspace_id).where(Destination.name == name)) is not None:
        raise Conflict(f"There is already a destination called {name}.", code="resource_exists")
    row = Destination(
        workspace_id=workspace_id,
        kind=DestinationKind.WEBHOOK,
        name=name,
        config={"url": url} | ({"trigger": "qualified"} if only_qualified else {}),
        credentials=cipher.encrypt({"secret": secret}),
    )
    session.add(row)
    session.flush()
    audit.record(session, workspace_id, "DESTINATION_SET", actor=actor, destination=name, url=_origin(url))
    return row, secret


def new_secret() -> str:
    """A Standard Webhooks signing secret of 32 random bytes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _name_problem(name: str) -> Problem | None:
    return None if 1 <= len(name) <= 80 else Problem("name", "must have 1 to 80 characters")


def _url_problem(url: str) -> Problem | None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if good and not parts.username and not parts.password and len(url) <= 2_000:
        return None
    return Problem("url", "must be an http:// or https:// URL without a user name")


def _secret_problem(secret: str) -> Problem | None:
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    low, high = _SECRET_BYTES
    return None if low <= size <= high else Problem("secret", f"must be whsec_ and {low} to {high} bytes in base64")


def set_mode(
    session: Session, workspace_id: uuid.UUID, destination_id: uuid.UUID, mode: DestinationMode, *, actor: str
) -> Destination:
    """Switch on or off. Off: nothing new is queued and what waits stays waiting; on again also closes the breaker.

    NotFound outside the workspace; Conflict for one that the environment manages.
    """
    row = _editable(session, workspace_id, destination_id)
    if row.mode is not mode:
        row.mode = mode
        if mode is DestinationMode.LIVE:
            row.failures, row.open_until, row.paused_until = 0, None, None
        audit.record(
            session,
            workspace_id,
            f"DESTINATION_{'ON' if mode is DestinationMode.LIVE else 'OFF'}",
            actor=actor,
            destination=row.name,
        )
    session.flush()
    return row


def waiting(session: Session, workspace_id: uuid.UUID) -> dict[uuid.UUID, dict[DeliveryState, int]]:
    """How many deliveries stand where, by destination (delivered and cancelled ones left out)."""
    counts: dict[uuid.UUID, dict[DeliveryState, int]] = {}
    over = (DeliveryState.DELIVERED, DeliveryState.CANCELLED)
    for destination_id, state, count in session.execute(
        sa.select(Delivery.destination_id, Delivery.state, sa.func.count())
        .where(Delivery.workspace_id == workspace_id, Delivery.state.not_in(over))
        .group_by(Delivery.destination_id, Delivery.state)
    ):
        counts.setdefault(destination_id, {})[state] = count
    return counts


def _editable(session: Session, workspace_id: uuid.UUID, destination_id: uuid.UUID) -> Destination:
    row: Destination | None = session.scalar(
        scoped(Destination, workspace_id).where(Destination.id == destination_id).with_for_update()
    )
    if row is None:
        raise NotFound("There is no such destination.")
    if row.managed_by == ENVIRONMENT:
        raise Conflict("This destination is managed by the environment; change its variables there.")
    return row

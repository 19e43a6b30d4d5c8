"""Inbound webhooks: named addresses at which other people's systems post leads (``POST /hooks/{token}``).

The token in the address is a secret: found by its hash, kept encrypted so that the address can be shown again.
Nothing here commits.
"""

import hashlib
import json
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, mapping
from webapp.leads.destinations import Cipher
from webapp.leads.errors import Conflict, Invalid, NotFound, Problem
from webapp.leads.paths import BadPath, compiled
from webapp.leads.states import QuarantineState, Verification
from webapp.models.base import scoped
from webapp.models.inbound import InboundSource
from webapp.models.lead import Lead, Quarantined

#: Longest body kept to edit a mapping against, in characters.
MAX_SAMPLE = 1 << 17
#: Requests of a burst need not each write that they came; the newest within this is good enough.
_TOUCHED_EVERY = timedelta(seconds=1)
MOST = 1_000_000_000
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")


@dataclass(frozen=True, slots=True)
class Row:
    """A source in the list. ``leads``: taken in in the last 7 days; ``held``: entries that wait in quarantine."""

    source: InboundSource
    leads: int
    held: int


def listing(session: Session, workspace_id: uuid.UUID) -> list[Row]:
    """The workspace's sources by name."""
    week = datetime.now(UTC) - timedelta(days=7)
    leads = (
        sa.select(sa.func.count()).where(Lead.source_id == InboundSource.id, Lead.created_at > week).scalar_subquery()
    )
    query = sa.select(InboundSource, leads, _held()).where(InboundSource.workspace_id == workspace_id)
    return [Row(*found) for found in session.execute(query.order_by(InboundSource.name))]


def _held() -> Any:
    return (
        sa.select(sa.func.count())
        .where(
            Quarantined.workspace_id == InboundSource.workspace_id,
            Quarantined.source_id == InboundSource.id,
            Quarantined.state == sa.literal(QuarantineState.HELD, Quarantined.state.type, literal_execute=True),
        )
        .scalar_subquery()
    )


def held(session: Session, source: InboundSource) -> int:
    """How many of its entries wait in quarantine."""
    return session.scalar(sa.select(_held()).where(InboundSource.id == source.id)) or 0


def get(session: Session, workspace_id: uuid.UUID, source_id: uuid.UUID, *, lock: bool = False) -> InboundSource:
    """NotFound outside of the workspace."""
    query = scoped(InboundSource, workspace_id).where(InboundSource.id == source_id)
    found: InboundSource | None = session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise NotFound("There is no such inbound webhook in this workspace.")
    return found


def by_token(session: Session, token: str) -> InboundSource:
    """The source behind an address. NotFound for one that is nobody's, or no longer."""
    found = session.scalar(sa.select(InboundSource).where(InboundSource.token_hash == _hash(token)))
    if found is None:
        raise NotFound("there is no webhook at this address")
    return found


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def create(session: Session, workspace_id: uuid.UUID, name: str, *, cipher: Cipher, actor: str) -> InboundSource:
    """A new address. Invalid for a bad name, Conflict for one that is taken."""
    name = _free_name(session, workspace_id, name)
    token = _new_token()
    source = InboundSource(
        workspace_id=workspace_id, name=name, token=cipher.encrypt(token), token_hash=_hash(token), mapping={}
    )
    session.add(source)
    session.flush()
    audit.record(session, workspace_id, "SOURCE_CREATED", actor=actor, source=name)
    return source


def _new_token() -> str:
    return secrets.token_urlsafe(24)


def _free_name(session: Session, workspace_id: uuid.UUID, name: str, *, but: uuid.UUID | None = None) -> str:
    name = " ".join(name.split())
    if not 1 <= len(name) <= 80 or not name.isprintable():
        raise Invalid("The webhook cannot be saved.", details=(Problem("name", "must have 1 to 80 characters"),))
    taken = scoped(InboundSource, workspace_id).where(InboundSource.name == name)
    if session.scalar(taken.where(InboundSource.id != but) if but else taken) is not None:
        raise Conflict(f"There is already an inbound webhook called {name}.", code="resource_exists")
    return name


def rotate(session: Session, source: InboundSource, *, cipher: Cipher, actor: str) -> None:
    """Another address; the one before stops working at once."""
    token = _new_token()
    source.token, source.token_hash = cipher.encrypt(token), _hash(token)
    audit.record(session, source.workspace_id, "SOURCE_ROTATED", actor=actor, source=source.name)


def switch(session: Session, source: InboundSource, *, on: bool, actor: str) -> None:
    """Switched off, it refuses everything."""
    if source.enabled != on:
        source.enabled = on
        audit.record(session, source.workspace_id, f"SOURCE_{'ON' if on else 'OFF'}", actor=actor, source=source.name)


def delete(session: Session, source: InboundSource, *, actor: str) -> None:
    """The address is gone; leads and quarantined entries stay, but the latter cannot be replayed any more."""
    audit.record(session, source.workspace_id, "SOURCE_DELETED", actor=actor, source=source.name)
    session.delete(source)


def save_mapping(session: Session, source: InboundSource, given: Mapping[str, str], *, actor: str) -> None:
    """Invalid names every bad expression; nothing is changed then."""
    stored = mapping.checked(given)
    if stored == source.mapping:
        return
    before: dict[str, str] = source.mapping
    changed = sorted(name for name in before.keys() | stored.keys() if before.get(name) != stored.get(name))
    source.mapping = stored
    _changed(session, source, actor, "fields", fields=changed)


def save_proof(
    session: Session,
    source: InboundSource,
    how: Verification,
    *,
    secret: str | None,
    header: str,
    prefix: str,
    cipher: Cipher,
    actor: str,
) -> None:
    """How requests prove themselves. ``secret`` None keeps the one that is there; that it fits is the caller's to
    check (``webapp.security.inbound``). ``header``: for BODY the path of the secret in the body."""
    problems = []
    if how is Verification.HMAC and not _HEADER.fullmatch(header):
        problems.append(Problem("header", "must be the name of a header: letters, digits and hyphens"))
    if how is Verification.BODY:
        try:
            compiled(header)
        except BadPath as error:
            problems.append(Problem("header", str(error)))
    if len(prefix) > 40 or not prefix.isprintable():
        problems.append(Problem("prefix", "must have at most 40 printable characters"))
    if problems:
        raise Invalid("The proof cannot be saved.", details=tuple(problems))
    source.verification = how
    if how is Verification.NONE:
        source.secret = None
    elif secret is not None:
        source.secret = cipher.encrypt(secret)
    source.signature_header = header if how in (Verification.HMAC, Verification.BODY) else None
    source.signature_prefix = (prefix or None) if how is Verification.HMAC else None
    _changed(session, source, actor, "proof", verification=how.value)


def save_limits(
    session: Session, source: InboundSource, given: Mapping[str, int | None], *, name: str, actor: str
) -> None:
    """Its name and its own limits: requests a window, a second and a day; None: the settings', 0: none."""
    problems = tuple(
        Problem(field, f"must be a whole number from 0 to {MOST:,}, or empty")
        for field, value in given.items()
        if value is not None and not 0 <= value <= MOST
    )
    if problems:
        raise Invalid("The limits cannot be saved.", details=problems)
    name = _free_name(session, source.workspace_id, name, but=source.id)
    before = {"name": source.name, **{field: getattr(source, field) for field in given}}
    after = {"name": name, **given}
    if before != after:
        for field, value in after.items():
            setattr(source, field, value)
        _changed(session, source, actor, "limits", before=before, after=after)


def _changed(session: Session, source: InboundSource, actor: str, what: str, **details: Any) -> None:
    session.flush()
    audit.record(session, source.workspace_id, "SOURCE_CHANGED", actor=actor, source=source.name, what=what, **details)


def sample_of(entry: Any) -> str:
    """An entry as the text that is kept as sample: ASCII, so that it can be stored whatever it holds."""
    return json.dumps(entry)


def sample(source: InboundSource) -> Any:
    """The last entry that came, parsed; None while there is none."""
    return json.loads(source.last_sample) if source.last_sample else None


def received(session: Session, source_id: uuid.UUID, sample: str) -> None:
    """Remember that something came, and what it was unless it is very long. One short statement: it locks the row."""
    values: dict[str, Any] = {"last_received_at": sa.func.now()}
    if len(sample) <= MAX_SAMPLE:
        values["last_sample"] = sample
    stale = InboundSource.last_received_at < sa.func.now() - _TOUCHED_EVERY
    session.execute(
        sa.update(InboundSource)
        .where(InboundSource.id == source_id, sa.or_(InboundSource.last_received_at.is_(None), stale))
        .values(**values)
        .execution_options(synchronize_session=False)
    )

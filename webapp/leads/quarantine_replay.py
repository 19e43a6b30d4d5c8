"""What people do about quarantined entries: fix them as JSON, replay them through the reader that refused them, discard
them, put them back. Each row is locked for it, so that two clicks never make two leads."""

import json
import uuid
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, hooked, intake, leadgen, listings
from webapp.leads.destinations import Cipher
from webapp.leads.errors import Conflict, Invalid, NotFound, Problem
from webapp.leads.leadgen import Announced
from webapp.leads.quarantine import Bad
from webapp.leads.states import QuarantineState
from webapp.models.base import scoped
from webapp.models.inbound import InboundSource
from webapp.models.lead import Lead, Quarantined

HOOK = "hook"
#: Longest entry that a person may make of one, in characters.
MAX_TEXT = 1 << 20
_NO_LEAD = "there is nothing in it that could be a lead (an echo, say, or a read receipt)"

Seal = Callable[[Any], Any]


class Sealing(Cipher, Protocol):
    """Field encryption of whole payloads too, as ``webapp.security.fields`` has it."""

    def seal(self, payload: Any, *, but: Set[str] = ...) -> Any: ...

    def unseal(self, payload: Any, sealed: Set[str]) -> Any: ...

    def tokens(self, payload: Any) -> frozenset[str]: ...


class Reader(Protocol):
    """Reads an entry of a provider's dialect, as its door would. ValueError for a dialect that it does not know."""

    def __call__(self, dialect: str, raw: Any, *, seal: Seal) -> list[intake.LeadIn | Announced | Bad]: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What a replay needs besides the row."""

    tenant: intake.Tenant
    read: Reader
    cipher: Sealing
    actor: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """``lead_ids``: the leads that the entry is now; ``created``: how many of them are new. ``fetching``: its answers
    are being fetched and become a lead later. ``held``: why it stays in quarantine."""

    lead_ids: tuple[uuid.UUID, ...] = ()
    created: int = 0
    fetching: bool = False
    held: str = ""


def get(session: Session, workspace_id: uuid.UUID, entry_id: uuid.UUID, *, lock: bool = False) -> Quarantined:
    """NotFound outside of the workspace."""
    query = scoped(Quarantined, workspace_id).where(Quarantined.id == entry_id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    found: Quarantined | None = session.scalar(query)
    if found is None:
        raise NotFound("There is no such entry in this workspace's quarantine.")
    return found


def source_of(session: Session, entry: Quarantined) -> InboundSource | None:
    """The inbound webhook by which it came, if it did and that is still there."""
    if entry.dialect != HOOK or entry.source_id is None:
        return None
    found: InboundSource | None = session.scalar(
        scoped(InboundSource, entry.workspace_id).where(InboundSource.id == entry.source_id)
    )
    return found


def leads_of(session: Session, entry: Quarantined) -> list[Lead]:
    """The leads that it has become."""
    ids = [uuid.UUID(one) for one in entry.lead_ids]
    if not ids:
        return []
    query = scoped(Lead, entry.workspace_id).options(sa.orm.defer(Lead.search)).where(Lead.id.in_(ids))
    return list(session.scalars(query.order_by(Lead.created_at)))


def pretty(text: str) -> str:
    """JSON as people read it; what is none stays as it is."""
    try:
        value = json.loads(text)
        shown = json.dumps(value, indent=2, ensure_ascii=False)
        shown.encode()  # a lone surrogate can only be shown escaped
    except UnicodeEncodeError:
        return json.dumps(value, indent=2)
    except (ValueError, RecursionError):
        return text
    return json.dumps(value, indent=2) if "\x00" in shown else shown


def parsed(text: str) -> Any:
    """The value that a person typed. Invalid says at which line and column it is no JSON."""
    if len(text) > MAX_TEXT:
        raise _bad_text(f"must have at most {MAX_TEXT:,} characters")
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise _bad_text(f"is not valid JSON at line {error.lineno}, column {error.colno}: {what}") from None
    except RecursionError:
        raise _bad_text("is nested too deep") from None
    except ValueError as error:
        raise _bad_text(f"is not valid JSON: {str(error)[:200]}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _bad_text(reason: str) -> Invalid:
    return Invalid("The entry cannot be read.", details=(Problem("raw", reason),))


def replay(
    session: Session, workspace_id: uuid.UUID, entry_id: uuid.UUID, tools: Tools, *, text: str | None = None
) -> Replayed:
    """Read it again; the leads and the entry's state are one transaction, the caller's to commit.

    ``text``: the JSON that a person made of it (Invalid with line and column when it is none). An entry that was
    replayed before answers what came of it then. Conflict for a discarded one.
    """
    entry = get(session, workspace_id, entry_id, lock=True)
    if entry.state is QuarantineState.REPLAYED:
        return Replayed(tuple(uuid.UUID(one) for one in entry.lead_ids))
    if entry.state is QuarantineState.DISCARDED:
        raise Conflict(f"{entry.decided_by or 'Somebody'} has discarded this entry; put it back first.")
    if text is not None:
        value = _mend(entry, parsed(text), tools.cipher)
    else:
        value = parsed(entry.fixed or entry.raw)
    try:
        outcome = _read_again(session, entry, tools.cipher.unseal(value, _sealed_here(entry, tools.cipher)), tools)
    except RecursionError:  # while reading: nothing is taken in before all is read
        outcome = Replayed(held="the entry is nested too deep to be read")
    _settle(session, entry, outcome, tools.actor)
    return outcome


def _mend(entry: Quarantined, value: Any, cipher: Sealing) -> Any:
    """Keep what a person made of it, and return it as kept: sealed anew but for what was sealed here before. A sealed
    value of elsewhere that was pasted into it is text like any other, and sealed as such."""
    try:
        value = cipher.seal(value, but=_sealed_here(entry, cipher))
        fixed = json.dumps(value)
    except RecursionError:
        raise _bad_text("is nested too deep") from None
    entry.fixed = None if fixed == entry.raw else fixed
    return value


def _sealed_here(entry: Quarantined, cipher: Sealing) -> Set[str]:
    """What was encrypted when the entry came, or when somebody mended it, and nothing else may be decrypted."""
    found: set[str] = set()
    for text in (entry.raw, entry.fixed):
        with suppress(ValueError, RecursionError):  # raw may be no JSON
            found |= cipher.tokens(json.loads(text or "null"))
    return found


def _read_again(session: Session, entry: Quarantined, value: Any, tools: Tools) -> Replayed:
    if entry.dialect == HOOK:
        return _hook(session, entry, value, tools)
    try:
        found = tools.read(entry.dialect, value, seal=tools.cipher.seal)
    except ValueError:
        return Replayed(held="nothing here can read this kind of entry any more")
    if bad := [one.reason for one in found if isinstance(one, Bad)]:
        return Replayed(held="; ".join(bad))
    signals = [one for one in found if isinstance(one, intake.LeadIn)]
    announced = [one for one in found if isinstance(one, Announced)]
    if not signals and not announced:
        return Replayed(held=_NO_LEAD)
    created = intake.accept_signals(session, tools.tenant, signals) if signals else []
    if announced:
        leadgen.announce(session, entry.workspace_id, announced, again=True)
    return Replayed(_ids_of(session, entry.workspace_id, signals), len(created), bool(announced))


def _hook(session: Session, entry: Quarantined, value: Any, tools: Tools) -> Replayed:
    source = source_of(session, entry)
    if source is None:
        return Replayed(held="the inbound webhook by which it came was deleted, and its mapping with it")
    origin = hooked.Origin(source.id, source.name, source.mapping)
    outcome = hooked.take_in(
        session, tools.tenant, origin, value, seal=tools.cipher.seal, request_id=entry.request_id
    )  # fmt: skip
    if outcome.lead_id is None:
        return Replayed(held=outcome.held)
    return Replayed((outcome.lead_id,), int(outcome.created))


def _ids_of(session: Session, workspace_id: uuid.UUID, signals: list[intake.LeadIn]) -> tuple[uuid.UUID, ...]:
    """The leads of these messages, new or not."""
    keys = {(signal.platform, signal.external_message_id) for signal in signals}
    if not keys:
        return ()
    here = sa.tuple_(Lead.platform, Lead.external_message_id).in_(keys)
    return tuple(session.scalars(sa.select(Lead.id).where(Lead.workspace_id == workspace_id, here)))


def _settle(session: Session, entry: Quarantined, outcome: Replayed, actor: str) -> None:
    if outcome.held:
        entry.reason = outcome.held
        audit.record(
            session, entry.workspace_id, "QUARANTINE_HELD", actor=actor, entry_id=str(entry.id), reason=outcome.held
        )
    else:
        entry.state = QuarantineState.REPLAYED
        entry.lead_ids = [str(one) for one in outcome.lead_ids]
        only = outcome.lead_ids[0] if len(outcome.lead_ids) == 1 else None
        _record(session, entry, "QUARANTINE_REPLAYED", actor, lead_id=only, lead_ids=entry.lead_ids)
    session.flush()


def _record(session: Session, entry: Quarantined, event: str, actor: str, **details: Any) -> None:
    """Who decided what, on the row and in the audit trail; with ``lead_id`` in the lead's own history too."""
    entry.decided_by, entry.decided_at = actor, datetime.now(UTC)
    audit.record(
        session, entry.workspace_id, event, actor=actor, entry_id=str(entry.id), reason=entry.reason, **details
    )


def discard(session: Session, workspace_id: uuid.UUID, entry_id: uuid.UUID, *, actor: str) -> Quarantined:
    """Out of sight, kept, and to be put back at any time. Conflict for one that has been replayed."""
    entry = get(session, workspace_id, entry_id, lock=True)
    if entry.state is QuarantineState.REPLAYED:
        raise Conflict(f"{entry.decided_by or 'Somebody'} has replayed this entry; it is a lead now.")
    if entry.state is QuarantineState.HELD:
        entry.state = QuarantineState.DISCARDED
        _record(session, entry, "QUARANTINE_DISCARDED", actor)
        session.flush()
    return entry


def restore(session: Session, workspace_id: uuid.UUID, entry_id: uuid.UUID, *, actor: str) -> Quarantined:
    """A discarded entry waits again. Conflict for one that has been replayed, or has come again since and is held."""
    entry = get(session, workspace_id, entry_id, lock=True)
    if entry.state is QuarantineState.REPLAYED:
        raise Conflict(f"{entry.decided_by or 'Somebody'} has replayed this entry; it is a lead now.")
    if entry.state is QuarantineState.DISCARDED:
        try:
            with session.begin_nested():
                entry.state = QuarantineState.HELD
        except sa.exc.IntegrityError:  # uq_quarantine_content_hash
            raise Conflict("The same entry has come again since and is held; see to that one.") from None
        _record(session, entry, "QUARANTINE_RESTORED", actor)
        entry.decided_by = entry.decided_at = None
        session.flush()
    return entry


def matching(
    session: Session,
    workspace_id: uuid.UUID,
    *,
    state: QuarantineState,
    dialect: str | None,
    source_id: uuid.UUID | None,
    limit: int,
) -> list[uuid.UUID]:
    """The oldest ``limit`` entries of a filter, for doing something about all of them."""
    where = [Quarantined.workspace_id == workspace_id, *listings.of_quarantine(state, dialect, source_id)]
    query = sa.select(Quarantined.id).where(*where).order_by(Quarantined.created_at, Quarantined.id).limit(limit)
    return list(session.scalars(query))

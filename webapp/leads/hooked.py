"""One entry at an inbound webhook: read by the webhook's mapping, and taken in as a lead or kept in quarantine.

The door and a replay from quarantine both come here, so that they can not differ.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from sqlalchemy.orm import Session

from webapp.leads import intake, intake_bulk, intake_sql, mapping
from webapp.leads.errors import Conflict, Invalid, Transient
from webapp.leads.intake_sql import Database
from webapp.leads.states import Door

Seal = Callable[[Any], Any]
OTHER_WORDS = "its id came before with other words; is the path of the sender’s own id really unique?"
_OURS = "it could not be taken in because of an error of ours"
#: Looks at an array before its sender is asked to come again; each time somebody else has used one of its keys since.
_ATTEMPTS = 10
NO_MAPPING = "no mapping yet: nobody has said which value is the e-mail, which the message"


@dataclass(frozen=True, slots=True)
class Origin:
    """What reading an entry has to know of its inbound webhook."""

    id: uuid.UUID
    name: str
    mapping: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """``lead_id`` with ``created`` False: the lead was here already. ``held``: why there is none."""

    lead_id: uuid.UUID | None = None
    created: bool = False
    held: str = ""


@dataclass(slots=True)
class _Read:
    """What the mapping made of one entry of many. ``row``: for ``intake_bulk``; ``key``: the sender's id for it."""

    row: intake_bulk.Row
    key: intake.Key | None
    outcome: Outcome | None = None


def take_in_all(
    session: Session,
    tenant: intake.Tenant,
    origin: Origin,
    entries: Sequence[Any],
    *,
    seal: Seal,
    request_ids: Sequence[str | None],
) -> list[Outcome]:
    """:func:`take_in` of many in the session's transaction, by a few statements for all. The caller commits. Transient
    when others kept taking the same ones in."""
    if not origin.mapping:
        return [Outcome(held=NO_MAPPING)] * len(entries)
    found = [
        _read(tenant, origin, entry, seal, request_id)
        for entry, request_id in zip(entries, request_ids, strict=True)
    ]  # fmt: skip
    read = [one for one in found if isinstance(one, _Read)]
    for _ in range(_ATTEMPTS):
        try:
            with session.begin_nested():
                _take_in_keyed(session, tenant, read)
            break
        except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
            continue  # somebody else used one of the keys meanwhile
    else:
        raise Transient("these leads are being taken in by several requests at once; send them again", retry_after=1)
    return [one.outcome or Outcome() if isinstance(one, _Read) else one for one in found]


def _read(tenant: intake.Tenant, origin: Origin, entry: Any, seal: Seal, request_id: str | None) -> "_Read | Outcome":
    reading = mapping.read(
        origin.mapping, entry, source=origin.name, source_id=origin.id, seal=seal, request_id=request_id
    )
    if reading.lead is None:
        return Outcome(held=reading.refused)
    try:
        return _Read(intake_bulk.prepare(tenant, reading.lead, key=reading.key), reading.key)
    except Invalid as error:
        return Outcome(held=_said(error))


def _take_in_keyed(session: Session, tenant: intake.Tenant, read: list[_Read]) -> None:
    """Fill in the outcomes. Of several with one key the first is taken in, as in requests one after another."""
    keys = sorted({one.key.value for one in read if one.key})
    stored = intake_sql.stored_keys(session, tenant.id, Door.HOOK, keys) if keys else {}
    first: dict[str, _Read] = {}
    again: list[_Read] = []
    new: list[_Read] = []
    for one in read:
        if one.key and (earlier := stored.get(one.key.value)):
            same = earlier.request_hash == one.key.request_hash
            one.outcome = Outcome(earlier.lead_id) if same else Outcome(held=OTHER_WORDS)
        elif one.key and one.key.value in first:
            again.append(one)
        else:
            new.append(one)
            if one.key:
                first[one.key.value] = one
    taken = intake_bulk.accept_each(session, tenant, [one.row for one in new])
    for one, what in zip(new, taken, strict=True):
        one.outcome = (
            Outcome(what.lead_id, what.outcome is intake_bulk.Outcome.CREATED) if what else Outcome(held=_OURS)
        )
    for one in again:
        assert one.key
        before = first[one.key.value]
        assert before.key and before.outcome
        same = before.key.request_hash == one.key.request_hash
        one.outcome = replace(before.outcome, created=False) if same else Outcome(held=OTHER_WORDS)
    used = [
        (key, one.key.request_hash, one.outcome.lead_id)
        for key, one in first.items()
        if one.key and one.outcome and one.outcome.lead_id
    ]
    if used:
        intake_sql.store_keys(session, tenant.id, Door.HOOK, used, tenant.idempotency_days)


def take_in(
    database: Database, tenant: intake.Tenant, origin: Origin, entry: Any, *, seal: Seal, request_id: str | None = None
) -> Outcome:  # fmt: skip
    """The entry's lead, or why there is none. With an engine each lead is a transaction of its own."""
    if not origin.mapping:
        return Outcome(held=NO_MAPPING)
    reading = mapping.read(
        origin.mapping, entry, source=origin.name, source_id=origin.id, seal=seal, request_id=request_id
    )
    if reading.lead is None:
        return Outcome(held=reading.refused)
    try:
        received = intake.accept(database, tenant, reading.lead, key=reading.key)
    except Conflict:
        return Outcome(held=OTHER_WORDS)
    except Invalid as error:
        return Outcome(held=_said(error))
    return Outcome(received.lead_id, received.created)


def _said(error: Invalid) -> str:
    return "; ".join(f"{p.field} {p.reason}" for p in error.details) or error.message

"""Quarantine: what a provider sent and nobody could digest, kept raw with the reason, so that nothing is lost.

The same entry again, a provider's retry, is counted on the one that is held. Once somebody has decided about that one,
it is held anew.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads.states import Door
from webapp.models.base import new_id
from webapp.models.lead import Quarantined

#: Entries of one statement: a provider's body may hold a hundred thousand, and parameters are limited.
_AT_ONCE = 1_000
#: Stands for an entry that cannot even be written down again.
_TOO_DEEP = "an entry that was nested too deep to be kept"


@dataclass(frozen=True, slots=True)
class Bad:
    """An entry that cannot be digested: why, in words for people, and what it was (JSON, sensitive values sealed).
    ``raw`` holds all that its reader needs to read it again once it is fixed. ``identity``: what the same entry has
    again, if ``raw`` has not, because each sealing differs. ``request_id``: an id that the request itself carried."""

    reason: str
    raw: Any
    identity: str = ""
    request_id: str | None = None


def quarantine(
    session: Session,
    workspace_id: uuid.UUID,
    door: Door,
    dialect: str,
    bad: Bad,
    source_id: uuid.UUID | None = None,
) -> Quarantined:
    """Keep an entry, or count it on the one that is held. ``dialect``: which reader a replay takes. ``source_id``: what
    it came by: the inbound webhook of a ``hook``, the fetch of a ``leadgen``."""
    return quarantine_all(session, workspace_id, door, dialect, [bad], source_id)[0]


def quarantine_all(
    session: Session,
    workspace_id: uuid.UUID,
    door: Door,
    dialect: str,
    entries: Sequence[Bad],
    source_id: uuid.UUID | None = None,
) -> list[Quarantined]:
    """:func:`quarantine` of many; what is the same is one row."""
    rows: dict[str, dict[str, Any]] = {}
    for bad in entries:
        raw = _written(bad.raw)
        about = [str(workspace_id), dialect, str(source_id), bad.request_id, bad.identity or raw]
        same = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        if same in rows:
            rows[same]["times"] += 1
            continue
        rows[same] = {
            "id": new_id(),
            "workspace_id": workspace_id,
            "door": door,
            "dialect": dialect,
            "source_id": source_id,
            "reason": bad.reason,
            "raw": raw,
            "content_hash": same,
            "times": 1,
            "request_id": bad.request_id,
        }
    ordered = [rows[same] for same in sorted(rows)]  # no deadlocks
    kept = [
        row for start in range(0, len(ordered), _AT_ONCE) for row in _keep(session, ordered[start : start + _AT_ONCE])
    ]
    place = {same: n for n, same in enumerate(rows)}
    return sorted(kept, key=lambda row: place[row.content_hash or ""])


def _keep(session: Session, rows: list[dict[str, Any]]) -> Sequence[Quarantined]:
    statement = insert(Quarantined).values(rows)
    new = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=[Quarantined.content_hash],
        index_where=sa.text("state = 'held'"),
        set_={
            "times": Quarantined.times + new.times,
            "last_at": sa.func.now(),
            "reason": sa.case((Quarantined.fixed.is_(None), new.reason), else_=Quarantined.reason),
        },
    )
    return session.scalars(statement.returning(Quarantined), execution_options={"populate_existing": True}).all()


def _written(raw: Any) -> str:
    """ASCII JSON: whatever the entry holds, it can be stored."""
    try:
        return json.dumps(raw)
    except RecursionError:
        return json.dumps(_TOO_DEEP)

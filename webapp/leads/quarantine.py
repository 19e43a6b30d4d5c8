"""Quarantine: what a provider sent and nobody could digest, kept raw with the reason, so that nothing is lost."""

import json
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from webapp.leads.states import Door
from webapp.models.lead import Quarantined

#: Stands for an entry that cannot even be written down again.
_TOO_DEEP = "an entry that was nested too deep to be kept"


@dataclass(frozen=True, slots=True)
class Bad:
    """An entry that cannot be digested: why, in words for people, and what it was (JSON, sensitive values sealed).
    ``raw`` holds all that its reader needs to read it again once it is fixed."""

    reason: str
    raw: Any


def quarantine(
    session: Session,
    workspace_id: uuid.UUID,
    door: Door,
    dialect: str,
    bad: Bad,
    source_id: uuid.UUID | None = None,
) -> Quarantined:
    """Keep an entry. ``dialect``: which reader a replay takes. ``source_id``: what it came by: the inbound webhook of
    a ``hook``, the fetch of a ``leadgen``."""
    try:
        raw = json.dumps(bad.raw)  # ASCII: whatever the entry holds, it can be stored
    except RecursionError:
        raw = json.dumps(_TOO_DEEP)
    kept = Quarantined(
        workspace_id=workspace_id, door=door, dialect=dialect, reason=bad.reason, raw=raw, source_id=source_id
    )
    session.add(kept)
    return kept

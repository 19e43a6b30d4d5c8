"""Why somebody has a lead and others have not, as the route stage or the backlog recorded it last."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from webapp.models.lead import AuditEvent
from webapp.models.work import Run


@dataclass(frozen=True, slots=True)
class Routed:
    """``mine``: why whoever looks did not get it, in words; empty when they did, or were no candidate."""

    at: datetime
    notes: list[str]
    rules: list[dict[str, Any]]
    candidates: list[dict[str, Any]]
    mine: str


def of(runs: Sequence[Run], events: Sequence[AuditEvent], me: uuid.UUID) -> Routed | None:
    """From ``runs`` (newest first) and ``events``; None when nobody has looked for somebody yet."""
    found: list[tuple[datetime, Any]] = [
        (run.finished_at or run.created_at, stage.get("evidence"))
        for run in runs
        for stage in run.stages or ()
        if stage.get("name") == "route" and isinstance(stage.get("evidence"), dict)
    ]
    found += [
        (event.created_at, event.details.get("evidence"))
        for event in events
        if event.event_type == "LEAD_ROUTED" and isinstance(event.details.get("evidence"), dict)
    ]
    if not found:
        return None
    at, said = max(found, key=lambda one: one[0])
    candidates = list(said.get("candidates") or ())
    mine = next((one["why"] for one in candidates if one.get("user_id") == str(me) and not one.get("chosen")), "")
    return Routed(at, list(said.get("notes") or ()), list(said.get("rules") or ()), candidates, mine)

"""Which runs: the filter of the list of runs, read from query parameters, and what it means in SQL."""

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from webapp.leads import query_values
from webapp.leads.counts import unrepaired
from webapp.leads.errors import Invalid, Problem
from webapp.leads.states import RunStatus, RunTrigger
from webapp.models.work import Run

STAGES = ("enrich", "classify", "score", "route")
#: Instead of a status: failed, and no later run of the lead has repaired it.
UNREPAIRED = "unrepaired"


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs; None narrows nothing. ``stage``: went on with less there, or failed there; ``since``: asked for at or after;
    ``slower``: took longer than so many seconds from start to end (until now for one under way)."""

    status: RunStatus | None = None
    unrepaired: bool = False
    trigger: RunTrigger | None = None
    stage: str | None = None
    source: str | None = None
    since: datetime | None = None
    slower: float | None = None
    text: str = ""
    lead_id: uuid.UUID | None = None
    rerun_id: uuid.UUID | None = None

    @property
    def narrowed(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> "RunFilter":
        """From query parameters (``status, trigger, stage, source, since, slower, q, lead, rerun``); ``since`` is
        ``12h``, ``7d`` or a date. Invalid names every parameter that is not understood."""
        said = {name: str(given.get(name) or "").strip() for name in PARAMETERS}
        problems: list[Problem] = []
        text, lead_id = query_values.text(said["q"]), said["lead"]
        if not lead_id and query_values.is_id(text):
            text, lead_id = "", text
        found = cls(
            status=query_values.member(RunStatus, said["status"], "status", problems)
            if said["status"] != UNREPAIRED
            else None,
            unrepaired=said["status"] == UNREPAIRED,
            trigger=query_values.member(RunTrigger, said["trigger"], "trigger", problems),
            stage=_stage(said["stage"], problems),
            source=said["source"] or None,
            since=query_values.since(said["since"], problems),
            slower=_seconds(said["slower"], problems),
            text=text,
            lead_id=query_values.identifier(lead_id, "lead", problems),
            rerun_id=query_values.identifier(said["rerun"], "rerun", problems),
        )
        if problems:
            raise Invalid("some filters are not understood", details=tuple(problems))
        return found


#: Query parameters that make up the filter.
PARAMETERS = ("status", "trigger", "stage", "source", "since", "slower", "q", "lead", "rerun")


def _stage(value: str, problems: list[Problem]) -> str | None:
    if value and value not in STAGES:
        problems.append(Problem("stage", f"must be one of {', '.join(STAGES)}"))
        return None
    return value or None


def _seconds(value: str, problems: list[Problem]) -> float | None:
    try:
        found = float(value) if value else None
    except ValueError:
        found = math.nan
    if found is not None and not 0 <= found <= 86_400:  # refuses NaN as well
        problems.append(Problem("slower", "must be a number of seconds"))
        return None
    return found or None


def conditions(workspace_id: uuid.UUID, wanted: RunFilter) -> list[Any]:
    """For statements on ``runs``."""
    found = unrepaired(workspace_id) if wanted.unrepaired else [Run.workspace_id == workspace_id]
    if wanted.status:
        found.append(Run.status == sa.literal(wanted.status, Run.status.type, literal_execute=True))
    if wanted.trigger:
        found.append(Run.trigger == wanted.trigger)
    if wanted.stage:
        # Spelt as the indexes ix_runs_degraded and ix_runs_failed spell it.
        less = sa.and_(sa.text("runs.degraded <> '{}'"), Run.degraded.contains([wanted.stage]))
        found.append(sa.or_(less, sa.and_(sa.text("runs.status = 'failed'"), Run.stage == wanted.stage)))
    if wanted.source:
        found.append(Run.source == wanted.source)
    if wanted.since:
        found.append(Run.created_at >= wanted.since)
    if wanted.slower:
        took = sa.func.coalesce(Run.finished_at, sa.func.now()) - Run.started_at
        found.append(took > timedelta(seconds=wanted.slower))
    if wanted.lead_id:
        found.append(Run.lead_id == wanted.lead_id)
    if wanted.rerun_id:
        found.append(Run.rerun_id == wanted.rerun_id)
    if wanted.text:
        found.append(query_values.of_leads(Run.lead_id, workspace_id, wanted.text))
    return found

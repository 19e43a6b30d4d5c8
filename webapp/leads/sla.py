"""By when a person should have decided: a target per priority, in the workspace's working hours.

``leads.sla_due_at`` is set at intake, by the priority that the rules found, and again by a run that finds another. It is
told for every lead and means something for those that wait. Changed hours or targets are applied to what waits by the
clock (:func:`refresh`); what has been decided keeps the time that it was decided by.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, hours, workspaces
from webapp.leads.errors import Invalid, Problem
from webapp.leads.filters import of_statuses
from webapp.leads.hours import ALWAYS, Calendar
from webapp.leads.states import WAITING_STATUSES, Priority
from webapp.models.account import Workspace
from webapp.models.lead import Lead

#: Minutes of working time until the first decision is due: now, today, this week, and whenever (docs/taxonomy.md).
TARGETS: dict[Priority, int | None] = {Priority.P0: 15, Priority.P1: 240, Priority.P2: 1_440, Priority.P3: None}
MAX_MINUTES = 60 * 24 * 90
#: Leads that one statement of :func:`refresh` looks at.
REFRESH_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Sla:
    """A workspace's targets in minutes (None: no target) and the calendar that they are counted in."""

    calendar: Calendar = ALWAYS
    minutes: Mapping[Priority, int | None] = field(default_factory=lambda: TARGETS)

    def due(self, priority: Priority, since: datetime) -> datetime | None:
        """When the first decision is due on what came at ``since``; None without a target, or without working hours
        to meet it in."""
        target = self.minutes[priority]
        return None if target is None else hours.add(self.calendar, since, target * 60)


DEFAULT = Sla()


@lru_cache(maxsize=1024)
def read_text(calendar: str | None, targets: str | None) -> Sla:
    """From ``Workspace.settings``: ``hours`` and ``sla`` as JSON text, remembered. What cannot be read counts as not
    set, so that no lead is lost to it."""
    found = dict(TARGETS)
    try:
        for name, minutes in (json.loads(targets) if targets else {}).items():
            found[Priority(name)] = None if minutes is None else int(minutes)
    except (ValueError, TypeError, AttributeError):
        found = dict(TARGETS)
    return Sla(hours.read_text(calendar) or ALWAYS, found)


def of_settings(settings: Mapping[str, Any]) -> Sla:
    """Of ``Workspace.settings``."""
    calendar, targets = settings.get("hours"), settings.get("sla")
    return read_text(json.dumps(calendar) if calendar else None, json.dumps(targets) if targets else None)


def targets_from(given: Mapping[str, str]) -> dict[str, int | None]:
    """As a form gives them: ``15 min``, ``4 h``, plain minutes; empty: no target. Invalid names each that is none."""
    found: dict[str, int | None] = {}
    problems = []
    for priority in Priority:
        said = given.get(priority.value, "").strip().lower()
        try:
            found[priority.value] = minutes_of(said) if said else None
        except ValueError:
            problems.append(Problem(priority.value, "must be a time such as 15 min, 4 h or 2.5 h, up to 90 days"))
    if problems:
        raise Invalid("The targets are not understood.", details=tuple(problems))
    return found


_UNITS = {"": 1, "m": 1, "min": 1, "minute": 1, "minutes": 1, "h": 60, "hour": 60, "hours": 60}


def minutes_of(said: str) -> int:
    """``15``, ``15 min``, ``4 h``, ``2.5 hours`` → minutes. ValueError for anything else."""
    number = said.rstrip("abcdefghijklmnopqrstuvwxyz. ")
    unit = said[len(number) :].strip()
    if unit not in _UNITS:
        raise ValueError(said)
    number_of_minutes = float(number) * _UNITS[unit]
    if not 1 <= number_of_minutes <= MAX_MINUTES:  # also refuses NaN
        raise ValueError(said)
    return round(number_of_minutes)


def save(
    session: Session, workspace_id: uuid.UUID, *, calendar: Calendar, targets: Mapping[str, int | None], actor: str
) -> None:
    """Set both; what waits is told its new time by the clock's next :func:`refresh`. The caller commits."""
    workspace = workspaces.locked(session, workspace_id)
    new = {"hours": calendar.as_json(), "sla": dict(targets)}
    before = {name: workspace.settings.get(name) for name in new}
    if before == new:
        return
    workspace.settings = workspace.settings | new | {"sla_refresh": str(uuid.UUID(int=0))}
    audit.record(session, workspace_id, "HOURS_CHANGED", actor=actor, before=before, after=new)
    session.flush()


def refresh(session: Session, *, limit: int = REFRESH_ROWS) -> int:
    """Tell waiting leads of workspaces whose hours or targets have changed when they are due now. Returns how many were
    looked at. Safe with any number of clocks: a workspace is one's at a time. The caller commits."""
    marked = sa.select(Workspace).where(Workspace.settings.has_key("sla_refresh")).order_by(Workspace.id).limit(1)
    taken = marked.with_for_update(skip_locked=True, key_share=True).execution_options(populate_existing=True)
    workspace = session.scalar(taken)
    if workspace is None:
        return 0
    sla = of_settings(workspace.settings)
    after = uuid.UUID(str(workspace.settings["sla_refresh"]))
    rows = session.execute(
        sa.select(Lead.id, Lead.priority, sa.func.coalesce(Lead.sla_since, Lead.created_at), Lead.sla_due_at)
        .where(Lead.workspace_id == workspace.id, *of_statuses(WAITING_STATUSES), Lead.id > after)
        .order_by(Lead.id)
        .limit(limit)
        # By id, as runs are settled: a priority that one of them is about to change is waited for.
        .with_for_update(key_share=True, of=Lead)
    ).all()
    changed = [
        {"b_id": row.id, "b_due": due} for row in rows if (due := sla.due(row.priority, row[2])) != row.sla_due_at
    ]
    if changed:
        table: Any = Lead.__table__
        statement = sa.update(table).where(table.c.id == sa.bindparam("b_id"))
        session.connection().execute(statement.values(sla_due_at=sa.bindparam("b_due")), changed)
    if len(rows) < limit:
        workspace.settings = {name: value for name, value in workspace.settings.items() if name != "sla_refresh"}
    else:
        workspace.settings = workspace.settings | {"sla_refresh": str(rows[-1].id)}
    session.flush()
    return len(rows)

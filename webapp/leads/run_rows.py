"""The statements that settle a batch of runs, and the rows they take: one JSON document each.

``jsonb_to_recordset`` lets a batch be one parameter of one statement.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from webapp.leads import audit, knowledge
from webapp.leads.run_stages import Outcome, Standing, parts_json
from webapp.leads.stages.score import loses_a_point_after
from webapp.leads.states import LeadStatus, RunTrigger
from webapp.leads.suppression_match import Entry
from webapp.leads.types import best
from webapp.models.base import new_id


@dataclass(frozen=True, slots=True)
class Settled:
    """An outcome beside what stood and what stands now, both read under the lead's lock."""

    outcome: Outcome
    before: Standing
    after: Standing
    assignment_reason: str | None
    suppressed: Entry | None = None

    @property
    def first(self) -> bool:
        return not self.before.settled

    @property
    def routed(self) -> bool:
        """Nobody had it before the run."""
        return self.before.assignee_id is None

    @property
    def turn(self) -> tuple[uuid.UUID, uuid.UUID] | None:
        """(team, member) when a team gave the lead to a member whose turn matters. It does in what is assigned under the
        workspace's lock; elsewhere workers would wait for one another's rows."""
        assignment = self.outcome.assignment
        if not self.routed or not assignment.exact or not assignment.team_id or not assignment.user_id:
            return None
        return uuid.UUID(assignment.team_id), uuid.UUID(assignment.user_id)

    @property
    def due(self) -> tuple[bool, datetime | None, datetime | None]:
        """(whether the first decision is due anew, when, since when if not since its arrival). It is with the first run
        and with another priority; the time then runs from the lead's arrival, unless it begins to matter only now: the
        author has written again, or the machine is no longer sure of it."""
        before, after, item = self.before, self.after, self.outcome.item
        unsure = before.settled and before.status is LeadStatus.NEW_AUTO and after.status is not LeadStatus.NEW_AUTO
        if before.decided or not (self.first or unsure or before.priority is not after.priority):
            return False, None, None
        again = self.outcome.raised and item.trigger is RunTrigger.TOUCH
        since = datetime.now(UTC) if unsure or again or item.created_at is None else item.created_at
        return True, item.rules.sla.due(after.priority, since), since if unsure or again else None


_LEADS = """
UPDATE leads AS l
SET status = v.status, intent = v.intent, priority = v.priority, next_action = v.next_action,
    confidence = v.confidence, verdict = coalesce(v.verdict, l.verdict), score = v.score,
    score_parts = v.score_parts, qualified = v.qualified,
    rescore_at = l.last_contact_at + make_interval(secs => v.rescore_after), version = v.version,
    assignee_id = v.assignee_id, facts = coalesce(v.facts, l.facts), suppression_id = v.suppression_id,
    assignment_reason = coalesce(v.assignment_reason, l.assignment_reason),
    team_id = CASE WHEN v.routed THEN v.team_id ELSE l.team_id END,
    route_state = CASE WHEN v.routed THEN v.route_state ELSE l.route_state END,
    route_reason = CASE WHEN v.routed THEN v.route_reason ELSE l.route_reason END,
    sla_due_at = CASE WHEN v.due_anew THEN v.sla_due_at ELSE l.sla_due_at END,
    sla_since = CASE WHEN v.due_anew THEN v.sla_since ELSE l.sla_since END,
    settled_at = coalesce(l.settled_at, now()), updated_at = now()
FROM jsonb_to_recordset(%(rows)s::jsonb) AS v(
  id uuid, was int, status text, intent text, priority text, next_action text, confidence double precision,
  verdict jsonb, score int, score_parts jsonb, qualified boolean, rescore_after double precision, version int,
  assignee_id uuid, assignment_reason text, facts jsonb, routed boolean, team_id uuid, route_state text,
  route_reason text, due_anew boolean, sla_due_at timestamptz, sla_since timestamptz, suppression_id uuid)
WHERE l.id = v.id AND l.version = v.was
  AND (l.status = v.status OR l.status IN ('new_auto', 'new_draft', 'new_escalate'))
"""
_RUNS = """
UPDATE runs AS r
SET status = 'success', result_json = v.result, stages = v.stages, degraded = v.degraded, stage = NULL, error = NULL,
    finished_at = now(), lease_until = NULL
FROM jsonb_to_recordset(%(rows)s::jsonb) AS v(id uuid, attempt int, result jsonb, stages jsonb, degraded text[])
WHERE r.id = v.id AND r.attempt = v.attempt AND r.status = 'running'
"""
_EVENTS = """
INSERT INTO audit_events (id, workspace_id, lead_id, event_type, actor, details)
SELECT id, workspace_id, lead_id, event_type, actor, details FROM jsonb_to_recordset(%(rows)s::jsonb)
  AS v(id uuid, workspace_id uuid, lead_id uuid, event_type text, actor text, details jsonb)
"""


#: Columns of a lead's row that count where its flag says so.
_SAID_ONCE = {
    "routed": ("team_id", "route_state", "route_reason"),
    "due_anew": ("sla_due_at", "sla_since"),
}


def write(session: Session, settled: Sequence[Settled]) -> None:
    runs: list[dict[str, Any]] = []
    leads: dict[uuid.UUID, dict[str, Any]] = {}
    events: list[dict[str, Any]] = []
    for one in settled:
        result = _result(one)
        runs.append(
            {
                "id": str(one.outcome.item.run_id),
                "attempt": one.outcome.item.attempt,
                "result": result,
                "stages": one.outcome.stages,
                "degraded": result["degraded"],
            }
        )
        row = _lead_row(one)
        earlier = leads.get(one.outcome.item.lead_id)
        leads[one.outcome.item.lead_id] = _together(earlier, row) if earlier else row
        events.extend(_events(one, result))
    connection = session.connection()
    connection.exec_driver_sql(_LEADS, {"rows": json.dumps(list(leads.values()))})
    connection.exec_driver_sql(_RUNS, {"rows": json.dumps(runs)})
    connection.exec_driver_sql(_EVENTS, {"rows": json.dumps(events)})


def _together(earlier: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The row of a lead that two runs of the batch have settled: the last word counts, and what only the earlier one has
    said stays."""
    kept = {"was": earlier["was"]}
    kept |= {name: earlier[name] for name in ("assignment_reason", "facts") if row[name] is None}
    for said, columns in _SAID_ONCE.items():
        if earlier[said] and not row[said]:
            kept |= {name: earlier[name] for name in (said, *columns)}
    return row | kept


def _verdict_columns(standing: Standing) -> dict[str, Any]:
    return {
        "status": standing.status.value,
        "intent": standing.intent.value,
        "priority": standing.priority.value,
        "next_action": standing.next_action.value,
        "confidence": standing.confidence,
    }


def _lead_row(one: Settled) -> dict[str, Any]:
    outcome, after, assignment = one.outcome, one.after, one.outcome.assignment
    anew, due, since = one.due
    return _verdict_columns(after) | {
        "id": str(outcome.item.lead_id),
        "was": one.before.version,
        "version": after.version,
        "verdict": None if outcome.verdict == outcome.item.machine else outcome.verdict.as_json(),
        "score": outcome.score.total,
        "score_parts": parts_json(outcome.score),
        "qualified": outcome.qualified,
        "rescore_after": days * 86_400 if (days := loses_a_point_after(outcome.score.parts)) is not None else None,
        "assignee_id": str(after.assignee_id) if after.assignee_id else None,
        "assignment_reason": one.assignment_reason,
        "routed": one.routed,
        "team_id": assignment.team_id,
        "route_state": assignment.state.value if assignment.state else None,
        "route_reason": assignment.reason if assignment.state else None,
        "due_anew": anew,
        "sla_due_at": due.isoformat() if due else None,
        "sla_since": since.isoformat() if since else None,
        "facts": knowledge.stored(outcome.learned),
        "suppression_id": str(one.suppressed.id) if one.suppressed else None,
    }


def _result(one: Settled) -> dict[str, Any]:
    """``runs.result_json``: what stands after the run, and what the machine found where a person has
    decided."""
    outcome = one.outcome
    result = _verdict_columns(one.after) | {
        "version": one.after.version,
        "score": outcome.score.total,
        "qualified": outcome.qualified,
        "assignee_id": str(one.after.assignee_id) if one.after.assignee_id else None,
        "facts": {name: fact.value for name, fact in best(outcome.learned).items()},
        "degraded": [stage["name"] for stage in outcome.degraded],
        "changed": one.before.version != one.after.version,
    }
    if one.suppressed:
        result["suppressed"] = one.suppressed.kind.value
    if one.before.decided:
        found = outcome.verdict
        result["machine"] = {
            "status": outcome.status.value,
            "intent": found.intent.value,
            "priority": found.priority.value,
            "confidence": found.confidence,
        }
    return result


def _events(one: Settled, result: dict[str, Any]) -> list[dict[str, Any]]:
    item = one.outcome.item
    about = {"workspace_id": str(item.workspace_id), "lead_id": str(item.lead_id), "actor": audit.SYSTEM}
    details = {key: value for key, value in result.items() if key not in ("facts", "degraded", "changed")}
    details |= {"run_id": str(item.run_id), "attempt": item.attempt}
    if one.before.version != one.after.version:
        before = _verdict_columns(one.before)
        details["before"] = {key: before[key] for key in ("status", "intent", "priority")}
    events = [about | {"id": str(new_id()), "event_type": "RUN_SUCCEEDED", "details": details}]
    moved = one.before.version != one.after.version or one.before.decided
    if one.outcome.raised and item.trigger is RunTrigger.TOUCH and moved:
        found = one.outcome.verdict
        about_it: dict[str, Any] = {"run_id": str(item.run_id), "decided": one.before.decided}
        about_it |= {"intent": found.intent.value, "priority": found.priority.value}
        events.append(about | {"id": str(new_id()), "event_type": "LEAD_RAISED", "details": about_it})
    for stage in one.outcome.degraded:
        said = {"run_id": str(item.run_id), "stage": stage["name"], "error": stage["error"]}
        events.append(about | {"id": str(new_id()), "event_type": "STAGE_DEGRADED", "details": said})
    return events

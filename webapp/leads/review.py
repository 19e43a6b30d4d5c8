"""Review: what people decide about leads. A decision is never overwritten by a machine, and can be taken back.

Everything here flushes and leaves the commit to its caller, who then rings for the deliveries.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, deliver, vocabulary
from webapp.leads.errors import Conflict, Invalid, NotFound, Problem
from webapp.leads.states import (
    DECIDED_STATUSES,
    STATUS_AFTER,
    DecisionAction,
    DeliveryState,
    Intent,
    LeadStatus,
    NextAction,
    Priority,
    RejectReason,
    next_action_for,
)
from webapp.models.account import Membership, User
from webapp.models.base import interval
from webapp.models.lead import Decision, Lead, Presence
from webapp.models.work import Delivery

#: A heartbeat older than this means that the page was closed.
PRESENT_SECONDS = 45
MAX_REASON = 2_000

_DONE = {LeadStatus.APPROVED: "approved", LeadStatus.OVERRIDDEN: "overrode", LeadStatus.REJECTED: "rejected"}
_KEPT = ("status", "intent", "priority", "next_action", "confidence")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a user, or a program by its key's name (``user_id`` None)."""

    name: str
    user_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Present:
    """Someone who has the lead open, since when."""

    name: str
    user_id: uuid.UUID
    since: datetime


def decide(
    session: Session,
    workspace_id: uuid.UUID,
    lead_id: uuid.UUID,
    *,
    action: DecisionAction,
    version: int,
    actor: Actor,
    undo_seconds: int,
    intent: Intent | None = None,
    priority: Priority | None = None,
    reject_reason: RejectReason | None = None,
    reason: str | None = None,
) -> Decision:
    """Approve, override or reject the lead as it stood at ``version``.

    NotFound; Invalid when the action lacks what it needs; Conflict, with who did what when, for another version.
    Deciding a decided lead anew is legal (a person may change their mind, or a colleague's, knowingly).
    """
    lead = _locked(session, workspace_id, lead_id)
    if lead.version != version:
        raise _stale(session, lead)
    _check(action, lead, intent, priority, reject_reason, reason)
    before = _snapshot(lead)
    lead.status = STATUS_AFTER[action]
    if action is DecisionAction.OVERRIDE:
        lead.intent = intent or lead.intent
        lead.priority = priority or lead.priority
        lead.next_action = next_action_for(lead.intent, lead.priority)
    # The transaction's own time, by which the deliveries are due as well: what can be undone has not gone out.
    now = session.scalars(sa.select(sa.func.now())).one()
    lead.decided_at, lead.decided_by = now, actor.name
    _changed(lead)
    decision = Decision(
        workspace_id=workspace_id,
        lead_id=lead.id,
        user_id=actor.user_id,
        actor=actor.name,
        action=action,
        before=before,
        after=_snapshot(lead),
        reject_reason=reject_reason if action is DecisionAction.REJECT else None,
        reason=reason or None,
        undo_until=now + timedelta(seconds=undo_seconds),
    )
    session.add(decision)
    session.flush()
    deliver.cancel(session, lead.id, reason=f"{actor.name} {_DONE[lead.status]} the lead")
    # A rejection as well: a destination may want to be told of it.
    deliver.plan(session, lead, decision_id=decision.id, due_in_seconds=undo_seconds)
    deliver.withdraw(
        session,
        lead,
        reason=f"{actor.name} {_DONE[lead.status]} the lead",
        due_in_seconds=undo_seconds,
        decision_id=decision.id,
        actor=actor.name,
    )
    audit.record(
        session,
        workspace_id,
        f"LEAD_{lead.status.value.upper()}",
        actor=actor.name,
        lead_id=lead.id,
        before=before,
        after=_snapshot(lead),
        reject_reason=decision.reject_reason.value if decision.reject_reason else None,
        reason=decision.reason,
    )
    session.flush()
    return decision


def _check(
    action: DecisionAction,
    lead: Lead,
    intent: Intent | None,
    priority: Priority | None,
    reject_reason: RejectReason | None,
    reason: str | None,
) -> None:
    problems = []
    if action is DecisionAction.OVERRIDE:
        if intent is None and priority is None:
            problems.append(Problem("intent", "an override names another intent or priority"))
        elif (intent or lead.intent) == lead.intent and (priority or lead.priority) == lead.priority:
            problems.append(Problem("intent", "that is the verdict already: approve it, or choose another"))
    elif intent is not None or priority is not None:
        problems.append(Problem("intent", f"only an override changes the verdict, not '{action.value}'"))
    if action is DecisionAction.REJECT:
        if reject_reason is None:
            problems.append(Problem("reason", "a rejection needs one of: " + ", ".join(RejectReason)))
        elif reject_reason is RejectReason.OTHER and not (reason or "").strip():
            problems.append(Problem("reason", "'other' needs a few words"))
    if reason and len(reason) > MAX_REASON:
        problems.append(Problem("reason", f"must have at most {MAX_REASON:,} characters"))
    if problems:
        raise Invalid("the decision is not complete", details=tuple(problems))


def undo(session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID, *, actor: Actor, hold_seconds: float) -> Lead:
    """Take the last decision back while nothing of it has gone out. Conflict once its window has passed, or when
    there is nothing to take back. What the lead then calls for again is held for ``hold_seconds``."""
    lead = _locked(session, workspace_id, lead_id)
    decision = session.scalar(
        sa.select(Decision)
        .where(Decision.lead_id == lead.id, Decision.undone_at.is_(None))
        .order_by(Decision.created_at.desc(), Decision.id.desc())
        .limit(1)
    )
    if decision is None or lead.status not in DECIDED_STATUSES:
        raise Conflict("There is no decision on this lead to take back.")
    now = session.scalars(sa.select(sa.func.clock_timestamp())).one()
    if now > decision.undo_until:
        raise Conflict(
            f"The time to undo has passed: {decision.actor} {_DONE[lead.status]} this lead at "
            f"{decision.created_at:%H:%M:%S} UTC. Override or reject it instead."
        )
    gone = sa.exists().where(
        Delivery.decision_id == decision.id,
        Delivery.state.in_((DeliveryState.SENDING, DeliveryState.DELIVERED, DeliveryState.WITHDRAWN)),
    )
    if session.scalar(sa.select(gone)):
        raise Conflict("It is on its way already and cannot be taken back. Override or reject the lead instead.")
    deliver.cancel(session, lead.id, reason=f"{actor.name} took the decision back")
    decision.undone_at = now
    lead.status = LeadStatus(decision.before["status"])
    lead.intent = Intent(decision.before["intent"])
    lead.priority = Priority(decision.before["priority"])
    lead.next_action = NextAction(decision.before["next_action"])
    earlier = session.scalar(
        sa.select(Decision)
        .where(Decision.lead_id == lead.id, Decision.undone_at.is_(None), Decision.id != decision.id)
        .order_by(Decision.created_at.desc(), Decision.id.desc())
        .limit(1)
    )
    lead.decided_at = earlier.created_at if earlier else None
    lead.decided_by = earlier.actor if earlier else None
    _changed(lead)
    # Back to new_auto or to an earlier approval: its deliveries were cancelled above and are due again.
    deliver.plan(session, lead, decision_id=earlier.id if earlier else None, due_in_seconds=hold_seconds)
    # Back to a rejection, whose taking back the decision had called off.
    deliver.withdraw(
        session,
        lead,
        reason=f"{actor.name} took the decision back",
        due_in_seconds=hold_seconds,
        decision_id=earlier.id if earlier else None,
        actor=actor.name,
    )
    audit.record(
        session, workspace_id, "DECISION_UNDONE", actor=actor.name, lead_id=lead.id,
        before=decision.after, after=_snapshot(lead),
    )  # fmt: skip
    session.flush()
    return lead


def assign(
    session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID, *, user_id: uuid.UUID | None, actor: Actor
) -> Lead:
    """Give the lead to a member, or to nobody. Invalid when they are no member. No new version: whose lead it is does
    not change what a colleague is deciding about it."""
    lead = _locked(session, workspace_id, lead_id)
    name = None
    if user_id is not None:
        name = session.scalar(
            sa.select(User.name)
            .join(Membership, Membership.user_id == User.id)
            .where(Membership.workspace_id == workspace_id, User.id == user_id, User.active)
        )
        if name is None:
            raise Invalid("that is no member of this workspace", details=(Problem("assignee", "no such member"),))
    if lead.assignee_id == user_id:
        return lead
    lead.assignee_id = user_id
    lead.assignment_reason = f"{actor.name} assigned it"
    lead.route_state = lead.route_reason = None  # a person has seen to it
    lead.updated_at = datetime.now(UTC)
    audit.record(session, workspace_id, "LEAD_ASSIGNED", actor=actor.name, lead_id=lead.id, assignee=name)
    session.flush()
    return lead


def be_present(session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID, user_id: uuid.UUID) -> Sequence[Present]:
    """Heartbeat of a page that shows the lead; returns who has it open, first comer first (theirs is the claim)."""
    there = session.execute(
        sa.text(
            "INSERT INTO lead_presence AS p (lead_id, user_id) "
            "SELECT id, :user_id FROM leads WHERE id = :lead_id AND workspace_id = :workspace_id "
            "ON CONFLICT (lead_id, user_id) DO UPDATE SET seen_at = now(), since = CASE "
            "WHEN p.seen_at < now() - make_interval(secs => :seconds) THEN now() ELSE p.since END RETURNING lead_id"
        ),
        {"lead_id": lead_id, "workspace_id": workspace_id, "user_id": user_id, "seconds": PRESENT_SECONDS},
    )
    if there.first() is None:
        raise NotFound("Lead not found")
    return who_is_here(session, lead_id)


def who_is_here(session: Session, lead_id: uuid.UUID) -> Sequence[Present]:
    """Who has the lead open now, first comer first."""
    rows = session.execute(
        sa.select(User.name, User.id, Presence.since)
        .join(User, User.id == Presence.user_id)
        .where(
            Presence.lead_id == lead_id,
            Presence.seen_at > sa.func.now() - interval(PRESENT_SECONDS),
        )
        .order_by(Presence.since, User.name)
    )
    return [Present(*row) for row in rows]


def leave(session: Session, lead_id: uuid.UUID, user_id: uuid.UUID) -> None:
    """The page was closed."""
    session.execute(sa.delete(Presence).where(Presence.lead_id == lead_id, Presence.user_id == user_id))


def _locked(session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID) -> Lead:
    lead: Lead | None = session.scalar(
        sa.select(Lead)
        .where(Lead.id == lead_id, Lead.workspace_id == workspace_id)
        .with_for_update(of=Lead)
        .execution_options(populate_existing=True)
    )
    if lead is None:
        raise NotFound("Lead not found")
    return lead


def _snapshot(lead: Lead) -> dict[str, Any]:
    return {name: getattr(value := getattr(lead, name), "value", value) for name in _KEPT}


def _changed(lead: Lead) -> None:
    lead.version += 1
    lead.updated_at = datetime.now(UTC)


def _stale(session: Session, lead: Lead) -> Conflict:
    last = session.scalar(
        sa.select(Decision)
        .where(Decision.lead_id == lead.id)
        .order_by(Decision.created_at.desc(), Decision.id.desc())
        .limit(1)
    )
    verdict = f"{vocabulary.INTENT[lead.intent]}, {lead.priority.value}"
    if last is None:
        said = f"The machine judged this lead again meanwhile: it is now {verdict}."
    elif last.undone_at is not None:
        said = f"{last.actor} decided this lead and took it back at {last.undone_at:%H:%M:%S} UTC."
    else:
        done = _DONE[LeadStatus(last.after["status"])]
        said = f"{last.actor} {done} this lead ({verdict}) at {last.created_at:%H:%M:%S} UTC."
    return Conflict(
        said,
        details=(
            Problem("version", f"is {lead.version} now"),
            Problem("status", lead.status.value),
            Problem("decided_by", lead.decided_by or "machine"),
        ),
    )

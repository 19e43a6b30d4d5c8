"""What a fresh console cannot have yet: leads that have been waiting, and failures that take minutes or a bad day.

Failures that can be had for real are: the CRM refuses people and the follow-up service is down for a while
(`misbehave`). The others are written here as the history that they would have left, in the words of the code that
leaves it. Every lead touched here says so in its audit trail.
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit
from webapp.leads.run import request_rerun
from webapp.leads.states import DeliveryState, DestinationKind, LeadStatus, RunStatus, RunTrigger
from webapp.models.lead import Lead
from webapp.models.work import Delivery, DeliveryAttempt, Destination, Run

ACTOR = "Demo"

#: Of the CRM: dead letters; answers that were lost although the task was made; a moment of "too many".
CRM_FAULTS = [
    {"match": "POST /people", "kind": "400", "times": 3},
    {"match": "POST /tasks", "kind": "500_after", "times": 2},
    {"match": "POST /taskTargets", "kind": "429", "times": 1, "retry_after": "1"},
]
#: Of the follow-up service: enough to open its breaker whatever is under way at once (sixteen follow-ups of two calls
#: each), then a probe every half minute until it is up again.
FOLLOW_UP_FAULTS = [{"match": "POST", "kind": "503", "times": 40}]

STALE = (timedelta(days=9, hours=4), timedelta(days=3, hours=7))
"""How long the two escalations that everybody overlooked have been waiting."""

_FAILED = (
    "The run crashed (OperationalError: server closed the connection unexpectedly)",
    "The run crashed (MemoryError: no message)",
    "Its worker was lost 12 times while working on it.",
    "The run crashed (OperationalError: canceling statement due to statement timeout)",
)


def misbehave(root: str, faults: Sequence[dict[str, Any]]) -> None:
    """Tell a stand-in to fail."""
    with requests.Session() as http:
        http.trust_env = False
        http.post(f"{root}/__faults", json=list(faults), timeout=10).raise_for_status()


def make_older(session: Session, workspace_id: uuid.UUID, lead_ids: Sequence[uuid.UUID]) -> None:
    """Spread the leads over the last two and a half days, every other one within the last hours; two escalations are
    older than all others."""
    stale = list(
        session.scalars(
            sa.select(Lead.id)
            .where(Lead.id.in_(lead_ids), Lead.status == LeadStatus.NEW_ESCALATE)
            .order_by(Lead.created_at.desc(), Lead.id)
            .limit(len(STALE))
        )
    )
    by = dict(zip(stale, STALE, strict=False))
    for number, lead_id in enumerate(lead_ids):
        if lead_id not in by:
            newest_last = len(lead_ids) - number
            by[lead_id] = timedelta(minutes=newest_last * (18 if number % 2 else 2))
    for lead_id, age in sorted(by.items()):  # locked in the order in which workers lock them, so that none is stopped
        session.execute(
            sa.update(Lead)
            .where(Lead.id == lead_id, Lead.workspace_id == workspace_id)
            .values(
                created_at=Lead.created_at - age,
                settled_at=Lead.settled_at - age,
                last_contact_at=Lead.last_contact_at - age,
                updated_at=Lead.updated_at - age,
            )
            .execution_options(synchronize_session=False)
        )
        session.execute(
            sa.update(Run)
            .where(Run.lead_id == lead_id, Run.status == RunStatus.SUCCESS)
            .values(created_at=Run.created_at - age, started_at=Run.started_at - age, finished_at=Run.finished_at - age)
            .execution_options(synchronize_session=False)
        )
        _say(session, workspace_id, lead_id, "MADE_OLDER_FOR_THE_DEMO", hours=round(age / timedelta(hours=1), 1))


def fail_runs(session: Session, workspace_id: uuid.UUID) -> None:
    """Re-runs that failed: the last thing known of three leads; a fourth's is repeated, for real, and goes through."""
    waiting = sa.select(Lead).where(Lead.workspace_id == workspace_id, Lead.status == LeadStatus.NEW_DRAFT)
    leads = session.scalars(waiting.order_by(Lead.created_at.desc()).limit(len(_FAILED))).all()
    for number, (lead, error) in enumerate(zip(leads, _FAILED, strict=False)):
        failed_at = datetime.now(UTC) - timedelta(minutes=1 + number)
        attempt = 13 if "12 times" in error else 3
        run = Run(
            workspace_id=workspace_id,
            lead_id=lead.id,
            source=lead.source,
            trigger=RunTrigger.RERUN,
            requested_by=ACTOR,
            status=RunStatus.FAILED,
            error=error,
            attempt=attempt,
            created_at=failed_at - timedelta(seconds=11),
            started_at=failed_at - timedelta(seconds=1),
            finished_at=failed_at,
        )
        session.add(run)
        session.flush()
        _say(session, workspace_id, lead.id, "RUN_FAILED", run_id=str(run.id), attempt=attempt, error=error)
    for lead in leads[len(_FAILED) - 1 :]:
        request_rerun(session, lead, requested_by=ACTOR)


def leave_uncertain(session: Session, workspace_id: uuid.UUID) -> None:
    """One follow-up whose last answer never came: the other side cannot be asked whether it arrived."""
    delivery = session.scalar(
        sa.select(Delivery)
        .join(Destination, Destination.id == Delivery.destination_id)
        .where(
            Delivery.workspace_id == workspace_id,
            Destination.kind == DestinationKind.N8N,
            Delivery.state == DeliveryState.PENDING,
        )
        .order_by(Delivery.created_at, Delivery.id)
        .limit(1)
        .with_for_update(of=Delivery, skip_locked=True)
    )
    if delivery is None:
        return
    delivery.state, delivery.tries, delivery.ambiguous = DeliveryState.UNCERTAIN, 8, True
    delivery.attempt += 1
    delivery.last_error = "timed out"
    delivery.updated_at = datetime.now(UTC)
    session.add(
        DeliveryAttempt(
            workspace_id=workspace_id,
            delivery_id=delivery.id,
            attempt=delivery.attempt,
            ms=5_000,
            outcome="uncertain",
            error="timed out",
        )
    )
    about = {"delivery_id": str(delivery.id), "action": delivery.action, "error": "timed out"}
    _say(session, workspace_id, delivery.lead_id, "DELIVERY_UNCERTAIN", **about)


def _say(session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID, event: str, **details: Any) -> None:
    audit.record(session, workspace_id, event, actor=ACTOR, lead_id=lead_id, **details)

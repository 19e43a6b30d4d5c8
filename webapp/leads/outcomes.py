"""After a call: write what came of it, to the delivery, its attempts, the audit log and the destination's breaker.

Everything here runs in one short transaction of the caller's.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import alerting, audit, jsontext, withdrawing
from webapp.leads.outbox import what_it_is
from webapp.leads.ports import Target, Unusable
from webapp.leads.sending import Job
from webapp.leads.states import DeliveryState, DestinationMode
from webapp.models.base import interval, new_id
from webapp.models.work import Destination


@dataclass(frozen=True, slots=True)
class Saved:
    """What is to be written of one attempt.

    ``state`` PENDING means again in ``delay`` seconds. ``outcome``: delivered | withdrawn | reconciled | retry | dead |
    uncertain | shadowed.
    ``healthy``: what it says about the destination (None: nothing). ``pause``: seconds the destination asked for.
    ``unusable``: why no call could be made at all; ``outcome`` is :data:`NOT_CALLED` then, which leaves no attempt behind.
    """

    job: Job
    state: DeliveryState
    outcome: str
    tries: int
    ms: int
    ambiguous: bool = False
    delay: float = 0.0
    remote_id: str | None = None
    payload: dict[str, Any] | None = None
    http_status: int | None = None
    error: str | None = None
    excerpt: str | None = None
    healthy: bool | None = None
    pause: float | None = None
    gone: bool = False
    unusable: Unusable | None = None


#: Nothing was called, and so nothing is told in the delivery's attempts.
NOT_CALLED = "not_called"

_SAVE = sa.text(
    """
    WITH found AS (
        SELECT * FROM json_to_recordset(CAST(:results AS json)) AS f (
            id uuid, destination_id uuid, attempt int, state text, tries int, ambiguous bool, delay float8, remote_id text, payload jsonb,
            error text, attempt_id uuid, ms int, http_status int, outcome text, excerpt text, sent_as text,
            event_id uuid, event text, details jsonb
        )
    ), saved AS (
        UPDATE deliveries AS d SET
            state = f.state,
            attempt = d.attempt - CASE WHEN f.outcome = 'not_called' THEN 1 ELSE 0 END,
            tries = f.tries,
            ambiguous = f.ambiguous,
            lease_until = NULL,
            due_at = CASE WHEN f.state = 'pending' THEN now() + make_interval(secs => f.delay) ELSE d.due_at END,
            remote_id = coalesce(f.remote_id, d.remote_id),
            payload = coalesce(f.payload, d.payload),
            last_error = f.error,
            sent_as = CASE WHEN f.state = 'delivered' THEN f.sent_as ELSE d.sent_as END,
            delivered_at = CASE WHEN f.state = 'delivered' THEN now() ELSE d.delivered_at END,
            updated_at = now()
        FROM found AS f
        WHERE d.id = f.id AND d.attempt = f.attempt AND d.state = 'sending'
        RETURNING d.id, d.workspace_id, d.lead_id
    ), audited AS (
        INSERT INTO audit_events (id, workspace_id, lead_id, event_type, actor, details)
        SELECT f.event_id, s.workspace_id, s.lead_id, f.event, :system, f.details
        FROM saved AS s JOIN found AS f ON f.id = s.id
        WHERE f.event IS NOT NULL
    ), told AS (
        INSERT INTO delivery_attempts
            (id, workspace_id, delivery_id, attempt, started_at, ms, http_status, outcome, error, excerpt)
        SELECT f.attempt_id, s.workspace_id, f.id, f.attempt, now() - make_interval(secs => f.ms / 1000.0), f.ms,
            f.http_status, f.outcome, f.error, f.excerpt
        FROM saved AS s JOIN found AS f ON f.id = s.id
        WHERE f.outcome <> 'not_called'
    )
    SELECT s.id, d.failures > 0 OR d.open_until IS NOT NULL AS failing
    FROM saved AS s JOIN found AS f ON f.id = s.id JOIN destinations AS d ON d.id = f.destination_id
    """
)


def save(session: Session, results: Sequence[Saved], *, breaker_failures: int, breaker_seconds: float) -> None:
    """Write what came of the attempts.

    One that was not called gives its token back, as there was no attempt: a gap in the attempts means a worker that was
    lost. A row whose claim was taken over matches no UPDATE, and what this worker learned of it is dropped: its successor
    reconciles and tells the story.
    """
    if not results:
        return
    # As JSON, whatever their number: eighteen arrays cost as much as the rest of saving.
    given = {"results": jsontext.dumps([_row(result) for result in results]), "system": audit.SYSTEM}
    ours = {row.id: row.failing for row in session.execute(_SAVE, given)}
    kept = [result for result in results if result.job.claim.id in ours]
    failing = {result.job.target.id for result in kept if ours[result.job.claim.id]}
    for result in kept:
        if result.gone:
            facts = _facts(result)
            audit.record(session, result.job.target.workspace_id, "DESTINATION_GONE", **facts)
    if sent := [result.job.claim.id for result in kept if result.state in _SETTLED]:
        withdrawing.after_sending(session, sent)
    # Alerts first, then destinations, each in their order, so that two workers cannot deadlock.
    targets = {result.job.target.id: result.job.target for result in kept}
    for target in sorted(targets.values(), key=lambda target: str(target.id)):
        _alarm(session, target, [result for result in kept if result.job.target.id == target.id])
    for target_id in sorted({result.job.target.id for result in kept}, key=str):
        about = [result for result in kept if result.job.target.id == target_id]
        if target_id in failing and any(result.healthy for result in about):
            session.execute(_closing(), {"target_id": target_id})
        _save_health(session, target_id, about, breaker_failures, breaker_seconds)


def _row(result: Saved) -> dict[str, Any]:
    return {
        "id": result.job.claim.id,
        "destination_id": result.job.target.id,
        "attempt": result.job.claim.attempt,
        "state": result.state.value,
        "tries": result.tries,
        "ambiguous": result.ambiguous,
        "delay": float(result.delay),
        "remote_id": result.remote_id,
        "payload": result.payload,
        "error": result.error,
        "attempt_id": new_id(),
        "ms": result.ms,
        "http_status": result.http_status,
        "outcome": result.outcome,
        "excerpt": result.excerpt,
        "sent_as": what_it_is(result.job.request.lead),
        "event_id": new_id(),
        "event": _EVENTS.get(result.state),
        "details": _facts(result),
    }


_SETTLED = (DeliveryState.DELIVERED, DeliveryState.WITHDRAWN)
_GIVEN_UP = (DeliveryState.DEAD, DeliveryState.UNCERTAIN)
#: What the audit log calls it.
_EVENTS = {
    DeliveryState.DELIVERED: "DELIVERY_SENT",
    DeliveryState.WITHDRAWN: "DELIVERY_WITHDRAWN",
    DeliveryState.DEAD: "DELIVERY_DEAD",
    DeliveryState.UNCERTAIN: "DELIVERY_UNCERTAIN",
}


def _facts(result: Saved) -> dict[str, Any]:
    job = result.job
    facts = {"delivery_id": str(job.claim.id), "destination": job.target.name, "action": job.request.action}
    if result.state in _SETTLED:
        return facts | {"remote_id": result.remote_id}
    return facts | {"error": result.error} if result.state in _GIVEN_UP else facts


def _alarm(session: Session, target: Target, results: Sequence[Saved]) -> None:
    """In the order of kinds and keys, so that two workers cannot deadlock."""
    if any(result.gone for result in results):
        alerting.gone(session, target)
    _save_problem(session, target, results)
    stuck = [result for result in results if result.state in _GIVEN_UP]
    for workspace_id in sorted({result.job.workspace_id for result in stuck}, key=str):
        theirs = [result for result in stuck if result.job.workspace_id == workspace_id]
        alerting.given_up(session, target, workspace_id, theirs[-1].error, times=len(theirs))


def _save_problem(session: Session, target: Target, results: Sequence[Saved]) -> None:
    """Note that the destination cannot be called, or that it can be again, and tell of either once."""
    here = sa.update(Destination).where(Destination.id == target.id).execution_options(synchronize_session=False)
    unusable = next((result.unusable for result in results if result.unusable), None)
    if unusable is not None:
        new = Destination.problem.is_distinct_from(unusable.message)
        noted = here.where(new).values(problem=unusable.message).returning(Destination.id)
        if session.scalar(noted) is not None:
            alerting.unusable(session, target, unusable)
    elif target.problem is not None:
        session.execute(here.values(problem=None, failures=0, open_until=None))
        alerting.usable(session, target)


@cache
def _closing() -> sa.UpdateBase:
    """The breaker of a destination that answered."""
    closed = sa.update(Destination).where(Destination.id == sa.bindparam("target_id", type_=sa.Uuid()))
    return closed.values(failures=0, open_until=None).execution_options(synchronize_session=False)


def _save_health(
    session: Session, target_id: uuid.UUID, results: Sequence[Saved], breaker_failures: int, breaker_seconds: float
) -> None:
    """Bring the destination's breaker, pause and mode up to date; touches no row while all is well."""
    here = Destination.id == target_id
    quiet = {"synchronize_session": False}
    if any(result.unusable for result in results):  # every other delivery would fare the same
        values = {
            "failures": sa.func.greatest(Destination.failures, breaker_failures),
            "open_until": sa.func.now() + interval(breaker_seconds),
        }
        session.execute(sa.update(Destination).where(here).values(**values).execution_options(**quiet))
        return
    failures = 0
    for result in results:  # in order of completion: a success ends a row of failures
        failures = 0 if result.healthy else failures + (result.healthy is False)
    if failures:
        total = Destination.failures + failures
        # While it is open already (others failed beside us, or this is the probe) its end stays where it is.
        opens = sa.and_(
            total >= breaker_failures,
            sa.or_(Destination.open_until.is_(None), Destination.open_until <= sa.func.now()),
        )
        until = sa.case((opens, sa.func.now() + interval(breaker_seconds)), else_=Destination.open_until)
        session.execute(
            sa.update(Destination).where(here).values(failures=total, open_until=until).execution_options(**quiet)
        )
    pause = max((result.pause for result in results if result.pause), default=None)
    if pause:
        paused = sa.func.greatest(Destination.paused_until, sa.func.now() + interval(pause))
        session.execute(sa.update(Destination).where(here).values(paused_until=paused).execution_options(**quiet))
    if any(result.gone for result in results):
        session.execute(sa.update(Destination).where(here).values(mode=DestinationMode.OFF).execution_options(**quiet))

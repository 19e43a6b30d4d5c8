"""Qualify a lead while its sender waits (``POST /enrich-lead``): take it in, run it, and keep the answer for repeats.

Where the rules are enough everything happens in one short transaction of the request: the lead with its run, the
stages, what they found, and the answer beside its key. Where a model is needed a worker works the run; the request
commits what it has, waits without a transaction or a connection, and answers from what the worker stored. When that
takes too long it takes the run over, which fences the worker out, and settles it with the rules; or fails it where the
model is required. Either way the run is recorded like any other, and nobody works it twice.
"""

import hashlib
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import (
    audit,
    boards,
    claims,
    enrichment,
    enrichment_store,
    intake,
    llm_usage,
    qualify_keys,
    rulebook,
    run,
    run_stages,
    run_store,
    verdict,
)
from webapp.leads.enrichment import Gathered
from webapp.leads.errors import Permanent, Transient
from webapp.leads.intake import LeadIn, Tenant
from webapp.leads.judging import WITH_MODEL, Heard, Policy
from webapp.leads.qualify_keys import InProgress, KeyOf
from webapp.leads.states import DECIDED_STATUSES, PRIORITY_VIEW, Door, RunStatus, RunTrigger
from webapp.leads.textnorm import normalize_message
from webapp.models.base import interval
from webapp.models.faults import is_contention, is_database_away
from webapp.models.lead import Lead, Touch
from webapp.models.work import Run

log = logging.getLogger(__name__)

#: How often a waiting request looks: soon at first, then calmly.
_FIRST_LOOK, _LOOK = 0.03, 0.2
#: For how long a failed run's request may be sent again and go on with the same lead.
_RESUME_HOURS = 24
#: What the enrich stage says of each source that is asked only after the answer.
_LATER = "asked after the answer, by the next run"
#: For how long at least a delivery of a lead is held whose sources outside are asked after its answer, in seconds.
_SOURCES_HOLD = 20.0
#: Rank of the run that asks them: nobody waits for it, but routing does.
_SOURCES_RANK = 1
#: A run that a request works itself is done within milliseconds; should the process hang, a worker takes it.
_OWN_LEASE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Begun:
    """A lead that is in, and what is held of it. ``run_id`` None: it has been judged before. ``lease`` None: no key.
    ``taken_over``: from a request that died, whose message may have been another. ``waits``: the run is a worker's,
    since a model has to be asked. ``unheard``: why none is asked although one was needed."""

    lead_id: uuid.UUID
    run_id: uuid.UUID | None
    lease: datetime | None
    taken_over: bool = False
    waits: bool = False
    unheard: str | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds for all requests: the settings as far as they matter here. ``policy`` is the deployment's."""

    policy: Policy
    region: str
    hold_seconds: float
    patience: float  # seconds that a request waits for a model


def needs_model(conditions: Conditions, tenant: Tenant, message: str) -> bool:
    """Is it a worker's, since a model has to be asked?"""
    policy = conditions.policy.of(tenant.judging)
    if not policy.asks:
        return False
    return policy.needs_model(verdict.judge(message, rules=tenant.rules), message, auto_from=tenant.auto_from)


def is_required(conditions: Conditions, tenant: Tenant) -> bool:
    """Does the workspace want a model's verdict or none?"""
    return conditions.policy.of(tenant.judging).required


def begin(session: Session, conditions: Conditions, tenant: Tenant, lead: LeadIn, key: KeyOf | None) -> Begun:
    """Hold the key and take the lead in, or find it where an earlier request left it. Nothing is committed.

    A lead that has been judged before needs no further run, unless a model is required and none had a part in it: then
    it is no matter by which door it came. InProgress when another request holds the key, or has just answered it.
    """
    claim = qualify_keys.claim(session, key) if key else None
    if key and claim is None:
        raise InProgress
    lead_id = claim.lead_id if claim else None
    if lead_id is None and key:
        lead_id = _failed_before(session, key, lead)
    if lead_id is None or session.scalar(sa.select(Lead.id).where(Lead.id == lead_id)) is None:
        lead_id = intake.accept(session, tenant, lead).lead_id
    if key:
        qualify_keys.bind(session, key, lead_id)
    stands = _locked(session, lead_id)
    # It may have been taken in with other words than these. A person's decision outranks a model's verdict, and the
    # words of a lead from a public page are our own.
    askable = stands.status not in DECIDED_STATUSES and stands.door is not Door.WEB
    waits = askable and needs_model(conditions, tenant, stands.message)
    required = waits and is_required(conditions, tenant)
    unheard = None
    if waits and not required and (unheard := llm_usage.over_budget(session, tenant.id, tenant.judging)):
        waits = False
    run_id = None
    if stands.settled_at is None or (required and not _by_model(stands.judge)):
        run_id = _run_of(session, lead_id, stands, key.value if key else None, lead.payload, required=required)
    return Begun(
        lead_id, run_id, claim.lease if claim else None, bool(claim and claim.lead_id == lead_id),
        waits=waits and run_id is not None, unheard=unheard,
    )  # fmt: skip


def _failed_before(session: Session, key: KeyOf, lead: LeadIn) -> uuid.UUID | None:
    """The lead of the same request whose run failed (502): sending it again is not asking twice."""
    return session.scalar(
        sa.select(Lead.id)
        .join(Run, Run.lead_id == Lead.id)
        .where(
            Run.workspace_id == key.tenant.id,
            sa.text(f"runs.status = '{RunStatus.FAILED.value}'"),
            Run.created_at > sa.func.now() - sa.func.make_interval(0, 0, 0, 0, _RESUME_HOURS),
            Run.idempotency_key == key.value,
            Run.model_required,
            Lead.message == lead.message,
        )
        .order_by(Run.created_at.desc())
        .limit(1)
    )


def _locked(session: Session, lead_id: uuid.UUID) -> sa.Row[Any]:
    """What stands for the lead. The lock keeps a second request from a second run."""
    return session.execute(
        sa.select(
            Lead.settled_at, Lead.workspace_id, Lead.source, Lead.door, Lead.status, Lead.message,
            Lead.verdict["judge"].astext.label("judge"),
        )
        .where(Lead.id == lead_id)
        .with_for_update(key_share=True)
    ).one()  # fmt: skip


def _by_model(judge: str | None) -> bool:
    return (judge or "").startswith(WITH_MODEL)


def _run_of(
    session: Session, lead_id: uuid.UUID, stands: sa.Row[Any], key: str | None, payload: dict[str, Any], *, required: bool
) -> uuid.UUID:  # fmt: skip
    """The run that will tell about the lead, ahead of the backlog since somebody waits: the oldest open one that looks
    at the lead's own words, or a new one. ``required``: it fails without a model. The lead is locked."""
    oldest = (
        sa.select(Run.id)
        .where(
            Run.lead_id == lead_id,
            Run.status.in_([RunStatus.QUEUED, RunStatus.RUNNING]),
            Run.trigger != RunTrigger.TOUCH,
        )
        .order_by(Run.created_at, Run.id)
        .limit(1)
        .with_for_update()
    )
    open_run = session.scalar(oldest)
    if open_run is not None:
        session.execute(
            sa.update(Run)
            .where(Run.id == open_run)
            .values(
                rank=0, idempotency_key=sa.func.coalesce(key, Run.idempotency_key),
                model_required=sa.or_(Run.model_required, sa.literal(required)),
            )
            .execution_options(synchronize_session=False)
        )  # fmt: skip
        return open_run
    again = Run(
        workspace_id=stands.workspace_id, lead_id=lead_id, idempotency_key=key, source=stands.source,
        trigger=RunTrigger.RERUN, rank=0, payload_json=payload, model_required=required,
    )  # fmt: skip
    session.add(again)
    session.flush()
    audit.record(session, stands.workspace_id, "RUN_REQUESTED", lead_id=lead_id, run_id=str(again.id))
    return again.id


def settle_by_rules(session: Session, conditions: Conditions, run_id: uuid.UUID, heard: Heard | None = None) -> bool:
    """Work the run here and now, taking it from a worker that may have it. False when it is over already, or when it
    broke, in which case it is left to a worker. ``heard``: why there is no model's opinion where one was needed."""
    try:
        with session.begin_nested():
            claim = _take(session, run_id)
            if claim is None:
                return False
            (row,) = run_store.load(session, [claim])
            item = run_store.item_from(row, claim.attempt)
            board = boards.load(session, [item.workspace_id])[item.workspace_id]
            outside = _outside(session, item)
            outcome = run_stages.go_through(
                item, board, judge=rulebook.judge_of(session, item.ruleset_id), default_region=conditions.region,
                heard=heard, gathered=Gathered(missing=dict.fromkeys(outside, _LATER)), again=bool(outside),
            )  # fmt: skip
            hold = max(conditions.hold_seconds, _SOURCES_HOLD) if outside else conditions.hold_seconds
            settled = bool(run_store.settle(session, [outcome], hold_seconds=hold))
            if settled and outside:
                _ask_later(session, run_id, item)
            return settled
    except Exception as error:
        if is_database_away(error) or is_contention(error):
            raise
        log.exception("run %s broke in its request; it is left to a worker", run_id)
        return False


def _outside(session: Session, item: run_stages.Item) -> list[str]:
    """Names of the sources that can be asked about the lead: not here, since its sender waits and the transaction is
    open."""
    listed = enrichment_store.sources(session, [item.workspace_id])[item.workspace_id]
    return list(dict.fromkeys(source.name for source, _ in enrichment.subjects(item.facts, listed)))


def _ask_later(session: Session, run_id: uuid.UUID, item: run_stages.Item) -> None:
    """Queue the run that asks the outside, unless another one of the lead is open. The lead is locked."""
    opened = sa.select(Run.id).where(Run.lead_id == item.lead_id, Run.status.in_([RunStatus.QUEUED, RunStatus.RUNNING]))
    if session.scalar(opened.limit(1)) is not None:
        return
    source, payload = session.execute(sa.select(Run.source, Run.payload_json).where(Run.id == run_id)).one()
    again = Run(
        workspace_id=item.workspace_id, lead_id=item.lead_id, source=source, trigger=RunTrigger.RERUN,
        rank=_SOURCES_RANK, payload_json=payload,
    )  # fmt: skip
    session.add(again)
    session.flush()
    audit.record(session, item.workspace_id, "RUN_REQUESTED", lead_id=item.lead_id, run_id=str(again.id))


def once_more(session: Session, conditions: Conditions, begun: Begun, key: KeyOf | None) -> Begun:
    """After a run that failed at a worker's, with no model required: another one, here, by the rules alone."""
    payload = session.scalar(sa.select(Run.payload_json).where(Run.id == begun.run_id))
    stands, run_id = _locked(session, begun.lead_id), None
    if stands.settled_at is None:
        named = key.value if key else None
        run_id = _run_of(session, begun.lead_id, stands, named, payload or {}, required=False)
        settle_by_rules(session, conditions, run_id, Heard(error="the run before failed"))
    return replace(begun, run_id=run_id)


def _take(session: Session, run_id: uuid.UUID) -> claims.Claim | None:
    """Claim a run whoever has it: a new attempt fences out the one before. None when it is over."""
    # Leads before their runs, as whoever settles does: else the two could wait for one another.
    its_lead = sa.select(Run.lead_id).where(Run.id == run_id).scalar_subquery()
    session.execute(sa.select(Lead.id).where(Lead.id == its_lead).with_for_update(key_share=True))
    attempt = session.scalar(
        sa.update(Run)
        .where(Run.id == run_id, Run.status.in_([RunStatus.QUEUED, RunStatus.RUNNING]))
        .values(
            status=RunStatus.RUNNING, attempt=Run.attempt + 1, slot=None, incarnation=None, rq_job_id=None,
            started_at=sa.func.coalesce(Run.started_at, sa.func.now()),
            lease_until=sa.func.now() + interval(_OWN_LEASE_SECONDS),
        )
        .returning(Run.attempt)
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    return None if attempt is None else claims.Claim(run_id, attempt)


def fail(session: Session, run_id: uuid.UUID, reason: str) -> None:
    """Log the run as failed, wherever it stands; one that is over stays as it is."""
    claim = _take(session, run_id)
    if claim:
        run.fail(session, claim, reason)


def wait(
    engine: sa.Engine,
    begun: Begun,
    key: KeyOf | None,
    *,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[RunStatus, Begun]:
    """Look until the run is over or ``seconds`` have passed, renewing the claim on the key: where it stands then, and
    the claim as it is now. ``engine``: in autocommit mode; nothing is held between two looks."""
    until = time.monotonic() + seconds
    renewed, pause, lease = time.monotonic(), _FIRST_LOOK, begun.lease
    while True:
        with engine.connect() as connection:
            status = connection.scalar(sa.select(Run.status).where(Run.id == begun.run_id))
            if key and lease and time.monotonic() - renewed >= qualify_keys.RENEW_SECONDS:
                lease, renewed = qualify_keys.renew(connection, key, lease), time.monotonic()
        left = until - time.monotonic()
        if status not in (RunStatus.QUEUED, RunStatus.RUNNING) or left <= 0:
            return RunStatus(status) if status else RunStatus.FAILED, replace(begun, lease=lease)
        sleep(min(pause, left))
        pause = min(pause * 1.5, _LOOK)


def failure_of(session: Session, run_id: uuid.UUID) -> Permanent:
    """The error for a caller whose run failed."""
    row = session.execute(sa.select(Run.error, Run.stages).where(Run.id == run_id)).one()
    # A run that was under way when the model came to be required goes on without it.
    missed = [stage["error"] for stage in row.stages if stage["name"] == "classify" and stage["error"]]
    said = row.error or f"The model is required, and was not heard: {missed[0] if missed else 'it was not asked'}"
    return Permanent(f"The lead was kept, but could not be qualified. {said}")


def is_by_model(session: Session, lead_id: uuid.UUID) -> bool:
    """Has a model had a part in the lead's verdict? A person's decision is as good."""
    row = session.execute(
        sa.select(Lead.status, Lead.settled_at, Lead.verdict["judge"].astext.label("judge")).where(Lead.id == lead_id)
    ).one()
    return row.settled_at is not None and (row.status in DECIDED_STATUSES or _by_model(row.judge))


def not_now() -> Transient:
    """The error for a caller whose lead is in, but could not be worked in the request."""
    return Transient("the lead is in, but could not be judged at once; a worker does it, ask again", retry_after=5)


def found(session: Session, lead_id: uuid.UUID) -> dict[str, Any] | None:
    """What the answer says of a lead besides the sender's own words; None while its first run has not settled."""
    row = session.execute(
        sa.select(Lead.qualified, Lead.score, Lead.score_parts, Lead.intent, Lead.priority, Lead.verdict).where(
            Lead.id == lead_id
        )
    ).first()
    if row is None or row.score is None:
        return None
    latest = (
        sa.select(Run.result_json["facts"]["industry"].astext)
        .where(Run.lead_id == lead_id, Run.status == RunStatus.SUCCESS)
        .order_by(Run.created_at.desc())
        .limit(1)
    )
    parts = [f"{one['name']} +{one['points']}: {one['reason']}" for one in row.score_parts or () if one.get("points")]
    return {
        "qualified": bool(row.qualified),
        "score": row.score,
        "reasons": [*parts, *(str(reason) for reason in row.verdict.get("reasons", ()))],
        "intent": row.intent.value,
        "urgency": PRIORITY_VIEW[row.priority],
        "industry": session.scalar(latest),
    }


def words_hash(message: str) -> str | None:
    """SHA-256 (hex) of the form in which two messages count as the same; None for one without words."""
    words = normalize_message(message)
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest() if words else None


def keep_if_changed(session: Session, tenant: Tenant, key: KeyOf, lead_id: uuid.UUID, lead: LeadIn) -> bool:
    """A repeat under the same key whose message is another one: kept as a touch, with a run that judges it. True when
    something was kept; the caller commits and rings. The lead's own words, and what was kept before, are no news."""
    words = words_hash(lead.message)
    own = session.scalar(sa.select(Lead.message).where(Lead.id == lead_id))
    if own is None or words is None or words == words_hash(own):
        return False
    # Two repeats at once: the lead's lock makes the second see what the first has kept.
    session.execute(sa.select(Lead.id).where(Lead.id == lead_id).with_for_update(key_share=True))
    if session.scalar(sa.select(sa.exists().where(Touch.lead_id == lead_id, Touch.content_hash == words))):
        return False
    said = verdict.judge(lead.message, rules=tenant.rules)
    touch = Touch(
        workspace_id=tenant.id, lead_id=lead_id, door=Door.ENRICH, key=key.value, message=lead.message,
        payload=lead.payload, content_hash=words,
    )  # fmt: skip
    judged = Run(
        workspace_id=tenant.id, lead_id=lead_id, idempotency_key=key.value, source=lead.source,
        trigger=RunTrigger.TOUCH, rank=intake.RANK[said.priority], payload_json=lead.payload,
    )  # fmt: skip
    session.add_all([touch, judged])
    session.execute(
        sa.update(Lead)
        .where(Lead.id == lead_id)
        .values(touches=Lead.touches + 1, last_contact_at=sa.func.now(), updated_at=sa.func.now())
        .execution_options(synchronize_session=False)
    )
    session.flush()
    audit.record(
        session, tenant.id, "LEAD_TOUCHED", lead_id=lead_id, door=Door.ENRICH.value, source=lead.source,
        touch_id=str(touch.id), run_id=str(judged.id), intent=said.intent.value, priority=said.priority.value,
    )  # fmt: skip
    return True

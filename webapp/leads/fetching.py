"""Fetch: get what was only announced (a lead form's answers) or named (a public page), and take it in as leads.

:func:`process` drains what is due. One thread, the caller's, owns all database work; a pool of threads does nothing
but network calls. What a call found and the settled row are one transaction under the claim's fencing token, so a
worker that is killed anywhere leaves either both or neither, and its successor fetches again.

Pages of one host are taken one at a time, with a pause between, however many workers there are: claims are made one
worker after another (a lock of microseconds), and a row whose host is busy is not claimed.
"""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import nextafter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from webapp.leads import audit, dedupe, intake, leadgen, rulebook, sla
from webapp.leads.claims import FETCHES, LEASE_SECONDS, Claim, Holder, backoff, claim
from webapp.leads.draining import Drain, SessionFactory, Work
from webapp.leads.errors import Invalid, LeadError, Permanent
from webapp.leads.intake import LeadIn, Tenant
from webapp.leads.judging_policy import Preferences
from webapp.leads.ports import Drained, Fetched, Fetcher, FetchTask, Throttled
from webapp.leads.states import Door, FetchKind, FetchState
from webapp.models.account import Workspace
from webapp.models.base import interval
from webapp.models.faults import is_database_away
from webapp.models.inbound import Fetch
from webapp.models.lead import Lead

log = logging.getLogger(__name__)

#: Any number will do, as long as nothing else locks it: who claims fetches holds it until their commit.
_CLAIM_LOCK = 0x6665746368


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """How hard to try, and what intake has to know. All times in seconds.

    ``retry_delay`` is the first back-off; it doubles with each try up to ``max_delay``, and full jitter draws from 0
    to that. ``max_pause`` bounds what the other side may ask for. ``host_pause``: least time between two pages of one
    host, whatever the fetcher says.
    """

    max_tries: int = 8
    retry_delay: float = 5.0
    max_delay: float = 3_600.0
    max_pause: float = 3_600.0
    throttle_delay: float = 60.0
    host_pause: float = 1.0
    threads: int = 4
    lease_seconds: float = LEASE_SECONDS
    default_region: str = "US"
    duplicate_days: int = 30
    idempotency_days: int = 30


@dataclass(frozen=True, slots=True)
class _Job:
    claim: Claim
    task: FetchTask


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of one call. ``state`` PENDING means again in ``delay`` seconds."""

    job: _Job
    state: FetchState
    tries: int
    delay: float = 0.0
    error: str | None = None
    found: Fetched = field(default_factory=Fetched)


def process(
    session_factory: SessionFactory,
    holder: Holder,
    fetchers: Mapping[FetchKind, Fetcher],
    *,
    max_rows: int = 500,
    max_seconds: float = 5.0,
    policy: FetchPolicy = FetchPolicy(),
    stop: Callable[[], bool] = lambda: False,
) -> Drained:
    """Fetch what is due until nothing is, ``max_rows`` were claimed or ``max_seconds`` have passed.

    Only kinds that ``fetchers`` has are touched. Calls under way at the end are waited for (each has its own time
    limit). ``stop`` is asked before each claim. Raises SlotTaken, once such calls are over and saved, when another
    process has the holder's slot now.
    """
    turns = _Turns(session_factory, holder, fetchers, policy)
    drain: Drain[_Outcome] = Drain(
        FETCHES, session_factory, holder, threads=policy.threads, lease_seconds=policy.lease_seconds, name="fetch"
    )
    drain.run(turns, max_rows=max_rows, max_seconds=max_seconds, stop=stop)
    with session_factory() as session:
        return Drained(turns.settled, has_due(session))


def has_due(session: Session) -> bool:
    """Can anything be fetched now? A page whose host is busy is not due."""
    due = sa.or_(
        sa.and_(Fetch.state == FetchState.PENDING, Fetch.due_at <= sa.func.now()),
        sa.and_(Fetch.state == FetchState.FETCHING, Fetch.lease_until < sa.func.now()),
    )
    return bool(session.scalar(sa.select(sa.exists().where(due, _host_is_free()))))


def _host(model: Any) -> sa.ColumnElement[str]:
    """``https://host:port/path`` → ``host:port``; targets of pages are normalised when they are asked for."""
    return sa.func.split_part(model.target, "/", 3)


def _host_is_free() -> sa.ColumnElement[bool]:
    other = aliased(Fetch)
    busy = sa.exists().where(
        other.kind == FetchKind.PAGE,
        other.state == FetchState.FETCHING,
        other.lease_until >= sa.func.now(),
        other.id != Fetch.id,
        _host(other) == _host(Fetch),
    )
    return sa.or_(Fetch.kind != FetchKind.PAGE, ~busy)


class _Turns:
    """What one drain does between its calls. All in one thread; only :meth:`_attempt` runs in the pool's."""

    def __init__(
        self,
        session_factory: SessionFactory,
        holder: Holder,
        fetchers: Mapping[FetchKind, Fetcher],
        policy: FetchPolicy,
    ) -> None:
        self._session_factory = session_factory
        self._holder = holder
        self._fetchers = fetchers
        self._policy = policy
        self.settled = 0

    def __call__(self, done: Sequence[_Outcome], room: int) -> list[Work[_Outcome]]:
        """Save what is done, claim for the free threads."""
        for outcome in done:
            self.settled += self._save(outcome)
        jobs = self._claim(room) if room > 0 else []
        return [([job.claim], partial(self._attempt, job)) for job in jobs]

    def _claim(self, room: int) -> list[_Job]:
        with self._session_factory() as session:
            session.execute(sa.select(sa.func.pg_advisory_xact_lock(_CLAIM_LOCK)))
            claims = claim(
                session,
                FETCHES,
                self._holder,
                limit=room,
                where=(Fetch.kind.in_(self._fetchers), _host_is_free()),
                seconds=self._policy.lease_seconds,
            )
            jobs = _load(session, claims, self._policy)
            session.commit()
        return jobs

    def _save(self, outcome: _Outcome) -> int:
        """Settle. What cannot be taken in counts as a failed try, so that no row is fetched in vain for ever."""
        try:
            with self._session_factory() as session:
                settled = _settle(session, outcome, self._policy)
                session.commit()
                return settled
        except Exception as error:
            if is_database_away(error) or outcome.state is not FetchState.DONE:
                raise
            outcome = _failed(outcome.job, error, self._policy)
        with self._session_factory() as session:
            settled = _settle(session, outcome, self._policy)
            session.commit()
            return settled

    def _attempt(self, job: _Job) -> list[_Outcome]:
        """One call, in the pool and outside any transaction. Every Exception becomes an outcome."""
        try:
            found = self._fetchers[job.task.kind].fetch(job.task)
        except Exception as error:
            return [_failed(job, error, self._policy)]
        return [_Outcome(job, FetchState.DONE, job.task.tries + 1, found=found)]


def _load(session: Session, claims: Sequence[Claim], policy: FetchPolicy) -> list[_Job]:
    """What the threads need of the claimed rows. Of several pages of one host the first is kept; the others are given
    back and come in their turn."""
    tokens = {claim.id: claim for claim in claims}
    rows = session.scalars(
        sa.select(Fetch)
        .where(Fetch.id.in_(tokens))
        .order_by(Fetch.due_at, Fetch.id)
        .execution_options(populate_existing=True)
    )
    jobs: list[_Job] = []
    hosts: set[str] = set()
    for row in rows:
        host = row.target.split("/", 3)[2] if row.kind == FetchKind.PAGE and row.target.count("/") > 1 else None
        if host in hosts:
            row.state, row.lease_until = FetchState.PENDING, None
            row.due_at = sa.func.now() + interval(policy.host_pause)
            continue
        if host is not None:
            hosts.add(host)
        task = FetchTask(row.id, row.workspace_id, FetchKind(row.kind), row.target, row.payload, row.tries)
        jobs.append(_Job(tokens[row.id], task))
    session.flush()
    return jobs


def _failed(job: _Job, error: Exception, policy: FetchPolicy) -> _Outcome:
    """Turn what a fetcher raised into what is stored: again later, or given up."""
    asked = getattr(error, "retry_after", None)
    pause = min(float(asked), policy.max_pause) if asked is not None else None
    throttled = isinstance(error, Throttled)
    tries = job.task.tries + (not throttled)
    if not isinstance(error, LeadError):
        log.error("fetch %s failed", job.claim.id, exc_info=error)
    words = error.message[:500] if isinstance(error, LeadError) else f"internal error: {type(error).__name__}"
    if isinstance(error, Permanent) or (not throttled and tries >= policy.max_tries):
        return _Outcome(job, FetchState.DEAD, tries, error=words)
    if throttled:
        delay = policy.throttle_delay if pause is None else pause
        return _Outcome(job, FetchState.PENDING, tries, delay=delay, error=words)
    return _Outcome(job, FetchState.PENDING, tries, delay=max(pause or 0.0, backoff(tries, policy)), error=words)


def _settle(session: Session, outcome: _Outcome, policy: FetchPolicy) -> int:
    """Write what came of a call, leads included. 0 when the claim was taken over, or the row removed, meanwhile: then
    nothing is written, and whoever has the row now tells the story."""
    row = session.scalar(
        sa.select(Fetch)
        .where(
            Fetch.id == outcome.job.claim.id,
            Fetch.attempt == outcome.job.claim.attempt,
            Fetch.state == FetchState.FETCHING,
        )
        .with_for_update()
    )
    if row is None:
        return 0
    row.state, row.tries, row.last_error, row.lease_until = outcome.state, outcome.tries, outcome.error, None
    if outcome.state is FetchState.PENDING:
        row.due_at = sa.func.now() + interval(outcome.delay)
    else:
        row.finished_at = sa.func.now()
    if outcome.state is FetchState.DONE:
        tenant = _tenant(session, row.workspace_id, policy)
        made, here, refused = _take_in(session, tenant, outcome.found.leads)
        row.leads_made += len(made)
        row.result = {
            **outcome.found.result,
            "lead_ids": [str(lead_id) for lead_id in [*made, *here]],
            "refused": refused,
        }
        if row.kind == FetchKind.LEADGEN:
            leadgen.fetched(session, row)
    elif outcome.state is FetchState.DEAD:
        if row.kind == FetchKind.LEADGEN:
            leadgen.given_up(session, row, outcome.error or "its answers could not be fetched")
        audit.record(
            session, row.workspace_id, "FETCH_DEAD", kind=row.kind.value, target=row.target, error=outcome.error
        )
    session.flush()
    if row.kind == FetchKind.PAGE:
        _rest(session, row, max(policy.host_pause, min(outcome.found.pause, policy.max_pause)))
    return 1


def _rest(session: Session, row: Fetch, pause: float) -> None:
    """Leave the other pages of this host alone for a while."""
    until = sa.func.now() + interval(pause)
    session.execute(
        sa.update(Fetch)
        .where(
            Fetch.kind == FetchKind.PAGE,
            Fetch.state == FetchState.PENDING,
            Fetch.due_at < until,
            _host(Fetch) == row.target.split("/", 3)[2],
        )
        .values(due_at=until)
        .execution_options(synchronize_session=False)
    )


def _tenant(session: Session, workspace_id: uuid.UUID, policy: FetchPolicy) -> Tenant:
    workspace = session.get_one(Workspace, workspace_id)
    return Tenant(
        id=workspace.id,
        name=workspace.name,
        auto_from=workspace.auto_from,
        draft_from=workspace.draft_from,
        default_region=str(workspace.settings.get("region") or policy.default_region),
        duplicate_days=policy.duplicate_days,
        idempotency_days=policy.idempotency_days,
        sla=sla.of_settings(workspace.settings),
        rules=rulebook.compiled(session, workspace.ruleset_id),
        judging=Preferences.of(workspace.settings.get("classify")),
    )


def _take_in(
    session: Session, tenant: Tenant, leads: Sequence[LeadIn]
) -> tuple[list[uuid.UUID], list[uuid.UUID], list[str]]:
    """(new leads, leads that were here already, why others could not be taken in)."""
    made: list[uuid.UUID] = []
    here: list[uuid.UUID] = []
    refused: list[str] = []
    # In the order in which intake locks people, so that two drains that found the same people do not deadlock.
    for lead in sorted(leads, key=lambda lead: dedupe.identify(lead, region=tenant.default_region).key or ""):
        try:
            lead_id, created = _accept(session, tenant, _capped(lead, tenant))
        except Invalid as error:
            refused.append("; ".join(f"{problem.field} {problem.reason}" for problem in error.details) or error.message)
            continue
        found = made if created else here
        if lead_id not in (*made, *here):
            found.append(lead_id)
    return made, here, refused


def _capped(lead: LeadIn, tenant: Tenant) -> LeadIn:
    """Nobody asked for anything on a public page, so what is found there never goes out by itself."""
    if lead.door is not Door.WEB:
        return lead
    cap = nextafter(tenant.auto_from, 0.0)
    return replace(lead, confidence_cap=min(lead.confidence_cap, cap))


def _accept(session: Session, tenant: Tenant, lead: LeadIn) -> tuple[uuid.UUID, bool]:
    """(id, created) of a lead that may be here already."""
    if lead.external_message_id is None:
        received = intake.accept_new(session, tenant, lead)
        return received.lead_id, received.created
    new = intake.accept_signals(session, tenant, [lead])
    if new:
        return new[0], True
    known = sa.select(Lead.id).where(
        Lead.workspace_id == tenant.id,
        Lead.platform == lead.platform,
        Lead.external_message_id == lead.external_message_id,
    )
    return session.scalars(known).one(), False

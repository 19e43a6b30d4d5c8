"""Deliver: send what the outbox holds, exactly once as far as the other side allows.

The verbs that other modules use (``plan``, ``cancel``, ``replay``, ``preview``, ``plan_follow_up``) live in
``outbox``; :func:`process` here drains what is due. One thread, the caller's, owns all database work; a pool of
threads does nothing but network calls, so that no call ever happens inside a transaction.
"""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from webapp.leads import outcomes, sending, withdrawing
from webapp.leads.claims import DELIVERIES, LEASE_SECONDS, Claim, Holder, backoff
from webapp.leads.draining import TICK, Drain, SessionFactory, Work
from webapp.leads.errors import Ambiguous, LeadError, Permanent
from webapp.leads.outbox import cancel, plan, plan_follow_up, plan_many, preview, replay
from webapp.leads.outcomes import NOT_CALLED, Saved
from webapp.leads.ports import (
    Clients,
    DestinationClient,
    Drained,
    OutcomeUnknown,
    Partly,
    Receipt,
    Refused,
    SendsTogether,
    Throttled,
    Unusable,
    exchange_of,
)
from webapp.leads.sending import Job, has_due
from webapp.leads.states import DeliveryOperation, DeliveryState
from webapp.leads.withdrawing import withdraw

__all__ = [
    "DeliveryPolicy",
    "Drained",
    "cancel",
    "has_due",
    "plan",
    "plan_follow_up",
    "plan_many",
    "preview",
    "process",
    "replay",
    "withdraw",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How hard to try. All times in seconds.

    ``retry_delay`` is the first back-off; it doubles with each try up to ``max_delay``, and full jitter draws from
    0 to that. ``throttle_delay``: the pause after a 429 without Retry-After. ``max_pause`` bounds what the other side
    may ask for. ``threads`` of one drain, of which one destination gets at most ``share`` while it answers and
    ``share_failing`` once it has failed, so that a dead one does not hold what others need. ``public_url`` of the
    console, for links to the lead.
    """

    max_tries: int = 8
    retry_delay: float = 5.0
    max_delay: float = 3_600.0
    throttle_delay: float = 60.0
    max_pause: float = 3_600.0
    breaker_failures: int = 5
    breaker_seconds: float = 30.0
    threads: int = 64
    share: int = 32
    share_failing: int = 2
    public_url: str | None = None
    lease_seconds: float = LEASE_SECONDS


def process(
    session_factory: SessionFactory,
    holder: Holder,
    clients: Clients,
    *,
    max_rows: int = 2_000,
    max_seconds: float = 20.0,
    policy: DeliveryPolicy = DeliveryPolicy(),
    stop: Callable[[], bool] = lambda: False,
) -> Drained:
    """Send due deliveries until none is left, ``max_rows`` were claimed or ``max_seconds`` have passed.

    Calls under way at the end are waited for (each has its own time limit), so the drain may last that much longer; other
    destinations that are well go on being served meanwhile, so that one which hangs holds up nobody else.
    ``stop`` is asked before each claim; True ends the drain the same way. Raises SlotTaken, once such calls are over
    and saved, when another process has the holder's slot now.
    """
    drain: Drain[Saved] = Drain(
        DELIVERIES,
        session_factory,
        holder,
        threads=policy.threads,
        lease_seconds=policy.lease_seconds,
        name="deliver",
        lingers=True,
    )
    turns = _Turns(session_factory, holder, clients, policy, lambda: drain.lingering)
    drain.run(turns, max_rows=max_rows, max_seconds=max_seconds, stop=stop)
    with session_factory() as session:
        return Drained(turns.saved, has_due(session))


class _Turns:
    """What one drain does between its calls. All in one thread; only :meth:`_attempt` runs in the pool's."""

    def __init__(
        self,
        session_factory: SessionFactory,
        holder: Holder,
        clients: Clients,
        policy: DeliveryPolicy,
        lingering: Callable[[], bool],
    ) -> None:
        self._session_factory = session_factory
        self._holder = holder
        self._clients = clients
        self._policy = policy
        self._lingering = lingering
        self._flying: Counter[uuid.UUID] = Counter()  # by destination
        self._late: Counter[uuid.UUID] | None = None  # by destination: what was under way when the time was over
        self._probed_at = float("-inf")
        self.saved = 0

    def __call__(self, done: Sequence[Saved], room: int) -> list[Work[Saved]]:
        """Save what is done, claim for the free threads, commit."""
        policy = self._policy
        self._flying.subtract(result.job.target.id for result in done)
        if self._late is not None:
            self._late.subtract(result.job.target.id for result in done)
        with self._session_factory() as session:
            outcomes.save(
                session, done, breaker_failures=policy.breaker_failures, breaker_seconds=policy.breaker_seconds
            )
            # Loaded in the claim's own transaction: this is the look at the lead just before sending, since a
            # thread is free for each of them.
            jobs, called_off = sending.load(session, self._claim(session, room), public_url=policy.public_url)
            withdrawing.after_calling_off(session, called_off)
            session.commit()
        self.saved += len(done)
        self._flying.update(job.target.id for job in jobs)
        return [([job.claim for job in group], partial(self._attempt, group)) for group in _grouped(jobs)]

    def _claim(self, session: Session, room: int) -> list[Claim]:
        policy, lease = self._policy, self._policy.lease_seconds
        if room <= 0:
            return []
        claims: list[Claim] = []
        taken = 0  # threads
        late = self._lingering()
        if late and self._late is None:
            self._late = Counter(self._flying)
        if not late and time.monotonic() - self._probed_at >= TICK:
            self._probed_at = time.monotonic()
            claims, taken = sending.claim_probes(
                session, self._holder, limit=room, lease=lease, hold=policy.breaker_seconds
            )
        # Those that have least under way come first, each with an equal part of what is free.
        places = sorted(sending.with_work(session).items(), key=lambda place: self._flying[place[0]])
        if self._late is not None:
            # What may hang as well would keep the drain for ever.
            places = [(place, work) for place, work in places if not work.failures and self._late[place] <= 0]
        for number, (destination_id, work) in enumerate(places):
            free = room - taken
            if free <= 0:
                break
            if work.gathers and self._flying[destination_id] > 0:
                continue  # what is due together goes when the one before is out
            share = policy.share_failing if work.failures else policy.share
            limit = min(share - self._flying[destination_id], -(-free // (len(places) - number)))
            if limit <= 0:
                continue
            found, calls = sending.claim_for(
                session, self._holder, work, limit=limit, lease=lease, destination_id=destination_id
            )
            claims += found
            taken += calls
        return claims

    def _attempt(self, jobs: Sequence[Job]) -> list[Saved]:
        """One try on the wire; runs in the pool, outside any transaction. Every Exception becomes a result."""
        return [self._one(jobs[0])] if len(jobs) == 1 else self._together(jobs)

    def _together(self, jobs: Sequence[Job]) -> list[Saved]:
        """What comes of it comes to all of them; of the destination it tells once."""
        started = time.monotonic()
        try:
            client = self._clients.client_for(jobs[0].target)
            if not isinstance(client, SendsTogether):
                raise TypeError(f"{type(client).__name__} takes one at a time")
            receipt = client.send_together([job.request for job in jobs])
        except Exception as error:
            ms = _ms_since(started)
            failed = [_failed(job, error, self._policy, ms=ms, reconciles=False) for job in jobs]
            return [failed[0], *(replace(one, delay=failed[0].delay, healthy=None, pause=None) for one in failed[1:])]
        sent = [_done(job, receipt, "delivered", ms=_ms_since(started)) for job in jobs]
        return [sent[0], *(replace(one, healthy=None) for one in sent[1:])]

    def _one(self, job: Job) -> Saved:
        started = time.monotonic()
        reconciles = False
        receipt: Receipt | None = None
        outcome = "delivered"
        try:
            client = self._clients.client_for(job.target)
            reconciles = client.reconciles
            if job.target.shadow:
                return _shadowed(job, client, ms=_ms_since(started))
            sends = job.request.operation is DeliveryOperation.SEND
            if (job.cut_off or (job.check_first and sends)) and not reconciles and not job.target.sends_again:
                raise OutcomeUnknown("it may have arrived already, and the other side cannot be asked")
            if job.check_first and sends:
                receipt, outcome = client.reconcile(job.request), "reconciled"
            if receipt is None:
                receipt, outcome = client.send(job.request), "withdrawn" if job.request.withdrawn else "delivered"
        except Exception as error:
            return _failed(job, error, self._policy, ms=_ms_since(started), reconciles=reconciles)
        return _done(job, receipt, outcome, ms=_ms_since(started))


def _grouped(jobs: Sequence[Job]) -> list[list[Job]]:
    """Those that one call sends, as they were claimed. What is changed or taken back goes by itself, and so does what may
    have arrived, unless it is sent again: as the digest that it was."""
    groups: dict[Any, list[Job]] = {}
    for job in jobs:
        request, target = job.request, job.target
        sends = request.operation is DeliveryOperation.SEND and (not job.check_first or target.sends_again)
        together = sends and not target.shadow and sending.gathers(target.kind, target.config)
        key = (target.id, request.remote.get(request.action), job.check_first) if together else job.claim.id
        groups.setdefault(key, []).append(job)
    return list(groups.values())


def _done(job: Job, receipt: Receipt, outcome: str, *, ms: int) -> Saved:
    return Saved(
        job=job,
        state=DeliveryState.WITHDRAWN if job.request.withdrawn else DeliveryState.DELIVERED,
        outcome=outcome,
        tries=job.tries + 1,
        ms=ms,
        remote_id=receipt.remote_id,
        payload=receipt.exchange.payload,
        http_status=receipt.exchange.http_status,
        excerpt=receipt.exchange.excerpt,
        healthy=True,
    )


def _shadowed(job: Job, client: DestinationClient, *, ms: int) -> Saved:
    """What would have been sent, and nothing else: nothing is known of the destination by it."""
    return Saved(
        job=job,
        state=DeliveryState.SHADOWED,
        outcome="shadowed",
        tries=0,
        ms=ms,
        ambiguous=job.check_first,  # watching tells nothing of a call before it
        payload=client.render(job.request),
    )


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _failed(job: Job, error: Exception, policy: DeliveryPolicy, *, ms: int, reconciles: bool) -> Saved:
    """Turn what a client raised into what is stored: again later, or a dead letter."""
    if isinstance(error, Unusable):
        return Saved(
            job=job,
            state=DeliveryState.PENDING,
            outcome=NOT_CALLED,
            tries=job.tries,
            ms=ms,
            ambiguous=job.check_first,
            error=error.message,
            unusable=error,
        )
    wait_for = getattr(error, "retry_after", None)
    pause = min(float(wait_for), policy.max_pause) if wait_for is not None else None
    throttled = isinstance(error, Throttled)
    tries = job.tries if throttled else job.tries + 1
    unforeseen = not isinstance(error, LeadError)
    if unforeseen:
        log.error("delivery %s (%s) failed", job.claim.id, job.request.action, exc_info=error)
    # A bug of ours may have struck after the call: as good as no answer.
    ambiguous = isinstance(error, Ambiguous) or unforeseen
    state, outcome, delay = DeliveryState.PENDING, "retry", 0.0
    if isinstance(error, Permanent):
        state, outcome = DeliveryState.DEAD, "dead"
    elif throttled:
        pause = delay = pause or policy.throttle_delay
    elif ambiguous and not reconciles and not job.target.sends_again and not unforeseen:
        state, outcome = DeliveryState.UNCERTAIN, "uncertain"
    elif tries >= policy.max_tries:
        state, outcome = DeliveryState.DEAD, "dead"
        if ambiguous and not reconciles:
            state, outcome = DeliveryState.UNCERTAIN, "uncertain"
    else:
        delay = max(pause or 0.0, backoff(tries, policy))
    exchange = exchange_of(error)
    return Saved(
        job=job,
        state=state,
        outcome=outcome,
        tries=tries,
        ms=ms,
        # What was unknown before stays so until somebody could tell.
        ambiguous=ambiguous or (job.check_first and state is not DeliveryState.DELIVERED),
        delay=delay,
        remote_id=getattr(error, "remote_id", None),
        payload=exchange.payload,
        http_status=exchange.http_status,
        error=_in_words(error),
        excerpt=exchange.excerpt,
        healthy=_health(error),
        pause=pause,
        gone=isinstance(error, Refused) and error.gone,
    )


def _in_words(error: Exception) -> str:
    if isinstance(error, LeadError):
        return error.message[:500]
    # The text of an unforeseen error may hold anything, a credential too; its type may not.
    return f"internal error: {type(error).__name__}"


def _health(error: Exception) -> bool | None:
    """What an error says about the destination. A refusal of one delivery is a sign of life; a 429 says nothing."""
    if isinstance(error, Throttled) or not isinstance(error, LeadError):
        return None
    if isinstance(error, Partly):
        return True
    if isinstance(error, Permanent):
        if isinstance(error, Refused):
            return not error.destination_wide
        return None
    return False

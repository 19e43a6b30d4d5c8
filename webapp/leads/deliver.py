"""Deliver: send what the outbox holds, exactly once as far as the other side allows.

The verbs that other modules use (``plan``, ``cancel``, ``replay``, ``preview``, ``plan_follow_up``) live in
``outbox``; :func:`process` here drains what is due. One thread, the caller's, owns all database work; a pool of
threads does nothing but network calls, so that no call ever happens inside a transaction.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy.orm import Session

from webapp.leads import outcomes, sending
from webapp.leads.claims import DELIVERIES, LEASE_SECONDS, Claim, Holder, SlotTaken, backoff, is_current, renew
from webapp.leads.errors import Ambiguous, LeadError, Permanent
from webapp.leads.outbox import cancel, plan, plan_follow_up, plan_many, preview, replay
from webapp.leads.outcomes import Saved
from webapp.leads.ports import Clients, Drained, Receipt, Refused, Throttled, exchange_of
from webapp.leads.sending import Job, has_due
from webapp.leads.states import DeliveryState

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
]

log = logging.getLogger(__name__)

SessionFactory = Callable[[], AbstractContextManager[Session]]

#: How often an unfinished drain looks for newly due rows and renews its leases, in seconds.
_TICK = 0.5
_RENEW_EVERY = LEASE_SECONDS / 3


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How hard to try. All times in seconds.

    ``retry_delay`` is the first back-off; it doubles with each try up to ``max_delay``, and full jitter draws from
    0 to that. ``throttle_delay``: the pause after a 429 without Retry-After. ``max_pause`` bounds what the other side
    may ask for.
    """

    max_tries: int = 8
    retry_delay: float = 5.0
    max_delay: float = 3_600.0
    throttle_delay: float = 60.0
    max_pause: float = 3_600.0
    breaker_failures: int = 5
    breaker_seconds: float = 30.0
    threads: int = 8
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

    Calls under way at the end are waited for (each has its own time limit), so the drain may last that much longer.
    ``stop`` is asked before each claim; True ends the drain the same way. Raises SlotTaken, once such calls are over
    and saved, when another process has the holder's slot now.
    """
    with ThreadPoolExecutor(policy.threads, thread_name_prefix="deliver") as pool:
        drain = _Drain(session_factory, holder, clients, policy, pool)
        try:
            return drain.run(max_rows, max_seconds, stop)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Drain:
    """One bounded drain. All its methods run in one thread; only :meth:`_attempt` runs in the pool's."""

    def __init__(
        self,
        session_factory: SessionFactory,
        holder: Holder,
        clients: Clients,
        policy: DeliveryPolicy,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._session_factory = session_factory
        self._holder = holder
        self._clients = clients
        self._policy = policy
        self._pool = pool
        self._flying: dict[Future[Saved], Claim] = {}
        self._renewed_at = time.monotonic()
        self._probed_at = float("-inf")
        self._claimed = 0
        self._slot_taken = False

    def run(self, max_rows: int, max_seconds: float, stop: Callable[[], bool]) -> Drained:
        ends_at = time.monotonic() + max_seconds
        done: list[Saved] = []
        saved = 0
        claiming = True
        while True:
            claiming = claiming and time.monotonic() < ends_at and self._claimed < max_rows and not stop()
            claiming = claiming and not self._slot_taken
            saved += len(done)
            self._turn(done, room=max_rows - self._claimed if claiming else 0)
            if not self._flying:
                break
            finished, _ = wait(self._flying, timeout=_TICK, return_when=FIRST_COMPLETED)
            done = [future.result() for future in finished]
            for future in finished:
                del self._flying[future]
            self._keep_leases()
        if self._slot_taken:
            raise SlotTaken(self._holder.slot)
        with self._session_factory() as session:
            return Drained(saved, has_due(session))

    def _turn(self, done: Sequence[Saved], *, room: int) -> None:
        """Save what is done, claim for the free threads, commit; then set the threads to work."""
        policy, lease = self._policy, self._policy.lease_seconds
        room = min(room, policy.threads - len(self._flying))
        if not done and room <= 0:
            return
        with self._session_factory() as session:
            outcomes.save(
                session, done, breaker_failures=policy.breaker_failures, breaker_seconds=policy.breaker_seconds
            )
            claims: list[Claim] = []
            if self._claimed == 0 and room > 0 and not is_current(session, self._holder):
                self._slot_taken, room = True, 0
            if room > 0 and time.monotonic() - self._probed_at >= _TICK:
                self._probed_at = time.monotonic()
                claims += sending.claim_probes(
                    session, self._holder, limit=room, lease=lease, hold=policy.breaker_seconds
                )
                room -= len(claims)
            if room > 0:
                claims += sending.claim_due(session, self._holder, limit=room, lease=lease)
            # Loaded in the claim's own transaction: this is the look at the lead just before sending, since a
            # thread is free for each of them.
            jobs = sending.load(session, claims)
            session.commit()
        self._claimed += len(claims)
        for job in jobs:
            self._flying[self._pool.submit(self._attempt, job)] = job.claim

    def _keep_leases(self) -> None:
        """Renew in good time, and see whether another process has taken this worker's place."""
        if time.monotonic() - self._renewed_at < min(_RENEW_EVERY, self._policy.lease_seconds / 3):
            return
        self._renewed_at = time.monotonic()
        with self._session_factory() as session:
            if self._flying:
                renew(session, DELIVERIES, list(self._flying.values()), seconds=self._policy.lease_seconds)
            self._slot_taken = not is_current(session, self._holder)
            session.commit()

    def _attempt(self, job: Job) -> Saved:
        """One try on the wire; runs in the pool, outside any transaction. Every Exception becomes a result."""
        started = time.monotonic()
        reconciles = False
        receipt: Receipt | None = None
        outcome = "delivered"
        try:
            client = self._clients.client_for(job.target)
            reconciles = client.reconciles
            if job.check_first:
                receipt, outcome = client.reconcile(job.request), "reconciled"
            if receipt is None:
                receipt, outcome = client.send(job.request), "delivered"
        except Exception as error:
            return _failed(job, error, self._policy, ms=_ms_since(started), reconciles=reconciles)
        return Saved(
            job=job,
            state=DeliveryState.DELIVERED,
            outcome=outcome,
            tries=job.tries + 1,
            ms=_ms_since(started),
            remote_id=receipt.remote_id,
            payload=receipt.exchange.payload,
            http_status=receipt.exchange.http_status,
            excerpt=receipt.exchange.excerpt,
            healthy=True,
        )


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


def _failed(job: Job, error: Exception, policy: DeliveryPolicy, *, ms: int, reconciles: bool) -> Saved:
    """Turn what a client raised into what is stored: again later, or a dead letter."""
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
    if isinstance(error, Permanent):
        if isinstance(error, Refused):
            return not error.destination_wide
        return None
    return False

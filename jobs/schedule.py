"""The clock: every periodic job in one list, and the plain one-second loop that runs them.

``python -m jobs.schedule``. Any number of clocks may run: a ring too many is harmless, and the hourly jobs
take rows that nobody else has locked. A clock outlives PostgreSQL and Redis being away.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import sqlalchemy as sa
from setproctitle import setproctitle
from sqlalchemy.orm import Session

from jobs import queue, wiring
from webapp import logs
from webapp.config import ConfigError
from webapp.leads import (
    alerting,
    backlog,
    claims,
    crm_pulls,
    crm_rounds,
    deliver,
    fetching,
    imports,
    llm_usage,
    rescoring,
    sla,
    suppression,
    suppression_walk,
)
from webapp.leads.lookalikes import search

log = logging.getLogger(__name__)

#: Rows of one statement of the hourly jobs, so that none holds its locks for long.
PURGE_ROWS = 5_000
#: How long a job may keep the clock, which has others to run; what is left is done in its next turns.
TURN_SECONDS = 1.0
#: A page's heartbeat comes every few seconds; one that is this old was closed.
PRESENCE_MINUTES = 10
#: How long an entry of quarantine is kept once somebody has decided about it; a held one stays.
QUARANTINE_DAYS = 90
#: How long the answer to a call that was to be asked for again is kept.
CRM_REQUEST_DAYS = 30


class Unfinished(int):
    """How many a job has done in its turn; there is more, and its next turn is the clock's next."""


def ring_runs(session: Session) -> None:
    """Make good lost rings, flushed queues, passed due times and run-out leases."""
    if claims.has_due(session, claims.RUNS):
        queue.ring_now(queue.RUNS)


def ring_deliveries(session: Session) -> None:
    """The same for deliveries; one whose destination is switched off or being left alone is not due."""
    if (
        deliver.has_due(session)
        or crm_rounds.has_due(session)
        or claims.has_due(session, claims.REPLAYS)
        or alerting.has_due(session)
    ):
        queue.ring_now(queue.DELIVERIES)


def ring_imports(session: Session) -> None:
    """The same for files on their way in, or being taken back, for re-runs of many leads, for suppression lists that have
    changed, and for people to be compared while no run waits."""
    if (
        claims.has_due(session, claims.IMPORTS)
        or claims.has_due(session, claims.UNDOS)
        or claims.has_due(session, claims.RERUNS)
        or suppression_walk.has_due(session)
        or (search.has_due(session) and search.is_quiet(session) and not claims.has_due(session, claims.RUNS))
    ):
        queue.ring_now(queue.IMPORTS)


def ring_fetches(session: Session) -> None:
    """The same for what is to be fetched, but for a page whose host is busy; for texts to be written; and for CRMs to be
    read back."""
    reading = wiring.settings().crm_pull_seconds > 0
    if fetching.has_due(session) or claims.has_due(session, claims.TEXTS) or (reading and crm_pulls.has_due(session)):
        queue.ring_now(queue.FETCHES)


def begin_reading_crms(session: Session) -> int:
    """See that CRMs are read back which are new or were switched on. Returns how many."""
    begun = crm_pulls.begin(session) if wiring.settings().crm_pull_seconds else 0
    session.commit()
    return begun


def purge_idempotency_keys(session: Session) -> int:
    """Forget keys past their days. Returns how many."""
    return _in_batches(
        session,
        "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY("
        " SELECT ctid FROM idempotency_keys WHERE expires_at < now() LIMIT :rows FOR UPDATE SKIP LOCKED))",
    )


def clear_dedupe_keys(session: Session) -> int:
    """Let leads past the duplicate window no longer take repeats as touches. Returns how many."""
    return _in_batches(
        session,
        "UPDATE leads SET dedupe_key = NULL WHERE id = ANY (ARRAY("
        " SELECT id FROM leads WHERE dedupe_key IS NOT NULL"
        " AND created_at < now() - make_interval(days => :days) LIMIT :rows FOR UPDATE SKIP LOCKED))",
        days=wiring.settings().duplicate_days,
    )


def forget_imports(session: Session) -> int:
    """Delete the records and files of old imports, and what uploads that broke off have left. Returns how many."""
    found = wiring.settings()
    return imports.forget_old(session, found.imports_folder, days=found.import_keep_days)


def forget_answers(session: Session) -> int:
    """Delete what enrichment was answered, a day after it has ceased to serve. Returns how many."""
    return _in_batches(
        session,
        "DELETE FROM enrichment_answers WHERE ctid = ANY (ARRAY("
        " SELECT ctid FROM enrichment_answers WHERE expires_at < now() - make_interval(days => 1)"
        " LIMIT :rows FOR UPDATE SKIP LOCKED))",
    )


def forget_crm_requests(session: Session) -> int:
    """Forget what callers asked of the CRM some weeks ago. Returns how many."""
    days = {"days": CRM_REQUEST_DAYS}
    statement = (
        "DELETE FROM {table} WHERE ctid = ANY (ARRAY("
        " SELECT ctid FROM {table} WHERE created_at < now() - make_interval(days => :days){over}"
        " LIMIT :rows FOR UPDATE SKIP LOCKED))"
    )
    syncs = _in_batches(session, statement.format(table="sync_requests", over=""), **days)
    if isinstance(syncs, Unfinished):
        return syncs
    tasks = _in_batches(session, statement.format(table="task_requests", over=" AND finished_at IS NOT NULL"), **days)
    return type(tasks)(syncs + tasks)


def drop_stale_presence(session: Session) -> int:
    """Forget who had which lead open. Returns how many rows went."""
    return _in_batches(
        session,
        "DELETE FROM lead_presence WHERE ctid = ANY (ARRAY("
        " SELECT ctid FROM lead_presence WHERE seen_at < now() - make_interval(mins => :minutes)"
        " LIMIT :rows FOR UPDATE SKIP LOCKED))",
        minutes=PRESENCE_MINUTES,
    )


def run_out_suppressions(session: Session) -> int:
    """Take what has expired off the suppression lists. Returns how many entries."""
    gone = suppression.run_out(session)
    session.commit()
    return gone


def rescore(session: Session) -> int:
    """Bring the scores of waiting leads that have lost a point to age up to date. Returns how many."""
    return _for_a_turn(session, rescoring.batch)


def forget_quarantine(session: Session) -> int:
    """Delete entries that were replayed or discarded long ago. Returns how many."""
    return _in_batches(
        session,
        "DELETE FROM quarantine WHERE id = ANY (ARRAY("
        " SELECT id FROM quarantine WHERE state <> 'held'"
        " AND coalesce(decided_at, created_at) < now() - make_interval(days => :days)"
        " LIMIT :rows FOR UPDATE SKIP LOCKED))",
        days=QUARANTINE_DAYS,
    )


def forget_llm_calls(session: Session) -> int:
    """Forget what asking models took long ago. Returns how many questions."""
    return _in_batches(
        session,
        "DELETE FROM llm_calls WHERE id = ANY (ARRAY("
        " SELECT id FROM llm_calls WHERE created_at < now() - make_interval(days => :days)"
        " LIMIT :rows FOR UPDATE SKIP LOCKED))",
        days=llm_usage.KEEP_DAYS,
    )


def _in_batches(session: Session, statement: str, **values: int) -> int:
    """Repeat ``statement`` on ``PURGE_ROWS`` rows at a time."""

    def batch(session: Session) -> int:
        return session.connection().execute(sa.text(statement), {"rows": PURGE_ROWS, **values}).rowcount

    return _for_a_turn(session, batch)


def _for_a_turn(session: Session, batch: Callable[[Session], int]) -> int:
    """Repeat ``batch`` until it has done nothing, committing each. Returns how many it did; Unfinished when the turn was
    over before."""
    until = time.monotonic() + TURN_SECONDS
    total = 0
    while True:
        done = batch(session)
        session.commit()
        total += done
        if not done:
            return total
        if time.monotonic() >= until:
            return Unfinished(total)


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job of the clock. ``every``: seconds from one start to the next; all run once when the clock starts, and again at
    once after a turn that was :class:`Unfinished`."""

    name: str
    every: float
    run: Callable[[Session], object]


def give_out_backlog(session: Session) -> int:
    """Leads that wait for their team go to whoever has begun to work. Returns how many."""
    until = time.monotonic() + TURN_SECONDS
    return backlog.drain(session, stop=lambda: time.monotonic() >= until)


def settle_alerts(session: Session) -> int:
    """Resolve alerts whose trouble has passed. Returns how many."""
    done = backlog.settle_alerts(session) + alerting.settle(session)
    session.commit()
    return done


def refresh_sla(session: Session) -> int:
    """Tell what waits when it is due, after hours or targets have changed. Returns how many leads were looked at."""
    return _for_a_turn(session, sla.refresh)


JOBS = (
    Periodic("ring runs", 1, ring_runs),
    Periodic("ring deliveries", 1, ring_deliveries),
    Periodic("ring imports", 1, ring_imports),
    Periodic("ring fetches", 1, ring_fetches),
    Periodic("give out backlog", 5, give_out_backlog),
    Periodic("refresh SLA", 5, refresh_sla),
    Periodic("begin reading CRMs", 30, begin_reading_crms),
    Periodic("settle alerts", 30, settle_alerts),
    Periodic("expire suppressions", 30, run_out_suppressions),
    Periodic("rescore", 60, rescore),
    Periodic("purge idempotency keys", 3600, purge_idempotency_keys),
    Periodic("clear dedupe keys", 3600, clear_dedupe_keys),
    Periodic("drop stale presence", 3600, drop_stale_presence),
    Periodic("forget CRM requests", 3600, forget_crm_requests),
    Periodic("forget imports", 3600, forget_imports),
    Periodic("forget answers of enrichment", 3600, forget_answers),
    Periodic("forget quarantine", 3600, forget_quarantine),
    Periodic("forget calls of models", 3600, forget_llm_calls),
)


class Clock:
    """Runs each job when its time has come, one after another. A job that fails is tried at its next time; a
    failing job is logged when it begins to fail and when it works again, not each second."""

    def __init__(self, jobs: tuple[Periodic, ...] = JOBS) -> None:
        self._next = dict.fromkeys(jobs, 0.0)
        self._failing: set[Periodic] = set()

    def tick(self, now: float) -> None:
        """Run what is due at ``now`` (seconds of a monotonic clock)."""
        for job, when in self._next.items():
            if now >= when:
                self._next[job] = now + self._run(job)

    def _run(self, job: Periodic) -> float:
        """Seconds until its next time."""
        try:
            with wiring.session_factory()() as session:
                done = job.run(session)
        except Exception as error:  # the clock must outlive everything
            if job not in self._failing:
                log.warning("%s: failed, going on without it: %s", job.name, logs.in_a_line(error))
            self._failing.add(job)
            return min(job.every, 60)  # an hourly job is worth another try before the hour is over
        if job in self._failing:
            log.warning("%s: works again", job.name)
            self._failing.discard(job)
        return 0.0 if isinstance(done, Unfinished) else job.every


def main() -> int:
    setproctitle("leadops: clock")
    try:
        settings = wiring.settings()
    except ConfigError as error:
        print(f"clock: {error}", flush=True)
        return 2
    logs.configure(settings.log_level)
    queue.init(wiring.redis_url())
    stopping = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    clock = Clock()
    while not stopping.is_set():
        clock.tick(time.monotonic())
        stopping.wait(1.0)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

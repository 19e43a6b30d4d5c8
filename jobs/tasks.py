"""What a ring does, under the names that RQ shows. A drain is bounded, and rings again when more is due.

They need nothing but the environment, so a stock ``rq worker`` can run them as well.
"""

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rq import get_current_job

from jobs import queue, wiring
from jobs.courtesy import Courtesy
from jobs.telling import Teller
from webapp import logs
from webapp.leads import (
    alerting,
    claims,
    copywriting,
    crm_pulling,
    crm_tasks,
    deliver,
    fetching,
    imports,
    replays,
    rerun_work,
    run,
    run_store,
    suppression_walk,
    task_texts,
)
from webapp.leads.claims import Holder, SlotTaken
from webapp.leads.lookalikes import search
from webapp.leads.ports import Drained
from webapp.models.faults import is_database_away

log = logging.getLogger(__name__)

#: The bounds of one drain: then a new ring, so that RQ's own time limit never cuts work short.
MAX_ROWS = 5_000
MAX_SECONDS = 5.0
#: The same for reading CRMs back, which shares its worker with fetches: a call under way is waited for besides.
READ_SECONDS = 2.0
#: How long an import goes on when nothing else waits for its worker.
ALONE_SECONDS = 30.0

#: Set by ``jobs.worker``; a stock worker is never asked to stop in the middle of a drain.
should_stop: Callable[[], bool] = lambda: False  # noqa: E731
#: Sleeps so many seconds; a worker process sets one that its end cuts short.
pause: Callable[[float], object] = time.sleep


#: Set by ``jobs.worker``: this process outlives its jobs. A stock worker's child ends with its one.
resident = False


class DrainFailed(Exception):
    """A rung drain broke off. RQ writes this to its log and to Redis, so it holds no row's contents."""


@dataclass(slots=True)
class _Process:
    """This process's place among the workers, entered once. ``own_slot``: its name for itself when it has lost
    ``WORKER_SLOT`` to another process; a forked child has none of this."""

    pid: int = 0
    holder: Holder = field(default_factory=Holder)
    own_slot: tuple[int, str] | None = None


_process = _Process()


def slot_name() -> str | None:
    """``WORKER_SLOT`` on this host: what a restarted worker has in common with the one before."""
    if _process.own_slot and _process.own_slot[0] == os.getpid():
        return _process.own_slot[1]
    slot = os.environ.get("WORKER_SLOT")
    return f"{socket.gethostname()}/{slot}" if slot else None


def enter() -> Holder:
    """Take this process's slot anew, freeing what it (or whoever had it before) still holds."""
    slot = slot_name()
    if slot is None:
        holder = Holder()
    else:
        with wiring.session_factory().begin() as session:
            holder = Holder(slot=slot, incarnation=claims.enter(session, slot))
    _process.pid, _process.holder = os.getpid(), holder
    return holder


def leave() -> None:
    """Forget the place: the next drain enters it anew. For when a drain broke off and may still hold rows."""
    _process.pid = 0


def _holder() -> Holder:
    holder = _process.holder if _process.pid == os.getpid() else enter()
    job = get_current_job()
    return replace(holder, rq_job_id=job.id if job else None)


def _move(taken: SlotTaken) -> None:
    """Two workers have one name: leave it to the other one and go on under a name that nobody else has."""
    # Not the process id alone: containers of one host name count theirs from 1.
    own = f"{taken.slot}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    log.error("%s; going on as %s. Give each worker a WORKER_SLOT of its own.", taken, own)
    _process.own_slot = (os.getpid(), own)
    leave()


def _drain(queue_name: str, work: Callable[[Holder], Drained]) -> int:
    holder = _holder()
    queue.init(wiring.redis_url())
    try:
        drained = work(holder)
    except SlotTaken as taken:
        if should_stop():
            return 0  # it is our successor's
        _move(taken)
        drained = work(_holder())
    if drained.more:
        queue.ring(queue_name)
    return drained.done


def drain_runs() -> int:
    """Work due runs; returns how many."""
    return _drain(
        queue.RUNS,
        lambda holder: run.process(
            wiring.session_factory(),
            holder,
            max_rows=MAX_ROWS,
            max_seconds=MAX_SECONDS,
            default_region=wiring.settings().default_region,
            hold_seconds=wiring.settings().undo_window_seconds,
            judges=wiring.judges(),
            enriching=wiring.enriching(),
            stop=lambda: should_stop(),
            rest=Courtesy(pause, _is_behind).step_back,
        ),
    )


def _is_behind() -> bool:
    with wiring.session_factory()() as session:
        return run_store.is_behind(session)


def _untold() -> bool:
    with wiring.session_factory()() as session:
        return alerting.has_due(session)


def _tell() -> int:
    return alerting.tell(
        wiring.session_factory(),
        wiring.clients(),
        public_url=wiring.settings().public_url,
        stop=lambda: should_stop(),
    )


#: Alerts are sent on beside the work.
teller = Teller(_tell)


def drain_deliveries() -> int:
    """Send due deliveries, then go on with rounds of follow-up tasks and replays of dead letters, and tell of alerts;
    returns how many."""

    def work(holder: Holder) -> Drained:
        with wiring.session_factory().begin() as session:
            wanted = task_texts.want_for_deliveries(session)
        if wanted:
            queue.ring(queue.FETCHES)
        sent = deliver.process(
            wiring.session_factory(),
            holder,
            wiring.clients(),
            max_rows=MAX_ROWS,
            max_seconds=MAX_SECONDS,
            policy=wiring.delivery_policy(),
            stop=lambda: should_stop(),
        )
        rounds = crm_tasks.process(
            wiring.session_factory(),
            holder,
            wiring.lookup_clients(),
            max_seconds=MAX_SECONDS,
            policy=wiring.delivery_policy(),
            writing=wiring.writing(),
            stop=lambda: should_stop(),
        )
        again = replays.process(
            wiring.session_factory(), holder, max_seconds=MAX_SECONDS, clock=time.monotonic, stop=lambda: should_stop()
        )
        if _untold():
            teller.start()
            if not resident:
                teller.wait()
        return Drained(sent.done + rounds.done, sent.more or rounds.more or again.done > 0 or again.more)

    return _drain(queue.DELIVERIES, work)


def drain_imports() -> int:
    """Go on with re-runs, take files in, take back what is to be undone, compare leads with suppression lists that have
    changed, then people with each other; returns how many runs, rows, leads and people."""
    rerun = _drain(
        queue.IMPORTS,
        lambda holder: rerun_work.process(
            wiring.session_factory(), holder, max_seconds=MAX_SECONDS, stop=lambda: should_stop()
        ),
    )
    if rerun:
        queue.ring(queue.RUNS)
    brought = _drain(
        queue.IMPORTS,
        lambda holder: imports.process(
            wiring.session_factory(),
            holder,
            folder=wiring.settings().imports_folder,
            seal=wiring.seal(),
            tenant_of=wiring.tenant_of,
            max_seconds=MAX_SECONDS,
            alone_seconds=ALONE_SECONDS,
            helpers=wiring.settings().import_helpers,
            stop=lambda: should_stop(),
        ),
    )
    if brought:
        queue.ring(queue.RUNS)
    undone = _drain(
        queue.IMPORTS,
        lambda holder: imports.process_undos(
            wiring.session_factory(), holder, max_seconds=MAX_SECONDS, stop=lambda: should_stop()
        ),
    )
    return rerun + brought + undone + compare_suppressed() + compare_people()


def compare_suppressed() -> int:
    """Compare the leads that are here with suppression lists that have changed; returns how many were compared."""
    compared = suppression_walk.process(
        wiring.session_factory(),
        MAX_SECONDS,
        hold_seconds=wiring.settings().undo_window_seconds,
        stop=lambda: should_stop(),
    )
    if compared.more:
        queue.ring(queue.IMPORTS)
    if compared.done:
        queue.ring(queue.DELIVERIES)
        queue.ring(queue.RUNS)  # of what was let go
    return compared.done


def compare_people() -> int:
    """Search for look-alikes as long as no run waits, which somebody may be waiting for, and few people arrive; returns
    how many were compared."""

    def busy() -> bool:
        with wiring.session_factory()() as session:
            return claims.has_due(session, claims.RUNS) or not search.is_quiet(session)

    if should_stop() or busy():
        return 0  # the clock rings once it is quiet
    compared = search.process(wiring.session_factory(), MAX_ROWS, MAX_SECONDS, lambda: should_stop() or busy())
    if compared.more:
        queue.ring(queue.IMPORTS)
    return compared.done


def drain_fetches() -> int:
    """Fetch what is due and take in what was found, write texts of tasks, then read CRMs back; returns how many were
    settled, written and read."""
    done = _drain(
        queue.FETCHES,
        lambda holder: fetching.process(
            wiring.session_factory(),
            holder,
            wiring.fetchers(),
            max_rows=MAX_ROWS,
            max_seconds=MAX_SECONDS,
            policy=wiring.fetch_policy(),
            stop=lambda: should_stop(),
        ),
    )
    if done:
        queue.ring(queue.RUNS)
    written = _drain(
        queue.FETCHES,
        lambda holder: copywriting.process(
            wiring.session_factory(), holder, wiring.writing(), max_seconds=MAX_SECONDS, stop=lambda: should_stop()
        ),
    )
    if written:
        queue.ring(queue.DELIVERIES)
    return done + written + read_crms()


def read_crms() -> int:
    """Read back what became of leads; returns how many CRMs were gone on with. In small turns, as fetches wait for it."""
    every = wiring.settings().crm_pull_seconds
    if not every or should_stop():
        return 0
    return _drain(
        queue.FETCHES,
        lambda holder: crm_pulling.process(
            wiring.session_factory(),
            holder,
            wiring.lookup_clients(),
            every=every,
            policy=wiring.delivery_policy(),
            max_seconds=READ_SECONDS,
            stop=lambda: should_stop(),
        ),
    )


def process_runs() -> int:
    """What a ring of ``runs`` does."""
    return _rung(drain_runs)


def process_deliveries() -> int:
    """What a ring of ``deliveries`` does."""
    return _rung(drain_deliveries)


def process_imports() -> int:
    """What a ring of ``imports`` does."""
    return _rung(drain_imports)


def process_fetches() -> int:
    """What a ring of ``fetches`` does."""
    return _rung(drain_fetches)


def _rung(drain: Callable[[], int]) -> int:
    try:
        return drain()
    except Exception as error:
        leave()
        said = logs.in_a_line(error)
        if is_database_away(error):  # the rows wait, and the clock rings for them
            if logs.say_database_away():
                log.warning("PostgreSQL is away, leaving it to a later ring: %s", said)
            return 0
        # Where it happened, but not the error itself.
        raise DrainFailed(said).with_traceback(error.__traceback__) from None

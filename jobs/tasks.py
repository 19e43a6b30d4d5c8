"""What a ring does, under the names that RQ shows. A drain is bounded, and rings again when more is due.

They need nothing but the environment, so a stock ``rq worker`` can run them as well.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rq import get_current_job

from jobs import queue, wiring
from webapp.leads import claims, deliver, run
from webapp.leads.claims import Holder

#: The bounds of one drain: then a new ring, so that RQ's own time limit never cuts work short.
MAX_ROWS = 5_000
MAX_SECONDS = 5.0

#: Set by ``jobs.worker``; a stock worker is never asked to stop in the middle of a drain.
should_stop: Callable[[], bool] = lambda: False  # noqa: E731


@dataclass(slots=True)
class _Process:
    """This process's place among the workers, entered once."""

    pid: int = 0
    holder: Holder = field(default_factory=Holder)


_process = _Process()


def slot_name() -> str | None:
    """``WORKER_SLOT`` on this host: what a restarted worker has in common with the one before."""
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


def process_runs() -> int:
    """Work due runs; returns how many."""
    holder = _holder()
    queue.init(wiring.redis_url())
    drained = run.process(
        wiring.session_factory(),
        holder,
        max_rows=MAX_ROWS,
        max_seconds=MAX_SECONDS,
        default_region=wiring.settings().default_region,
        hold_seconds=wiring.settings().undo_window_seconds,
        stop=lambda: should_stop(),
    )
    if drained.more:
        queue.ring(queue.RUNS)
    return drained.done


def process_deliveries() -> int:
    """Send due deliveries; returns how many."""
    holder = _holder()
    queue.init(wiring.redis_url())
    drained = deliver.process(
        wiring.session_factory(),
        holder,
        wiring.clients(),
        max_rows=MAX_ROWS,
        max_seconds=MAX_SECONDS,
        policy=wiring.delivery_policy(),
        stop=lambda: should_stop(),
    )
    if drained.more:
        queue.ring(queue.DELIVERIES)
    return drained.done

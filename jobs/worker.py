"""A worker process: ``python -m jobs.worker runs`` (or ``deliveries``, ``imports``, ``fetches``); one queue each.

It is RQ's ``SimpleWorker`` with the parts replaced that fit rows as the truth:

* It takes its slot (``WORKER_SLOT``) with a new incarnation at start, which frees at once what a killed
  predecessor still held, and drains once before it listens, so that recovery waits neither for a ring nor for
  a lease.
* Should another process take its slot, it says so and goes on under a name of its own (``jobs.tasks``).
* It looks at the table itself whenever no ring came for two seconds, and each second while Redis is away.
* RQ's name and registries are never in the way of a restart: names are random, rings have fresh ids.
"""

import argparse
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import SimpleWorker
from rq.exceptions import DequeueTimeout, StopRequested
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus
from setproctitle import setproctitle

from jobs import queue, tasks, wiring
from webapp import logs
from webapp.config import ConfigError
from webapp.leads.ruleset import default_ruleset
from webapp.models.faults import is_database_away

log = logging.getLogger(__name__)

DRAINS: dict[str, Callable[[], int]] = {
    queue.RUNS: tasks.drain_runs,
    queue.DELIVERIES: tasks.drain_deliveries,
    queue.IMPORTS: tasks.drain_imports,
    queue.FETCHES: tasks.drain_fetches,
}
#: How long a worker listens before it looks at the table itself.
LISTEN_SECONDS = 2
#: How long it waits between looks while Redis is away.
AWAY_SECONDS = 1.0
#: How far a worker steps back when cores are short: what is being taken in comes before what is only queued.
NICENESS = 10
#: RQ listens for its ``worker_ttl`` less 15 s.
_WORKER_TTL = LISTEN_SECONDS + 15


class LeadOpsWorker(SimpleWorker):
    """Listens on one queue; whatever ends the listening, ``Process`` decides how to go on."""

    def __init__(self, queue_name: str, connection: redis.Redis, process: "Process") -> None:
        self.process = process
        super().__init__([queue_name], connection=connection, worker_ttl=_WORKER_TTL, serializer=JSONSerializer)

    @property
    def connection_timeout(self) -> int:
        """Seconds after which a Redis that says nothing at all counts as away."""
        return self.dequeue_timeout + 2

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        """Wait for a ring, looking at the table when none comes. Redis going away ends the listening
        quietly."""
        self.set_state(WorkerStatus.IDLE)
        while not self.process.stopping.is_set():
            try:
                self.heartbeat()
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()  # type: ignore[no-untyped-call]
                with self.process.interruptible():
                    return self.queue_class.dequeue_any(
                        self._ordered_queues,
                        timeout,
                        connection=self.connection,
                        job_class=self.job_class,
                        serializer=self.serializer,
                        death_penalty_class=self.death_penalty_class,
                    )
            except DequeueTimeout:
                self.process.drain()
            except redis.exceptions.RedisError as error:
                self.process.redis_is_away(error)
                break
        raise StopRequested

    def handle_exception(self, job: Any, *exc_info: Any) -> None:
        """A ring's drain broke off: what it held is freed by entering the slot anew."""
        tasks.leave()
        super().handle_exception(job, *exc_info)

    def procline(self, message: str) -> None:
        """The title says which part of Lead Ops this is, not what RQ does at the moment."""

    def subscribe(self) -> None:
        """RQ's remote commands are not used: one connection and one thread fewer that must survive Redis."""

    def unsubscribe(self) -> None:
        """See ``subscribe``."""

    def _install_signal_handlers(self) -> None:
        """``Process`` has installed its own, which work with Redis away as well."""


class Process:
    """The life of a worker process: listen while Redis is there, look at the table each second while it is
    not."""

    def __init__(self, queue_name: str) -> None:
        self.queue_name = queue_name
        self.stopping = threading.Event()
        self._listening = False
        self._away = False
        self._failing = False

    def install_signal_handlers(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopping.set()
        if self._listening:  # never in the middle of work: a batch is finished, and is short
            self._listening = False
            raise StopRequested

    def interruptible(self) -> "_Interruptible":
        """Within it SIGTERM takes effect at once."""
        return _Interruptible(self)

    def drain(self) -> bool:
        """Work what is due without a ring. False when it could not be done (PostgreSQL away, or a bug)."""
        try:
            DRAINS[self.queue_name]()
        except Exception as error:
            tasks.leave()
            if not self._failing:
                if is_database_away(error):
                    log.warning("PostgreSQL is away, trying again: %s", logs.in_a_line(error))
                else:
                    log.exception("draining %s failed, trying again", self.queue_name)
            self._failing = True
            return False
        if self._failing:
            log.warning("draining %s works again", self.queue_name)
        self._failing = False
        return True

    def run(self, connection: redis.Redis) -> None:
        """Until SIGTERM or SIGINT."""
        while not self.stopping.is_set():
            self.drain()
            if self.stopping.is_set() or self._listen(connection):
                continue
            self.stopping.wait(AWAY_SECONDS)

    def _listen(self, connection: redis.Redis) -> bool:
        """Serve rings until Redis goes away (False) or the process is to stop (True)."""
        try:
            worker = LeadOpsWorker(self.queue_name, connection, self)
            if self._away:
                log.warning("Redis is back")
            self._away = False
            worker.work(logging_level="WARNING")
        except redis.exceptions.RedisError as error:
            self.redis_is_away(error)
        except StopRequested:
            pass
        return self.stopping.is_set()

    def redis_is_away(self, error: Exception) -> None:
        """Said once each time."""
        if not self._away:
            log.warning("Redis is away, looking at the table each second: %s", error)
        self._away = True


class _Interruptible:
    def __init__(self, process: Process) -> None:
        self._process = process

    def __enter__(self) -> None:
        self._process._listening = True
        if self._process.stopping.is_set():  # it came just before
            self._process._listening = False
            raise StopRequested

    def __exit__(self, *exc_info: object) -> None:
        self._process._listening = False


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m jobs.worker", description="Work one queue until stopped.")
    parser.add_argument("queue", choices=sorted(DRAINS))
    name = parser.parse_args(arguments).queue
    slot = os.environ.setdefault("WORKER_SLOT", f"{name}-{os.getpid()}")
    setproctitle(f"leadops: worker {slot}")
    try:
        settings = wiring.settings()
    except ConfigError as error:
        print(f"worker: {error}", flush=True)
        return 2
    logs.configure(settings.log_level)
    os.nice(NICENESS)
    queue.init(wiring.redis_url())
    if name != queue.DELIVERIES:
        default_ruleset()  # compiled before the slot is taken, so that what is claimed is worked at once
        if name == queue.RUNS:
            wiring.judges()
        gc.collect()
        gc.freeze()  # it stays: no collection need walk it again
    process = Process(name)
    process.install_signal_handlers()
    tasks.should_stop = process.stopping.is_set
    tasks.pause = process.stopping.wait
    tasks.resident = True
    process.run(
        redis.Redis.from_url(
            wiring.redis_url(),
            socket_connect_timeout=1,
            socket_timeout=LISTEN_SECONDS + 2,
            retry=Retry(NoBackoff(), 0),
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

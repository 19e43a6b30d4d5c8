"""The doorbell: tell workers that a queue has due rows, without ever keeping the caller waiting.

``ring()`` sets a flag and returns. One background thread per process looks at the flags at most every 50 ms
and enqueues the RQ job that drains the queue, so that a thousand intakes a second cost twenty rings and no
request pays a Redis round trip. A ring that is lost (Redis away, process killed) is made good by the clock
within a second or two; therefore nothing here retries, raises or blocks.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Sequence

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue
from rq.serializers import JSONSerializer

log = logging.getLogger(__name__)

RUNS = "runs"
DELIVERIES = "deliveries"
IMPORTS = "imports"
FETCHES = "fetches"
#: Queue → the task that drains it, by dotted name: web processes do not import the domain's workers.
TASKS = {
    RUNS: "jobs.tasks.process_runs",
    DELIVERIES: "jobs.tasks.process_deliveries",
    IMPORTS: "jobs.tasks.process_imports",
    FETCHES: "jobs.tasks.process_fetches",
}

#: Least time between two rings of one process.
FLUSH_SECONDS = 0.05
#: A queue that holds so many rings needs no further one: each wakes a worker, and a drain takes all that is
#: due.
ENOUGH_RINGS = 3
#: How long Redis is left alone after it did not answer.
AWAY_SECONDS = 0.5
#: RQ's own limit on a drain, far beyond the bounds that a drain keeps by itself.
JOB_TIMEOUT_SECONDS = 600
RESULT_TTL_SECONDS = 60
FAILURE_TTL_SECONDS = 3600
_SOCKET_SECONDS = 0.5


class Doorbell:
    """Rings collected in this process and sent by one daemon thread, which starts with the first ring."""

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self._wanted: set[str] = set()
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._redis: redis.Redis | None = None
        self._away = False

    def ring(self, queue_name: str) -> None:
        """Ask for ``queue_name`` to be rung soon. Returns at once."""
        with self._condition:
            self._wanted.add(queue_name)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
                self._thread.start()
            self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._wanted:
                    self._condition.wait()
                wanted, self._wanted = self._wanted, set()
            time.sleep(FLUSH_SECONDS if self.send(sorted(wanted)) else AWAY_SECONDS)

    def send(self, queue_names: Sequence[str]) -> bool:
        """Ring now, in the calling thread. False when Redis did not answer; the rings are then dropped."""
        try:
            for name in queue_names:
                self._send(name)
        except Exception as error:  # whatever it is, a lost ring is not worth a caller's request
            if not self._away:
                log.warning("Redis is away, work waits for the clock: %s", error)
            self._away = True
            return False
        if self._away:
            log.warning("Redis is back")
        self._away = False
        return True

    def _send(self, name: str) -> None:
        queue = Queue(name, connection=self._connection(), serializer=JSONSerializer)
        if queue.count >= ENOUGH_RINGS:
            return
        queue.enqueue_call(
            TASKS[name],
            # Fresh: a fixed id would refuse the next ring while the last one's job is being worked or is
            # remembered.
            job_id=uuid.uuid4().hex,
            timeout=JOB_TIMEOUT_SECONDS,
            result_ttl=RESULT_TTL_SECONDS,
            failure_ttl=FAILURE_TTL_SECONDS,
            description=f"ring {name}",
        )

    def ping(self) -> bool:
        """True, or a RedisError."""
        return bool(self._connection().ping())

    def _connection(self) -> redis.Redis:
        if self._redis is None:
            self._redis = redis.Redis.from_url(
                self.redis_url,
                socket_timeout=_SOCKET_SECONDS,
                socket_connect_timeout=_SOCKET_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        return self._redis


_doorbell: Doorbell | None = None


def init(redis_url: str) -> None:
    """Say where Redis is; rings before this are dropped. Opens no connection; saying it again changes
    nothing."""
    global _doorbell
    if _doorbell is None or _doorbell.redis_url != redis_url:
        _doorbell = Doorbell(redis_url)


def ring(queue_name: str) -> None:
    """Ring ``queue_name`` soon (see the module). Call it after the commit that made the rows due."""
    if _doorbell is not None:
        _doorbell.ring(queue_name)


def ring_now(queue_name: str) -> bool:
    """Ring in the calling thread; for the clock, which has nothing else to do. False when Redis did not
    answer."""
    return _doorbell is not None and _doorbell.send([queue_name])


def answers() -> bool:
    """Does Redis answer now? For ``/readyz``; takes at most half a second."""
    try:
        return _doorbell is not None and bool(_doorbell.ping())
    except redis.RedisError:
        return False


def _after_fork() -> None:
    # The child has neither its parent's thread nor a right to its socket; locks may have been held at the
    # fork.
    global _doorbell
    if _doorbell is not None:
        _doorbell = Doorbell(_doorbell.redis_url)


os.register_at_fork(after_in_child=_after_fork)

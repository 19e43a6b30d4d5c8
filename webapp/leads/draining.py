"""The loop around claimed, network-bound work: claim, work in threads, save, keep the leases.

One thread, the caller's, owns all database work; the pool's threads do nothing but calls, so that no call ever happens
inside a transaction. What is claimed and what is saved is the caller's (``deliver``, ``fetching``).
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from sqlalchemy.orm import Session

from webapp.leads.claims import LEASE_SECONDS, Backlog, Claim, Holder, SlotTaken, is_current, renew

Result = TypeVar("Result")
SessionFactory = Callable[[], AbstractContextManager[Session]]
#: What is claimed, and the one call about it, which gives a result for each.
Work: TypeAlias = tuple[Sequence[Claim], Callable[[], Sequence[Result]]]

#: How often an unfinished drain looks for newly due rows and renews its leases, in seconds.
TICK = 0.5
_RENEW_EVERY = LEASE_SECONDS / 3
#: While so many calls are under way that were begun within so many seconds, most of them are saved together: what a turn
#: costs is then shared, and a drain under load is bound by its calls instead of its turns.
_MANY, _YOUNG = 8, 0.5
#: How long they are waited for, in seconds: after the first, and after one another. Calls that take long, to another
#: destination perhaps, hold up nobody else.
_TOGETHER, _APART = 0.1, 0.05


@dataclass(frozen=True, slots=True)
class _Flight:
    claims: Sequence[Claim]
    began: float


class Drain(Generic[Result]):
    """One bounded drain of a backlog by ``threads`` threads. ``run`` once."""

    def __init__(
        self,
        backlog: Backlog,
        session_factory: SessionFactory,
        holder: Holder,
        *,
        threads: int,
        lease_seconds: float,
        name: str,
        lingers: bool = False,
    ) -> None:
        """``lingers``: while calls that were under way at the end are waited for, others go on being claimed; the turn
        asks ``lingering`` then, and claims nothing that may hang as well."""
        self._backlog = backlog
        self._session_factory = session_factory
        self._holder = holder
        self._threads = threads
        self._lease_seconds = lease_seconds
        self._name = name
        self._flying: dict[Future[Sequence[Result]], _Flight] = {}
        self._renewed_at = time.monotonic()
        self._slot_taken = False
        self._lingers = lingers
        self._late: set[Future[Sequence[Result]]] | None = None  # under way when the time was over

    @property
    def lingering(self) -> bool:
        """The time is over, and only calls under way keep the drain."""
        return self._late is not None

    def run(
        self,
        turn: Callable[[Sequence[Result], int], Iterable[Work[Result]]],
        *,
        max_rows: int,
        max_seconds: float,
        stop: Callable[[], bool],
    ) -> None:
        """Until nothing is left to claim, ``max_rows`` were claimed or ``max_seconds`` have passed.

        ``turn`` saves what is done, claims for at most so many threads, commits, and returns the work of each; it runs
        in this thread, the work in the pool's. Calls under way at the end are waited for (each has its own time limit). ``stop``
        is asked before each claim; True ends the drain the same way. Raises SlotTaken, once such calls are over and
        saved, when another process has the holder's slot now.
        """
        with ThreadPoolExecutor(self._threads, thread_name_prefix=self._name) as pool:
            try:
                self._run(pool, turn, max_rows, time.monotonic() + max_seconds, stop)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        if self._slot_taken:
            raise SlotTaken(self._holder.slot)

    def _run(
        self,
        pool: ThreadPoolExecutor,
        turn: Callable[[Sequence[Result], int], Iterable[Work[Result]]],
        max_rows: int,
        ends_at: float,
        stop: Callable[[], bool],
    ) -> None:
        self._look_at_slot()
        claiming, claimed = True, 0
        done: list[Result] = []
        while True:
            if self._late is None and time.monotonic() >= ends_at:
                self._late = set(self._flying) if self._lingers else set()
            claiming = claiming and self._late != set() and claimed < max_rows and not stop()
            claiming = claiming and not self._slot_taken
            room = min(max_rows - claimed, self._threads - len(self._flying)) if claiming else 0
            if done or room > 0:
                for claims, work in turn(done, room):
                    claimed += len(claims)
                    self._flying[pool.submit(work)] = _Flight(claims, time.monotonic())
            if not self._flying:
                return
            finished = self._await_calls()
            done = [result for future in finished for result in future.result()]
            for future in finished:
                del self._flying[future]
                if self._late:
                    self._late.discard(future)
            self._keep_leases()

    def _await_calls(self) -> set[Future[Sequence[Result]]]:
        """Those that have ended, within :data:`TICK`."""
        finished, _ = wait(self._flying, timeout=TICK, return_when=FIRST_COMPLETED)
        now = time.monotonic()
        young = [future for future, flight in self._flying.items() if flight.began > now - _YOUNG]
        while finished and len(young) >= _MANY and 4 * len(finished) < 3 * len(young):
            left = min(now + _TOGETHER - time.monotonic(), _APART)
            others = [future for future in self._flying if future not in finished]
            also, _ = wait(others, timeout=max(left, 0.0), return_when=FIRST_COMPLETED)
            if not also:
                break
            finished |= also
        return finished

    def _look_at_slot(self) -> None:
        with self._session_factory() as session:
            self._slot_taken = not is_current(session, self._holder)

    def _keep_leases(self) -> None:
        """Renew in good time, and see whether another process has taken this worker's place."""
        if time.monotonic() - self._renewed_at < min(_RENEW_EVERY, self._lease_seconds / 3):
            return
        self._renewed_at = time.monotonic()
        with self._session_factory() as session:
            if self._flying:
                held = [claim for flight in self._flying.values() for claim in flight.claims]
                renew(session, self._backlog, held, seconds=self._lease_seconds)
            self._slot_taken = not is_current(session, self._holder)
            session.commit()

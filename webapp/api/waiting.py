"""Requests that wait, and the others, which must not notice.

A web process works on ``WEB_THREADS`` requests at once; more would only wait for one another (ADR 0005, 0069). A request
that waits for a model works on nothing, but it occupies a thread of the server. So the server has
``config.MOST_WAITING`` threads more, every request takes a turn before it begins, and one that waits lends its turn out
meanwhile. At most ``MOST_WAITING`` wait at a time: pages keep all the turns that they had.

Of these places at most ``MOST_OPTIONAL`` go to requests that can do without: calls that drive the CRM answer 202 and
where to ask again, while ``/enrich-lead`` has only 503 to give. So some are always left for it, whatever the CRM does.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from webapp.config import MOST_WAITING
from webapp.leads.errors import Transient

#: Places that requests with another answer to give may take, of the ``MOST_WAITING``.
MOST_OPTIONAL = 2


class Turns:
    """WSGI middleware: ``at_once`` requests are worked on, the next wait for their turn as they would for a thread."""

    def __init__(self, app: Callable[..., Iterable[bytes]], at_once: int, *, most_waiting: int = MOST_WAITING) -> None:
        self._app = app
        self._turns = threading.Semaphore(at_once)
        self._lock = threading.Lock()
        self.places = most_waiting  # that are free
        self._optional = min(MOST_OPTIONAL, most_waiting)  # of these, for requests that can do without

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._turns:
            return self._app(environ, start_response)

    def require_place(self) -> None:
        """Transient (503) when nobody more may wait just now: cheaper to learn before anything is done."""
        if self.places <= 0:
            raise _no_place()

    @contextmanager
    def place(self, *, optional: bool = False) -> Iterator[None]:
        """A place among those who wait. Transient (503) when all are taken, or all that there are for requests with
        another answer to give (``optional``)."""
        with self._lock:
            if self.places <= 0 or (optional and self._optional <= 0):
                raise _no_place()
            self.places -= 1
            self._optional -= optional
        try:
            yield
        finally:
            with self._lock:
                self.places += 1
                self._optional += optional

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let somebody else work while this request waits. It goes on when there is a turn again."""
        self._turns.release()
        try:
            yield
        finally:
            self._turns.acquire()


def _no_place() -> Transient:
    return Transient("too many requests are waiting for the model; nothing was stored, send it again", retry_after=2)

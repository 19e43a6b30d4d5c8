"""Alerts sent on to chat, beside the work of a worker: a chat that hangs must not hold up deliveries.

One thread of a process at most, so however much trouble there is, it is a few calls at a time. Who asks while it is
busy is served by the next ring: the clock rings as long as alerts are untold.
"""

import logging
import threading
from collections.abc import Callable

from webapp import logs
from webapp.models.faults import is_database_away

log = logging.getLogger(__name__)


class Teller:
    """Runs ``tell`` in a thread of its own. The thread is waited for when the process ends, which ``tell`` hears of by
    its own means."""

    def __init__(self, tell: Callable[[], object]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> bool:
        """False when it is under way already."""
        with self._lock:
            if self.busy:
                return False
            self._thread = threading.Thread(target=self._run, name="tell")
            self._thread.start()
            return True

    def wait(self) -> None:
        """Until it is over; for a process that ends with its job."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._tell()
        except Exception as error:
            said = logs.in_a_line(error)
            if is_database_away(error):
                log.warning("alerts could not be told, PostgreSQL is away: %s", said)
            else:
                log.error("alerts could not be told: %s", said, exc_info=error)

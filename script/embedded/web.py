"""The web program: granian on wsgi.py, with a title, and without orphans.

What it adds to `granian --interface wsgi wsgi:app` is that each worker asks to be killed when the main
process dies: otherwise a killed one leaves workers that keep the port.
"""

import os
import signal
from collections.abc import Callable

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server
from setproctitle import setproctitle

from embedded.process import die_with_parent
from webapp.config import load_settings

TITLE = "leadops: web"


def load_app(_target: str) -> Callable[..., object]:
    """Runs in each worker, before the application is imported there."""
    die_with_parent(signal.SIGKILL, int(os.environ["LEADOPS_WEB_PID"]))
    setproctitle(TITLE)  # granian's own title for it would name it a worker, which is another part here
    from wsgi import app

    return app


def main() -> None:
    settings = load_settings()
    os.environ["LEADOPS_WEB_PID"] = str(os.getpid())
    server = Server(
        "wsgi:app",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=settings.web_workers,
        blocking_threads=settings.threads_in_all,
        respawn_failed_workers=True,
        respawn_interval=0.2,
        workers_kill_timeout=3,
        process_name=TITLE,
        log_level=LogLevels.error,
        log_access=False,  # an address may be a secret: /hooks/<token>
    )
    server.serve(target_loader=load_app)


if __name__ == "__main__":
    main()

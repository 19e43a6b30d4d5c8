"""The two stacks under test, on one throw-away PostgreSQL and Redis: ours and the peer."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from cryptography.fernet import Fernet
from sqlalchemy.engine import make_url

from embedded import testing

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PEER_PYTHON = ROOT / ".venv" / "peer" / "bin" / "python"


def _libpq(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Stack:
    """Where everything is, and the processes started so far."""

    database_url: str
    peer_database_url: str
    redis_url: str
    env: dict[str, str]
    api_key: str = ""
    port: int = field(default_factory=free_port)
    peer_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    def flask(self, *arguments: str) -> str:
        """Run a flask command and return what it printed."""
        command = [sys.executable, "-m", "flask", "--app", "wsgi", *arguments]
        return subprocess.run(command, env=self.env, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout

    @contextlib.contextmanager
    def running(self, *command: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """A process that is ended, with its children, when the block is left."""
        process = subprocess.Popen(
            command, env=self.env | (env or {}), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def web(self) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Our web server, as script/server starts it, ready in all its processes; the first of them."""
        return self._ready(self.running(sys.executable, "-m", "embedded.web", env={"PORT": str(self.port)}), self.url)

    @contextlib.contextmanager
    def workers(self) -> Iterator[None]:
        """Our workers and clock, once they have started up: compiling the rules takes each of them seconds of a core."""
        names = ("runs", "deliveries", "imports", "fetches")
        with contextlib.ExitStack() as stack, psycopg.connect(_libpq(self.database_url), autocommit=True) as connection:
            connection.execute("DELETE FROM worker_slots")
            for name in names:
                slot = {"WORKER_SLOT": f"{name}-1"}
                stack.enter_context(self.running(sys.executable, "-m", "jobs.worker", name, env=slot))
            stack.enter_context(self.running(sys.executable, "-m", "jobs.schedule"))
            deadline = time.monotonic() + 60
            while connection.execute("SELECT count(*) FROM worker_slots").fetchone() != (len(names),):
                if time.monotonic() > deadline:
                    raise RuntimeError("the workers do not start")
                time.sleep(0.1)
            time.sleep(1)
            yield

    def peer_web(self) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """The peer's web server: uvicorn, two processes."""
        command = [str(PEER_PYTHON), "-m", "uvicorn", "peer:app", "--workers", "2", "--port", str(self.peer_port)]
        command += ["--log-level", "warning", "--app-dir", str(HERE / "peer")]
        return self._ready(self.running(*command, env=self.peer_env()), self.peer_url)

    def peer_worker(self) -> contextlib.AbstractContextManager[object]:
        return self.running(str(PEER_PYTHON), str(HERE / "peer" / "peer.py"), "worker", env=self.peer_env())

    def peer_init(self) -> None:
        subprocess.run(
            [str(PEER_PYTHON), str(HERE / "peer" / "peer.py"), "init"], env=self.env | self.peer_env(), check=True
        )

    def peer_env(self) -> dict[str, str]:
        url = make_url(self.peer_database_url).set(drivername="postgresql+asyncpg")
        return {"DATABASE_URL": url.render_as_string(hide_password=False)}

    @contextlib.contextmanager
    def _ready(
        self, process: contextlib.AbstractContextManager[subprocess.Popen[bytes]], url: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        with process as started:
            deadline = time.monotonic() + 60
            answered = 0
            while answered < 50:  # several, so that every process behind the port has answered
                try:
                    urllib.request.urlopen(f"{url}/healthz", timeout=5).close()
                    answered += 1
                except urllib.error.HTTPError:  # the peer has no such page, but it is there
                    answered += 1
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
            time.sleep(1)
            yield started


@contextlib.contextmanager
def stack() -> Iterator[Stack]:
    """Fresh servers, both schemas in place, a key of ours without a rate limit."""
    with testing.private_servers() as (postgres, redis_server), tempfile.TemporaryDirectory() as folder:
        made = Stack(
            database_url=postgres.url(),
            peer_database_url=postgres.create_database("peer"),
            redis_url=redis_server.url(),
            env={},
        )
        made.env = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'script'}",
            "DATABASE_URL": made.database_url,
            "REDIS_URL": made.redis_url,
            "SECRET_KEY": "benchmark benchmark benchmark benchmark",
            "FIELD_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
            "ADMIN_PASSWORD": "benchmark benchmark",
            "LOG_LEVEL": "WARNING",
            "IMPORTS_DIR": folder,
        }
        made.flask("db", "upgrade")
        made.flask("bootstrap")
        made.api_key = made.flask(
            "create-key", "--name", "bench", "--scopes", "ingest,read,review", "--rate-limit", "none"
        ).strip()
        made.env["API_KEY"] = made.api_key
        yield made


@dataclass(frozen=True)
class Load:
    """What wrk saw: answers per second, latencies in milliseconds, answers that were not 2xx."""

    per_second: float
    p50: float
    p99: float
    bad: int


def wrk(stack: Stack, url: str, *, seconds: int, connections: int = 16) -> Load:
    """Post unique leads for ``seconds``."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(HERE / "post_leads.lua"), url]
    said = subprocess.run(command, env=stack.env, check=True, stdout=subprocess.PIPE, text=True).stdout
    match = re.search(r"accepted/s (\d+)\s+p50 ([\d.]+) ms\s+p99 ([\d.]+) ms\s+non-2xx (\d+)", said)
    if not match:
        raise RuntimeError(f"wrk said: {said}")
    return Load(float(match[1]), float(match[2]), float(match[3]), int(match[4]))

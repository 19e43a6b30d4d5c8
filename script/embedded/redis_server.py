"""An embedded Redis: append-only file on, unix socket only, run by whoever runs us.

Redis holds nothing but doorbells and counters (PostgreSQL is the truth), so one write per second to
disk is enough.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import redis

from embedded import binaries
from embedded.errors import StartError
from embedded.paths import create_data_folder, private_folder, socket_folder, tail
from embedded.process import Identity, spawn, stop_child, stop_stranger

SOCKET_NAME = "redis.sock"
DATABASES = 64
"""More than Redis' 16: every parallel test process has one of its own."""

STOP_STEPS = [(signal.SIGTERM, 10.0)]


class RedisServer:
    """The one Redis of a data folder. Not for use by two processes at a time: see instance.py."""

    name = "redis"
    stop_signal = signal.SIGTERM

    def __init__(self, data_dir: str | os.PathLike[str], *, throw_away: bool = False) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.throw_away = throw_away
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.data_dir / "log" / "redis.log"
        self._home: Path | None = None
        self._sockets: Path | None = None

    def prepare(self) -> None:
        """Find or make its folders; starts nothing."""
        if self._home is None:
            create_data_folder(self.data_dir)
            private_folder(self.log.parent)
            self._home = private_folder(self.data_dir / "redis")
            self._sockets = socket_folder(self._home, SOCKET_NAME)

    @property
    def home(self) -> Path:
        self.prepare()
        assert self._home is not None
        return self._home

    @property
    def socket(self) -> Path:
        self.prepare()
        assert self._sockets is not None
        return self._sockets / SOCKET_NAME

    def url(self, database: int = 0) -> str:
        return f"unix://{quote(str(self.socket), safe='/')}?db={database}"

    def start(self, timeout: float = 30.0) -> None:
        """Return when it answers a ping (while it still loads its file, it does not)."""
        self.launch()
        self.await_ready(timeout)

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it without waiting (the supervisor's way of restarting)."""
        self.prepare()
        self._end_orphan()
        with self.log.open("ab") as output:
            self.process = spawn(
                [binaries.redis_server(), "--port", "0", "--unixsocket", self.socket, "--unixsocketperm",
                 "700", "--dir", self.home, "--appendonly", "no" if self.throw_away else "yes", "--save", "",
                 "--databases", str(DATABASES), "--maxmemory-policy", "noeviction", "--loglevel", "warning"],
                death_signal=signal.SIGTERM,
                cwd=self.home,
                output=output,
            )  # fmt: skip
        if identity := Identity.of(self.process.pid):
            self._pid_file.write_text(json.dumps(identity.to_json()))
        return self.process

    def await_ready(self, timeout: float = 30.0, given_up: Callable[[], bool] = lambda: False) -> None:
        deadline = time.monotonic() + timeout
        with self.client() as client:
            while not given_up():
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    assert self.process is not None
                    if self.process.poll() is not None:
                        raise StartError(f"Redis does not start: {tail(self.log)} (see {self.log})") from None
                    if time.monotonic() > deadline:
                        raise StartError(f"Redis does not start within {timeout:.0f} s; see {self.log}.") from None
                    time.sleep(0.02)

    def client(self, database: int = 0) -> redis.Redis:
        return redis.Redis.from_url(self.url(database))

    def stop(self) -> None:
        if self.process is not None:
            stop_child(self.process, STOP_STEPS)
            self.process = None

    def kill(self) -> None:
        """As if the machine had failed."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def flushall(self) -> None:
        """Forget everything, as an operator's slip would."""
        with self.client() as client:
            client.flushall()

    def destroy(self) -> None:
        """Stop and delete everything: for throw-away servers."""
        self.stop()
        home, sockets, self._home = self.home, self.socket.parent, None
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(sockets, ignore_errors=True)

    @property
    def _pid_file(self) -> Path:
        return self.home / "redis.pid.json"

    def _end_orphan(self) -> None:
        """Stop a Redis that its supervisor left behind; two on one append-only file would spoil it."""
        try:
            found = Identity.from_json(json.loads(self._pid_file.read_text()))
        except (OSError, ValueError):
            return
        if found and not stop_stranger(found, [*STOP_STEPS, (signal.SIGKILL, 5.0)]):
            raise StartError(f"A Redis (pid {found.pid}) of an earlier start does not stop.")

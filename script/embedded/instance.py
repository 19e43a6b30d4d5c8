"""One owner of the servers per data folder; whoever comes later joins it, or waits, or is told.

The owner holds an exclusive flock on <data>/instance.lock for as long as it lives: the kernel drops it
with the process, so a killed owner blocks nobody. <data>/instance.json (0600) says who it is and, once
its servers answer, where they are. Those that join hold a shared lock on <data>/joined.lock; an owner
that is only a passing command waits for them before it stops its servers.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal

from embedded import keys
from embedded.errors import StartError
from embedded.paths import PROJECT, create_data_folder, data_folder
from embedded.postgres import PostgresServer
from embedded.process import Identity
from embedded.redis_server import RedisServer

Role = Literal["server", "command"]

DATABASE_VARIABLES = ("DATABASE_URL", "DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD")

PATIENCE = 60.0
"""Seconds to wait for another owner that is on its way up or down."""


@dataclass(frozen=True)
class Servers:
    """Where the servers are: of the environment, joined, or our own."""

    database_url: str | None
    redis_url: str | None
    joined: bool = False


@dataclass(frozen=True)
class Wanted:
    """Which servers the environment leaves to us."""

    postgres: bool
    redis: bool

    @classmethod
    def by(cls, environ: Mapping[str, str]) -> "Wanted":
        return cls(
            postgres=not any(environ.get(name) for name in DATABASE_VARIABLES),
            redis=not environ.get("REDIS_URL"),
        )

    @property
    def any(self) -> bool:
        return self.postgres or self.redis


@dataclass(frozen=True)
class State:
    """instance.json."""

    owner: Identity
    role: str
    database_url: str | None = None
    redis_url: str | None = None
    ready: bool = False

    @classmethod
    def read(cls, path: Path) -> "State | None":
        """What a living owner says; None when there is none."""
        try:
            raw = json.loads(path.read_text())
            owner = Identity.from_json(raw.pop("owner"))
            return cls(owner, **raw) if owner and owner.alive else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, path: Path) -> None:
        partial = path.with_suffix(".new")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(vars(self) | {"owner": self.owner.to_json()}, file)
        partial.rename(path)


class Ownership:
    """The exclusive right to run servers in a data folder."""

    def __init__(self, data_dir: Path, role: Role) -> None:
        self.data_dir = data_dir
        self.state = State(Identity.me(), role)
        self._state_path = data_dir / "instance.json"
        self._lock = _open(data_dir / "instance.lock")

    def try_claim(self) -> bool:
        if not _flock(self._lock, fcntl.LOCK_EX):
            return False
        self.state.write(self._state_path)
        return True

    def claim_for_server(self) -> None:
        """Claim at once, or wait for a passing command; another server is an error."""
        deadline = time.monotonic() + PATIENCE
        while not self.try_claim():
            other = State.read(self._state_path)
            if other is not None and other.role == "server":
                raise StartError(
                    f"Another server (pid {other.owner.pid}) is running on the data folder {self.data_dir}."
                )
            if time.monotonic() > deadline:
                raise StartError(f"Another command keeps the data folder {self.data_dir} in use.")
            time.sleep(0.1)

    def publish(self, servers: Servers) -> None:
        """From now on others can join."""
        ready = replace(self.state, database_url=servers.database_url, redis_url=servers.redis_url, ready=True)
        ready.write(self._state_path)

    def withdraw(self) -> None:
        """Nobody new joins; those that have are waited for (within reason), unless we are the server."""
        self._state_path.unlink(missing_ok=True)
        if self.state.role == "command":
            with _open(self.data_dir / "joined.lock") as lock:
                _flock_within(lock, fcntl.LOCK_EX, PATIENCE)

    def release(self) -> None:
        self._lock.close()


@contextlib.contextmanager
def ensure(
    data_dir: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[Servers]:
    """Both servers for the length of a command: the environment's, a running server's, or our own for now."""
    environ = os.environ if environ is None else environ
    wanted = Wanted.by(environ)
    if not wanted.any:
        yield Servers(None, None)
        return
    folder = data_folder(data_dir)
    create_data_folder(folder)
    ownership = Ownership(folder, "command")
    deadline = time.monotonic() + PATIENCE
    while not ownership.try_claim():
        with _open(folder / "joined.lock") as lock:
            state = State.read(folder / "instance.json") if _flock(lock, fcntl.LOCK_SH) else None
            if state is not None and state.ready:
                ownership.release()
                yield Servers(
                    state.database_url if wanted.postgres else None,
                    state.redis_url if wanted.redis else None,
                    joined=True,
                )
                return
        if time.monotonic() > deadline:
            raise StartError(f"Another process holds the data folder {folder} and does not get ready.")
        time.sleep(0.1)
    try:
        with contextlib.ExitStack() as running:
            servers = _start_own(folder, wanted, running)
            ownership.publish(servers)
            running.callback(ownership.withdraw)
            yield servers
    finally:
        ownership.release()


def _start_own(folder: Path, wanted: Wanted, running: contextlib.ExitStack) -> Servers:
    database_url = redis_url = None
    if wanted.postgres:
        postgres = PostgresServer(folder)
        running.callback(postgres.stop)
        postgres.start()
        database_url = postgres.url()
    if wanted.redis:
        redis = RedisServer(folder)
        running.callback(redis.stop)
        redis.start()
        redis_url = redis.url()
    return Servers(database_url, redis_url)


def environment(folder: Path, servers: Servers, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the application's processes are started with."""
    result = dict(os.environ if environ is None else environ)
    if servers.database_url:
        result["DATABASE_URL"] = servers.database_url
        for name, value in keys.load_or_make(folder).items():
            if not result.get(name):
                result[name] = value
    else:
        keys.require(result)
    if servers.redis_url:
        result["REDIS_URL"] = servers.redis_url
    result["LEADOPS_DATA_DIR"] = str(folder)
    paths = [
        str(PROJECT),
        str(PROJECT / "script"),
        *filter(None, result.get("PYTHONPATH", "").split(os.pathsep)),
    ]
    result["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    return result


def _open(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")


def _flock(file: IO[bytes], mode: int) -> bool:
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _flock_within(file: IO[bytes], mode: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not _flock(file, mode):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True

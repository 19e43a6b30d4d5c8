"""Start a process that cannot outlive us, and recognise one that was started earlier.

On Linux every child asks the kernel for a signal at our death (PR_SET_PDEATHSIG), so `kill -9` leaves
no orphan. Elsewhere, and for the moment in between, a process is known by its pid together with its
start time: a pid alone may have been given to a stranger since.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self

PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawn")


@dataclass(frozen=True)
class Identity:
    """One process for ever: its pid, and when it was started."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The identity of a live process; None for a dead one or a zombie."""
        started = _start_time(pid)
        return cls(pid, started) if started else None

    @classmethod
    def me(cls) -> Self:
        identity = cls.of(os.getpid())
        assert identity is not None
        return identity

    @classmethod
    def from_json(cls, value: object) -> Self | None:
        match value:
            case {"pid": int(pid), "started": str(started)}:
                return cls(pid, started)
        return None

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @property
    def alive(self) -> bool:
        return _start_time(self.pid) == self.started

    def send(self, signum: int) -> None:
        """Signal this very process; silently nothing when it is gone or its pid is another's by now."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)


def _start_time(pid: int) -> str | None:
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in ("Z", "X") else fields[19]
    answer = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    state, _, started = answer.stdout.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


def die_with_parent(signum: int, parent: int | None = None) -> None:
    """Have this process receive `signum` when the thread that started it ends.

    `parent` is the pid it must still have: without that check a parent that died in between would
    never be noticed.
    """
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


@dataclass(frozen=True)
class Account:
    """Whom a process runs as; only root can choose."""

    name: str
    uid: int
    gid: int


def spawn(
    args: Sequence[str | os.PathLike[str]],
    *,
    death_signal: int,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[bytes] | int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a process group of its own that gets `death_signal` when we die.

    The kernel watches the thread that forks, not the process, so a call from a passing thread is
    handed to one that lives as long as we do.
    """
    parent = os.getpid()
    switch = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            args,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            cwd=cwd,
            process_group=0,
            umask=0o077,
            preexec_fn=lambda: die_with_parent(death_signal, parent),
            **switch,  # type: ignore[arg-type]
        )

    if threading.current_thread() is threading.main_thread():
        return start()
    return _spawner.submit(start).result()


def wait_until(condition: Callable[[], object], seconds: float, pause: float = 0.02) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True


def stop_stranger(identity: Identity, steps: Sequence[tuple[int, float]]) -> bool:
    """End a process that is not our child: each step is a signal and the seconds it is given."""
    for signum, seconds in steps:
        identity.send(signum)
        if wait_until(lambda: not identity.alive, seconds):
            return True
    return False


def stop_child(child: subprocess.Popen[bytes], steps: Sequence[tuple[int, float]]) -> None:
    """End a child of ours and reap it; SIGKILL follows the last step."""
    for signum, seconds in [*steps, (signal.SIGKILL, 10.0)]:
        if child.poll() is not None:
            return
        child.send_signal(signum)
        try:
            child.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            continue

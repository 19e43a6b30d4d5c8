"""The console as an operator runs it: script/server and script/flask as real processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from embedded.postgres import PostgresServer
from embedded.process import Identity

PROJECT = Path(__file__).resolve().parents[2]
NOBODY = 65534
#: Stopping takes five seconds at most; a machine that runs other tests beside it may add to that.
STOPPED_WITHIN = 7.0

OWN = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "FIELD_ENCRYPTION_KEYS", "ADMIN_PASSWORD", "HOST", "PORT")


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def environment(**more: object) -> dict[str, str]:
    """A plain environment in which the scripts use this very interpreter and install nothing."""
    kept = {k: v for k, v in os.environ.items() if k not in OWN and not k.startswith(("LEADOPS_", "PYTEST_"))}
    return kept | {"LEADOPS_PYTHON": sys.executable} | {k: str(v) for k, v in more.items()}


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def status_of(url: str) -> int | None:
    try:
        with _direct.open(url, timeout=3) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def descendants(pid: int) -> set[int]:
    """The process and everything below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = set(), [pid]
    while waiting:
        found.add(here := waiting.pop())
        waiting += parents.get(here, [])
    return found


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def listening_ports(pids: set[int]) -> set[tuple[str, int]]:
    """(hexadecimal address, port) of each TCP socket on which one of them listens."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(link))
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in Path(table).read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                address, _, port = fields[1].partition(":")
                found.add((address, int(port, 16)))
    return found


class Console:
    """One script/server on one data folder."""

    def __init__(self, data: Path, **variables: object) -> None:
        self.data = data
        self.port = int(str(variables.get("PORT") or free_port()))
        self.env = environment(**variables | {"LEADOPS_DATA_DIR": data, "PORT": self.port})
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self.seen: set[Identity] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def launch(self) -> None:
        self.lines = []
        self.process = subprocess.Popen(
            [PROJECT / "script" / "server"],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            self.lines.extend(stream)

    def start(self, seconds: float = 60.0) -> float:
        """Until it says Ready; returns the seconds that took."""
        began = time.monotonic()
        self.launch()
        assert self.process is not None
        process = self.process
        eventually(lambda: "Post a lead:" in self.output or process.poll() is not None, seconds)
        assert f"Ready: {self.url}" in self.output, self.output
        self.remember()
        return time.monotonic() - began

    def remember(self) -> None:
        """Keep the identities of all of its processes, to be able to say later that they are gone."""
        found = (Identity.of(pid) for pid in descendants(self.pid))
        self.seen |= {identity for identity in found if identity}

    def alive(self) -> list[str]:
        return [f"{one.pid} {title(one.pid)}" for one in self.seen if one.alive]

    def child(self, part: str) -> int:
        """The pid of the direct child with this in its title."""
        children = [pid for pid in descendants(self.pid) if part in title(pid)]
        return min(children)

    def stop(self, signum: int = signal.SIGTERM) -> float:
        """Signal it and wait for it alone; returns the seconds that took."""
        assert self.process is not None
        self.remember()
        began = time.monotonic()
        self.process.send_signal(signum)
        self.process.wait(15)
        return time.monotonic() - began

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        PostgresServer(self.data).destroy()


def refusal(**variables: object) -> tuple[int, str]:
    """Run script/server where it cannot start: (status, what it said)."""
    answer = subprocess.run(
        [PROJECT / "script" / "server"],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.stdout == ""
    return answer.returncode, answer.stderr


def flask(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROJECT / "script" / "flask", *arguments],
        env=environment(LEADOPS_DATA_DIR=data),
        capture_output=True,
        text=True,
        timeout=60,
    )


def ordinary_user() -> list[str] | None:
    """What to put before a command to run it as an ordinary user; None where root cannot arrange that.

    Root's project and interpreter may lie below a 0700 home: the capability to read there is then
    kept, and nothing else of root's.
    """
    if os.geteuid() != 0:
        return []
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    read = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    for prefix in (drop, drop + read):
        with contextlib.suppress(OSError):
            loads = f"import psycopg, redis; open({str(PROJECT / 'wsgi.py')!r})"
            probe = [*prefix, sys.executable, "-c", loads]
            if subprocess.run(probe, capture_output=True, cwd="/").returncode == 0:
                return prefix
    return None

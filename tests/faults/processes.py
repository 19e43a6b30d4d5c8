"""Real worker and clock processes for fault tests, and waiting for conditions."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from embedded.process import wait_until

ROOT = Path(__file__).resolve().parents[2]


class Processes:
    """Starts processes in the project's folder and leaves none behind."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._environment = {**kept, **environment}
        self._all: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, **more: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env={**self._environment, **more}, start_new_session=True
        )
        self._all.append(process)
        return process

    def worker(self, queue: str = "runs", slot: str | None = None) -> subprocess.Popen[bytes]:
        return self.start("-m", "jobs.worker", queue, WORKER_SLOT=slot or f"{queue}-1")

    def clock(self) -> subprocess.Popen[bytes]:
        return self.start("-m", "jobs.schedule")

    def kill_all(self) -> None:
        for process in self._all:
            if process.poll() is None:
                process.kill()
            process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    """As the kernel does it: no goodbye."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def title(process: subprocess.Popen[bytes]) -> str:
    return Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


__all__ = ["Processes", "kill", "title", "wait_until"]

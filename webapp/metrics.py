"""Prometheus figures of the web processes on this host.

A scrape reaches one of several web processes and has to be told of all, so the figures lie in files that the processes
share: prometheus-client's multiprocess mode, in a folder named after their common parent. Nothing is to be configured:
siblings find each other, another server has another parent, and folders of parents that are gone are removed.
``PROMETHEUS_MULTIPROC_DIR`` puts the folder elsewhere. Counting costs a request a few microseconds, and no call to
anywhere.

Figures of queues are not counted here but read from PostgreSQL at the scrape (webapp.api.metrics).
"""

import os
import platform
import shutil
import tempfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, values
from prometheus_client.multiprocess import MultiProcessCollector

_DIR = "PROMETHEUS_MULTIPROC_DIR"


class Figures:
    """What this process counts."""

    def __init__(self) -> None:
        self._requests = Counter(
            "leadops_requests",
            "Requests answered, by door and class of status. Pages of the console count as one door.",
            ("method", "door", "status"),
            registry=None,
        )
        self._degraded = Gauge(
            "leadops_rate_limiter_degraded",
            "1 while Redis does not answer and each process counts its limits for itself.",
            registry=None,
            multiprocess_mode="mostrecent",
        )
        self._by_label: dict[tuple[str, str, int], Any] = {}

    def answered(self, method: str, door: str, status: int) -> None:
        known = self._by_label.get((method, door, status // 100))
        if known is None:
            known = self._requests.labels(method, door, f"{status // 100}xx")
            self._by_label[(method, door, status // 100)] = known
        known.inc()

    def limiter_degraded(self, degraded: bool) -> None:
        self._degraded.set(int(degraded))

    def into(self, registry: CollectorRegistry) -> None:
        registry.register(self._requests)
        registry.register(self._degraded)


_making = threading.Lock()


def figures() -> Figures:
    """Made at the first request, so that commands and workers leave no files.

    Once: requests that come together at the start would otherwise open the shared file twice, and each would write
    over what the other counted.
    """
    with _making:
        return _figures()


@lru_cache(maxsize=1)
def _figures() -> Figures:
    if _DIR not in os.environ and (folder := _shared_folder()):
        os.environ[_DIR] = str(folder)
        # The library chose how to store figures when it was imported, by this variable.
        values.ValueClass = values.MultiProcessValue()
    return Figures()


def limiter_degraded(degraded: bool) -> None:
    """Whether the limiter of this process counts for itself alone."""
    figures().limiter_degraded(degraded)


def registry() -> CollectorRegistry:
    """The figures of all processes, ready for ``generate_latest``."""
    counted, found = figures(), CollectorRegistry()
    if _DIR in os.environ:
        MultiProcessCollector(found)
    else:  # no folder could be made: what this process counted is all there is
        counted.into(found)
    return found


def python_version() -> str:
    return platform.python_version()


def _shared_folder() -> Path | None:
    """The folder of this process's siblings, 0700. None when there can be none."""
    parent = os.getppid()
    prefix = f"leadops-metrics-{os.getuid()}-"
    root = Path(tempfile.gettempdir())
    try:
        _sweep(root, prefix)
        folder = root / f"{prefix}{parent}-{_born(parent)}"
        folder.mkdir(mode=0o700, exist_ok=True)
        mine = folder.lstat()
    except (OSError, psutil.Error):
        return None
    # The name can be guessed: a folder that somebody else has put there is not ours to write into.
    return folder if mine.st_uid == os.getuid() and not folder.is_symlink() and folder.is_dir() else None


def _sweep(root: Path, prefix: str) -> None:
    for folder in root.glob(f"{prefix}*"):
        parent, _, born = folder.name.removeprefix(prefix).partition("-")
        if not parent.isdigit() or folder.is_symlink():
            continue
        try:
            alive = str(_born(int(parent))) == born
        except psutil.NoSuchProcess:
            alive = False
        if not alive:
            shutil.rmtree(folder, ignore_errors=True)


def _born(pid: int) -> int:
    """When a process began, in milliseconds: with its id a name that is never used again."""
    return round(psutil.Process(pid).create_time() * 1000)

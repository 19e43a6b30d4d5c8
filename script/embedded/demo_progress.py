"""How far the filling is: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

WIDTH = 30


class Progress:
    """One bar over several steps; `total` is all of their units together."""

    def __init__(self, total: int, stream: TextIO = sys.stderr) -> None:
        self._total, self._stream = total, stream
        self._bar = stream.isatty()
        self._done = 0
        self._what = ""

    @contextmanager
    def step(self, what: str, units: int) -> Iterator[None]:
        """However many units were counted in between, the step ends with all of its own done."""
        began, start, self._what = time.monotonic(), self._done, what
        self._draw()
        yield
        self._done = start + units
        self._draw()
        if not self._bar:
            share = 100 * self._done // self._total
            took = time.monotonic() - began
            print(f"Demo: {what} ({took:.1f} s; {share} %)", file=self._stream, flush=True)

    def add(self, units: int = 1) -> None:
        self._done = min(self._total, self._done + units)
        self._draw()

    def end(self) -> None:
        if self._bar:
            print("\r\x1b[K", end="", file=self._stream, flush=True)

    def _draw(self) -> None:
        if self._bar:
            full = WIDTH * self._done // self._total
            bar = "█" * full + "░" * (WIDTH - full)
            print(f"\r\x1b[KDemo {bar} {self._what}", end="", file=self._stream, flush=True)

"""Keep the processes of one machine running, and leave nothing behind.

A small one of our own: honcho stops everything when one child dies, and neither it nor supervisord
takes its children with it when killed with -9.

A dead program is started again after 0.2 s, then twice as long each time up to 5 s; one that lived ten
seconds begins anew. Stopping takes at most five seconds: programs get SIGTERM and four seconds, the
servers below them follow when the programs are gone, or after three. PostgreSQL that is not done by
then is stopped in its immediate mode, which loses nothing committed.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedded.process import spawn

FIRST_PAUSE, LONGEST_PAUSE, SETTLED = 0.2, 5.0, 10.0
SERVERS_STOP_AFTER, PROGRAMS_KILLED_AFTER, SERVERS_HURRIED_AFTER, SERVERS_KILLED_AFTER = 3.0, 4.0, 4.4, 4.8


@dataclass
class Program:
    """Something to keep running. `base` programs (the two servers) are stopped last."""

    name: str
    launch: Callable[[], subprocess.Popen[bytes]]
    stop_signal: int = signal.SIGTERM
    hurry_signal: int = signal.SIGKILL
    base: bool = False

    child: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    due: float | None = None
    exits: int = 0
    signals: set[int] = field(default_factory=set)

    @property
    def alive(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def start(self) -> None:
        self.child, self.started, self.due = self.launch(), time.monotonic(), None

    def send_once(self, signum: int) -> None:
        """Signal the program; SIGKILL goes to its whole process group."""
        if self.child is None or signum in self.signals or not self.alive:
            return
        self.signals.add(signum)
        if signum == signal.SIGKILL:
            _kill_group(self.child.pid)
        else:
            self.child.send_signal(signum)


def command(
    name: str, args: Sequence[str], env: Mapping[str, str], cwd: Path, more: Mapping[str, str] | None = None
) -> Program:
    """A program that is a plain command line; it dies at once when the supervisor does."""
    whole = {**env, **(more or {})}
    return Program(name, lambda: spawn(args, death_signal=signal.SIGKILL, env=whole, cwd=cwd))


class Supervisor:
    """Single-threaded: the kernel ties children to the thread that started them (see process.py)."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.programs: list[Program] = []
        self.stopping = False
        self._report = report
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> "Supervisor":
        reading, self._writing = os.pipe()
        for end in (reading, self._writing):
            os.set_blocking(end, False)
        self._reading = reading
        self._selector.register(reading, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        self.shut_down()

    def _on_stop(self, *_: object) -> None:
        self.stopping = True

    def add(self, program: Program) -> Program:
        """Start it now and keep it running (one that runs already is adopted)."""
        self.programs.append(program)
        if program.child is None:
            program.start()
        return program

    def tick(self, seconds: float) -> None:
        """Wait for a signal, at most so long; then restart what is due."""
        now = time.monotonic()
        due = [program.due - now for program in self.programs if program.due is not None]
        for _ in self._selector.select(max(0.0, min([seconds, *due]))):
            with contextlib.suppress(BlockingIOError):
                os.read(self._reading, 4096)
        if not self.stopping:
            for program in self.programs:
                self._look_after(program)

    def run(self) -> None:
        """Until somebody asks us to stop."""
        while not self.stopping:
            self.tick(5.0)

    def _look_after(self, program: Program) -> None:
        now = time.monotonic()
        if program.due is not None:
            if now >= program.due:
                try:
                    program.start()
                except Exception as error:  # a server whose orphan does not stop, a full disk: try again later
                    self._put_off(program, f"cannot be started: {error}")
        elif program.child is not None and program.child.poll() is not None:
            _kill_group(program.child.pid)
            if now - program.started >= SETTLED:
                program.pause = FIRST_PAUSE
            program.exits += 1
            self._put_off(program, _how_it_ended(program.child.returncode))

    def _put_off(self, program: Program, what: str) -> None:
        self._report(f"{program.name} {what}; starting it again in {program.pause:.1f} s")
        program.due = time.monotonic() + program.pause
        program.pause = min(LONGEST_PAUSE, program.pause * 2)

    def shut_down(self) -> None:
        """Stop everything, within five seconds."""
        self.stopping = True
        began = time.monotonic()
        base = [program for program in self.programs if program.base]
        others = [program for program in self.programs if not program.base]
        while any(program.alive for program in self.programs):
            passed = time.monotonic() - began
            for program in others:
                program.send_once(program.stop_signal)
                if passed > PROGRAMS_KILLED_AFTER:
                    program.send_once(signal.SIGKILL)
            if passed > SERVERS_STOP_AFTER or not any(program.alive for program in others):
                for program in base:
                    program.send_once(program.stop_signal)
                    if passed > SERVERS_HURRIED_AFTER:
                        program.send_once(program.hurry_signal)
                    if passed > SERVERS_KILLED_AFTER:
                        program.send_once(signal.SIGKILL)
            time.sleep(0.02)
        for program in others:
            if program.child is not None:
                _kill_group(program.child.pid)


def _kill_group(leader: int) -> None:
    """What a program leaves in its process group goes with it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _how_it_ended(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

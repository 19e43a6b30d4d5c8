"""The supervisor alone, with small programs in place of ours."""

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.process import Identity
from tests.ops.support import PROJECT, STOPPED_WITHIN, environment, eventually

pytestmark = pytest.mark.fault

HOST_PROGRAM = """
import os, sys
from pathlib import Path
from embedded.supervisor import Supervisor, command

folder = Path(sys.argv[1])
with Supervisor(lambda line: print(line, flush=True)) as supervisor:
    for name in sys.argv[2:]:
        args = [sys.executable, str(folder / f"{name}.py"), str(folder / f"{name}.pids")]
        supervisor.add(command(name, args, os.environ, folder))
    print("running", flush=True)
    supervisor.run()
"""

NOTE = """
import os, sys
def note(pid):
    with open(sys.argv[1], "a") as file:
        print(pid, file=file)
"""

PROGRAMS = {
    "steady": "note(os.getpid()); import time; time.sleep(60)",
    "failing": "note(os.getpid()); raise SystemExit(3)",
    "stubborn": "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); note(os.getpid()); time.sleep(60)",
    "parent": "import subprocess, time; note(subprocess.Popen(['sleep', '60']).pid); time.sleep(60)",
}


class Host:
    """A process that runs a supervisor over some of the programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, body in PROGRAMS.items():
            (folder / f"{name}.py").write_text(f"{NOTE}{body}\n")
        self.process: subprocess.Popen[str] | None = None

    def run(self, *names: str) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(HOST_PROGRAM), str(self.folder), *names],
            env=environment(PYTHONPATH=PROJECT / "script"),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "running\n"
        return self.process

    def pids(self, name: str) -> list[int]:
        path = self.folder / f"{name}.pids"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def await_start(self, name: str, number: int = 1) -> Identity:
        assert eventually(lambda: len(self.pids(name)) >= number)
        identity = Identity.of(self.pids(name)[number - 1])
        assert identity is not None
        return identity


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    if host.process is not None:
        with host.process:
            host.process.kill()


def test_a_killed_program_is_started_again_at_once(host: Host) -> None:
    host.run("steady")
    first = host.await_start("steady")
    began = time.monotonic()
    first.send(signal.SIGKILL)
    host.await_start("steady", 2)
    assert time.monotonic() - began < 3  # 0.2 s on an idle machine, beside what Python takes to start


def test_a_failing_program_is_tried_ever_more_slowly_and_the_others_go_on(host: Host) -> None:
    process = host.run("failing", "steady")
    steady = host.await_start("steady")
    assert process.stdout is not None
    pauses = [process.stdout.readline().rpartition(" in ")[2].strip() for _ in range(3)]
    assert pauses == ["0.2 s", "0.4 s", "0.8 s"]
    assert steady.alive


def test_stopping_kills_what_does_not_listen_after_four_seconds(host: Host) -> None:
    process = host.run("stubborn", "steady")
    stubborn, steady = host.await_start("stubborn"), host.await_start("steady")
    began = time.monotonic()
    process.terminate()
    assert eventually(lambda: not steady.alive, 2)
    assert process.wait(10) == 0
    assert 3.5 < time.monotonic() - began < STOPPED_WITHIN
    assert not stubborn.alive


def test_grandchildren_go_with_their_program(host: Host) -> None:
    process = host.run("parent")
    grandchild = host.await_start("parent")
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 0
    assert eventually(lambda: not grandchild.alive, 2)


def test_a_killed_supervisor_takes_its_programs_with_it(host: Host) -> None:
    process = host.run("steady", "stubborn")
    programs = [host.await_start("steady"), host.await_start("stubborn")]
    process.kill()
    assert eventually(lambda: not any(program.alive for program in programs), 2)

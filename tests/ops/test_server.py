"""script/server and script/flask as an operator meets them. One console is shared by most of the tests."""

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.postgres import PostgresServer
from tests.ops.support import (
    STOPPED_WITHIN,
    Console,
    descendants,
    eventually,
    flask,
    free_port,
    listening_ports,
    refusal,
    status_of,
    title,
)

pytestmark = pytest.mark.fault

KEYS = {
    "SECRET_KEY": "an example key that is long enough for anybody",
    "FIELD_ENCRYPTION_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
}


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("server")
    console = Console(folder / "var")
    console.start()
    yield console
    console.clean_up()


class TestRunning:
    """In the order of a console's life; each leaves it running."""

    def test_the_first_start_says_how_to_log_in_and_how_to_post_a_lead(self, console: Console) -> None:
        for line in ("Login:    admin@localhost", "Password: ", "API key:  "):
            assert line in console.output
        curl = next(line.strip() for line in console.lines if line.strip().startswith("curl"))
        answers = [subprocess.run(["bash", "-c", curl], capture_output=True, text=True) for _ in range(2)]
        assert [answer.stdout.split()[1] for answer in answers] == ["201", "200"]

    def test_each_process_says_its_part(self, console: Console) -> None:
        titles = [title(pid) for pid in descendants(console.pid)]
        for part in ("web", "worker runs-1", "worker deliveries-1", "worker imports-1", "worker fetches-1", "clock"):
            assert any(f"leadops: {part}" in one for one in titles), titles
        assert sum("worker" in one for one in titles) == 4

    def test_no_tcp_port_but_the_web_one_and_that_on_loopback(self, console: Console) -> None:
        assert listening_ports(descendants(console.pid)) == {("0100007F", console.port)}

    def test_the_data_folder_and_its_secrets_are_private(self, console: Console) -> None:
        assert stat.S_IMODE(console.data.stat().st_mode) == 0o700
        assert stat.S_IMODE((console.data / "keys.json").stat().st_mode) == 0o600
        assert stat.S_IMODE((console.data / "instance.json").stat().st_mode) == 0o600

    def test_flask_joins_the_running_server(self, console: Console) -> None:
        made = flask(console.data, "create-workspace", "ops")
        assert made.returncode == 0, made.stderr
        assert len(made.stdout.strip()) == 36
        assert status_of(f"{console.url}/readyz") == 200

    def test_a_second_server_on_the_data_folder_is_refused(self, console: Console) -> None:
        status, said = refusal(LEADOPS_DATA_DIR=console.data, PORT=free_port())
        assert status == 1
        assert said.count("\n") == 1
        assert f"Another server (pid {console.pid})" in said

    def test_a_port_in_use_is_refused(self, console: Console, tmp_path: Path) -> None:
        status, said = refusal(LEADOPS_DATA_DIR=tmp_path / "var", PORT=console.port)
        assert (status, said.count("\n")) == (1, 1)
        assert f"Port {console.port} on 127.0.0.1 is in use" in said

    def test_every_part_comes_back_when_it_is_killed(self, console: Console) -> None:
        console.remember()
        parts = ("leadops: web", "worker runs-1", "clock", "postgres", "redis")
        before = {part: console.child(part) for part in parts}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: status_of(f"{console.url}/readyz") == 200, 40), console.output
        console.remember()
        for part, pid in before.items():
            assert eventually(lambda part=part, pid=pid: _other(console, part, pid), 40), part

    def test_sigterm_stops_everything_within_five_seconds(self, console: Console) -> None:
        assert console.stop(signal.SIGTERM) < STOPPED_WITHIN
        assert console.process is not None
        assert console.process.returncode == 0
        assert console.alive() == []

    def test_the_second_start_takes_seconds_and_finds_its_data(self, console: Console) -> None:
        assert console.start() < 60  # 2 s on an idle machine
        assert "Password: " not in console.output
        listed = flask(console.data, "create-workspace", "ops")
        assert listed.returncode == 0 or "ops" in listed.stderr

    def test_sigkill_leaves_no_orphan_and_blocks_no_start(self, console: Console) -> None:
        console.stop(signal.SIGKILL)
        assert eventually(lambda: not console.alive(), 5), console.alive()
        console.start()
        assert status_of(f"{console.url}/readyz") == 200

    def test_control_c_stops_it_as_well_even_at_work(self, console: Console) -> None:
        with socket.create_connection(("127.0.0.1", console.port)) as half_a_request:
            half_a_request.sendall(b"POST /leads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            assert console.stop(signal.SIGINT) < STOPPED_WITHIN
        assert console.alive() == []

    def test_flask_starts_and_stops_servers_of_its_own(self, console: Console) -> None:
        made = flask(console.data, "create-workspace", "ops-without-server")
        assert made.returncode == 0, made.stderr
        assert len(made.stdout.strip()) == 36
        assert not (console.data / "instance.json").exists()
        assert not (console.data / "redis" / "redis.sock").exists()


def _other(console: Console, part: str, former: int) -> bool:
    try:
        return console.child(part) != former
    except ValueError:
        return False


class TestRefusals:
    """One clear line on stderr and a status other than 0, before anything is started."""

    @staticmethod
    def line(**variables: object) -> str:
        status, said = refusal(**{"PORT": free_port()} | variables)
        assert status not in (0, None)
        assert said.count("\n") == 1, said
        assert said.startswith("script/server: ")
        return said

    def test_a_data_folder_that_cannot_be_written(self) -> None:
        assert "/proc/leadops cannot be written to" in self.line(LEADOPS_DATA_DIR="/proc/leadops")

    def test_a_data_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "var").touch()
        assert "cannot be written to" in self.line(LEADOPS_DATA_DIR=tmp_path / "var")

    def test_a_database_url_of_another_kind(self, tmp_path: Path) -> None:
        assert "DATABASE_URL" in self.line(LEADOPS_DATA_DIR=tmp_path / "var", DATABASE_URL="mysql://localhost/x")

    def test_a_database_of_ones_own_without_secrets_of_ones_own(self, tmp_path: Path) -> None:
        said = self.line(LEADOPS_DATA_DIR=tmp_path / "var", DATABASE_URL="postgres://localhost/x")
        assert "SECRET_KEY and FIELD_ENCRYPTION_KEYS" in said

    def test_a_database_that_does_not_answer_and_whose_password_stays_secret(self, tmp_path: Path) -> None:
        url = f"postgres://u:tell-nobody@127.0.0.1:{free_port()}/x"
        said = self.line(LEADOPS_DATA_DIR=tmp_path / "var", DATABASE_URL=url, **KEYS)
        assert "Connection refused" in said
        assert "tell-nobody" not in said

    def test_a_setting_that_makes_no_sense(self, tmp_path: Path) -> None:
        assert "PORT" in self.line(LEADOPS_DATA_DIR=tmp_path / "var", PORT="eighty")

    def test_an_address_that_is_not_ours(self, tmp_path: Path) -> None:
        assert "Cannot listen on 192.0.2.1" in self.line(LEADOPS_DATA_DIR=tmp_path / "var", HOST="192.0.2.1")

    def test_secrets_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "keys.json").write_text(json.dumps({"SECRET_KEY": "only one"}))
        try:
            assert "keys.json" in self.line(LEADOPS_DATA_DIR=tmp_path)
        finally:
            PostgresServer(tmp_path).destroy()

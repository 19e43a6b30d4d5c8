"""One PostgreSQL and one Redis: what they keep, what they survive, and what they leave alone."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from embedded import StartError
from embedded.postgres import LOG_SEGMENTS, UNUSED_SEGMENTS, PostgresServer
from embedded.process import Identity
from embedded.redis_server import RedisServer
from tests.ops.support import PROJECT, descendants, environment, eventually, listening_ports, ordinary_user

pytestmark = pytest.mark.fault


def ask(server: PostgresServer, query: str) -> object:
    with psycopg.connect(server.url()) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None


def write(server: PostgresServer, query: str) -> None:
    with psycopg.connect(server.url()) as connection:
        connection.execute(query)


def postmaster_pid(server: PostgresServer) -> int:
    return int((server.cluster / "postmaster.pid").read_text().split()[0])


def test_postgres_keeps_committed_rows_through_kill_and_restart(postgres: PostgresServer) -> None:
    postgres.start()
    write(postgres, "CREATE TABLE kept AS SELECT 1 AS one")
    postgres.kill()
    postgres.start()
    assert ask(postgres, "SELECT one FROM kept") == 1
    postgres.restart()
    assert ask(postgres, "SELECT one FROM kept") == 1


def test_postgres_is_durable_and_listens_on_no_tcp_port(postgres: PostgresServer) -> None:
    postgres.start()
    assert [ask(postgres, f"SHOW {name}") for name in ("fsync", "synchronous_commit")] == ["on", "on"]
    assert ask(postgres, "SHOW listen_addresses") == ""
    assert listening_ports(descendants(postmaster_pid(postgres))) == set()


def unused_segments(server: PostgresServer) -> int:
    return int(str(ask(server, UNUSED_SEGMENTS)))


def test_log_segments_are_made_before_they_are_needed_and_kept(postgres: PostgresServer) -> None:
    postgres.start()
    made = unused_segments(postgres)
    assert made >= LOG_SEGMENTS - 4  # but for what making the database took
    postgres.restart()
    assert abs(unused_segments(postgres) - made) <= 2


def test_an_older_cluster_gets_its_log_segments_at_the_next_start(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(PostgresServer, "_make_log_segments", lambda *_: None)
        postgres.start()
        assert unused_segments(postgres) < 4
        postgres.stop()
    postgres.start()
    assert unused_segments(postgres) >= LOG_SEGMENTS - 4


def test_a_start_that_cannot_make_log_segments_goes_on(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("embedded.postgres.UNUSED_SEGMENTS", "SELECT count(*) FROM nothing_such")
    postgres.start()
    assert ask(postgres, "SELECT 1") == 1
    assert "did not make log segments" in capsys.readouterr().err


def test_lower_case_knows_vietnamese(postgres: PostgresServer) -> None:
    postgres.start()
    assert ask(postgres, "SELECT lower('ĐẶNG THỊ Ớ')") == "đặng thị ớ"


def test_a_postmaster_left_behind_is_stopped_by_the_next_start(postgres: PostgresServer) -> None:
    postgres.start()
    left = Identity.of(postmaster_pid(postgres))
    assert left is not None
    again = PostgresServer(postgres.data_dir)
    again.start()
    assert not left.alive
    assert postgres.process is not None
    postgres.process.wait()
    assert ask(again, "SELECT 1") == 1
    again.stop()


def test_a_pid_file_that_names_a_stranger_does_not_block_the_start(postgres: PostgresServer) -> None:
    """As after a reboot, when the old postmaster's pid has been given to another process."""
    postgres.start()
    pid_file = postgres.cluster / "postmaster.pid"
    written = pid_file.read_text()
    postgres.stop()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        pid_file.write_text("\n".join([str(stranger.pid), *written.splitlines()[1:]]))
        pid_file.chmod(0o644)
        postgres.start()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_an_interrupted_initdb_is_begun_anew(postgres: PostgresServer) -> None:
    (postgres.home / "cluster.new").mkdir()
    (postgres.home / "cluster.new" / "half").touch()
    postgres.start()
    assert ask(postgres, "SELECT 1") == 1


def test_a_cluster_of_another_major_version_is_refused_in_words(postgres: PostgresServer) -> None:
    postgres.start()
    postgres.stop()
    (postgres.cluster / "PG_VERSION").write_text("15\n")
    with pytest.raises(StartError, match=r"PostgreSQL 15.*dump and restore"):
        postgres.start()


def test_a_data_folder_with_a_long_path_and_spaces_works(tmp_path: Path) -> None:
    data = tmp_path / ("a long name " * 10).strip()
    postgres, redis = PostgresServer(data), RedisServer(data)
    try:
        postgres.start()
        redis.start()
        assert ask(postgres, "SELECT 1") == 1
        with redis.client(3) as client:
            assert client.set("one", 1)
    finally:
        postgres.destroy()
        redis.destroy()


def test_redis_keeps_its_keys_through_kill_and_restart_until_flushed(redis_server: RedisServer) -> None:
    redis_server.start()
    with redis_server.client() as client:
        client.set("kept", "1")
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("port") == {"port": "0"}
    redis_server.restart()
    with redis_server.client() as client:
        assert client.get("kept") == b"1"
    redis_server.flushall()
    redis_server.kill()
    redis_server.start()
    with redis_server.client() as client:
        assert client.get("kept") is None


def test_a_redis_left_behind_is_stopped_by_the_next_start(redis_server: RedisServer) -> None:
    redis_server.start()
    assert redis_server.process is not None
    left = redis_server.process
    again = RedisServer(redis_server.data_dir)
    again.start()
    assert left.wait(5) is not None
    again.stop()


def test_servers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    postgres = PostgresServer(data)
    program = (
        "import sys, time; from embedded import PostgresServer, RedisServer\n"
        "p, r = PostgresServer(sys.argv[1]), RedisServer(sys.argv[1]); p.start(); r.start()\n"
        "print(p.process.pid, r.process.pid, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, data],
        env=environment(PYTHONPATH=PROJECT / "script"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with owner:
            assert owner.stdout is not None
            servers = [Identity.of(int(pid)) for pid in owner.stdout.readline().split()]
            assert len(servers) == 2
            owner.kill()
        assert eventually(lambda: not any(server and server.alive for server in servers), 5)
        postgres.start()
        assert "was not properly shut down" not in postgres.log.read_text()
    finally:
        postgres.destroy()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
class TestAsRoot:
    def test_the_cluster_belongs_to_a_system_account_outside_the_data_folder(self, postgres: PostgresServer) -> None:
        postgres.start()
        owner = postgres.cluster.stat().st_uid
        assert owner not in (0, os.stat(postgres.data_dir).st_uid)
        assert {p.stat().st_uid for p in postgres.home.glob("cluster/*")} == {owner}
        assert postgres.home == Path((postgres.data_dir / "postgres.path").read_text().strip())
        assert postgres.home.parent == Path("/var/lib/leadops")
        for folder in (postgres.home, postgres.cluster, postgres.home / "s"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_no_mode_or_owner_above_the_data_folder_changes(self, tmp_path: Path) -> None:
        above = tmp_path / "home"
        above.mkdir(mode=0o700)
        server = PostgresServer(above / "project" / "var")
        server.data_dir.parent.mkdir(mode=0o755)
        folders = [server.data_dir.parent, *server.data_dir.parent.parents]
        before = [(f, os.stat(f).st_mode, os.stat(f).st_uid, os.stat(f).st_gid) for f in folders]
        try:
            server.start()
        finally:
            server.destroy()
        assert [(f, os.stat(f).st_mode, os.stat(f).st_uid, os.stat(f).st_gid) for f in folders] == before

    def test_a_moved_data_folder_finds_its_database(self, postgres: PostgresServer, tmp_path: Path) -> None:
        postgres.start()
        write(postgres, "CREATE TABLE kept AS SELECT 1 AS one")
        postgres.stop()
        postgres.data_dir.rename(tmp_path / "moved")
        moved = PostgresServer(tmp_path / "moved")
        try:
            moved.start()
            assert ask(moved, "SELECT one FROM kept") == 1
        finally:
            moved.destroy()

    def test_a_copied_data_folder_does_not_share_its_database(self, postgres: PostgresServer, tmp_path: Path) -> None:
        postgres.start()
        postgres.stop()
        copy = tmp_path / "copy"
        copy.mkdir()
        (copy / "postgres.path").write_text((postgres.data_dir / "postgres.path").read_text())
        with pytest.raises(StartError, match="copy of"):
            PostgresServer(copy).start()

    def test_a_data_folder_made_anew_begins_empty_and_keeps_the_old_database(self, postgres: PostgresServer) -> None:
        postgres.start()
        postgres.stop()
        (postgres.data_dir / "postgres.path").unlink()
        anew = PostgresServer(postgres.data_dir)
        anew.prepare()
        kept = list(anew.home.parent.glob(f"{anew.home.name}.*"))
        try:
            assert len(kept) == 1
            assert (kept[0] / "cluster" / "PG_VERSION").exists()
        finally:
            for home in kept:
                subprocess.run(["rm", "-rf", "--", home], check=True)


def test_an_ordinary_user_runs_both_servers_in_the_data_folder() -> None:
    program = (
        "import json, os, sys, psycopg; from pathlib import Path\n"
        "from embedded import PostgresServer, RedisServer, binaries\n"
        # initdb asks access(), which knows no capabilities: below a 0700 home it needs a copy of itself
        "os.umask(0o077); copied = binaries.postgres_bin_copied_to(Path(sys.argv[1]) / 'bin')\n"
        "binaries.postgres_bin = lambda: copied\n"
        "p, r = PostgresServer(sys.argv[1]), RedisServer(sys.argv[1]); p.start(); r.start()\n"
        "with psycopg.connect(p.url()) as c: one = c.execute('SELECT 1').fetchone()[0]\n"
        "print(json.dumps([one, r.client().ping(), os.geteuid(), str(p.home), p.cluster.stat().st_uid]))\n"
        "p.stop(); r.stop()"
    )
    data = Path("/tmp") / f"leadops-ordinary-{os.getpid()}"
    prefix = ordinary_user()
    if prefix is None:
        pytest.skip("root cannot become an ordinary user here (no setpriv)")
    env = environment(PYTHONPATH=PROJECT / "script", HOME="/nonexistent", PYTHONDONTWRITEBYTECODE=1)
    command = [*prefix, sys.executable, "-c", program, data]
    answer = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=60)
    try:
        assert answer.returncode == 0, answer.stderr
        one, pong, uid, home, owner = json.loads(answer.stdout)
        assert (one, pong) == (1, True)
        assert uid == owner != 0
        assert home == str(data / "postgres")
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
    finally:
        subprocess.run(["rm", "-rf", "--", data], check=True)


def test_a_signal_to_a_reused_pid_is_not_sent() -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        Identity(stranger.pid, "some other start").send(signal.SIGKILL)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()

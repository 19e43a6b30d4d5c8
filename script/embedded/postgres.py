"""An embedded PostgreSQL: the packaged binaries, driven directly, on a unix socket only.

As an ordinary user everything lies in <data>/postgres. As root it lies in /var/lib/leadops/<hash of the
data folder>, owned by a system account, with copied binaries: PostgreSQL refuses to run as root, and
another user cannot reach below a 0700 home, whose mode is none of our business. <data>/postgres.path
says where it is. Whoever may enter the socket's folder (0700) is trusted; there is no password and no
TCP port.

The postmaster is our child and gets SIGINT when we die (a fast, clean shutdown). The caller holds the
data folder's lock (instance.py), so a postmaster found running here is an orphan, and is stopped.
"""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from embedded import account, binaries
from embedded.errors import StartError
from embedded.paths import create_data_folder, digest, private_folder, socket_folder, tail
from embedded.process import Account, Identity, spawn, stop_child, stop_stranger

USER = "leadops"
DATABASE = "leadops"
SOCKET_NAME = ".s.PGSQL.5432.lock"

LOG_SEGMENTS = 32  # of 16 MB, kept for reuse

TUNING = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "maintenance_work_mem": "64MB",
    "work_mem": "8MB",
    "wal_compression": "on",
    "min_wal_size": f"{LOG_SEGMENTS * 16}MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "10min",
    "random_page_cost": "1.1",
    "io_method": "sync",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
"""For one small machine that also runs the application; fsync and synchronous_commit stay on. Reads
are synchronous: the data fits in memory, and three I/O workers would be idle. Log segments are kept for
reuse, because every commit waits while a new one is made (docs/adr/0069)."""

THROW_AWAY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "min_wal_size": "80MB",
    "autovacuum_naptime": "5s",
}

UNUSED_SEGMENTS = """
    SELECT count(*) FROM pg_ls_waldir()
    WHERE name ~ '^[0-9A-F]{24}$' AND name > pg_walfile_name(pg_current_wal_lsn())
"""

FAST, IMMEDIATE = signal.SIGINT, signal.SIGQUIT
STOP_STEPS = [(FAST, 20.0), (IMMEDIATE, 5.0)]


class PostgresServer:
    """The one server of a data folder. Not for use by two processes at a time: see instance.py."""

    name = "postgres"
    stop_signal = FAST

    def __init__(self, data_dir: str | os.PathLike[str], *, throw_away: bool = False) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.throw_away = throw_away
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.data_dir / "log" / "postgres.log"
        self._account: Account | None = None
        self._home: Path | None = None
        self._sockets: Path | None = None

    # Where it is

    def prepare(self) -> None:
        """Find or make the home of the cluster and of its sockets; starts nothing."""
        if self._home is not None:
            return
        create_data_folder(self.data_dir)
        private_folder(self.log.parent)
        self._account = account.server_account()
        if self._account is None:
            self._home = private_folder(self.data_dir / "postgres")
            self._sockets = socket_folder(self._home / "s", SOCKET_NAME)
        else:
            self._home = self._home_of_root(self._account)
            self._sockets = self._owned_folder(self._home / "s", self._account)

    def url(self, database: str = DATABASE) -> str:
        """The URL of one of its databases; valid once prepared, the socket's place never changes."""
        self.prepare()
        return f"postgresql://{USER}@/{database}?host={quote(str(self._sockets), safe='/')}"

    @property
    def home(self) -> Path:
        self.prepare()
        assert self._home is not None
        return self._home

    @property
    def cluster(self) -> Path:
        return self.home / "cluster"

    def _home_of_root(self, owner: Account) -> Path:
        """/var/lib/leadops/<hash>, found again through the pointer even after the data folder was moved."""
        pointer = self.data_dir / "postgres.path"
        if pointer.exists():
            home = Path(pointer.read_text().strip())
            back = home / "data_folder"
            if home.parent != account.ROOT or not back.exists():
                raise StartError(
                    f"The database of {self.data_dir} is missing ({home}); remove {pointer} to begin with an empty one."
                )
            known = Path(back.read_text().strip())
            if known != self.data_dir:
                if (known / pointer.name).exists():
                    copied = f"{self.data_dir} is a copy of {known}"
                    raise StartError(f"{copied} and would share its database; remove {pointer}.")
                back.write_text(f"{self.data_dir}\n")
            return self._owned_folder(home, owner)
        home = account.ROOT / digest(self.data_dir)
        account.ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
        if home.exists():
            self._set_aside(home)
        self._owned_folder(home, owner)
        (home / "data_folder").write_text(f"{self.data_dir}\n")
        pointer.write_text(f"{home}\n")
        return home

    def _set_aside(self, home: Path) -> None:
        """The data folder was deleted and made anew: begin empty, but never delete a database unasked."""
        self._end_orphan(home / "cluster")
        kept = home.with_name(f"{home.name}.{time.strftime('%Y%m%d%H%M%S')}")
        home.rename(kept)
        print(f"The database of an earlier {self.data_dir} is kept in {kept}.", file=sys.stderr, flush=True)

    @staticmethod
    def _owned_folder(folder: Path, owner: Account) -> Path:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, owner.uid):
            raise StartError(f"{folder} belongs to somebody else.")
        if found.st_uid != owner.uid:
            os.chown(folder, owner.uid, owner.gid)
        return folder

    # Start and stop

    def start(self, timeout: float = 60.0) -> None:
        """Return when the server takes connections and its database exists."""
        self.launch()
        self.await_ready(timeout)

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the postmaster without waiting for it (the supervisor's way of restarting)."""
        self.prepare()
        self._initialise()
        self._end_orphan(self.cluster)
        options = TUNING | (THROW_AWAY if self.throw_away else {})
        options |= {
            "listen_addresses": "",
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
        }
        args: list[str | os.PathLike[str]] = [self._bin() / "postgres", "-D", self.cluster]
        for key, value in options.items():
            args += ["-c", f"{key}={value}"]
        self._shorten_log()
        with self.log.open("ab") as output:
            self.process = spawn(
                args,
                death_signal=FAST,
                account=self._account,
                env=self._environment(),
                cwd=self.home,
                output=output,
            )
        return self.process

    def await_ready(self, timeout: float = 60.0, given_up: Callable[[], bool] = lambda: False) -> None:
        """Until it takes connections; tries again while the shared memory of a killed one lingers."""
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if given_up():
                return
            assert self.process is not None
            if self.process.poll() is not None:
                reason = tail(self.log, 2)
                if "shared memory block" not in reason or time.monotonic() > deadline:
                    raise StartError(f"PostgreSQL does not start: {reason} (see {self.log})")
                time.sleep(0.2)
                self.launch()
            if time.monotonic() > deadline:
                raise StartError(f"PostgreSQL does not start within {timeout:.0f} s; see {self.log}.")
            time.sleep(0.02)
        self.create_database(DATABASE)
        if not self.throw_away:
            self._make_log_segments(given_up)

    def stop(self) -> None:
        """A fast shutdown: open transactions are rolled back, everything committed is on disk."""
        if self.process is not None:
            stop_child(self.process, [(IMMEDIATE, 10.0)] if self.throw_away else STOP_STEPS)
            self.process = None

    def kill(self) -> None:
        """As if the machine had failed: SIGKILL to the postmaster; its children notice and leave."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def destroy(self) -> None:
        """Stop and delete the cluster, copied binaries and all: for throw-away servers."""
        self.stop()
        self._end_orphan(self.cluster)
        home, sockets, self._home = self.home, self._sockets, None
        shutil.rmtree(home, ignore_errors=True)
        if sockets is not None:
            shutil.rmtree(sockets, ignore_errors=True)
        (self.data_dir / "postgres.path").unlink(missing_ok=True)

    # Databases

    def create_database(self, name: str) -> str:
        """Create the database if it does not exist, and return its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    # Within

    def _bin(self) -> Path:
        if self._account is None:
            return binaries.postgres_bin()
        return binaries.postgres_bin_copied_to(self.home / "bin")

    def _environment(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": str(self.home)}

    def _initialise(self) -> None:
        """initdb beside its place, then moved there: an interrupted one is never taken for a cluster."""
        if self._account is not None:
            (self.home / "bin").mkdir(mode=0o755, exist_ok=True)
        version = self.cluster / "PG_VERSION"
        if version.exists():
            if version.read_text().strip() != str(binaries.POSTGRES_MAJOR):
                raise StartError(
                    f"The database in {self.cluster} is of PostgreSQL {version.read_text().strip()},"
                    f" this release brings {binaries.POSTGRES_MAJOR}; dump and restore it."
                )
            return
        fresh = self.cluster.with_name("cluster.new")
        shutil.rmtree(fresh, ignore_errors=True)
        with self.log.open("ab") as output:
            status = spawn(
                [self._bin() / "initdb", "-D", fresh, "-U", USER, "--auth=trust", "--encoding=UTF8",
                 "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions",
                 *(["--no-sync"] if self.throw_away else [])],
                death_signal=signal.SIGKILL,
                account=self._account,
                env=self._environment(),
                cwd=self.home,
                output=output,
            ).wait()  # fmt: skip
        if status != 0:
            raise StartError(f"PostgreSQL cannot make its cluster in {self.home}: {tail(self.log, 2)}")
        fresh.rename(self.cluster)

    def _make_log_segments(self, given_up: Callable[[], bool]) -> None:
        """Where few unused segments of the log are left, as in a new cluster, go through as many as are kept: the checkpoint
        makes unused ones of them. Without it only the first commits are slower, so no start fails because of it."""
        try:
            with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
                row = connection.execute(UNUSED_SEGMENTS).fetchone()
                if row is None or row[0] >= LOG_SEGMENTS // 2:
                    return
                for _ in range(LOG_SEGMENTS - 1):
                    if given_up():
                        return
                    # pg_switch_wal() leaves no segment to which nothing was written.
                    connection.execute("SELECT pg_logical_emit_message(false, 'leadops', '')")
                    connection.execute("SELECT pg_switch_wal()")
                connection.execute("CHECKPOINT")
        except psycopg.Error as error:
            print(f"PostgreSQL did not make log segments beforehand: {error}", file=sys.stderr, flush=True)

    def _is_ready(self) -> bool:
        """The eighth line of postmaster.pid says so, as pg_ctl reads it, but only of our own postmaster."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return (
            self.process is not None and len(lines) >= 8 and lines[0] == str(self.process.pid) and "ready" in lines[7]
        )

    def _end_orphan(self, cluster: Path) -> None:
        """Stop a postmaster that its supervisor left behind, and forget a pid that is a stranger's by now.

        PostgreSQL itself copes with a pid file whose process is gone, but refuses to start when the pid
        has been given to another process of the same user (after a reboot, say). The socket's lock file
        is judged in the same way.
        """
        for pid_file in (cluster / "postmaster.pid", (self._sockets or cluster.parent / "s") / SOCKET_NAME):
            try:
                pid = int(pid_file.read_text().split("\n", 1)[0])
            except (OSError, ValueError):
                continue
            found = Identity.of(pid)
            if found is None:
                continue
            if not _is_postmaster_of(pid, cluster):
                pid_file.unlink(missing_ok=True)
            elif not stop_stranger(found, [*STOP_STEPS, (signal.SIGKILL, 5.0)]):
                raise StartError(f"A PostgreSQL (pid {pid}) of an earlier start does not stop.")

    def _shorten_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > 10_000_000:
            self.log.replace(self.log.with_suffix(".log.1"))


def _is_postmaster_of(pid: int, cluster: Path) -> bool:
    """Whether this pid is a postgres that was started on this cluster."""
    try:
        args = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        answer = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True)
        return "postgres" in answer.stdout and str(cluster) in answer.stdout
    return args[0].endswith(b"postgres") and os.fsencode(cluster) in args

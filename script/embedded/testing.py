"""Throw-away servers and databases for the test suite, safe under pytest-xdist.

The first process (xdist's controller, or the only one) starts one PostgreSQL and one Redis; every
worker then has a database of its own, copied from one migrated template, and a Redis database number
of its own. In tests/conftest.py:

    def pytest_configure(config):
        start_test_servers()

    @pytest.fixture(scope="session")
    def database_url():
        with worker_database(migrate=my_upgrade) as url:
            yield url

DATABASE_URL and REDIS_URL of the environment are used instead when they are set; the user of such a
DATABASE_URL must be allowed to create databases.
"""

import atexit
import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from embedded.postgres import PostgresServer
from embedded.process import Identity
from embedded.redis_server import RedisServer

_PREFIX = "leadops-test-"
_DATABASE, _REDIS, _RUN = "LEADOPS_TEST_DATABASE_URL", "LEADOPS_TEST_REDIS_URL", "LEADOPS_TEST_RUN"


def start_test_servers() -> tuple[str, str]:
    """(database URL, Redis URL) of this test run; may be called any number of times, in any worker.

    Started servers are stopped and deleted when the process that started them ends, also by SIGKILL
    (what lies on disk then goes with the next run).
    """
    os.environ.setdefault(_RUN, uuid.uuid4().hex[:8])
    database = os.environ.get(_DATABASE) or os.environ.get("DATABASE_URL")
    redis = os.environ.get(_REDIS) or os.environ.get("REDIS_URL")
    if not (database and redis):
        _sweep()
        folder = _new_folder()
        if not database:
            postgres = PostgresServer(folder, throw_away=True)
            atexit.register(postgres.destroy)
            postgres.start()
            database = postgres.url()
        if not redis:
            server = RedisServer(folder, throw_away=True)
            atexit.register(server.destroy)
            server.start()
            redis = server.url()
    os.environ[_DATABASE], os.environ[_REDIS] = database, redis
    return database, redis


def worker_number() -> int:
    """0 without xdist, else 1 for gw0 and so on."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return int(worker.removeprefix("gw")) + 1 if worker.startswith("gw") else 0


@contextlib.contextmanager
def worker_database(migrate: Callable[[str], object], name: str | None = None) -> Iterator[str]:
    """A migrated database of this worker's own, dropped at the end.

    `migrate(url)` is called once per run, whichever worker comes first; it must leave no connection
    open, since a database in use cannot be copied. `name` tells further databases of one worker apart.
    """
    run = os.environ[_RUN]
    own = f"leadops_{run}_{worker_number()}" + (f"_{name}" if name else "")
    with _administrator() as connection:
        connection.execute("SELECT pg_advisory_lock(727274)")
        template = _template(connection, f"leadops_{run}_template", migrate)
        _drop(connection, own)
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(own), sql.Identifier(template))
        )
    try:
        yield database_url(own)
    finally:
        with _administrator() as connection:
            _drop(connection, own)


def empty_database(name: str) -> contextlib.AbstractContextManager[str]:
    """A database without any table, for tests of the migrations themselves."""
    return _empty_database(f"leadops_{os.environ[_RUN]}_{worker_number()}_{name}")


@contextlib.contextmanager
def _empty_database(name: str) -> Iterator[str]:
    with _administrator() as connection:
        _drop(connection, name)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    try:
        yield database_url(name)
    finally:
        with _administrator() as connection:
            _drop(connection, name)


def database_url(name: str) -> str:
    """The run's server, another database."""
    url = make_url(os.environ[_DATABASE]).set(drivername="postgresql", database=name)
    return url.render_as_string(hide_password=False)


def worker_redis_url() -> str:
    """The run's Redis, with this worker's database number."""
    parts = urlsplit(os.environ[_REDIS])
    if parts.scheme == "unix":
        return f"unix://{parts.path}?db={worker_number()}"
    return urlunsplit(parts._replace(path=f"/{worker_number()}"))


@contextlib.contextmanager
def private_servers() -> Iterator[tuple[PostgresServer, RedisServer]]:
    """Two running servers of one's own, to be stopped, killed and flushed at will.

    Durable as in production (fsync and append-only file on), for tests of what survives.
    """
    folder = _new_folder()
    postgres, redis = PostgresServer(folder), RedisServer(folder)
    try:
        postgres.start()
        redis.start()
        yield postgres, redis
    finally:
        postgres.kill()
        redis.kill()
        postgres.destroy()
        redis.destroy()
        shutil.rmtree(folder, ignore_errors=True)


def _administrator() -> psycopg.Connection:
    url = make_url(os.environ[_DATABASE]).set(drivername="postgresql")
    return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


def _template(connection: psycopg.Connection, name: str, migrate: Callable[[str], object]) -> str:
    """The migrated template, made under another name and renamed, so that half of one is never copied."""
    if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
        partial = f"{name}_new"
        _drop(connection, partial)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(partial)))
        migrate(database_url(partial))
        connection.execute(
            sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(partial), sql.Identifier(name))
        )
        atexit.register(_drop_template, name)
    return name


def _drop(connection: psycopg.Connection, name: str) -> None:
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _drop_template(name: str) -> None:
    """Only a server of somebody else's keeps it; ours is deleted whole."""
    if "DATABASE_URL" in os.environ:
        with contextlib.suppress(psycopg.Error), _administrator() as connection:
            _drop(connection, name)


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    (folder / "owner.json").write_text(json.dumps(Identity.me().to_json()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _sweep() -> None:
    """Delete what runs that were killed have left behind."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            owner = Identity.from_json(json.loads((folder / "owner.json").read_text()))
            if folder.stat().st_uid != os.geteuid() or owner is None or owner.alive:
                continue
            PostgresServer(folder, throw_away=True).destroy()
        except Exception:
            continue  # being made, or another user's
        shutil.rmtree(folder, ignore_errors=True)

"""The one way an engine is made: pool, breaker, session defaults. Used by the app and by workers alike."""

import threading
import time
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event

from webapp.config import Settings

#: While PostgreSQL is away, how long callers are refused at once before one of them tries to connect again.
BREAKER_SECONDS = 0.5
CONNECT_TIMEOUT_SECONDS = 2
POOL_TIMEOUT_SECONDS = 2
#: Lets a connection whose other end is gone without a word fail within seconds. Nothing on unix sockets.
KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 5_000,  # milliseconds
}


class ConnectBreaker:
    """Lets one caller probe a database that is away; the others fail at once instead of queueing up to hang."""

    def __init__(self, seconds: float = BREAKER_SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._open_until = 0.0

    def check(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._open_until:
                raise psycopg.OperationalError("the database is away; not trying again yet")

    def failed(self) -> None:
        with self._lock:
            self._open_until = time.monotonic() + self._seconds

    def worked(self) -> None:
        with self._lock:
            self._open_until = 0.0


def engine_options(settings: Settings, *, pool_size: int | None = None) -> dict[str, Any]:
    """Keyword arguments for ``create_engine``. Time zone and the like are not set per session, so that PgBouncer in
    transaction mode works between."""
    connect_args: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": "leadops",
        **KEEPALIVES,
    }
    if not settings.db_prepared_statements:
        connect_args["prepare_threshold"] = None
    return {
        "pool_size": pool_size or settings.pool_size,
        "max_overflow": 0,
        "pool_timeout": POOL_TIMEOUT_SECONDS,
        "pool_recycle": 1800,
        "hide_parameters": True,  # they are people's data, and errors are logged
        "connect_args": connect_args,
    }


def guard(engine: sa.Engine) -> sa.Engine:
    """Put a breaker before the engine's connects, and drop the whole pool when the server went away."""
    breaker = ConnectBreaker()

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, args: Any, kwargs: Any) -> Any:
        breaker.check()
        try:
            connection = dialect.connect(*args, **kwargs)
        except psycopg.OperationalError:
            breaker.failed()
            raise
        breaker.worked()
        return connection

    return engine


def make_engine(settings: Settings, *, pool_size: int | None = None) -> sa.Engine:
    """An engine on ``DATABASE_URL`` for a process without a Flask app."""
    return guard(
        sa.create_engine(settings.database_url.get_secret_value(), **engine_options(settings, pool_size=pool_size))
    )


def make_autocommit_engine(settings: Settings) -> sa.Engine:
    """An engine each of whose statements is a transaction of its own, for intake (``leads.intake_sql``): nothing to
    begin, commit or roll back, and so no round trips for it."""
    return guard(
        sa.create_engine(
            settings.database_url.get_secret_value(),
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
            **engine_options(settings, pool_size=settings.web_threads),
        )
    )

"""Shared fixtures: real PostgreSQL and Redis, a clean database for every test."""

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from sqlalchemy.orm import Session, sessionmaker

from embedded import testing
from tests import factories
from webapp import create_app
from webapp.config import Settings, load_settings
from webapp.extensions import limiter
from webapp.leads.states import Role
from webapp.models import Workspace, db

FERNET_KEY = Fernet.generate_key().decode()
#: Deleted when the tests are over.
IMPORTS_DIR = tempfile.TemporaryDirectory(prefix="leadops-imports-", ignore_cleanup_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    testing.start_test_servers()


def environment(database_url: str, redis_url: str, **more: str) -> dict[str, str]:
    """A complete environment for the app or for a real process."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SECRET_KEY": "0123456789abcdef0123456789abcdef",
        "FIELD_ENCRYPTION_KEYS": FERNET_KEY,
        "LOG_LEVEL": "WARNING",
        "OUTBOUND_ALLOW_CIDRS": "127.0.0.0/8",
        "RETRY_DELAY": "0.05",
        "IMPORTS_DIR": IMPORTS_DIR.name,
        **more,
    }


def migrated(url: str) -> None:
    """Bring a new database up to date, leaving no connection open."""
    app = create_app(load_settings(environment(url, "redis://127.0.0.1:1/0")))
    with app.app_context():
        upgrade()
        with db.engine.begin() as connection:
            # Rows are deleted after each test: a table that was vacuumed meanwhile gives the next ones in any order.
            for table in _TABLES:
                connection.execute(sa.text(f"ALTER TABLE {table} SET (autovacuum_enabled = off)"))
        db.session.remove()
        db.engine.dispose()


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    with testing.worker_database(migrate=migrated) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> str:
    return testing.worker_redis_url()


@pytest.fixture(scope="session")
def settings(database_url: str, redis_url: str) -> Settings:
    return load_settings(environment(database_url, redis_url))


@pytest.fixture(scope="session")
def _app(settings: Settings) -> Iterator[Flask]:
    app = create_app(settings)
    app.config.update(TESTING=True, WTF_CSRF_ENABLED=False)
    with app.app_context():
        engine = db.engine
    yield app
    engine.dispose()
    app.extensions["autocommit"].dispose()


_TABLES = [table.name for table in db.metadata.sorted_tables]
#: Many tests read it in the order in which it was written, which only a fresh file has for certain.
_READ_AS_WRITTEN = "audit_events"


def _empty(engine: sa.Engine) -> None:
    """Delete every row, once nobody has a transaction on a table any more.

    TRUNCATE makes new files for each table and index: some twenty times slower than deleting the few rows of a test,
    and most of the suite's time. Deleting past triggers and foreign keys takes a superuser, as the embedded server's is.
    """
    tables = ", ".join(_TABLES)
    with engine.begin() as connection:
        if connection.scalar(sa.text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")):
            deletes = "; ".join(f"DELETE FROM {table}" for table in _TABLES if table != _READ_AS_WRITTEN)
            truncate = f"IF EXISTS (SELECT FROM {_READ_AS_WRITTEN}) THEN TRUNCATE {_READ_AS_WRITTEN}; END IF"
            connection.execute(
                sa.text(
                    f"DO $$ BEGIN LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE; "
                    f"SET LOCAL session_replication_role = replica; {deletes}; {truncate}; END $$"
                )
            )
        else:
            connection.execute(sa.text(f"TRUNCATE {tables}"))


@pytest.fixture
def app(_app: Flask) -> Flask:
    """The app on an empty database and an empty Redis."""
    with _app.app_context():
        _empty(db.engine)
        _app.extensions["keyring"]._known.clear()
        _app.extensions["ratelimiter"]._windows.clear()
        _app.extensions["meta_sources"].clear()
    return _app


@pytest.fixture
def session_factory(app: Flask) -> sessionmaker[Session]:
    """Sessions as workers have them: plain SQLAlchemy on the app's engine."""
    with app.app_context():
        return sessionmaker(db.engine, expire_on_commit=False)


@pytest.fixture
def session(session_factory: sessionmaker[Session]) -> Iterator[Session]:
    with session_factory() as opened:
        yield opened


@pytest.fixture
def workspace(session: Session) -> Workspace:
    return factories.make_workspace(session, "default")


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def headers(session: Session, workspace: Workspace) -> dict[str, str]:
    """Headers of a key with all scopes in ``workspace``."""
    return {"X-API-Key": factories.make_key(session, workspace)}


@pytest.fixture
def login(session: Session, workspace: Workspace) -> Callable[..., Any]:
    """``login(client, role=Role.REVIEWER)`` → the user, logged in by the form as a person would."""

    def do(client: FlaskClient, role: Role = Role.REVIEWER, *, into: Workspace | None = None, **over: Any) -> Any:
        user = factories.make_user(session, into or workspace, role=role, **over)
        answer = client.post("/login", data={"email": user.email, "password": factories.PASSWORD})
        assert answer.status_code == 302, answer.text
        return user

    return do


@pytest.fixture(autouse=True)
def _unlimited_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests log in more often than a person does; those of the limit switch it on."""
    monkeypatch.setattr(limiter, "enabled", False)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.lower() in ("http_proxy", "https_proxy", "all_proxy")]:
        monkeypatch.delenv(name)

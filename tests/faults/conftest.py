"""Servers of their own for tests that kill and stop things, and real processes on them."""

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import sessionmaker

from embedded import testing
from tests.conftest import environment, migrated
from tests.faults.processes import Processes
from webapp.config import load_settings
from webapp.engine import make_engine
from webapp.models import db


@pytest.fixture(scope="module")
def servers():
    with testing.private_servers() as (postgres, redis):
        migrated(postgres.url())
        yield postgres, redis


@pytest.fixture
def env(servers, tmp_path):
    postgres, redis = servers
    return environment(postgres.url(), redis.url(), IMPORTS_DIR=str(tmp_path), LOG_LEVEL="ERROR")


@pytest.fixture
def session(env):
    engine = make_engine(load_settings(env))
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE " + ", ".join(table.name for table in db.metadata.sorted_tables)))
    with sessionmaker(engine, expire_on_commit=False)() as opened:
        yield opened
    engine.dispose()


@pytest.fixture(scope="module")
def empty_database(database_url):
    """This process's own database without a row, for a module that works on it as a whole; its URL."""
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE " + ", ".join(table.name for table in db.metadata.sorted_tables)))
    engine.dispose()
    return database_url


@pytest.fixture
def processes(env, session):
    started = Processes(env)
    yield started
    started.kill_all()

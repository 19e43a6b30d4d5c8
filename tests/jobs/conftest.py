"""Jobs read the environment themselves, so tests give them one."""

from collections.abc import Iterator

import pytest
import redis

from jobs import queue, wiring
from tests.conftest import environment

_CACHED = (wiring.settings, wiring.clients, wiring.lookup_clients, wiring.fetchers, wiring._engine)


@pytest.fixture
def bell(redis_url: str) -> Iterator[redis.Redis]:
    """An empty Redis, and the doorbell on it."""
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushdb()
        queue.init(redis_url)
        yield connection
        connection.flushdb()


@pytest.fixture
def wired(app: object, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process set up as a worker's is, on the test's database and Redis."""
    for name, value in environment(database_url, redis_url).items():
        monkeypatch.setenv(name, value)
    for made in _CACHED:
        made.cache_clear()
    yield
    wiring._engine().dispose()
    for made in _CACHED:
        made.cache_clear()

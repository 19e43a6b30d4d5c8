from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.postgres import PostgresServer
from embedded.redis_server import RedisServer


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path / "data")
    yield server
    server.destroy()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "data")
    yield server
    server.destroy()

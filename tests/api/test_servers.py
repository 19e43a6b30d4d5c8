"""What depends on the WSGI server in front: chunked bodies, on granian and on gunicorn."""

import http.client
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests import factories
from tests.conftest import environment
from tests.waiting import until
from webapp.models import Lead, Workspace

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

COMMANDS = {
    "granian": [str(BIN / "granian"), "--interface", "wsgi", "--workers", "1", "--blocking-threads", "2", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "error", "wsgi:app"],
    "gunicorn": [str(BIN / "gunicorn"), "--worker-class", "gthread", "--threads", "2", "--bind", "127.0.0.1:{port}", "--log-level", "error", "wsgi:app"],
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=COMMANDS)
def port(request: pytest.FixtureRequest, database_url: str, redis_url: str) -> Iterator[int]:
    port = free_port()
    command = [part.format(port=port) for part in COMMANDS[request.param]]
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | environment(database_url, redis_url)
    server = subprocess.Popen(command, cwd=ROOT, env=env)
    try:
        until(lambda: server.poll() is not None or answers(port), seconds=30)
        yield port
    finally:
        server.terminate()
        server.wait(10)


def answers(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False


def test_chunked_bodies_are_read_whole_or_refused(port: int, session: Session, workspace: Workspace) -> None:
    key = factories.make_key(session, workspace)

    def post(body: bytes) -> tuple[int, dict[str, object]]:
        headers = {"X-API-Key": key, "Idempotency-Key": str(uuid.uuid4()), "Content-Type": "application/json"}
        headers["Transfer-Encoding"] = "chunked"
        parts = (body[i : i + 60_000] for i in range(0, len(body), 60_000))
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            # The server may answer before it has read everything.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", "/leads/", body=parts, headers=headers, encode_chunked=True)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    status, body = post(json.dumps({"note": "n" * 20_000, "padding": "p" * 500_000}).encode())
    assert (status, len(str(body["note"]))) == (201, 20_000)
    # Valid JSON up to the limit and beyond: cut there it would be taken for a lead.
    big = json.dumps({"note": "hi"}).encode() + b" " * 1_500_000
    status, body = post(big)
    assert (status, body["error"]["code"]) == (413, "payload_too_large")  # type: ignore[index]
    assert session.scalar(sa.select(sa.func.count()).select_from(Lead)) == 1

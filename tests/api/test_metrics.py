"""``/metrics``: who may read it, what the processes counted, what waits in PostgreSQL."""

import http.client
import os
import re
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.orm import Session

from tests import factories
from tests.api.test_servers import COMMANDS, ROOT, answers, free_port
from tests.conftest import environment
from tests.waiting import until
from webapp import metrics
from webapp.leads import scoring
from webapp.leads.states import Door, QuarantineState, RunStatus, Scope
from webapp.models import ApiKey, Quarantined, Run, Workspace
from webapp.security.keys import create_key
from webapp.security.ratelimit import RateLimiter

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(client: FlaskClient, headers: dict[str, str]) -> Figures:
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def figure(found: Figures, name: str, **labels: str) -> float:
    return found.get((f"leadops_{name}", frozenset(labels.items())), 0.0)


def test_only_admin_and_platform_keys_read_it(client: FlaskClient, session: Session, workspace: Workspace) -> None:
    assert client.get("/metrics").status_code == 401
    weak = factories.make_key(session, workspace, scopes={Scope.READ, Scope.INGEST, Scope.REVIEW})
    refused = client.get("/metrics", headers={"X-API-Key": weak})
    assert (refused.status_code, refused.json["error"]["code"]) == (403, "insufficient_scope")
    read(client, {"X-API-Key": factories.make_key(session, workspace, scopes={Scope.ADMIN})})


def test_requests_are_counted_by_door_and_class_of_status(client: FlaskClient, headers: dict[str, str]) -> None:
    lead = "/leads/<lead_id>"
    before = read(client, headers)
    for _ in range(3):
        client.get(f"/leads/{uuid.uuid4()}", headers=headers)
    client.get("/healthz")
    client.get("/login")
    unknown = uuid.uuid4().hex
    client.get(f"/api/{unknown}")
    after = read(client, headers)

    def grown(**labels: str) -> float:
        return figure(after, "requests_total", **labels) - figure(before, "requests_total", **labels)

    # Other processes of this machine's test run may count into the same figures meanwhile.
    assert grown(method="GET", door=lead, status="4xx") >= 3
    assert grown(method="GET", door="/healthz", status="2xx") >= 1
    assert grown(method="GET", door="pages", status="2xx") >= 1
    assert grown(method="ANY", door="unknown", status="4xx") >= 1
    assert not [labels for _, labels in after if unknown in str(labels)]  # one label for all that no rule knows


def test_queues_are_told_from_postgresql(
    client: FlaskClient, session: Session, workspace: Workspace, headers: dict[str, str]
) -> None:
    for _ in range(3):
        factories.make_lead(session, workspace)
    runs = session.scalars(sa.select(Run.id).order_by(Run.created_at)).all()
    ago = datetime.now(UTC) - timedelta(seconds=90)
    session.execute(sa.update(Run).where(Run.id == runs[0]).values(due_at=ago))
    session.execute(sa.update(Run).where(Run.id == runs[1]).values(status=RunStatus.RUNNING))
    session.add(Quarantined(workspace_id=workspace.id, door=Door.SOCIAL, reason="odd", raw="{}"))
    session.add(
        Quarantined(
            workspace_id=workspace.id, door=Door.SOCIAL, reason="odd", raw="{}", state=QuarantineState.DISCARDED
        )
    )
    session.commit()
    found = read(client, headers)
    assert figure(found, "queue_depth", queue="runs", state="queued") == 2
    assert figure(found, "queue_depth", queue="runs", state="running") == 1
    assert 90 <= figure(found, "queue_oldest_due_seconds", queue="runs") < 120
    for queue, state in (("deliveries", "pending"), ("imports", "queued"), ("fetches", "pending")):
        assert found[("leadops_queue_depth", frozenset({("queue", queue), ("state", state)}))] == 0
    assert figure(found, "quarantine") == 1
    assert [value for (name, _), value in found.items() if name == "leadops_build_info"] == [1]


def test_a_workspace_sees_its_own_queues_and_the_platform_all(
    client: FlaskClient, session: Session, workspace: Workspace, headers: dict[str, str]
) -> None:
    other = factories.make_workspace(session)
    factories.make_lead(session, workspace)
    for _ in range(2):
        factories.make_lead(session, other)
    platform = create_key(session, workspace_id=None, name="platform", scopes={Scope.PLATFORM})[1]
    session.commit()
    queued = {"queue": "runs", "state": "queued"}
    assert figure(read(client, headers), "queue_depth", **queued) == 1
    assert figure(read(client, {"X-API-Key": platform}), "queue_depth", **queued) == 3


def test_a_limiter_without_redis_is_told(
    app: Flask,
    client: FlaskClient,
    session: Session,
    workspace: Workspace,
    headers: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limiter = RateLimiter(10, 3_600, "redis://127.0.0.1:1/0", on_state=metrics.limiter_degraded)
    monkeypatch.setitem(app.extensions, "ratelimiter", limiter)
    secret = factories.make_key(session, workspace, rate_limited=True)
    assert client.get("/leads/", headers={"X-API-Key": secret}).status_code == 200
    away = redis.Redis.from_url("redis://127.0.0.1:1/0")
    limiter.attempt(away)
    away.close()
    assert figure(read(client, headers), "rate_limiter_degraded") == 1
    metrics.limiter_degraded(False)
    assert figure(read(client, headers), "rate_limiter_degraded") == 0
    assert session.scalar(sa.select(sa.func.count()).select_from(ApiKey)) == 2


@pytest.mark.parametrize("server", ["granian", "gunicorn"])
def test_two_web_processes_are_told_together(
    server: str, session: Session, workspace: Workspace, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Whichever of them answers the scrape, all requests are in it."""
    key = factories.make_key(session, workspace)
    port = free_port()
    command = [part.format(port=port) for part in COMMANDS[server]]
    if server == "granian":
        command[command.index("--workers") + 1] = "2"
    else:
        command[1:1] = ["--workers", "2"]
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, cwd=ROOT, env=env | environment(database_url, redis_url))
    try:
        until(lambda: process.poll() is not None or answers(port), seconds=90)

        def get(path: str) -> str:  # a connection each, so that both get some
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
                connection.request("GET", path, headers={"X-API-Key": key})
                return connection.getresponse().read().decode()

        def counted() -> float:
            found = re.search(
                r'leadops_requests_total{door="/leads/",method="GET",status="2xx"} (\S+)', get("/metrics")
            )
            return float(found[1]) if found else 0.0

        def both_answered() -> bool:
            return len(list(tmp_path.rglob("counter_*.db"))) == 2

        asked = 0
        with ThreadPoolExecutor(8) as callers:
            while asked < 40 or not (both_answered() or asked >= 4_000):
                asked += len(list(callers.map(get, ["/leads/"] * 40)))
        assert both_answered()
        assert [counted() for _ in range(8)] == [float(asked)] * 8
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


AT_ONCE = """
import threading
from webapp import metrics
start = threading.Barrier(16)
made = []
def first():
    start.wait()
    found = metrics.figures()
    made.append(found)
    found.answered("GET", "/somewhere", 200)
threads = [threading.Thread(target=first) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len({id(one) for one in made}))
"""


def test_requests_that_come_together_at_the_start_count_in_one_place(tmp_path: Path) -> None:
    """Each thread that opened the shared file for itself would write over the others' figures."""
    assert run_in_a_process(AT_ONCE, tmp_path).strip() == "1"


COUNTS = """
import sys
from webapp import metrics
for _ in range(int(sys.argv[1])):
    metrics.figures().answered("GET", "/somewhere", 200)
from prometheus_client import generate_latest
print(generate_latest(metrics.registry()).decode())
"""


def count_in_a_process(times: int, tmp: Path) -> str:
    return run_in_a_process(COUNTS, tmp, str(times))


def run_in_a_process(code: str, tmp: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment | {"TMPDIR": str(tmp)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def test_siblings_are_told_together_whoever_answers(tmp_path: Path) -> None:
    """Two processes of one parent, as web workers are; the first has even ended."""
    stale = tmp_path / f"leadops-metrics-{os.getuid()}-999999999-1"
    stale.mkdir()
    label = 'leadops_requests_total{door="/somewhere",method="GET",status="2xx"}'
    assert f"{label} 3.0" in count_in_a_process(3, tmp_path)
    assert f"{label} 7.0" in count_in_a_process(4, tmp_path)
    (folder,) = tmp_path.iterdir()  # the folder of a parent that is gone was removed
    assert folder.stat().st_mode & 0o777 == 0o700 and folder != stale


def test_components_of_scores_that_failed_are_counted_for_their_workspace(
    client: FlaskClient, session: Session, workspace: Workspace, headers: dict[str, str]
) -> None:
    other = factories.make_workspace(session)
    scoring.note_failures(
        session, [scoring.Failed(one.id, "budget", "TypeError") for one in (workspace, workspace, other)]
    )
    session.commit()
    assert figure(read(client, headers), "score_fallbacks_total", component="budget") == 2
    secret = create_key(session, workspace_id=None, name="all", scopes={Scope.PLATFORM})[1]
    session.commit()
    assert figure(read(client, {"X-API-Key": secret}), "score_fallbacks_total", component="budget") == 3

"""Intake against the peer, and how soon a run is done."""

import http.client
import json
import statistics
import threading
import time
import uuid
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from benchmark.stack import Load, Stack, wrk

ROUNDS = 3


def connect(url: str) -> "psycopg.Connection[Any]":
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)


def count(url: str, query: str) -> int:
    with connect(url) as connection:
        row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0


def median(loads: list[Load]) -> dict[str, Any]:
    return {
        "per_second": statistics.median(load.per_second for load in loads),
        "p50_ms": statistics.median(load.p50 for load in loads),
        "p99_ms": statistics.median(load.p99 for load in loads),
        "not_2xx": sum(load.bad for load in loads),
    }


def accepted(stack: Stack, seconds: int) -> dict[str, Any]:
    """accepted/s with the workers stopped on both sides, in turns so that both see the same machine."""
    ours: list[Load] = []
    peers: list[Load] = []
    with stack.web(), stack.peer_web():
        for url in (stack.url, stack.peer_url):
            wrk(stack, f"{url}/leads/", seconds=2)  # connections, plans and caches are warm
        for _ in range(ROUNDS):
            ours.append(wrk(stack, f"{stack.url}/leads/", seconds=seconds))
            peers.append(wrk(stack, f"{stack.peer_url}/leads/", seconds=seconds))
    return _versus(median(ours), median(peers))


def judged(stack: Stack, seconds: int) -> dict[str, Any]:
    """leads/s whose verdict is committed while the load lasts, workers running on both sides (each side's own)."""
    ours: list[Load] = []
    peers: list[Load] = []
    for _ in range(ROUNDS):
        with stack.web(), stack.workers():
            wrk(stack, f"{stack.url}/leads/", seconds=1)
            before = count(stack.database_url, "SELECT count(*) FROM leads")
            load = wrk(stack, f"{stack.url}/leads/", seconds=seconds)
            done = count(stack.database_url, "SELECT count(*) FROM leads WHERE verdict IS NOT NULL") - before
            ours.append(Load(done / seconds, load.p50, load.p99, load.bad))
        with stack.peer_web(), stack.peer_worker():
            wrk(stack, f"{stack.peer_url}/leads/", seconds=1)
            before = count(stack.peer_database_url, "SELECT count(*) FROM peer_insights")
            load = wrk(stack, f"{stack.peer_url}/leads/", seconds=seconds)
            done = count(stack.peer_database_url, "SELECT count(*) FROM peer_insights") - before
            peers.append(Load(done / seconds, load.p50, load.p99, load.bad))
    return _versus(median(ours), median(peers))


def _versus(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    return {"ours": ours, "peer": peer, "ratio": round(ours["per_second"] / max(peer["per_second"], 1), 2)}


def settled(stack: Stack, seconds: int, per_second: int = 200) -> dict[str, Any]:
    """Accept to run finished, in seconds, at a steady open-loop rate."""
    with connect(stack.database_url) as connection:  # what earlier rounds left queued is not what is measured
        connection.execute("UPDATE runs SET status = 'success', finished_at = now() WHERE status <> 'success'")
    with stack.web(), stack.workers():
        steady(stack, 1, 1)  # a first lead, to know when the workers are up
        wait_for_runs(stack)
        started = time.time()
        statuses = steady(stack, per_second, seconds)
        sent = len(statuses)
        deadline = time.monotonic() + 60
        query = f"SELECT count(*) FROM runs WHERE created_at >= to_timestamp({started}) AND finished_at IS NOT NULL"  # noqa: S608
        while count(stack.database_url, query) < statuses.count(201) and time.monotonic() < deadline:
            time.sleep(0.2)
        with connect(stack.database_url) as connection:
            row = connection.execute(
                "SELECT count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at)),"
                " percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at)) "
                "FROM runs WHERE created_at >= to_timestamp(%s) AND finished_at IS NOT NULL",
                [started],
            ).fetchone()
    assert row is not None
    return {
        "rate": per_second, "sent": sent, "accepted": statuses.count(201), "finished": row[0],
        "p50_s": round(float(row[1] or 0), 3), "p95_s": round(float(row[2] or 0), 3),
    }  # fmt: skip


def wait_for_runs(stack: Stack, seconds: float = 60) -> None:
    """Until no run is open any more."""
    deadline = time.monotonic() + seconds
    while count(stack.database_url, "SELECT count(*) FROM runs WHERE finished_at IS NULL AND status <> 'success'"):
        if time.monotonic() > deadline:
            raise RuntimeError("the workers do not get on")
        time.sleep(0.1)


def steady(stack: Stack, per_second: int, seconds: int, threads: int = 8) -> list[int]:
    """Post at a fixed rate whatever the answers take; the statuses. Each thread has its own share of the ticks."""
    statuses: list[int] = []
    lock = threading.Lock()
    start = time.monotonic() + 0.2
    run = uuid.uuid4().hex[:8]

    def one(thread: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
        for tick in range(thread, per_second * seconds, threads):
            time.sleep(max(0.0, start + tick / per_second - time.monotonic()))
            body = {"note": f"Could we get a demo for our team of {tick}?", "email": f"s{run}.{tick}@example.com"}
            headers = {
                "X-API-Key": stack.api_key,
                "Idempotency-Key": str(uuid.uuid4()),
                "Content-Type": "application/json",
            }
            connection.request("POST", "/leads/", json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            with lock:
                statuses.append(answer.status)
        connection.close()

    workers = [threading.Thread(target=one, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return statuses

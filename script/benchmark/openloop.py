"""10,000 posts at a fixed rate, whatever the answers take: what a campaign that goes out at once does to intake."""

import contextlib
import gc
import json
import socket
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmark.intake import count, wait_for_runs
from benchmark.stack import Stack, wrk

POSTS = 10_000
#: Share of what the stack takes at full load, workers running.
SHARE = 0.7
_CONNECTIONS = 32
_DOMAIN = "openloop.example.com"  # of nobody else's leads
_STORED = "SELECT count(*) FROM leads WHERE email LIKE '%@openloop.example.com'"


@dataclass(frozen=True, slots=True)
class Answer:
    """``ms`` counts from the moment at which the post was due, so that a stalled server is not spared the posts that
    waited for it."""

    status: int
    ms: float


def measure(stack: Stack, seconds: int) -> dict[str, Any]:
    """Capacity first, then the posts at :data:`SHARE` of it; how soon they were acknowledged, and how soon all run. Then
    the capacity once more: where it is another, the machine's speed has changed, and the posts were not at that share."""
    with stack.web(), stack.workers():
        wrk(stack, f"{stack.url}/leads/", seconds=2)
        capacity = wrk(stack, f"{stack.url}/leads/", seconds=seconds).per_second
        wait_for_runs(stack, 120)
        rate = capacity * SHARE
        answers = post(stack, rate, POSTS)
        ended = time.monotonic()
        wait_for_runs(stack, 120)
        drained = time.monotonic() - ended
        stored = count(stack.database_url, _STORED)
        capacity_after = wrk(stack, f"{stack.url}/leads/", seconds=seconds).per_second
    times = sorted(answer.ms for answer in answers)
    return {
        "capacity_per_second": round(capacity), "capacity_after": round(capacity_after), "rate": round(rate),
        "posts": len(answers), "stored": stored,
        "not_2xx": sum(not 200 <= answer.status < 300 for answer in answers),
        "p50_ms": round(statistics.median(times), 1), "p99_ms": round(times[int(len(times) * 0.99)], 1),
        "drained_s": round(drained, 1),
    }  # fmt: skip


def post(stack: Stack, per_second: float, total: int) -> list[Answer]:
    """``total`` new leads at ``per_second``, over connections that are kept."""
    run = uuid.uuid4().hex[:8]
    requests = [_request(stack, run, number) for number in range(total)]
    answers: list[Answer] = []

    def one(first: int) -> None:
        mine: list[Answer] = []
        with socket.create_connection(("127.0.0.1", stack.port), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number in range(first, total, _CONNECTIONS):
                due = start + number / per_second
                time.sleep(max(0.0, due - time.perf_counter()))
                connection.sendall(requests[number])
                status = _read(connection)
                mine.append(Answer(status, (time.perf_counter() - due) * 1000))
        answers.extend(mine)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(_CONNECTIONS)]
    with _without_full_collections():
        start = time.perf_counter() + 0.5
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return answers


@contextlib.contextmanager
def _without_full_collections() -> Iterator[None]:
    """A full collection of all that the benchmark has loaded halts every sender for some 100 ms, and would be counted as
    the server's."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _request(stack: Stack, run: str, number: int) -> bytes:
    body = json.dumps(
        {"note": f"Could you send a quote for {number} seats by Friday?", "email": f"{run}.{number}@{_DOMAIN}"}
    ).encode()
    head = (
        f"POST /leads/ HTTP/1.1\r\nHost: 127.0.0.1:{stack.port}\r\nX-API-Key: {stack.api_key}\r\n"
        f"Idempotency-Key: {uuid.uuid4()}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _read(connection: socket.socket) -> int:
    """One whole answer; its status."""
    buffer = b""
    while b"\r\n\r\n" not in buffer:
        buffer += _more(connection)
    head, _, body = buffer.partition(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        body += _more(connection)
    return int(head[9:12])


def _more(connection: socket.socket) -> bytes:
    part = connection.recv(65_536)
    if not part:
        raise ConnectionError("the server closed the connection")
    return part

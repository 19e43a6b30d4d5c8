"""How fast one worker takes a file of leads in, and whether its memory stays flat."""

import csv
import io
import json
import random
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from benchmark.seed import SAMPLES
from benchmark.stack import Stack

ROWS = 100_000
_DOMAINS = ("gmail.com", "yahoo.com", "outlook.com", "hotmail.com", "icloud.com", "proton.me")
_MIB = 1 << 20


def measure(stack: Stack, rows: int = ROWS) -> dict[str, Any]:
    """Upload through the real web server, worked by one import worker with the run workers stopped. Rows/s is from the
    worker's first chunk to its last."""
    with stack.web():
        location = _upload(stack, _file(rows))
        slot = {"WORKER_SLOT": "imports-1"}
        with stack.running(sys.executable, "-m", "jobs.worker", "imports", env=slot) as process:
            worker = psutil.Process(process.pid)
            first = _await(stack, location, lambda found: found["rows_done"] > 0)
            began, cpu = time.monotonic(), _cpu(worker)
            memory = {}
            for share in (0.1, 0.5, 0.9):
                found = _await(stack, location, lambda found, share=share: found["rows_done"] >= share * rows)
                memory[f"{share:.0%}"] = _memory(worker)
            found = _await(stack, location, lambda found: found["state"] not in ("queued", "running"))
            took, cpu = time.monotonic() - began, _cpu(worker) - cpu
    return {
        "rows": found["rows_done"],
        "created": found["created"],
        "touched": found["touched"],
        "failed": found["failed"],
        "state": found["state"],
        "rows_per_second": round((found["rows_done"] - first["rows_done"]) / took),
        "seconds": round(took, 2),
        "worker_cpu_share": round(cpu / took, 2),
        "memory_mib": memory,
    }


def _file(rows: int) -> bytes:
    """Texts of real length and language, each with its own number in it, by people who differ."""
    samples = [json.loads(line) for line in SAMPLES.read_text(encoding="utf-8").splitlines()]
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(("Full name", "E-mail", "Phone", "Company", "Country", "Budget", "Message", "UTM source"))
    writer.writerows(_rows(samples, rows))
    return buffer.getvalue().encode()


def _rows(samples: list[dict[str, Any]], rows: int) -> Iterator[tuple[Any, ...]]:
    rnd = random.Random(1)
    for number in range(rows):
        sample = samples[rnd.randrange(len(samples))]
        domain = rnd.choice(_DOMAINS) if number % 3 else f"company{rnd.randrange(rows // 4)}.example.com"
        phone = (
            f"09{rnd.randrange(10**8):08d}"
            if number % 2
            else f"+1 (415) {rnd.randrange(200, 999)}-{number % 10_000:04d}"
        )
        yield (
            sample["name"], f"person.{number}@{domain}", phone, sample["company"], sample["country"], sample["budget"],
            f"{sample['message']} ({number})", rnd.choice(("google", "facebook", "")),
        )  # fmt: skip


def _upload(stack: Stack, data: bytes) -> str:
    request = urllib.request.Request(f"{stack.url}/api/v1/imports?filename=bench.csv", data=data, method="POST")
    request.add_header("X-API-Key", stack.api_key)
    request.add_header("Content-Type", "text/csv")
    with urllib.request.urlopen(request, timeout=120) as answer:
        return f"{stack.url}{answer.headers['Location']}"


def _await(stack: Stack, location: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        request = urllib.request.Request(location, headers={"X-API-Key": stack.api_key})
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        if condition(found) or found["state"] in ("done", "failed"):
            return found
        time.sleep(0.1)
    raise RuntimeError("the import does not get on")


def _memory(worker: psutil.Process) -> int:
    """MiB of the worker and its helpers; what they share counts once."""
    return round(sum(one.memory_full_info().pss for one in (worker, *worker.children())) / _MIB)


def _cpu(worker: psutil.Process) -> float:
    """Seconds of the worker and its helpers, also those that have ended."""
    times = [worker.cpu_times(), *(helper.cpu_times() for helper in worker.children())]
    return sum(one.user + one.system for one in times) + times[0].children_user + times[0].children_system

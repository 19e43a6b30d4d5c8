"""How many rule-only runs one worker process does a second on a backlog."""

import sys
import time
from typing import Any

import psutil

from benchmark.intake import connect, count
from benchmark.seed import seed
from benchmark.stack import Stack

BACKLOG = 10_000


def backlog(stack: Stack) -> dict[str, Any]:
    """Runs/s from the worker's first finished run to the last of the backlog."""
    with connect(stack.database_url) as connection:
        connection.execute("UPDATE runs SET status = 'success', finished_at = now() WHERE status <> 'success'")
    seed(stack, BACKLOG, run_status="queued")
    open_runs = "SELECT count(*) FROM runs WHERE status IN ('queued', 'running')"
    with stack.running(sys.executable, "-m", "jobs.worker", "runs", env={"WORKER_SLOT": "runs-1"}):
        deadline = time.monotonic() + 180
        while (left := count(stack.database_url, open_runs)) == BACKLOG and time.monotonic() < deadline:
            time.sleep(0.02)
        started, first = time.monotonic(), left
        cpu_before = _cpu(stack)
        while (left := count(stack.database_url, open_runs)) and time.monotonic() < deadline:
            time.sleep(0.1)
        took = time.monotonic() - started
        cpu = _cpu(stack) - cpu_before
    return {
        "backlog": BACKLOG, "left": left, "runs_per_second": round((first - left) / took),
        "seconds": round(took, 2), "worker_cpu_share": round(cpu / took, 2),
    }  # fmt: skip


def _cpu(stack: Stack) -> float:
    """CPU seconds of our worker process so far."""

    total = 0.0
    for process in psutil.process_iter(["cmdline", "environ"]):
        title = " ".join(process.info["cmdline"] or [])
        mine = (process.info["environ"] or {}).get("DATABASE_URL") == stack.database_url
        if mine and ("jobs.worker" in title or "leadops: worker" in title):
            times = process.cpu_times()
            total += times.user + times.system
    return total

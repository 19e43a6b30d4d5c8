"""How many messages a second the shipped verdict judges on one core, and what its start costs."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from webapp.leads.verdict import judge

MESSAGES = Path(__file__).parents[2] / "tests" / "data" / "leads.jsonl"
ROUNDS = 9
LOOP = 5_000_000
_START = """
import psutil, time
process = psutil.Process()
cpu, memory = time.process_time(), process.memory_info().rss
from webapp.leads.verdict import judge
judge("hello")
print(time.process_time() - cpu, (process.memory_info().rss - memory) / 2**20)
"""


def measure() -> dict[str, Any]:
    """CPU time of this process, so that what else the machine does counts little; the median of some rounds.
    ``loop_ns``: a turn of an empty loop, by which runs on machines of different speed can be compared."""
    texts = [json.loads(line)["message"] for line in MESSAGES.read_text(encoding="utf-8").splitlines()]
    for text in texts:
        judge(text)
    rounds = []
    for _ in range(ROUNDS):
        before = time.process_time()
        for text in texts:
            judge(text)
        rounds.append((time.process_time() - before) / len(texts))
    before = time.process_time()
    for _ in range(LOOP):
        pass
    loop = (time.process_time() - before) / LOOP
    started = subprocess.run([sys.executable, "-c", _START], capture_output=True, text=True, check=True)
    seconds, mib = map(float, started.stdout.split())
    each = statistics.median(rounds)
    return {
        "messages": len(texts), "mean_characters": round(statistics.mean(map(len, texts))),
        "us_each": round(each * 1e6, 1), "per_second": round(1 / each), "best_per_second": round(1 / min(rounds)),
        "loop_ns": round(loop * 1e9, 1), "start_cpu_s": round(seconds, 2), "start_mib": round(mib, 1),
    }  # fmt: skip

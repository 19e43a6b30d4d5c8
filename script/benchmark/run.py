"""``script/bench``: runs the measurements, prints a table, writes JSON."""

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark import intake, pages, worker
from benchmark.stack import Stack, stack

PARTS = ("intake", "worker", "pages")


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/bench", description="Measure this build against the peer.")
    parser.add_argument("parts", nargs="*", metavar="part", help="intake, worker, pages (default: all)")
    parser.add_argument("--seconds", type=int, default=8, help="length of each load (default 8)")
    parser.add_argument(
        "--json", type=Path, default=Path("bench-results/latest.json"), help="where to write the figures"
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    if not 1 <= chosen.seconds <= 120:
        parser.error("--seconds takes 1 to 120")
    figures: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(), "python": platform.python_version(),
    }  # fmt: skip
    with stack() as made:
        for part in chosen.parts or PARTS:
            measure(part, made, chosen.seconds, figures)
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\nWritten to {chosen.json}")


def measure(part: str, made: Stack, seconds: int, figures: dict[str, Any]) -> None:
    """One part: its figures into ``figures``, its rows to standard output."""
    made.peer_init()
    if part == "intake":
        for name, what in (("accepted", "accepted/s, workers stopped"), ("judged", "judged/s, workers running")):
            found = figures[name] = getattr(intake, name)(made, seconds)
            for side in ("ours", "peer"):
                load = found[side]
                row(
                    f"{what}: {side}",
                    f"{load['per_second']:.0f}/s",
                    f"p99 {load['p99_ms']:.1f} ms, not 2xx {load['not_2xx']}",
                )
            row(f"{what}: ratio", f"{found['ratio']:.2f} ×", "")
        found = figures["settled"] = intake.settled(made, seconds)
        row(
            f"accept to run finished at {found['rate']}/s", f"p95 {found['p95_s']:.2f} s",
            f"p50 {found['p50_s']:.2f} s, {found['finished']} of {found['accepted']} finished",
        )  # fmt: skip
    elif part == "worker":
        found = figures["worker"] = worker.backlog(made)
        row(
            "runs/s of one worker on a backlog",
            f"{found['runs_per_second']}/s",
            f"its CPU {found['worker_cpu_share']:.0%}",
        )
    else:
        found = figures["pages"] = pages.measure(made)
        for name, times in found["queue"].items():
            row(f"queue, {found['leads']:,} leads: {name}", f"p95 {times['p95_ms']} ms", f"p50 {times['p50_ms']} ms")
        row("lead page", f"p95 {found['lead_p95_ms']} ms", f"p50 {found['lead_p50_ms']} ms")


def row(what: str, figure: str, more: str) -> None:
    print(f"{what:<58} {figure:>14}   {more}", flush=True)


if __name__ == "__main__":
    main()

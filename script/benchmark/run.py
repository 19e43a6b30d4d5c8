"""``script/bench``: runs the measurements, prints a table, writes JSON."""

import argparse
import json
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark import deliveries, imports, intake, judging, openloop, pages, waiting, webhooks, worker
from benchmark.stack import Stack, stack


def main() -> None:
    known = ["judge", *PARTS]
    parser = argparse.ArgumentParser(prog="script/bench", description="Measure this build against the peer.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(known)} (default: all)")
    parser.add_argument("--seconds", type=int, default=8, help="length of each load (default 8)")
    parser.add_argument(
        "--json", type=Path, default=Path("bench-results/latest.json"), help="where to write the figures"
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(known):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    if not 1 <= chosen.seconds <= 120:
        parser.error("--seconds takes 1 to 120")
    figures: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(), "python": platform.python_version(),
    }  # fmt: skip
    parts = list(chosen.parts or known)
    if "judge" in parts:  # before there are servers that take its core
        parts.remove("judge")
        figures["judge"] = show_judge()
    if parts:
        with stack() as made:
            if WITH_PEER & set(parts):
                made.peer_init()
            for part in parts:
                figures[part] = PARTS[part](made, chosen.seconds)
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\nWritten to {chosen.json}")


def show_intake(made: Stack, seconds: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
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
    return figures


def show_openloop(made: Stack, seconds: int) -> dict[str, Any]:
    found = openloop.measure(made, seconds)
    row(
        f"{found['posts']:,} posts at {found['rate']}/s (70 % of {found['capacity_per_second']}/s; "
        f"{found['capacity_after']}/s afterwards)",
        f"p99 {found['p99_ms']} ms",
        f"p50 {found['p50_ms']} ms, not 2xx {found['not_2xx']}, stored {found['stored']:,}, all run {found['drained_s']} s after",
    )
    return found


def show_webhooks(made: Stack, seconds: int) -> dict[str, Any]:
    found = webhooks.measure(made)
    for when in ("web alone", "with workers"):
        times = found[when]
        row(
            f"/webhooks/facebook, {found['comments']} comments: {when}",
            f"p95 {times['p95_ms']} ms",
            f"p50 {times['p50_ms']} ms, most {times['max_ms']} ms, {found['requests']} requests",
        )
    return found


def show_worker(made: Stack, seconds: int) -> dict[str, Any]:
    found = worker.backlog(made)
    row(
        "runs/s of one worker on a backlog", f"{found['runs_per_second']}/s", f"its CPU {found['worker_cpu_share']:.0%}"
    )
    return found


def show_waiting(made: Stack, seconds: int) -> dict[str, Any]:
    found = waiting.measure(made)
    row(
        f"queue beside {found['callers']} callers who wait for a model", f"p95 {found['p95_ms']} ms",
        f"p50 {found['p50_ms']} ms, alone p95 {found['alone_p95_ms']} ms, answers {found['answers']}",
    )  # fmt: skip
    return found


def show_judge() -> dict[str, Any]:
    found = judging.measure()
    row(
        "messages judged on one core", f"{found['per_second']:,}/s",
        f"{found['us_each']} µs each; start {found['start_cpu_s']} s of CPU, {found['start_mib']} MiB; "
        f"an empty loop takes {found['loop_ns']} ns a turn here",
    )  # fmt: skip
    return found


def show_pages(made: Stack, seconds: int) -> dict[str, Any]:
    found = pages.measure(made)
    named = {f"queue, {found['leads']:,} leads: {name}": times for name, times in found["queue"].items()}
    for name, times in (named | found["pages"]).items():
        row(name, f"p95 {times['p95_ms']} ms", f"p50 {times['p50_ms']} ms, {times['cpu_ms']} ms of CPU")
    return found


def show_imports(made: Stack, _: int) -> dict[str, Any]:
    found = imports.measure(made)
    row(
        f"import of {found['rows']:,} CSV rows, one worker", f"{found['rows_per_second']:,}/s",
        f"{found['created']:,} leads, {found['failed']} bad rows; its CPU {found['worker_cpu_share']:.0%}",
    )  # fmt: skip
    row(
        "import worker's memory",
        f"{found['memory_mib']['90%']} MiB",
        f"{found['memory_mib']['10%']} MiB after a tenth",
    )
    return found


def show_deliveries(made: Stack, _: int) -> dict[str, Any]:
    found = deliveries.backlog(made)
    row(
        f"{found['leads']:,} leads × 3 calls of 50 ms, two workers", f"{found['seconds']} s",
        f"{found['calls_per_second']} calls/s, there: {found['records']}; CPU of workers {found['workers_cpu_s']} s, "
        f"of the stand-in {found['fake_cpu_s']} s; load {found['load']}",
    )  # fmt: skip
    return found


def show_rate_limit(made: Stack, _: int) -> dict[str, Any]:
    found = deliveries.rate_limit(made)
    row(
        f"{found['calls']} calls at {found['per_second']}/s", f"{found['seconds']} s",
        f"{found['off_percent']:+} %; load {found['load']}",
    )  # fmt: skip
    return found


def show_dead_destination(made: Stack, _: int) -> dict[str, Any]:
    found = deliveries.dead_destination(made)
    row(
        f"due to arrived beside a dead destination, {found['rate']} leads/s", f"p95 {found['p95_ms']} ms",
        f"{found['slower_percent']:+} %; alone p95 {found['alone_p95_ms']} ms; p50 {found['p50_ms']}, alone "
        f"{found['alone_p50_ms']} ms; {found['missing']} missing; load {found['load']}",
    )  # fmt: skip
    return found


#: Those of the peer's have something to be compared with.
WITH_PEER = frozenset({"intake"})

#: Part → what measures and prints it. Each runs on the same fresh servers; its figures are written under its name.
PARTS: dict[str, Callable[[Stack, int], dict[str, Any]]] = {
    "intake": show_intake,
    "openloop": show_openloop,
    "webhooks": show_webhooks,
    "worker": show_worker,
    "imports": show_imports,
    "deliveries": show_deliveries,
    "ratelimit": show_rate_limit,
    "dead": show_dead_destination,
    "waiting": show_waiting,
    "pages": show_pages,
}


def row(what: str, figure: str, more: str) -> None:
    print(f"{what:<58} {figure:>14}   {more}", flush=True)


if __name__ == "__main__":
    main()

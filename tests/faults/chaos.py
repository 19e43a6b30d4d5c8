"""``script/chaos``: kills the deliveries worker until it has been killed often enough, and counts what came of it."""

import argparse
import sys
import time
from collections import Counter
from itertools import cycle

from embedded import testing
from tests.conftest import migrated
from tests.faults.kills import KILLS, Boundary, Rig


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="script/chaos",
        description="Kill the deliveries worker at every boundary of every step, and count records.",
    )
    parser.add_argument("--kills", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--minutes", type=float, default=30, help="stop after so many, whatever is left (default 30)")
    chosen = parser.parse_args()
    ends_at = time.monotonic() + chosen.minutes * 60
    done: Counter[tuple[str, Boundary]] = Counter()
    with testing.private_servers() as (postgres, redis), _migrated(postgres.url(), redis.url()) as rig:
        began = time.monotonic()
        for wanted in cycle(KILLS):
            if rig.kills >= chosen.kills or time.monotonic() > ends_at:
                break
            rig.kill(wanted)
            done[wanted.place.name, wanted.boundary] += 1
            if rig.kills % 10 == 0:
                print(f"{rig.kills} kills", file=sys.stderr, flush=True)
        seconds = time.monotonic() - began
        wrong = _show(rig, done)
    print(f"\n{rig.kills} kills in {seconds:.0f} s")
    if rig.kills < chosen.kills:
        print(f"stopped after {chosen.minutes:g} minutes: {chosen.kills - rig.kills} kills are missing")
    return 1 if wrong or rig.kills < chosen.kills else 0


def _migrated(database_url: str, redis_url: str) -> Rig:
    migrated(database_url)
    return Rig(database_url, redis_url)


def _show(rig: Rig, done: Counter[tuple[str, Boundary]]) -> bool:
    """Prints the table; True when a record is missing or there twice."""
    for boundary in Boundary:
        print(f"{boundary:<42} {sum(number for (_, there), number in done.items() if there is boundary):>5} kills")
    print(f"{'worker past the boundary, tried again':<42} {rig.missed:>5}")
    print(
        f"\n{'destination':<23} {'kills':>5} {'leads':>5} {'wanted':>7} {'records':>7} {'missing':>7} {'duplicates':>10} {'uncertain':>9}"
    )
    wrong = False
    for place, site in rig.sites.items():
        counts = site.counts()
        kills = sum(number for (name, _), number in done.items() if name == place.name)
        wrong = wrong or bool(counts.missing or counts.duplicates)
        print(
            f"{place.name:<23} {kills:>5} {len(site.leads):>5} {counts.wanted:>7} {counts.records:>7} "
            f"{counts.missing:>7} {counts.duplicates:>10} {len(site.uncertain):>9}"
        )
    return wrong


if __name__ == "__main__":
    sys.exit(main())

"""The deliveries worker killed at step boundaries of every destination: each lead's records are there once.

A sample; ``script/chaos`` goes on with as many kills as it is asked for.
"""

from collections.abc import Iterator

import pytest

from tests.faults.kills import KILLS, Boundary, Kill, Rig
from webapp.leads.kinds.base import Unknown

pytestmark = [pytest.mark.fault, pytest.mark.slow]

_WRITES = ("task", "message", "event", "row", "mail")
_BOUNDARIES = (Boundary.BEFORE_CALL, Boundary.BEFORE_ANSWER, Boundary.BEFORE_SAVE)
SAMPLE = [kill for kill in KILLS if kill.write in _WRITES and kill.boundary in _BOUNDARIES]


@pytest.fixture(scope="module")
def rig(empty_database: str, redis_url: str) -> Iterator[Rig]:
    with Rig(empty_database, redis_url) as made:
        yield made


@pytest.mark.parametrize("kill", SAMPLE, ids=str)
def test_a_killed_worker_leaves_each_record_once(rig: Rig, kill: Kill) -> None:
    site = rig.sites[kill.place]
    uncertain = len(site.uncertain)
    rig.kill(kill)
    counts = site.counts()
    assert (counts.missing, counts.duplicates) == (0, 0)
    # Nobody can tell what became of a call that nothing is known of; everywhere else it has been found out.
    assert (len(site.uncertain) > uncertain) == (kill.place.described.unknown is Unknown.STOPS)

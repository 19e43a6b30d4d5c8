"""Ids that grow with time."""

import time
import uuid

from webapp.models.base import new_id, new_ids


def test_ids_are_version_7_and_tell_their_moment() -> None:
    before = time.time_ns() // 1_000_000
    made = new_id()
    assert made.version == 7 and made.variant == uuid.RFC_4122
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000 + 1


def test_ids_of_one_thread_grow_and_differ() -> None:
    made = [new_id() for _ in range(5_000)]
    assert made == sorted(made) and len(set(made)) == len(made)


def test_a_burst_of_ids_does_not_run_ahead_of_the_clock() -> None:
    made = [new_id() for _ in range(5_000)]
    assert made[-1].int >> 80 <= time.time_ns() // 1_000_000 + 5


def test_several_at_once_are_ids_like_others_and_those_behind_them_are_larger() -> None:
    made = []
    for _ in range(1_000):
        first, others = new_ids(3)
        made += [first, *map(uuid.UUID, others), new_id()]
    assert made == sorted(made) and len(set(made)) == 5_000
    assert {(one.version, one.variant) for one in made} == {(7, uuid.RFC_4122)}

"""When a drain saves the calls that have ended: most of them together under load, and never held up by what hangs."""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
from sqlalchemy.orm import Session, sessionmaker

from tests.waiting import until
from webapp.leads import draining
from webapp.leads.claims import DELIVERIES, Holder
from webapp.leads.draining import Drain, Work

MANY = 16


class Calls:
    """16 calls under way at once, each of which ends when it is told to."""

    def __init__(self) -> None:
        self._ending = [threading.Event() for _ in range(MANY)]
        self.ended: list[int] = []
        self.saved: list[list[int]] = []
        self._begun = False

    def turn(self, done: Sequence[int], room: int) -> list[Work[int]]:
        if done:
            self.saved.append(sorted(done))
        if self._begun:
            return []
        self._begun = True
        return [((), partial(self._call, number)) for number in range(MANY)]

    def _call(self, number: int) -> list[int]:
        assert self._ending[number].wait(30)
        self.ended.append(number)
        return [number]

    def end(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._ending[number].set()
        until(lambda: set(numbers) <= set(self.ended))


@pytest.fixture
def begin(session_factory: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Calls]]:
    for patience in ("_TOGETHER", "_APART"):
        monkeypatch.setattr(draining, patience, 30.0)  # longer than a test, so that chance has no part in it
    calls = Calls()
    drain: Drain[int] = Drain(DELIVERIES, session_factory, Holder(), threads=MANY, lease_seconds=30, name="drain")
    bounds = {"max_rows": MANY, "max_seconds": 60, "stop": lambda: False}
    thread = threading.Thread(target=drain.run, args=(calls.turn,), kwargs=bounds)

    def started() -> Calls:
        thread.start()
        return calls

    yield started
    calls.end(range(MANY))
    thread.join()
    assert sorted(number for turn in calls.saved for number in turn) == list(range(MANY))


def test_most_of_the_calls_that_end_together_are_saved_together(begin: Callable[[], Calls]) -> None:
    calls = begin()
    calls.end(range(11))
    calls.end([11])
    until(lambda: calls.saved)
    assert calls.saved[0] == list(range(12))


@pytest.mark.parametrize(
    ("bound", "value"),
    [
        pytest.param("_YOUNG", 0.0, id="that hang"),
        pytest.param("_APART", 0.05, id="that take longer"),
    ],
)
def test_a_call_that_ends_is_not_held_up_by_others(
    begin: Callable[[], Calls], monkeypatch: pytest.MonkeyPatch, bound: str, value: float
) -> None:
    monkeypatch.setattr(draining, bound, value)
    calls = begin()
    calls.end([3])
    until(lambda: calls.saved)
    assert calls.saved[0] == [3]

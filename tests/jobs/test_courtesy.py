"""A worker steps back while leads keep coming in and cores are short."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from jobs.courtesy import MOST_SECONDS, Courtesy, _ran_and_waited
from tests.factories import make_lead
from webapp.leads import run, run_store
from webapp.leads.claims import Holder
from webapp.models import Run
from webapp.models.base import id_at, new_id


class Thread:
    """``ran`` and ``waited`` for a core: nanoseconds in all."""

    def __init__(self) -> None:
        self.ran = self.waited = 0

    def times(self) -> tuple[int, int]:
        return self.ran, self.waited


@pytest.mark.parametrize(
    ("ran", "waited", "behind", "rests"),
    [
        (100, 0, True, False),
        (100, 30, True, False),
        (100, 70, True, True),
        (100, 900, True, True),
        (100, 900, False, False),
        (0, 0, True, False),  # the system does not say
    ],
)
def test_it_rests_where_cores_are_short_and_it_is_behind(ran: int, waited: int, behind: bool, rests: bool) -> None:
    rested: list[float] = []
    thread = Thread()
    courtesy = Courtesy(rested.append, lambda: behind, thread.times)
    thread.ran, thread.waited = ran, waited
    courtesy.step_back()
    assert bool(rested) is rests
    courtesy.step_back()  # what was before this batch counts no more
    assert len(rested) == rests


def test_a_long_batch_is_no_reason_for_a_long_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    rested: list[float] = []
    clock = [0.0]
    monkeypatch.setattr("jobs.courtesy.time.monotonic", lambda: clock[0])
    thread = Thread()
    courtesy = Courtesy(rested.append, lambda: True, thread.times)
    thread.waited, clock[0] = 900, 60.0
    courtesy.step_back()
    assert rested == [MOST_SECONDS]


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="this system does not say")
def test_the_system_says_for_how_long_a_thread_ran() -> None:
    ran, waited = _ran_and_waited()
    sum(range(2_000_000))
    later = _ran_and_waited()
    assert later[0] > ran and later[1] >= waited


def test_runs_are_behind_when_many_come_in_and_one_waits_for_long(session, workspace, monkeypatch):
    for _ in range(20):
        make_lead(session, workspace)
    found = session.scalars(sa.select(Run).order_by(Run.id)).all()
    now = (found[0].id.int >> 80) / 1000  # however long this machine took to make them
    monkeypatch.setattr("webapp.leads.run_store.time.time", lambda: now + 0.5)
    session.commit()
    assert run_store.is_behind(session) is False  # none waits for long
    found[0].due_at = datetime.now(UTC) - timedelta(seconds=10)
    session.commit()
    assert run_store.is_behind(session) is True
    found[0].rank = 9
    session.commit()
    assert run_store.is_behind(session) is False  # that is a file's, which waits for all others
    found[0].rank, found[1].rank = 3, 9
    session.commit()
    assert run_store.is_behind(session) is False  # what else comes in are files
    found[1].rank = 3
    session.commit()
    assert run_store.is_behind(session) is True
    monkeypatch.setattr("webapp.leads.run_store.time.time", lambda: now + 60)
    assert run_store.is_behind(session) is False  # nothing comes in any more


def test_an_id_of_a_moment_comes_before_those_made_then():
    made = new_id()
    seconds = (made.int >> 80) / 1000
    assert id_at(seconds) <= made < id_at(seconds + 0.002)
    assert id_at(seconds).version == 7


def test_runs_rest_between_batches_and_not_behind_the_last(session, session_factory, workspace):
    for _ in range(5):
        make_lead(session, workspace)
    session.commit()
    rests: list[int] = []
    done = run.process(session_factory, Holder(), batch=2, rest=lambda: rests.append(1))
    assert done.done == 5
    assert len(rests) == 2


def test_a_worker_that_is_to_stop_while_it_rests_takes_nothing_more(session, session_factory, workspace):
    for _ in range(5):
        make_lead(session, workspace)
    session.commit()
    told: list[bool] = []
    done = run.process(session_factory, Holder(), batch=2, rest=lambda: told.append(True), stop=lambda: bool(told))
    assert (done.done, done.more) == (2, True)

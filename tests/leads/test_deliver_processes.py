"""Real worker processes: killed with -9 in the middle of a delivery, and several at once."""

import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.conftest import environment
from tests.fakes.twenty import TwentyFake
from tests.faults.processes import Processes, kill, wait_until
from tests.leads.delivering import all_states, count, outcomes, planned, rows, states, twenty_destination
from webapp.models import WorkerSlot, Workspace

pytestmark = [pytest.mark.fault, pytest.mark.slow]

DONE = {"person": "delivered", "task": "delivered", "task_target": "delivered"}


@pytest.fixture
def twenty() -> Iterator[TwentyFake]:
    with TwentyFake() as fake:
        yield fake


@pytest.fixture
def processes(session: Session, database_url: str, redis_url: str) -> Iterator[Processes]:
    started = Processes(environment(database_url, redis_url))
    yield started
    started.kill_all()


def _incarnation(session: Session) -> object:
    found = session.scalar(sa.select(WorkerSlot.incarnation))
    session.commit()
    return found


@pytest.mark.parametrize("path", ["people", "tasks", "taskTargets"])
def test_a_worker_killed_in_the_middle_of_a_delivery_leaves_one_of_each(
    session: Session, workspace: Workspace, twenty: TwentyFake, processes: Processes, path: str
) -> None:
    twenty_destination(session, workspace, twenty)
    twenty.fail_next(f"POST /{path}", kind="hang_after")
    planned(session, workspace)
    first = processes.worker("deliveries")
    assert wait_until(lambda: bool(twenty.calls(f"POST /{path}")), 20)
    time.sleep(0.1)  # the effect is there, its answer is not
    kill(first)
    before = _incarnation(session)
    processes.worker("deliveries")
    assert wait_until(lambda: _incarnation(session) != before, 20)
    assert wait_until(lambda: states(session) == DONE, 20)  # no lease is waited for
    assert (len(twenty.people), len(twenty.tasks), len(twenty.task_targets)) == (1, 1, 1)
    action = {"people": "person", "tasks": "task", "taskTargets": "task_target"}[path]
    assert outcomes(session, rows(session)[action])[0] == "uncertain"


def test_two_workers_share_the_outbox_and_send_nothing_twice(
    session: Session, workspace: Workspace, twenty: TwentyFake, processes: Processes
) -> None:
    twenty_destination(session, workspace, twenty)
    twenty.latency = 0.01
    for number in (1, 2):
        processes.worker("deliveries", slot=f"deliveries-{number}")
    assert wait_until(lambda: count(session, WorkerSlot) == 2, 20)
    leads = 30
    for _ in range(leads):
        planned(session, workspace)
    assert wait_until(lambda: all_states(session) == {"delivered"}, 30)
    assert (len(twenty.people), len(twenty.tasks), len(twenty.task_targets)) == (leads, leads, leads)
    assert len(twenty.calls("POST")) == 3 * leads

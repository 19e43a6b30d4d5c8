"""A round of follow-up tasks by the workers' own functions: rung for, looked after by the clock, drained."""

from collections.abc import Iterator

import pytest
import redis
from sqlalchemy.orm import Session

from jobs import queue, schedule, tasks
from tests.fakes.twenty import TwentyFake
from tests.leads.delivering import planned, states, twenty_destination
from webapp.leads import crm_rounds
from webapp.leads.states import TaskRequestState
from webapp.models import Workspace

pytestmark = pytest.mark.usefixtures("wired")


@pytest.fixture
def twenty() -> Iterator[TwentyFake]:
    with TwentyFake() as fake:
        yield fake


def test_a_drain_of_deliveries_goes_on_with_rounds(
    session: Session, workspace: Workspace, twenty: TwentyFake, bell: redis.Redis
) -> None:
    twenty_destination(session, workspace, twenty)
    planned(session, workspace)
    assert tasks.drain_deliveries() == 3
    assert set(states(session).values()) == {"delivered"}
    schedule.ring_deliveries(session)
    assert bell.llen("rq:queue:deliveries") == 0  # nothing is due
    for task in twenty.tasks:
        task["status"] = "DONE"
    request_id = crm_rounds.request(session, workspace.id, requested_by="Mai")
    session.commit()
    schedule.ring_deliveries(session)  # had the ring of the door been lost
    assert bell.llen(f"rq:queue:{queue.DELIVERIES}") == 1
    assert tasks.process_deliveries() == 1
    found = crm_rounds.find(session, workspace.id, request_id)
    assert (found.state, crm_rounds.made(found), found.error) == (TaskRequestState.DONE, 1, None)
    assert len(twenty.tasks) == 2

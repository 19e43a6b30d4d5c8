"""Reading CRMs back by the workers' own functions: begun by the clock, rung for, drained."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis
import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import queue, schedule, tasks, wiring
from tests.fakes.twenty import TwentyFake
from tests.leads.delivering import planned, rows, twenty_destination
from webapp.leads import crm_pulls, lead_outcomes
from webapp.leads.states import DestinationMode
from webapp.models import CrmPull, Workspace

pytestmark = pytest.mark.usefixtures("wired")


@pytest.fixture
def twenty() -> Iterator[TwentyFake]:
    with TwentyFake() as fake:
        yield fake


def test_the_clock_begins_and_a_worker_of_fetches_reads(
    session: Session, workspace: Workspace, twenty: TwentyFake, bell: redis.Redis
) -> None:
    twenty_destination(session, workspace, twenty)
    twenty_destination(session, workspace, twenty, name="Off", mode=DestinationMode.OFF)
    lead = planned(session, workspace)
    assert tasks.drain_deliveries() == 3
    schedule.ring_fetches(session)
    assert bell.llen(f"rq:queue:{queue.FETCHES}") == 0
    assert [schedule.begin_reading_crms(session) for _ in range(2)] == [1, 0]
    twenty.add("opportunities", stage="CUSTOMER", pointOfContactId=rows(session, lead)["person"].remote_id)
    schedule.ring_fetches(session)
    assert bell.llen(f"rq:queue:{queue.FETCHES}") == 1
    assert tasks.process_fetches() == 1
    assert [row.outcome.value for row in lead_outcomes.history(session, workspace.id, lead.id)] == ["won"]
    schedule.ring_fetches(session)
    assert bell.llen(f"rq:queue:{queue.FETCHES}") == 1  # not due for minutes


def test_reading_back_leaves_the_rate_budget_to_deliveries(
    session: Session, workspace: Workspace, twenty: TwentyFake, bell: redis.Redis
) -> None:
    crm = twenty_destination(session, workspace, twenty, options={"per_second": 1})
    schedule.begin_reading_crms(session)
    crm.second_at = datetime.now(UTC) + timedelta(minutes=2)  # deliveries have taken the places until then
    session.commit()
    assert tasks.read_crms() == 1 and twenty.requests == []
    session.refresh(crm)
    assert crm.paused_until is None and crm.second_at < datetime.now(UTC) + timedelta(minutes=2)
    row = session.scalars(sa.select(CrmPull)).one()
    assert row.error is None and row.due_at > datetime.now(UTC) + timedelta(minutes=1)


def test_one_turn_of_reading_back_is_short(
    session: Session, workspace: Workspace, twenty: TwentyFake, bell: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(2):
        twenty_destination(session, workspace, twenty, name=f"Twenty {n}")
    schedule.begin_reading_crms(session)
    monkeypatch.setattr(tasks, "READ_SECONDS", 0.0001)
    assert tasks.read_crms() == 1
    assert len(twenty.requests) == 1
    assert crm_pulls.has_due(session)  # the rest waits for its next turn, after the fetches


def test_the_operator_can_switch_it_off(
    session: Session, workspace: Workspace, twenty: TwentyFake, bell: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    twenty_destination(session, workspace, twenty)
    assert schedule.begin_reading_crms(session) == 1
    off = wiring.settings().model_copy(update={"crm_pull_seconds": 0})
    monkeypatch.setattr(wiring, "settings", lambda: off)
    schedule.ring_fetches(session)
    assert bell.llen(f"rq:queue:{queue.FETCHES}") == 0
    assert tasks.read_crms() == 0 and twenty.requests == []
    session.execute(sa.delete(CrmPull))
    assert schedule.begin_reading_crms(session) == 0

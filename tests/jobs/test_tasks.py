import pytest
import sqlalchemy as sa
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from jobs import queue, tasks
from tests.factories import make_lead
from webapp.leads.states import RunStatus
from webapp.models import Run, WorkerSlot


@pytest.fixture
def anonymous(monkeypatch):
    monkeypatch.delenv("WORKER_SLOT", raising=False)
    tasks.leave()
    yield
    tasks.leave()


@pytest.mark.usefixtures("wired", "bell", "anonymous")
class TestTasks:
    def test_a_ring_drains_the_queue(self, session, workspace):
        for _ in range(3):
            make_lead(session, workspace)
        assert tasks.process_runs() == 3
        assert tasks.process_runs() == 0
        assert tasks.process_deliveries() == 0

    def test_more_than_a_drain_may_take_is_rung_for_again(self, session, workspace, bell, monkeypatch):
        monkeypatch.setattr(tasks, "MAX_ROWS", 2)
        for _ in range(3):
            make_lead(session, workspace)
        assert tasks.process_runs() == 2
        assert queue.ring_now(queue.RUNS)
        worker = SimpleWorker(
            [Queue("runs", connection=bell, serializer=JSONSerializer)], connection=bell, serializer=JSONSerializer
        )
        worker.work(burst=True)
        session.rollback()
        assert set(session.scalars(sa.select(Run.status))) == {RunStatus.SUCCESS}

    def test_a_slot_is_entered_once_and_anew_after_leaving(self, session, monkeypatch):
        monkeypatch.setenv("WORKER_SLOT", "runs-7")

        def incarnation():
            session.rollback()
            return session.scalar(sa.select(WorkerSlot.incarnation))

        tasks.process_runs()
        first = incarnation()
        tasks.process_runs()
        assert incarnation() == first
        tasks.leave()
        tasks.process_runs()
        assert incarnation() not in (None, first)

import logging
import os
import threading

import psycopg
import pytest
import sqlalchemy as sa
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from jobs import queue, tasks, wiring, worker
from tests.factories import make_lead
from tests.fakes.slack import SlackFake
from tests.waiting import until
from webapp import logs
from webapp.leads import alerts, claims, run
from webapp.leads.claims import Holder
from webapp.leads.lookalikes import search
from webapp.leads.states import DestinationKind, RunStatus
from webapp.models import Destination, DuplicateSuggestion, Run, WorkerSlot
from webapp.security.fields import FieldCipher


@pytest.fixture
def anonymous(monkeypatch):
    monkeypatch.delenv("WORKER_SLOT", raising=False)
    monkeypatch.setattr(tasks, "_process", tasks._Process())


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
        stock = SimpleWorker(
            [Queue("runs", connection=bell, serializer=JSONSerializer)], connection=bell, serializer=JSONSerializer
        )
        stock.work(burst=True)
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


def taken(session, slot):
    """Another process enters ``slot``; its incarnation."""
    session.rollback()
    incarnation = claims.enter(session, slot)
    session.commit()
    return incarnation


@pytest.mark.usefixtures("wired", "bell", "anonymous")
@pytest.mark.parametrize("ring", [tasks.process_runs, tasks.process_deliveries])
class TestATakenSlot:
    def test_it_is_told_and_the_worker_goes_on_under_a_slot_of_its_own(self, session, monkeypatch, caplog, ring):
        monkeypatch.setenv("WORKER_SLOT", "shared")
        ring()
        slot = tasks.slot_name()
        assert slot.endswith("/shared")
        other = taken(session, slot)
        with caplog.at_level(logging.ERROR):
            ring()
            ring()
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert slot in record.getMessage()
        slots = dict(session.execute(sa.select(WorkerSlot.slot, WorkerSlot.incarnation)).all())
        assert slots.pop(slot) == other  # which the other one keeps
        assert list(slots) == [tasks.slot_name()]
        assert tasks.slot_name().startswith(f"{slot}-{os.getpid()}-")
        tasks.leave()
        ring()
        session.rollback()
        assert session.scalar(sa.select(sa.func.count()).select_from(WorkerSlot)) == 2

    def test_one_that_is_to_stop_leaves_it_to_its_successor(self, session, monkeypatch, ring):
        monkeypatch.setenv("WORKER_SLOT", "shared")
        ring()
        taken(session, tasks.slot_name())
        monkeypatch.setattr(tasks, "should_stop", lambda: True)
        assert ring() == 0
        assert session.scalar(sa.select(sa.func.count()).select_from(WorkerSlot)) == 1


class _Hanging(SlackFake):
    """Answers nothing before it may."""

    def __init__(self):
        super().__init__()
        self.may = threading.Event()

    def handle(self, request):
        self.may.wait()
        return super().handle(request)


@pytest.mark.usefixtures("wired", "bell", "anonymous")
def test_a_chat_that_hangs_does_not_hold_up_a_drain(session, workspace, monkeypatch):
    with _Hanging() as slack:
        monkeypatch.setenv("SLACK_API_URL", slack.api_url)
        monkeypatch.setenv("DELIVERY_TIMEOUT", "60")
        wiring.settings.cache_clear()
        monkeypatch.setattr(tasks, "resident", True)
        cipher = FieldCipher([key.get_secret_value() for key in wiring.settings().field_encryption_keys])
        chat = Destination(
            workspace_id=workspace.id, kind=DestinationKind.SLACK, name="Chat", options={"alerts": True},
            config={"channel": "C0LEADS"}, credentials=cipher.encrypt({"token": slack.token}),
        )  # fmt: skip
        session.add(chat)
        alerts.raise_alert(session, workspace.id, "routing_nobody", "", "Leads find nobody.", "/queue")
        session.commit()
        try:
            drains = [threading.Thread(target=tasks.drain_deliveries) for _ in range(2)]
            for drain in drains:  # one after the other, and neither waits for Slack
                drain.start()
                until(lambda drain=drain: not drain.is_alive())
            assert tasks.teller.busy
            assert slack.messages == {}
        finally:
            slack.may.set()
            tasks.teller.wait()
        (message,) = slack.messages["C0LEADS"]
        assert "Leads find nobody." in message["text"]


@pytest.mark.usefixtures("wired", "bell", "anonymous")
def test_two_workers_of_one_name_both_work(session, workspace, monkeypatch):
    monkeypatch.setenv("WORKER_SLOT", "shared")
    tasks.process_runs()
    mine = tasks.slot_name()
    other = Holder(mine, taken(session, mine))
    make_lead(session, workspace)
    assert tasks.process_runs() == 1
    make_lead(session, workspace)
    assert run.process(wiring.session_factory(), other).done == 1


@pytest.mark.usefixtures("wired", "bell", "anonymous")
class TestBrokenOff:
    SECRET = "jane.doe@acme.example"

    def work(self, bell, monkeypatch, error):
        def fails(*_, **__):
            raise error

        monkeypatch.setattr(run, "process", fails)
        assert queue.ring_now(queue.RUNS)
        (job,) = Queue("runs", connection=bell, serializer=JSONSerializer).jobs
        worker.LeadOpsWorker("runs", bell, worker.Process("runs")).work(burst=True, logging_level="WARNING")
        return job

    def test_a_ring_that_finds_the_database_away_is_one_line(self, bell, monkeypatch, caplog):
        monkeypatch.setattr(logs, "say_database_away", logs.Throttle(60))
        away = OperationalError(None, {}, psycopg.OperationalError("connection refused\nIs it running?"))
        with caplog.at_level(logging.WARNING):
            job = self.work(bell, monkeypatch, away)
            self.work(bell, monkeypatch, away)
        (record,) = caplog.records
        assert record.exc_info is None
        assert "PostgreSQL is away" in record.getMessage()
        assert "connection refused" in record.getMessage()
        assert "\n" not in record.getMessage()
        assert job.get_status() == "finished"
        assert tasks._process.pid == 0  # the slot is entered anew

    def test_what_rq_keeps_of_an_error_holds_no_row(self, bell, monkeypatch, caplog):
        error = IntegrityError("INSERT", {}, psycopg.errors.UniqueViolation(f"duplicate\nDETAIL: {self.SECRET}"))
        job = self.work(bell, monkeypatch, error)
        kept = job.latest_result().exc_string
        assert "DrainFailed" in kept
        assert "in fails" in kept  # where it happened
        assert "UniqueViolation" in caplog.text
        assert self.SECRET not in kept + caplog.text

    def test_a_look_of_its_own_tells_the_database_s_absence_from_a_bug(self, monkeypatch, caplog):
        def fails(error):
            def drain():
                raise error

            monkeypatch.setitem(worker.DRAINS, "runs", drain)
            assert worker.Process("runs").drain() is False

        fails(OperationalError(None, {}, psycopg.OperationalError("connection refused")))
        assert caplog.records[-1].exc_info is None
        fails(ProgrammingError("SELECT x", {}, psycopg.errors.UndefinedColumn("no column x")))
        assert caplog.records[-1].exc_info is not None
        assert "draining runs failed" in caplog.records[-1].getMessage()


@pytest.mark.usefixtures("wired", "bell", "anonymous")
class TestComparingPeople:
    def test_people_are_compared_once_no_run_waits_and_few_arrive(self, session, workspace, monkeypatch):
        lead = make_lead(session, workspace, name="Ana Perez", email="ana@acme.example", phone="+84912345678")
        twin = make_lead(session, workspace, name="Ana Perez", email="ana@home.example", phone="+84912345678")
        assert lead.person_id != twin.person_id
        assert tasks.process_imports() == 0
        assert tasks.process_runs() == 2
        monkeypatch.setattr(search, "MANY_ARRIVALS", 1)
        assert tasks.process_imports() == 0  # two have come just now
        monkeypatch.setattr(search, "MANY_ARRIVALS", 2)
        assert tasks.process_imports() == 2
        found = session.scalars(sa.select(DuplicateSuggestion)).one()
        assert {found.person_a_id, found.person_b_id} == {lead.person_id, twin.person_id}
        assert tasks.process_imports() == 0

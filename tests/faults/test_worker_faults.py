"""Workers that are killed, and servers that go away under them: real processes on servers of their own."""

import signal
import time

import pytest
import sqlalchemy as sa

from tests.factories import make_lead, make_workspace
from tests.faults.processes import Processes, kill, title, wait_until
from webapp.leads.states import RunStatus
from webapp.models import AuditEvent, Lead, Run, WorkerSlot

pytestmark = [pytest.mark.fault, pytest.mark.slow]


def statuses(session):
    session.rollback()
    return set(session.scalars(sa.select(Run.status).distinct()))


def all_done(session):
    return statuses(session) == {RunStatus.SUCCESS}


def incarnation(session):
    session.rollback()
    return session.scalar(sa.select(WorkerSlot.incarnation))


def pending_runs(session, count):
    """``count`` due runs in one statement, of one lead."""
    lead = make_lead(session, make_workspace(session))
    session.execute(
        sa.text(
            "INSERT INTO runs (id, workspace_id, lead_id, source)"
            " SELECT gen_random_uuid(), workspace_id, id, 'test' FROM leads, generate_series(2, :count)"
        ),
        {"count": count},
    )
    session.commit()
    return lead


def somebody_waits_for_a_lock(session):
    # On a connection of its own: a transaction sees pg_stat_activity as it first saw it.
    with session.get_bind().connect() as connection:
        return connection.scalar(sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))


def test_a_worker_killed_in_the_middle_of_a_run_the_run_is_done_once_more(session, processes):
    lead = make_lead(session, make_workspace(session))
    # Somebody's transaction holds the lead: the worker has claimed and judged, and waits to save.
    session.execute(sa.select(Lead.id).where(Lead.id == lead.id).with_for_update())
    worker = processes.worker()
    assert wait_until(lambda: somebody_waits_for_a_lock(session), 90)
    kill(worker)
    session.rollback()
    assert statuses(session) == {RunStatus.RUNNING}
    before = incarnation(session)

    processes.worker()
    assert wait_until(lambda: incarnation(session) != before, 90)
    up = time.monotonic()
    assert wait_until(lambda: all_done(session), 20)
    assert time.monotonic() - up < 5  # not once a lease has run out
    (done,) = session.scalars(sa.select(Run).execution_options(populate_existing=True))
    assert done.attempt == 2
    told = sa.select(sa.func.count()).where(AuditEvent.event_type == "RUN_SUCCEEDED")
    assert session.scalar(told) == 1


def test_redis_flushed_with_500_runs_pending_all_are_done(session, servers, processes):
    pending_runs(session, 500)
    servers[1].flushall()
    processes.worker()
    processes.clock()
    assert wait_until(lambda: RunStatus.SUCCESS in statuses(session), 60, 0.005)
    servers[1].flushall()
    assert wait_until(lambda: all_done(session), 90)
    assert session.scalar(sa.select(sa.func.count()).select_from(Run)) == 500


def test_redis_stopped_and_back_work_goes_on_and_the_ring_works_again(session, servers, processes):
    workspace = make_workspace(session)
    worker = processes.worker()
    clock = processes.clock()
    assert wait_until(lambda: incarnation(session), 90)
    servers[1].stop()
    try:
        make_lead(session, workspace)
        assert wait_until(lambda: all_done(session), 90)
        jobs = session.scalars(sa.select(Run.rq_job_id)).all()
        assert jobs == [None]  # nobody rang
        make_lead(session, workspace)
    finally:
        servers[1].start()
    back = time.monotonic()
    assert wait_until(lambda: all_done(session), 20)
    assert time.monotonic() - back < 5

    def rung():
        make_lead(session, workspace)
        return wait_until(lambda: all_done(session), 5) and session.scalar(
            sa.select(sa.func.count()).where(Run.rq_job_id.is_not(None))
        )

    assert wait_until(rung, 90)
    assert worker.poll() is None
    assert clock.poll() is None


def test_a_worker_that_starts_without_redis_works_and_listens_once_it_is_there(session, servers, processes):
    make_lead(session, make_workspace(session))
    servers[1].stop()
    try:
        processes.worker()
        assert wait_until(lambda: all_done(session), 90)
    finally:
        servers[1].start()
    client = servers[1].client()
    assert wait_until(lambda: client.smembers("rq:workers:runs"), 90)


def test_postgres_restarted_worker_and_clock_outlive_it(session, servers, processes):
    workspace = make_workspace(session)
    make_lead(session, workspace)
    worker, clock = processes.worker(), processes.clock()
    assert wait_until(lambda: all_done(session), 90)
    session.connection().invalidate()
    session.rollback()
    servers[0].stop()
    time.sleep(1.5)  # long enough for both to notice: the time without a database is what is tested
    servers[0].start()
    session.get_bind().dispose()
    make_lead(session, workspace)
    assert wait_until(lambda: all_done(session), 90)
    assert worker.poll() is None
    assert clock.poll() is None


def test_sigterm_in_a_backlog_finishes_the_batch_and_exits_in_time(session, processes):
    pending_runs(session, 5000)
    worker = processes.worker()
    assert wait_until(lambda: RunStatus.SUCCESS in statuses(session), 60, 0.005)
    start = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert time.monotonic() - start < 8
    assert statuses(session) == {RunStatus.SUCCESS, RunStatus.QUEUED}


@pytest.mark.parametrize("part", ["worker", "clock"])
def test_sigterm_while_idle_exits_at_once(session, processes, part):
    pending_runs(session, 1)
    worker = processes.worker()
    clock = processes.clock()
    assert wait_until(lambda: all_done(session), 90)
    process = worker if part == "worker" else clock
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_titles_say_which_part_it_is(session, processes):
    worker, clock = processes.worker(slot="runs-3"), processes.clock()
    assert wait_until(lambda: title(worker) == "leadops: worker runs-3", 90)
    assert wait_until(lambda: title(clock) == "leadops: clock", 90)
    assert wait_until(lambda: incarnation(session), 90)
    assert title(worker) == "leadops: worker runs-3"  # RQ has not renamed it


def test_a_deliveries_worker_takes_its_own_slot_and_stops(session, processes):
    worker = processes.worker("deliveries")
    assert wait_until(lambda: incarnation(session), 90)
    assert session.scalar(sa.select(WorkerSlot.slot)).endswith("/deliveries-1")
    assert title(worker) == "leadops: worker deliveries-1"
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def test_two_workers_share_a_backlog_and_nothing_is_done_twice(session, processes):
    pending_runs(session, 2000)
    processes.worker(slot="runs-1")
    processes.worker(slot="runs-2")
    assert wait_until(lambda: all_done(session), 90)
    told = sa.select(sa.func.count()).where(AuditEvent.event_type == "RUN_SUCCEEDED")
    assert session.scalar(told) == 2000
    assert session.scalar(sa.select(sa.func.max(Run.attempt))) == 1


def test_of_two_workers_with_one_slot_the_first_goes_on_as_well(session, processes):
    first = processes.worker()
    assert wait_until(lambda: incarnation(session), 90)
    before = incarnation(session)
    second = processes.worker()
    assert wait_until(lambda: incarnation(session) != before, 90)
    assert first.poll() is None
    kill(second)
    make_lead(session, make_workspace(session))
    assert wait_until(lambda: all_done(session), 90)


def test_a_stock_rq_worker_with_both_urls_is_enough(session, env, processes):
    pending_runs(session, 5)
    command = "rq.cli worker -w rq.SimpleWorker --serializer rq.serializers.JSONSerializer runs deliveries"
    processes.start("-m", *command.split(), "--url", env["REDIS_URL"])
    processes.clock()
    assert wait_until(lambda: all_done(session), 90)
    assert session.scalar(sa.select(sa.func.count()).where(Run.rq_job_id.is_not(None))) == 5


def test_a_missing_url_is_one_line_and_exit_2(env):
    started = Processes({**env, "REDIS_URL": ""})
    try:
        assert started.worker().wait(60) == 2
        assert started.clock().wait(60) == 2
    finally:
        started.kill_all()

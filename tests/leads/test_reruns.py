"""Re-runs of many leads: exactly the leads that were confirmed, each once, stopped and resumed, with the result told."""

import uuid

import pytest
import sqlalchemy as sa

from tests.factories import make_lead, make_workspace
from tests.leads.test_run import drain, says
from webapp.leads import claims, rerun_work, reruns, run
from webapp.leads.claims import RERUNS, Holder
from webapp.leads.errors import Conflict, Invalid, NotFound
from webapp.leads.filters import LeadFilter
from webapp.leads.reruns import Cost, Progress
from webapp.leads.run_filters import RunFilter
from webapp.leads.states import Intent, Priority, RerunState, RunStatus, RunTrigger
from webapp.models import AuditEvent, Lead, Rerun, Run


@pytest.fixture
def leads(session, session_factory, workspace):
    """Seven, each with a finished run."""
    made = [make_lead(session, workspace) for _ in range(7)]
    drain(session_factory)
    return made


def start(session, workspace, leads, **over):
    ids = [lead.id for lead in leads]
    rerun = reruns.start(session, workspace.id, ids, chosen_by={"of": "leads"}, requested_by="Ann", **over)
    session.commit()
    return rerun.id


def work(session, session_factory, holder=Holder(), **kwargs):  # noqa: B008
    """One look at what is due now."""
    session.execute(sa.update(Rerun).values(due_at=sa.func.now()))
    session.commit()
    return rerun_work.process(session_factory, holder, **kwargs)


def fresh(session, workspace, rerun_id):
    session.rollback()
    return reruns.get(session, workspace.id, rerun_id)


def its_runs(session, rerun_id):
    session.rollback()
    query = sa.select(Run).where(Run.rerun_id == rerun_id).execution_options(populate_existing=True)
    return session.scalars(query).all()


class TestWhich:
    def test_leads_of_a_filter_and_leads_of_runs(self, session, session_factory, workspace, leads):
        make_lead(session, make_workspace(session))
        newest_first = [lead.id for lead in reversed(leads)]
        assert reruns.leads_of(session, workspace.id, LeadFilter()) == newest_first
        assert reruns.leads_of(session, workspace.id, RunFilter(status=RunStatus.FAILED)) == []
        run.request_rerun(session, session.get_one(Lead, leads[0].id), requested_by="Ann")
        session.commit()
        # The lead with two runs counts once.
        assert set(reruns.leads_of(session, workspace.id, RunFilter())) == set(newest_first)
        assert len(reruns.leads_of(session, workspace.id, RunFilter())) == 7

    def test_too_many_are_refused(self, session, workspace, leads, monkeypatch):
        monkeypatch.setattr(reruns, "MOST", 6)
        with pytest.raises(Invalid, match="More than 6 leads"):
            reruns.leads_of(session, workspace.id, LeadFilter())


class TestCost:
    def test_nothing_measured_is_said_so(self, session, workspace, leads):
        cost = reruns.measured_cost(session, workspace.id)
        assert (cost.seen, cost.asked, cost.tokens, cost.dollars) == (7, 0, None, None)
        assert cost.questions(100) == 0

    def test_it_is_what_the_last_runs_took(self, session, workspace, leads):
        model = {"ms": 800, "tokens_in": 500, "tokens_out": 60, "cost": 0.002}
        stages = [{"name": "classify", "status": "ok", "ms": 1, "output": {"model": model}}]
        chosen = [lead.id for lead in leads[:2]]
        session.execute(sa.update(Run).where(Run.lead_id.in_(chosen)).values(stages=stages))
        assert reruns.measured_cost(session, workspace.id) == Cost(7, 2, 560.0, 0.002)
        assert reruns.measured_cost(session, workspace.id).questions(70) == 20


class TestWorking:
    def test_every_lead_gets_one_run_and_the_result_is_told(self, session, session_factory, workspace, leads):
        session.execute(sa.update(Lead).values(intent=Intent.INQUIRY_PRICE, priority=Priority.P1))
        rerun_id = start(session, workspace, leads)
        assert work(session, session_factory).done == 7
        runs = its_runs(session, rerun_id)
        assert {one.lead_id for one in runs} == {lead.id for lead in leads}
        assert {(one.trigger, one.requested_by, one.rank) for one in runs} == {(RunTrigger.RERUN, "Ann", reruns.RANK)}
        assert all(one.payload_json for one in runs)
        rerun = fresh(session, workspace, rerun_id)
        assert reruns.progress(session, rerun) == Progress(7, 0, waiting=7)

        drain(session_factory, judge=says(0.95, Intent.COMPLAINT, Priority.P0))
        assert reruns.progress(session, fresh(session, workspace, rerun_id)).share == 1.0
        work(session, session_factory)
        rerun = fresh(session, workspace, rerun_id)
        assert rerun.state is RerunState.DONE
        assert reruns.progress(session, rerun) == Progress(7, 0, succeeded=7, changed=7)
        told = session.scalars(sa.select(AuditEvent.details).where(AuditEvent.event_type == "RERUN_DONE")).one()
        assert (told["succeeded"], told["changed"], told["failed"], told["skipped"]) == (7, 7, 0, 0)
        assert not claims.has_due(session, RERUNS)

    def test_a_lead_that_waits_already_gets_no_second_run(self, session, session_factory, workspace, leads):
        run.request_rerun(session, session.get_one(Lead, leads[3].id), requested_by="Bob")
        gone = uuid.uuid4()
        ids = [lead.id for lead in leads] + [gone]
        rerun_id = reruns.start(session, workspace.id, ids, chosen_by={}, requested_by="Ann").id
        session.commit()
        work(session, session_factory)
        rerun = fresh(session, workspace, rerun_id)
        assert (rerun.position, rerun.queued, rerun.skipped) == (8, 6, 2)
        waiting = sa.select(sa.func.count()).where(Run.lead_id == leads[3].id, Run.status == RunStatus.QUEUED)
        assert session.scalar(waiting) == 1

    def test_few_are_ahead_so_that_stopping_leaves_little(
        self, session, session_factory, workspace, leads, monkeypatch
    ):
        monkeypatch.setattr(rerun_work, "BIT", 2)
        monkeypatch.setattr(rerun_work, "AHEAD", 3)
        rerun_id = start(session, workspace, leads)
        assert work(session, session_factory).done == 3
        assert work(session, session_factory).done == 0
        drain(session_factory)
        assert work(session, session_factory).done == 3
        drain(session_factory)
        assert work(session, session_factory).done == 1
        drain(session_factory)
        work(session, session_factory)
        assert fresh(session, workspace, rerun_id).state is RerunState.DONE
        assert len(its_runs(session, rerun_id)) == 7

    def test_a_killed_worker_s_successor_goes_on_behind_the_last_bit(
        self, session, session_factory, workspace, leads, monkeypatch
    ):
        monkeypatch.setattr(rerun_work, "BIT", 2)
        rerun_id = start(session, workspace, leads)
        bits = []

        def killed(*args):
            if len(bits) == 2:
                raise KeyboardInterrupt
            bits.append(queue(*args))
            return bits[-1]

        queue = rerun_work._queue
        monkeypatch.setattr(rerun_work, "_queue", killed)
        with pytest.raises(KeyboardInterrupt):
            work(session, session_factory)
        assert fresh(session, workspace, rerun_id).state is RerunState.RUNNING
        assert len(its_runs(session, rerun_id)) == 4
        monkeypatch.setattr(rerun_work, "_queue", queue)
        assert work(session, session_factory).done == 0  # still held
        session.execute(sa.update(Rerun).values(lease_until=sa.func.now() - sa.text("interval '1s'")))
        assert work(session, session_factory).done == 3
        assert sorted(one.lead_id for one in its_runs(session, rerun_id)) == sorted(lead.id for lead in leads)

    def test_a_failed_run_counts_as_such(self, session, session_factory, workspace, leads):
        rerun_id = start(session, workspace, leads[:2])
        work(session, session_factory)
        session.execute(
            sa.update(Run).where(Run.rerun_id == rerun_id).values(status="failed", finished_at=sa.func.now())
        )
        work(session, session_factory)
        rerun = fresh(session, workspace, rerun_id)
        assert reruns.progress(session, rerun) == Progress(2, 0, failed=2, changed=0)


class TestStopping:
    def test_what_has_not_begun_is_taken_back_and_the_rest_stays(self, session, session_factory, workspace, leads):
        rerun_id = start(session, workspace, leads)
        work(session, session_factory)
        drain(session_factory, max_rows=2, batch=2)
        wanted = next(one for one in its_runs(session, rerun_id) if one.status is RunStatus.QUEUED)
        run.request_rerun(session, session.get_one(Lead, wanted.lead_id), requested_by="Bob")
        assert reruns.cancel(session, workspace.id, rerun_id, actor="Mai") == 4
        session.commit()
        assert {one.status for one in its_runs(session, rerun_id)} == {RunStatus.SUCCESS, RunStatus.QUEUED}
        rerun = fresh(session, workspace, rerun_id)
        assert (rerun.state, rerun.cancelled_by) == (RerunState.CANCELLED, "Mai")
        assert work(session, session_factory).done == 0
        drain(session_factory)
        assert reruns.progress(session, rerun).succeeded == 3  # the one that Bob asked for as well
        with pytest.raises(Conflict):
            reruns.cancel(session, workspace.id, rerun_id, actor="Mai")

    def test_stopped_while_a_worker_has_it(self, session, session_factory, workspace, leads, monkeypatch):
        rerun_id = start(session, workspace, leads)
        go_on = rerun_work._go_on

        def stopped_first(*args):
            with session_factory.begin() as other:
                reruns.cancel(other, workspace.id, rerun_id, actor="Mai")
            return go_on(*args)

        monkeypatch.setattr(rerun_work, "_go_on", stopped_first)
        assert work(session, session_factory).done == 0
        assert fresh(session, workspace, rerun_id).state is RerunState.CANCELLED
        assert its_runs(session, rerun_id) == []


class TestAsking:
    def test_pressing_twice_starts_one(self, session, workspace, leads):
        assert start(session, workspace, leads) == start(session, workspace, leads)
        assert start(session, workspace, leads[:3]) != start(session, workspace, leads)

    def test_without_leads_there_is_nothing_to_start(self, session, workspace):
        with pytest.raises(Conflict):
            reruns.start(session, workspace.id, [], chosen_by={}, requested_by="Ann")

    def test_another_workspaces_is_not_found(self, session, workspace, leads):
        rerun_id = start(session, workspace, leads)
        other = make_workspace(session)
        with pytest.raises(NotFound):
            reruns.get(session, other.id, rerun_id)
        with pytest.raises(NotFound):
            reruns.cancel(session, other.id, rerun_id, actor="Eve")

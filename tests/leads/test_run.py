"""Runs on a real database: what a run writes, what it must not touch, and what happens when it goes wrong."""

import phonenumbers
import pytest
import sqlalchemy as sa

from tests.factories import make_lead, make_user, make_workspace
from webapp.leads import claims, run
from webapp.leads.claims import RUNS, Holder, SlotTaken
from webapp.leads.stages import route, score
from webapp.leads.states import (
    DeliveryState,
    DestinationKind,
    Intent,
    LeadStatus,
    NextAction,
    Priority,
    RunStatus,
    RunTrigger,
)
from webapp.leads.types import Verdict
from webapp.models import AuditEvent, Delivery, Destination, Lead, Run, ScoreFallback


def says(confidence=0.95, intent=Intent.INQUIRY_PRICE, priority=Priority.P1):
    """A judge that is always of this opinion."""
    return lambda text: Verdict(intent, priority, NextAction.EMAIL, confidence, judge="test")


def drain(session_factory, holder=Holder(), **kwargs):  # noqa: B008
    return run.process(session_factory, holder, **({"judge": says()} | kwargs))


def fresh(session, row):
    session.rollback()
    return session.get_one(type(row), row.id, populate_existing=True)


def runs_of(session, lead):
    session.rollback()
    found = sa.select(Run).where(Run.lead_id == lead.id).order_by(Run.created_at, Run.id)
    return session.scalars(found.execution_options(populate_existing=True)).all()


def events(session, lead, event_type):
    session.rollback()
    chosen = sa.select(AuditEvent.details).where(AuditEvent.lead_id == lead.id)
    return session.scalars(chosen.where(AuditEvent.event_type == event_type).order_by(AuditEvent.created_at)).all()


def due_now(session):
    """Let back-offs and leases run out."""
    session.execute(sa.update(Run).values(due_at=sa.func.now(), lease_until=sa.func.now() - sa.text("interval '1s'")))
    session.commit()


class TestOneRun:
    def test_every_stage_is_recorded_and_the_lead_settled(self, session, session_factory, workspace):
        lead = make_lead(session, workspace, email="jane@acme.example", phone="+84912345678")
        assert drain(session_factory).done == 1
        (done,) = runs_of(session, lead)
        assert done.status is RunStatus.SUCCESS
        assert done.started_at
        assert done.finished_at
        assert [stage["name"] for stage in done.stages] == ["enrich", "classify", "score", "route"]
        assert all(
            set(stage) == {"name", "status", "input", "output", "evidence", "error", "started_at", "ms"}
            for stage in done.stages
        )
        assert done.result_json["intent"] == "inquiry_price"
        assert done.result_json["facts"]["company_domain"] == "acme.example"
        lead = fresh(session, lead)
        assert lead.settled_at is not None
        assert lead.score == sum(part["points"] for part in lead.score_parts)
        assert lead.qualified is True
        (event,) = events(session, lead, "RUN_SUCCEEDED")
        assert event["run_id"] == str(done.id)
        assert event["intent"] == "inquiry_price"

    def test_the_same_verdict_leaves_the_version_and_another_one_moves_it(self, session, session_factory, workspace):
        lead = make_lead(session, workspace)
        before = fresh(session, lead)
        intent = before.intent.value
        drain(session_factory, judge=says(before.confidence, before.intent, before.priority))
        assert fresh(session, lead).version == 1
        run.request_rerun(session, fresh(session, lead), requested_by="Ann")
        session.commit()
        drain(session_factory, judge=says(0.95, Intent.COMPLAINT, Priority.P0))
        lead = fresh(session, lead)
        assert lead.version == 2
        assert (lead.intent, lead.priority) == (Intent.COMPLAINT, Priority.P0)
        assert lead.verdict["judge"] == "test"
        assert events(session, lead, "RUN_SUCCEEDED")[-1]["before"]["intent"] == intent

    @pytest.mark.parametrize(
        ("confidence", "status"),
        [(0.85, LeadStatus.NEW_AUTO), (0.84, LeadStatus.NEW_DRAFT), (0.69, LeadStatus.NEW_ESCALATE)],
    )
    def test_the_workspaces_thresholds_give_the_status(self, session, session_factory, workspace, confidence, status):
        lead = make_lead(session, workspace)
        drain(session_factory, judge=says(confidence))
        assert fresh(session, lead).status is status

    def test_thresholds_are_those_of_the_leads_own_workspace(self, session, session_factory, workspace):
        strict = make_workspace(session, auto_from=0.99, draft_from=0.98)
        here, there = make_lead(session, workspace), make_lead(session, strict)
        assert drain(session_factory, judge=says(0.9)).done == 2
        assert fresh(session, here).status is LeadStatus.NEW_AUTO
        assert fresh(session, there).status is LeadStatus.NEW_ESCALATE

    def test_urgent_leads_go_first(self, session, session_factory, workspace):
        later, first = make_lead(session, workspace), make_lead(session, workspace, "xin báo giá gấp")
        session.execute(sa.update(Run).where(Run.lead_id == first.id).values(rank=0))
        session.execute(sa.update(Run).where(Run.lead_id == later.id).values(rank=3))
        session.commit()
        assert drain(session_factory, max_rows=1).more is True
        assert runs_of(session, first)[0].status is RunStatus.SUCCESS
        assert runs_of(session, later)[0].status is RunStatus.QUEUED

    def test_the_rq_job_that_worked_it_is_recorded(self, session, session_factory, workspace):
        lead = make_lead(session, workspace)
        drain(session_factory, Holder(rq_job_id="ring-1"))
        assert runs_of(session, lead)[0].rq_job_id == "ring-1"


class TestDecisionsStand:
    @pytest.mark.parametrize("status", [LeadStatus.APPROVED, LeadStatus.OVERRIDDEN, LeadStatus.REJECTED])
    def test_a_decided_lead_keeps_its_verdict_status_and_version(self, session, session_factory, workspace, status):
        lead = make_lead(session, workspace, status=status, intent=Intent.PARTNERSHIP, priority=Priority.P2, version=4)
        drain(session_factory, judge=says(0.99, Intent.SPAM, Priority.P3))
        lead = fresh(session, lead)
        assert (lead.status, lead.intent, lead.priority) == (status, Intent.PARTNERSHIP, Priority.P2)
        assert lead.version == 4
        assert lead.score is not None
        assert lead.settled_at is not None
        (done,) = runs_of(session, lead)
        assert done.result_json["intent"] == "partnership"
        assert done.result_json["machine"]["intent"] == "spam"

    def test_a_decision_made_while_the_run_works_stands(self, session, session_factory, workspace):
        lead = make_lead(session, workspace)

        def judge(text):
            with session_factory.begin() as other:
                other.execute(
                    sa.update(Lead)
                    .where(Lead.id == lead.id)
                    .values(status=LeadStatus.REJECTED, version=Lead.version + 1, decided_by="Ann")
                )
            return says(0.99, Intent.PURCHASE_INTENT, Priority.P0)(text)

        assert drain(session_factory, judge=judge).done == 1
        lead = fresh(session, lead)
        assert (lead.status, lead.version, lead.decided_by) == (LeadStatus.REJECTED, 2, "Ann")
        assert lead.intent is not Intent.PURCHASE_INTENT
        assert runs_of(session, lead)[0].status is RunStatus.SUCCESS

    def test_someone_assigned_while_the_run_works_keeps_it(self, session, session_factory, workspace):
        make_user(session, workspace, takes_leads=True)
        ann = make_user(session, workspace, takes_leads=False)
        lead = make_lead(session, workspace)

        def judge(text):
            with session_factory.begin() as other:
                other.execute(sa.update(Lead).where(Lead.id == lead.id).values(assignee_id=ann.id))
            return says(0.75)(text)

        drain(session_factory, judge=judge)
        assert fresh(session, lead).assignee_id == ann.id


class TestRouting:
    def test_a_batch_is_spread_over_the_members_that_take_leads(self, session, session_factory, workspace):
        takers = [make_user(session, workspace, takes_leads=True) for _ in range(3)]
        make_user(session, workspace, takes_leads=False)
        make_user(session, workspace, takes_leads=True, active=False)
        make_user(session, make_workspace(session), takes_leads=True)
        for _ in range(9):
            make_lead(session, workspace)
        drain(session_factory, judge=says(0.75))
        counts = session.execute(sa.select(Lead.assignee_id, sa.func.count()).group_by(Lead.assignee_id))
        assert dict(counts.all()) == {user.id: 3 for user in takers}

    def test_who_has_many_waiting_leads_gets_none(self, session, session_factory, workspace):
        busy = make_user(session, workspace, takes_leads=True)
        idle = make_user(session, workspace, takes_leads=True)
        for _ in range(4):
            make_lead(session, workspace, assignee_id=busy.id, status=LeadStatus.NEW_DRAFT)
        lead = make_lead(session, workspace)
        drain(session_factory, judge=says(0.75))
        lead = fresh(session, lead)
        assert lead.assignee_id == idle.id
        assert lead.assignment_reason

    def test_without_members_the_reason_says_manual_review(self, session, session_factory, workspace):
        lead = make_lead(session, workspace)
        drain(session_factory, judge=says(0.75))
        lead = fresh(session, lead)
        assert lead.assignee_id is None
        assert lead.assignment_reason.startswith("manual review")


class TestDeliveries:
    @pytest.fixture
    def webhook(self, session, workspace):
        row = Destination(workspace_id=workspace.id, kind=DestinationKind.WEBHOOK, name="hook")
        session.add(row)
        session.commit()
        return row

    def deliveries(self, session, lead):
        session.rollback()
        return session.scalars(sa.select(Delivery.state).where(Delivery.lead_id == lead.id)).all()

    def test_an_auto_lead_goes_out_when_its_first_run_settles(self, session, session_factory, workspace, webhook):
        lead = make_lead(session, workspace)
        assert self.deliveries(session, lead) == []
        drain(session_factory, judge=says(0.95))
        assert self.deliveries(session, lead) == [DeliveryState.PENDING]

    def test_what_goes_out_by_itself_is_held_so_that_a_person_can_step_in(
        self, session, session_factory, workspace, webhook
    ):
        make_lead(session, workspace)
        drain(session_factory, hold_seconds=10)
        held = session.scalar(sa.select(Delivery.due_at - Delivery.created_at))
        assert 9.5 < held.total_seconds() < 10.5

    @pytest.mark.parametrize("judge", [says(0.8), says(0.99, Intent.SPAM, Priority.P3)])
    def test_a_draft_or_spam_does_not(self, session, session_factory, workspace, webhook, judge):
        lead = make_lead(session, workspace)
        drain(session_factory, judge=judge)
        assert self.deliveries(session, lead) == []

    @pytest.mark.parametrize("judge", [says(0.5), says(0.99, Intent.SPAM, Priority.P3)])
    def test_a_verdict_lowered_before_sending_cancels(self, session, session_factory, workspace, webhook, judge):
        lead = make_lead(session, workspace)
        drain(session_factory, judge=says(0.95))
        run.request_rerun(session, fresh(session, lead), requested_by="Ann")
        session.commit()
        drain(session_factory, judge=judge)
        assert self.deliveries(session, lead) == [DeliveryState.CANCELLED]

    def test_a_second_run_with_the_same_verdict_sends_nothing_twice(self, session, session_factory, workspace, webhook):
        lead = make_lead(session, workspace)
        for _ in range(2):
            drain(session_factory, judge=says(0.95))
            run.request_rerun(session, fresh(session, lead), requested_by="Ann")
            session.commit()
        assert self.deliveries(session, lead) == [DeliveryState.PENDING]


class TestDegradation:
    def stage(self, session, lead, name):
        (done,) = runs_of(session, lead)
        assert done.status is RunStatus.SUCCESS
        return next(stage for stage in done.stages if stage["name"] == name)

    def test_classification_fails_intakes_verdict_stands_for_a_person_to_see(self, session, session_factory, workspace):
        lead = make_lead(session, workspace)
        intake = fresh(session, lead)
        intent = intake.intent

        def judge(text):
            raise ConnectionError("no model")

        drain(session_factory, judge=judge)
        assert self.stage(session, lead, "classify")["status"] == "degraded"
        lead = fresh(session, lead)
        assert lead.intent is intent
        assert lead.confidence <= 0.69
        assert lead.status is LeadStatus.NEW_ESCALATE
        assert events(session, lead, "STAGE_DEGRADED")[0]["stage"] == "classify"

    def test_enrichment_fails_the_rest_goes_on(self, session, session_factory, workspace, monkeypatch):
        def broken(*args):
            raise MemoryError("carrier data")

        monkeypatch.setattr(phonenumbers, "parse", broken)
        lead = make_lead(session, workspace, phone=None)
        session.execute(sa.update(Lead).values(phone_e164="+14155552671"))
        session.commit()
        drain(session_factory)
        assert self.stage(session, lead, "enrich")["error"] == "MemoryError: carrier data"
        assert fresh(session, lead).score > 0

    def test_a_component_of_the_score_fails_the_others_count(self, session, session_factory, workspace, monkeypatch):
        monkeypatch.setattr(score, "LARGE_BUDGET", {"USD": None})
        leads = [make_lead(session, workspace, budget=100.0), make_lead(session, workspace, budget=200.0)]
        drain(session_factory)
        assert self.stage(session, leads[0], "score")["status"] == "degraded"
        assert self.stage(session, leads[0], "score")["error"].startswith("budget: TypeError")
        lead = fresh(session, leads[0])
        parts = {part["name"]: part for part in lead.score_parts}
        assert parts["budget"]["reason"] == "could not be worked out and counts as nothing"
        assert parts["intent"]["points"] > 0
        assert lead.score == sum(part["points"] for part in lead.score_parts)
        assert events(session, lead, "STAGE_DEGRADED")[0]["stage"] == "score"
        (counted,) = session.scalars(sa.select(ScoreFallback))
        assert (counted.workspace_id, counted.component, counted.times) == (workspace.id, "budget", 2)

    def test_scoring_fails_as_a_whole_the_fallback_counts(self, session, session_factory, workspace, monkeypatch):
        monkeypatch.setattr(score, "score", lambda *_, **__: 1 / 0)
        lead = make_lead(session, workspace)
        drain(session_factory)
        assert self.stage(session, lead, "score")["status"] == "degraded"
        assert [part["name"] for part in fresh(session, lead).score_parts] == ["intent", "urgency"]

    def test_routing_fails_manual_review(self, session, session_factory, workspace, monkeypatch):
        make_user(session, workspace, takes_leads=True)

        def broken(self, team):
            raise ZeroDivisionError

        monkeypatch.setattr(route.Board, "pick", broken)
        lead = make_lead(session, workspace)
        drain(session_factory, judge=says(0.75))
        lead = fresh(session, lead)
        assert lead.assignee_id is None
        assert lead.assignment_reason == "manual review: routing failed"
        assert events(session, lead, "STAGE_DEGRADED")[0]["stage"] == "route"


class TestCrashes:
    """A verdict that the database refuses (confidence beyond 1) crashes the run that has it when it is saved."""

    def poison(self, text):
        return says(0.9)(text)._replace(confidence=7.0 if "poison" in text else 0.9)

    def test_neighbours_are_done_and_the_culprit_alone_is_tried_three_times(self, session, session_factory, workspace):
        good = [make_lead(session, workspace) for _ in range(3)]
        bad = make_lead(session, workspace, "poison please")
        assert drain(session_factory, judge=self.poison).done == 4
        assert all(runs_of(session, lead)[0].status is RunStatus.SUCCESS for lead in good)
        (waiting,) = runs_of(session, bad)
        assert waiting.status is RunStatus.QUEUED
        assert waiting.due_at > waiting.started_at
        assert drain(session_factory, judge=self.poison).done == 0  # backing off
        for _ in range(2):
            due_now(session)
            assert drain(session_factory, judge=self.poison).done == 1
        (failed,) = runs_of(session, bad)
        assert (failed.status, failed.attempt) == (RunStatus.FAILED, 3)
        assert failed.error.startswith("The run crashed (")
        assert "poison please" not in failed.error
        due_now(session)
        assert drain(session_factory, judge=self.poison).done == 0

    def test_a_failed_run_leaves_the_lead_for_a_person(self, session, session_factory, workspace):
        bad = make_lead(session, workspace, "poison please", status=LeadStatus.NEW_AUTO)
        for _ in range(3):
            drain(session_factory, judge=self.poison)
            due_now(session)
        bad = fresh(session, bad)
        assert (bad.status, bad.version, bad.settled_at) == (LeadStatus.NEW_ESCALATE, 2, None)
        (event,) = events(session, bad, "RUN_FAILED")
        assert event["escalated"] is True

    def test_a_row_that_cannot_be_read_is_its_own_failure(self, session, session_factory, workspace):
        good = make_lead(session, workspace)
        bad = make_lead(session, workspace, verdict={"nonsense": 1})
        drain(session_factory)
        assert runs_of(session, good)[0].status is RunStatus.SUCCESS
        assert runs_of(session, bad)[0].status is RunStatus.QUEUED
        assert "KeyError" in runs_of(session, bad)[0].error

    def test_a_failed_run_can_be_run_again(self, session, session_factory, workspace):
        bad = make_lead(session, workspace, "poison please")
        for _ in range(3):
            drain(session_factory, judge=self.poison)
            due_now(session)
        run.request_rerun(session, fresh(session, bad), requested_by="Ann")
        session.commit()
        assert drain(session_factory).done == 1
        assert [one.status for one in runs_of(session, bad)] == [RunStatus.FAILED, RunStatus.SUCCESS]

    def test_a_run_that_loses_its_worker_again_and_again_is_given_up(self, session, session_factory, workspace):
        lead = make_lead(session, workspace)
        session.execute(sa.update(Run).values(attempt=run.MAX_CLAIMS))
        session.commit()
        drain(session_factory)
        (failed,) = runs_of(session, lead)
        assert failed.status is RunStatus.FAILED
        assert "worker was lost" in failed.error


class TestFencing:
    def test_who_was_given_up_for_dead_settles_nothing(self, session, session_factory, workspace):
        """The first worker hangs in its judge; its lease runs out; a second does the run; then the first goes on."""
        lead = make_lead(session, workspace)

        def hangs(text):
            due_now(session)
            assert drain(session_factory, judge=says(0.95, Intent.DEMO_REQUEST)).done == 1
            return says(0.95, Intent.SPAM, Priority.P3)(text)

        drain(session_factory, judge=hangs)
        assert fresh(session, lead).intent is Intent.DEMO_REQUEST
        (done,) = runs_of(session, lead)
        assert (done.attempt, done.result_json["intent"]) == (2, "demo_request")
        assert len(events(session, lead, "RUN_SUCCEEDED")) == 1

    def test_a_restarted_worker_takes_its_predecessors_runs_back_at_once(self, session, session_factory, workspace):
        lead = make_lead(session, workspace)
        with session_factory.begin() as first:
            old = Holder("here/runs-1", claims.enter(first, "here/runs-1"))
            assert len(claims.claim(first, RUNS, old, limit=9)) == 1
        with session_factory.begin() as second:
            new = Holder("here/runs-1", claims.enter(second, "here/runs-1"))
        with pytest.raises(SlotTaken, match="here/runs-1"):
            drain(session_factory, old)
        assert drain(session_factory, new).done == 1
        assert runs_of(session, lead)[0].attempt == 2

    def test_two_runs_of_one_lead_in_a_batch_both_settle(self, session, session_factory, workspace):
        lead = make_lead(session, workspace)
        session.add(Run(workspace_id=workspace.id, lead_id=lead.id, source="x", trigger=RunTrigger.TOUCH))
        session.commit()
        assert drain(session_factory, judge=says(0.95, Intent.DEMO_REQUEST, Priority.P0)).done == 2
        assert [one.status for one in runs_of(session, lead)] == [RunStatus.SUCCESS] * 2
        lead = fresh(session, lead)
        assert (lead.version, lead.intent) == (2, Intent.DEMO_REQUEST)


class TestBounds:
    def test_rows_and_stop_bound_a_drain_and_more_is_said(self, session, session_factory, workspace):
        for _ in range(5):
            make_lead(session, workspace)
        assert drain(session_factory, max_rows=2, batch=2) == run.Drained(2, True)
        assert drain(session_factory, batch=1, stop=lambda: True) == run.Drained(1, True)
        assert drain(session_factory, batch=1, max_seconds=0) == run.Drained(1, True)
        assert drain(session_factory) == run.Drained(1, False)


class TestRerun:
    def test_a_rerun_is_a_new_run_of_what_came_in(self, session, session_factory, workspace):
        lead = make_lead(session, workspace)
        drain(session_factory)
        again = run.request_rerun(session, fresh(session, lead), requested_by="Ann")
        session.commit()
        first, second = runs_of(session, lead)
        assert (again.id, second.trigger, second.requested_by) == (second.id, RunTrigger.RERUN, "Ann")
        assert second.payload_json == first.payload_json
        assert events(session, lead, "RUN_REQUESTED")[0]["already_queued"] is False

    def test_one_that_waits_is_brought_forward_instead(self, session, session_factory, workspace):
        lead = make_lead(session, workspace)
        session.execute(sa.update(Run).values(due_at=sa.func.now() + sa.text("interval '1h'")))
        session.commit()
        first = run.request_rerun(session, fresh(session, lead), requested_by="Ann")
        session.commit()
        second = run.request_rerun(session, fresh(session, lead), requested_by="Bob")
        session.commit()
        assert first.id == second.id
        assert len(runs_of(session, lead)) == 1
        assert drain(session_factory).done == 1

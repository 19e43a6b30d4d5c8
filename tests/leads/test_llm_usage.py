"""What asking models takes: recorded whoever waits, and kept within the day's budget of a workspace."""

import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests import factories
from tests.factories import make_lead
from tests.leads.test_judging import Stub, fresh, opinion, run_of
from tests.waiting import until
from webapp.leads import llm_usage, run
from webapp.leads.claims import Holder
from webapp.leads.judging import Judging, Mode, Policy
from webapp.leads.judging_policy import Preferences
from webapp.leads.llm_usage import Spent
from webapp.leads.ports import ModelFailed, Usage
from webapp.leads.states import Intent, LeadStatus, RunStatus
from webapp.models import LlmCall, Run

UNSURE = "Hello, a colleague told me about you"
SURE = "Cho tôi báo giá gói Enterprise"
USAGE = Usage("stub", 700, calls=1, tokens_in=500, tokens_out=100, cost=0.01)
DEPLOYMENT = Policy(Mode.RULES_THEN_LLM, available=True)


def want(session, workspace, **preferences):
    workspace.settings = {"classify": Preferences(**preferences).as_json()}
    session.commit()


def drain(session_factory, model, policy=DEPLOYMENT, **more):
    judges = Judging(policy, model, record=llm_usage.recorder(session_factory), **more)
    return run.process(session_factory, Holder(), judges=judges)


def calls(session):
    session.rollback()
    return session.scalars(sa.select(LlmCall).order_by(LlmCall.created_at)).all()


class TestRecording:
    def test_each_question_with_what_it_took(self, session, session_factory, workspace):
        lead = make_lead(session, workspace, UNSURE)
        drain(session_factory, Stub(lambda _: opinion(Intent.DEMO_REQUEST, usage=USAGE)))
        (call,) = calls(session)
        assert (call.workspace_id, call.lead_id, call.purpose, call.model) == (
            workspace.id,
            lead.id,
            "classify",
            "stub",
        )
        assert (call.tokens_in, call.tokens_out, call.cost, call.ms, call.error) == (500, 100, 0.01, 700, None)
        assert call.run_id == run_of(session, lead).id

    def test_failures_too_with_their_reason(self, session, session_factory, workspace):
        make_lead(session, workspace, UNSURE)

        def fail(_):
            raise ModelFailed(
                "the model's server answered 500", usage=replace(USAGE, tokens_in=None, tokens_out=None, cost=None)
            )

        drain(session_factory, Stub(fail))
        (call,) = calls(session)
        assert (call.error, call.tokens_in, call.cost) == ("the model's server answered 500", None, None)

    def test_an_answer_that_nobody_waits_for_any_more_costs_all_the_same(self, session, session_factory, workspace):
        make_lead(session, workspace, UNSURE)
        released = threading.Event()

        def late(_):
            released.wait(30)
            return opinion(usage=USAGE)

        drain(session_factory, Stub(late), patience=0.2)
        assert calls(session) == []
        released.set()
        until(lambda: len(calls(session)) == 1)

    def test_days_are_told_apart_by_model_and_purpose(self, session, workspace):
        for purpose, error in (("classify", None), ("classify", "late"), ("copywriting", None)):
            llm_usage.record(session, workspace.id, USAGE, purpose=purpose, error=error)
        llm_usage.record(session, factories.make_workspace(session).id, USAGE, purpose="classify")
        session.commit()
        classify, texts = llm_usage.by_day(session, workspace.id)
        assert (classify.questions, classify.failed, classify.tokens_in, classify.usd) == (2, 1, 1_000, 0.02)
        assert (texts.purpose, texts.p50, texts.p95) == ("copywriting", 700, 700)


class TestBudget:
    @pytest.mark.parametrize(
        ("preferences", "spent", "over"),
        [
            (Preferences(), Spent(9, 10**9, 10**6), False),
            (Preferences(daily_tokens=100), Spent(1, 99, 0), False),
            (Preferences(daily_tokens=100), Spent(1, 100, 0), True),
            (Preferences(daily_tokens=0), Spent(), True),
            (Preferences(daily_usd=0.5), Spent(1, 10**9, 0.49), False),
            (Preferences(daily_usd=0.5), Spent(1, 0, 0.5), True),
        ],
    )
    def test_it_is_used_up_from_its_amount_on(self, preferences, spent, over):
        assert bool(spent.over(preferences)) is over

    @pytest.mark.parametrize(("mode", "message"), [(Mode.RULES_THEN_LLM, UNSURE), (Mode.LLM, UNSURE), (Mode.LLM, SURE)])
    def test_beyond_it_only_the_rules_judge_and_the_lead_tells_so(
        self, session, session_factory, workspace, mode, message
    ):
        want(session, workspace, mode=mode, daily_tokens=600)
        llm_usage.record(session, workspace.id, USAGE, purpose="classify")
        session.commit()
        lead, stub = make_lead(session, workspace, message), Stub()
        before = lead.confidence
        drain(session_factory, stub)
        assert stub.asked == []
        lead = fresh(session, lead)
        expected = LeadStatus.NEW_AUTO if message == SURE else LeadStatus.NEW_ESCALATE
        assert (lead.confidence, lead.status) == (before, expected)
        assert any(
            "today's budget for language models is used up (600 of 600 tokens)" in one
            for one in lead.verdict["reasons"]
        )
        assert run_of(session, lead).stages[1]["status"] == "degraded"

    def test_yesterdays_does_not_count_nor_another_workspaces(self, session, session_factory, workspace):
        want(session, workspace, daily_usd=0.02)
        llm_usage.record(session, workspace.id, replace(USAGE, cost=5.0), purpose="classify")
        session.execute(
            sa.update(LlmCall).values(created_at=sa.text("date_trunc('day', now(), 'UTC') - interval '1 s'"))
        )
        llm_usage.record(session, factories.make_workspace(session).id, replace(USAGE, cost=5.0), purpose="classify")
        session.commit()
        assert llm_usage.exhausted(session) == {}
        make_lead(session, workspace, UNSURE)
        stub = Stub()
        drain(session_factory, stub)
        assert stub.asked == [UNSURE]

    def test_a_backlog_beyond_it_does_not_wait_for_threads(self, session, session_factory, workspace):
        want(session, workspace, daily_tokens=0)
        for _ in range(20):
            make_lead(session, workspace, UNSURE)
        assert drain(session_factory, Stub(), threads=1).done == 20
        session.rollback()
        assert set(session.scalars(sa.select(Run.status))) == {RunStatus.SUCCESS}


class TestModes:
    @pytest.mark.parametrize(
        ("deployment", "wanted", "message", "asked"),
        [
            (DEPLOYMENT, None, UNSURE, True),
            (DEPLOYMENT, Mode.RULES, UNSURE, False),
            (DEPLOYMENT, Mode.LLM, SURE, True),
            (DEPLOYMENT, None, SURE, False),
            (Policy(Mode.RULES, available=True), None, UNSURE, False),
            (Policy(Mode.RULES, available=True), Mode.RULES_THEN_LLM, UNSURE, True),
            (Policy(Mode.LLM, available=True), Mode.RULES_THEN_LLM, SURE, False),
            (Policy(Mode.RULES, available=False, locked=True), Mode.LLM, UNSURE, False),
        ],
    )
    def test_a_workspaces_own_goes_before_the_deployments(
        self, session, session_factory, workspace, deployment, wanted, message, asked
    ):
        want(session, workspace, mode=wanted)
        lead, stub = make_lead(session, workspace, message), Stub()
        assert drain(session_factory, stub, deployment).done == 1
        assert bool(stub.asked) is asked
        assert fresh(session, lead).settled_at

    def test_workspaces_beside_each_other(self, session, session_factory, workspace):
        other = factories.make_workspace(session)
        want(session, workspace, mode=Mode.LLM)
        want(session, other, mode=Mode.RULES)
        mine, theirs = make_lead(session, workspace, SURE), make_lead(session, other, UNSURE)
        stub = Stub()
        assert drain(session_factory, stub).done == 2
        assert stub.asked == [SURE]
        assert fresh(session, mine).verdict["judge"] == "rules+stub"
        assert fresh(session, theirs).verdict["judge"] == "rules"

    def test_personal_data_leaves_where_the_workspace_allows_it(self, session, session_factory, workspace):
        text = "I am Ada, ada@x.example, we look at options for our clinic"
        make_lead(session, workspace, text, name="Ada Byron")
        stub = Stub()
        drain(session_factory, stub)
        want(session, workspace, share_personal=True)
        make_lead(session, workspace, text, name="Ada Byron", email="other@x.example")
        drain(session_factory, stub)
        assert stub.asked == ["I am [name], [email], we look at options for our clinic", text]

    def test_enrich_lead_follows_the_workspaces_mode(self, client, session, workspace, headers, app):
        """A model is required here and none is there to be asked: 502, whatever the deployment's mode."""
        want(session, workspace, mode=Mode.LLM)
        patient = replace(app.extensions["qualifying"], patience=0.2)
        kept, app.extensions["qualifying"] = app.extensions["qualifying"], patient
        app.extensions["keyring"]._known.clear()
        try:
            answer = client.post("/enrich-lead", json={"email": "a@x.example", "message": SURE}, headers=headers)
            assert answer.status_code == 502, answer.text
            want(session, workspace, mode=Mode.RULES)
            app.extensions["keyring"]._known.clear()
            answer = client.post("/enrich-lead", json={"email": "b@x.example", "message": UNSURE}, headers=headers)
            assert answer.status_code == 200
        finally:
            app.extensions["qualifying"] = kept

    def test_enrich_lead_beyond_the_budget_does_not_wait(self, client, session, workspace, headers, app, monkeypatch):
        want(session, workspace, daily_tokens=0)
        monkeypatch.setitem(app.extensions, "qualifying", replace(app.extensions["qualifying"], policy=DEPLOYMENT))
        app.extensions["keyring"]._known.clear()
        answer = client.post("/enrich-lead", json={"email": "a@x.example", "message": UNSURE}, headers=headers)
        assert answer.status_code == 200
        assert any("today's budget" in reason for reason in answer.json["reasons"])

"""Features switched off: what a run leaves out, what is not planned, what is held, and what happens to it later."""

from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from tests.factories import make_lead, make_user, make_workspace
from tests.fakes.twenty import TwentyFake
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.leads.delivering import decided_lead, drain, planned, states, twenty_destination, webhook_destination
from tests.leads.test_run import drain as work
from tests.leads.test_run import fresh, runs_of
from webapp.leads import deliver, flags
from webapp.leads.flags import Flag, Flags
from webapp.leads.states import DestinationKind, Door, LeadStatus, Priority, StageStatus
from webapp.models import AuditEvent, Destination


@pytest.fixture(autouse=True)
def _defaults():
    yield
    flags._defaults[0] = Flags()


def by_default(**off):
    on = {f"enable_{flag.name.lower()}": flag is not Flag.LLM_COPYWRITING for flag in Flag}
    flags.use_defaults(SimpleNamespace(**on | off))


def switch(session, workspace, flag, on):
    flags.choose(session, workspace.id, flag, on, actor="Ann")
    session.commit()


class TestWhatHolds:
    def test_everything_is_on_unless_the_environment_says_otherwise(self, session, workspace):
        assert flags.of_workspace(session, workspace.id) == Flags()
        by_default(enable_webhooks=False)
        assert flags.of_workspace(session, workspace.id) == Flags(webhooks=False)

    @pytest.mark.parametrize("flag", list(Flag))
    def test_a_workspaces_choice_goes_before_the_default_and_can_be_taken_back(self, session, workspace, flag):
        by_default(**{f"enable_{flag.name.lower()}": False})
        switch(session, workspace, flag, True)
        assert flags.of_workspace(session, workspace.id).on(flag)
        switch(session, workspace, flag, None)
        assert not flags.of_workspace(session, workspace.id).on(flag)
        said = session.scalars(sa.select(AuditEvent.details).where(AuditEvent.event_type == "FLAG_CHANGED")).all()
        assert [one["on"] for one in said] == [True, None]

    @pytest.mark.parametrize("stored", [None, {}, {"enableWebhooks": "no"}, {"enableWebhooks": None}, {"x": False}])
    def test_what_is_no_plain_choice_is_none(self, session, workspace, stored):
        workspace.settings = {"flags": stored}
        session.commit()
        assert flags.of(stored) == Flags()
        assert flags.without_webhooks(session, {workspace.id}) == set()


class TestRuns:
    def stage(self, session, session_factory, workspace, name, **over):
        lead = make_lead(session, workspace, email="jane@acme.example", **over)
        work(session_factory)
        (done,) = runs_of(session, lead)
        return fresh(session, lead), next(one for one in done.stages if one["name"] == name)

    def test_without_enrichment_the_stage_is_skipped_and_says_why(self, session, session_factory, workspace):
        switch(session, workspace, Flag.ENRICHMENT, False)
        lead, stage = self.stage(session, session_factory, workspace, "enrich")
        assert stage["status"] == StageStatus.SKIPPED.value
        assert stage["output"] == {"reason": "enrichment is switched off in this workspace"}
        assert runs_of(session, lead)[0].result_json["facts"] == {}
        assert lead.settled_at is not None

    def test_without_learned_scoring_the_rule_score_stands(self, session, session_factory, workspace):
        switch(session, workspace, Flag.ML_SCORING, False)
        lead, stage = self.stage(session, session_factory, workspace, "score")
        assert stage["status"] == StageStatus.SKIPPED.value
        assert stage["output"]["total"] == lead.score
        assert lead.score == sum(part["points"] for part in lead.score_parts) > 0
        assert "switched off" in stage["output"]["reason"]

    def test_without_routing_a_lead_waits_in_manual_review(self, session, session_factory, workspace):
        make_user(session, workspace, takes_leads=True)
        switch(session, workspace, Flag.AUTO_ROUTING, False)
        lead, stage = self.stage(session, session_factory, workspace, "route")
        assert stage["status"] == StageStatus.SKIPPED.value
        assert lead.assignee_id is None
        assert lead.assignment_reason == "manual review: automatic routing is switched off in this workspace"

    def test_without_routing_who_has_a_lead_keeps_it(self, session, session_factory, workspace):
        ann = make_user(session, workspace)
        switch(session, workspace, Flag.AUTO_ROUTING, False)
        lead, _ = self.stage(session, session_factory, workspace, "route", assignee_id=ann.id)
        assert lead.assignee_id == ann.id

    def test_other_workspaces_go_on(self, session, session_factory, workspace):
        switch(session, workspace, Flag.ENRICHMENT, False)
        other = make_workspace(session)
        _, stage = self.stage(session, session_factory, other, "enrich")
        assert stage["status"] == StageStatus.OK.value


class TestWebhooks:
    def test_none_is_planned_while_they_are_off_and_the_crm_is_not_meant(self, session, workspace):
        with TwentyFake() as twenty, WebhookReceiver() as hook:
            twenty_destination(session, workspace, twenty)
            webhook_destination(session, workspace, hook)
        switch(session, workspace, Flag.WEBHOOKS, False)
        lead = decided_lead(session, workspace)
        assert deliver.preview(session, lead) == [
            "Hook: nothing, outgoing webhooks are switched off in this workspace.",
            "Twenty: person and follow-up task.",
        ]
        deliver.plan(session, lead, due_in_seconds=0)
        assert set(states(session)) == {"person", "task", "task_target"}

    def test_the_follow_up_is_one_of_them(self, session, workspace):
        session.add(Destination(workspace_id=workspace.id, kind=DestinationKind.N8N, name="n8n", config={}))
        switch(session, workspace, Flag.WEBHOOKS, False)
        lead = make_lead(session, workspace, door=Door.SOCIAL, priority=Priority.P0)
        assert deliver.plan_follow_up(session, lead) == 0
        switch(session, workspace, Flag.WEBHOOKS, True)
        assert deliver.plan_follow_up(session, lead) == 1

    @pytest.mark.parametrize("how", ["chosen", "default"])
    def test_what_waits_is_held_and_goes_out_when_they_are_on_again(self, session, session_factory, workspace, how):
        with WebhookReceiver() as fake:
            webhook_destination(session, workspace, fake)
            planned(session, workspace, status=LeadStatus.APPROVED)
            if how == "chosen":
                switch(session, workspace, Flag.WEBHOOKS, False)
            else:
                by_default(enable_webhooks=False)
            assert not deliver.has_due(session)
            assert drain(session_factory).done == 0
            assert states(session) == {"lead.approved": "pending"}
            assert flags.waiting_webhooks(session, workspace.id) == 1
            switch(session, workspace, Flag.WEBHOOKS, True)
            assert drain(session_factory).done == 1
            assert states(session) == {"lead.approved": "delivered"}
            assert len(fake.requests) == 1

    def test_a_broken_destination_is_not_probed_with_what_is_held(self, session, session_factory, workspace):
        with WebhookReceiver() as fake:
            row = webhook_destination(session, workspace, fake)
            row.open_until = sa.func.now() - sa.text("interval '1s'")
            planned(session, workspace)
            switch(session, workspace, Flag.WEBHOOKS, False)
            assert not deliver.has_due(session)
            assert drain(session_factory).done == 0
            assert fake.requests == []

    def test_discarding_leaves_what_is_owed_for_one_that_was_sent(self, session, session_factory, workspace):
        with WebhookReceiver() as fake:
            webhook_destination(session, workspace, fake)
            lead = planned(session, workspace)
            drain(session_factory)
            switch(session, workspace, Flag.WEBHOOKS, False)
            lead.status = LeadStatus.REJECTED
            assert deliver.withdraw(session, lead, reason="rejected", due_in_seconds=0) == 1
            assert flags.discard_webhooks(session, workspace.id, actor="Ann") == 0
            session.commit()
            switch(session, workspace, Flag.WEBHOOKS, True)
            drain(session_factory)
            assert [event["type"] for event in fake.deliveries] == ["lead.approved", "lead.withdrawn"]

    def test_discarding_cancels_only_this_workspaces_webhooks(self, session, workspace):
        other = make_workspace(session)
        with WebhookReceiver() as fake, TwentyFake() as twenty:
            for owner in (workspace, other):
                webhook_destination(session, owner, fake)
                twenty_destination(session, owner, twenty)
        mine, theirs = planned(session, workspace), planned(session, other)
        assert flags.discard_webhooks(session, workspace.id, actor="Ann") == 1
        session.commit()
        waiting = {"person": "pending", "task": "pending", "task_target": "pending"}
        assert states(session, mine) == waiting | {"lead.approved": "cancelled"}
        assert states(session, theirs) == waiting | {"lead.approved": "pending"}

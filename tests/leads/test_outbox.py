"""Which effects a decision queues, and when it takes them back."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests.factories import make_lead, make_workspace
from tests.fakes.twenty import TwentyFake
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.leads.delivering import (
    decided_lead,
    events,
    planned,
    rows,
    states,
    twenty_destination,
    webhook_destination,
)
from webapp.leads import deliver, outbox
from webapp.leads.errors import Conflict
from webapp.leads.states import DeliveryState, DestinationKind, DestinationMode, Door, Intent, LeadStatus, Priority
from webapp.models import Delivery, Destination, Lead, Workspace

ALL_THREE = {"person": "pending", "task": "pending", "task_target": "pending"}


@pytest.fixture
def destination(session: Session, workspace: Workspace) -> Iterator[Destination]:
    with TwentyFake() as fake:
        yield twenty_destination(session, workspace, fake)


def _plan(session: Session, lead: Lead, seconds: float = 0, **over: Any) -> int:
    queued = deliver.plan(session, lead, due_in_seconds=seconds, **over)
    session.commit()
    return queued


def test_an_approved_lead_gets_one_row_per_action(
    session: Session, workspace: Workspace, destination: Destination
) -> None:
    lead = decided_lead(session, workspace)
    assert _plan(session, lead, 10) == 3
    assert states(session) == ALL_THREE
    assert [row.step for row in rows(session).values()] == [0, 1, 2]
    now = session.scalar(sa.select(sa.func.now()))
    assert now is not None
    assert all(timedelta(8) * 0 < row.due_at - now <= timedelta(seconds=10) for row in rows(session).values())
    assert _plan(session, lead, 10) == 0  # deciding twice queues nothing twice
    assert states(session) == ALL_THREE


@pytest.mark.parametrize(
    ("over", "queued"),
    [
        ({"status": LeadStatus.NEW_AUTO}, 3),
        ({"status": LeadStatus.NEW_AUTO, "settled_at": None}, 0),
        ({"status": LeadStatus.OVERRIDDEN}, 3),
        ({"status": LeadStatus.NEW_DRAFT}, 0),
        ({"status": LeadStatus.NEW_ESCALATE}, 0),
        ({"status": LeadStatus.REJECTED}, 0),
        ({"intent": Intent.COMPLAINT}, 3),
        ({"intent": Intent.SUPPORT}, 3),
        *(
            ({"intent": i}, 0)
            for i in ("spam", "vendor_pitch", "job", "unsubscribe", "thanks", "engagement", "unknown")
        ),
    ],
)
def test_the_taxonomy_s_rule(
    session: Session, workspace: Workspace, destination: Destination, over: dict[str, Any], queued: int
) -> None:
    assert _plan(session, decided_lead(session, workspace, **over)) == queued


def test_do_not_contact_is_never_delivered(session: Session, workspace: Workspace, destination: Destination) -> None:
    lead = decided_lead(session, workspace)
    make_lead(session, workspace, "please unsubscribe me from everything", email=lead.email)
    assert _plan(session, lead) == 0
    assert deliver.preview(session, lead) == ["Nothing will be sent: the person is marked do-not-contact."]


def test_only_destinations_of_the_workspace_that_are_on_count(
    session: Session, workspace: Workspace, destination: Destination
) -> None:
    other = make_workspace(session)
    assert _plan(session, decided_lead(session, other)) == 0
    destination.mode = DestinationMode.OFF
    assert _plan(session, decided_lead(session, workspace)) == 0


def test_a_trigger_rule_narrows(session: Session, workspace: Workspace, destination: Destination) -> None:
    destination.rules = {"qualified_only": True}
    assert _plan(session, decided_lead(session, workspace, qualified=False)) == 0
    assert _plan(session, decided_lead(session, workspace, qualified=True)) == 3


def test_cancelled_rows_come_back_with_a_new_decision(
    session: Session, workspace: Workspace, destination: Destination
) -> None:
    lead = planned(session, workspace)
    assert deliver.cancel(session, lead.id, reason="Mai took it back") == 3
    session.commit()
    assert set(states(session).values()) == {"cancelled"}
    (event,) = events(session, lead.id, "DELIVERY_CANCELLED")
    assert event.details["reason"] == "Mai took it back"
    ids = {row.id for row in rows(session).values()}
    assert _plan(session, lead, 10) == 3
    assert states(session) == ALL_THREE
    assert {row.id for row in rows(session).values()} == ids


def test_cancel_leaves_what_is_under_way_or_done(
    session: Session, workspace: Workspace, destination: Destination
) -> None:
    lead = planned(session, workspace)
    for action, state in (("person", DeliveryState.DELIVERED), ("task", DeliveryState.SENDING)):
        session.execute(sa.update(Delivery).where(Delivery.action == action).values(state=state))
    assert deliver.cancel(session, lead.id, reason="rejected") == 1
    session.commit()
    assert states(session) == {"person": "delivered", "task": "sending", "task_target": "cancelled"}
    assert _plan(session, lead) == 1
    assert states(session) == {"person": "delivered", "task": "sending", "task_target": "pending"}


def test_a_decision_holds_what_waits_for_its_own_undo_window(
    session: Session, workspace: Workspace, destination: Destination
) -> None:
    lead = planned(session, workspace, status=LeadStatus.NEW_AUTO)
    before = rows(session)["person"].due_at
    session.execute(sa.update(Lead).values(status=LeadStatus.APPROVED))
    session.refresh(lead)
    decision_id = _decision(session, lead)
    assert _plan(session, lead, 10, decision_id=decision_id) == 3
    row = rows(session)["person"]
    assert row.due_at - before > timedelta(seconds=8)
    assert row.decision_id == decision_id


def test_an_override_announces_itself_and_not_the_auto_approval_before(session: Session, workspace: Workspace) -> None:
    with WebhookReceiver() as fake:
        webhook_destination(session, workspace, fake)
    lead = planned(session, workspace, status=LeadStatus.NEW_AUTO)
    assert states(session) == {"lead.auto_approved": "pending"}
    session.execute(sa.update(Lead).values(status=LeadStatus.OVERRIDDEN))
    session.refresh(lead)
    _plan(session, lead, 10, decision_id=_decision(session, lead))
    assert states(session) == {"lead.auto_approved": "cancelled", "lead.overridden": "pending"}


def test_preview_says_what_approving_will_do(session: Session, workspace: Workspace) -> None:
    lead = decided_lead(session, workspace, status=LeadStatus.NEW_DRAFT)
    assert deliver.preview(session, lead) == [
        "Nothing will be sent: the workspace has no destination that is switched on."
    ]
    with TwentyFake() as twenty, WebhookReceiver() as hook:
        twenty_destination(session, workspace, twenty)
        webhook_destination(session, workspace, hook)
    assert deliver.preview(session, lead) == [
        "Hook: notice of the approval.",
        "Twenty: person and follow-up task.",
    ]
    lead.intent = Intent.SPAM
    assert deliver.preview(session, lead) == ["Nothing will be sent: spam is never delivered."]


def test_preview_leaves_out_what_was_sent(session: Session, workspace: Workspace, destination: Destination) -> None:
    lead = planned(session, workspace)
    session.execute(sa.update(Delivery).where(Delivery.action == "person").values(state=DeliveryState.DELIVERED))
    assert deliver.preview(session, lead) == ["Twenty: follow-up task."]
    session.execute(sa.update(Delivery).values(state=DeliveryState.DELIVERED))
    assert deliver.preview(session, lead) == ["Twenty: already sent."]


def test_only_dead_and_uncertain_letters_are_replayed(
    session: Session, workspace: Workspace, destination: Destination
) -> None:
    lead = planned(session, workspace)
    delivery = rows(session)["person"]
    with pytest.raises(Conflict):
        deliver.replay(session, delivery, actor="Mai")
    session.execute(sa.update(Delivery).values(state=DeliveryState.DEAD, tries=8))
    deliver.replay(session, delivery, actor="Mai")
    session.commit()
    row = rows(session)["person"]
    assert (row.state, row.tries) == (DeliveryState.PENDING, 0)
    assert events(session, lead.id, "DELIVERY_REPLAYED")[0].actor == "Mai"


@pytest.mark.parametrize(
    ("over", "queued"),
    [
        ({}, 1),
        ({"priority": Priority.P0}, 1),
        ({"priority": Priority.P2}, 0),
        ({"door": Door.TRIAGE}, 0),
        ({"status": LeadStatus.NEW_ESCALATE}, 1),  # it tells of the lead, it does not wait for a decision
    ],
)
def test_the_follow_up_is_for_social_leads_of_high_priority(
    session: Session, workspace: Workspace, over: dict[str, Any], queued: int
) -> None:
    values: dict[str, Any] = {"workspace_id": workspace.id, "kind": DestinationKind.N8N, "name": "n8n"}
    session.add(Destination(**values, managed_by="environment", config={}))
    session.commit()
    for owner in (workspace, make_workspace(session)):  # the operator's URL serves all
        lead = make_lead(session, owner, **{"door": Door.SOCIAL, "priority": Priority.P1, **over})
        assert deliver.plan_follow_up(session, lead) == queued
        assert deliver.plan_follow_up(session, lead) == 0
        session.commit()
    assert states(session) == ({"follow_up": "pending"} if queued else {})


def test_the_follow_up_of_a_suspected_lead_waits_for_a_person(session: Session, workspace: Workspace) -> None:
    there = Destination(workspace_id=workspace.id, kind=DestinationKind.N8N, name="n8n", config={})
    session.add(there)
    values: dict[str, Any] = {"door": Door.SOCIAL, "priority": Priority.P0, "status": LeadStatus.NEW_ESCALATE}
    lead = make_lead(session, workspace, **values, verdict={"tags": ["injection"]})
    assert deliver.plan_follow_up(session, lead) == 0
    assert outbox.still_wanted(there, lead, "follow_up", do_not_contact=False, suppressed=False)
    lead.status = LeadStatus.APPROVED
    _plan(session, lead, decision_id=_decision(session, lead))
    assert states(session) == {"follow_up": "pending"}
    assert outbox.still_wanted(there, lead, "follow_up", do_not_contact=False, suppressed=False) is None


def test_rejecting_does_not_count_the_follow_up_among_its_deliveries(
    session: Session, workspace: Workspace, session_factory: sessionmaker[Session]
) -> None:
    session.add(Destination(workspace_id=workspace.id, kind=DestinationKind.N8N, name="n8n", config={}))
    session.commit()
    lead = make_lead(session, workspace, door=Door.SOCIAL, priority=Priority.P1)
    deliver.plan_follow_up(session, lead)
    assert deliver.cancel(session, lead.id, reason="approved anew") == 0


def _decision(session: Session, lead: Lead) -> Any:
    from webapp.leads.states import DecisionAction
    from webapp.models import Decision

    row = Decision(
        workspace_id=lead.workspace_id,
        lead_id=lead.id,
        actor="Mai",
        action=DecisionAction.APPROVE,
        before={},
        after={},
        undo_until=sa.func.now(),
    )
    session.add(row)
    session.commit()
    return row.id

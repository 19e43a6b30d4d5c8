"""What was delivered and should not have been is taken back, and comes back as the same records."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests.factories import make_lead
from tests.fakes.twenty import TwentyFake
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.leads.delivering import (
    drain,
    outcomes,
    planned,
    rows,
    states,
    twenty_destination,
    webhook_destination,
)  # fmt: skip
from webapp.leads import deliver, review, run, suppression
from webapp.leads.claims import Holder
from webapp.leads.ports import remote_id_for
from webapp.leads.review import Actor
from webapp.leads.states import (
    DecisionAction,
    DeliveryOperation,
    DeliveryState,
    DestinationMode,
    Intent,
    LeadStatus,
    NextAction,
    Priority,
    RejectReason,
    SuppressionKind,
)
from webapp.leads.types import Verdict
from webapp.models import Delivery, Lead, Workspace

Factory = sessionmaker[Session]
MAI = Actor("Mai")


@pytest.fixture
def twenty() -> Iterator[TwentyFake]:
    with TwentyFake() as fake:
        yield fake


def _decide(session: Session, lead: Lead, action: DecisionAction, *, hold: int = 0, **more: Any) -> None:
    session.refresh(lead)
    if action is DecisionAction.REJECT:
        more = {"reject_reason": RejectReason.SPAM}
    review.decide(
        session, lead.workspace_id, lead.id, action=action, version=lead.version, actor=MAI, undo_seconds=hold, **more
    )
    session.commit()


def test_a_rejected_lead_s_task_is_closed_and_an_approval_opens_the_same_one(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake
) -> None:
    twenty_destination(session, workspace, twenty)
    lead = planned(session, workspace)
    drain(session_factory)
    _decide(session, lead, DecisionAction.REJECT)
    drain(session_factory)
    assert states(session) == {"person": "delivered", "task": "withdrawn", "task_target": "delivered"}
    (task,) = twenty.tasks
    assert (task["status"], task["title"].split()[1]) == ("DONE", "Withdrawn")
    assert outcomes(session, rows(session)["task"]) == ["delivered", "withdrawn"]
    _decide(session, lead, DecisionAction.APPROVE)
    drain(session_factory)
    assert set(states(session).values()) == {"delivered"}
    (task,) = twenty.tasks
    assert (task["status"], "Follow-up" in task["title"]) == ("TODO", True)
    assert (len(twenty.people), len(twenty.task_targets)) == (1, 1)


def test_undoing_the_rejection_leaves_the_task_alone(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake
) -> None:
    twenty_destination(session, workspace, twenty)
    lead = planned(session, workspace)
    drain(session_factory)
    calls = len(twenty.requests)
    _decide(session, lead, DecisionAction.REJECT, hold=60)
    assert rows(session)["task"].operation is DeliveryOperation.WITHDRAW
    drain(session_factory)
    review.undo(session, workspace.id, lead.id, actor=MAI, hold_seconds=0)
    session.commit()
    drain(session_factory)
    assert (set(states(session).values()), len(twenty.requests)) == ({"delivered"}, calls)


def test_an_override_changes_the_task_and_makes_no_second_one(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake
) -> None:
    twenty_destination(session, workspace, twenty)
    lead = planned(session, workspace)
    drain(session_factory)
    twenty.store["tasks"][twenty.tasks[0]["id"]]["status"] = "IN_PROGRESS"
    said = twenty.tasks[0]["bodyV2"]["markdown"]
    _decide(session, lead, DecisionAction.OVERRIDE, intent=Intent.COMPLAINT)
    drain(session_factory)
    (task,) = twenty.tasks
    assert task["bodyV2"]["markdown"] != said
    assert task["status"] == "IN_PROGRESS"  # a colleague's
    _decide(session, lead, DecisionAction.APPROVE)  # nothing has changed by it
    assert set(states(session).values()) == {"delivered"}


def test_a_task_that_somebody_deleted_is_not_made_again(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake
) -> None:
    twenty_destination(session, workspace, twenty)
    lead = planned(session, workspace)
    drain(session_factory)
    twenty.store["tasks"].clear()
    _decide(session, lead, DecisionAction.REJECT)
    drain(session_factory)
    _decide(session, lead, DecisionAction.APPROVE)
    drain(session_factory)
    assert (states(session)["task"], twenty.tasks) == ("dead", [])  # somebody is to know of it


def test_a_receiver_is_told_once_and_told_again_under_another_id(
    session: Session, workspace: Workspace, session_factory: Factory
) -> None:
    with WebhookReceiver() as receiver:
        webhook_destination(session, workspace, receiver)
        lead = planned(session, workspace, status=LeadStatus.NEW_AUTO)
        drain(session_factory)
        _decide(session, lead, DecisionAction.APPROVE)
        drain(session_factory)
        _decide(session, lead, DecisionAction.REJECT)
        drain(session_factory)
        _decide(session, lead, DecisionAction.APPROVE)
        drain(session_factory)
        kinds = [event["type"] for event in receiver.deliveries]
        assert kinds == ["lead.auto_approved", "lead.approved", "lead.withdrawn", "lead.approved"]
        assert len(receiver.events) == 4
    assert states(session) == {"lead.auto_approved": "withdrawn", "lead.approved": "delivered"}


def test_what_is_rejected_on_its_way_is_taken_back_once_it_has_arrived(
    session: Session, workspace: Workspace, session_factory: Factory
) -> None:
    with WebhookReceiver() as receiver:
        webhook_destination(session, workspace, receiver)
        planned(session, workspace)
        handle = receiver.handle

        def rejected_meanwhile(request: Any) -> Any:
            receiver.handle = handle  # type: ignore[method-assign]
            with session_factory() as other:
                other.execute(sa.update(Lead).values(status=LeadStatus.REJECTED))
                other.commit()
            return handle(request)

        receiver.handle = rejected_meanwhile  # type: ignore[method-assign]
        drain(session_factory)
        assert [event["type"] for event in receiver.deliveries] == ["lead.approved", "lead.withdrawn"]
    assert states(session) == {"lead.approved": "withdrawn"}


def test_a_call_that_may_have_arrived_is_taken_back_as_well(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake
) -> None:
    twenty_destination(session, workspace, twenty)
    lead = planned(session, workspace)
    drain(session_factory)
    session.execute(
        sa.update(Delivery)
        .where(Delivery.action == "task")
        .values(state=DeliveryState.PENDING, ambiguous=True, due_at=sa.func.now() + sa.text("interval '1 hour'"))
    )
    _decide(session, lead, DecisionAction.REJECT)
    drain(session_factory)
    assert states(session, lead)["task"] == "withdrawn"
    assert twenty.tasks[0]["status"] == "DONE"


def test_a_receiver_that_wants_rejections_is_told_of_each_turn(
    session: Session, workspace: Workspace, session_factory: Factory
) -> None:
    with WebhookReceiver() as receiver:
        webhook_destination(session, workspace, receiver, rules={"on": ["approved", "rejected"]})
        lead = planned(session, workspace)
        drain(session_factory)
        for action in (DecisionAction.REJECT, DecisionAction.APPROVE, DecisionAction.REJECT):
            _decide(session, lead, action)
            drain(session_factory)
        kinds = [event["type"] for event in receiver.deliveries]
        assert kinds == ["lead.approved", "lead.rejected", "lead.approved", "lead.rejected"]
        assert len(receiver.events) == 4
    assert states(session) == {"lead.approved": "withdrawn", "lead.rejected": "delivered"}


@pytest.mark.parametrize("tries", [0, 1])
def test_rejecting_twice_or_holding_the_lead_back_keeps_the_taking_back(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, tries: int
) -> None:
    twenty_destination(session, workspace, twenty)
    lead = planned(session, workspace)
    drain(session_factory)
    _decide(session, lead, DecisionAction.REJECT)
    session.execute(sa.update(Delivery).where(Delivery.action == "task").values(tries=tries))
    _decide(session, lead, DecisionAction.REJECT)
    deliver.cancel(session, lead.id, reason="the suppression list holds the lead back")
    session.commit()
    drain(session_factory)
    assert (states(session)["task"], twenty.tasks[0]["status"]) == ("withdrawn", "DONE")


def test_undoing_the_approval_of_a_rejected_lead_takes_back_again(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake
) -> None:
    twenty_destination(session, workspace, twenty)
    lead = planned(session, workspace)
    drain(session_factory)
    _decide(session, lead, DecisionAction.REJECT, hold=60)
    _decide(session, lead, DecisionAction.APPROVE, hold=60)
    assert states(session)["task"] == "delivered"
    review.undo(session, workspace.id, lead.id, actor=MAI, hold_seconds=0)
    session.commit()
    drain(session_factory)
    assert (states(session)["task"], twenty.tasks[0]["status"]) == ("withdrawn", "DONE")


class _Meanwhile:
    """A fake's ``handle`` that once, before it answers, does something else."""

    def __init__(self, fake: Any, path: str, change: Any) -> None:
        self._handle, self._path, self._change, self._done = fake.handle, path, change, False
        fake.handle = self

    def __call__(self, request: Any) -> Any:
        if not self._done and request.method == "POST" and request.path.startswith(self._path):
            self._done = True
            self._change()
        return self._handle(request)


def test_a_lead_that_is_changed_while_its_task_is_on_its_way_is_told_afterwards(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake
) -> None:
    twenty_destination(session, workspace, twenty)
    lead = planned(session, workspace)

    def change() -> None:
        with session_factory() as other:
            here = other.get_one(Lead, lead.id)
            _decide(other, here, DecisionAction.OVERRIDE, intent=Intent.COMPLAINT)

    _Meanwhile(twenty, "/tasks", change)
    drain(session_factory)
    assert set(states(session).values()) == {"delivered"}
    assert {row.sent_as.split()[0] for row in rows(session).values() if row.action != "task_target"} == {"complaint"}
    assert "Xin lỗi" in twenty.tasks[0]["bodyV2"]["markdown"]  # what one does about a complaint


def test_a_lost_answer_of_a_lead_rejected_meanwhile_is_taken_back(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake
) -> None:
    twenty_destination(session, workspace, twenty)
    lead = planned(session, workspace)
    session.execute(
        sa.update(Delivery).where(Delivery.action != "person").values(due_at=sa.text("now() + interval '1 hour'"))
    )
    session.commit()
    drain(session_factory)
    task = remote_id_for(rows(session)["task"].id, "task")
    twenty.store["tasks"][task] = {
        "id": task,
        "status": "TODO",
        "deletedAt": None,
    }
    # As after a call that committed there while the lead was rejected here, and whose answer was lost.
    session.execute(sa.update(Delivery).where(Delivery.action == "task").values(ambiguous=True, tries=1))
    session.execute(sa.update(Delivery).values(due_at=sa.func.now()))
    session.execute(sa.update(Lead).values(status=LeadStatus.REJECTED))
    session.commit()
    assert drain(session_factory).more  # it is called off, and the taking back is queued
    drain(session_factory)
    assert (states(session, lead)["task"], twenty.tasks[0]["status"]) == ("withdrawn", "DONE")


def test_a_person_that_may_have_arrived_does_not_hold_up_a_later_approval(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake
) -> None:
    twenty_destination(session, workspace, twenty)
    lead = planned(session, workspace)
    session.execute(sa.update(Delivery).where(Delivery.action == "person").values(ambiguous=True, tries=1))
    _decide(session, lead, DecisionAction.REJECT)
    assert states(session)["person"] == "cancelled"
    _decide(session, lead, DecisionAction.APPROVE)
    drain(session_factory)
    assert set(states(session).values()) == {"delivered"}
    assert (len(twenty.people), len(twenty.tasks)) == (1, 1)


def test_a_dead_letter_that_may_have_arrived_is_taken_back(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake
) -> None:
    twenty_destination(session, workspace, twenty)
    lead = planned(session, workspace)
    drain(session_factory)
    dead = {"state": DeliveryState.DEAD, "ambiguous": True}
    session.execute(sa.update(Delivery).where(Delivery.action == "task").values(dead))
    _decide(session, lead, DecisionAction.REJECT)
    drain(session_factory)
    assert (states(session)["task"], twenty.tasks[0]["status"]) == ("withdrawn", "DONE")


def test_watching_does_not_forget_that_a_call_may_have_arrived(
    session: Session, workspace: Workspace, session_factory: Factory
) -> None:
    with WebhookReceiver() as receiver:
        webhook_destination(session, workspace, receiver, mode=DestinationMode.SHADOW)
        planned(session, workspace)
        session.execute(sa.update(Delivery).values(ambiguous=True, tries=1))
        session.commit()
        drain(session_factory)
    row = rows(session)["lead.approved"]
    assert (row.state, row.ambiguous) == (DeliveryState.SHADOWED, True)


def test_a_re_run_that_lowers_what_was_sent_takes_it_back(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake
) -> None:
    twenty_destination(session, workspace, twenty)
    lead = planned(session, workspace, status=LeadStatus.NEW_AUTO)
    drain(session_factory)
    session.refresh(lead)
    run.request_rerun(session, lead, requested_by="Mai")
    session.commit()
    unsure = Verdict(Intent.INQUIRY_PRICE, Priority.P2, NextAction.EMAIL, 0.4, judge="test")
    run.process(session_factory, Holder(), judge=lambda text: unsure)
    session.refresh(lead)
    assert lead.status is LeadStatus.NEW_ESCALATE
    drain(session_factory)
    assert (states(session)["task"], twenty.tasks[0]["status"]) == ("withdrawn", "DONE")


@pytest.mark.parametrize("mode", [DestinationMode.LIVE, DestinationMode.SHADOW])
def test_what_may_have_arrived_before_it_was_only_watched_is_taken_back(
    session: Session, workspace: Workspace, session_factory: Factory, mode: DestinationMode
) -> None:
    with WebhookReceiver() as receiver:
        hook = webhook_destination(session, workspace, receiver, mode=DestinationMode.SHADOW)
        lead = planned(session, workspace)
        session.execute(sa.update(Delivery).values(ambiguous=True, tries=1))
        session.commit()
        drain(session_factory)
        assert states(session)["lead.approved"] == "shadowed"
        hook.mode = mode
        session.commit()
        _decide(session, lead, DecisionAction.REJECT)
        drain(session_factory)
        told = [event["type"] for event in receiver.deliveries]
    row = rows(session)["lead.approved"]
    expected = ("withdrawn", ["lead.withdrawn"]) if mode is DestinationMode.LIVE else ("cancelled", [])
    assert (row.state.value, told) == expected
    assert row.ambiguous is (mode is DestinationMode.SHADOW)


@pytest.mark.parametrize("held", ["suppressed", "do_not_contact"])
def test_a_rejection_is_told_where_it_is_asked_for_also_of_leads_that_are_held_back(
    session: Session, workspace: Workspace, session_factory: Factory, held: str
) -> None:
    with WebhookReceiver() as receiver:
        webhook_destination(session, workspace, receiver, rules={"on": ["approved", "rejected"]})
        lead = planned(session, workspace)
        drain(session_factory)
        if held == "suppressed":
            line = suppression.Line(str(lead.email), SuppressionKind.TEST)
            suppression.add(session, workspace.id, [line], region="US", actor="Mai")
            entry = suppression.held_now(session, [lead])[lead.id]
            session.execute(sa.update(Lead).where(Lead.id == lead.id).values(suppression_id=entry.id))
        else:
            make_lead(session, workspace, "please unsubscribe me from everything", email=lead.email)
        session.commit()
        _decide(session, lead, DecisionAction.REJECT)
        drain(session_factory)
        assert [event["type"] for event in receiver.deliveries] == ["lead.approved", "lead.rejected"]

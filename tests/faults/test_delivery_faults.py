"""Deliveries whose worker is killed, whose answers are lost, or whose calls arrive late: one person, one task, one link.

A real worker sends to a stand-in of the CRM, which knows what has taken effect even when nobody was told.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from tests.faults.stack import CountingTwenty, Stack
from tests.leads.delivering import planned
from tests.waiting import until
from webapp.leads.states import DeliveryState
from webapp.models import Delivery, DeliveryAttempt

pytestmark = [pytest.mark.fault, pytest.mark.slow]

STEPS = ("POST /people", "POST /tasks", "POST /taskTargets")
#: From a worker having taken its slot, where nothing has to back off: well below the lease of what the first one held.
RECOVERY_SECONDS = 20.0


@pytest.fixture(scope="module")
def _stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


@pytest.fixture
def stack(_stack: Stack) -> Stack:
    _stack.clear()
    _stack.start("deliveries", "clock")
    return _stack


@pytest.fixture
def twenty(stack: Stack) -> CountingTwenty:
    return stack.twenty


def leads_are_approved(stack: Stack, number: int = 1, **over: Any) -> None:
    """Their deliveries are due, and the bell has rung."""
    with stack.session() as session:
        for _ in range(number):
            planned(session, stack.workspace, **over)
    stack.ring("deliveries")


def recovered(stack: Stack, record: Callable[[str, object], None]) -> None:
    """Start the worker again; all is done in time."""
    began = time.monotonic()
    stack.start("deliveries")
    up = time.monotonic()
    until(stack.deliveries_done, seconds=RECOVERY_SECONDS)
    record("start_seconds", round(up - began, 2))
    record("recovery_seconds", round(time.monotonic() - up, 2))


def assert_each_once(stack: Stack, leads: int = 1) -> None:
    """So many people, tasks and links, each link between a task and a person of its own."""
    twenty = stack.twenty
    assert (len(twenty.people), len(twenty.tasks), len(twenty.task_targets)) == (leads, leads, leads)
    assert len({target["taskId"] for target in twenty.task_targets}) == leads
    assert len({target["targetPersonId"] for target in twenty.task_targets}) == leads
    assert stack.count(Delivery.state == DeliveryState.DELIVERED, of=Delivery) == 3 * leads


def attempts(stack: Stack) -> list[str]:
    with stack.session() as session:
        return list(session.scalars(sa.select(DeliveryAttempt.outcome).order_by(DeliveryAttempt.started_at)))


@pytest.mark.parametrize("step", STEPS)
def test_worker_killed_before_the_call_took_effect(
    stack: Stack, twenty: CountingTwenty, step: str, record_property: Callable[[str, object], None]
) -> None:
    twenty.fail_next(step, kind="hang")
    leads_are_approved(stack)
    until(lambda: twenty.calls(step))
    stack.kill("deliveries")
    assert twenty.effects(step) == 0
    recovered(stack, record_property)
    assert_each_once(stack)
    assert "uncertain" in attempts(stack)  # the history tells that a worker was lost


@pytest.mark.parametrize("step", STEPS)
def test_worker_killed_after_the_call_took_effect_and_before_the_answer(
    stack: Stack, twenty: CountingTwenty, step: str, record_property: Callable[[str, object], None]
) -> None:
    twenty.fail_next(step, kind="hang_after")
    leads_are_approved(stack)
    until(lambda: twenty.effects(step))
    stack.kill("deliveries")
    recovered(stack, record_property)
    assert_each_once(stack)
    # A task is looked up rather than sent again; a person's upsert may be repeated.
    assert twenty.effects(step) == (2 if step == "POST /people" else 1)


@pytest.mark.parametrize(
    ("step", "over"),
    [
        ("POST /people", {}),
        ("POST /people", {"email": None, "phone": "+84 901 234 567"}),
        (STEPS[1], {}),
        (STEPS[2], {}),
    ],
    ids=["person", "person without e-mail", "task", "task target"],
)
def test_a_killed_workers_call_that_takes_effect_after_its_successors(
    stack: Stack,
    twenty: CountingTwenty,
    step: str,
    over: dict[str, Any],
    record_property: Callable[[str, object], None],
) -> None:
    release = twenty.hold_next(step)
    leads_are_approved(stack, **over)
    until(lambda: twenty.calls(step))
    stack.kill("deliveries")
    recovered(stack, record_property)
    assert twenty.effects(step) == 1
    release.set()
    until(lambda: twenty.effects(step) == 2)
    assert_each_once(stack)


def test_worker_killed_twice_over_the_same_delivery(
    stack: Stack, twenty: CountingTwenty, record_property: Callable[[str, object], None]
) -> None:
    twenty.fail_next("POST /tasks", kind="hang_after")
    # The second one dies while it finds out what became of the first one's call.
    twenty.fail_next("GET /tasks", kind="hang")
    leads_are_approved(stack)
    until(lambda: twenty.effects("POST /tasks"))
    stack.kill("deliveries")
    stack.start("deliveries")
    until(lambda: twenty.calls("GET /tasks"))
    stack.kill("deliveries")
    recovered(stack, record_property)
    assert_each_once(stack)
    assert twenty.effects("POST /tasks") == 1


@pytest.mark.parametrize("kind", ["reset_after", "500_after"])
def test_answers_lost_at_every_step(stack: Stack, twenty: CountingTwenty, kind: str) -> None:
    for step in STEPS:
        twenty.fail_next(step, kind=kind)
    leads_are_approved(stack)
    until(stack.deliveries_done)
    assert_each_once(stack)


def test_worker_killed_again_and_again_in_a_backlog(stack: Stack, twenty: CountingTwenty) -> None:
    leads = 40
    twenty.latency = 0.02
    try:
        leads_are_approved(stack, leads)
        for handled in (10, 45, 85):
            until(lambda handled=handled: len(twenty.handled) >= handled)
            stack.kill("deliveries")
            stack.start("deliveries")
        until(lambda: stack.count(Delivery.state == DeliveryState.DELIVERED, of=Delivery) == 3 * leads)
    finally:
        twenty.latency = 0.0
    assert_each_once(stack, leads)

"""The console as people and programs see it while a server is away or a process is killed: real web, workers and clock."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from tests.factories import make_lead
from tests.faults.stack import UNSURE, Answer, Load, Stack, Visitor
from tests.waiting import until
from webapp.leads.states import DeliveryState, LeadStatus
from webapp.models import Decision, Delivery, Lead, Run, User

pytestmark = [pytest.mark.fault, pytest.mark.slow]

Record = Callable[[str, object], None]

#: A refusal must come at once: a client that hangs is worse off than one that is sent away.
FAST_SECONDS = 3.0


@pytest.fixture(scope="module")
def _stack() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


@pytest.fixture
def stack(_stack: Stack) -> Stack:
    _stack.clear()
    _stack.start("web", "runs", "deliveries", "clock")
    return _stack


@pytest.fixture
def reviewer(stack: Stack) -> User:
    return stack.reviewer()


@pytest.fixture
def browser(stack: Stack, reviewer: User) -> Visitor:
    visitor = stack.visitor()
    assert visitor.log_in(reviewer.email).status == 302
    return visitor


def waiting_lead(stack: Stack) -> Lead:
    """One that a person has to look at, its run done, so that its version stands."""
    with stack.session() as session:
        lead = make_lead(session, stack.workspace, UNSURE)
    stack.ring("runs")
    until(lambda: stack.count(Lead.id == lead.id, Lead.settled_at.is_not(None)))
    with stack.session() as session:
        return session.get_one(Lead, lead.id)


def decide(browser: Visitor, lead: Lead, action: str, token: str | None = None) -> Answer:
    more = {"reject_reason": "spam"} if action == "reject" else {}
    token = token or browser.token(f"/queue/{lead.id}")
    return browser.submit(f"/queue/{lead.id}/{action}", version=str(lead.version), csrf_token=token, **more)


def ready(stack: Stack) -> Answer:
    return stack.visitor().ask("GET", "/readyz")


def all_delivered(stack: Stack, leads: int) -> bool:
    return stack.count(Delivery.state == DeliveryState.DELIVERED, of=Delivery) == 3 * leads


def rung_for_a_new_lead(stack: Stack) -> bool:
    """Whether the bell called the worker, which looks for itself now and then and may have been as quick."""
    assert stack.visitor().post_lead(stack.key).status == 201
    until(stack.runs_done)
    return stack.count(Run.rq_job_id.is_not(None), of=Run) > 0


# Redis


def test_redis_stopped_intake_login_and_review_go_on_and_work_catches_up(stack: Stack, record_property: Record) -> None:
    reviewer, lead, browser = stack.reviewer(), waiting_lead(stack), stack.visitor()
    stack.redis.stop()
    try:
        posted = stack.visitor().post_lead(stack.key, email="while.away@example.com")
        logged_in = browser.log_in(reviewer.email)
        approved = decide(browser, lead, "approve")
        state = ready(stack)
    finally:
        stack.redis.start()
    assert (posted.status, logged_in.status, approved.status) == (201, 302, 303)
    assert state.status == 200
    assert (state.json["status"], state.json["degraded"]) == ("degraded", ["redis"])
    answers = {"post": posted, "login": logged_in, "approve": approved, "readyz": state}
    record_property("seconds", {name: round(answer.seconds, 3) for name, answer in answers.items()})
    assert max(answer.seconds for answer in answers.values()) < FAST_SECONDS

    back = time.monotonic()
    until(lambda: stack.runs_done() and all_delivered(stack, 2))
    record_property("caught_up_seconds", round(time.monotonic() - back, 2))
    until(lambda: ready(stack).json["status"] == "ok")
    assert len(stack.twenty.tasks) == 2


def test_everything_started_while_redis_is_away_works_and_hears_the_bell_later(stack: Stack) -> None:
    stack.kill("web", "runs", "deliveries", "clock")
    stack.redis.stop()
    try:
        stack.start("web", "runs", "deliveries", "clock")
        assert stack.visitor().post_lead(stack.key, email="early@example.com").status == 201
        assert stack.visitor().log_in(stack.reviewer().email).status == 302
        until(lambda: all_delivered(stack, 1))
    finally:
        stack.redis.start()
    until(lambda: rung_for_a_new_lead(stack), seconds=60)


# PostgreSQL


@pytest.mark.parametrize("end", ["stop", "kill"], ids=["restarted", "crashed"])
def test_postgres_restarted_under_load(stack: Stack, browser: Visitor, end: str, record_property: Record) -> None:
    """Whatever was accepted is there, once; what was not was refused at once, by an answer and not by silence."""
    with Load(stack) as load:
        until(load.more_accepted(500), seconds=30)
        getattr(stack.postgres, end)()
        try:
            down = time.monotonic()
            state, page = ready(stack), browser.ask("GET", "/queue")
            until(lambda: len(load.refused) >= 4_000 or load.broken, seconds=30)
        finally:
            stack.postgres.start()
        up = time.monotonic()
        until(load.more_accepted(1), seconds=30)
        record_property("first_accepted_after", round(time.monotonic() - up, 2))
        until(load.more_accepted(500), seconds=30)
    assert load.broken == []
    assert (state.status, state.json["status"], state.headers["retry-after"]) == (503, "unavailable", "1")
    assert page.status == 503
    assert "<html" in page.text
    assert {answer.json["error"]["code"] for answer in load.refused} == {"unavailable"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in load.refused)
    slowest = max(answer.seconds for answer in [*load.refused, state, page])
    record_property("down_seconds", round(up - down, 2))
    record_property("refused", len(load.refused))
    record_property("slowest_refusal", round(slowest, 3))
    assert slowest < FAST_SECONDS

    with stack.session() as session:
        stored = session.execute(sa.select(Lead.email, Lead.id)).all()
    assert len(stored) == len({row.email for row in stored}) >= len(load.accepted)
    assert load.accepted.items() <= {row.email: str(row.id) for row in stored}.items()
    record_property("accepted", len(load.accepted))

    until(stack.runs_done, seconds=90)
    record_property("runs_done_after", round(time.monotonic() - up, 2))
    assert ready(stack).status == 200
    assert stack.visitor().post_lead(stack.key, email="afterwards@example.com").status == 201
    until(lambda: all_delivered(stack, 1))
    assert all(stack.alive(part) for part in ("web", "runs", "deliveries", "clock"))
    browser.close()  # the server may have closed the idle connection; the cookie is the same as before
    assert browser.ask("GET", "/queue").status == 200


# Processes


def test_without_a_clock_work_goes_on(stack: Stack) -> None:
    stack.kill("clock")
    until(lambda: rung_for_a_new_lead(stack))
    until(stack.deliveries_done)
    # A restarted worker finds what came while it was away, without being told.
    stack.kill("runs", "deliveries")
    stack.visitor().post_lead(stack.key, email="meanwhile@example.com")
    stack.redis.flushall()
    stack.start("runs", "deliveries")
    until(stack.runs_done)
    until(stack.deliveries_done)


def test_web_killed_under_load_loses_nothing_that_it_accepted(stack: Stack, record_property: Record) -> None:
    with Load(stack) as load:
        until(load.more_accepted(300), seconds=30)
        stack.kill("web")
        until(lambda: len(load.broken) >= 8)
    began = time.monotonic()
    stack.start("web")
    record_property("web_start_seconds", round(time.monotonic() - began, 2))
    with stack.session() as session:
        stored = {row.email: str(row.id) for row in session.execute(sa.select(Lead.email, Lead.id))}
    assert load.accepted.items() <= stored.items()
    until(stack.runs_done, seconds=90)


# Two people at once


@pytest.mark.parametrize("actions", [("approve", "reject"), ("approve", "approve")], ids="-".join)
def test_two_browsers_decide_the_same_version_at_once(stack: Stack, actions: tuple[str, str]) -> None:
    people = [stack.reviewer(), stack.reviewer()]
    browsers = [stack.visitor(), stack.visitor()]
    for person, browser in zip(people, browsers, strict=True):
        assert browser.log_in(person.email).status == 302
    leads = [waiting_lead(stack) for _ in range(8)]
    tokens = [browser.token(f"/queue/{leads[0].id}") for browser in browsers]
    start = threading.Barrier(2)

    def press(side: int, lead: Lead) -> Answer:
        start.wait(10)
        return decide(browsers[side], lead, actions[side], tokens[side])

    winners: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        for lead in leads:
            answers = [one.result() for one in [pool.submit(press, side, lead) for side in (0, 1)]]
            assert sorted(answer.status for answer in answers) == [303, 409]
            won = 0 if answers[0].status == 303 else 1
            assert people[won].name in answers[1 - won].text  # the other is told who was first
            winners.append(won)

    for lead, won in zip(leads, winners, strict=True):
        assert_decided_once(stack, lead, people[won].id, actions[won])
    approved = sum(actions[won] == "approve" for won in winners)
    until(lambda: all_delivered(stack, approved))
    assert len(stack.twenty.tasks) == len(stack.twenty.people) == approved


def assert_decided_once(stack: Stack, lead: Lead, user_id: Any, action: str) -> None:
    with stack.session() as session:
        decision = session.scalars(sa.select(Decision).where(Decision.lead_id == lead.id)).one()
        stored = session.get_one(Lead, lead.id)
    assert (decision.user_id, decision.action.value) == (user_id, action)
    assert stored.version == lead.version + 1
    approves = action == "approve"
    assert stored.status is (LeadStatus.APPROVED if approves else LeadStatus.REJECTED)
    planned = stack.count(Delivery.lead_id == lead.id, Delivery.state != DeliveryState.CANCELLED, of=Delivery)
    assert planned == (3 if approves else 0)


def test_one_person_who_clicks_twice_decides_once(stack: Stack, browser: Visitor, reviewer: User) -> None:
    lead = waiting_lead(stack)
    token = browser.token(f"/queue/{lead.id}")
    second = stack.visitor(same_as=browser)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda one: decide(one, lead, "approve", token), (browser, second)))
    assert [answer.status for answer in answers] == [303, 303]
    assert_decided_once(stack, lead, reviewer.id, "approve")
    until(lambda: all_delivered(stack, 1))
    assert len(stack.twenty.tasks) == 1

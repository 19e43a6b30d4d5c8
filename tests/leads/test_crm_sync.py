"""``/sync-crm`` and ``/tasks/auto-assign`` with a worker at work: once each, whatever the CRM does and however many
ask at once."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from jobs import schedule
from tests.factories import make_key, make_lead, make_user, make_workspace
from tests.fakes.twenty import TwentyFake
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.leads.delivering import (
    EAGER,
    all_states,
    clients,
    count,
    decided_lead,
    drain,
    events,
    new_holder,
    planned,
    rows,
    states,
    twenty_destination,
    webhook_destination,
)
from tests.leads.writing import MESSAGE, model, switch_on
from tests.waiting import until
from webapp.api.waiting import MOST_OPTIONAL
from webapp.config import MOST_WAITING
from webapp.leads import claims, crm_people, crm_rounds, crm_sync, crm_tasks, deliver, review
from webapp.leads.claims import Holder
from webapp.leads.crm_sync import Started
from webapp.leads.deliver import DeliveryPolicy
from webapp.leads.states import (
    DecisionAction,
    DeliveryState,
    DestinationMode,
    Intent,
    LeadStatus,
    Priority,
    Scope,
    TaskRequestState,
)
from webapp.models import Delivery, Destination, Lead, SyncRequest, TaskRequest, TaskText, Workspace

Factory = sessionmaker[Session]
DONE = {"person": "delivered", "task": "delivered", "task_target": "delivered"}
NO_EMAIL = "Email is required for CRM sync"


@pytest.fixture
def twenty() -> Iterator[TwentyFake]:
    with TwentyFake() as fake:
        yield fake


@pytest.fixture
def crm(session: Session, workspace: Workspace, twenty: TwentyFake) -> Destination:
    return twenty_destination(session, workspace, twenty)


@pytest.fixture
def patience(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """How long the doors wait, in seconds."""

    def wait(seconds: float) -> None:
        settings = app.extensions["settings"].model_copy(update={"sync_wait_seconds": seconds})
        monkeypatch.setitem(app.extensions, "settings", settings)

    return wait


def tasks_turn(
    session_factory: Factory, holder: Holder | None = None, *, policy: DeliveryPolicy = EAGER, **over: Any
) -> int:
    return crm_tasks.process(session_factory, holder or Holder(), clients(), policy=policy, **over).done


@contextmanager
def a_worker(session_factory: Factory, *, policy: DeliveryPolicy = EAGER) -> Iterator[None]:
    """Drains as ``jobs.tasks.drain_deliveries`` does, until the test is over."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            drain(session_factory, policy=policy, max_seconds=1)
            tasks_turn(session_factory, policy=policy, max_seconds=1, stop=over.is_set)
            over.wait(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def worker(session_factory: Factory) -> Iterator[None]:
    with a_worker(session_factory):
        yield


Call = Callable[..., Any]


@pytest.fixture
def call(client: FlaskClient, headers: dict[str, str]) -> Call:
    """``call(path)`` posts, ``call(path, get=True)`` asks; the body, once the status is the one expected. Where a slow
    machine makes a 202 of it, the final answer."""

    def do(path: str, status: int = 200, *, get: bool = False) -> Any:
        answer = client.open(path, method="GET" if get else "POST", headers=headers)
        if answer.status_code == 202 and status != 202 and not get:
            url = answer.headers["Location"]
            answer = until(lambda: (later := client.get(url, headers=headers)).status_code != 202 and later)
        assert answer.status_code == status, answer.text
        return answer.json

    return do


def at_once(app: Flask, headers: dict[str, str], path: str, times: int = 20) -> list[Any]:
    barrier = threading.Barrier(times)

    def one(_: int) -> Any:
        barrier.wait()
        return app.test_client().post(path, headers=headers)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))


def final(client: FlaskClient, headers: dict[str, str], answer: Any) -> Any:
    """The answer itself, or what the address that it names says in the end."""
    if answer.status_code == 200:
        return answer.json
    assert answer.status_code == 202, answer.text
    url = answer.headers["Location"]
    assert answer.json["status_url"] == url and url.endswith(answer.json["id"])
    return until(lambda: (later := client.get(url, headers=headers)).status_code == 200 and later.json)


# /sync-crm


@pytest.mark.usefixtures("worker", "crm")
def test_what_is_due_is_pushed_and_told(call: Call, session: Session, workspace: Workspace, twenty: TwentyFake) -> None:
    first = decided_lead(session, workspace, external_id="biz-1")
    second = make_lead(session, workspace, status=LeadStatus.NEW_AUTO, settled_at=sa.func.now(), intent=Intent.INQUIRY)
    nobody = decided_lead(session, workspace, external_id="biz-3", email=None, phone="+14155552671")
    for kept_back in (
        {"status": LeadStatus.NEW_DRAFT},
        {"status": LeadStatus.NEW_ESCALATE},
        {"status": LeadStatus.REJECTED},
        {"status": LeadStatus.NEW_AUTO},  # its first run has not settled
        {"status": LeadStatus.APPROVED, "intent": Intent.SPAM},
    ):
        make_lead(session, workspace, **({"intent": Intent.INQUIRY} | kept_back))
    silent = decided_lead(session, workspace, email="silent@example.com")
    make_lead(session, workspace, "please unsubscribe me from everything", email=silent.email)
    answer = call("/sync-crm")
    people = {person["emails"]["primaryEmail"]: person["id"] for person in twenty.people}
    assert answer == {
        "total": 3,
        "synced_count": 2,
        "failed_count": 1,
        "synced": [
            {"lead_id": "biz-1", "crm_person_id": people[first.email]},
            {"lead_id": str(second.id), "crm_person_id": people[second.email]},
        ],
        "failed": [{"lead_id": "biz-3", "error": NO_EMAIL}],
    }
    assert len(people) == 2
    assert call(f"/leads/{first.id}", get=True)["crm_synced"] is True
    until(lambda: states(session, first) == DONE)  # the follow-up task comes along
    assert states(session, nobody) == {}
    assert call("/sync-crm") == {
        "total": 1, "synced_count": 0, "failed_count": 1, "synced": [],
        "failed": [{"lead_id": "biz-3", "error": NO_EMAIL}],
    }  # fmt: skip
    assert count(session, SyncRequest) == 0


@pytest.mark.usefixtures("worker", "crm")
def test_a_person_whose_email_another_lead_told_is_pushed(call: Call, session: Session, workspace: Workspace) -> None:
    known = decided_lead(session, workspace, email="ada@example.com", phone="+14155552671")
    later = decided_lead(session, workspace, message="again", email=None, phone="+14155552671")
    session.execute(sa.update(Lead).where(Lead.id == later.id).values(person_id=known.person_id))
    session.commit()
    assert call("/sync-crm")["synced_count"] == 2


def test_without_a_crm_it_says_so(call: Call, session: Session, workspace: Workspace, twenty: TwentyFake) -> None:
    decided_lead(session, workspace)
    for path in ("/sync-crm", "/tasks/auto-assign"):
        error = call(path, 409)["error"]
        assert error["code"] == "version_conflict" and "No CRM is set up" in error["message"]
    twenty_destination(session, workspace, twenty, mode=DestinationMode.OFF)
    call("/sync-crm", 409)
    assert count(session, Delivery) == count(session, TaskRequest) == 0


@pytest.mark.usefixtures("worker", "crm")
def test_what_can_still_be_undone_is_not_due(
    call: Call, session: Session, workspace: Workspace, twenty: TwentyFake, session_factory: Factory
) -> None:
    lead = make_lead(session, workspace, status=LeadStatus.NEW_DRAFT, settled_at=sa.func.now(), intent=Intent.INQUIRY)
    actor = review.Actor("Mai")
    decide = {"action": DecisionAction.APPROVE, "actor": actor, "undo_seconds": 300}
    review.decide(session, workspace.id, lead.id, version=lead.version, **decide)
    session.commit()
    assert call("/sync-crm")["total"] == 0
    review.undo(session, workspace.id, lead.id, actor=actor, hold_seconds=300)
    session.commit()
    assert states(session, lead)["person"] == "cancelled" and twenty.requests == []
    # A second decision within the window of the first, and then the window is over.
    again = review.decide(session, workspace.id, lead.id, version=lead.version, **decide)
    session.commit()
    assert call("/sync-crm")["total"] == 0
    past = datetime.now(UTC) - timedelta(seconds=1)
    again.undo_until = past
    session.execute(
        sa.text("UPDATE decisions SET undone_at = undone_at - interval '1 hour' WHERE undone_at IS NOT NULL")
    )
    session.execute(sa.update(Delivery).values(due_at=past))
    session.commit()
    until(lambda: states(session, lead) == DONE)  # or by itself
    assert call("/sync-crm")["total"] == 0 and len(twenty.people) == 1


@pytest.mark.usefixtures("crm")
def test_what_goes_out_by_itself_is_held_for_its_window_too(call: Call, session: Session, workspace: Workspace) -> None:
    lead = decided_lead(session, workspace, status=LeadStatus.NEW_AUTO)
    deliver.plan(session, lead, due_in_seconds=300)
    session.commit()
    assert call("/sync-crm")["total"] == 0
    assert rows(session, lead)["person"].due_at > datetime.now(UTC) + timedelta(seconds=200)


@pytest.mark.usefixtures("crm")
def test_nobody_at_work_is_a_202_and_the_rest_can_be_asked_for(
    call: Call, client: FlaskClient, headers: dict[str, str], patience: Callable[[float], None], session: Session,
    workspace: Workspace, session_factory: Factory, twenty: TwentyFake,
) -> None:  # fmt: skip
    patience(0.2)
    decided_lead(session, workspace, external_id="biz-1")
    decided_lead(session, workspace, external_id="biz-2", email=None)
    answer = client.post("/sync-crm", headers=headers)
    assert answer.status_code == 202
    running = answer.json
    assert (running["state"], running["total"], running["waiting_count"]) == ("running", 2, 1)
    assert (running["synced_count"], running["failed_count"]) == (0, 1)
    assert answer.headers["Location"] == running["status_url"] == f"/sync-crm/{running['id']}"
    assert call(running["status_url"], 202, get=True) == running
    drain(session_factory)
    (person,) = twenty.people
    assert call(running["status_url"], get=True) == {
        "total": 2, "synced_count": 1, "failed_count": 1,
        "synced": [{"lead_id": "biz-1", "crm_person_id": person["id"]}],
        "failed": [{"lead_id": "biz-2", "error": NO_EMAIL}],
    }  # fmt: skip
    call(f"/sync-crm/{uuid.uuid4()}", 404, get=True)
    stranger = {"X-API-Key": make_key(session, make_workspace(session))}
    assert client.get(running["status_url"], headers=stranger).status_code == 404


def test_more_leads_than_a_statement_has_parameters(
    call: Call, session: Session, workspace: Workspace, crm: Destination
) -> None:
    there, late = planned(session, workspace, external_id="biz-1"), planned(session, workspace, message="another")
    session.execute(sa.update(Delivery).where(Delivery.lead_id == there.id).values(state=DeliveryState.DELIVERED))
    session.execute(sa.update(Delivery).where(Delivery.lead_id == late.id).values(state=DeliveryState.DEAD))
    ids = [uuid.uuid4() for _ in range(70_000)] + [there.id, late.id]  # the leads of an import that was undone
    crm_sync._hurry(session, ids, [crm.id], actor="Mai")
    started = Started(tuple(ids), ())
    request = crm_sync.keep(session, workspace.id, started, requested_by="Mai")
    session.commit()
    assert states(session, late)["person"] == "pending"
    assert crm_sync.waiting(session, workspace.id, started) == 1
    answer = call(f"/sync-crm/{request.id}", 202, get=True)
    assert (answer["waiting_count"], answer["synced_count"]) == (1, 1)


def test_who_waits_is_counted_as_it_is_told(
    session: Session, workspace: Workspace, twenty: TwentyFake, crm: Destination
) -> None:
    """Every state of a lead at two CRMs, one of them on or off."""
    other = twenty_destination(session, workspace, twenty, name="Other")
    kinds = [(here, there) for here in DeliveryState for there in DeliveryState]
    leads = [planned(session, workspace, message=f"message {n}") for n in range(len(kinds))]
    for lead, kind in zip(leads, kinds, strict=True):
        for destination, state in zip((crm, other), kind, strict=True):
            mine = (Delivery.lead_id == lead.id, Delivery.destination_id == destination.id)
            session.execute(sa.update(Delivery).where(*mine, Delivery.action == "person").values(state=state))
    session.commit()
    both = Started(tuple(lead.id for lead in leads), ())
    for mode in (DestinationMode.LIVE, DestinationMode.OFF):
        other.mode = mode
        session.commit()
        told = crm_sync.standing(session, workspace.id, both)
        assert crm_sync.waiting(session, workspace.id, both) == told.waiting > 0
        assert crm_sync.finished(session, workspace.id, both) is None
        for lead in leads:
            one = Started((lead.id,), ())
            told = crm_sync.standing(session, workspace.id, one)
            assert crm_sync.waiting(session, workspace.id, one) == told.waiting
            assert crm_sync.finished(session, workspace.id, one) == (None if told.waiting else told)


@pytest.mark.parametrize("kind", ["500", "500_after", "reset_before", "reset_after", "429", "garbage"])
def test_a_crm_in_trouble_gets_each_person_once(
    client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace, session_factory: Factory,
    twenty: TwentyFake, crm: Destination, kind: str,
) -> None:  # fmt: skip
    for n in range(4):
        decided_lead(session, workspace, message=f"message {n}")
    twenty.fail_next("POST /people", kind=kind, times=3)
    with a_worker(session_factory):
        found = final(client, headers, client.post("/sync-crm", headers=headers))
        until(lambda: len(twenty.task_targets) == 4)
    assert (found["total"], found["synced_count"]) == (4, 4)
    assert len(twenty.people) == len(twenty.tasks) == 4


def test_a_crm_that_hangs_is_a_202(
    client: FlaskClient, headers: dict[str, str], patience: Callable[[float], None], session: Session,
    workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination,
) -> None:  # fmt: skip
    patience(0.3)
    decided_lead(session, workspace)
    twenty.fail_next("POST /people", kind="slow", seconds=1.5)
    with a_worker(session_factory):
        answer = client.post("/sync-crm", headers=headers)
        assert (answer.status_code, answer.json["waiting_count"]) == (202, 1)
        assert final(client, headers, answer)["synced_count"] == 1
    assert len(twenty.people) == 1


def test_what_the_crm_refuses_is_told_and_tried_again_by_the_next_call(
    call: Call, session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    lead = decided_lead(session, workspace, external_id="biz-1")
    twenty.fail_next("POST /people", kind="400", times=2)
    with a_worker(session_factory):
        for _ in range(2):
            answer = call("/sync-crm")
            assert answer["failed"] == [{"lead_id": "biz-1", "error": "answered 400"}]
        assert call("/sync-crm")["synced_count"] == 1
        until(lambda: states(session, lead) == DONE)
    assert len(twenty.people) == 1
    assert {event.actor for event in events(session, lead.id, "DELIVERY_REPLAYED")} == {"test key (API)"}
    # Before the first call there was nothing to ask for again, afterwards each of the two.
    assert len([e for e in events(session, lead.id, "DELIVERY_REPLAYED") if e.details["action"] == "person"]) == 2


def test_a_wait_for_the_next_try_is_cut_short(
    call: Call, session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    planned(session, workspace)
    twenty.fail_next("POST /people", kind="503")
    drain(session_factory, policy=replace(EAGER, retry_delay=3_000, max_delay=3_600))
    session.execute(
        sa.update(Delivery).values(due_at=sa.func.now() + sa.text("interval '1 hour'")).where(Delivery.tries > 0)
    )
    session.commit()
    with a_worker(session_factory):
        assert call("/sync-crm")["synced_count"] == 1


def test_only_the_crm_hears_of_it(
    call: Call, session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    with WebhookReceiver() as receiver, a_worker(session_factory):
        webhook_destination(session, workspace, receiver)
        decided_lead(session, workspace)
        assert call("/sync-crm")["synced_count"] == 1
        assert receiver.requests == []


def test_a_crm_for_qualified_leads_gets_those_alone(
    call: Call, session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake
) -> None:
    twenty_destination(session, workspace, twenty, rules={"qualified_only": True})
    decided_lead(session, workspace, external_id="yes", qualified=True)
    decided_lead(session, workspace, message="another", external_id="no", qualified=False)
    with a_worker(session_factory):
        assert [one["lead_id"] for one in call("/sync-crm")["synced"]] == ["yes"]


@pytest.mark.usefixtures("crm", "worker")
def test_twenty_calls_at_once_push_each_lead_once(
    app: Flask, client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace, twenty: TwentyFake
) -> None:
    for n in range(5):
        decided_lead(session, workspace, message=f"message {n}", external_id=f"biz-{n}")
    answers = at_once(app, headers, "/sync-crm")
    assert {answer.status_code for answer in answers} <= {200, 202}
    told = set()
    for answer in answers:
        found = final(client, headers, answer)
        assert found["failed_count"] == 0 and found["synced_count"] == found["total"] <= 5
        told |= {one["lead_id"] for one in found["synced"]}
    assert told == {f"biz-{n}" for n in range(5)}
    until(lambda: len(twenty.task_targets) == 5)
    assert len(twenty.people) == len(twenty.tasks) == 5
    assert count(session, Delivery) == 15


def test_a_call_that_waited_for_another_knows_what_that_one_has_queued(
    session: Session, workspace: Workspace, session_factory: Factory, crm: Destination
) -> None:
    lead = decided_lead(session, workspace)
    with session_factory() as earlier, session_factory() as later:
        earlier.execute(sa.select(sa.func.now()))  # begins, and then waits for its turn
        done = [crm_sync.start(later, workspace.id, undo_seconds=10, actor="Ana")]
        later.commit()
        done.append(crm_sync.start(earlier, workspace.id, undo_seconds=10, actor="Ana"))
        earlier.commit()
    assert [one.lead_ids for one in done] == [(lead.id,), (lead.id,)]


def test_few_wait_at_a_time_and_the_others_are_told_where_to_ask(
    app: Flask, client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace,
    session_factory: Factory, twenty: TwentyFake, crm: Destination,
) -> None:  # fmt: skip
    """Who waited here would get a 200: the CRM takes half a second, and they would wait for ten."""
    decided_lead(session, workspace)
    twenty.fail_next("POST /people", kind="slow", seconds=0.5)
    with a_worker(session_factory), ExitStack() as taken:
        for _ in range(MOST_WAITING):
            taken.enter_context(app.extensions["turns"].place())
        answer = client.post("/sync-crm", headers=headers)
        assert answer.status_code == 202
        taken.pop_all().close()
        assert client.post("/sync-crm", headers=headers).status_code == 200
        assert final(client, headers, answer)["synced_count"] == 1


def test_they_leave_places_to_those_who_have_no_other_answer(
    app: Flask, client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace,
    session_factory: Factory, crm: Destination,
) -> None:  # fmt: skip
    """No worker is there: each call waits, and those beyond the places for such calls answer at once."""
    decided_lead(session, workspace)
    turns = app.extensions["turns"]
    with ThreadPoolExecutor(MOST_WAITING) as pool:
        calls = [pool.submit(lambda: app.test_client().post("/sync-crm", headers=headers)) for _ in range(MOST_WAITING)]
        until(lambda: sum(call.done() for call in calls) == MOST_WAITING - MOST_OPTIONAL)
        assert turns.places == MOST_WAITING - MOST_OPTIONAL
        turns.require_place()
        assert client.post("/tasks/auto-assign", headers=headers).status_code == 202
        with a_worker(session_factory):
            assert all(call.result().status_code in (200, 202) for call in calls)


def test_many_leads_are_one_statement_each(call: Call, session: Session, workspace: Workspace, crm: Destination,
                                           patience: Callable[[float], None]) -> None:  # fmt: skip
    patience(0)
    for n in range(120):
        decided_lead(session, workspace, message=f"message {n}")
    statements = []
    engine = session.get_bind()
    sa.event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert call("/sync-crm", 202)["waiting_count"] == 120
    assert len(statements) < 30
    assert count(session, Delivery) == 360


# /tasks/auto-assign


def done_with(twenty: TwentyFake) -> None:
    """Everybody in the CRM has done their tasks."""
    for task in twenty.tasks:
        task["status"] = "DONE"


@pytest.fixture
def synced(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> list[Lead]:
    """Six people in the CRM, whose first tasks are done."""
    leads = [
        planned(session, workspace, message=f"message {n}", name=f"Name {n}", priority=Priority.P1) for n in range(6)
    ]
    drain(session_factory)
    until(lambda: all_states(session) == {"delivered"})  # a worker of the test may have taken some of them
    done_with(twenty)
    return leads


def follow_ups(twenty: TwentyFake) -> dict[str, int]:
    """Person → open tasks."""
    waiting = {task["id"] for task in twenty.tasks if task["status"] != "DONE"}
    return dict(Counter(link["targetPersonId"] for link in twenty.task_targets if link["taskId"] in waiting))


@pytest.mark.usefixtures("worker")
def test_everybody_without_an_open_task_gets_one(
    call: Call, session: Session, twenty: TwentyFake, synced: list[Lead]
) -> None:
    busy, free = (
        twenty.add_member("busy@example.com", "Bo", "Busy"),
        twenty.add_member("free@example.com", "Fay", "Free"),
    )
    for n in range(4):  # work of other kinds counts as well
        twenty.store["tasks"][f"x{n}"] = {"id": f"x{n}", "createdAt": "2026", "position": n, "deletedAt": None,
                                          "assigneeId": busy, "status": "TODO", "title": "Write a letter"}  # fmt: skip
    has_one = synced[0]
    twenty.store["tasks"][str(rows(session, has_one)["task"].remote_id)]["status"] = "TODO"
    answer = call("/tasks/auto-assign")
    assert (answer["tasks_created"], answer["tasks_failed"]) == (5, 0)
    assert {one["customer"] for one in answer["details"]} == {lead.name for lead in synced[1:]}
    # Four for the one with the fewest, then they are even: who gets the fifth is drawn.
    assigned = Counter(one["assigned_to"] for one in answer["details"])
    assert sum(assigned.values()) == 5 and assigned["Fay Free"] >= 4
    made = {one["task_id"]: one for one in answer["details"]}
    for task in twenty.tasks:
        if task["id"] in made:
            assert task["title"] == f"📞 Sales Follow-up — {made[task['id']]['customer']}"
            assert task["status"] == "TODO" and task["assigneeId"] in (busy, free)
            hours = datetime.fromisoformat(task["dueAt"]) - datetime.now(UTC)
            assert timedelta(hours=7.9) < hours < timedelta(hours=8)  # P1
            assert "message" in task["bodyV2"]["markdown"]
    assert set(follow_ups(twenty).values()) == {1} and len(follow_ups(twenty)) == 6
    (event, *_) = events(session, synced[1].id, "FOLLOW_UP_CREATED")
    assert event.details["destination"] == "Twenty" and event.actor == "test key (API)"
    assert call("/tasks/auto-assign") == {"tasks_created": 0, "tasks_failed": 0, "details": []}
    # Once that is done too, there is another.
    done_with(twenty)
    assert call("/tasks/auto-assign")["tasks_created"] == 6
    assert len({task["id"] for task in twenty.tasks}) == len(twenty.tasks)


@pytest.mark.usefixtures("worker", "synced")
def test_twenty_calls_at_once_make_one_task_each(
    app: Flask, client: FlaskClient, headers: dict[str, str], twenty: TwentyFake
) -> None:
    twenty.add_member("rep@example.com")
    answers = at_once(app, headers, "/tasks/auto-assign")
    assert {answer.status_code for answer in answers} <= {200, 202}
    for answer in answers:
        assert final(client, headers, answer)["tasks_failed"] == 0
    assert list(follow_ups(twenty).values()) == [1] * 6


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("change", ["rejected", "unsubscribed", "on its way", "gone"])
def test_who_is_left_out(
    call: Call, session: Session, workspace: Workspace, twenty: TwentyFake, synced: list[Lead], change: str
) -> None:
    lead = synced[0]
    task = rows(session, lead)["task"]
    if change == "rejected":
        session.execute(sa.update(Lead).where(Lead.id == lead.id).values(status=LeadStatus.REJECTED))
    elif change == "unsubscribed":
        make_lead(session, workspace, "please unsubscribe me from everything", email=lead.email)
    elif change == "on its way":
        later = {
            "state": DeliveryState.PENDING,
            "due_at": sa.func.now() + sa.text("interval '1 hour'"),
            "remote_id": None,
        }
        session.execute(sa.update(Delivery).where(Delivery.id == task.id).values(**later))
    else:
        del twenty.store["people"][str(rows(session, lead)["person"].remote_id)]
    session.commit()
    answer = call("/tasks/auto-assign")
    assert answer["tasks_created"] == 5 and lead.name not in {
        one["customer"] for one in answer["details"] if "task_id" in one
    }
    failed = [one for one in answer["details"] if "error" in one]
    assert failed == ([{"customer": lead.name, "error": "is no longer in the CRM"}] if change == "gone" else [])


@pytest.mark.usefixtures("worker")
def test_a_task_that_was_given_up_is_made_once(
    call: Call, session: Session, session_factory: Factory, twenty: TwentyFake, synced: list[Lead]
) -> None:
    """Its own delivery is dead; the call makes the task, and asking for the delivery again makes no second one."""
    stored = rows(session, synced[0])
    for name, plural in (("task", "tasks"), ("task_target", "taskTargets")):
        del twenty.store[plural][str(stored[name].remote_id)]
        dead = {"state": DeliveryState.DEAD, "remote_id": None}
        session.execute(sa.update(Delivery).where(Delivery.id == stored[name].id).values(**dead))
    session.commit()
    assert call("/tasks/auto-assign")["tasks_created"] == 6
    for name in ("task", "task_target"):
        deliver.replay(session, rows(session, synced[0])[name], actor="Mai")
        session.commit()
    until(lambda: states(session, synced[0]) == DONE)
    assert list(follow_ups(twenty).values()) == [1] * 6


@pytest.mark.usefixtures("worker", "synced")
@pytest.mark.parametrize("kind", ["500_after", "reset_after", "429"])
@pytest.mark.parametrize("where", ["POST /tasks", "POST /taskTargets"])
def test_a_crm_in_trouble_gets_each_task_once(
    client: FlaskClient, headers: dict[str, str], twenty: TwentyFake, kind: str, where: str
) -> None:
    """What took effect although nobody was told is found."""
    twenty.fail_next(where, kind=kind, times=2)
    found = final(client, headers, client.post("/tasks/auto-assign", headers=headers))
    assert (found["tasks_created"], found["tasks_failed"]) == (6, 0)
    assert list(follow_ups(twenty).values()) == [1] * 6


@pytest.mark.usefixtures("worker", "synced")
@pytest.mark.parametrize("kind", ["500", "reset_before", "400", "garbage"])
@pytest.mark.parametrize("where", ["POST /tasks", "POST /taskTargets"])
def test_what_fails_is_told_and_made_by_the_next_call(call: Call, twenty: TwentyFake, kind: str, where: str) -> None:
    twenty.fail_next(where, kind=kind, times=2)
    answer = call("/tasks/auto-assign")
    failed = [one for one in answer["details"] if "error" in one]
    if kind == "garbage":  # 200 all the same: the record is looked for where it counts, and made by the next call
        assert answer["tasks_created"] + answer["tasks_failed"] == 6
    else:
        assert (answer["tasks_created"], answer["tasks_failed"]) == (4, 2)
        assert all(set(one) == {"customer", "error"} and one["error"] for one in failed)
    answer = call("/tasks/auto-assign")
    assert answer["tasks_failed"] == 0
    assert list(follow_ups(twenty).values()) == [1] * 6
    assert len(twenty.tasks) == 12


@pytest.mark.usefixtures("worker", "synced")
@pytest.mark.parametrize("where", ["GET /workspaceMembers", "GET /tasks", "GET /taskTargets", "GET /people"])
def test_a_hiccup_while_reading_is_no_matter(call: Call, twenty: TwentyFake, where: str) -> None:
    for kind in ("500", "reset_before", "garbage"):
        twenty.fail_next(where, kind=kind)
    assert call("/tasks/auto-assign")["tasks_created"] == 6


@pytest.mark.usefixtures("worker", "synced")
@pytest.mark.parametrize(("kind", "times"), [("401", 1), ("500", 99)])
def test_a_crm_that_cannot_be_read_is_a_502(call: Call, twenty: TwentyFake, kind: str, times: int) -> None:
    twenty.fail_next("GET /tasks", kind=kind, times=times)
    error = call("/tasks/auto-assign", 502)["error"]
    assert error["code"] == "upstream_failed" and f"answered {kind}" in error["message"]
    twenty.faults.clear()
    assert call("/tasks/auto-assign")["tasks_created"] == 6


@pytest.mark.usefixtures("worker", "synced")
def test_a_crm_that_falls_silent_is_not_asked_for_everybody(call: Call, twenty: TwentyFake) -> None:
    twenty.fail_next("POST /tasks", kind="500", times=99)
    assert "answered 500" in call("/tasks/auto-assign", 502)["error"]["message"]
    assert len(twenty.calls("POST /tasks")) == 6 + 3


@pytest.mark.usefixtures("worker", "synced")
def test_members_that_may_not_be_read_leave_it_unassigned(call: Call, twenty: TwentyFake) -> None:
    twenty.members_readable = False
    answer = call("/tasks/auto-assign")
    assert {one["assigned_to"] for one in answer["details"]} == {None}
    assert {task["assigneeId"] for task in twenty.tasks} == {None}


@pytest.mark.usefixtures("synced")
def test_beyond_the_limit_it_is_a_202_and_others_join(
    call: Call, client: FlaskClient, headers: dict[str, str], patience: Callable[[float], None], session: Session,
    session_factory: Factory, twenty: TwentyFake,
) -> None:  # fmt: skip
    patience(0.1)
    running = call("/tasks/auto-assign", 202)
    assert (running["state"], running["tasks_created"], running["details"]) == ("queued", 0, [])
    assert call("/tasks/auto-assign", 202)["id"] == running["id"]
    assert call(running["status_url"], 202, get=True) == running
    assert crm_rounds.has_due(session)
    assert tasks_turn(session_factory) == 1
    assert call(running["status_url"], get=True)["tasks_created"] == 6
    assert not crm_rounds.has_due(session)
    call(f"/tasks/auto-assign/{uuid.uuid4()}", 404, get=True)
    stranger = {"X-API-Key": make_key(session, make_workspace(session))}
    assert client.get(running["status_url"], headers=stranger).status_code == 404


@pytest.mark.usefixtures("synced")
def test_a_round_goes_on_where_it_was_cut_short(
    call: Call, patience: Callable[[float], None], session: Session, session_factory: Factory, twenty: TwentyFake
) -> None:
    """In turns of no time at all, each by another worker; and one that is killed in the middle of a task."""
    patience(0)
    url = call("/tasks/auto-assign", 202)["status_url"]
    for _ in range(6):  # members, loads, the plan and three tasks
        assert tasks_turn(session_factory, max_seconds=0.001) == 1
    assert len(follow_ups(twenty)) == 3
    dying = new_holder(session, "w1")
    made_one = threading.Event()

    class Killed(BaseException):
        pass

    real = twenty.handle

    def handle(request: Any) -> Any:
        response = real(request)
        if request.method == "POST" and request.path == "/taskTargets":
            made_one.set()
        return response

    twenty.handle = handle  # type: ignore[method-assign]

    def stop() -> bool:
        if made_one.is_set():
            raise Killed
        return False

    with pytest.raises(Killed):
        tasks_turn(session_factory, dying, stop=stop)
    assert len(follow_ups(twenty)) == 4  # one that the row knows nothing of
    assert call(url, 202, get=True)["state"] == "running"
    assert tasks_turn(session_factory) == 0  # it is held
    assert tasks_turn(session_factory, new_holder(session, "w1")) == 1
    found = call(url, get=True)
    assert (found["tasks_created"], found["tasks_failed"]) == (6, 0)
    assert list(follow_ups(twenty).values()) == [1] * 6 and len(twenty.tasks) == 12


@pytest.mark.usefixtures("synced")
def test_a_worker_that_was_given_up_changes_nothing(
    call: Call, patience: Callable[[float], None], session: Session, session_factory: Factory, twenty: TwentyFake
) -> None:
    patience(0)
    url = call("/tasks/auto-assign", 202)["status_url"]
    real, overtaken = twenty.handle, []

    def handle(request: Any) -> Any:
        if request.path == "/workspaceMembers" and not overtaken:
            overtaken.append(True)
            session.execute(sa.update(TaskRequest).values(lease_until=sa.func.now() - sa.text("interval '1 s'")))
            session.commit()
            assert tasks_turn(session_factory) == 1
        return real(request)

    twenty.handle = handle  # type: ignore[method-assign]
    tasks_turn(session_factory)
    assert call(url, get=True)["tasks_created"] == 6
    assert list(follow_ups(twenty).values()) == [1] * 6


@pytest.mark.usefixtures("synced")
def test_a_pause_that_the_crm_asks_for_is_kept(
    call: Call, patience: Callable[[float], None], session: Session, session_factory: Factory, twenty: TwentyFake
) -> None:
    patience(0)
    url = call("/tasks/auto-assign", 202)["status_url"]
    twenty.fail_next("POST /tasks", kind="429", retry_after="30")
    assert tasks_turn(session_factory) == 1
    row = session.scalars(sa.select(TaskRequest)).one()
    assert row.state is TaskRequestState.QUEUED and row.due_at > datetime.now(UTC) + timedelta(seconds=20)
    session.commit()
    assert tasks_turn(session_factory) == 0 and not claims.has_due(session, claims.TASKS)
    session.execute(sa.update(TaskRequest).values(due_at=sa.func.now()))
    session.commit()
    assert tasks_turn(session_factory) == 1
    assert call(url, get=True)["tasks_created"] == 6 and len(twenty.calls("GET /workspaceMembers")) == 1


def test_thousands_are_read_page_by_page(
    call: Call, session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    members = [twenty.add_member(f"rep{n}@example.com", "Rep", str(n)) for n in range(450)]
    for n in range(1_000):
        task_id = str(uuid.UUID(int=n + 1))
        twenty.store["tasks"][task_id] = {
            "id": task_id, "createdAt": "2026", "position": n, "deletedAt": None, "title": "x",
            "assigneeId": members[n % 449], "status": "TODO",
        }  # fmt: skip
    planned(session, workspace, name="Ada", priority=Priority.P0)
    drain(session_factory)
    for task in twenty.tasks:
        if task["title"] != "x":
            task["status"] = "DONE"
    with a_worker(session_factory):
        answer = call("/tasks/auto-assign")
    assert [one["assigned_to"] for one in answer["details"]] == ["Rep 449"]  # the only one with nothing to do
    assert len(twenty.calls("GET /tasks")) >= 5 and len(twenty.calls("GET /workspaceMembers")) == 3


def test_many_people_go_in_batches(
    call: Call, session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    for n in range(crm_people.BATCH * 2 + 3):
        planned(session, workspace, message=f"message {n}")
    drain(session_factory)
    done_with(twenty)
    people = len(twenty.people)
    with a_worker(session_factory):
        answer = call("/tasks/auto-assign")
    assert answer["tasks_created"] == people == crm_people.BATCH * 2 + 3
    assert list(follow_ups(twenty).values()) == [1] * people


@pytest.mark.usefixtures("synced")
def test_a_round_writes_what_is_new_and_nothing_twice(
    call: Call, patience: Callable[[float], None], session: Session, session_factory: Factory, twenty: TwentyFake
) -> None:
    """What has been told before is not sent to the database again, nor is the work of who is no member kept."""
    member = twenty.add_member("rep@example.com")
    for number, assignee in enumerate([member, *(str(uuid.uuid4()) for _ in range(50))]):
        twenty.store["tasks"][f"x{number}"] = {
            "id": f"x{number}", "createdAt": "2026", "position": number, "deletedAt": None, "title": "x",
            "assigneeId": assignee, "status": "TODO",
        }  # fmt: skip
    patience(0)
    url = call("/tasks/auto-assign", 202)["status_url"]
    written: list[int] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.startswith("UPDATE task_requests SET") and "details=" in statement:
            (added,) = [value.obj for value in parameters.values() if isinstance(getattr(value, "obj", None), list)]
            written.append(len(added))

    engine = session.get_bind()
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        loads = []
        while tasks_turn(session_factory, max_seconds=0.001):  # a turn for every step
            loads.append(session.scalars(sa.select(TaskRequest.progress["loads"])).one())
            session.commit()
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    assert call(url, get=True)["tasks_created"] == 6
    assert written == [1] * 6
    assert {name for load in loads for name in load or ()} == {member}


def test_a_task_deleted_in_the_crm_is_made_anew(
    call: Call, session: Session, session_factory: Factory, twenty: TwentyFake, synced: list[Lead]
) -> None:
    with a_worker(session_factory):
        assert call("/tasks/auto-assign")["tasks_created"] == 6
        for record in [*twenty.tasks, *twenty.task_targets]:
            record["deletedAt"] = "2026-01-01T00:00:00Z"  # its id stays taken
        assert call("/tasks/auto-assign")["tasks_created"] == 6
    assert list(follow_ups(twenty).values()) == [1] * 6


def test_two_leads_of_one_person_are_one_call(
    call: Call, session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    for n in range(2):
        planned(session, workspace, message=f"message {n}", email="ada@example.com", name=f"Ada {n}")
    drain(session_factory)
    done_with(twenty)
    with a_worker(session_factory):
        answer = call("/tasks/auto-assign")
    assert [one["customer"] for one in answer["details"]] == ["Ada 1"]  # the newest lead speaks for her


def test_a_crm_that_is_switched_off_meanwhile_ends_the_round(
    call: Call, patience: Callable[[float], None], session: Session, session_factory: Factory, synced: list[Lead],
    crm: Destination,
) -> None:  # fmt: skip
    patience(0)
    url = call("/tasks/auto-assign", 202)["status_url"]
    session.execute(sa.update(Destination).values(mode=DestinationMode.OFF))
    session.commit()
    tasks_turn(session_factory)
    assert call(url, get=True) == {"tasks_created": 0, "tasks_failed": 0, "details": []}


@pytest.mark.parametrize("path", ["/sync-crm", "/tasks/auto-assign"])
def test_reading_alone_does_not_push(client: FlaskClient, session: Session, workspace: Workspace, crm: Destination,
                                     path: str) -> None:  # fmt: skip
    reader = {"X-API-Key": make_key(session, workspace, scopes={Scope.READ, Scope.INGEST})}
    assert client.post(path, headers=reader).status_code == 403
    assert client.post(path).status_code == 401


def test_old_requests_are_forgotten(
    call: Call, patience: Callable[[float], None], session: Session, workspace: Workspace, crm: Destination
) -> None:
    patience(0)
    decided_lead(session, workspace)
    make_user(session, workspace)
    call("/sync-crm", 202)
    call("/tasks/auto-assign", 202)
    assert schedule.forget_crm_requests(session) == 0
    for table in ("sync_requests", "task_requests"):
        session.execute(sa.text(f"UPDATE {table} SET created_at = now() - interval '31 days'"))
    session.commit()
    assert schedule.forget_crm_requests(session) == 1  # the round is not over
    session.execute(sa.update(TaskRequest).values(finished_at=sa.func.now()))
    session.commit()
    assert schedule.forget_crm_requests(session) == 1
    assert count(session, SyncRequest) == count(session, TaskRequest) == 0


STEPS = (
    "GET /workspaceMembers", "GET /tasks", "GET /people", "GET /taskTargets", "POST /tasks", "POST /taskTargets",
)  # fmt: skip


@pytest.mark.usefixtures("synced")
@pytest.mark.parametrize("kind", ["429", "hang", "hang_after"])
@pytest.mark.parametrize("where", STEPS)
def test_a_pause_or_a_hang_at_any_step_makes_nothing_twice(
    call: Call, patience: Callable[[float], None], session: Session, session_factory: Factory, twenty: TwentyFake,
    where: str, kind: str,
) -> None:  # fmt: skip
    """A call that hangs may have taken effect or not; either way the next round finds each person as they are."""
    patience(0)
    twenty.fail_next(where, kind=kind, retry_after="30", seconds=30)

    def a_round() -> Any:
        url = call("/tasks/auto-assign", 202)["status_url"]
        while session.scalar(sa.select(sa.func.count()).where(TaskRequest.state.in_(("queued", "running")))):
            session.execute(sa.update(TaskRequest).values(due_at=sa.func.now()))
            session.commit()
            crm_tasks.process(session_factory, Holder(), clients(delivery_timeout=0.25), policy=EAGER)
        return call(url, get=True)

    found = a_round()
    assert found["tasks_created"] + found["tasks_failed"] == 6
    lost = [one["error"] for one in found["details"] if "error" in one]
    assert lost == (["timed out"] if kind == "hang" and where.startswith("POST") else [])
    assert a_round()["tasks_created"] == len(lost)
    assert list(follow_ups(twenty).values()) == [1] * 6


@pytest.fixture
def many(session: Session, workspace: Workspace, crm: Destination) -> list[uuid.UUID]:
    """2,500 leads that may go out."""
    first = decided_lead(session, workspace, name="Ada", email="ada@example.com")
    table = sa.inspect(Lead).local_table
    columns = [column for column in table.columns if column.computed is None]
    values = dict(session.execute(sa.select(*columns).where(table.c.id == first.id)).one()._mapping)
    unique = {"external_id": None, "external_message_id": None, "dedupe_key": None}
    copies = [values | unique | {"id": uuid.uuid4(), "name": f"Ada {n}"} for n in range(2_499)]
    session.execute(sa.insert(table), copies)
    session.commit()
    return [first.id, *(copy["id"] for copy in copies)]


def test_2500_leads_are_pushed_by_one_call(
    call: Call, patience: Callable[[float], None], session: Session, many: list[uuid.UUID]
) -> None:
    patience(0)
    running = call("/sync-crm", 202)
    assert (running["total"], running["waiting_count"]) == (2_500, 2_500)
    assert count(session, Delivery) == 7_500
    arrived = {"state": DeliveryState.DELIVERED, "remote_id": sa.cast(Delivery.lead_id, sa.Text)}
    session.execute(sa.update(Delivery).where(Delivery.action == "person").values(arrived))
    session.commit()
    done = call(running["status_url"], get=True)
    assert (done["total"], done["synced_count"], done["failed_count"]) == (2_500, 2_500, 0)
    assert {one["lead_id"] for one in done["synced"]} == {str(one) for one in many}
    assert call("/sync-crm")["total"] == 0


def test_2500_people_and_300_members_on_small_pages(
    call: Call, patience: Callable[[float], None], session: Session, session_factory: Factory, twenty: TwentyFake,
    crm: Destination, many: list[uuid.UUID], workspace: Workspace,
) -> None:  # fmt: skip
    """All but 25 have an open follow-up; the members with nothing to do are the last of 300."""
    twenty.page_limit = 50
    members = [twenty.add_member(f"rep{n}@example.com", "Rep", str(n)) for n in range(300)]
    session.execute(
        sa.insert(Delivery),
        [
            {
                "workspace_id": workspace.id, "lead_id": lead_id, "destination_id": crm.id, "action": "person",
                "state": DeliveryState.DELIVERED, "remote_id": str(lead_id),
            }
            for lead_id in many
        ],
    )  # fmt: skip
    session.commit()
    for n, lead_id in enumerate(many):
        twenty.add("people", id=str(lead_id), name={"firstName": "Ada", "lastName": str(n)})
        if n % 100:
            title, assignee = "📞 Sales Follow-up — Ada", members[n % 290]
            task = twenty.add("tasks", title=title, status="TODO", assigneeId=assignee)
            twenty.add("taskTargets", taskId=task, targetPersonId=str(lead_id))
    patience(0)
    url = call("/tasks/auto-assign", 202)["status_url"]
    assert tasks_turn(session_factory, max_seconds=300) == 1
    answer = call(url, get=True)
    assert (answer["tasks_created"], answer["tasks_failed"]) == (25, 0)
    assert set(Counter(one["assigned_to"] for one in answer["details"])) == {f"Rep {n}" for n in range(290, 300)}
    assert len(twenty.calls("GET /workspaceMembers")) == 6 and len(twenty.calls("GET /tasks")) >= 50
    assert list(follow_ups(twenty).values()) == [1] * 2_500


def test_a_model_writes_the_tasks_that_are_asked_for(
    call: Call, patience: Callable[[float], None], session: Session, workspace: Workspace, session_factory: Factory,
    twenty: TwentyFake, crm: Destination,
) -> None:  # fmt: skip
    patience(0)
    for n in range(3):
        planned(session, workspace, message=f"{MESSAGE} ({n})", name=f"Jane {n}", email=f"jane{n}@example.com")
    session.execute(sa.update(Delivery).where(Delivery.action != "person").values(state=DeliveryState.CANCELLED))
    session.commit()
    drain(session_factory)
    assert len(twenty.people) == 3 and twenty.tasks == []
    switch_on(session, workspace)
    with model() as (asked, writing):
        asked.fail_next(kind="500", times=1)  # one of them gets the template
        url = call("/tasks/auto-assign", 202)["status_url"]
        assert tasks_turn(session_factory, writing=writing, max_seconds=300) == 1
        answer = call(url, get=True)
        assert (answer["tasks_created"], answer["tasks_failed"], len(asked.requests)) == (3, 0, 3)
    texts = [task["bodyV2"]["markdown"] for task in twenty.tasks]
    assert len(texts) == 3
    assert sum("They want 50 seats of the Enterprise plan before Friday" in text for text in texts) == 2
    assert all("## Message" in text or "50 seats" in text for text in texts)
    assert all("jane" not in str(request.json["messages"]).lower() for request in asked.requests)
    stored = session.scalars(sa.select(TaskText)).all()
    assert sorted(str(row.author.value) for row in stored) == ["model", "model", "template"]
    assert sorted(str(row.body) for row in stored) == sorted(texts)

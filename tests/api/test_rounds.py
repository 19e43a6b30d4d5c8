"""One lead's whole way through the API: taken in, judged, run, decided, delivered to a CRM; with the real workers'
code, drained in this process, and a stand-in of Twenty on a real socket."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from tests.fakes.twenty import TwentyFake
from tests.leads.delivering import drain, states, twenty_destination
from webapp.leads import run
from webapp.leads.claims import Holder
from webapp.models import Delivery, Workspace

NOTE = "Cho tôi báo giá gói Enterprise"
UNDO_SECONDS = 10
SENT = {"person": "delivered", "task": "delivered", "task_target": "delivered"}


@pytest.fixture
def twenty() -> Iterator[TwentyFake]:
    with TwentyFake() as fake:
        yield fake


@dataclass
class House:
    """The doors, and the workers behind them."""

    client: FlaskClient
    headers: dict[str, str]
    session: Session
    session_factory: sessionmaker[Session]

    def get(self, path: str) -> Any:
        answer = self.client.get(path, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.json

    def post_lead(self, **over: Any) -> str:
        sent = {"note": NOTE, "name": "Ada Example", "email": "ada@example.com"} | over
        keyed = self.headers | {"Idempotency-Key": str(uuid.uuid4())}
        answer = self.client.post("/leads/", json=sent, headers=keyed)
        assert answer.status_code == 201, answer.text
        return str(answer.json["id"])

    def work_runs(self) -> int:
        return run.process(self.session_factory, Holder(), hold_seconds=UNDO_SECONDS).done

    def decide(self, lead_id: str, **body: Any) -> Any:
        version = self.get(f"/api/v1/leads/{lead_id}")["version"]
        answer = self.client.post(
            f"/api/v1/leads/{lead_id}/decision", json={"version": version} | body, headers=self.headers
        )
        assert answer.status_code == 200, answer.text
        return answer.json

    def deliver(self) -> int:
        return drain(self.session_factory).done

    def after_the_undo_window(self) -> None:
        self.session.execute(sa.update(Delivery).values(due_at=sa.func.now()))
        self.session.commit()

    def story(self, lead_id: str) -> list[dict[str, Any]]:
        """What happened to the lead, oldest first."""
        return list(reversed(self.get(f"/audit/events?lead_id={lead_id}")))


@pytest.fixture
def house(
    client: FlaskClient,
    headers: dict[str, str],
    session: Session,
    session_factory: sessionmaker[Session],
    workspace: Workspace,
    twenty: TwentyFake,
) -> House:
    twenty_destination(session, workspace, twenty)
    return House(client, headers, session, session_factory)


def in_the_crm(twenty: TwentyFake) -> tuple[int, int, int]:
    return len(twenty.people), len(twenty.tasks), len(twenty.task_targets)


def test_a_lead_goes_all_the_way_into_the_crm_once(house: House, twenty: TwentyFake, workspace: Workspace) -> None:
    lead_id = house.post_lead()
    insight = house.get(f"/leads/{lead_id}/insight")  # there before any worker has seen the lead
    assert (insight["intent"], insight["priority"], insight["next_action"]) == ("buy", "P1", "email")
    (queued,) = house.get(f"/api/v1/leads/{lead_id}/runs")["runs"]
    assert (queued["state"], queued["stages"]) == ("queued", [])

    assert house.work_runs() == 1
    (done,) = house.get(f"/api/v1/leads/{lead_id}/runs")["runs"]
    assert (done["id"], done["state"], done["error"], done["attempt"]) == (queued["id"], "success", None, 1)
    assert [stage["name"] for stage in done["stages"]] == ["enrich", "classify", "score", "route"]
    assert {stage["status"] for stage in done["stages"]} <= {"ok", "skipped"}
    judged = house.get(f"/api/v1/leads/{lead_id}")
    assert judged["status"] == "new_auto" and judged["qualified"] is True and judged["score"] > 0
    assert house.get(f"/leads/{lead_id}/insight") == insight

    approved = house.decide(lead_id, action="approve")
    assert (approved["status"], approved["decided_by"]) == ("approved", "test key (API)")
    assert approved["version"] == judged["version"] + 1
    assert house.deliver() == 0  # held for the undo window
    assert twenty.requests == [] and house.get(f"/leads/{lead_id}")["crm_synced"] is False

    house.after_the_undo_window()
    assert house.deliver() == 3
    assert states(house.session) == SENT
    assert in_the_crm(twenty) == (1, 1, 1)
    (person,), (task,), (target,) = twenty.people, twenty.tasks, twenty.task_targets
    assert person["emails"]["primaryEmail"] == "ada@example.com"
    assert (target["taskId"], target["targetPersonId"]) == (task["id"], person["id"])
    shown = house.get(f"/leads/{lead_id}")
    assert shown["crm_synced"] is True and shown["note"] == NOTE
    assert [lead["crm_synced"] for lead in house.get("/leads/")] == [True]

    events = house.story(lead_id)
    assert [event["event_type"] for event in events] == [
        "LEAD_SIGNAL_CREATED",
        "RUN_SUCCEEDED",
        "DELIVERY_CANCELLED",  # what would have gone out by itself; the approval takes its place
        "LEAD_APPROVED",
        "DELIVERY_SENT",
        "DELIVERY_SENT",
        "DELIVERY_SENT",
    ]
    assert [event["metadata"]["action"] for event in events[-3:]] == ["person", "task", "task_target"]
    assert [event["metadata"]["remote_id"] for event in events[-3:]] == [person["id"], task["id"], target["id"]]
    assert {event["tenant_id"] for event in events} == {str(workspace.id)}
    assert {event["actor"] for event in events if event["event_type"] != "LEAD_APPROVED"} == {"SYSTEM"}
    assert events[3]["actor"] == "test key (API)"
    assert events[3]["metadata"]["before"]["status"] == "new_auto"
    assert events[3]["metadata"]["after"]["status"] == "approved"
    assert [event["created_at"] for event in events] == sorted(event["created_at"] for event in events)


def test_nothing_that_follows_sends_it_a_second_time(house: House, twenty: TwentyFake) -> None:
    lead_id = house.post_lead()
    house.work_runs()
    house.decide(lead_id, action="approve")
    house.after_the_undo_window()
    assert house.deliver() == 3
    assert house.deliver() == 0
    house.decide(lead_id, action="approve")  # a second opinion
    assert house.client.post(f"/api/v1/leads/{lead_id}/rerun", headers=house.headers).status_code == 202
    assert house.work_runs() == 1
    assert house.post_lead() == lead_id  # the same request once more: a touch
    house.work_runs()
    house.after_the_undo_window()
    house.deliver()
    assert in_the_crm(twenty) == (1, 1, 1) and states(house.session) == SENT
    lead = house.get(f"/api/v1/leads/{lead_id}")
    assert (lead["status"], lead["touches"]) == ("approved", 2)
    assert [run["state"] for run in house.get(f"/api/v1/leads/{lead_id}/runs")["runs"]] == ["success", "success"]


def test_what_nobody_decides_goes_out_by_itself_after_the_window(house: House, twenty: TwentyFake) -> None:
    lead_id = house.post_lead()
    house.work_runs()
    assert house.deliver() == 0
    house.after_the_undo_window()
    assert house.deliver() == 3 and in_the_crm(twenty) == (1, 1, 1)
    lead = house.get(f"/api/v1/leads/{lead_id}")
    assert (lead["status"], lead["decided_by"]) == ("new_auto", None)
    assert [event["event_type"] for event in house.story(lead_id)][:2] == ["LEAD_SIGNAL_CREATED", "RUN_SUCCEEDED"]


def test_what_the_machine_is_unsure_of_waits_for_a_person(house: House, twenty: TwentyFake) -> None:
    lead_id = house.post_lead(note="Zeppelin?")
    house.work_runs()
    lead = house.get(f"/api/v1/leads/{lead_id}")
    assert lead["status"] in ("new_draft", "new_escalate")
    house.after_the_undo_window()
    assert house.deliver() == 0 and states(house.session) == {}
    house.decide(lead_id, action="override", intent="purchase_intent", priority="P1")
    house.after_the_undo_window()
    assert house.deliver() == 3 and in_the_crm(twenty) == (1, 1, 1)
    assert house.get(f"/leads/{lead_id}/insight")["intent"] == "buy"
    assert [event["event_type"] for event in house.story(lead_id)] == [
        "LEAD_SIGNAL_CREATED",
        "RUN_SUCCEEDED",
        "LEAD_OVERRIDDEN",
        *["DELIVERY_SENT"] * 3,
    ]


@pytest.mark.parametrize(
    ("decision", "status", "event"),
    [
        ({"action": "reject", "reason": "competitor"}, "rejected", "LEAD_REJECTED"),
        ({"action": "override", "intent": "job", "reason": "looks for work"}, "overridden", "LEAD_OVERRIDDEN"),
    ],
    ids=["reject", "override to what is never delivered"],
)
@pytest.mark.parametrize("run_first", [True, False], ids=["after the run", "before the run"])
def test_what_a_person_turns_down_is_not_delivered(
    house: House, twenty: TwentyFake, decision: dict[str, str], status: str, event: str, run_first: bool
) -> None:
    lead_id = house.post_lead()
    if run_first:
        house.work_runs()
        assert set(states(house.session).values()) == {"pending"}  # it would have gone out by itself
    assert house.decide(lead_id, **decision)["status"] == status
    house.work_runs()
    house.after_the_undo_window()
    assert house.deliver() == 0
    assert twenty.requests == [] and in_the_crm(twenty) == (0, 0, 0)
    assert states(house.session) == (dict.fromkeys(SENT, "cancelled") if run_first else {})
    assert house.get(f"/leads/{lead_id}")["crm_synced"] is False
    assert house.get(f"/api/v1/leads/{lead_id}")["status"] == status
    told = [one["event_type"] for one in house.story(lead_id)]
    assert told == (
        ["LEAD_SIGNAL_CREATED", "RUN_SUCCEEDED", "DELIVERY_CANCELLED", event]
        if run_first
        else ["LEAD_SIGNAL_CREATED", event, "RUN_SUCCEEDED"]
    )
    said = next(one for one in house.story(lead_id) if one["event_type"] == event)["metadata"]
    assert (said["reject_reason"], said["reason"]) == (
        ("competitor", None) if status == "rejected" else (None, "looks for work")
    )


def test_a_changed_mind_brings_it_back(house: House, twenty: TwentyFake) -> None:
    lead_id = house.post_lead()
    house.work_runs()
    house.decide(lead_id, action="reject", reason="competitor")
    house.decide(lead_id, action="approve")
    house.after_the_undo_window()
    assert house.deliver() == 3 and in_the_crm(twenty) == (1, 1, 1)
    assert house.get(f"/leads/{lead_id}")["crm_synced"] is True

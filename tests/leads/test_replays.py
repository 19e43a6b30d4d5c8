"""Dead letters asked for again: by filter with progress, or with a field put right."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests.factories import make_workspace
from tests.fakes.slack import SlackFake
from tests.fakes.twenty import TwentyFake
from tests.leads.delivering import CIPHER, clients, drain, events, planned, rows, states, twenty_destination
from webapp.leads import alerting, delivery_figures, replays
from webapp.leads.claims import Holder
from webapp.leads.errors import Conflict, Invalid, NotFound
from webapp.leads.replays import Choice
from webapp.leads.states import AlertState, DeliveryState, DestinationKind, ReplayState
from webapp.models import Alert, Delivery, Destination, Workspace

Factory = sessionmaker[Session]


@pytest.fixture
def twenty() -> Iterator[TwentyFake]:
    with TwentyFake() as fake:
        yield fake


@pytest.fixture
def crm(session: Session, workspace: Workspace, twenty: TwentyFake) -> Destination:
    return twenty_destination(session, workspace, twenty)


def _replay(session_factory: Factory, seconds: float = 5) -> Any:
    return replays.process(session_factory, Holder(), max_seconds=seconds, clock=time.monotonic)


def test_many_are_sent_again_with_progress(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(replays, "_BATCH", 2)
    for _ in range(5):
        planned(session, workspace)
    session.execute(sa.update(Delivery).where(Delivery.action == "person").values(state=DeliveryState.DEAD))
    session.execute(sa.update(Delivery).where(Delivery.action == "task").values(state=DeliveryState.UNCERTAIN))
    session.commit()
    choice = Choice(destination_id=crm.id)
    assert replays.count(session, workspace.id, choice) == 5
    assert replays.count(session, workspace.id, Choice(action="person", error="nothing like it")) == 0
    request_id = replays.ask(session, workspace.id, choice, actor="Mai").id
    session.commit()
    assert _replay(session_factory, seconds=0).done == 0
    assert _replay(session_factory).done == 5
    session.expire_all()
    request = replays.find(session, workspace.id, request_id)
    assert (request.state, request.done, request.total) == (ReplayState.DONE, 5, 5)
    assert session.scalar(sa.select(sa.func.count()).where(Delivery.state == DeliveryState.UNCERTAIN)) == 5
    with pytest.raises(Conflict):
        replays.ask(session, workspace.id, choice, actor="Mai")
    with pytest.raises(NotFound):
        replays.find(session, make_workspace(session).id, request_id)


def test_a_replay_goes_on_where_a_lost_worker_left_it(
    session: Session, workspace: Workspace, session_factory: Factory, crm: Destination
) -> None:
    planned(session, workspace)
    session.execute(sa.update(Delivery).values(state=DeliveryState.DEAD))
    request = replays.ask(session, workspace.id, Choice(), actor="Mai")
    request.state, request.lease_until = ReplayState.RUNNING, sa.text("now() - interval '1 second'")
    session.commit()
    assert _replay(session_factory).done == 3
    assert set(states(session).values()) == {"pending"}


def test_a_field_that_is_put_right_goes_out_for_this_delivery_alone(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    lead = planned(session, workspace, name="Ada Wrong")
    twenty.fail_next("POST /people", kind="400")
    drain(session_factory)
    dead = rows(session)["person"]
    assert dead.state is DeliveryState.DEAD
    with pytest.raises(Invalid):
        replays.edit(session, dead, {"emails.primaryEmail": "x"}, actor="Mai")
    replays.edit(session, dead, {"name.lastName": "Right", "lead.email": "ada@right.example"}, actor="Mai")
    session.commit()
    drain(session_factory)
    (person,) = twenty.people
    assert person["name"] == {"firstName": "Ada", "lastName": "Right"}
    assert person["emails"]["primaryEmail"] == "ada@right.example"
    session.refresh(lead)
    assert lead.name == "Ada Wrong"
    assert events(session, lead.id, "DELIVERY_EDITED")[0].details["fields"] == ["lead.email", "name.lastName"]
    with pytest.raises(Conflict):
        replays.edit(session, rows(session)["person"], {}, actor="Mai")


def test_what_is_given_up_raises_an_alert_that_another_destination_tells_of(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    with SlackFake() as slack:
        session.add(
            Destination(
                workspace_id=workspace.id, kind=DestinationKind.SLACK, name="Slack", config={"channel": "C0LEADS"},
                credentials=CIPHER.encrypt({"token": slack.token}), options={"alerts": True}, rules={"on": ["cold"]},
            )
        )  # fmt: skip
        planned(session, workspace)
        twenty.fail_next("POST /people", kind="422")
        drain(session_factory)
        (alert,) = session.scalars(sa.select(Alert))
        assert (alert.kind, alert.key, alert.times) == (alerting.GIVEN_UP, str(crm.id), 1)
        session.commit()
        registry = clients(slack_api_url=slack.api_url.rstrip("/"))
        for _ in range(2):  # told once
            alerting.tell(session_factory, registry, public_url="https://console.example", stop=lambda: False)
        (message,) = slack.messages["C0LEADS"]
    assert "Twenty: deliveries were given up" in message["text"]
    assert f"https://console.example/deliveries/dead?destination={crm.id}" in message["text"]
    assert alerting.settle(session) == 0
    session.execute(sa.update(Delivery).values(state=DeliveryState.DELIVERED))
    assert alerting.settle(session) == 1
    session.refresh(alert)
    assert alert.state is AlertState.RESOLVED


def test_figures_by_the_hour(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    planned(session, workspace)
    twenty.fail_next("POST /people", kind="500")
    for _ in range(3):
        drain(session_factory)
        time.sleep(0.01)
    hours = delivery_figures.hourly(session, workspace.id)
    assert [(hour.destination, hour.calls, hour.failed) for hour in hours] == [("Twenty", 4, 1)]
    assert hours[0].p95 is not None and hours[0].failing == 0.25
    assert delivery_figures.hourly(session, make_workspace(session).id) == []

"""Callbacks: the result of a lead, posted to the address that came with it, once."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests import factories
from tests.fakes.webhook_receiver import SECRET, WebhookReceiver
from tests.leads.delivering import CIPHER, clients, drain, events, rows, states
from webapp.leads import callbacks, destinations, outbox, review, run
from webapp.leads.callbacks import Place
from webapp.leads.claims import RUNS, Holder, claim
from webapp.leads.deliver import DeliveryPolicy
from webapp.leads.kinds.callback import address_problem, covers
from webapp.leads.review import Actor
from webapp.leads.states import DecisionAction, DeliveryState, DestinationKind, DestinationMode, RejectReason
from webapp.models import Delivery, Destination, Lead, Workspace
from webapp.models.base import new_id

Factory = sessionmaker[Session]
QUOTE = "Please send a quote for 40 licences for our clinic this week"


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as fake:
        yield fake


def _place(session: Session, workspace: Workspace, fake: WebhookReceiver, **over: Any) -> Destination:
    values: dict[str, Any] = {
        "workspace_id": workspace.id,
        "kind": DestinationKind.CALLBACK,
        "name": f"Callbacks {fake.root}",
        "config": {"url": fake.root},
        "credentials": CIPHER.encrypt({"secret": SECRET}),
    }
    row = Destination(**(values | over))
    session.add(row)
    session.commit()
    return row


def _sent(session: Session, workspace: Workspace, url: str, **over: Any) -> Lead:
    return factories.make_lead(session, workspace, QUOTE, callback_url=url, **over)


def test_the_result_is_posted_signed_once_the_run_is_done(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    _place(session, workspace, receiver)
    lead = _sent(session, workspace, f"{receiver.url}/42?token=s3cret", external_id="web-1")
    assert states(session) == {}  # nothing before the run
    run.process(session_factory, Holder())
    drain(session_factory)
    ((message_id, event),) = receiver.events.items()
    session.refresh(lead)
    row = rows(session)["lead.processed"]
    assert (row.state, message_id) == (DeliveryState.DELIVERED, str(row.id))
    assert event["type"] == "lead.processed"
    data = event["data"]
    assert (data["id"], data["external_id"], data["intent"]) == (str(lead.id), "web-1", lead.intent.value)
    assert data["reasons"]
    (request,) = receiver.requests
    assert (request.path, request.query) == ("/42", {"token": "s3cret"})
    run.request_rerun(session, lead, requested_by="Mai")
    session.commit()
    run.process(session_factory, Holder())
    drain(session_factory)
    assert len(receiver.deliveries) == 1  # a later run posts nothing again


def test_whatever_is_decided_about_the_lead_its_sender_is_told(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    _place(session, workspace, receiver)
    lead = _sent(session, workspace, receiver.url)
    run.process(session_factory, Holder())
    session.refresh(lead)
    review.decide(
        session,
        workspace.id,
        lead.id,
        action=DecisionAction.REJECT,
        version=lead.version,
        actor=Actor("Mai"),
        undo_seconds=0,
        reject_reason=RejectReason.SPAM,
    )
    session.commit()
    drain(session_factory)
    assert states(session)["lead.processed"] == "delivered"
    assert receiver.deliveries[0]["data"]["status"] == "rejected"


def test_a_run_that_is_given_up_is_told_too(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    _place(session, workspace, receiver)
    lead = _sent(session, workspace, receiver.url)
    (held,) = claim(session, RUNS, Holder(), limit=1)
    run.fail(session, held, "It broke.")
    session.commit()
    drain(session_factory)
    assert [event["type"] for event in receiver.deliveries] == ["lead.failed"]
    run.request_rerun(session, lead, requested_by="Mai")
    session.commit()
    run.process(session_factory, Holder())
    drain(session_factory)
    assert [event["type"] for event in receiver.deliveries] == ["lead.failed", "lead.processed"]


def test_a_host_that_is_dead_holds_up_no_other(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    with WebhookReceiver() as dead:
        places = [_place(session, workspace, fake) for fake in (dead, receiver)]
        dead.fail_next(kind="reset_before", times=1_000)
        for number in range(6):
            for fake in (dead, receiver):
                _sent(session, workspace, f"{fake.url}/{number}")
        run.process(session_factory, Holder())
        drain(session_factory, policy=DeliveryPolicy(retry_delay=0.001, max_delay=0.001, breaker_failures=5))
    found = dict(
        session.execute(
            sa.select(Delivery.destination_id, sa.func.count())
            .where(Delivery.state == DeliveryState.DELIVERED)
            .group_by(Delivery.destination_id)
        ).all()  # type: ignore[arg-type]
    )
    assert found == {places[1].id: 6}
    for place in places:
        session.refresh(place)
    assert [place.open_until is not None for place in places] == [True, False]


@pytest.mark.parametrize("status", ["410", "401"])
def test_what_an_address_refuses_says_nothing_of_its_neighbours(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver, status: str
) -> None:
    place = _place(session, workspace, receiver)
    receiver.fail_next(kind=status, times=1)
    first = _sent(session, workspace, f"{receiver.url}/gone")
    run.process(session_factory, Holder())
    drain(session_factory)
    assert states(session, first) == {"lead.processed": "dead"}
    session.refresh(place)
    assert (place.mode, place.failures, place.open_until) == (DestinationMode.LIVE, 0, None)
    second = _sent(session, workspace, receiver.url, name="Bo")
    run.process(session_factory, Holder())
    drain(session_factory)
    assert states(session, second) == {"lead.processed": "delivered"}


def test_what_goes_to_a_destination_that_is_off_waits(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    place = _place(session, workspace, receiver, mode=DestinationMode.OFF)
    _sent(session, workspace, receiver.url)
    run.process(session_factory, Holder())
    drain(session_factory)
    assert states(session) == {"lead.processed": "pending"}
    destinations.set_mode(session, workspace.id, place.id, DestinationMode.LIVE, actor="Mai")
    session.commit()
    drain(session_factory)
    assert len(receiver.events) == 1


def test_an_address_inside_is_never_called(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    _place(session, workspace, receiver)
    _sent(session, workspace, receiver.url)
    run.process(session_factory, Holder())
    drain(session_factory, registry=clients(outbound_allow_cidrs=()))
    row = rows(session)["lead.processed"]
    assert (row.state, receiver.requests) == (DeliveryState.DEAD, [])
    assert "not a public address" in (row.last_error or "")


def test_an_address_that_is_not_allowed_any_more_is_not_called(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    place = _place(session, workspace, receiver)
    lead = _sent(session, workspace, receiver.url)
    run.process(session_factory, Holder())
    place.config = {"url": "https://elsewhere.example"}
    session.commit()
    drain(session_factory)
    assert (states(session), receiver.requests) == ({"lead.processed": "cancelled"}, [])
    later = _sent(session, workspace, receiver.url, name="Bo")
    run.process(session_factory, Holder())
    assert states(session, later) == {}
    assert [event.details["address"] for event in events(session, later.id, "CALLBACK_REFUSED")] == [receiver.url]
    assert lead.id != later.id
    session.execute(sa.delete(Delivery))
    session.execute(sa.delete(Destination))  # nowhere at all
    last = _sent(session, workspace, receiver.url, name="Cy")
    run.process(session_factory, Holder())
    assert len(events(session, last.id, "CALLBACK_REFUSED")) == 1


def test_a_workspace_has_its_own_places_alone(session: Session, workspace: Workspace) -> None:
    with WebhookReceiver() as fake:
        _place(session, factories.make_workspace(session), fake)
        assert callbacks.places(session, workspace.id) == []
        assert callbacks.problem_of(fake.url, []) is not None


def test_undoing_a_decision_leaves_a_callback_that_waits(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    _place(session, workspace, receiver)
    lead = _sent(session, workspace, receiver.url)
    run.process(session_factory, Holder())
    assert outbox.cancel(session, lead.id, reason="test") == 0
    session.commit()
    assert states(session) == {"lead.processed": "pending"}


@pytest.mark.parametrize(
    ("allowed", "url", "fits"),
    [
        ("https://a.example", "https://a.example/x?y=1", True),
        ("https://a.example", "https://A.example:443", True),
        ("https://a.example/", "https://a.example", True),
        ("https://a.example/in", "https://a.example/in/7", True),
        ("https://a.example/in/", "https://a.example/in", True),
        ("https://a.example/in", "https://a.example/inside", False),
        ("https://a.example/in", "https://a.example/", False),
        ("https://a.example", "http://a.example", False),
        ("https://a.example", "https://a.example:8443/", False),
        ("https://a.example", "https://b.a.example", False),
        ("https://a.example", "https://a.example.evil.example", False),
    ],
)
def test_what_an_address_allows(allowed: str, url: str, fits: bool) -> None:
    assert covers(allowed, url) is fits
    assert (callbacks.problem_of(url, [Place(new_id(), allowed)]) is None) is fits


@pytest.mark.parametrize(
    "url",
    [
        "", "ftp://a.example", "https://", "//a.example", "https://u:p@a.example", "https://a.example/#x",
        "https://a.example/a/../b", "https://a.example/%2e%2e/b", "https://a.example/\\b", "https://a.example/in/..;/b", "https://a.example/%252e%252e/b", "https://a.example/ b",
        "https://a.example/\x00", "https://ä.example", "https://a.example:0/", "https://a.example/" + "x" * 2_000,
        "https://[::1", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_bad_addresses_are_refused(url: str) -> None:
    assert address_problem(url) is not None

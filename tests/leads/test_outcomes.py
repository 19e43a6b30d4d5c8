"""Saving what came of calls, by several workers at once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker

from tests.factories import make_user
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.leads.delivering import decided_lead, planned, webhook_destination
from webapp.leads import deliver, outcomes, sending
from webapp.leads.claims import Holder
from webapp.leads.outcomes import Saved
from webapp.leads.sending import Job
from webapp.leads.states import DeliveryState, DestinationMode
from webapp.models import Destination, Workspace

Factory = sessionmaker[Session]


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


def failing_destinations(session: Session, workspace: Workspace, receiver: WebhookReceiver) -> list[Destination]:
    return [webhook_destination(session, workspace, receiver, name=name, failures=2) for name in ("one", "other")]


def claimed(session_factory: Factory, destination: Destination) -> list[Job]:
    with session_factory.begin() as session:
        claims = sending.claim_due(session, Holder(), limit=10, lease=60, destination_id=destination.id)
        return sending.load(session, claims)[0]


def answered(job: Job) -> Saved:
    return Saved(job, DeliveryState.DELIVERED, "delivered", tries=1, ms=5, healthy=True)


def given_up(job: Job) -> Saved:
    return Saved(job, DeliveryState.DEAD, "dead", tries=8, ms=5, error="no answer", healthy=False)


def save(session_factory: Factory, results: list[Saved]) -> None:
    with session_factory.begin() as session:
        outcomes.save(session, results, breaker_failures=5, breaker_seconds=30)


@contextmanager
def heard(session_factory: Factory, hear: Callable[[str], object]) -> Iterator[None]:
    """``hear`` is told of each statement once it is done, in the thread that has executed it."""
    engine = session_factory.kw["bind"]
    tell = lambda _connection, _cursor, statement, *_: hear(statement)  # noqa: E731
    event.listen(engine, "after_cursor_execute", tell)
    try:
        yield
    finally:
        event.remove(engine, "after_cursor_execute", tell)


@contextmanager
def together(session_factory: Factory, parties: int) -> Iterator[None]:
    """Nobody goes on behind the saving of deliveries until all have come so far."""
    barrier = threading.Barrier(parties)
    with heard(session_factory, lambda statement: "json_to_recordset" in statement and barrier.wait(20)):
        yield


def test_two_workers_of_whom_each_has_good_news_of_what_the_other_has_bad_news_of(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    one, other = failing_destinations(session, workspace, receiver)
    for _ in range(2):
        planned(session, workspace)
    (first, second), (third, fourth) = claimed(session_factory, one), claimed(session_factory, other)
    with together(session_factory, 2), ThreadPoolExecutor(2) as pool:
        batches = [[answered(first), given_up(third)], [answered(fourth), given_up(second)]]
        list(pool.map(lambda batch: save(session_factory, batch), batches))
    session.expire_all()
    assert {one.failures, other.failures} <= {0, 1}  # whoever was last has said so


def test_two_workers_of_one_destination_that_comes_back(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    one, _ = failing_destinations(session, workspace, receiver)
    for _ in range(3):
        planned(session, workspace)
    first, second, third = claimed(session_factory, one)
    with together(session_factory, 2), ThreadPoolExecutor(2) as pool:
        batches = [[given_up(first), answered(second)], [given_up(third)]]
        list(pool.map(lambda batch: save(session_factory, batch), batches))
    assert session.scalars(sa.select(Destination.failures).where(Destination.id == one.id)).one() in (0, 1)


def test_a_breaker_that_is_closed_is_left_alone(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    destination = webhook_destination(session, workspace, receiver)
    planned(session, workspace)
    (job,) = claimed(session_factory, destination)
    statements: list[str] = []
    with heard(session_factory, statements.append):
        save(session_factory, [answered(job)])
    assert statements and not [one for one in statements if one.startswith("UPDATE destinations")]


def test_many_deliveries_are_loaded_with_no_more_statements_than_one(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    counts = []
    for number in (1, 10):
        destination = webhook_destination(
            session, workspace, receiver, name=f"of {number}", rules={"country": ["DE"], "min_score": 1}
        )
        for _ in range(number):
            lead = decided_lead(
                session, workspace, score=50, attributes={"country": "DE"}, assignee_id=make_user(session, workspace).id
            )
            deliver.plan(session, lead, due_in_seconds=0)
        session.commit()
        statements: list[str] = []
        with heard(session_factory, statements.append):
            assert len(claimed(session_factory, destination)) == number
        counts.append(len(statements))
        destination.mode = DestinationMode.OFF
        session.commit()
    assert counts[0] == counts[1]

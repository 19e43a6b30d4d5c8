"""The rate budget: evenly, for all workers together."""

import threading
from collections import deque
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from jobs import wiring
from tests.fakes.twenty import TwentyFake
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.leads.delivering import CIPHER, Limits, drain, planned, states, twenty_destination, webhook_destination
from webapp.clients.registry import Registry
from webapp.config import Settings
from webapp.leads.pacing import LOOKUP_SHARE, LookupPacer, Pacer, spacing, wait_for
from webapp.leads.ports import Throttled
from webapp.leads.sending import target_of
from webapp.models import Destination, Workspace


@dataclass
class Slept:
    """How long each caller was told to wait."""

    waits: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, seconds: float) -> None:
        with self.lock:
            self.waits.append(seconds)


def _destination(session: Session, workspace: Workspace, **options: float) -> Destination:
    with WebhookReceiver() as receiver:
        return webhook_destination(session, workspace, receiver, options=options)


def test_three_hundred_calls_at_five_a_second_are_spread_over_a_minute(
    session: Session, workspace: Workspace, session_factory: sessionmaker[Session]
) -> None:
    target, slept = target_of(_destination(session, workspace, per_second=5)), Slept()
    pacers = [Pacer(session_factory, sleep=slept) for _ in range(2)]  # two workers

    def call(pacer: Pacer) -> None:
        for _ in range(75):
            pacer.wait(target)

    began = session.scalar(sa.select(sa.func.clock_timestamp()))
    session.commit()
    threads = [threading.Thread(target=call, args=(pacer,)) for pacer in pacers for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = session.scalar(sa.select(Destination.second_at))
    assert began is not None and last is not None
    # Nobody sleeps here, so all places are taken at once: the last place but one is 299 spaces after the first.
    # (Fifty a second is what script/bench ratelimit measures: here a slow machine would take longer than the spaces.)
    assert (last - began).total_seconds() == pytest.approx(60.0, rel=0.05)
    assert max(slept.waits) <= 60.0


def test_lookups_wait_no_longer_than_they_may(
    session: Session, workspace: Workspace, session_factory: sessionmaker[Session]
) -> None:
    target, slept = target_of(_destination(session, workspace, per_second=0.1)), Slept()
    Pacer(session_factory, sleep=slept).wait(target)
    taken = session.scalar(sa.select(Destination.second_at))
    session.commit()
    with pytest.raises(Throttled):
        LookupPacer(session_factory, sleep=slept, longest=4).wait(target)
    assert session.scalar(sa.select(Destination.second_at)) == taken
    session.commit()
    LookupPacer(session_factory, sleep=slept, longest=30).wait(target)
    assert slept.waits == [pytest.approx(10, abs=4)]


def test_lookups_take_at_most_their_share_while_deliveries_wait(
    session: Session, workspace: Workspace, session_factory: sessionmaker[Session]
) -> None:
    target, slept = target_of(_destination(session, workspace, per_minute=100)), Slept()
    deliveries = Pacer(session_factory, sleep=slept)
    for _ in range(40):  # those after the first ten wait
        deliveries.wait(target)
    began, before = session.execute(sa.select(sa.func.clock_timestamp(), Destination.minute_at)).one()
    session.commit()
    LookupPacer(session_factory, sleep=slept, longest=60).wait(
        target
    )  # its share is due, and it stands in line like everybody
    asleep: list[float] = []
    given_up = 0
    for _ in range(50):
        try:
            LookupPacer(session_factory, sleep=asleep.append, longest=1).wait(target)
        except Throttled:
            given_up += 1
    after = session.scalar(sa.select(Destination.minute_at))
    wanted = spacing(target.options)
    assert after is not None and wanted is not None
    assert given_up == 50
    # Fifty-one look-ups have put a delivery off by one place.
    assert (after - before).total_seconds() == pytest.approx(wanted.minute, abs=0.001)
    again = session.scalar(sa.select(Destination.lookup_at))
    assert again is not None
    assert (again - began).total_seconds() >= wanted.minute / LOOKUP_SHARE


def test_lookups_have_the_whole_budget_where_nobody_else_uses_it(
    session: Session, workspace: Workspace, session_factory: sessionmaker[Session]
) -> None:
    target, slept = target_of(_destination(session, workspace, per_minute=100)), Slept()
    for _ in range(10):
        LookupPacer(session_factory, sleep=slept, longest=0).wait(target)
    assert slept.waits == []
    pacer = LookupPacer(session_factory, sleep=slept, longest=0)
    with pytest.raises(Throttled):  # and keep to it
        deque((pacer.wait(target) for _ in range(100)), maxlen=0)


def test_lookups_keep_to_the_budget_of_the_crm(
    session: Session,
    workspace: Workspace,
    session_factory: sessionmaker[Session],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wiring, "settings", lambda: settings)
    monkeypatch.setattr(wiring, "session_factory", lambda: session_factory)
    wiring.enriching.cache_clear()
    with TwentyFake() as twenty:
        row = twenty_destination(session, workspace, twenty, options={"per_second": 1_000})
        outside = wiring.enriching().clients
        assert outside is not None
        outside.crm(target_of(row), "ada@acme.de", None, None)
    wiring.enriching.cache_clear()
    assert session.scalar(sa.select(Destination.second_at)) is not None


def test_a_minute_holds_no_more_than_its_limit(
    session: Session, workspace: Workspace, session_factory: sessionmaker[Session]
) -> None:
    target, slept = target_of(_destination(session, workspace, per_minute=100)), Slept()
    pacer = Pacer(session_factory, sleep=slept)
    for _ in range(120):
        pacer.wait(target)
    at_once = 120 - len(slept.waits)
    assert at_once == 10
    # Whoever comes after that waits for their place; burst and places of a minute together are within the limit.
    for limit in (1, 5, 19, 20, 100, 6_000):
        found = spacing({"per_minute": limit})
        assert found is not None
        assert (found.burst if found.burst > 1 else 0) + 60 / found.minute <= limit + 1e-9


def test_without_a_limit_nobody_waits(
    session: Session, workspace: Workspace, session_factory: sessionmaker[Session]
) -> None:
    target, slept = target_of(_destination(session, workspace)), Slept()
    Pacer(session_factory, sleep=slept).wait(target)
    assert slept.waits == []
    assert spacing({}) is None
    assert wait_for({}, second=99, minute=99) == 0


def test_every_call_of_a_delivery_takes_its_turn(
    session: Session, workspace: Workspace, session_factory: sessionmaker[Session]
) -> None:
    with WebhookReceiver() as receiver:
        webhook_destination(session, workspace, receiver, options={"per_second": 1_000})
        for _ in range(3):
            planned(session, workspace)
        drain(session_factory, registry=Registry(Limits(), CIPHER.decrypt, Pacer(session_factory).wait))
        assert len(receiver.deliveries) == 3
    assert states(session) == {"lead.approved": "delivered"}
    assert session.scalar(sa.select(Destination.second_at)) is not None

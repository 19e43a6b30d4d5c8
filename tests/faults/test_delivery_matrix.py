"""Every destination, every fault, before, at and after the commit of every write there: records against approved leads.

The cells of one fault are worked side by side, by the real drain. A cell's faults hit each of its leads once; the first
round meets them, then the other side is well again and what waits is made due, dead letters are sent again and what is
uncertain is looked at, as people would. ``MATRIX_TABLE=file`` writes the table.
"""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests import factories
from tests.fakes.server import FakeServer
from tests.faults.places import PLACES, Counts, Place, approved, mark_of
from tests.leads.delivering import clients, drain
from tests.waiting import until
from webapp.leads import outbox
from webapp.leads.deliver import DeliveryPolicy
from webapp.leads.kinds import KINDS
from webapp.leads.kinds.base import Unknown
from webapp.leads.ports import Clients
from webapp.leads.states import DeliveryState, DestinationKind
from webapp.models import Delivery, Destination, Lead

pytestmark = [pytest.mark.fault, pytest.mark.slow]

LEADS = 2
#: Nothing is tried again before it is made due.
_PATIENT = DeliveryPolicy(retry_delay=1e7, max_delay=1e7)
_TIMEOUT, _SHORT_TIMEOUT = 20.0, 0.5
_LONGER = 2 * _SHORT_TIMEOUT
_ROUNDS = 6


#: Deliveries there wait while our credential is refused.
_KEPT_WAITING = frozenset(
    {DestinationKind.TWENTY, DestinationKind.HUBSPOT, DestinationKind.SALESFORCE, DestinationKind.SLACK}
)
_BOTH = ("http", "smtp")


@dataclass(frozen=True)
class Fault:
    """``kind`` as the stand-ins know it (tests/fakes/server.py). ``lasts``: longer than our time limit.
    ``looking``: what looking for the record meets afterwards. ``at``: the protocols that know it."""

    name: str
    phase: str
    kind: str
    lasts: bool = False
    retry_after: str | None = None
    looking: str | None = None
    at: tuple[str, ...] = ("http",)

    def fits(self, place: Place, write: str) -> bool:
        if place.protocol not in self.at:
            return False
        if self.looking is not None:
            return write in place.looks
        if self.kind == "partial":
            return write in place.partly
        return not (self.kind == "garbage" and place.takes_any_2xx)


FAULTS = (
    Fault("500", "before", "500"),
    Fault("500", "after", "500_after"),
    Fault("503 with Retry-After", "before", "busy", retry_after="7"),
    Fault("503 with Retry-After", "after", "busy_after", retry_after="7"),
    Fault("451", "before", "451", at=("smtp",)),
    Fault("554", "before", "554", at=("smtp",)),
    Fault("reset", "before", "reset_before", at=_BOTH),
    Fault("reset", "at", "cut_after"),
    Fault("reset", "after", "reset_after", at=_BOTH),
    Fault("hang", "before", "hang", lasts=True, at=_BOTH),
    Fault("hang", "at", "slow", lasts=True, at=_BOTH),
    Fault("hang", "after", "hang_after", lasts=True, at=_BOTH),
    Fault("429 with seconds", "before", "429", retry_after="7"),
    Fault("429 with a date", "before", "429", retry_after="date"),
    Fault("expired credential", "before", "expired"),
    Fault("slow drip", "at", "drip", lasts=True, at=_BOTH),
    Fault("partial failure", "at", "partial"),
    Fault("garbage", "before", "garbage", at=_BOTH),
    Fault("garbage", "after", "garbage_after", at=_BOTH),
    Fault("500", "looking for it", "reset_after", looking="500"),
    Fault("reset", "looking for it", "reset_after", looking="reset_before"),
    Fault("hang", "looking for it", "reset_after", looking="hang", lasts=True),
    Fault("429 with seconds", "looking for it", "reset_after", looking="429", retry_after="7"),
    Fault("garbage", "looking for it", "reset_after", looking="garbage"),
)


@dataclass(frozen=True)
class Cell:
    place: Place
    write: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.place.name}: {self.fault.name}, {self.fault.phase} {self.write}"


CELLS = [
    Cell(place, write, fault)
    for fault in FAULTS
    for place in PLACES
    for write in place.writes
    if fault.fits(place, write)
]


@dataclass
class Trial:
    """A cell at work, and what came of it. ``met``: how many faults struck. ``at_first``: states after
    the round that met them."""

    cell: Cell
    fake: FakeServer
    destination: Destination
    leads: list[str]
    met: int = 0
    paused: bool = False
    at_first: set[str] = field(default_factory=set)
    uncertain: set[uuid.UUID] = field(default_factory=set)
    counts: Counts | None = None
    states: set[str] = field(default_factory=set)

    def line(self) -> str:
        found, fault = self.counts, self.cell.fault
        assert found is not None
        return (
            f"{self.cell.place.name:<23} {fault.name:<21} {fault.phase:<15} {self.cell.write:<15} {len(self.leads):>5} "
            f"{found.wanted:>7} {found.records:>7} {found.missing:>7} {found.duplicates:>10} {len(self.uncertain):>9}"
        )


HEAD = (
    f"{'destination':<23} {'fault':<21} {'phase':<15} {'write':<15} {'leads':>5} {'wanted':>7} {'records':>7} "
    f"{'missing':>7} {'duplicates':>10} {'uncertain':>9}"
)


@pytest.fixture(scope="module")
def factory(empty_database: str) -> Iterator[sessionmaker[Session]]:
    engine = sa.create_engine(empty_database)
    yield sessionmaker(engine, expire_on_commit=False)
    engine.dispose()


@pytest.fixture(scope="module")
def results(factory: sessionmaker[Session]) -> dict[Cell, Trial]:
    """The whole matrix, worked fault by fault."""
    found: dict[Cell, Trial] = {}
    fakes = {(place.name, write): place.fake() for place in PLACES for write in place.writes}
    try:
        for fake in fakes.values():
            fake.__enter__()
        for fault in FAULTS:
            cells = [cell for cell in CELLS if cell.fault is fault]
            for trial in _worked(factory, fakes, cells, fault):
                found[trial.cell] = trial
    finally:
        for fake in fakes.values():
            fake.close()
    lines = [HEAD, *(trial.line() for trial in found.values())]
    print("\n".join(lines))
    if wanted := os.environ.get("MATRIX_TABLE"):
        Path(wanted).write_text("\n".join(lines) + "\n")
    return found


def _worked(
    factory: sessionmaker[Session], fakes: dict[tuple[str, str], FakeServer], cells: list[Cell], fault: Fault
) -> list[Trial]:
    trials = []
    with factory() as session:
        for cell in cells:
            fake = fakes[cell.place.name, cell.write]
            trials.append(_begun(session, cell, fake))
    registry = _clients(trials, _SHORT_TIMEOUT if fault.lasts else _TIMEOUT)
    drain(factory, policy=_PATIENT, registry=registry, max_seconds=30)
    until(lambda: all(trial.fake.idle for trial in trials))
    if fault.looking:
        with factory() as session:
            _make_due(session)
        drain(factory, policy=_PATIENT, registry=registry, max_seconds=30)
        until(lambda: all(trial.fake.idle for trial in trials))
    registry = _clients(trials, _TIMEOUT)
    with factory() as session:
        for trial in trials:
            trial.paused = (
                session.get_one(Destination, trial.destination.id, populate_existing=True).paused_until is not None
            )
            trial.at_first = {delivery.state.value for delivery, _ in _deliveries(session, trial)}
        for _ in range(_ROUNDS):
            if not _mended(session, trials):
                break
            _make_due(session)
            drain(factory, policy=_PATIENT, registry=registry, max_seconds=30)
        for trial in trials:
            _counted(session, trial)
    return trials


def _begun(session: Session, cell: Cell, fake: FakeServer) -> Trial:
    with fake.lock:
        fake.forget()
        fake.faults.clear()
    how = {"times": LEADS, "seconds": _LONGER, "retry_after": cell.fault.retry_after}
    if cell.fault.kind == "drip":
        how["seconds"] = 20 * _SHORT_TIMEOUT
    fake.fail_next(cell.place.writes[cell.write], kind=cell.fault.kind, **how)
    if cell.fault.looking:
        fake.fail_next(cell.place.looks[cell.write], kind=cell.fault.looking, then=True, **how)
    workspace = factories.make_workspace(session)
    destination = cell.place.destination(session, workspace, fake)
    return Trial(cell, fake, destination, approved(session, workspace, cell.place, LEADS))


def _clients(trials: list[Trial], timeout: float) -> Clients:
    over: dict[str, Any] = {"delivery_timeout": timeout, "n8n_webhook_timeout_seconds": timeout}
    for trial in trials:
        over |= trial.cell.place.environment(trial.fake)
    return clients(**over)


def _make_due(session: Session) -> None:
    session.execute(sa.update(Delivery).where(Delivery.state == DeliveryState.PENDING).values(due_at=sa.func.now()))
    session.execute(sa.update(Destination).values(paused_until=None, open_until=None))
    session.commit()


def _mended(session: Session, trials: list[Trial]) -> bool:
    """What people do: send dead letters again, and uncertain ones that they do not find there. True: more is to be done."""
    more = False
    for trial in trials:
        for delivery, lead in _deliveries(session, trial):
            if delivery.state is DeliveryState.DEAD:
                outbox.replay(session, delivery, actor="Mai")
            elif delivery.state is DeliveryState.UNCERTAIN:
                trial.uncertain.add(delivery.id)
                mark = mark_of(lead.name)
                if all(mark in marks for marks in trial.cell.place.records(trial.fake).values()):
                    continue
                outbox.replay(session, delivery, actor="Mai")
            more = more or delivery.state is not DeliveryState.DELIVERED
    session.commit()
    return more


def _deliveries(session: Session, trial: Trial) -> list[tuple[Delivery, Lead]]:
    query = sa.select(Delivery, Lead).join(Lead, Lead.id == Delivery.lead_id)
    found = session.execute(
        query.where(Delivery.destination_id == trial.destination.id).execution_options(populate_existing=True)
    )
    return [(row[0], row[1]) for row in found]


def _counted(session: Session, trial: Trial) -> None:
    trial.counts = trial.cell.place.counts(trial.fake, trial.leads)
    trial.states = {delivery.state.value for delivery, _ in _deliveries(session, trial)}
    trial.met = sum(LEADS - fault.times for fault in trial.fake.faults)


def test_the_matrix_has_every_kind_of_destination_and_a_hundred_cells() -> None:
    assert len(CELLS) >= 100
    assert {place.kind for place in PLACES} == set(KINDS)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_each_lead_has_its_records_once_whatever_went_wrong(cell: Cell, results: dict[Cell, Trial]) -> None:
    trial = results[cell]
    assert trial.counts is not None
    assert trial.met > 0, "the fault never struck"
    assert trial.counts.missing == 0
    if cell.place.once or cell.place.described.unknown is Unknown.REPEATS:
        # A receiver that is told at least once knows an event by its id, and counts it once.
        assert trial.counts.duplicates == 0
    if cell.place.described.unknown is Unknown.STOPS:
        assert trial.states <= {"delivered", "uncertain"}
    else:
        assert trial.states == {"delivered"}
        assert not trial.uncertain
    if cell.fault.kind == "expired" and cell.place.kind in _KEPT_WAITING:
        assert trial.at_first <= {"pending", "delivered"}, "given up, although every other one would be refused too"
    if cell.fault.retry_after and cell.fault.looking is None:
        assert trial.paused, "the wait that was asked for is not kept"

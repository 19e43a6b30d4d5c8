"""The deliveries worker killed with SIGKILL at the boundaries of a step, again and again, at every destination.

``script/chaos`` runs many of these, tests/faults/test_delivery_kills.py a few. Each kill has an approved lead of its own;
the next worker finishes it, before the next one is killed.
"""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from jobs.queue import Doorbell
from tests import factories
from tests.conftest import environment
from tests.fakes.server import FakeServer
from tests.faults.places import PLACES, Counts, Place, approved
from tests.faults.processes import ROOT
from tests.waiting import until
from webapp.config import load_settings
from webapp.leads import outbox
from webapp.leads.states import DeliveryState
from webapp.models import Delivery, Destination, WorkerSlot, Workspace

#: For what depends on how busy the machine is.
_PATIENCE = 60.0
_HELD = 600.0
_TRIES = 5
#: Longer than it takes to lock a row.
_LATE = 0.7
_SETTLED = {DeliveryState.DELIVERED, DeliveryState.UNCERTAIN}


class Missed(Exception):
    """The worker was past the boundary already."""


class Boundary(StrEnum):
    """Where in a step the worker is killed."""

    BEFORE_CALL = "claimed, before the call"
    BEFORE_COMMIT = "called, before the other side's commit"
    BEFORE_ANSWER = "committed there, before the answer"
    BEFORE_SAVE = "answered, before it is saved"
    AFTER_SAVE = "saved, before the next step"


@dataclass(frozen=True)
class Kill:
    """``write`` of tests/faults/places.py."""

    place: Place
    write: str
    boundary: Boundary

    @property
    def fits(self) -> bool:
        """A step's second call is inside of it: its boundaries are those of the calls."""
        inner = self.write.endswith("'s link")
        return not (inner and self.boundary in (Boundary.BEFORE_CALL, Boundary.AFTER_SAVE))

    def __str__(self) -> str:
        return f"{self.place.name}, {self.write}: {self.boundary}"


#: Every boundary of every write, so ordered that a few of them are of all sorts.
KILLS = [
    one
    for boundary in Boundary
    for place in PLACES
    if place.killed
    for write in place.writes
    if (one := Kill(place, write, boundary)).fits
]


@dataclass
class Site:
    """A destination of the rig."""

    place: Place
    fake: Any
    workspace: Workspace
    destination: Destination
    leads: list[str] = field(default_factory=list)
    uncertain: set[uuid.UUID] = field(default_factory=set)  # at some time

    def counts(self) -> Counts:
        return self.place.counts(self.fake, self.leads)


class Rig:
    """A workspace with its stand-in for each destination, and one real worker, on a database that holds nothing else."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self._urls = database_url, redis_url
        self._exit = ExitStack()
        self._worker = 0  # process id
        self.kills = self.missed = 0

    def __enter__(self) -> Self:
        with self._exit:
            fakes: dict[Place, Any] = {
                place: self._exit.enter_context(place.fake()) for place in PLACES if place.killed
            }
            apis = {
                name.upper(): value for place, fake in fakes.items() for name, value in place.environment(fake).items()
            }
            env = environment(
                *self._urls,
                LOG_LEVEL="ERROR",
                **apis,
                DELIVERY_TIMEOUT="30",
                N8N_WEBHOOK_TIMEOUT_SECONDS="30",
            )
            self._nursery = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.nursery"],
                cwd=ROOT,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": f"{ROOT}:{ROOT / 'script'}",
                    **env,
                    "WORKER_SLOT": "deliveries-1",
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._exit.callback(self._close)
            assert self._said() == "ready"
            self._doorbell = Doorbell(self._urls[1])
            url = load_settings(env).database_url.get_secret_value()
            self.engine = sa.create_engine(url, poolclass=sa.NullPool)
            self._exit.callback(self.engine.dispose)
            self.factory = sessionmaker(self.engine, expire_on_commit=False)
            with self.factory() as session:
                self.sites = {place: _placed(session, place, fake) for place, fake in fakes.items()}
            self.start()
            self._exit = self._exit.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._exit.close()

    def start(self) -> None:
        """The worker; returns when it has taken its slot, and with it what its predecessor held."""
        before = self._incarnation()
        assert self._nursery.stdin is not None
        self._nursery.stdin.write("\n")
        self._nursery.stdin.flush()
        self._worker = int(self._said())
        until(lambda: self._incarnation() != before or not self.alive, seconds=_PATIENCE)
        assert self.alive, "the worker ended by itself"

    @property
    def alive(self) -> bool:
        return self._worker > 0 and Path(f"/proc/{self._worker}").exists()

    def kill_worker(self) -> None:
        """As the kernel does it: no goodbye."""
        if self.alive:
            os.kill(self._worker, signal.SIGKILL)
        until(lambda: not self.alive, every=0.002)

    def _said(self) -> str:
        assert self._nursery.stdout is not None
        return self._nursery.stdout.readline().strip()

    def _close(self) -> None:
        self.kill_worker()
        self._nursery.kill()
        self._nursery.communicate()  # closes its pipes too

    def _incarnation(self) -> Any:
        with self.factory() as session:
            return session.scalar(sa.select(WorkerSlot.incarnation).where(WorkerSlot.slot.endswith("/deliveries-1")))

    def kill(self, wanted: Kill) -> None:
        """Approve a lead, kill the worker at the boundary, start it again and let it finish; with another lead where a
        busy machine was too slow to meet it there."""
        site = self.sites[wanted.place]
        for _ in range(_TRIES):
            try:
                with _BOUNDARIES[wanted.boundary](self, site, wanted):
                    self.kill_worker()
            except Missed:
                self.missed += 1
            else:
                self.kills += 1
                return
            finally:
                self.recover(site)
        raise AssertionError(f"not met in {_TRIES} tries: {wanted}")

    def recover(self, site: Site) -> None:
        """The other side is well, the worker runs, and what can be done without a person is."""
        with site.fake.lock:
            site.fake.faults.clear()
        if not self.alive:
            self.start()
        until(lambda: self._settled(site), seconds=_PATIENCE)

    def approve(self, place: Site) -> None:
        with self.factory() as session:
            place.leads += approved(session, session.get_one(Workspace, place.workspace.id), place.place, 1)
        self.ring()

    def ring(self) -> None:
        assert self._doorbell.send(["deliveries"])

    def rows(self, place: Site, *columns: Any, **where: Any) -> list[Any]:
        with self.factory() as session:
            found = sa.select(*columns).where(Delivery.destination_id == place.destination.id).filter_by(**where)
            return list(session.execute(found))

    def _settled(self, place: Site) -> bool:
        """As far as it comes without a person; then the person looks, and sends again what is not there."""
        states = {row.state for row in self.rows(place, Delivery.state)}
        if not states <= _SETTLED:
            return False
        waiting = self.rows(place, Delivery.id, state=DeliveryState.UNCERTAIN)
        place.uncertain |= {row.id for row in waiting}
        if not waiting or not place.counts().missing:
            return True
        # What is missing is the last lead's: the others were looked at before.
        with self.factory() as session:
            last = session.get_one(Delivery, max(row.id for row in waiting))
            outbox.replay(session, last, actor="Mai")
            session.commit()
        self.ring()
        return False


def _placed(session: Session, place: Place, fake: FakeServer) -> Site:
    workspace = factories.make_workspace(session)
    return Site(place, fake, workspace, place.destination(session, workspace, fake))


def _action(wanted: Kill) -> str:
    """As its delivery has it."""
    return "lead.approved" if wanted.write == "event" else wanted.write


def _call(wanted: Kill) -> str:
    return wanted.place.writes[wanted.write]


@contextmanager
def _before_call(rig: Rig, place: Site, wanted: Kill) -> Iterator[None]:
    """Its turn in the rate budget is what it waits for."""
    _paced(rig, place, {"per_second": 0.5}, ahead=3_600.0)
    seen = len(place.fake.calls(_call(wanted)))
    rig.approve(place)
    _paced(rig, place, {"per_second": 0.5}, ahead=0.95)
    rig.ring()
    _await_sending(rig, place, _action(wanted))
    yield
    _paced(rig, place, {}, ahead=0.0)
    if len(place.fake.calls(_call(wanted))) > seen:
        raise Missed


def _await_sending(rig: Rig, place: Site, action: str) -> None:
    def sending() -> bool:
        return bool(rig.rows(place, Delivery.id, state=DeliveryState.SENDING, action=action))

    until(sending, seconds=_PATIENCE, every=0.005)


def _paced(rig: Rig, place: Site, options: dict[str, Any], *, ahead: float) -> None:
    """``ahead``: seconds until the next call may be made; more than one, and nothing is claimed for it."""
    with rig.factory.begin() as session:
        here = sa.update(Destination).where(Destination.id == place.destination.id)
        session.execute(here.values(options=options, second_at=sa.func.now() + timedelta(seconds=ahead)))


@contextmanager
def _before_commit(rig: Rig, place: Site, wanted: Kill) -> Iterator[None]:
    yield from _held(rig, place, wanted, "hang")


@contextmanager
def _before_answer(rig: Rig, place: Site, wanted: Kill) -> Iterator[None]:
    yield from _held(rig, place, wanted, "hang_after")


def _held(rig: Rig, place: Site, wanted: Kill, kind: str) -> Iterator[None]:
    place.fake.fail_next(_call(wanted), kind=kind, seconds=_HELD)
    rig.approve(place)
    until(lambda: _struck(place.fake), seconds=_PATIENCE)
    if kind == "hang_after":
        until(lambda: wanted.write in _there(place), seconds=_PATIENCE)
    else:
        assert wanted.write not in _there(place)
    yield


def _struck(fake: FakeServer) -> bool:
    with fake.lock:
        return all(fault.times == 0 for fault in fake.faults)


def _there(place: Site) -> set[str]:
    """The writes of the last lead that have taken effect."""
    return {write for write, marks in place.place.records(place.fake).items() if place.leads[-1] in marks}


@contextmanager
def _before_save(rig: Rig, place: Site, wanted: Kill) -> Iterator[None]:
    """Its row is locked while the answer comes late, so that the worker cannot save what it was told."""
    place.fake.fail_next(_call(wanted), kind="slow", seconds=_LATE)
    rig.approve(place)
    until(lambda: _struck(place.fake), seconds=_PATIENCE, every=0.005)
    with rig.engine.connect() as connection:
        held = sa.select(Delivery.id).where(
            Delivery.destination_id == place.destination.id, Delivery.state == DeliveryState.SENDING
        )
        if not connection.execute(held.with_for_update()).all():
            raise Missed
        until(lambda: _waits_for_a_lock(rig), seconds=_PATIENCE)
        assert wanted.write in _there(place)
        yield


def _waits_for_a_lock(rig: Rig) -> bool:
    with rig.engine.connect() as connection:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(connection.scalar(sa.text(waiting)))


@contextmanager
def _after_save(rig: Rig, place: Site, wanted: Kill) -> Iterator[None]:
    done = len(rig.rows(place, Delivery.id, state=DeliveryState.DELIVERED, action=_action(wanted)))
    rig.approve(place)
    until(
        lambda: len(rig.rows(place, Delivery.id, state=DeliveryState.DELIVERED, action=_action(wanted))) > done,
        seconds=_PATIENCE,
        every=0.005,
    )
    yield


_BOUNDARIES: dict[Boundary, Callable[[Rig, Site, Kill], Any]] = {
    Boundary.BEFORE_CALL: _before_call,
    Boundary.BEFORE_COMMIT: _before_commit,
    Boundary.BEFORE_ANSWER: _before_answer,
    Boundary.BEFORE_SAVE: _before_save,
    Boundary.AFTER_SAVE: _after_save,
}

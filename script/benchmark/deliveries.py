"""Deliveries: a backlog drained by two workers, a rate limit kept, and one destination beside another that is dead."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psutil
import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmark.pages import p95
from benchmark.seed import seed
from benchmark.stack import ROOT, Stack
from jobs.queue import Doorbell
from tests.fakes.twenty import TOKEN
from tests.fakes.webhook_receiver import SECRET, WebhookReceiver
from webapp.config import load_settings
from webapp.engine import make_engine
from webapp.leads.states import DeliveryState, DestinationKind, DestinationMode, Intent, LeadStatus
from webapp.models import Delivery, Destination, Lead, Person, Workspace
from webapp.security.fields import FieldCipher

LEADS, LATENCY, WORKERS = 5_000, 0.05, 2
CALLS, PER_SECOND = 300, 50
#: Leads a second and how many, beside a dead destination and without one, in turns; seconds that each is held, as by the
#: undo window.
RATE, OPEN_LOOP, TURNS, HOLD = 10, 150, 2, 2.0
_PATIENCE = 600.0


def backlog(stack: Stack) -> dict[str, Any]:
    """Seconds from switching the destination on to the last of 5,000 × 3 calls, each answered after 50 ms."""
    with _bench(stack) as bench, _twenty() as (url, fake):
        destination = bench.destination(
            DestinationKind.TWENTY, {"url": url}, {"token": TOKEN}, mode=DestinationMode.OFF
        )
        bench.plan(bench.leads(LEADS), destination, ("person", "task", "task_target"))
        with bench.workers() as workers:
            before = [_cpu(process) for process in (*workers, fake)]
            began = time.monotonic()
            bench.switch_on(destination)
            bench.await_delivered(3 * LEADS)
            seconds = time.monotonic() - began
            spent = [now - then for now, then in zip((_cpu(p) for p in (*workers, fake)), before, strict=True)]
        with urllib.request.urlopen(url.removesuffix("/rest") + "/__state") as answer:
            state = json.load(answer)
    return {
        "leads": LEADS, "calls": 3 * LEADS, "seconds": round(seconds, 1), "calls_per_second": round(3 * LEADS / seconds),
        "records": {name: len(state[name]) for name in ("people", "tasks", "taskTargets")},
        "workers_cpu_s": round(sum(spent[:-1]), 1), "fake_cpu_s": round(spent[-1], 1), "load": _load(),
    }  # fmt: skip


def rate_limit(stack: Stack) -> dict[str, Any]:
    """Seconds that 300 calls take at a destination that is given 50 a second, by two workers."""
    with _bench(stack) as bench, WebhookReceiver() as receiver:
        destination = bench.hook(receiver, options={"per_second": PER_SECOND}, mode=DestinationMode.OFF)
        bench.plan(bench.leads(CALLS), destination, ("lead.approved",))
        with bench.workers():
            bench.switch_on(destination)
            bench.await_delivered(CALLS)
        times = [request.at for request in receiver.calls()]
    # From the first to the last there are one fewer pauses than calls.
    seconds = (max(times) - min(times)) * CALLS / (CALLS - 1)
    wanted = CALLS / PER_SECOND
    return {
        "calls": len(times), "per_second": PER_SECOND, "seconds": round(seconds, 2),
        "off_percent": round(100 * (seconds / wanted - 1), 1), "load": _load(),
    }  # fmt: skip


def dead_destination(stack: Stack) -> dict[str, Any]:
    """Milliseconds from a lead's being due to its arrival, at a destination alone and beside one that never answers."""
    alone: list[float] = []
    beside: list[float] = []
    with _bench(stack) as bench, WebhookReceiver() as well, WebhookReceiver() as dead:
        dead.fail_next(kind="hang", times=1_000_000, seconds=3_600)
        here, there = bench.hook(well), bench.hook(dead, name="Dead")
        with bench.workers():
            for _ in range(TURNS):
                alone += bench.open_loop(well, (here,))
                beside += bench.open_loop(well, (here, there))
        missing = 2 * TURNS * OPEN_LOOP - len(well.events)
    return {
        "leads": len(beside), "rate": RATE, "missing": missing, "calls_to_the_dead": len(dead.calls()),
        "alone_p50_ms": round(statistics.median(alone), 1), "alone_p95_ms": p95(alone),
        "p50_ms": round(statistics.median(beside), 1), "p95_ms": p95(beside),
        "slower_percent": round(100 * (p95(beside) / p95(alone) - 1), 1), "load": _load(),
    }  # fmt: skip


class _Bench:
    """A workspace of its own on the stack's servers."""

    def __init__(self, stack: Stack, session: Session) -> None:
        self._stack = replace(stack, env=stack.env | {"OUTBOUND_ALLOW_CIDRS": "127.0.0.0/8", "DELIVERY_TIMEOUT": "10"})
        self._session = session
        self._cipher = FieldCipher([stack.env["FIELD_ENCRYPTION_KEYS"]])
        self._doorbell = Doorbell(stack.redis_url)
        self._workspace = session.scalars(sa.select(Workspace).where(Workspace.name == "default")).one()
        self._taken: set[uuid.UUID] = set()

    def leads(self, number: int) -> list[Lead]:
        """Approved ones, each with a person of their own who may be written to; none is handed out twice."""
        spare = sa.select(Lead).join(Person, Person.id == Lead.person_id).where(
            Lead.workspace_id == self._workspace.id, ~Person.do_not_contact, Lead.suppression_id.is_(None),
            ~sa.exists().where(Delivery.lead_id == Lead.id),
        )  # fmt: skip
        found = self._spare(spare, number)
        if len(found) < number:
            seed(self._stack, 2 * number + 100)
            found = self._spare(spare, number)
        self._taken |= {lead.id for lead in found}
        approved = {"status": LeadStatus.APPROVED, "intent": Intent.INQUIRY_PRICE, "settled_at": sa.func.now()}
        ids = [lead.id for lead in found]
        self._session.execute(sa.update(Lead).where(Lead.id.in_(ids)).values(**approved))
        self._session.commit()
        assert len(found) == number
        return found

    def _spare(self, query: Any, number: int) -> list[Lead]:
        found = [
            lead for lead in self._session.scalars(query.limit(number + len(self._taken))) if lead.id not in self._taken
        ]
        return found[:number]

    def hook(self, receiver: WebhookReceiver, *, name: str = "Hook", **over: Any) -> Destination:
        return self.destination(DestinationKind.WEBHOOK, {"url": receiver.url}, {"secret": SECRET}, name=name, **over)

    def destination(
        self,
        kind: DestinationKind,
        config: dict[str, Any],
        credentials: dict[str, str],
        *,
        name: str = "Bench",
        **over: Any,
    ) -> Destination:
        sealed = self._cipher.encrypt(credentials)
        row = Destination(
            workspace_id=self._workspace.id, kind=kind, name=name, config=config, credentials=sealed, **over
        )
        self._session.add(row)
        self._session.commit()
        return row

    def plan(
        self, leads: Sequence[Lead], destination: Destination, actions: Sequence[str], *, hold: float = 0.0
    ) -> None:
        for start in range(0, len(leads), 1_000):
            rows = [
                {
                    "id": uuid.uuid4(), "workspace_id": self._workspace.id, "lead_id": lead.id, "action": action,
                    "destination_id": destination.id, "step": step, "due_at": sa.func.now() + timedelta(seconds=hold),
                }
                for lead in leads[start : start + 1_000]
                for step, action in enumerate(actions)
            ]  # fmt: skip
            self._session.execute(sa.insert(Delivery).values(rows))
        self._session.commit()

    def switch_on(self, destination: Destination) -> None:
        self._session.execute(
            sa.update(Destination).where(Destination.id == destination.id).values(mode=DestinationMode.LIVE)
        )
        self._session.commit()
        self._doorbell.send(["deliveries"])

    def await_delivered(self, number: int) -> None:
        delivered = sa.select(sa.func.count()).select_from(Delivery).where(Delivery.state == DeliveryState.DELIVERED)
        deadline = time.monotonic() + _PATIENCE
        while (found := self._session.scalar(delivered) or 0) < number:
            self._session.commit()
            if time.monotonic() > deadline:
                raise RuntimeError(f"only {found} of {number} were delivered within {_PATIENCE:g} s")
            time.sleep(0.5 if number - found > 500 else 0.1)  # counting takes what is measured of its processor
        self._session.commit()

    def open_loop(self, well: WebhookReceiver, destinations: Sequence[Destination]) -> list[float]:
        """Approve so many a second, whatever becomes of them; ms from the end of its hold to when each arrived."""
        leads = self.leads(OPEN_LOOP)
        due: dict[str, float] = {}
        began = time.monotonic()
        for number, lead in enumerate(leads):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            for destination in destinations:
                self.plan([lead], destination, ("lead.approved",), hold=HOLD)
            due[str(lead.id)] = time.time() + HOLD
        deadline = time.monotonic() + _PATIENCE
        arrived: dict[str, float] = {}
        while len(arrived) < len(due) and time.monotonic() < deadline:
            time.sleep(0.1)
            arrived = {one.json["data"]["id"]: one.at for one in well.calls() if one.json["data"]["id"] in due}
        return [max(0.0, 1000 * (arrived[lead] - due[lead])) for lead in arrived]

    @contextlib.contextmanager
    def workers(self) -> Iterator[list[psutil.Process]]:
        """Two of them and the clock, once they have started up."""
        with contextlib.ExitStack() as exits:
            self._session.execute(sa.text("DELETE FROM worker_slots"))
            self._session.commit()
            started = [
                exits.enter_context(
                    self._stack.running(
                        sys.executable, "-m", "jobs.worker", "deliveries", env={"WORKER_SLOT": f"deliveries-{number}"}
                    )
                )
                for number in range(1, WORKERS + 1)
            ]
            exits.enter_context(self._stack.running(sys.executable, "-m", "jobs.schedule"))
            deadline = time.monotonic() + 120
            while self._session.scalar(sa.text("SELECT count(*) FROM worker_slots")) != WORKERS:
                self._session.commit()
                if time.monotonic() > deadline:
                    raise RuntimeError("the workers do not start")
                time.sleep(0.1)
            self._session.commit()
            time.sleep(1)
            yield [psutil.Process(process.pid) for process in started]


@contextlib.contextmanager
def _bench(stack: Stack) -> Iterator[_Bench]:
    engine = make_engine(load_settings(stack.env), pool_size=1)
    try:
        with Session(engine, expire_on_commit=False) as session:
            bench = _Bench(stack, session)
            try:
                yield bench
            finally:
                session.rollback()
                session.execute(sa.text("TRUNCATE deliveries, destinations CASCADE"))
                session.commit()
    finally:
        engine.dispose()


@contextlib.contextmanager
def _twenty() -> Iterator[tuple[str, psutil.Process]]:
    """The stand-in in a process of its own, so that its work is not ours."""
    command = [sys.executable, "-m", "tests.fakes.twenty", "--latency", str(LATENCY)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(10)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _load() -> float:
    return round(os.getloadavg()[0], 1)

"""The whole console on servers of its own: real web, workers and clock, each to be killed and started at will."""

import contextlib
import http.client
import json
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any, Self
from urllib.parse import urlencode

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from embedded import testing
from jobs.queue import Doorbell
from tests import factories
from tests.conftest import environment
from tests.fakes.server import Fault, Request, Response
from tests.fakes.twenty import TOKEN, TwentyFake
from tests.faults.processes import ROOT, Processes, kill
from tests.waiting import until
from webapp.config import load_settings
from webapp.leads.states import DeliveryState, Role, RunStatus
from webapp.models import Delivery, Destination, Lead, Run, User, WorkerSlot, Workspace

#: Sure enough to be approved by the machine, so that its delivery needs nobody.
SURE = "Cho tôi báo giá gói Enterprise"
#: One that a person has to look at.
UNSURE = "Need urgent pricing for 50 seats ASAP! Want to buy next week."


class CountingTwenty(TwentyFake):
    """Also tells what has taken effect, which a caller that was cut off never learns."""

    def __init__(self, **kwargs: Any) -> None:
        self.handled: list[Request] = []
        self._held: list[tuple[Fault, threading.Event]] = []
        super().__init__(**kwargs)

    def hold_next(self, match: str) -> threading.Event:
        """The next such request takes effect when the event is set, whether its caller still waits or not."""
        released = threading.Event()
        with self.lock:
            self._held.append((Fault(match, "held"), released))
        return released

    def handle(self, request: Request) -> Response:
        with self.lock:
            held = next((one for one in self._held if one[0].fits(request)), None)
            if held is not None:
                self._held.remove(held)
        if held is not None:
            held[1].wait(60)
        response = super().handle(request)
        with self.lock:
            self.handled.append(request)
        return response

    def forget(self) -> None:
        super().forget()
        self.handled = []

    def effects(self, match: str) -> int:
        method, path = match.split()
        with self.lock:
            return sum(one.method == method and one.path.startswith(path) for one in self.handled)


@dataclass(frozen=True)
class Answer:
    """What the web server said, and how long it took to."""

    status: int
    text: str
    seconds: float
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Visitor:
    """One connection to the web server, with a browser's cookies. An answer that does not come is an OSError."""

    def __init__(self, port: int, *, same_as: "Visitor | None" = None) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None
        self._cookies = {} if same_as is None else dict(same_as._cookies)

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Answer:
        began = time.monotonic()
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        try:
            self._connection.request(method, path, body=None if body is None else body.encode(), headers=headers)
            response = self._connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise OSError(f"{method} {path}: {error!r}") from error
        for name, value in response.getheaders():
            if name.lower() == "set-cookie":
                self._cookies |= {key: morsel.value for key, morsel in SimpleCookie(value).items()}
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, text, time.monotonic() - began, found)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def submit(self, path: str, **fields: str) -> Answer:
        """Send a form, as a browser without JavaScript would."""
        return self.ask("POST", path, urlencode(fields), **{"Content-Type": "application/x-www-form-urlencoded"})

    def token(self, path: str) -> str:
        """The CSRF token of a page's form."""
        page = self.ask("GET", path)
        found = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
        assert found is not None, (page.status, page.text[:300])
        return found[1]

    def log_in(self, email: str) -> Answer:
        token = self.token("/login")
        return self.submit("/login", email=email, password=factories.PASSWORD, csrf_token=token)

    def post_lead(self, key: str, *, note: str = SURE, idempotency_key: str | None = None, **fields: str) -> Answer:
        headers = {
            "X-API-Key": key,
            "Idempotency-Key": idempotency_key or str(uuid.uuid4()),
            "Content-Type": "application/json",
        }
        return self.ask("POST", "/leads/", json.dumps({"note": note, **fields}), **headers)


class Stack:
    """Everything that ``script/server`` starts, without its supervisor: what dies stays dead."""

    def __init__(self) -> None:
        self._exit = ExitStack()
        self.port = _free_port()
        self._visitors: list[Visitor] = []
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        with self._exit:
            self.twenty = self._exit.enter_context(CountingTwenty())
            self.postgres, self.redis = self._exit.enter_context(testing.private_servers())
            env = environment(
                self.postgres.url(),
                self.redis.url(),
                PORT=str(self.port),
                PYTHONPATH=f"{ROOT}:{ROOT / 'script'}",
                LOG_LEVEL="ERROR",  # a refused request is a line of the log
                UNDO_WINDOW_SECONDS="0",
                TWENTY_REST_URL=self.twenty.url,
                TWENTY_REST_TOKEN=TOKEN,
                WEB_THREADS="8",
            )
            self._doorbell = Doorbell(self.redis.url())
            self.processes = Processes(env)
            self._exit.callback(self.processes.kill_all)
            assert self.processes.start("-m", "embedded.prepare").wait(60) == 0
            # Without a pool: a restart of PostgreSQL leaves no stale connection for a test to meet.
            url = load_settings(env).database_url.get_secret_value()
            self.engine = sa.create_engine(url, poolclass=sa.NullPool)
            self._exit.callback(self.engine.dispose)
            self.session_factory = sessionmaker(self.engine, expire_on_commit=False)
            with self.session_factory() as session:
                self.workspace = session.scalars(sa.select(Workspace).where(Workspace.name == "default")).one()
                self.key = factories.make_key(session, self.workspace)
                session.execute(sa.update(Destination).values(options={}))  # its rate budget is not what is tried here
                session.commit()
            self._exit = self._exit.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close_visitors()
        self._exit.close()

    def _close_visitors(self) -> None:
        while self._visitors:
            self._visitors.pop().close()

    # Processes

    def start(self, *parts: str) -> None:
        """Those of ``web``, ``runs``, ``deliveries``, ``clock`` that do not run yet; returns when each works."""
        before = {part: self.incarnation(part) for part in parts if part in ("runs", "deliveries")}
        missing = [part for part in parts if not self.alive(part)]
        for part in missing:
            self.running[part] = self._launch(part)
        for part in missing:
            self._await(part, self.running[part], before.get(part))

    def _await(self, part: str, process: subprocess.Popen[bytes], incarnation: Any) -> None:
        """Until the web answers, or a worker has taken its slot anew. The clock shows nothing."""
        if part == "web":
            until(lambda: self.answers() or process.poll() is not None, seconds=30)
        elif part != "clock":
            until(lambda: self.incarnation(part) != incarnation or process.poll() is not None, seconds=30)
        assert process.poll() is None, f"{part} ended with status {process.returncode}"

    def _launch(self, part: str) -> subprocess.Popen[bytes]:
        match part:
            case "web":
                return self.processes.start("-m", "embedded.web")
            case "clock":
                return self.processes.clock()
        return self.processes.worker(part)

    def alive(self, part: str) -> bool:
        return part in self.running and self.running[part].poll() is None

    def kill(self, *parts: str) -> None:
        """With SIGKILL, one after another."""
        for part in parts:
            if self.alive(part):
                kill(self.running[part])

    def ring(self, queue: str) -> None:
        """As a door does after its commit."""
        assert self._doorbell.send([queue])

    def answers(self) -> bool:
        visitor = Visitor(self.port)
        with contextlib.suppress(OSError), contextlib.closing(visitor):
            return visitor.ask("GET", "/healthz").status == 200
        return False

    def visitor(self, same_as: Visitor | None = None) -> Visitor:
        """A new connection, with the cookies of ``same_as``; it is closed by the next ``clear``."""
        visitor = Visitor(self.port, same_as=same_as)
        self._visitors.append(visitor)
        return visitor

    def _truncated(self) -> bool:
        """False when it ran into somebody who looks for work just now."""
        try:
            with self.engine.begin() as connection:
                connection.execute(sa.text("SET LOCAL deadlock_timeout = '10ms'"))
                connection.execute(sa.text("TRUNCATE leads, people, idempotency_keys, deliveries, runs CASCADE"))
                connection.execute(
                    sa.text("UPDATE destinations SET failures = 0, open_until = NULL, paused_until = NULL")
                )
        except sa.exc.OperationalError:
            return False
        return True

    # What is stored

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        with self.session_factory() as session:
            yield session

    def incarnation(self, part: str) -> Any:
        with self.session() as session:
            query = sa.select(WorkerSlot.incarnation).where(WorkerSlot.slot.endswith(f"/{part}-1"))
            return session.scalar(query)

    def reviewer(self) -> User:
        with self.session() as session:
            return factories.make_user(session, self.workspace, role=Role.REVIEWER)

    def runs_done(self) -> bool:
        return self._all_in(Run.status, {RunStatus.SUCCESS})

    def deliveries_done(self) -> bool:
        return self._all_in(Delivery.state, {DeliveryState.DELIVERED})

    def _all_in(self, column: Any, wanted: set[Any]) -> bool:
        with self.session() as session:
            return set(session.scalars(sa.select(column).distinct())) == wanted

    def count(self, *conditions: Any, of: Any = Lead) -> int:
        with self.session() as session:
            return session.scalar(sa.select(sa.func.count()).select_from(of).where(*conditions)) or 0

    def clear(self) -> None:
        """Forget all leads, and what Twenty was sent."""
        self._close_visitors()
        until(self._truncated)
        with self.twenty.lock:
            self.twenty.faults.clear()
            self.twenty.requests.clear()
            self.twenty.forget()


class Load:
    """Clients that post leads (which wait for a person then) without a pause, and, as a careful one does, repeat what was not accepted with its
    key. Every thread holds on to its connection: a server that drops it is caught."""

    def __init__(self, stack: Stack, *, threads: int = 8) -> None:
        self.accepted: dict[str, str] = {}  # e-mail → lead id
        self.refused: list[Answer] = []
        self.broken: list[str] = []
        self.slowest = 0.0
        self._stack = stack
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._post_on, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _post_on(self, number: int) -> None:
        visitor, run = self._stack.visitor(), uuid.uuid4().hex[:8]
        turn = 0
        while not self._stopping.is_set():
            turn += 1
            self._post_one(visitor, f"{run}.{number}.{turn}@example.com")
        visitor.close()

    def _post_one(self, visitor: Visitor, email: str) -> None:
        key = str(uuid.uuid4())
        while not self._stopping.is_set():
            try:
                answer = visitor.post_lead(self._stack.key, note=UNSURE, email=email, idempotency_key=key)
            except OSError as error:
                with self._lock:
                    self.broken.append(str(error))
                return
            with self._lock:
                self.slowest = max(self.slowest, answer.seconds)
                if answer.status in (200, 201):
                    self.accepted[email] = answer.json["id"]
                    return
                if answer.status != 503:
                    self.broken.append(f"{answer.status}: {answer.text[:300]}")
                    return
                self.refused.append(answer)

    def more_accepted(self, number: int) -> Callable[[], bool]:
        """A condition: so many more than now."""
        target = len(self.accepted) + number
        return lambda: len(self.accepted) >= target


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""What all stand-ins share: an HTTP/1.1 server that records what it is sent and misbehaves on demand.

Faults, in Python (``fake.fail_next("POST /people", kind="500", times=2)``) or over HTTP (``POST /__faults`` with
``{"match", "kind", "times", "seconds", "retry_after"}``)::

    500, 503, 404 …   that status, before anything is done
    500_after …       that status, although it was done
    busy, busy_after  503 with Retry-After (``retry_after``, as for 429)
    401, 403          as the service words a bad credential
    expired           as the service words a credential that was good until now
    429               with Retry-After (``retry_after``: seconds, ``date`` for an HTTP date a second or two ahead; None
                      leaves the header out)
    reset_before      connection reset, nothing done        reset_after   … although it was done
    hang, hang_after  no answer for ``seconds``, then the connection closes
    slow              the right answer, ``seconds`` late
    drip              the right answer, a byte at a time over ``seconds``
    cut_after         done, and the connection reset in the middle of the answer
    partial           a part of what was asked is done and a part refused: only for services that have such a thing, and so
                      :meth:`FakeServer.partial`; the others refuse the fault
    garbage           200 with a body that is no JSON

``GET /__state`` shows what is stored, ``GET /__requests`` what was sent, ``POST /__reset`` forgets all of it.
"""

import argparse
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """``path`` is relative to the service's base path; ``json`` None when the body is none. ``pairs``: the query with names
    that repeat."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes
    at: float = field(default_factory=time.time)
    pairs: tuple[tuple[str, str], ...] = ()

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass
class Response:
    status: int = 200
    json: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    drip: float | None = None  # seconds over which the answer trickles
    cut: bool = False  # reset in the middle of the answer

    def encoded(self) -> bytes:
        if self.text is not None:
            return self.text.encode()
        return b"" if self.json is None else json.dumps(self.json, ensure_ascii=False).encode()


@dataclass
class Fault:
    match: str  # "*", "POST", or "POST /people": method and the path's start
    kind: str
    times: int = 1
    seconds: float = 60.0
    retry_after: str | None = "1"
    then: bool = False  # only once those before it have struck

    def fits(self, request: Request) -> bool:
        method, _, path = self.match.partition(" ")
        return method in ("*", request.method) and request.path.startswith(path)


class FakeServer:
    """Base of the stand-ins; a subclass has :meth:`handle`, :meth:`state` and :meth:`forget`."""

    base_path: ClassVar[str] = ""
    #: How often it looks whether it is to close, in seconds.
    looks_every: ClassVar[float] = 0.02

    def __init__(
        self,
        *,
        port: int = 0,
        latency: float = 0.0,
        host: str = "127.0.0.1",
        context: ssl.SSLContext | None = None,
    ) -> None:
        """``context``: speaks TLS with it, as ``localhost``."""
        self.latency = latency
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self._working = self.busiest = 0  # busiest: most calls at a time
        self._closing = threading.Event()
        self._server = _Server((host, port), _handler_for(self))
        self._tls = context is not None
        if context is not None:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(self.looks_every,), daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"https://localhost:{port}{self.base_path}" if self._tls else f"http://{host!s}:{port}{self.base_path}"

    @property
    def root(self) -> str:
        return self.url.removesuffix(self.base_path)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and cut what is still open."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.cut_all()

    # For tests

    def fail_next(
        self,
        match: str = "*",
        *,
        kind: str,
        times: int = 1,
        seconds: float = 60.0,
        retry_after: str | None = "1",
        then: bool = False,
    ) -> None:
        """``then``: only once the faults that were asked for before have struck."""
        if kind == "partial" and type(self).partial is FakeServer.partial:
            raise ValueError(f"{type(self).__name__} knows no partial failure")
        with self.lock:
            self.faults.append(Fault(match, kind, times, seconds, retry_after, then))

    def calls(self, match: str = "*") -> list[Request]:
        """What was sent so far, faults included."""
        with self.lock:
            return [request for request in self.requests if Fault(match, "").fits(request)]

    @property
    def idle(self) -> bool:
        """Nothing is being worked on: whatever will take effect, has."""
        return self._working == 0

    # For services

    def handle(self, request: Request) -> Response:
        raise NotImplementedError

    def state(self) -> Any:
        return {}

    def forget(self) -> None:
        """Clear what the service stores."""

    def error(self, status: int) -> Response:
        """How the service words a bare error."""
        return Response(status, {"error": f"fault {status}"})

    def expired(self) -> Response:
        """How the service words a credential that has run out."""
        return self.error(401)

    def partial(self, request: Request) -> Response:
        """Do a part of what is asked, and say so in the service's words. A service that has such answers (batches of which
        each item has a result, recipients of whom some are refused) overrides it."""
        raise NotImplementedError

    def throttled(self, retry_after: str | None) -> Response:
        found = self.error(429)
        if retry_after is not None:
            found.headers["Retry-After"] = retry_after
        return found

    def busy(self, retry_after: str | None) -> Response:
        found = self.error(503)
        if retry_after is not None:
            found.headers["Retry-After"] = retry_after
        return found

    def _next_fault(self, request: Request) -> Fault | None:
        with self.lock:
            for number, fault in enumerate(self.faults):
                if fault.times > 0 and fault.fits(request):
                    if fault.then and any(one.times > 0 for one in self.faults[:number]):
                        continue
                    fault.times -= 1
                    return fault
        return None

    def _answer(self, request: Request) -> Response | None:
        """None: reset the connection."""
        with self.lock:
            self.requests.append(request)
            self._working += 1
            self.busiest = max(self.busiest, self._working)
        try:
            return self._done(request)
        finally:
            with self.lock:
                self._working -= 1

    def _done(self, request: Request) -> Response | None:
        if self.latency:
            self._closing.wait(self.latency)
        fault = self._next_fault(request)
        if fault is None:
            return self.handle(request)
        kind, _, when = fault.kind.partition("_")
        done = self.handle(request) if when == "after" else None
        if kind in ("hang", "slow"):
            self._closing.wait(fault.seconds)
            return self.handle(request) if kind == "slow" else None
        if kind == "garbage":
            return Response(200, text="<html>not JSON", headers={"Content-Type": "text/html"})
        if kind in ("429", "busy"):
            asked = formatdate(time.time() + 2, usegmt=True) if fault.retry_after == "date" else fault.retry_after
            return self.throttled(asked) if kind == "429" else self.busy(asked)
        if kind == "expired":
            return self.expired()
        if kind == "partial":
            return self.partial(request)
        if kind == "drip":
            return replace(self.handle(request), drip=fault.seconds)
        if kind == "cut" and done is not None:
            return replace(done, cut=True)
        return None if kind == "reset" else self.error(int(kind))

    def _control(self, request: Request) -> Response:
        match request.method, request.path:
            case "GET", "/__state":
                with self.lock:
                    return Response(200, self.state())
            case "GET", "/__requests":
                with self.lock:
                    seen = list(self.requests)
                shown = [{"method": r.method, "path": r.path, "query": r.query, "json": r.json} for r in seen]
                return Response(200, shown)
            case "POST", "/__faults":
                for one in request.json if isinstance(request.json, list) else [request.json]:
                    try:
                        self.fail_next(one.pop("match", "*"), **one)
                    except ValueError as error:
                        return Response(400, {"error": str(error)})
                return Response(200, {"faults": [vars(fault) for fault in self.faults if fault.times > 0]})
            case "POST", "/__latency":
                self.latency = float(request.json["seconds"])
                return Response(200, {"seconds": self.latency})
            case "POST", "/__reset":
                with self.lock:
                    self.requests.clear()
                    self.faults.clear()
                    self.forget()
                return Response(200, {"ok": True})
        return Response(404, {"error": "no such control"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if isinstance(request, ssl.SSLSocket):  # here, so that those who come together do not wait for one another
            request.do_handshake()
        super().finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are what the tests are about."""

    def cut_all(self) -> None:
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _handler_for(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # One segment per answer: two small writes would cost 40 ms of delayed ACK each.
        disable_nagle_algorithm = True
        wbufsize = -1

        def parse_request(self) -> bool:
            """Without the parser for e-mail, which takes longer than the rest of an answer."""
            self.requestline = self.raw_requestline.decode("iso-8859-1").rstrip("\r\n")
            self.command, self.path, self.request_version = self.requestline.split()
            self._given: dict[str, str] = {}
            while (line := self.rfile.readline(65_537)) not in (b"\r\n", b"\n", b""):
                name, _, value = line.decode("iso-8859-1").partition(":")
                self._given[name.strip().lower()] = value.strip()
            self.close_connection = self._given.get("connection", "").lower() == "close"
            return True

        def _serve(self) -> None:
            size = int(self._given.get("content-length") or 0)
            parts = urlsplit(self.path)
            control = parts.path.startswith("/__")
            path = parts.path if control else parts.path.removeprefix(fake.base_path)
            pairs = parse_qsl(parts.query, keep_blank_values=True)
            request = Request(
                self.command,
                path,
                dict(pairs),
                self._given,
                self.rfile.read(size),
                pairs=tuple(pairs),
            )
            response = fake._control(request) if control else fake._answer(request)
            if response is None:
                self._reset()
                return
            content = response.encoded()
            headers = {
                "Server": "stand-in",
                "Date": formatdate(usegmt=True),
                "Content-Type": "application/json; charset=utf-8",
                **response.headers,
                "Content-Length": str(len(content)),
            }
            lines = [f"HTTP/1.1 {response.status} {self.responses.get(response.status, ('',))[0]}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            self.wfile.write("\r\n".join([*lines, "", ""]).encode("iso-8859-1"))
            if response.cut:
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self._reset()
                return
            if response.drip is None:
                self.wfile.write(content)
                self.wfile.flush()
                return
            self.wfile.flush()
            self._trickle(content, response.drip)

        def _trickle(self, content: bytes, seconds: float) -> None:
            for position in range(len(content)):
                if fake._closing.wait(seconds / len(content)):
                    return
                self.wfile.write(content[position : position + 1])
                self.wfile.flush()

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

        def _reset(self) -> None:
            # Lingering for no time makes close() send RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def main(make: Callable[[argparse.Namespace], FakeServer], extra: Callable[[argparse.ArgumentParser], None]) -> None:
    """Run a stand-in until it is interrupted; the first line printed is its URL."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    extra(parser)
    arguments = parser.parse_args()
    FakeServer.looks_every = 0.5  # nobody waits for its end
    with make(arguments) as fake:
        print(fake.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()

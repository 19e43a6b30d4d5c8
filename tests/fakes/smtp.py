"""A stand-in of a mail server: SMTP with STARTTLS and AUTH, that keeps what it takes and misbehaves on demand.

Faults are asked for as of the other stand-ins (tests/fakes/server.py), with the verb in place of method and path:
``fake.fail_next("RCPT bob@", kind="451")``. ``DOT`` is the end of a message, where it is taken. Kinds::

    451, 554 …        that answer; nothing is done             451_after …   that answer, although it was done
    554 5.7.1 No …    that answer in words
    reset_before, reset_after, hang, hang_after, slow, drip, garbage         as there
"""

import argparse
import base64
import contextlib
import email
import socket
import socketserver
import ssl
import struct
import threading
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import default
from typing import Any, Self

from tests.fakes.server import Fault, Request

USER, PASSWORD = "console", "mail-password"


@dataclass(frozen=True)
class Mail:
    """What was taken: envelope and message. ``secure``, ``user``: how it came."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    secure: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        found = email.message_from_bytes(self.raw, policy=default)
        assert isinstance(found, EmailMessage)
        return found

    @property
    def text(self) -> str:
        part = self.message.get_body(("plain",))
        assert part is not None
        return str(part.get_content()).replace("\r\n", "\n")

    @property
    def html(self) -> str:
        part = self.message.get_body(("html",))
        assert part is not None
        return str(part.get_content())


class SmtpFake:
    """``context``: offers STARTTLS with it, or speaks TLS from the beginning (``implicit``)."""

    def __init__(
        self,
        *,
        port: int = 0,
        latency: float = 0.0,
        context: ssl.SSLContext | None = None,
        implicit: bool = False,
        logins: bool = True,
    ) -> None:
        self.latency = latency
        self.context, self.implicit, self.logins = context, implicit, logins
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.mails: list[Mail] = []
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self.working = 0
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def fail_next(
        self,
        match: str = "*",
        *,
        kind: str,
        times: int = 1,
        seconds: float = 60.0,
        retry_after: str | None = None,
        then: bool = False,
    ) -> None:
        with self.lock:
            self.faults.append(Fault(match, kind, times, seconds, retry_after, then))

    def calls(self, match: str = "*") -> list[Request]:
        with self.lock:
            return [request for request in self.requests if Fault(match, "").fits(request)]

    @property
    def idle(self) -> bool:
        return self.working == 0

    def forget(self) -> None:
        self.mails.clear()

    def met(self, verb: str, argument: str) -> Fault | None:
        request = Request(verb, argument, {}, {}, b"")
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times > 0 and fault.fits(request):
                    fault.times -= 1
                    return fault
        return None


class _Gone(Exception):
    """The connection is over."""


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], fake: SmtpFake) -> None:
        self.fake = fake
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are what the tests are about."""


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def setup(self) -> None:
        self.fake = self.server.fake
        self.sock: socket.socket = self.request
        self.secure, self.user = False, None
        self.sender, self.recipients = "", []
        self._buffer = b""

    def handle(self) -> None:
        with contextlib.suppress(_Gone, OSError):
            if self.fake.implicit and self.fake.context is not None:
                self._secured()
            self._do("CONNECT", "", lambda: "220 mail.example.com ESMTP")
            while True:
                verb, _, rest = self._line().partition(" ")
                if not self._command(verb.upper(), rest):
                    return

    def finish(self) -> None:
        self.sock.close()

    def _command(self, verb: str, rest: str) -> bool:
        match verb:
            case "EHLO" | "HELO":
                self._do("EHLO", rest, self._features)
            case "STARTTLS" if self.fake.context is not None and not self.secure:
                self._do("STARTTLS", "", lambda: "220 Ready to start TLS")
                self._secured()
            case "AUTH" if self.fake.logins:
                self._do("AUTH", "", lambda: self._login(rest))
            case "MAIL":
                self._do("MAIL", _address(rest), lambda: self._begin(_address(rest)))
            case "RCPT":
                self._do("RCPT", _address(rest), lambda: self._add(_address(rest)))
            case "DATA":
                said = self._do("DATA", "", lambda: "354 End data with <CR><LF>.<CR><LF>")
                if said.startswith("354"):
                    raw = self._message()
                    self._do("DOT", "", lambda: self._take(raw))
            case "RSET":
                self._do("RSET", "", lambda: self._begin("") and "250 2.0.0 Ok")
            case "QUIT":
                self._do("QUIT", "", lambda: "221 2.0.0 Bye")
                return False
            case _:
                self._say("502 5.5.2 Command not recognized")
        return True

    def _do(self, verb: str, argument: str, done: Any) -> str:
        """Answers a command, or what a fault makes of it; returns what was said."""
        with self.fake.lock:
            self.fake.working += 1
        try:
            return self._answered(verb, argument, done)
        finally:
            with self.fake.lock:
                self.fake.working -= 1

    def _answered(self, verb: str, argument: str, done: Any) -> str:
        if self.fake.latency:
            self.fake.closing.wait(self.fake.latency)
        fault = self.fake.met(verb, argument)
        if fault is None:
            return self._say(done())
        kind, _, when = fault.kind.partition("_")
        if when == "after":
            done()
        if kind in ("hang", "slow"):
            self.fake.closing.wait(fault.seconds)
            if kind == "hang":
                raise _Gone
            return self._say(done())
        if kind == "reset":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()
            raise _Gone
        if kind == "drip":
            return self._trickled(done(), fault.seconds)
        if kind == "garbage":
            return self._say("<html>not SMTP")
        return self._say(kind if " " in kind else f"{kind} {kind[0]}.7.1 Service says no")

    def _features(self) -> str:
        found = ["mail.example.com", "8BITMIME", "PIPELINING"]
        found += ["STARTTLS"] if self.fake.context is not None and not self.secure else []
        found += ["AUTH PLAIN LOGIN"] if self.fake.logins and (self.secure or self.fake.context is None) else []
        return "\r\n".join([*(f"250-{one}" for one in found[:-1]), f"250 {found[-1]}"])

    def _login(self, rest: str) -> str:
        mechanism, _, given = rest.partition(" ")
        if mechanism.upper() == "LOGIN":
            user = base64.b64decode(given).decode()
            self._say("334 UGFzc3dvcmQ6")
            password = base64.b64decode(self._line()).decode()
        else:
            _, user, password = base64.b64decode(given).decode().split("\0")
        if (user, password) != (USER, PASSWORD):
            return "535 5.7.8 Authentication credentials invalid"
        self.user = user
        return "235 2.7.0 Accepted"

    def _begin(self, sender: str) -> str:
        self.sender, self.recipients = sender, []
        return "250 2.1.0 Ok"

    def _add(self, recipient: str) -> str:
        self.recipients.append(recipient)
        return "250 2.1.5 Ok"

    def _take(self, raw: bytes) -> str:
        with self.fake.lock:
            self.fake.mails.append(Mail(self.sender, tuple(self.recipients), raw, self.secure, self.user))
        return "250 2.0.0 Ok: queued as 1A2B3C"

    def _secured(self) -> None:
        assert self.fake.context is not None
        self.sock = self.fake.context.wrap_socket(self.sock, server_side=True)
        self.secure, self._buffer = True, b""

    def _message(self) -> bytes:
        lines = []
        while (line := self._read_line()) != b".":
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"\r\n".join(lines) + b"\r\n"

    def _line(self) -> str:
        return self._read_line().decode("utf-8", "replace")

    def _read_line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            found = self.sock.recv(65_536)
            if not found:
                raise _Gone
            self._buffer += found
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _say(self, words: str) -> str:
        self.sock.sendall(words.encode() + b"\r\n")
        return words

    def _trickled(self, words: str, seconds: float) -> str:
        content = words.encode() + b"\r\n"
        for position in range(len(content)):
            if self.fake.closing.wait(seconds / len(content)):
                raise _Gone
            self.sock.sendall(content[position : position + 1])
        return words


def _address(rest: str) -> str:
    return rest.partition("<")[2].partition(">")[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    arguments = parser.parse_args()
    with SmtpFake(port=arguments.port, latency=arguments.latency) as fake:
        print(fake.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()

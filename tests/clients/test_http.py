"""Time limits, redirects, Retry-After, and what an excerpt may show."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.server import FakeServer, Request, Response
from tests.fakes.tls import self_signed, signed, some_authorities
from webapp.clients import guard
from webapp.clients.http import HttpClient, parse_retry_after, redact
from webapp.clients.trust import trusted
from webapp.leads.ports import OutcomeUnknown, Refused, Throttled, Unreached, Unusable

LOCAL = guard.networks(["127.0.0.0/8"])


class _Echo(FakeServer):
    answer = Response(200, {"ok": True})

    def handle(self, request: Request) -> Response:
        return self.answer


@pytest.fixture
def server() -> Iterator[_Echo]:
    with _Echo() as fake:
        yield fake


def test_a_redirect_is_not_followed(server: _Echo) -> None:
    server.answer = Response(302, None, {"Location": f"{server.url}/elsewhere"})
    with pytest.raises(Refused, match="redirects"):
        HttpClient(server.url, timeout=2).call("POST", json_body={})
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("host", "ended", "words"),
    [
        ("localhost", False, "self-signed certificate$"),
        ("localhost", False, "unable to get local issuer certificate$"),
        ("localhost", True, "certificate has expired$"),
        ("other.example", False, "certificate is not valid for 'localhost'$"),
    ],
)
@pytest.mark.parametrize("allow", [None, LOCAL])
def test_whoever_shows_a_certificate_that_is_not_good_cannot_be_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allow: Any, host: str, ended: bool, words: str
) -> None:
    context, authority = self_signed(tmp_path) if "self" in words else signed(tmp_path, host, ended=ended)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    if ended or host != "localhost":
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with _Echo(context=context) as server:
        client = HttpClient(server.url, timeout=5, allow=allow)
        with pytest.raises(Unusable, match="its certificate is not good: .*" + words) as unusable:
            client.call("POST", json_body={})
        assert "SSL_CERT_FILE" in unusable.value.remedy and server.requests == []


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("allow", [None, LOCAL])
def test_an_authority_of_ones_own_counts_besides_the_usual_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allow: Any, variable: str
) -> None:
    contexts = some_authorities(tmp_path, monkeypatch, variable=variable)
    for context in (contexts.usual, contexts.own):
        with _Echo(context=context) as server:
            client = HttpClient(server.url, timeout=5, allow=allow)
            assert [client.call("POST", json_body={}).status for _ in range(2)] == [200, 200]
    with _Echo(context=contexts.unknown) as server:
        with pytest.raises(Unusable, match="certificate is not good"):
            HttpClient(server.url, timeout=5, allow=allow).call("POST", json_body={})
        assert server.requests == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_authorities_that_is_none_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    context, _ = signed(tmp_path)
    file = tmp_path / "named.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with _Echo(context=context) as server:
        with pytest.raises(Unusable, match="SSL_CERT_FILE names no file of certificates"):
            HttpClient(server.url, timeout=5, allow=LOCAL).call("POST", json_body={})
        assert server.requests == []


def test_no_tls_at_all_may_be_a_moment_s_trouble() -> None:
    def greet(listening: socket.socket) -> None:
        with listening.accept()[0] as connection, contextlib.suppress(ConnectionError):
            # At once: a server that first waits for a line's end may wait for ever, as a TLS greeting need not have one.
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            while connection.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=greet, args=(listening,))
        server.start()
        with pytest.raises(Unreached, match="no connection"):
            HttpClient(f"https://127.0.0.1:{listening.getsockname()[1]}", timeout=5).call("POST", json_body={})
        server.join(10)
    assert not server.is_alive()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (408, Unreached), (409, Unreached), (425, Unreached), (429, Throttled), (500, OutcomeUnknown),
        (502, OutcomeUnknown), (504, OutcomeUnknown), (400, Refused), (401, Refused), (404, Refused),
        (410, Refused), (422, Refused),
    ],
)  # fmt: skip
def test_statuses_in_the_domain_s_words(server: _Echo, status: int, error: type[Exception]) -> None:
    server.answer = Response(status, {"error": "no"})
    with pytest.raises(error) as raised:
        HttpClient(server.url, timeout=2).call("POST", json_body={})
    assert type(raised.value) is error
    assert raised.value.exchange.http_status == status  # type: ignore[attr-defined]
    if error is Refused:
        assert raised.value.gone == (status == 410)  # type: ignore[attr-defined]
        assert raised.value.destination_wide == (status == 401)  # type: ignore[attr-defined]


def test_a_read_that_gets_no_answer_leaves_nothing_unknown(server: _Echo) -> None:
    client = HttpClient(server.url, timeout=2)
    for kind in ("reset_before", "500"):
        server.fail_next(kind=kind)
        with pytest.raises(Unreached):
            client.call("GET")


def test_a_slow_server_is_left_at_the_time_limit(server: _Echo) -> None:
    server.fail_next(kind="hang")
    started = time.monotonic()
    with pytest.raises(OutcomeUnknown, match="timed out"):
        HttpClient(server.url, timeout=0.3).call("POST", json_body={})
    assert time.monotonic() - started < 2


def test_connections_are_reused(server: _Echo) -> None:
    client = HttpClient(server.url, timeout=2)
    for _ in range(5):
        client.call("POST", json_body={})
    assert len(client._idle) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0), ("0", 0.0), ("1.5", 1.5), ("Fri, 02 Jan 2026 00:02:00 GMT", 120.0),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 0.0), ("soon", None), ("-3", None), ("nan", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now=datetime(2026, 1, 2, tzinfo=UTC)) == seconds


def test_excerpts_hold_no_secret_and_no_personal_data(server: _Echo) -> None:
    server.answer = Response(200, {"echo": "s3cret-token-value", "mail": "ana@example.com", "tel": "+84 912 345 678"})
    exchange = HttpClient(server.url, timeout=2, secrets=("s3cret-token-value",)).call("GET").exchange
    assert exchange.excerpt == '{"echo": "***", "mail": "***@example.com", "tel": "+***"}'
    assert redact("Authorization: Bearer abcdefghijkl") == "Authorization: Bearer ***"


def test_a_body_without_end_is_cut(server: _Echo) -> None:
    server.answer = Response(200, text="x" * 5_000_000)
    assert HttpClient(server.url, timeout=5).call("GET").status == 200


def test_an_answer_that_trickles_ends_with_the_time_limit(server: _Echo) -> None:
    """Each byte alone comes in good time, all of them would take a minute."""
    server.answer = Response(200, {"text": "x" * 60})
    server.fail_next(kind="drip", seconds=60)
    began = time.monotonic()
    answer = HttpClient(server.url, timeout=0.5).call("POST", json_body={})
    assert time.monotonic() - began < 5
    assert (answer.status, answer.data) == (200, None)  # it took the call; what it had to say is not known


def test_headers_that_trickle_do_as_well() -> None:
    """A receiver that never gets to the end of its headers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stopped = threading.Event()

        def trickle() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not stopped.wait(0.05):
                    connection.sendall(b"X: y\r\n")

        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        try:
            with pytest.raises(OutcomeUnknown, match="timed out"):
                HttpClient(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=0.5).call("POST", json_body={})
        finally:
            stopped.set()
            thread.join()
    assert time.monotonic() - began < 5


def test_an_answer_that_is_cut_off_leaves_the_outcome_unknown(server: _Echo) -> None:
    server.fail_next(kind="cut_after")
    with pytest.raises(OutcomeUnknown):
        HttpClient(server.url, timeout=2).call("POST", json_body={})


def test_threads_that_begin_together_read_the_authorities_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some_authorities(tmp_path, monkeypatch, variable="SSL_CERT_FILE")  # a file that nobody has read yet
    together = threading.Barrier(8)

    def ask(_: int) -> ssl.SSLContext:
        together.wait(10)
        return trusted()

    with ThreadPoolExecutor(8) as pool:
        contexts = list(pool.map(ask, range(8)))
    assert len({id(context) for context in contexts}) == 1


def test_what_a_service_sets_as_a_cookie_is_not_sent_with_the_next_delivery(server: _Echo) -> None:
    server.answer = Response(200, {"ok": True}, headers={"Set-Cookie": "session=one; Path=/"})
    client = HttpClient(server.url, timeout=5)
    for _ in range(2):
        client.call("POST", json_body={})
    assert not any("cookie" in request.headers for request in server.requests)


@pytest.mark.parametrize(
    ("host", "words"),
    [("nobody.invalid", "no server of that name is found"), ("127.0.0.1", "nothing answers at that address")],
)
def test_why_nothing_could_be_sent_is_said_in_words(host: str, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unreached, match=f"^no connection: {words}$"):
        HttpClient(f"http://{host}:{port}", timeout=5).call("POST", json_body={})

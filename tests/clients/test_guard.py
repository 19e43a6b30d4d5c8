"""URLs that users enter reach public addresses only, by whatever name."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.webhook_receiver import WebhookReceiver
from webapp.clients.guard import is_allowed, networks
from webapp.clients.http import HttpClient
from webapp.leads.ports import Refused, Unreached, Unusable


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver(secret=None) as fake:
        yield fake


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::",
    ],
)  # fmt: skip
def test_private_addresses_are_blocked(address: str) -> None:
    assert not is_allowed(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:4700::6810:85e5", "::ffff:93.184.215.14"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(address)


def test_allow_list() -> None:
    allow = networks(("127.0.0.0/8",))
    assert is_allowed("127.0.0.1", allow)
    assert is_allowed("::ffff:127.0.0.1", allow)
    assert not is_allowed("10.0.0.1", allow)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]"])
def test_a_guarded_client_never_connects_to_loopback(receiver: WebhookReceiver, host: str) -> None:
    port = receiver.url.split(":")[2]
    with pytest.raises((Refused, Unreached)) as refused:
        HttpClient(f"http://{host}:{port}", timeout=2, allow=()).call("POST", json_body={})
    assert "not a public address" in str(refused.value) or "no connection" in str(refused.value)
    assert receiver.requests == []


def test_an_allowed_range_and_the_operator_s_own_urls_pass(receiver: WebhookReceiver) -> None:
    for allow in (networks(("127.0.0.0/8",)), None):
        assert HttpClient(receiver.url, timeout=2, allow=allow).call("POST", json_body={"n": 1}).status == 200


def test_what_has_to_be_encrypted_goes_over_plain_http_only_where_the_operator_says_so(
    receiver: WebhookReceiver,
) -> None:
    for url in ("http://93.184.215.14", "http://[2606:4700::6810:85e5]:8080"):
        with pytest.raises(Unusable, match="over plain http") as refused:
            HttpClient(url, timeout=2, allow=networks(("127.0.0.0/8",)), encrypted=True).call("GET")
        assert "https://" in refused.value.remedy
    allowed = HttpClient(receiver.url, timeout=2, allow=networks(("127.0.0.0/8",)), encrypted=True)
    assert allowed.call("POST", json_body={"n": 1}).status == 200


def test_the_checked_address_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is public when looked up first and private the second time (DNS rebinding)."""
    real, answers = socket.getaddrinfo, iter(["93.184.215.14", "127.0.0.1"])
    connected: list[Any] = []

    def rebinding(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        return real(next(answers) if host == "rebind.example" else host, port, *args, **kwargs)

    def connect(sock: socket.socket, address: Any) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket.socket, "connect", connect)
    client = HttpClient("http://rebind.example:80", timeout=2, allow=())
    with pytest.raises(Unreached):
        client.call("POST", json_body={})
    with pytest.raises(Refused, match="not a public address"):
        client.call("POST", json_body={})
    assert connected == ["93.184.215.14"]


def test_the_host_header_keeps_the_name(receiver: WebhookReceiver) -> None:
    port = receiver.url.split(":")[2].split("/")[0]
    HttpClient(f"http://localhost:{port}/hook", timeout=2, allow=networks(("127.0.0.0/8",))).call("POST", json_body={})
    assert receiver.requests[0].headers["host"] == f"localhost:{port}"

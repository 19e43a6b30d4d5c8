"""E-mail: whatever the server does, each recipient has one message, or somebody is told that nobody knows."""

import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.clients.support import a_request
from tests.fakes.smtp import PASSWORD, USER, SmtpFake
from tests.fakes.tls import self_signed, some_authorities
from webapp.clients.guard import networks
from webapp.clients.mail import MailClient
from webapp.clients.smtp import PLAIN, STARTTLS, TLS, Server, SmtpClient
from webapp.leads.kinds.mail import KIND
from webapp.leads.ports import DeliveryRequest, OutcomeUnknown, Partly, Refused, Unreached, Unusable
from webapp.leads.states import DeliveryOperation, DestinationKind

LOCAL = networks(("127.0.0.0/8",))
SENDER = "leads@acme.example"
ANA, BOB = "ana@acme.example", "bob@acme.example"


@pytest.fixture
def mail() -> Iterator[SmtpFake]:
    with SmtpFake() as fake:
        yield fake


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(the server's, one that trusts it) of a certificate for localhost."""
    theirs, certificate = self_signed(tmp_path_factory.mktemp("tls"))
    return theirs, ssl.create_default_context(cafile=str(certificate))


def _server(fake: SmtpFake, **over: Any) -> Server:
    return replace(Server("localhost", fake.port, PLAIN, None, None, 2.0, LOCAL), **over)


def _client(fake: SmtpFake, to: tuple[str, ...] = (ANA,), **over: Any) -> MailClient:
    return MailClient(SmtpClient(_server(fake, **over)), sender=SENDER, recipients=to)


def _request(**over: Any) -> DeliveryRequest:
    return a_request("mail", kind=DestinationKind.EMAIL, **over)


def _again(request: DeliveryRequest, remote_id: str, **over: Any) -> DeliveryRequest:
    return replace(request, remote={"mail": remote_id}, attempt=2, **over)


def test_a_mail_says_what_the_lead_is_and_is_known_by_its_id(mail: SmtpFake) -> None:
    request = _request()
    receipt = _client(mail, (ANA, BOB)).send(request)
    (sent,) = mail.mails
    assert (sent.sender, sent.recipients) == (SENDER, (ANA, BOB))
    message = sent.message
    assert message["Message-ID"] == receipt.remote_id == f"<{request.delivery_id}@acme.example>"
    assert (message["X-Triage-Key"], message["Auto-Submitted"]) == (str(request.delivery_id), "auto-generated")
    assert message["Subject"] == "P1 · Price inquiry: Ana Nguyễn"
    assert "Cho tôi báo giá gói Enterprise" in sent.text and "Company: Ánh Dương" in sent.text
    assert '<th align="left">Company</th><td>Ánh Dương</td>' in sent.html


def test_a_lead_s_words_are_text_and_start_no_header(mail: SmtpFake) -> None:
    name = "Eve\r\nBcc: victim@example.com\r\n\r\n<script>alert(1)</script>"
    request = _request(name=name, message=".\r\n.\r\nMAIL FROM:<x@y>\r\n<img src=x onerror=alert(1)>\n..\n")
    _client(mail).send(request)
    (sent,) = mail.mails
    assert sent.recipients == (ANA,) and sent.message["Bcc"] is None
    assert sent.message["Subject"].startswith("P1 · Price inquiry: Eve Bcc: victim@example.com <script>")
    assert "<script" not in sent.html and "<img" not in sent.html and "&lt;img src=x onerror=alert(1)&gt;" in sent.html
    assert ".\n.\nMAIL FROM:<x@y>" in sent.text and sent.text.count("\n..") == 1


@pytest.mark.parametrize("kind", ["451", "421"])
@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
def test_not_now_is_tried_again(mail: SmtpFake, verb: str, kind: str) -> None:
    mail.fail_next(verb, kind=kind)
    with pytest.raises(Unreached, match=kind):
        _client(mail).send(_request())
    assert mail.mails == []


@pytest.mark.parametrize(("verb", "wide"), [("RCPT", True), ("DATA", False), ("DOT", False)])
def test_no_is_for_good(mail: SmtpFake, verb: str, wide: bool) -> None:
    mail.fail_next(verb, kind="554")
    with pytest.raises(Refused, match="554") as refused:
        _client(mail).send(_request())
    assert refused.value.destination_wide == wide
    assert mail.mails == []


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("CONNECT", "refuses the connection: 554"),
        ("EHLO", "refuses the connection: 554"),
        ("MAIL", "refuses the sender: 554"),
    ],
)
def test_what_is_refused_before_anything_is_said_of_the_lead_leaves_nobody_to_mail(
    mail: SmtpFake, verb: str, words: str
) -> None:
    mail.fail_next(verb, kind="554", times=2)
    with pytest.raises(Unusable, match=words) as unusable:
        _client(mail).send(_request())
    assert "choose another server or sender" in unusable.value.remedy
    assert mail.mails == []


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        (["554 5.7.1 <x>: Relay access denied"] * 2, Unusable),
        (["550 relay not permitted", "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain"], Unusable),
        (["530 5.7.0 Must issue a STARTTLS command first"] * 2, Unusable),
        (["554 5.7.1 <ana@acme.example>:Relay access denied", "550 mx.acme.example does not relay."], Unusable),
        (["554 5.7.1 <x>: Relay access denied", "550 5.1.1 <x>: no such user"], Refused),
        (["550 5.1.1 <sales@relay.example>: user unknown", "550 mx.relay.example: user unknown"], Refused),
        (["550 5.7.1 Message rejected by the recipient's policy"] * 2, Refused),
        (["550 5.1.1 <x>: no such user"] * 2, Refused),
        (["450 4.7.1 <x>: Relay access denied"] * 2, Unreached),
    ],
)
def test_a_server_that_relays_nothing_for_us_is_told_from_people_who_are_not_there(
    mail: SmtpFake, answers: list[str], error: type[Exception]
) -> None:
    for answer in answers:
        mail.fail_next("RCPT", kind=answer)
    with pytest.raises(error) as told:
        _client(mail, (ANA, BOB)).send(_request())
    assert type(told.value) is error and answers[0][:3] in str(told.value)
    assert mail.mails == []


def test_a_relay_that_takes_mail_for_some_is_used_for_them(mail: SmtpFake) -> None:
    mail.fail_next(f"RCPT {BOB}", kind="554 5.7.1 <x>: Relay access denied")
    _client(mail, (ANA, BOB)).send(_request())
    assert [sent.recipients for sent in mail.mails] == [(ANA,)]


@pytest.mark.parametrize("kind", ["reset_before", "hang", "garbage"])
@pytest.mark.parametrize("verb", ["CONNECT", "MAIL", "RCPT", "DATA"])
def test_before_the_message_is_handed_over_nothing_has_happened(mail: SmtpFake, verb: str, kind: str) -> None:
    mail.fail_next(verb, kind=kind)
    with pytest.raises(Unreached):
        _client(mail, timeout=0.5).send(_request())
    assert mail.mails == []


@pytest.mark.parametrize(
    ("kind", "taken"),
    [("reset_before", 0), ("hang", 0), ("garbage", 0), ("reset_after", 1), ("hang_after", 1), ("drip", 1)],
)
def test_once_it_is_handed_over_a_lost_answer_leaves_it_unknown(mail: SmtpFake, kind: str, taken: int) -> None:
    client, request = _client(mail, timeout=0.5), _request()
    mail.fail_next("DOT", kind=kind, seconds=30)
    with pytest.raises(OutcomeUnknown):
        client.send(request)
    assert len(mail.mails) == taken
    assert not client.reconciles and client.reconcile(request) is None


def test_the_time_limit_is_for_the_whole_conversation(mail: SmtpFake) -> None:
    mail.latency = 0.2  # each answer alone is in time
    with pytest.raises(Unreached, match="timed out"):
        _client(mail, timeout=0.5).send(_request())


def test_who_is_refused_for_good_is_told_of_and_the_others_have_it(mail: SmtpFake) -> None:
    mail.fail_next(f"RCPT {BOB}", kind="550")
    receipt = _client(mail, (ANA, BOB)).send(_request())
    assert [sent.recipients for sent in mail.mails] == [(ANA,)]
    assert "not taken for ***@acme.example: 550" in str(receipt.exchange.excerpt)


def test_who_is_refused_for_now_gets_it_later_and_nobody_gets_it_twice(mail: SmtpFake) -> None:
    client, request = _client(mail, (ANA, BOB)), _request()
    mail.fail_next(f"RCPT {BOB}", kind="450", times=2)
    with pytest.raises(Partly) as partly:
        client.send(request)
    with pytest.raises(Unreached):
        client.send(_again(request, partly.value.remote_id))
    receipt = client.send(_again(request, partly.value.remote_id))
    assert [sent.recipients for sent in mail.mails] == [(ANA,), (BOB,)]
    assert receipt.remote_id == f"<{request.delivery_id}@acme.example>"
    assert {sent.message["Message-ID"] for sent in mail.mails} == {receipt.remote_id}
    assert {sent.message["To"] for sent in mail.mails} == {f"{ANA}, {BOB}"}


def test_when_everybody_left_on_the_list_has_it_nobody_is_mailed_again(mail: SmtpFake) -> None:
    request = _request()
    mail.fail_next(f"RCPT {BOB}", kind="450")
    with pytest.raises(Partly) as partly:
        _client(mail, (ANA, BOB)).send(request)
    receipt = _client(mail, (ANA,)).send(_again(request, partly.value.remote_id))
    assert [sent.recipients for sent in mail.mails] == [(ANA,)] and len(mail.calls("CONNECT")) == 1
    assert receipt.remote_id == f"<{request.delivery_id}@acme.example>"
    # Who was taken off the list and is on it again has it still.
    carl = "carl@acme.example"
    mail.fail_next(f"RCPT {BOB}", kind="450")
    with pytest.raises(Partly) as second:
        _client(mail, (BOB, carl)).send(_again(request, partly.value.remote_id))
    _client(mail, (ANA, BOB, carl)).send(_again(request, second.value.remote_id))
    assert [sent.recipients for sent in mail.mails] == [(ANA,), (carl,), (BOB,)]


def test_a_thread_is_found_also_where_the_domain_is_long(mail: SmtpFake) -> None:
    domain = f"{'a' * 30}.{'b' * 25}.example"
    client = MailClient(SmtpClient(_server(mail)), sender=f"leads@{domain}", recipients=(ANA,))
    request = _request()
    first = str(client.send(request).remote_id)
    client.send(_again(request, first, operation=DeliveryOperation.WITHDRAW, revision=1))
    head = mail.mails[1].raw.partition(b"\r\n\r\n")[0].decode()
    assert f"In-Reply-To: {first}" in head and f"References: {first}" in head


def test_a_lead_taken_back_and_approved_again_stays_in_its_thread(mail: SmtpFake) -> None:
    client, request = _client(mail), _request()
    first = str(client.send(request).remote_id)
    client.send(_again(request, first, operation=DeliveryOperation.WITHDRAW, revision=1))
    client.send(_again(request, first, operation=DeliveryOperation.RESTORE, revision=2))
    messages = [sent.message for sent in mail.mails]
    assert [message["In-Reply-To"] for message in messages] == [None, first, first]
    assert len({message["Message-ID"] for message in messages}) == 3
    assert "was taken back" in mail.mails[1].text and "báo giá" not in mail.mails[1].text
    assert messages[1]["Subject"].startswith("Re: ")


def test_a_line_that_some_have_already_goes_to_the_others_alone(mail: SmtpFake) -> None:
    client, request = _client(mail, (ANA, BOB)), _request()
    first = str(client.send(request).remote_id)
    back = {"operation": DeliveryOperation.WITHDRAW, "revision": 1}
    mail.fail_next(f"RCPT {BOB}", kind="450")
    with pytest.raises(Partly) as partly:
        client.send(_again(request, first, **back))
    client.send(_again(request, partly.value.remote_id, **back))
    assert [sent.recipients for sent in mail.mails] == [(ANA, BOB), (ANA,), (BOB,)]
    assert {sent.message["In-Reply-To"] for sent in mail.mails[1:]} == {first}


def test_that_a_lead_was_taken_back_is_told_to_those_who_have_its_mail(mail: SmtpFake) -> None:
    carl = "carl@acme.example"
    client, request = _client(mail, (ANA, BOB, carl)), _request()
    mail.fail_next(f"RCPT {BOB}", kind="450")
    with pytest.raises(Partly) as some:
        client.send(request)
    back = {"operation": DeliveryOperation.WITHDRAW, "revision": 1}
    mail.fail_next(f"RCPT {carl}", kind="450")
    with pytest.raises(Partly) as fewer:
        client.send(_again(request, some.value.remote_id, **back))
    client.send(_again(request, fewer.value.remote_id, **back))
    assert [sent.recipients for sent in mail.mails] == [(ANA, carl), (ANA,), (carl,)]
    assert {sent.message["To"] for sent in mail.mails[1:]} == {f"{ANA}, {carl}"}
    # Approved again after that it is for all; before that, for those who lack it.
    restored = {"operation": DeliveryOperation.RESTORE, "revision": 2}
    for known, wanted in ((fewer, (ANA, BOB, carl)), (some, (BOB,))):
        client.send(_again(request, known.value.remote_id, **restored))
        assert mail.mails[-1].recipients == wanted


def test_several_leads_go_in_one_mail_with_an_id_of_their_own(mail: SmtpFake) -> None:
    client = _client(mail)
    requests = [_request(name=f"Lead {number}", message=f"Text {number}") for number in range(5)]
    first = client.send_together(requests)
    again = client.send_together(list(reversed(requests)))
    assert first.remote_id == again.remote_id
    one, _ = mail.mails
    assert one.message["Subject"].startswith("5 leads: ") and one.message["Subject"].endswith("and 2 more")
    assert all(f"Text {number}" in one.text and f"Text {number}" in one.html for number in range(5))


def test_mail_goes_encrypted_and_logs_in(mail: SmtpFake, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    theirs, ours = contexts
    for security, implicit in ((STARTTLS, False), (TLS, True)):
        with SmtpFake(context=theirs, implicit=implicit) as fake:
            login = {"security": security, "user": USER, "password": PASSWORD}
            _client(fake, context=ours, **login).send(_request())
            assert [(sent.secure, sent.user) for sent in fake.mails] == [(True, USER)]
            with pytest.raises(Unusable, match="refuses the login: 535") as unusable:
                _client(fake, context=ours, **(login | {"password": "wrong"})).send(_request())
            assert "wrong" not in unusable.value.message and "password right" in unusable.value.remedy
            with pytest.raises(Unusable, match="letters that a login cannot send"):
                _client(fake, context=ours, **(login | {"password": "pässword"})).send(_request())
            with pytest.raises(Unusable, match=r"its certificate is not good: self-signed certificate$") as unusable:
                _client(fake, **login).send(_request())
            assert "SSL_CERT_FILE" in unusable.value.remedy
            with pytest.raises(Unusable, match=r"certificate is not valid for '127\.0\.0\.1'"):
                _client(fake, context=ours, host="127.0.0.1", **login).send(_request())
            assert len(fake.mails) == 1
    with pytest.raises(Unusable, match="offers no STARTTLS"):
        _client(mail, security=STARTTLS, user=USER, password=PASSWORD).send(_request())
    assert mail.calls("AUTH") == [] and mail.mails == []


@pytest.mark.parametrize(("code", "error"), [("554", Unusable), ("454", Unreached)])
def test_encryption_that_a_server_offers_and_refuses_is_what_has_to_be_changed(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], code: str, error: type[Exception]
) -> None:
    theirs, ours = contexts
    with SmtpFake(context=theirs) as fake:
        fake.fail_next("STARTTLS", kind=code)
        with pytest.raises(error, match=f"refuses the encryption: {code}") as told:
            _client(fake, context=ours, security=STARTTLS).send(_request())
        assert type(told.value) is error and fake.calls("MAIL") == []
        if isinstance(told.value, Unusable):
            assert "another port and encryption" in told.value.remedy


@pytest.mark.parametrize(("security", "implicit"), [(STARTTLS, False), (TLS, True)])
def test_an_authority_of_ones_own_counts_besides_the_usual_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security: str, implicit: bool
) -> None:
    contexts = some_authorities(tmp_path, monkeypatch)
    for context in (contexts.usual, contexts.own):
        with SmtpFake(context=context, implicit=implicit) as fake:
            _client(fake, security=security).send(_request())
            assert [sent.secure for sent in fake.mails] == [True]
    with SmtpFake(context=contexts.unknown, implicit=implicit) as fake:
        with pytest.raises(Unusable, match="certificate is not good"):
            _client(fake, security=security).send(_request())
        assert fake.mails == []


def test_a_server_that_is_not_there_is_said_to_be(mail: SmtpFake) -> None:
    with pytest.raises(Unreached, match=f"there is no server called {'a' * 64}.example"):
        _client(mail, host=f"{'a' * 64}.example").send(_request())
    port = mail.port
    mail.close()
    with pytest.raises(Unreached, match=f"nothing answers at localhost, port {port}"):
        _client(mail).send(_request())


def test_any_yes_to_the_message_is_one_and_its_goodbye_is_not_waited_for(mail: SmtpFake) -> None:
    mail.fail_next("DOT", kind="251_after")
    mail.fail_next("QUIT", kind="hang")
    with ThreadPoolExecutor(1) as pool:
        receipt = pool.submit(_client(mail, timeout=20.0).send, _request()).result(timeout=15)
    assert receipt.exchange.excerpt == "251 2.7.1 Service says no" and len(mail.mails) == 1


def test_the_mail_server_s_address_is_guarded(mail: SmtpFake) -> None:
    with pytest.raises(Refused, match="not a public address"):
        _client(mail, allow=()).send(_request())
    assert mail.calls() == []


def test_a_test_goes_as_far_as_the_addresses(mail: SmtpFake) -> None:
    client = _client(mail, (ANA, BOB))
    assert "Nothing was sent" in client.probe()
    mail.fail_next(f"RCPT {BOB}", kind="550")
    assert f"does not take {BOB}" in client.probe()
    mail.fail_next("MAIL", kind="550")
    with pytest.raises(Unusable, match="refuses the sender"):
        client.probe()
    assert mail.mails == []


def test_trouble_is_told_by_mail(mail: SmtpFake) -> None:
    _client(mail).tell("Twenty: deliveries were given up.", "https://console.example/deliveries/dead?a=1&b=2")
    (sent,) = mail.mails
    assert "given up" in sent.text and 'href="https://console.example/deliveries/dead?a=1&amp;b=2"' in sent.html


_GIVEN = {
    "host": "smtp.acme.example",
    "port": "587",
    "security": "starttls",
    "sender": SENDER,
    "to": f"{ANA}, {BOB}",
    "when": "each",
}


@pytest.mark.parametrize(
    ("over", "field"),
    [
        ({"host": "smtp.acme.example/x"}, "host"),
        ({"port": "0"}, "port"),
        ({"sender": "Leads <leads@acme.example>\r\nBcc: x@y.zz"}, "sender"),
        ({"to": "ana@acme.example, nobody"}, "to"),
        ({"to": ",".join(f"a{number}@acme.example" for number in range(21))}, "to"),
        ({"user": "u", "password": "p", "security": "none"}, "security"),
        ({"user": "u"}, "password"),
        ({"user": "u", "password": "pässword"}, "password"),
        ({"user": "ü", "password": "p"}, "user"),
        ({"when": "minutes"}, "minutes"),
        ({"when": "daily"}, "hour"),
        ({"when": "daily", "hour": "8", "zone": "Mars/Olympus"}, "zone"),
    ],
)
def test_settings_that_cannot_work_are_refused(over: dict[str, str], field: str) -> None:
    assert [problem.field for problem in KIND.read(_GIVEN | over)[2]] == [field]
    assert KIND.read(_GIVEN)[2] == ()

"""SMTP as the destinations need it: one conversation within one time limit, guarded, with errors in the domain's words.

Until the message is handed over nothing has happened: whatever fails is tried again or refused by the server's own word.
From its first byte on, a time-out or a lost connection leaves unknown whether it was taken; an answer to the final dot
says so.
"""

import re
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from webapp.clients.deadline import reading, remaining, within
from webapp.clients.guard import Blocked, Network, connected
from webapp.clients.http import CERTIFICATE, CONNECT_TIMEOUT, redact, wrong_certificate
from webapp.clients.trust import trusted
from webapp.leads.ports import Exchange, OutcomeUnknown, Refused, Unreached, Unusable

STARTTLS, TLS, PLAIN = "starttls", "tls", "none"
_LOGIN = "Put user name and password right in its settings."
_ENCRYPTION = "Choose another port and encryption in its settings; without encryption, leave the user name empty."
_NOBODY = "It says so to every message: have it allowed there, or choose another server or sender in the settings."
_SAID = 200
_TICK = 0.05
#: How a server says that it takes mail from us for nobody outside, or for nobody before a login; a code of its own there is
#: not (RFC 3463: 5.7.1 is also said of a single recipient).
_RELAY = re.compile(r"^530 |\brelay(?:ing)?\b", re.IGNORECASE)
#: Addresses and host names, which a server repeats and which may be called relay themselves.
_NAMES = re.compile(r"[^\s<>:;,()]*(?:@|\.\w)[^\s<>:;,()]*")
#: What begins a line of the message with a dot has it doubled (RFC 5321, 4.5.2).
_DOT = re.compile(rb"(?m)^\.")


@dataclass(frozen=True, slots=True)
class Server:
    """``security``: starttls | tls | none. ``user`` None: no login. ``allow``: networks besides public addresses.
    ``context`` None: the authorities that are trusted everywhere."""

    host: str
    port: int
    security: str
    user: str | None
    password: str | None
    timeout: float
    allow: Sequence[Network] = ()
    context: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a message: what the server said, and whom it does not take it for, now or ever (address → words)."""

    reply: str
    later: Mapping[str, str]
    never: Mapping[str, str]


class SmtpClient:
    """One conversation for each message; used by several threads."""

    def __init__(self, server: Server, *, pace: Callable[[], None] = lambda: None) -> None:
        self._server = server
        self._pace = pace

    def send(self, sender: str, recipients: Sequence[str], message: bytes, shown: dict[str, Any]) -> Taken:
        """``message``: with CRLF at its lines' ends. ``shown``: as the delivery's page may show it. Raises Unreached,
        OutcomeUnknown or Refused, Refused with ``destination_wide`` where nobody of them is taken, and Unusable for what
        every other message would meet."""
        exchange = Exchange(payload=shown)
        with self._conversation(exchange) as talk:
            later, never = talk.addressed(sender, recipients, exchange)
            reply = talk.handed_over(message, exchange)
            with suppress(smtplib.SMTPException, OSError):
                talk.putcmd("QUIT")  # it has the message; nobody waits for its goodbye
        return Taken(reply, later, never)

    def check(self, sender: str, recipients: Sequence[str]) -> Mapping[str, str]:
        """Goes as far as the addresses and sends nothing. Returns those that are not taken, with the server's words."""
        with self._conversation(Exchange()) as talk:
            later, never = talk.addressed(sender, recipients, Exchange())
            with suppress(smtplib.SMTPException, OSError):
                talk.rset()
                talk.quit()
        return {**later, **never}

    @contextmanager
    def _conversation(self, exchange: Exchange) -> Iterator["_Talk"]:
        self._pace()
        server = self._server
        talk: _Talk | None = None
        with within(server.timeout) as ends_at:
            try:
                talk = _Talk(server, exchange)
                talk.began(exchange)
                yield talk
            except Blocked as error:
                raise Refused(f"blocked: {error}", exchange=exchange) from None
            except ssl.SSLError as error:
                if wrong := wrong_certificate(error):
                    raise Unusable(wrong, remedy=CERTIFICATE) from None
                words = error.reason or type(error).__name__
                raise _lost(talk, f"no secure connection: {words}", exchange) from None
            except (smtplib.SMTPException, OSError, UnicodeError) as error:
                # The library tells of a time-out as of a lost connection.
                late = isinstance(error, TimeoutError) or time.monotonic() >= ends_at - _TICK
                words = "timed out" if late else f"connection lost: {type(error).__name__}"
                raise _lost(talk, words, exchange) from None
            finally:
                if talk is not None:
                    talk.close()


class _Talk(smtplib.SMTP):
    """A guarded connection within the call's limit. ``handing_over``: the server may have the message."""

    handing_over = False

    def __init__(self, server: Server, exchange: Exchange) -> None:
        self._server = server
        self._exchange = exchange
        self.greeting = (0, b"")
        # The name that we say is ours; the library would ask the DNS for it.
        super().__init__(local_hostname=socket.gethostname() or "localhost", timeout=server.timeout)
        self._host = server.host  # what the certificate has to be for
        self.greeting = self.connect(server.host, server.port)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        try:
            sock = connected(host, port, self._server.allow, min(CONNECT_TIMEOUT, timeout))
        except (socket.gaierror, UnicodeError) as error:
            nobody = getattr(error, "errno", None) != socket.EAI_AGAIN
            words = f"there is no server called {host}" if nobody else f"the DNS does not answer about {host}"
            raise Unreached(words, exchange=self._exchange) from None
        except OSError:
            raise Unreached(f"nothing answers at {host}, port {port}", exchange=self._exchange) from None
        sock.settimeout(remaining(timeout))
        if self._server.security == TLS:
            return (self._server.context or trusted()).wrap_socket(sock, server_hostname=host)
        return sock

    def send(self, s: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(remaining(self._server.timeout))
        super().send(s)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = reading(self.sock)
        return super().getreply()

    def began(self, exchange: Exchange) -> None:
        """Greeted, secured and logged in."""
        server = self._server
        _expect(self.greeting, 220, exchange, remedy=_NOBODY, about="connection")
        _expect(self.ehlo(), 250, exchange, remedy=_NOBODY, about="connection")
        if server.security == STARTTLS:
            if not self.has_extn("starttls"):
                raise Unusable("the mail server offers no STARTTLS", remedy=_ENCRYPTION)
            try:
                self.starttls(context=server.context or trusted())
            except smtplib.SMTPResponseException as error:
                reply = (error.smtp_code, error.smtp_error)
                raise _said(reply, exchange, remedy=_ENCRYPTION, about="encryption") from None
            _expect(self.ehlo(), 250, exchange, remedy=_NOBODY)
        if server.user:
            self._log_in(server.user, server.password or "", exchange)

    def _log_in(self, user: str, password: str, exchange: Exchange) -> None:
        if not (user + password).isascii():
            raise Unusable("the user name or the password holds letters that a login cannot send", remedy=_LOGIN)
        try:
            self.login(user, password)
        except smtplib.SMTPAuthenticationError as error:
            reply = (error.smtp_code, error.smtp_error)
            raise _said(reply, exchange, remedy=_LOGIN, about="login") from None
        except smtplib.SMTPServerDisconnected:
            raise
        except smtplib.SMTPException:
            raise Unusable("the mail server takes no login", remedy=_ENCRYPTION) from None

    def addressed(
        self, sender: str, recipients: Sequence[str], exchange: Exchange
    ) -> tuple[dict[str, str], dict[str, str]]:
        """(recipients that are refused for now, and for good); raises when that is all of them."""
        _expect(self.mail(sender), 250, exchange, remedy=_NOBODY, about="sender")
        later: dict[str, str] = {}
        never: dict[str, str] = {}
        for recipient in recipients:
            code, said = self.rcpt(recipient)
            if code == 421:  # it hangs up
                raise _said((code, said), exchange)
            if not 200 <= code < 600 or 300 <= code < 400:
                raise Unreached(f"the mail server answered {code}, which makes no sense", exchange=exchange)
            if code >= 400:
                (later if code < 500 else never)[recipient] = _text(code, said)
        if len(later) + len(never) == len(recipients):
            words = "; ".join(f"{who}: {said}" for who, said in {**later, **never}.items())
            if later:
                raise Unreached(redact(f"nobody can be mailed now: {words}")[:_SAID], exchange=exchange)
            words = redact(f"refused for {words}")[:_SAID]
            if all(_RELAY.search(_NAMES.sub("", said)) for said in never.values()):
                raise Unusable(words, remedy=_NOBODY)
            raise Refused(words, exchange=exchange, destination_wide=True)
        return later, never

    def handed_over(self, message: bytes, exchange: Exchange) -> str:
        _expect(self.docmd("DATA"), 354, exchange, about="message")
        self.handing_over = True
        self.send(_DOT.sub(b"..", message) + b".\r\n")
        code, said = self.getreply()
        if not 200 <= code < 600 or 300 <= code < 400:
            raise OutcomeUnknown(f"the mail server answered {code}, which makes no sense", exchange=exchange)
        self.handing_over = False  # it has said
        if code >= 300:
            raise _said((code, said), exchange, about="message")
        return _text(code, said)


def _lost(talk: _Talk | None, words: str, exchange: Exchange) -> Exception:
    unknown = talk is not None and talk.handing_over
    return (OutcomeUnknown if unknown else Unreached)(words, exchange=exchange)


def _expect(reply: tuple[int, bytes], code: int, exchange: Exchange, *, remedy: str = "", about: str = "") -> None:
    if reply[0] != code:
        raise _said(reply, exchange, remedy=remedy, about=about)


def _said(reply: tuple[int, Any], exchange: Exchange, *, remedy: str = "", about: str = "") -> Exception:
    """5xx: no, for good; everything else: not now. ``about``: what of ours it is about. ``remedy``: what to do
    about a no that every other message would hear too, since nothing of this one has been said."""
    code, said = reply
    words = redact(f"the mail server refuses the {about}: {_text(code, said)}" if about else _text(code, said))[:_SAID]
    if not 500 <= code < 600:
        return Unreached(words, exchange=exchange)
    return Unusable(words, remedy=remedy) if remedy else Refused(words, exchange=exchange)


def _text(code: int, said: Any) -> str:
    shown = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return f"{code} {' '.join(shown.split())}"[:_SAID]

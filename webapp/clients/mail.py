"""E-mail: a message for each lead or one for many, in text and HTML, with an id that is the same on every attempt.

A mail server cannot be asked what became of a message, and a message cannot be taken back: at most a second one says so in
the same thread. Everything of a lead is a text in a body; headers are made by the library, which refuses line breaks.
"""

import html
import unicodedata
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from email.headerregistry import HeaderRegistry, MessageIDHeader
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any, NamedTuple

from webapp.clients.http import redact
from webapp.clients.smtp import SmtpClient
from webapp.leads.ports import DeliveryRequest, Exchange, Partly, Receipt
from webapp.leads.states import DeliveryOperation

_TITLE, _TEXT = "title", "text"
_MAX_SUBJECT, _MAX_TEXT, _MAX_VALUE = 150, 10_000, 500
_NAMED = 3
_HEADERS = HeaderRegistry()
for _name in ("in-reply-to", "references"):  # else a long id is encoded like words, and no thread is found by it
    _HEADERS.map_to_type(_name, MessageIDHeader)  # type: ignore[arg-type]
_POLICY = SMTP.clone(header_factory=_HEADERS)
#: Between a message's id and those who have it already, in what is kept of a message that not everybody has yet.
_DONE = " done: "
#: And before all whom it is for, where those are not all on the list: a line of taking back.
_OF = " of: "


class MailClient:
    reconciles = False

    def __init__(self, smtp: SmtpClient, *, sender: str, recipients: Sequence[str]) -> None:
        self._smtp = smtp
        self._sender = sender
        self._recipients = list(recipients)
        self._domain = sender.rpartition("@")[2]

    def send(self, request: DeliveryRequest) -> Receipt:
        if request.operation is DeliveryOperation.SEND:
            message = self._message(_title(request), _plain(request), _html(request), request.message_id)
            return self._deliver(message, self.render(request), done=_known(request).done)
        return self._follow(request)

    def _follow(self, request: DeliveryRequest) -> Receipt:
        """In the thread of the mail that is known. That it was taken back is for those who have it; where some have not,
        the mail that comes again is for them alone, unless they were told that it was taken back."""
        known = _known(request)
        title = f"Re: {_title(request)}"
        thread, done, to = known.message_id, known.done, self._recipients
        began = thread == self._id(request.message_id)  # this very one, which some have already
        if request.withdrawn:
            to = list((known.of if began else known.done) or to)
            text = f"“{_title(request)}” was taken back: it is no longer a lead."
            message = self._message(title, text, _paragraph(text), request.message_id, to)
            shown = self._shown(title, text, to)
        else:
            message = self._message(title, _plain(request), _html(request), request.message_id)
            shown = self.render(request)
        if not began and (request.withdrawn or known.of):
            done = ()
        if began:
            thread = self._id(str(request.delivery_id))
        if thread:
            message["In-Reply-To"] = message["References"] = thread
        return self._deliver(message, shown, done=done, only=to if request.withdrawn else None)

    def send_together(self, requests: Sequence[DeliveryRequest]) -> Receipt:
        """One message about several leads; its id follows from theirs."""
        if len(requests) == 1:
            return self.send(requests[0])
        names = [_title(request) for request in requests[:_NAMED]]
        more = len(requests) - len(names)
        subject = f"{len(requests)} leads: {'; '.join(names)}" + (f"; and {more} more" if more else "")
        text = "\n\n----------\n\n".join(_plain(request) for request in requests)
        body = "<hr>".join(_html(request) for request in requests)
        key = str(uuid.uuid5(uuid.NAMESPACE_OID, ",".join(sorted(request.message_id for request in requests))))
        message = self._message(subject, text, body, key)
        shown = self._shown(subject, f"{len(requests)} leads in one mail")
        return self._deliver(message, shown, done=_known(requests[0]).done)

    def render(self, request: DeliveryRequest) -> dict[str, Any]:
        return self._shown(_title(request), _plain(request))

    def reconcile(self, request: DeliveryRequest) -> Receipt | None:
        """A mail server cannot be asked; whether it is sent again is the destination's setting, or a person's decision."""
        return None

    def tell(self, message: str, link: str | None) -> None:
        text = message if link is None else f"{message}\n\n{link}"
        linked = "" if link is None else f'<p><a href="{html.escape(link)}">Look at it</a></p>'
        mail = self._message("Trouble in the lead console", text, _paragraph(message) + linked, str(uuid.uuid4()))
        self._smtp.send(self._sender, self._recipients, mail.as_bytes(), {})

    def probe(self) -> str:
        refused = self._smtp.check(self._sender, self._recipients)
        if refused:
            return f"The mail server works, but does not take {'; '.join(f'{who} ({said})' for who, said in refused.items())}."
        return f"The mail server takes mail from {self._sender} to {', '.join(self._recipients)}. Nothing was sent."

    def _deliver(
        self, message: EmailMessage, shown: dict[str, Any], *, done: Sequence[str], only: Sequence[str] | None = None
    ) -> Receipt:
        """To those who have not got it yet. ``only``: to these instead of the list."""
        key = str(message["Message-ID"])
        wanted = [one for one in only or self._recipients if one not in done]
        if not wanted:  # whoever had not is not on the list any more
            return Receipt(key, Exchange(excerpt="everybody on the list has it already", payload=shown))
        taken = self._smtp.send(self._sender, wanted, message.as_bytes(), shown)
        refused = redact(
            "; ".join(f"not taken for {who}: {said}" for who, said in {**taken.later, **taken.never}.items())
        )
        exchange = Exchange(excerpt=refused or taken.reply, payload=shown)
        if taken.later:
            have = [*done, *(one for one in wanted if one not in taken.later)]
            remote_id = key + _DONE + ", ".join(have) + (_OF + ", ".join(only) if only else "")
            raise Partly(f"{refused}; the others have it", remote_id=remote_id, exchange=exchange)
        return Receipt(key, exchange)

    def _id(self, key: str) -> str:
        return f"<{key}@{self._domain}>"

    def _message(self, subject: str, text: str, body: str, key: str, to: Sequence[str] | None = None) -> EmailMessage:
        message = EmailMessage(policy=_POLICY)
        message["From"] = self._sender
        message["To"] = ", ".join(to or self._recipients)
        message["Subject"] = _one_line(subject)[:_MAX_SUBJECT]
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = self._id(key)
        message["Auto-Submitted"] = "auto-generated"
        message["X-Triage-Key"] = key
        message.set_content(text, cte="quoted-printable")
        message.add_alternative(
            f"<!doctype html><html><body>{body}</body></html>", subtype="html", cte="quoted-printable"
        )
        return message

    def _shown(self, subject: str, text: str, to: Sequence[str] | None = None) -> dict[str, Any]:
        return {
            "from": self._sender,
            "to": ", ".join(to or self._recipients),
            "subject": _one_line(subject)[:_MAX_SUBJECT],
            "text": text,
        }


class _Known(NamedTuple):
    """The id of the message that went out before, who has it already, and whom it is for where that is not the list."""

    message_id: str | None
    done: tuple[str, ...]
    of: tuple[str, ...]


def _known(request: DeliveryRequest) -> _Known:
    message_id, _, rest = (request.remote.get(request.action) or "").partition(_DONE)
    done, _, of = rest.partition(_OF)
    return _Known(message_id or None, _listed(done), _listed(of))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split(", ")) if text else ()


def _title(request: DeliveryRequest) -> str:
    return _one_line(request.fields.get(_TITLE) or request.lead.display_name)


def _rows(request: DeliveryRequest) -> list[tuple[str, str]]:
    return [
        (name, _one_line(value)[:_MAX_VALUE]) for name, value in request.fields.items() if name not in (_TITLE, _TEXT)
    ]


def _plain(request: DeliveryRequest) -> str:
    parts = [_title(request), _printable(request.fields.get(_TEXT, ""))]
    parts.append("\n".join(f"{name}: {value}" for name, value in _rows(request)))
    parts.append(request.lead.url or "")
    return "\n\n".join(part for part in parts if part)


def _html(request: DeliveryRequest) -> str:
    title = html.escape(_title(request))
    if request.lead.url:
        title = f'<a href="{html.escape(request.lead.url)}">{title}</a>'
    text = html.escape(_printable(request.fields.get(_TEXT, ""))).replace("\n", "<br>\n")
    rows = "".join(
        f'<tr><th align="left">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>\n'
        for name, value in _rows(request)
    )
    quoted = f"<blockquote>{text}</blockquote>\n" if text else ""
    return f"<h3>{title}</h3>\n{quoted}" + (f"<table>\n{rows}</table>\n" if rows else "")


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _one_line(text: str) -> str:
    return " ".join(_printable(text).split())


def _printable(text: str) -> str:
    """Without control characters but for line breaks."""
    lines = text[:_MAX_TEXT].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join("".join(char for char in line if unicodedata.category(char) not in ("Cc", "Cs")) for line in lines)

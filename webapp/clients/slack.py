"""Slack: messages of a bot, which can be found again and changed, and of an incoming webhook, which cannot.

Each message of a bot carries the delivery's id as metadata; before one is sent again, the channel's history is searched
for it. Slack answers 200 with ``ok: false`` for most errors.
"""

from typing import Any

from webapp.clients.http import Answer, HttpClient, kept_waiting
from webapp.leads.errors import Permanent
from webapp.leads.ports import (
    DeliveryRequest,
    Exchange,
    OutcomeUnknown,
    Receipt,
    Refused,
    Throttled,
    Unreached,
)
from webapp.leads.states import DeliveryOperation

EVENT_TYPE = "lead_alert"
_TITLE, _TEXT = "title", "text"
#: Slack's limits are 3,000 characters of a section's text, and 10 fields of 2,000; a quoted line takes one more.
_MAX_TEXT, _MAX_LINES, _MAX_VALUE, _MAX_FIELDS = 2_700, 200, 500, 10
_PAGE, _MAX_PAGES = 200, 5

#: The credential or the app is at fault, so every other message would be refused as well.
_DESTINATION_WIDE = frozenset(
    {
        "invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope",
        "channel_not_found", "not_in_channel", "is_archived", "no_permission", "ekm_access_denied", "team_access_not_granted",
    }
)  # fmt: skip
#: Of those, what is the channel's fault: another channel may be fine.
_CHANNEL_S = frozenset({"channel_not_found", "not_in_channel", "is_archived", "no_permission"})
_REMEDY = "Put its bot token or channel right in its settings (SLACK_BOT_TOKEN, SLACK_CHANNEL), or the bot in Slack."
_IN_WORDS = {
    "invalid_auth": "Slack does not know this token",
    "token_revoked": "the token was revoked",
    "token_expired": "the token has expired",
    "account_inactive": "the bot's account is switched off",
    "missing_scope": "the bot lacks a permission",
    "channel_not_found": "there is no such channel, or the bot cannot see it",
    "not_in_channel": "the bot is no member of the channel; invite it there",
    "is_archived": "the channel is archived",
    "message_not_found": "the message is not there any more",
}


class _Said(Refused):
    """``code``: Slack's."""

    def __init__(self, message: str, code: str, *, exchange: Exchange) -> None:
        super().__init__(message, exchange=exchange, destination_wide=code in _DESTINATION_WIDE)
        self.code = code


class SlackClient:
    """A bot's messages in one channel."""

    reconciles = True

    def __init__(self, http: HttpClient, *, channel: str) -> None:
        self._http = http
        self._channel = channel

    def send(self, request: DeliveryRequest) -> Receipt:
        with kept_waiting(_REMEDY):
            return self._send(request)

    def _send(self, request: DeliveryRequest) -> Receipt:
        known = request.remote.get(request.action)
        if not known and request.operation is not DeliveryOperation.SEND:
            known = self._find(request)  # its answer may have been lost
        if known:
            return self._change(request, known)
        return Receipt() if request.withdrawn else self._post(request)

    def _post(self, request: DeliveryRequest) -> Receipt:
        body = {"channel": self._channel, **self.render(request)}
        data, exchange = self._call("chat.postMessage", body)
        if not data.get("ts"):
            raise OutcomeUnknown("answered without the message's time", exchange=exchange)
        # A message is known by channel and time, and a channel that is named has an id.
        return Receipt(f"{data.get('channel') or self._channel}/{data['ts']}", exchange)

    def _change(self, request: DeliveryRequest, known: str) -> Receipt:
        channel, _, ts = known.rpartition("/")
        body = {"channel": channel or self._channel, "ts": ts, **self.render(request)}
        try:
            _, exchange = self._call("chat.update", body)
        except _Said as error:
            if request.withdrawn and error.code == "message_not_found":
                return Receipt(known, error.exchange)
            # Of a message before the channel was changed.
            if error.code in _CHANNEL_S and body["channel"] != self._channel:
                raise Refused(error.message, exchange=error.exchange) from None
            raise
        return Receipt(known, exchange)

    def reconcile(self, request: DeliveryRequest) -> Receipt | None:
        with kept_waiting(_REMEDY):
            found = self._find(request)
        return Receipt(found) if found else None

    def _find(self, request: DeliveryRequest) -> str | None:
        """The message of this delivery in the channel's history, newest first, back to when the lead came."""
        cursor = ""
        for _ in range(_MAX_PAGES):
            asked = {
                "channel": self._channel,
                "oldest": f"{request.lead.created_at.timestamp():.6f}",
                "include_all_metadata": "true",
                "limit": str(_PAGE),
            } | ({"cursor": cursor} if cursor else {})
            data, exchange = self._ask("conversations.history", asked)
            for message in data.get("messages") or ():
                payload = (message.get("metadata") or {}).get("event_payload") or {}
                if payload.get("key") == str(request.delivery_id):
                    return f"{self._channel}/{message['ts']}"
            cursor = str((data.get("response_metadata") or {}).get("next_cursor") or "")
            if not data.get("has_more"):
                return None
            if not cursor:
                break
        raise Unreached("the channel's history is too long to be searched", exchange=exchange)

    def render(self, request: DeliveryRequest) -> dict[str, Any]:
        return message(request) | {
            "metadata": {"event_type": EVENT_TYPE, "event_payload": {"key": str(request.delivery_id)}}
        }

    def probe(self) -> str:
        data, _ = self._ask("auth.test", {})
        self._ask("conversations.history", {"channel": self._channel, "limit": "1"})
        return f"Slack knows the bot as {data.get('user')} in {data.get('team')}, and it can read {self._channel}."

    def _call(self, method: str, body: dict[str, Any]) -> tuple[dict[str, Any], Exchange]:
        return _accepted(self._http.call("POST", f"/{method}", json_body=body, shown=body), reads=False)

    def tell(self, message: str, link: str | None) -> None:
        self._call("chat.postMessage", {"channel": self._channel, **alert(message, link)})

    def _ask(self, method: str, params: dict[str, str]) -> tuple[dict[str, Any], Exchange]:
        return _accepted(self._http.call("GET", f"/{method}", params=params), reads=True)


class IncomingClient:
    """An incoming webhook: it answers ``ok`` and nothing that a message could be found by."""

    reconciles = False

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def send(self, request: DeliveryRequest) -> Receipt:
        body = self.render(request)
        exchange = self._http.call("POST", json_body=body, shown=body).exchange
        # Of a body that did not come in time the status counts.
        if not "ok".startswith((exchange.excerpt or "").strip()):
            raise OutcomeUnknown("answered something that is not Slack's", exchange=exchange)
        return Receipt(None, exchange)

    def reconcile(self, request: DeliveryRequest) -> Receipt | None:
        """Slack cannot be asked; whether it is sent again is the destination's setting, or a person's decision."""
        return None

    def render(self, request: DeliveryRequest) -> dict[str, Any]:
        return message(request)

    def tell(self, message: str, link: str | None) -> None:
        self._http.call("POST", json_body=alert(message, link))

    def probe(self) -> str:
        # Without a text Slack refuses the message, but only where the address is right.
        answer = self._http.call("POST", json_body={}, accept=frozenset({400}))
        if answer.status == 400 and "no_text" in (answer.exchange.excerpt or ""):
            return "Slack knows the address. Nothing was posted."
        raise Permanent(f"It answered {answer.status}, which Slack does not do.")


def _accepted(answer: Answer, *, reads: bool) -> tuple[dict[str, Any], Exchange]:
    data = answer.data
    if not isinstance(data, dict) or "ok" not in data:
        raise (Unreached if reads else OutcomeUnknown)(
            "answered something that is not Slack's", exchange=answer.exchange
        )
    if data["ok"]:
        return data, answer.exchange
    said = str(data.get("error") or "unknown error")
    if said in ("ratelimited", "rate_limited"):
        raise Throttled(said, retry_after=30.0, exchange=answer.exchange)
    if said in ("internal_error", "fatal_error", "service_unavailable", "request_timeout"):
        raise (Unreached if reads else OutcomeUnknown)(f"Slack says {said}", exchange=answer.exchange)
    words = _IN_WORDS.get(said, f"Slack says {said}")
    if said == "missing_scope" and data.get("needed"):
        words += f": {data['needed']}"
    raise _Said(words, said, exchange=answer.exchange)


def message(request: DeliveryRequest) -> dict[str, Any]:
    """Text and blocks of a lead's message. Whatever is not the title or the text is a field of its own."""
    fields = dict(request.fields)
    title, text = fields.pop(_TITLE, request.lead.display_name), fields.pop(_TEXT, "")
    head = f"*{escaped(_one_line(title))}*"
    if request.lead.url:
        head = f"*<{request.lead.url}|{escaped(_one_line(title))}>*"
    if request.withdrawn:
        head = f"~{escaped(_one_line(title))}~\n_Withdrawn: no longer a lead._"
    blocks: list[dict[str, Any]] = [_section(head)]
    if text and not request.withdrawn:
        lines = escaped(text, most=_MAX_TEXT).splitlines()[:_MAX_LINES]
        blocks.append(_section("\n".join(f">{line}" for line in lines)))
    shown = [
        {"type": "mrkdwn", "text": f"*{escaped(name)}*\n{escaped(_one_line(value), most=_MAX_VALUE)}"}
        for name, value in list(fields.items())[:_MAX_FIELDS]
    ]
    if shown and not request.withdrawn:
        blocks.append({"type": "section", "fields": shown})
    spoken = ("Withdrawn: " if request.withdrawn else "") + escaped(_one_line(title))
    return {"text": spoken, "blocks": blocks, "unfurl_links": False, "unfurl_media": False}


def alert(text: str, link: str | None) -> dict[str, Any]:
    """Trouble in the console, told to a channel."""
    shown = f":warning: {escaped(text, most=2_000)}"
    return {"text": shown + (f" <{link}|Look at it>" if link else ""), "unfurl_links": False}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escaped(text: str, *, most: int = 500) -> str:
    """A lead's words as text: Slack's three characters escaped, at most ``most`` long, with no escape cut in two."""
    pieces: list[str] = []
    size = 0
    for char in text:
        piece = _ESCAPES.get(char, char)
        size += len(piece)
        if size > most - 2:
            return "".join(pieces).rstrip() + " …"
        pieces.append(piece)
    return "".join(pieces)


def _one_line(text: str) -> str:
    return " ".join(text.split())

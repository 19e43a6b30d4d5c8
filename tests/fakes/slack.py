"""A stand-in of Slack: chat.postMessage, conversations.history, auth.test and incoming webhooks."""

import argparse
import time
from typing import Any

from tests.fakes.server import FakeServer, Request, Response, main

TOKEN = "xoxb-slack-test-token"
_MAX_TEXT = 40_000
_PLAIN = {"Content-Type": "text/plain"}


class SlackFake(FakeServer):
    """``channels``: name or id → whether the bot is a member. Messages by channel in ``messages``."""

    def __init__(self, *, token: str = TOKEN, channels: dict[str, bool] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.token = token
        self.channels = {"C0LEADS": True, "#leads": True} if channels is None else channels
        self.messages: dict[str, list[dict[str, Any]]] = {}
        self._last_ts = 0.0

    @property
    def api_url(self) -> str:
        """For ``WebClient(base_url=…)``."""
        return f"{self.root}/api/"

    @property
    def webhook_url(self) -> str:
        return f"{self.root}/services/T000/B000/XXXX"

    def state(self) -> Any:
        return self.messages

    def forget(self) -> None:
        self.messages.clear()

    def error(self, status: int) -> Response:
        if status in (401, 403):
            return Response(200, {"ok": False, "error": "invalid_auth"})
        return Response(status, text="error")

    def throttled(self, retry_after: str | None) -> Response:
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        return Response(429, {"ok": False, "error": "ratelimited"}, headers)

    def handle(self, request: Request) -> Response:
        if request.path.startswith("/services/"):
            return self._incoming_webhook(request)
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return _no("invalid_auth" if request.headers.get("authorization") else "not_authed")
        # Methods that read take no JSON, whatever is sent.
        reads = request.path in ("/api/conversations.history", "/api/auth.test")
        arguments = {**request.query, **({} if reads else request.json or {})}
        match request.path:
            case "/api/auth.test":
                return Response(200, {"ok": True, "team": "Test", "user": "bot", "team_id": "T000", "user_id": "U000"})
            case "/api/chat.postMessage":
                return self._post(arguments)
            case "/api/chat.update":
                return self._update(arguments)
            case "/api/conversations.history":
                return self._history(arguments)
        return _no("unknown_method")

    def _post(self, arguments: dict[str, Any]) -> Response:
        channel = arguments.get("channel", "")
        if channel not in self.channels:
            return _no("channel_not_found")
        if not self.channels[channel]:
            return _no("not_in_channel")
        if not arguments.get("text") and not arguments.get("blocks"):
            return _no("no_text")
        if len(arguments.get("text") or "") > _MAX_TEXT:
            return _no("msg_too_long")
        message = self._store(channel, arguments)
        return Response(200, {"ok": True, "channel": channel, "ts": message["ts"], "message": message})

    def _update(self, arguments: dict[str, Any]) -> Response:
        channel, ts = arguments.get("channel", ""), arguments.get("ts")
        if channel not in self.channels:
            return _no("channel_not_found")
        with self.lock:
            found = next((m for m in self.messages.get(channel, []) if m["ts"] == ts), None)
            if found is None:
                return _no("message_not_found")
            found |= {k: arguments[k] for k in ("text", "blocks", "metadata") if arguments.get(k)}
        return Response(200, {"ok": True, "channel": channel, "ts": ts, "text": found.get("text")})

    def expired(self) -> Response:
        return _no("token_expired")

    def _history(self, arguments: dict[str, Any]) -> Response:
        channel, oldest = arguments.get("channel", ""), float(arguments.get("oldest") or 0)
        if channel not in self.channels:
            return _no("channel_not_found")
        with_metadata = str(arguments.get("include_all_metadata", "")).lower() in ("1", "true")
        with self.lock:
            found = [m for m in self.messages.get(channel, []) if float(m["ts"]) >= oldest]
        shown = [m if with_metadata else {k: v for k, v in m.items() if k != "metadata"} for m in reversed(found)]
        return Response(200, {"ok": True, "messages": shown, "has_more": False})

    def _incoming_webhook(self, request: Request) -> Response:
        if request.path != "/services/T000/B000/XXXX":
            return Response(404, text="no_service", headers=_PLAIN)
        body = request.json
        if not isinstance(body, dict):
            return Response(400, text="invalid_payload", headers=_PLAIN)
        if not body.get("text") and not body.get("blocks"):
            return Response(400, text="no_text", headers=_PLAIN)
        self._store("webhook", body)
        return Response(200, text="ok", headers=_PLAIN)

    def _store(self, channel: str, arguments: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self._last_ts = max(time.time(), self._last_ts + 0.000001)
            kept = {k: arguments[k] for k in ("text", "blocks", "metadata", "thread_ts") if arguments.get(k)}
            message = {"type": "message", "user": "U000", "ts": f"{self._last_ts:.6f}", **kept}
            self.messages.setdefault(channel, []).append(message)
            return message


class IncomingFake(SlackFake):
    """Only the incoming webhook, whose errors are statuses with a word of text."""

    def error(self, status: int) -> Response:
        return Response(status, text="rollup_error" if status >= 500 else "action_prohibited", headers=_PLAIN)

    def expired(self) -> Response:
        return Response(403, text="invalid_token", headers=_PLAIN)

    def throttled(self, retry_after: str | None) -> Response:
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        return Response(429, text="rate_limited", headers=_PLAIN | headers)


def _no(error: str) -> Response:
    return Response(200, {"ok": False, "error": error})


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--token", default=TOKEN)


def _make(arguments: argparse.Namespace) -> SlackFake:
    return SlackFake(port=arguments.port, latency=arguments.latency, token=arguments.token)


if __name__ == "__main__":
    main(_make, _arguments)

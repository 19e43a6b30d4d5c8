"""A receiver of our outgoing webhooks: checks the signature, deduplicates by ``webhook-id``. Also takes n8n posts."""

import argparse
import base64
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.fakes.server import FakeServer, Request, Response, main

SECRET = "whsec_" + base64.b64encode(b"a receiver's secret, 32 bytes..!").decode()


class WebhookReceiver(FakeServer):
    """``secret`` None: unsigned posts are taken as well (n8n). ``events`` holds each id once, ``deliveries`` all."""

    base_path = "/hook"

    def __init__(self, *, secret: str | None = SECRET, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.secret = secret
        self.events: dict[str, Any] = {}
        self.deliveries: list[Any] = []

    def state(self) -> Any:
        return {"events": self.events, "deliveries": self.deliveries}

    def forget(self) -> None:
        self.events.clear()
        self.deliveries.clear()

    def handle(self, request: Request) -> Response:
        if request.method != "POST":
            return Response(405, {"error": "POST only"})
        if self.secret is None:
            event = request.json
        else:
            try:
                event = Webhook(self.secret).verify(request.body, request.headers)
            except WebhookVerificationError as error:
                return Response(401, {"error": str(error)})
        with self.lock:
            self.deliveries.append(event)
            self.events.setdefault(request.headers.get("webhook-id", str(len(self.deliveries))), event)
        return Response(200, {"ok": True})


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--secret", default=SECRET)
    parser.add_argument("--unsigned", action="store_true", help="take posts without a signature")


def _make(arguments: argparse.Namespace) -> WebhookReceiver:
    secret = None if arguments.unsigned else arguments.secret
    return WebhookReceiver(port=arguments.port, latency=arguments.latency, secret=secret)


if __name__ == "__main__":
    main(_make, _arguments)

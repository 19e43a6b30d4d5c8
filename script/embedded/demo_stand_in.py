"""Stand-ins as a process: `python -m embedded.demo_stand_in NAME:PORT …`.

The CRM (Twenty) keeps what it holds in the data folder, so that a person whom an earlier start of the demo delivered is still
there for what goes out later.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from embedded import demo
from embedded.demo_people import PEOPLE, TAKES_LEADS, DemoUser
from tests.fakes.hubspot import HubspotFake
from tests.fakes.llm import LlmFake
from tests.fakes.salesforce import SalesforceFake
from tests.fakes.server import FakeServer, Request, Response
from tests.fakes.sheets import SheetsFake
from tests.fakes.slack import SlackFake
from tests.fakes.smtp import SmtpFake
from tests.fakes.twenty import TwentyFake
from tests.fakes.webhook_receiver import WebhookReceiver

StandIn = FakeServer | SmtpFake


class Sheets(SheetsFake):
    """Hands out its service account's key, as the page of Google Cloud does."""

    def handle(self, request: Request) -> Response:
        if request.path == demo.SHEETS_KEY:
            return Response(200, json.loads(self.key))
        return super().handle(request)


class Mailbox(FakeServer):
    """Shows what the mail server has taken."""

    def __init__(self, server: SmtpFake, port: int) -> None:
        super().__init__(port=port)
        self.smtp = server

    def state(self) -> Any:
        return [
            {"from": one.sender, "to": one.recipients, "subject": one.message["Subject"], "text": one.text}
            for one in self.smtp.mails
        ]


def make(name: str, port: int, made: Mapping[str, StandIn]) -> StandIn:
    """`made`: those before it in this process."""
    match name:
        case "twenty":
            return TwentyFake(port=port, token=demo.TWENTY_TOKEN)
        case "n8n":
            return WebhookReceiver(port=port, secret=None)
        case "slack":
            return SlackFake(port=port, token=demo.SLACK_TOKEN)
        case "llm":
            return LlmFake(port=port, token=demo.LLM_TOKEN)
        case "hubspot":
            hubspot = HubspotFake(port=port)
            for person in _take_leads():
                hubspot.add_owner(person.email)
            return hubspot
        case "salesforce":
            salesforce = SalesforceFake(port=port)
            for person in _take_leads():
                salesforce.add_user(person.email)
            return salesforce
        case "sheets":
            return Sheets(port=port)
        case "smtp":
            return SmtpFake(port=port)
        case "mailbox":
            server = made["smtp"]
            assert isinstance(server, SmtpFake)
            return Mailbox(server, port)
        case "webhook":
            return WebhookReceiver(port=port)
    raise SystemExit(f"there is no stand-in {name}")


def _take_leads() -> list[DemoUser]:
    return [person for person in PEOPLE if person.role in TAKES_LEADS]


class Memory:
    """What the CRM holds, on disk."""

    def __init__(self, fake: TwentyFake, path: Path) -> None:
        self._fake, self._path, self._seen = fake, path, 0

    def load(self) -> None:
        try:
            held = json.loads(self._path.read_text())
            self._fake.store |= {plural: {one["id"]: one for one in records} for plural, records in held.items()}
        except (OSError, ValueError):  # the first start, or a file that was cut off: an empty CRM
            for person in _take_leads():
                self._fake.add_member(person.email, *person.name.split(" ", 1))

    def save(self) -> None:
        with self._fake.lock:
            if self._seen == len(self._fake.requests):
                return
            self._seen = len(self._fake.requests)
            text = json.dumps(self._fake.state())
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self._path.with_suffix(".new")
        partial.write_text(text)
        partial.rename(self._path)


def main(places: Sequence[str]) -> None:
    names = [place.partition(":")[0] for place in places]
    setproctitle(f"leadops: stand-in {' '.join(names)}")
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    made: dict[str, StandIn] = {}
    memory = None
    with ExitStack() as running:
        for name, port in (place.split(":") for place in places):
            made[name] = fake = make(name, int(port), made)
            if isinstance(fake, TwentyFake):
                memory = Memory(fake, Path(os.environ["LEADOPS_DATA_DIR"]) / "demo" / "twenty.json")
                memory.load()
            running.enter_context(fake)
        while not stopping.wait(1.0):
            if memory:
                memory.save()
        if memory:
            memory.save()
    os._exit(0)  # threads that still answer somebody are not waited for


if __name__ == "__main__":
    main(sys.argv[1:])

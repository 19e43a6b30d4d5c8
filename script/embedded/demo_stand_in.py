"""One stand-in as a process: `python -m embedded.demo_stand_in twenty PORT`.

The CRM keeps what it holds in the data folder, so that a person whom an earlier start of the demo delivered is still
there for what goes out later.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from setproctitle import setproctitle

from embedded import demo
from embedded.demo_people import PEOPLE, TAKES_LEADS
from tests.fakes.llm import LlmFake
from tests.fakes.server import FakeServer
from tests.fakes.slack import SlackFake
from tests.fakes.twenty import TwentyFake
from tests.fakes.webhook_receiver import WebhookReceiver


def make(name: str, port: int) -> FakeServer:
    match name:
        case "twenty":
            return TwentyFake(port=port, token=demo.TWENTY_TOKEN)
        case "n8n":
            return WebhookReceiver(port=port, secret=None)
        case "slack":
            return SlackFake(port=port, token=demo.SLACK_TOKEN)
        case "llm":
            return LlmFake(port=port, token=demo.LLM_TOKEN)
    raise SystemExit(f"there is no stand-in {name}")


class Memory:
    """What the CRM holds, on disk."""

    def __init__(self, fake: TwentyFake, path: Path) -> None:
        self._fake, self._path, self._seen = fake, path, 0

    def load(self) -> None:
        try:
            held = json.loads(self._path.read_text())
            self._fake.store |= {plural: {one["id"]: one for one in records} for plural, records in held.items()}
        except (OSError, ValueError):  # the first start, or a file that was cut off: an empty CRM
            for person in PEOPLE:
                if person.role in TAKES_LEADS:
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


def main(name: str, port: int) -> None:
    setproctitle(f"leadops: stand-in {name}")
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    fake = make(name, port)
    memory = None
    if isinstance(fake, TwentyFake):
        memory = Memory(fake, Path(os.environ["LEADOPS_DATA_DIR"]) / "demo" / "twenty.json")
        memory.load()
    with fake:
        while not stopping.wait(1.0):
            if memory:
                memory.save()
        if memory:
            memory.save()
    os._exit(0)  # threads that still answer somebody are not waited for


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

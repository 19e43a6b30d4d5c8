"""`script/server --demo`: stand-ins of the outside services, and a workspace full of invented leads.

    begin            refuses where real data could be harmed; the variables that lead to the stand-ins
    start_stand_ins  the stand-ins as programs of the supervisor         demo_stand_in.py
    fill             people, destinations, leads, decisions …; once      demo_fill.py and what it names

The stand-ins are those of the tests, so what a newcomer sees is what is tested. Everything here is a
child of the supervisor: it goes when the server goes.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
from sqlalchemy.engine import make_url

from embedded.errors import StartError
from embedded.paths import PROJECT
from embedded.process import die_with_parent, spawn, stop_child
from embedded.supervisor import Program, Supervisor

TWENTY_TOKEN = "demo-twenty-token"
SLACK_TOKEN = "xoxb-demo-slack-token"
CHANNEL = "C0LEADS"
"""The one channel of Slack's stand-in that the bot is a member of."""
LLM_TOKEN = "demo-llm-token"

STEP = "DEMO_STEP"
"""Type of the audit events that remember what has been filled in: append-only, and it goes where the data goes."""


SHEETS_KEY = "/key"
"""Where the stand-in of Google Sheets hands out the key of its service account."""
LOCAL = "127.0.0.1/32"


class StandIn(NamedTuple):
    """One service: `variable` leads the console (`DEMO_…`: the filling) to it, at `path`; `shows` is for people who want to
    look, nothing where there is nothing to see. `own`: a process of its own, so that it can be killed alone."""

    name: str
    variable: str
    path: str
    shows: str
    own: bool = False


STAND_INS = (
    StandIn("twenty", "TWENTY_REST_URL", "/rest", "CRM (Twenty)", own=True),
    StandIn("n8n", "WEBHOOK_URL", "/hook", "n8n follow-up"),
    StandIn("slack", "SLACK_API_URL", "/api/", "Slack"),
    StandIn("llm", "OPENAI_BASE_URL", "/v1", "language model"),
    StandIn("hubspot", "DEMO_HUBSPOT_URL", "", "HubSpot"),
    StandIn("salesforce", "DEMO_SALESFORCE_URL", "", "Salesforce"),
    StandIn("sheets", "SHEETS_API_URL", "", "Google Sheets"),
    StandIn("smtp", "DEMO_SMTP_URL", "", ""),
    StandIn("mailbox", "DEMO_MAILBOX_URL", "", "mailbox"),
    StandIn("webhook", "DEMO_WEBHOOK_URL", "/hook", "webhook"),
)


def begin(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of this run, which replace whatever real services the environment names.

    To be called before the migrations and the first start, which write the destinations. StartError when the
    database has destinations and no demo: their waiting deliveries would go to a stand-in and count as sent.
    """
    if not (PROJECT / "tests" / "fakes").is_dir():
        raise StartError("--demo needs the project's tests folder, where the stand-ins are.")
    _refuse_real_data(environ)
    found = dict(zip((one.variable for one in STAND_INS), _urls(), strict=True))
    local = ",".join(filter(None, (environ.get("no_proxy") or environ.get("NO_PROXY"), "127.0.0.1")))
    return found | {
        "TWENTY_REST_TOKEN": TWENTY_TOKEN,
        "TWENTY_TASK_TARGET_FIELD": "targetPersonId",
        "SLACK_BOT_TOKEN": SLACK_TOKEN,
        "SLACK_CHANNEL": CHANNEL,
        "OPENAI_API_KEY": LLM_TOKEN,
        # For the stand-ins behind destinations that were set up in the browser, and a newcomer's own.
        "OUTBOUND_ALLOW_CIDRS": ",".join(filter(None, (environ.get("OUTBOUND_ALLOW_CIDRS"), LOCAL))),
        # The stand-in has no opinion worth showing: the demo's verdicts are the rules', unless somebody asks for more.
        "LEAD_CLASSIFY_USE_LLM": environ.get("LEAD_CLASSIFY_USE_LLM") or "off",
        "NO_PROXY": local,
        "no_proxy": local,
    }


def _refuse_real_data(environ: Mapping[str, str]) -> None:
    url = make_url(environ["DATABASE_URL"]).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        row = connection.execute("SELECT to_regclass('audit_events')").fetchone()
        if row is None or row[0] is None:
            return
        row = connection.execute(
            "SELECT EXISTS (SELECT FROM destinations) AND NOT EXISTS (SELECT FROM audit_events WHERE event_type = %s)",
            [STEP],
        ).fetchone()
    if row == (True,):
        raise StartError(
            "--demo: this data has destinations of its own, whose deliveries would go to a stand-in;"
            " give the demo another folder (LEADOPS_DATA_DIR=var-demo) or database."
        )


def _urls() -> list[str]:
    """Free ports, all taken at once so that they differ. Chosen here and not by the stand-ins themselves, since one
    that is started again has to come back where it was."""
    with ExitStack() as probes:
        found = []
        for one in STAND_INS:
            probe = probes.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            found.append(f"http://127.0.0.1:{probe.getsockname()[1]}{one.path}")
        return found


def start_stand_ins(supervisor: Supervisor, environ: Mapping[str, str]) -> None:
    """Start them where `begin` said, and wait until they answer."""
    together = [one for one in STAND_INS if not one.own]
    for group in [[one] for one in STAND_INS if one.own] + [together]:
        if not supervisor.stopping:
            supervisor.add(_program(group, environ))
    for _ in range(200):
        if supervisor.stopping or all(_answers(environ[one.variable]) for one in STAND_INS):
            return
        supervisor.tick(0.1)
    raise StartError("--demo: a stand-in does not start; see above.")


def _program(group: Sequence[StandIn], environ: Mapping[str, str]) -> Program:
    """A process of all of `group`: each more costs a start."""
    places = [f"{one.name}:{urlsplit(environ[one.variable]).port}" for one in group]
    args = [sys.executable, "-m", "embedded.demo_stand_in", *places]

    def launch() -> subprocess.Popen[bytes]:
        return spawn(args, death_signal=signal.SIGKILL, env=environ, cwd=PROJECT)

    return Program(f"stand-in {group[0].name}" if len(group) == 1 else "stand-ins", launch)


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=1).close()
    except OSError:
        return False
    return True


def fill(supervisor: Supervisor, url: str, environ: Mapping[str, str]) -> list[str]:
    """Fill the workspace through the console at `url`, unless it is full; returns what to tell a newcomer.

    In a child, so that the supervisor goes on looking after its programs and stops in time.
    """
    parent = os.getpid()
    child = subprocess.Popen(
        [sys.executable, "-m", "embedded.demo_fill", url],
        env=dict(environ),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        process_group=0,
        preexec_fn=lambda: die_with_parent(signal.SIGKILL, parent),
    )
    assert child.stdout is not None
    while child.poll() is None and not supervisor.stopping:
        supervisor.tick(0.1)
    if supervisor.stopping:
        stop_child(child, [])  # killed: what it has not committed is not there
        return []
    with child.stdout as output:
        printed = output.read().decode()
    if child.returncode:
        raise StartError("--demo: the workspace cannot be filled; see above. The next start goes on from there.")
    return _lines(json.loads(printed.strip().splitlines()[-1]), environ)


def _lines(told: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    lines = ["", "Demo (everything in it is invented; do not point its data at real services later):"]
    width = max(len(one["email"]) for one in told["people"])
    lines += [f"  {one['role']:<9} {one['email']:<{width}}  {one['password']}" for one in told["people"]]
    lines += ["", "Stand-ins, and what they hold:"]
    for one in (one for one in STAND_INS if one.shows):
        root = "{0.scheme}://{0.netloc}".format(urlsplit(environ[one.variable]))
        lines += [f"  {one.shows:<15} {root}/__state"]
    return lines

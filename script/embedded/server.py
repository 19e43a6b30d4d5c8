"""script/server: everything on one machine, by one command.

In this order, so that a mistake is told before anything is touched: settings, data folder, port, then
the servers, the migrations, the first workspace, and at last web, workers and clock under one
supervisor. `Ready:` is printed when the console answers.
"""

import argparse
import contextlib
import errno
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
from setproctitle import setproctitle
from sqlalchemy.engine import make_url

from embedded import demo
from embedded.errors import StartError
from embedded.instance import Ownership, Servers, Wanted, environment
from embedded.paths import PROJECT, create_data_folder, data_folder
from embedded.postgres import IMMEDIATE, PostgresServer
from embedded.process import die_with_parent, stop_child
from embedded.redis_server import RedisServer
from embedded.supervisor import Program, Supervisor, command
from webapp.config import ConfigError, Settings, load_settings

READY_WITHIN = 90.0
EXAMPLE_LEAD = {
    "name": "Ada Example",
    "email": "ada@example.com",
    "note": "Need urgent pricing for 50 seats ASAP! Want to buy next week.",
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="script/server", description="Run the Lead Ops Console on this machine.")
    parser.add_argument("--demo", action="store_true", help="with invented leads and stand-ins of the outside services")
    options = parser.parse_args(arguments)
    setproctitle("leadops: server")
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, _leave)  # until the supervisor takes over
    try:
        serve(with_demo=options.demo)
    except (StartError, ConfigError) as error:
        print(f"script/server: {error}", file=sys.stderr)
        return 1
    return 0


def _leave(*_: object) -> None:
    raise SystemExit(0)


def serve(*, with_demo: bool) -> None:
    folder = data_folder()
    wanted = Wanted.by(os.environ)
    settings = load_settings()
    with own_data_folder(folder, wanted) as ownership:
        check_port(settings.host, settings.port)
        postgres = PostgresServer(folder) if wanted.postgres else None
        redis = RedisServer(folder) if wanted.redis else None
        servers = Servers(postgres.url() if postgres else None, redis.url() if redis else None)
        environ = environment(folder, servers)
        settings = load_settings(environ)
        settings.require_services()
        with Supervisor(say) as supervisor:
            for server in filter(None, (postgres, redis)):
                start_server(supervisor, server)
            if not supervisor.stopping:
                check_database(settings)
            if with_demo and not supervisor.stopping:
                environ |= demo.begin(environ)
            first = prepare(environ, supervisor)
            if ownership and not supervisor.stopping:
                ownership.publish(servers)
            if with_demo and not supervisor.stopping:
                demo.start_stand_ins(supervisor, environ)
            try:
                start_programs(supervisor, settings, environ, local=wanted.postgres)
                await_ready(supervisor, settings)
                if with_demo and not supervisor.stopping:
                    first["more"] = demo.fill(supervisor, url_of(settings), environ)
            finally:
                if not supervisor.stopping or first["created"]:
                    greet(settings, first, with_url=not supervisor.stopping and sys.exc_info()[0] is None)
            supervisor.run()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# Before anything is started


@contextlib.contextmanager
def own_data_folder(folder: Path, wanted: Wanted) -> Iterator[Ownership | None]:
    """Be the only server on the data folder; with both servers elsewhere there may be any number."""
    if not wanted.any:
        yield None
        return
    create_data_folder(folder)
    ownership = Ownership(folder, "server")
    ownership.claim_for_server()
    try:
        yield ownership
    finally:
        ownership.withdraw()
        ownership.release()


def check_port(host: str, port: int) -> None:
    """Whether we could listen there; granian would only say so in the middle of starting."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except socket.gaierror:
        raise StartError(f"HOST: {host} is not an address of this machine.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"Port {port} on {host} is in use; choose another one with PORT.") from None
        raise StartError(f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}.") from None


# Servers and database


def start_server(supervisor: Supervisor, server: PostgresServer | RedisServer) -> None:
    hurry = IMMEDIATE if isinstance(server, PostgresServer) else signal.SIGKILL
    child = server.launch()
    supervisor.add(
        Program(
            server.name,
            server.launch,
            server.stop_signal,
            hurry,
            base=True,
            child=child,
            started=time.monotonic(),
        )
    )
    server.await_ready(given_up=lambda: supervisor.stopping)


def check_database(settings: Settings) -> None:
    """One line for a database that does not answer, without its password."""
    url = make_url(settings.database_url.get_secret_value())
    where = f"{url.host or url.query.get('host') or 'localhost'}:{url.port or 5432}"
    try:
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, connect_timeout=5) as connection:
            version = connection.info.server_version
    except psycopg.Error as error:
        reason = _reason(error)
        raise StartError(f"DATABASE_URL: cannot use the database {url.database!r} at {where}: {reason}") from None
    if version < 150000:
        raise StartError(f"DATABASE_URL: PostgreSQL 15 or newer is needed, this is {version // 10000}.")


def _reason(error: psycopg.Error) -> str:
    """What libpq found out, without its preamble and its advice."""
    lines = [line for line in str(error).splitlines() if "failed: " in line] or str(error).splitlines()
    return lines[0].rpartition("failed: ")[2].strip()


def prepare(environ: Mapping[str, str], supervisor: Supervisor) -> dict[str, Any]:
    """Migrate, and make the first workspace, admin and key if there are none; answers in one line of JSON."""
    nothing = {"created": False}
    if supervisor.stopping:
        return nothing
    parent = os.getpid()
    child = subprocess.Popen(
        [sys.executable, "-m", "embedded.prepare"],
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
        stop_child(child, [(signal.SIGTERM, 1.0)])
        return nothing
    with child.stdout as output:
        printed = output.read().decode()
    if child.returncode:
        raise StartError(f"The database cannot be migrated (status {child.returncode}); see above.")
    return dict(json.loads(printed.strip().splitlines()[-1]))


# The console's own processes


def start_programs(supervisor: Supervisor, settings: Settings, environ: Mapping[str, str], *, local: bool) -> None:
    """Slots are stable across restarts, so that a worker's successor takes over its claims at once.

    With a database that other hosts share, the slot names the host and port too.
    """
    if supervisor.stopping:
        return
    python = sys.executable
    place = "" if local else f"@{socket.gethostname()}:{settings.port}"
    supervisor.add(command("web", [python, "-m", "embedded.web"], environ, PROJECT))
    for queue, count in (
        ("runs", settings.run_workers),
        ("deliveries", settings.delivery_workers),
        ("imports", settings.import_workers),
        ("fetches", settings.fetch_workers),
    ):
        for number in range(1, count + 1):
            slot = f"{queue}-{number}"
            args = [python, "-m", "jobs.worker", queue]
            supervisor.add(command(f"worker {slot}", args, environ, PROJECT, {"WORKER_SLOT": slot + place}))
    supervisor.add(command("clock", [python, "-m", "jobs.schedule"], environ, PROJECT))


def url_of(settings: Settings) -> str:
    """Where a browser on this machine finds the console."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def await_ready(supervisor: Supervisor, settings: Settings) -> None:
    deadline = time.monotonic() + READY_WITHIN
    web = next((program for program in supervisor.programs if program.name == "web"), None)
    while not supervisor.stopping and web is not None:
        status = _readiness(url_of(settings))
        if status == 200:
            return
        if web.exits >= 3:
            raise StartError("The web process does not start; what it says is above.")
        if time.monotonic() > deadline:
            answer = status or "no answer"
            raise StartError(f"The console is not ready within {READY_WITHIN:.0f} s (/readyz: {answer}).")
        supervisor.tick(0.1)


def _readiness(url: str) -> int | None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def greet(settings: Settings, first: Mapping[str, Any], *, with_url: bool) -> None:
    """What one needs to begin; secrets appear at the very first start only."""
    url, key = url_of(settings), first.get("api_key")
    lines = [f"Ready: {url}"] if with_url else []
    lines += [f"  Login:    {first.get('admin_email') or settings.admin_email}"]
    if first["created"]:
        lines += [f"  Password: {first.get('admin_password') or '(the one in ADMIN_PASSWORD)'}"]
    if key:
        lines += [f"  API key:  {key}"]
    if first["created"] or key:
        lines += ["  These are shown this once."]
    else:
        lines += ["  New key:  script/flask create-key --workspace default --name NAME --scopes ingest,read"]
    lines += first.get("more", [])
    if with_url:
        lines += ["", "Post a lead:", f"  {curl(url, key)}", ""]
    print("\n".join(lines), flush=True)


def curl(url: str, key: str | None) -> str:
    """A line to paste; without a known key it takes $API_KEY."""
    header = shlex.quote(f"X-API-Key: {key}") if key else '"X-API-Key: $API_KEY"'
    return (
        f"curl -i {url}/leads/ -H {header} -H 'Idempotency-Key: {uuid.uuid4()}'"
        f" -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(EXAMPLE_LEAD))}"
    )


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # nothing is left to tidy up, and a busy machine takes a second over an interpreter's end

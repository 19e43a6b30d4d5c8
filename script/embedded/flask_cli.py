"""script/flask: the flask CLI with the settings of the server, whether it runs or not.

The command is a child rather than this process itself, because our own servers have to be stopped, or
a joined server's reader lock held, until it has ended. Nothing of ours goes to stdout, which belongs to
the command.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import psycopg

from embedded.errors import StartError
from embedded.instance import ensure, environment
from embedded.paths import PROJECT, data_folder
from embedded.process import die_with_parent

#: Commands that need no server, and read files from where the caller stands.
ALONE = {"dedupe": "webapp.cli_dedupe", "classify": "webapp.cli_classify"}


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in ALONE:
        env = {**os.environ, "PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-m", ALONE[arguments[0]], *arguments[1:]]
        return subprocess.run(command, env=env, cwd=os.environ.get("LEADOPS_CALLED_FROM")).returncode
    folder = data_folder()
    try:
        signal.signal(signal.SIGTERM, _stop)
        with ensure(folder) as servers:
            env = environment(folder, servers)
            if servers.database_url and not servers.joined and arguments[:1] != ["db"]:
                _migrate_if_empty(servers.database_url, env)
            return _run(arguments, env)
    except StartError as error:
        print(error, file=sys.stderr)
        return 1


def _stop(signum: int, _frame: object) -> None:
    raise SystemExit(128 + signum)


def _run(arguments: Sequence[str], env: dict[str, str]) -> int:
    parent = os.getpid()
    child = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "wsgi", *arguments],
        env=env,
        cwd=PROJECT,
        preexec_fn=lambda: die_with_parent(signal.SIGTERM, parent),
    )
    try:
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # the terminal sent it to the command as well
                status = child.wait()
                return status if status >= 0 else 128 - status
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def _migrate_if_empty(url: str, env: dict[str, str]) -> None:
    """A command may come before the first start of the server."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone()
    if row == (True,):
        return
    upgrade = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"],
        env=env,
        cwd=PROJECT,
        stdout=sys.stderr,
    )
    if upgrade.returncode:
        raise StartError("The database cannot be migrated; see above.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

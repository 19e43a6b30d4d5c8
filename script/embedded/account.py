"""The system account that PostgreSQL runs as when we are root.

PostgreSQL refuses to run as root, and initdb insists on a user that the system can name. An account
of its own (no home, no login) rather than `nobody`: whatever else runs as nobody could read the leads.
"""

import fcntl
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from embedded.errors import StartError
from embedded.process import Account

NAME = "leadops"
ROOT = Path("/var/lib/leadops")


def server_account() -> Account | None:
    """Whom to run PostgreSQL as; None for ourselves, when we are an ordinary user."""
    if os.geteuid() != 0:
        return None
    found = _lookup()
    if found is None:
        ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
        with (ROOT / ".account.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = _lookup() or _create()
    return found


def _lookup() -> Account | None:
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        return None
    if entry.pw_uid == 0:
        raise StartError(f"The account {NAME} is root's; PostgreSQL cannot run as root.")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _create() -> Account:
    command = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if command is None:
        raise StartError(f"As root, PostgreSQL needs a system account {NAME}, and there is no useradd to make it.")
    made = subprocess.run(
        [command, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
         "--shell", "/usr/sbin/nologin", "--comment", "Lead Ops Console database", NAME],
        capture_output=True, text=True,
    )  # fmt: skip
    found = _lookup()
    if found is None:
        raise StartError(f"The system account {NAME} cannot be made: {made.stderr.strip()}.")
    return found

"""Where things are kept below the data folder, and which paths are short enough for a unix socket.

<data>/instance.lock   held by the process that owns the servers (see instance.py)
<data>/instance.json   its URLs, for those that join
<data>/keys.json       generated secrets, 0600
<data>/postgres/       the cluster of an ordinary user
<data>/postgres.path   as root: where the cluster is instead (see postgres.py)
<data>/redis/          append-only file
<data>/log/            output of the two servers
"""

import hashlib
import os
import stat
from pathlib import Path

from embedded.errors import StartError

PROJECT = Path(__file__).resolve().parents[2]

SOCKET_PATH_LIMIT = 100
"""sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero included."""

SHORT_ROOT = Path("/tmp")


def data_folder(value: str | os.PathLike[str] | None = None) -> Path:
    """The data folder as an absolute path; a relative one counts from the project, not from here."""
    chosen = Path(value or os.environ.get("LEADOPS_DATA_DIR") or "var").expanduser()
    return (PROJECT / chosen).resolve()


def create_data_folder(folder: Path) -> None:
    """Create the folder 0700, or prove that an existing one can be written to."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StartError(f"The data folder {folder} cannot be written to: {error.strerror}.") from None


def private_folder(folder: Path) -> Path:
    """A folder of our own, mode 0700; refuses one that somebody else put there first."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise StartError(f"{folder} belongs to somebody else; remove it or choose another data folder.")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def digest(folder: Path) -> str:
    """A short stable name for a data folder."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]


def socket_folder(wanted: Path, socket_name: str) -> Path:
    """`wanted` if a socket in it can be bound, else a short private folder of the same meaning."""
    if len(os.fsencode(wanted / socket_name)) <= SOCKET_PATH_LIMIT:
        return private_folder(wanted)
    return private_folder(SHORT_ROOT / f"leadops-{os.geteuid()}-{digest(wanted)}")


def tail(log: Path, lines: int = 1) -> str:
    """The last lines of a server's log, for the one line that says why it did not start."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    return " ".join(line.strip() for line in text.strip().splitlines()[-lines:])

"""The files of imports on disk: taken in as a stream, durable before anybody is told that they are there.

Web processes write them and workers read them, so the folder must be one that both see.
"""

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from webapp.leads.errors import Invalid, NotFound, Transient

_BLOCK = 1 << 18
_PART = ".part"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Stored:
    """A file taken in: its ``name`` in the folder, its size in bytes, the SHA-256 (hex) of its bytes."""

    name: str
    size: int
    digest: str


@contextmanager
def disk_has_room() -> Iterator[None]:
    """What is written inside: Transient, with words to show, when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise Transient("There is no room on the disk for this file at the moment.", retry_after=60) from error


class Receiver:
    """A new file in ``folder``, written as its bytes come: :meth:`finish` makes it durable, and what is left without
    that is deleted by :meth:`discard`. Beyond ``limit`` bytes :meth:`write` raises Invalid with code
    ``payload_too_large``; a full disk is Transient."""

    def __init__(self, folder: str | Path, *, limit: int) -> None:
        self._folder = Path(folder)
        self._limit = limit
        self.name = uuid.uuid4().hex
        self.size = 0
        self._digest = hashlib.sha256()
        self._partial = self._folder / f"{self.name}{_PART}"
        with disk_has_room():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = open(self._partial, "xb", opener=_private)  # noqa: SIM115

    def write(self, part: bytes) -> int:
        self.size += len(part)
        if self.size > self._limit:
            raise Invalid(f"The file is larger than {self._limit:,} bytes.", code="payload_too_large")
        self._digest.update(part)
        with disk_has_room():
            return self._file.write(part)

    def finish(self) -> Stored:
        """Flush it to disk under its name."""
        with disk_has_room():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._partial.rename(self._folder / self.name)
            _sync(self._folder)
        return Stored(self.name, self.size, self._digest.hexdigest())

    def discard(self) -> None:
        with contextlib.suppress(OSError):  # on a full disk, what is still to be written
            self._file.close()
        for path in (self._partial, self._folder / self.name):
            path.unlink(missing_ok=True)


def receive(parts: Iterable[bytes], folder: str | Path, *, limit: int) -> Stored:
    """Write a stream to a new file in ``folder`` and return when it is safely on disk. Invalid with code
    ``payload_too_large`` beyond ``limit`` bytes; nothing is left then, nor when ``parts`` raises."""
    receiver = Receiver(folder, limit=limit)
    try:
        for part in parts:
            receiver.write(part)
        return receiver.finish()
    except BaseException:
        receiver.discard()
        raise


def blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """An open file as parts for :func:`receive`."""
    while block := stream.read(_BLOCK):
        yield block


def path_of(folder: str | Path, stored_as: str | None) -> Path:
    """Where the file is. NotFound, with words to show, when it is gone."""
    path = Path(folder) / Path(stored_as or "-").name
    if not path.is_file():
        raise NotFound("The file of this import is not here any more.")
    return path


def remove(folder: str | Path, stored_as: str | None) -> None:
    """Delete the file, if it is there."""
    if stored_as:
        (Path(folder) / Path(stored_as).name).unlink(missing_ok=True)


def sweep(folder: str | Path, keep: Iterable[str], *, older_than: float) -> int:
    """Delete what no import names (an upload that broke off with its process), if it was last written before the Unix
    time ``older_than``. Returns how many files went."""
    known, gone = set(keep), 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file() and entry.name not in known and entry.stat().st_mtime < older_than:
                    os.unlink(entry.path)
                    gone += 1
    return gone


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Chunks prepared by processes beside the worker's own, which then has nothing to do but write them.

Preparing a row costs more than twice as much as writing it, and Python threads share one core. Each helper is a fork of
the worker (so it has the compiled rules, the keys and the mapping at once), reads the file by itself, prepares its share
of the chunks and sends them through a pipe: a full pipe makes it wait, a worker that is gone ends it. It touches neither
the database nor anything else of the worker's. One that is gone costs time and nothing else: the worker prepares what
is left itself.
"""

import logging
import multiprocessing
import os
import pickle
import signal
from collections.abc import Generator
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from uuid import UUID

from setproctitle import getproctitle, setproctitle

from webapp.leads.imports.chunks import Chunk, Source
from webapp.leads.imports.reading import Broken

log = logging.getLogger(__name__)

#: Bytes of a file below which starting a helper is not worth it.
WORTH_HELP = 256 << 10
_fork = multiprocessing.get_context("fork")


def chunks(source: Source, helpers: int) -> Generator[Chunk]:
    """The chunks of ``source`` in their order, prepared by so many processes; by this one with none, and for what is
    small. Close it when it is not read to its end. Raises as :meth:`Source.chunks` does."""
    if helpers < 1 or source.size < WORTH_HELP:
        yield from source.chunks()
        return
    started: list[_Helper] = []
    try:
        for turn in range(helpers):
            started.append(_Helper(source, turn, helpers))
        for turn in count():
            try:
                said = started[turn % helpers].receive()
            except (EOFError, OSError, pickle.UnpicklingError):
                log.warning("a process that prepares rows is gone; going on without")
                break
            if said is None:
                return
            if isinstance(said, Broken):
                raise said
            source = source.behind(said)
            yield said
    finally:
        for helper in started:
            helper.end()
    yield from source.chunks()


class _Helper:
    """A process that prepares every ``turns``-th chunk of ``source``."""

    def __init__(self, source: Source, turn: int, turns: int) -> None:
        self._reader, writer = _fork.Pipe(duplex=False)
        self._process = _fork.Process(target=_prepare, args=(source, turn, turns, writer), daemon=True)
        self._process.start()
        writer.close()

    def receive(self) -> Chunk | Broken | None:
        """Its next chunk; None behind the last; Broken when the rest of the file is. EOFError when it is gone."""
        said: Chunk | Broken | None = self._reader.recv()
        return _unpacked(said) if isinstance(said, Chunk) else said

    def end(self) -> None:
        self._reader.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def _prepare(source: Source, turn: int, turns: int, writer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _forget_files_but(writer.fileno())
    setproctitle(f"{getproctitle()}: rows")
    with suppress(BrokenPipeError):  # the worker has no use for the rest, or is gone
        try:
            for chunk in source.chunks(turn, turns):
                writer.send(_packed(chunk))
            writer.send(None)
        except Broken as error:
            writer.send(error)


def _packed(chunk: Chunk) -> Chunk:
    """Ids travel as whole numbers: pickling takes longer for them than for all the rest of a row."""
    for _, row in chunk.good:
        row["id"] = row["id"].int
    return chunk


def _unpacked(chunk: Chunk) -> Chunk:
    for _, row in chunk.good:
        row["id"] = UUID(int=row["id"])
    return chunk


def _forget_files_but(kept: int) -> None:
    """Closes what a fork has of its parent's: while it held a connection of a parent that was killed, PostgreSQL would
    keep that one's locks; while it held the other ends of pipes, nobody could tell that they are closed."""
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))

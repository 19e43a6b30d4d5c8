"""Chunks prepared by processes beside the worker's own, which then has nothing to do but write them.

Preparing a row costs more than twice as much as writing it, and Python threads share one core. Each helper is a fork of
the worker (so it has the compiled rules, the keys and the mapping at once), reads the file by itself, prepares its share
of the chunks and sends them through a pipe: a full pipe makes it wait, a worker that is gone ends it. It touches neither
the database nor anything else of the worker's. One that is gone, stands still or cannot be started costs time and
nothing else: the worker prepares what is left itself.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Generator
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection

from setproctitle import getproctitle, setproctitle

from webapp.leads.imports.chunks import Chunk, Source
from webapp.leads.imports.reading import Broken

log = logging.getLogger(__name__)

#: Bytes of a file for each helper below which starting it is not worth it.
WORTH_HELP = 256 << 10
#: How long a helper may take for a chunk before it counts as gone; an import's lease is longer.
PATIENCE_SECONDS = 20.0
#: How long the worker does without them when one could not be started: the system is short of something.
_WITHOUT_SECONDS = 600.0
_fork = multiprocessing.get_context("fork")
_without_until = 0.0


def chunks(source: Source, helpers: int) -> Generator[Chunk]:
    """The chunks of ``source`` in their order, prepared by so many processes; by this one with none, and for what is
    small. Close it when it is not read to its end. Raises as :meth:`Source.chunks` does."""
    started = _start(source, min(helpers, source.size // WORTH_HELP))
    try:
        for turn in count() if started else ():
            helper = started[turn % len(started)]
            try:
                said = helper.receive()
            except (EOFError, OSError, pickle.UnpicklingError):
                helper.is_missed()
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


def _start(source: Source, helpers: int) -> "list[_Helper]":
    global _without_until
    started: list[_Helper] = []
    if time.monotonic() < _without_until:
        return started
    try:
        for turn in range(helpers):
            started.append(_Helper(source, turn, helpers))
    except OSError as error:
        log.warning("no process to prepare rows could be started, going on without: %s", error)
        _without_until = time.monotonic() + _WITHOUT_SECONDS
        for helper in started:
            helper.end()
        return []
    return started


class _Helper:
    """A process that prepares every ``turns``-th chunk of ``source``. OSError when there can be none."""

    def __init__(self, source: Source, turn: int, turns: int) -> None:
        self._reader, writer = _fork.Pipe(duplex=False)
        try:
            self._process = _fork.Process(target=_prepare, args=(source, turn, turns, writer), daemon=True)
            self._process.start()
        except OSError:
            self._reader.close()
            raise
        finally:
            writer.close()

    def receive(self) -> Chunk | Broken | None:
        """Its next chunk; None behind the last; Broken when the rest of the file is. EOFError when it is gone."""
        if not self._reader.poll(PATIENCE_SECONDS):
            raise EOFError
        said: Chunk | Broken | None = self._reader.recv()
        return said

    def is_missed(self) -> None:
        """Say that it is gone, and how it ended (None: it stands still)."""
        patience = time.monotonic() + 1
        # Not by `join`, which takes the closed pipe of a process that only stands still for its end.
        while (code := self._process.exitcode) is None and time.monotonic() < patience:
            time.sleep(0.01)
        level = logging.INFO if code == -signal.SIGTERM else logging.WARNING  # all are told to end, the worker too
        log.log(level, "a process that prepares rows is gone (exit code %s); going on without", code)

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
                writer.send(chunk)
            writer.send(None)
        except Broken as error:
            writer.send(error)
        except BrokenPipeError:
            raise
        except Exception:
            log.exception("rows of import %s could not be prepared", source.mapper.import_id)
            raise SystemExit(1) from None


def _forget_files_but(kept: int) -> None:
    """Closes what a fork has of its parent's: while it held a connection of a parent that was killed, PostgreSQL would
    keep that one's locks; while it held the other ends of pipes, nobody could tell that they are closed."""
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))

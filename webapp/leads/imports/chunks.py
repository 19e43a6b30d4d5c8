"""The rows of a file, read, mapped and judged, in chunks that are ready to be written. No database here."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from webapp.leads import intake_bulk
from webapp.leads.errors import Invalid, Problem
from webapp.leads.imports.columns import Mapper
from webapp.leads.imports.layout import Layout
from webapp.leads.imports.reading import Broken, Row, rows
from webapp.leads.intake import LeadIn, Tenant

log = logging.getLogger(__name__)

#: Rows of one transaction, and the bytes of the file after which a chunk is full as well.
CHUNK_ROWS = 1_000
CHUNK_BYTES = 4 << 20
INTERNAL = "could not be taken in because of an error of ours"

#: By row number.
Good = list[tuple[int, intake_bulk.Row]]
Problems = list[tuple[int, Problem]]


@dataclass(slots=True)
class Chunk:
    """``first``: the number of its first row; ``end``: the byte of the file behind its last."""

    first: int
    end: int
    size: int
    good: Good
    problems: Problems


@dataclass(frozen=True, slots=True)
class Source:
    """The part of a file from byte ``start`` on, whose first row is number ``first``, and what its rows become."""

    path: Path
    layout: Layout
    start: int
    first: int
    mapper: Mapper
    tenant: Tenant
    chunk_rows: int = CHUNK_ROWS

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size - self.start

    def behind(self, chunk: Chunk) -> "Source":
        return replace(self, start=chunk.end, first=chunk.first + chunk.size)

    def chunks(self, turn: int = 0, turns: int = 1) -> Iterator[Chunk]:
        """Every ``turns``-th of them, beginning with number ``turn``; the rows of the others are only read. Broken
        when the rest of the file cannot be read, behind what can; OSError."""
        for begin, end, found in self._read():
            if turn == 0:
                yield self._chunk(begin, end, found)
            turn = turn - 1 if turn else turns - 1

    def _read(self) -> Iterator[tuple[int, int, list[Row]]]:
        """(number of the first row, the byte behind the last, the rows) of chunk after chunk."""
        found: list[Row] = []
        first, begin = self.first, self.start
        broken: Broken | None = None
        with self.path.open("rb") as file:
            source = rows(file, self.layout, self.start)
            while True:
                try:
                    row = next(source, None)
                except Broken as error:
                    row, broken = None, error
                if row is None:
                    break
                found.append(row)
                if len(found) >= self.chunk_rows or row.end - begin >= CHUNK_BYTES:
                    yield first, row.end, found
                    first, begin, found = first + len(found), row.end, []
        if found:
            yield first, found[-1].end, found
        if broken is not None:
            raise broken

    def _chunk(self, first: int, end: int, found: list[Row]) -> Chunk:
        good, problems = prepare(self.mapper, self.tenant, found, first)
        return Chunk(first, end, len(found), good, problems)


def prepare(mapper: Mapper, tenant: Tenant, found: Sequence[Row], first: int = 0) -> tuple[Good, Problems]:
    """Rows, numbered from ``first`` on, as what intake makes of them, and what keeps the others from being leads
    (:data:`INTERNAL`: a bug of ours, which must cost no more than the row)."""
    good: Good = []
    problems: Problems = []
    leads: list[tuple[int, LeadIn]] = []
    for number, row in enumerate(found, start=first):
        try:
            made = mapper.lead(row)
        except Exception as error:
            problems += _problems(mapper, number, error)
            continue
        if isinstance(made, LeadIn):
            leads.append((number, made))
        else:
            problems += [(number, problem) for problem in made]
    prepared = intake_bulk.prepare_each(tenant, [lead for _, lead in leads])
    for (number, _), one in zip(leads, prepared, strict=True):
        if isinstance(one, Exception):
            problems += _problems(mapper, number, one)
        else:
            good.append((number, one))
    return good, problems


def _problems(mapper: Mapper, number: int, error: Exception) -> Problems:
    if isinstance(error, Invalid):
        return [(number, problem) for problem in error.details or (Problem("row", error.message),)]
    what = f"import {mapper.import_id}" if mapper.import_id else "a batch"
    log.error("row %d of %s could not be prepared", number, what, exc_info=error)
    return [(number, Problem("row", INTERNAL))]

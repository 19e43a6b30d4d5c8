"""The rows of a file, read, mapped and judged, in chunks that are ready to be written. No database here."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
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


@dataclass(slots=True)
class Chunk:
    """``good``: (row number, prepared row); ``end``: the byte of the file behind it."""

    first: int
    end: int
    size: int = 0
    good: list[tuple[int, intake_bulk.Row]] = field(default_factory=list)
    problems: list[tuple[int, Problem]] = field(default_factory=list)


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
        with self.path.open("rb") as file:
            chunk, begin, mine = Chunk(self.first, self.start), self.start, turn == 0
            number, broken = self.first - 1, None
            source = rows(file, self.layout, self.start)
            while True:
                try:
                    row = next(source, None)
                except Broken as error:
                    row, broken = None, error
                if row is None:
                    break
                number += 1
                if mine:
                    self._prepare(chunk, number, row)
                chunk.size += 1
                chunk.end = row.end
                if chunk.size >= self.chunk_rows or row.end - begin >= CHUNK_BYTES:
                    if mine:
                        yield chunk
                    turn = turn - 1 if turn else turns - 1
                    chunk, begin, mine = Chunk(number + 1, row.end), row.end, turn == 0
            if chunk.size and mine:
                yield chunk
            if broken is not None:
                raise broken

    def _prepare(self, chunk: Chunk, number: int, row: Row) -> None:
        try:
            made = self.mapper.lead(row)
            if isinstance(made, LeadIn):
                chunk.good.append((number, intake_bulk.prepare(self.tenant, made)))
            else:
                chunk.problems += [(number, problem) for problem in made]
        except Invalid as error:
            found = error.details or (Problem("row", error.message),)
            chunk.problems += [(number, problem) for problem in found]
        except Exception:  # a bug of ours must cost no more than the row
            log.exception("import %s, row %d", self.mapper.import_id, number)
            chunk.problems.append((number, Problem("row", INTERNAL)))

"""The rows of a file, one after another, in constant memory; a reader can begin again behind any row.

A row that cannot be read is one with a problem, and the next one is read as if nothing had been. Only JSON whose
brackets are broken ends there (:class:`Broken`): nobody can tell where the next row begins.
"""

import csv
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from webapp.leads.errors import Problem
from webapp.leads.imports.layout import CSV, NDJSON, Layout
from webapp.leads.imports.lines import Lines, TooLong, end_of_line, end_of_quoted_row

#: Longest cell, in characters; a row with a longer one is refused.
MAX_CELL = 10_000_000
csv.field_size_limit(MAX_CELL)
#: Longest object of a JSON array, in characters.
_MAX_OBJECT = 2 * MAX_CELL
#: A line to see whether the one before it was a whole row.
_SENTINEL = "x"
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``values``: column → cell; None: it cannot be read, and ``problem`` says why. ``end``: the byte at which
    the next one begins."""

    values: dict[str, Any] | None
    end: int
    problem: Problem | None = None


class Broken(Exception):
    """The rest of the file cannot be read; ``str()`` says why, in words to show."""


def rows(file: BinaryIO, layout: Layout, start: int) -> Iterator[Row]:
    """The rows from byte ``start`` on: ``layout.begins_at``, or the end of an earlier row."""
    if layout.format == CSV:
        return iter(CsvRows(file, layout, start))
    if layout.format == NDJSON:
        return _ndjson(file, layout, start)
    return _json_array(file, layout, start)


_UNCLOSED = "opens a quote that is never closed"


class CsvRows(Iterator[Row]):
    """Rows of CSV; blank ones are passed over. With no columns in ``layout``, cells are named by their number.

    A stray quote would take in the rows behind it up to the next quote. So a row of several lines must fit and must
    have nothing between a closing quote and the separator; otherwise its first line alone is the row that cannot be
    read. On one line ``"Big" deal`` harms nobody, and is read as ``Big deal``.
    """

    def __init__(self, file: BinaryIO, layout: Layout, start: int) -> None:
        self._file, self._layout = file, layout
        self._width = len(layout.columns)
        self._delimiter = layout.delimiter or ","
        self._open(start)

    def _open(self, start: int) -> None:
        self._lines = Lines(self._file, self._layout.encoding, self._layout.newline, start)
        self._reader = csv.reader(self._lines, delimiter=self._delimiter, strict=True)

    def __next__(self) -> Row:
        while True:
            begin, lines_before = self._lines.offset, self._reader.line_num
            try:
                cells = next(self._reader)
            except TooLong:
                if self._reader.line_num > lines_before:
                    return self._unclosed(begin)
                return self._skip(begin, f"is longer than {MAX_CELL:,} characters")
            except csv.Error as error:
                if self._reader.line_num > lines_before + 1 or "end of data" in str(error):
                    return self._unclosed(begin)
                if "expected after" not in str(error):
                    return self._odd(begin, str(error))
                lenient = self._lenient(self._lines.last)
                if lenient is None:
                    self._lines.damaged = False
                    return Row(None, self._lines.offset, Problem("row", _UNCLOSED))
                cells = lenient
            problem = self._misfit(cells) if len(cells) != self._width else None
            if problem and self._reader.line_num > lines_before + 1 and any(cell.strip() for cell in cells):
                return self._unclosed(begin)
            if self._lines.damaged:
                return self._damaged(cells)
            if not any(cells) or not any(cell.strip() for cell in cells):
                continue
            if problem:
                return Row(None, self._lines.offset, problem)
            return Row(dict(zip(self._layout.columns, cells, strict=False)), self._lines.offset)

    def _misfit(self, cells: list[str]) -> Problem | None:
        if not self._width:
            return None
        if len(cells) < self._width or any(cells[self._width :]):
            return Problem("row", f"has {len(cells)} cells where there are {self._width} columns")
        return None  # separators at the end, with nothing between them

    def _lenient(self, line: str) -> list[str] | None:
        """The cells of one line with text behind a closing quote; None when a quote is open at its end, too."""
        try:
            cells, *more = csv.reader([line, _SENTINEL], delimiter=self._delimiter)
        except (csv.Error, ValueError):
            return None
        return cells if more else None

    def _damaged(self, cells: list[str]) -> Row:
        self._lines.damaged = False
        names = [name for name, cell in zip(self._layout.columns, cells, strict=False) if "�" in cell]
        problem = Problem(names[0] if names else "row", f"holds bytes that are not {self._layout.encoding} text")
        return Row(None, self._lines.offset, problem)

    def _odd(self, begin: int, said: str) -> Row:
        if "field larger" in said:
            return self._skip(begin, f"has a cell of more than {MAX_CELL:,} characters")
        self._lines.damaged = False
        return Row(None, self._lines.offset, Problem("row", "has a line break in the middle of an unquoted cell"))

    def _unclosed(self, begin: int) -> Row:
        """The reader went beyond the row's own line; go on behind that."""
        ends = end_of_line(self._file, self._lines, begin)
        self._open(ends)
        return Row(None, ends, Problem("row", _UNCLOSED))

    def _skip(self, begin: int, reason: str) -> Row:
        """Leave out a row that is too large to be held; where it ends is found by counting quotes."""
        ends = end_of_quoted_row(self._file, self._lines, begin)
        if ends is None:
            reason, ends = _UNCLOSED, end_of_line(self._file, self._lines, begin)
        self._open(ends)
        return Row(None, ends, Problem("row", reason))


# JSON


def _finite(text: str) -> Any:
    number = float(text)
    return number if math.isfinite(number) else text


def _whole(text: str) -> Any:
    return int(text) if len(text) < 300 else text


#: What JSON cannot hold (NaN, numbers without end) stays as its text, which no field of a lead takes for a number.
_DECODER = json.JSONDecoder(parse_float=_finite, parse_int=_whole, parse_constant=str, strict=False)


def _object(value: Any, end: int) -> Row:
    if isinstance(value, dict):
        return Row(value, end)
    return Row(None, end, Problem("row", "is not a JSON object"))


def _ndjson(file: BinaryIO, layout: Layout, start: int) -> Iterator[Row]:
    lines = Lines(file, layout.encoding, layout.newline, start)
    while True:
        begin = lines.offset
        try:
            line = next(lines).strip()
        except StopIteration:
            return
        except TooLong:
            ends = end_of_line(file, lines, begin)
            yield Row(None, ends, Problem("row", f"is longer than {MAX_CELL:,} characters"))
            lines = Lines(file, layout.encoding, layout.newline, ends)
            continue
        if lines.damaged:
            lines.damaged = False
            yield Row(None, lines.offset, Problem("row", f"holds bytes that are not {layout.encoding} text"))
        elif len(line) > MAX_CELL:
            yield Row(None, lines.offset, Problem("row", f"is longer than {MAX_CELL:,} characters"))
        elif line:
            yield _object_of_line(line, lines.offset)


def _object_of_line(line: str, end: int) -> Row:
    try:
        return _object(_DECODER.decode(line), end)
    except RecursionError:
        return Row(None, end, Problem("row", "is nested too deep"))
    except ValueError as error:
        return Row(None, end, Problem("row", f"is not valid JSON: {str(error)[:100]}"))


def _json_array(file: BinaryIO, layout: Layout, start: int) -> Iterator[Row]:
    text = _Text(file, layout.encoding, start)
    first = start == layout.begins_at
    if first:
        text.expect("[")
    while True:
        mark = text.peek()
        if mark == "]":
            return
        if not first:
            text.expect(",")
        elif mark == "":
            raise Broken(text.where("The JSON ends in the middle"))
        first = False
        value = text.value()
        yield _object(value, text.offset)


class _Text:
    """A window of decoded text that moves over the file. ``offset``: the byte behind what was taken."""

    def __init__(self, file: BinaryIO, encoding: str, start: int) -> None:
        file.seek(start)
        self._file, self._encoding = file, encoding
        self._rest = b""  # bytes read, not yet whole characters
        self._window, self._at = "", 0
        self.offset = start

    def _more(self) -> bool:
        """Read on; the next block is as large as the window, so that a large object is not looked at too often."""
        if len(self._window) - self._at > _MAX_OBJECT:
            raise Broken(self.where(f"A row is longer than {_MAX_OBJECT:,} characters"))
        block = self._file.read(max(64 << 10, len(self._window) - self._at))
        raw = self._rest + block
        try:
            text, self._rest = raw.decode(self._encoding), b""
        except UnicodeDecodeError as error:
            if len(raw) - error.start > 4 or not block:
                raise Broken(self.where(f"The file holds bytes that are not {self._encoding} text")) from None
            text, self._rest = raw[: error.start].decode(self._encoding), raw[error.start :]
        self._window, self._at = self._window[self._at :] + text, 0
        return bool(block)

    def _take(self, end: int) -> None:
        self.offset += len(self._window[self._at : end].encode(self._encoding))
        self._at = end

    def peek(self) -> str:
        """The next character that is no white space, "" at the end."""
        while True:
            match = _SPACE.match(self._window, self._at)
            self._take(match.end() if match else self._at)
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._more() and self._at >= len(self._window):
                return ""

    def expect(self, mark: str) -> None:
        found = self.peek()
        if found != mark:
            what = f"“{mark}” is missing" if found else "The JSON ends in the middle"
            raise Broken(self.where(what))
        self._take(self._at + 1)

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._window, self._at)
            except RecursionError:
                raise Broken(self.where("A row is nested too deep")) from None
            except ValueError:
                if not self._more():
                    raise Broken(self.where("The JSON is broken or ends in the middle")) from None
                continue
            if end == len(self._window) and self._more():  # a number may go on
                continue
            self._take(end)
            return value

    def where(self, what: str) -> str:
        return f"{what} (behind byte {self.offset:,}). The rows before it were read."

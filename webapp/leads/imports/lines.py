"""The lines of a file as text, each with the byte at which it ends, in memory that does not grow with the file."""

import codecs
from collections.abc import Iterator
from typing import BinaryIO

#: Longest line that is held in memory, and with it the longest row.
MAX_LINE = 32 << 20
_BLOCK = 1 << 20
_WIDTHS = {"utf-16-le": 2, "utf-16-be": 2, "utf-32-le": 4, "utf-32-be": 4}


class TooLong(Exception):
    """A line beyond :data:`MAX_LINE`."""


class Lines(Iterator[str]):
    """Iterates over the lines from byte ``start`` on. ``last``: the one last given; ``offset``: where it ends; ``damaged``: whether
    any since the caller last reset it held bytes that are none in this encoding (they read as U+FFFD). Raises
    TooLong."""

    def __init__(self, file: BinaryIO, encoding: str, newline: str, start: int) -> None:
        self.offset = start
        self.damaged = False
        self.last = ""
        self.width = _WIDTHS.get(encoding, 1)
        self.newline = newline.encode(encoding)
        self.encoding = encoding
        file.seek(start)
        self._readline = file.readline if self.newline == b"\n" else _Reader(file, self.newline, self.width).readline

    def __next__(self) -> str:
        raw = self._readline(MAX_LINE + 1)
        if not raw:
            raise StopIteration
        if len(raw) > MAX_LINE:
            raise TooLong
        self.offset += len(raw)
        try:
            self.last = raw.decode(self.encoding)
        except UnicodeDecodeError:
            self.damaged = True
            self.last = raw.decode(self.encoding, "replace")
        return self.last


class _Reader:
    """``readline`` for line ends that are not the one byte LF: UTF-16 and UTF-32, and files with CR alone."""

    def __init__(self, file: BinaryIO, newline: bytes, width: int) -> None:
        self._file, self._newline, self._width = file, newline, width
        self._buffer = bytearray()
        self._at = 0

    def readline(self, limit: int) -> bytes:
        searched = self._at
        while True:
            end = find_newline(self._buffer, self._newline, self._width, searched, self._at)
            if end >= 0:
                break
            searched = max(self._at, len(self._buffer) - len(self._newline) + 1)
            if len(self._buffer) - self._at >= limit:
                end = self._at + limit
                break
            del self._buffer[: self._at]
            searched, self._at = searched - self._at, 0
            more = self._file.read(_BLOCK)
            if not more:
                end = len(self._buffer)
                break
            self._buffer += more
        line = bytes(self._buffer[self._at : end])
        self._at = end
        return line


def find_newline(buffer: bytes | bytearray, newline: bytes, width: int, start: int, base: int = 0) -> int:
    """The index just behind the next line end at or after ``start``, or -1. ``base``: the index of a whole code unit,
    so that no half of one is taken for a line end."""
    found = buffer.find(newline, start)
    while found >= 0 and (found - base) % width:
        found = buffer.find(newline, found + 1)
    return found + len(newline) if found >= 0 else -1


def end_of_line(file: BinaryIO, lines: Lines, start: int) -> int:
    """Where the line that begins at ``start`` ends, however long it is."""
    return _scan(file, lines, start, quote=None) or file.seek(0, 2)


def end_of_quoted_row(file: BinaryIO, lines: Lines, start: int) -> int | None:
    """Where the row that begins at ``start`` ends, counting its quotes; None when a quote stays open to the end."""
    return _scan(file, lines, start, quote='"'.encode(lines.encoding))


def _scan(file: BinaryIO, lines: Lines, start: int, quote: bytes | None) -> int | None:
    file.seek(start)
    at, is_open, rest = start, False, b""
    step = lines.width
    while block := file.read(_BLOCK):
        block = rest + block
        usable = len(block) - len(block) % step
        begin = 0
        while (end := find_newline(block, lines.newline, step, begin)) >= 0 and end <= usable:
            if quote is not None:
                is_open ^= bool(_count(block[begin:end], quote, lines) % 2)
            if not is_open:
                return at + end
            begin = end
        if quote is not None:
            is_open ^= bool(_count(block[begin:usable], quote, lines) % 2)
        rest = block[usable:]
        at += usable
    return None if is_open else at


def _count(part: bytes, quote: bytes, lines: Lines) -> int:
    if lines.width == 1:
        return part.count(quote)
    return part.decode(lines.encoding, "replace").count(quote.decode(lines.encoding))


EITHER_ORDER = frozenset({"utf-16", "utf-32"})
_NOT_FOR_TABLES = frozenset({"utf-7", "idna", "punycode", "raw-unicode-escape", "unicode-escape"})
_PROBE = 'aZ0,;|"\t\n'


def known_encoding(name: str) -> str | None:
    """The codec's own name, when Python reads text so and finds line ends and separators by their usual bytes.
    ``utf-16`` and ``utf-32`` leave the order of bytes to the file."""
    try:
        codec = codecs.lookup(name)
        if codec.name == "utf-8-sig":
            return "utf-8"
        if codec.name in _WIDTHS or codec.name in EITHER_ORDER:
            return codec.name
        plain = _PROBE.encode(codec.name) == _PROBE.encode("ascii")
        b"\xff".decode(codec.name, "replace")  # as damaged lines are read
    except (LookupError, ValueError, TypeError):
        return None
    return codec.name if plain and codec.name not in _NOT_FOR_TABLES else None

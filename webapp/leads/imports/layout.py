"""What kind of file it is, found out from a bounded look at it: format, encoding, separator, columns.

The look is a guess that a person may correct; what it got wrong about single rows becomes those rows' problems.
"""

import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from charset_normalizer import from_bytes

from webapp.leads.errors import Invalid, Problem
from webapp.leads.imports.lines import EITHER_ORDER, known_encoding

CSV, NDJSON, JSON = "csv", "ndjson", "json"
FORMATS = (CSV, NDJSON, JSON)
DELIMITERS = (",", ";", "\t", "|")
#: Most columns of a file: beyond, it is none of leads.
MAX_COLUMNS = 500
MAX_COLUMN_NAME = 200
#: Bytes looked at from the beginning, and again where the first bytes beyond ASCII are.
SAMPLE = 128 << 10
_BLOCK = 1 << 20
_SAMPLE_ROWS = 100
_LONGEST_SAMPLE_LINE = 1 << 20

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: What tables of contacts are written in besides what _western tells; all of them write line ends, quotes and separators as
#: ASCII does.
_CODE_PAGES = [
    "cp1250", "cp1251", "cp1253", "cp1255", "cp1256", "cp1257", "cp850", "cp437", "cp852",
    "cp866", "mac_roman", "koi8_r", "gb18030", "big5", "shift_jis", "cp932", "euc_kr", "cp949", "euc_jp", "tis_620",
    "cp874",
]  # fmt: skip
_OTHER_KINDS = (
    (b"PK\x03\x04", "an Excel workbook or a zip archive; save it as CSV first"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook; save it as CSV first"),
    (b"\x1f\x8b", "compressed; unpack it first"),
    (b"%PDF", "a PDF"),
)
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[;,\t|]*\r?', re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read a file. ``columns``: distinct names, in order; of JSON those that the first objects have.
    ``begins_at``: the byte where the first data row begins. ``delimiter``, ``has_header``: CSV alone."""

    format: str
    encoding: str
    columns: tuple[str, ...] = ()
    delimiter: str | None = None
    has_header: bool = True
    newline: str = "\n"
    begins_at: int = 0


def inspect(
    path: Path,
    *,
    filename: str = "",
    content_type: str = "",
    format: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    has_header: bool | None = None,
) -> Layout:
    """Look at the file; what the caller names is believed. Invalid, with words to show, when it holds no rows, is no
    text, or a named property does not exist."""
    _check_wishes(format, encoding, delimiter)
    with path.open("rb") as file:
        head = file.read(SAMPLE)
        if not head.strip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"):
            raise Invalid("The file is empty.", details=(Problem("file", "holds no rows"),))
        for magic, what in _OTHER_KINDS:
            if head.startswith(magic):
                raise Invalid(f"The file is {what}.", details=(Problem("file", f"is {what}"),))
        bom, chosen = _encoding(file, head, encoding)
        text = _text(head[len(bom) :], chosen)
        if len(_CONTROL.findall(text[:8192])) > len(text[:8192]) // 50:
            raise Invalid("The file is not text.", details=(Problem("file", "is not text"),))
        layout = Layout(
            format=format or _format(text, filename, content_type),
            encoding=chosen,
            newline="\r" if "\n" not in text and "\r" in text else "\n",
            begins_at=len(bom),
        )
        if layout.format == CSV:
            return _csv_layout(file, layout, text, delimiter, has_header)
        if encoding is None and not chosen.startswith("utf-"):
            layout = replace(layout, encoding="utf-8")  # JSON is nothing else, so other bytes are mistakes
        return replace(layout, columns=_json_columns(path, layout))


def _check_wishes(format: str | None, encoding: str | None, delimiter: str | None) -> None:
    problems = []
    if format is not None and format not in FORMATS:
        problems.append(Problem("format", f"must be one of {', '.join(FORMATS)}"))
    if encoding is not None and known_encoding(encoding) is None:
        problems.append(Problem("encoding", "is not an encoding that tables are read in"))
    if delimiter is not None and delimiter not in DELIMITERS:
        problems.append(Problem("delimiter", "must be a comma, a semicolon, a tab or |"))
    if problems:
        raise Invalid("The file cannot be read that way.", details=tuple(problems))


# Encoding


def _encoding(file: BinaryIO, head: bytes, wanted: str | None) -> tuple[bytes, str]:
    """(the byte order mark, the encoding)."""
    bom, marked = next(((mark, name) for mark, name in _BOMS if head.startswith(mark)), (b"", None))
    if wanted is not None:
        name = known_encoding(wanted) or wanted
        if name in EITHER_ORDER:
            found = marked or _wide(head) or ""
            name = found if found.startswith(name) else f"{name}-le"
        return (bom if marked == name else b""), name
    if marked:
        return bom, marked
    if wide := _wide(head):
        return b"", wide
    if not head.isascii():
        return b"", _guess(head)
    # All that is beyond ASCII may come late: in the name in row 80,000.
    file.seek(0)
    while block := file.read(_BLOCK):
        if not block.isascii():
            first = next(at for at in range(0, len(block), 4096) if not block[at : at + 4096].isascii())
            return b"", _guess(block[first : first + SAMPLE])
    return b"", "utf-8"


def _wide(head: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of Latin text is NUL."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    most = len(head) // 2 * 0.6
    return "utf-16-le" if odd > most > even else "utf-16-be" if even > most > odd else None


def _guess(sample: bytes) -> str:
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(sample)
    foreign = sum(1 for character in text if character > "\x7f")
    # UTF-8 does not happen by chance; a few bytes that are none of it are those rows' problems. The cut at the
    # beginning of a sample from the middle costs at most three.
    if foreign and text[3:].count("�") * 20 <= foreign:
        return "utf-8"
    if western := _western(sample):
        return western
    best = from_bytes(sample[: 64 << 10], cp_isolation=_CODE_PAGES, enable_fallback=False).best()
    return known_encoding(best.encoding) or "cp1252" if best else "cp1252"


def _western(sample: bytes) -> str | None:
    """The code page of text in Latin letters with a few accents, each where one can stand; None when it is something
    else. Short samples tell no code page by themselves, and most of such tables are Windows-1252."""
    text = sample.decode("cp1252", "replace")
    foreign = sum(1 for character in text if character > "\x7f")
    if len(_VIETNAMESE.findall(sample.decode("cp1258", "replace"))) * 4 >= foreign:
        return "cp1258"
    letters = sum(1 for character in text if character.isalpha())
    if foreign * 4 >= letters or len(_MISPLACED.findall(text)) * 10 > foreign:
        return None
    found = set(text.lower())
    if found & set("þðý") and found & set("çü"):
        return "cp1254"  # Turkish; Icelandic has neither of the latter
    if any(found & set(one) and found & set(other) for one, other in _CENTRAL):
        return "cp1250"
    return "cp1252"


#: Inside a word: a sign that is no letter, or a foreign capital that small letters follow.
_MISPLACED = re.compile(
    "(?<=[a-zà-ÿ]{2})[¹³¿¯¼¾]|[£¯¥](?=[a-zà-ÿ]{2})|(?<=[a-zà-ÿ])[\u0080-¿×÷ˆ˜–—‘-„†‡•…‰‹›€™\ufffd](?=[a-zà-ÿ])|(?<=[A-Za-zà-ÿ])[À-ÞŠŒŽŸ](?=[a-z])"
)
#: A vowel and its tone, which Windows-1258 writes as two characters.
_VIETNAMESE = re.compile("[aeiouyâêôăơưAEIOUYÂÊÔĂƠƯ][\u0300\u0301\u0303\u0309\u0323]")
#: What letters of Central Europe look like in Windows-1252: two sets that no western language has both of.
_CENTRAL = (("ìø", "íýšž"), ("õû", "öü"), ("þ", "ã"))


def _text(head: bytes, encoding: str) -> str:
    return codecs.getincrementaldecoder(encoding)("replace").decode(head)


# Format


def _format(text: str, filename: str, content_type: str) -> str:
    suffix = Path(filename.lower()).suffix
    kind = content_type.partition(";")[0].strip().lower()
    first = text.lstrip()[:1]
    if suffix in (".csv", ".tsv", ".tab") or kind in ("text/csv", "text/tab-separated-values"):
        return CSV
    if suffix in (".ndjson", ".jsonl") or kind in ("application/x-ndjson", "application/ndjson", "application/jsonl"):
        return NDJSON
    if first == "[" or (first == "{" and (suffix == ".json" or kind == "application/json")):
        return JSON if first == "[" else NDJSON
    return NDJSON if first == "{" else CSV


# CSV


def _csv_layout(file: BinaryIO, layout: Layout, text: str, delimiter: str | None, has_header: bool | None) -> Layout:
    lines = text.split(layout.newline)
    if said := _SEPARATOR_LINE.fullmatch(lines[0]):  # Excel's own, which names no column
        delimiter = delimiter or (said[1] if said[1] in DELIMITERS else None)
        begins = len(f"{lines.pop(0)}{layout.newline}".encode(layout.encoding))
        layout = replace(layout, begins_at=layout.begins_at + begins)
        text = text.partition(layout.newline)[2]
        if not lines:
            raise Invalid("The file is empty.", details=(Problem("file", "holds no rows"),))
    whole = lines[:-1] if len(text) > len(lines[-1]) and len(lines) > 1 else lines
    whole = [line for line in whole if len(line) < _LONGEST_SAMPLE_LINE]
    mark = delimiter or _delimiter(whole)
    rows = _sample(whole, mark)
    if not rows:
        raise Invalid("The file is empty.", details=(Problem("file", "holds no rows"),))
    header = _looks_like_header(rows) if has_header is None else has_header
    columns = _distinct(rows[0] if header else [""] * len(rows[0]))
    if len(columns) > MAX_COLUMNS:
        raise Invalid(f"The file has {len(columns):,} columns; {MAX_COLUMNS} is the most.")
    made = replace(layout, columns=columns, delimiter=mark, has_header=header)
    return replace(made, begins_at=_after_header(file, made)) if header else made


def _after_header(file: BinaryIO, layout: Layout) -> int:
    from webapp.leads.imports.reading import CsvRows  # which reads by this module's layouts

    for row in CsvRows(file, replace(layout, columns=()), layout.begins_at):
        return row.end
    return layout.begins_at


def _sample(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """The first rows that are not blank."""
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter)
    rows: list[list[str]] = []
    while len(rows) < _SAMPLE_ROWS:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error:
            continue
        if any(cell.strip() for cell in row):
            rows.append(row)
    return rows


def _delimiter(lines: Sequence[str]) -> str:
    """The separator that splits the most rows into the same number of cells."""

    def fit(mark: str) -> tuple[float, int]:
        widths = [len(row) for row in _sample(lines, mark)]
        if not widths:
            return 0.0, 0
        width, times = Counter(widths).most_common(1)[0]
        return (times / len(widths) if width > 1 else 0.0), width

    return max(DELIMITERS, key=fit)  # the first of equals


def _looks_like_header(rows: Sequence[Sequence[str]]) -> bool:
    from webapp.leads.imports.columns import guess_field

    first = [cell.strip() for cell in rows[0]]
    if any(guess_field(cell) for cell in first):
        return True
    values = any("@" in cell or len(cell) > 64 or sum(map(str.isdigit, cell)) > 4 for cell in first)
    return not values and len(set(first)) == len(first) and all(first)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names by which each column can be told: ``column 3`` for none, ``email (2)`` for one that is there already."""
    found: dict[str, None] = {}
    for number, raw in enumerate(names, start=1):
        plain = " ".join(raw.replace("\x00", "").split())[:MAX_COLUMN_NAME] or f"column {number}"
        name, again = plain, 1
        while name in found:
            again += 1
            name = f"{plain} ({again})"
        found[name] = None
    return tuple(found)


# JSON


def _json_columns(path: Path, layout: Layout) -> tuple[str, ...]:
    from webapp.leads.imports.reading import Broken, rows

    names: dict[str, None] = {}
    seen = 0
    with path.open("rb") as file:
        try:
            for row in islice(rows(file, layout, layout.begins_at), _SAMPLE_ROWS):
                seen += 1
                if row.values:
                    names |= dict.fromkeys(str(key) for key in row.values)
        except Broken as error:
            if not seen:
                raise Invalid(str(error), code="invalid_json") from None
            # Otherwise the import will tell, once it has taken in what comes before.
    return tuple(name for name in names if name.isprintable() and len(name) <= MAX_COLUMN_NAME)[:MAX_COLUMNS]


def as_json(value: Any) -> str:
    """How a cell of JSON is shown and kept as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

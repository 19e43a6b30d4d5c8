"""Text normalisation: folding with a way back to the text as sent, forms to compare.

Pure functions on strings. Offsets are code points of the text as sent, because that is what a browser and an
API client can highlight; NFD input, where one letter is several code points, therefore needs an offset map.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

_TONES = frozenset("\u0300\u0301\u0303\u0309\u0323")  # grave, acute, tilde, hook above, dot below
# Invisible characters that spammers and copy-paste leave inside words; they carry no meaning here.
_INVISIBLE = dict.fromkeys([*range(0x200B, 0x2010), 0x2060, 0xFEFF, 0x00AD])


class Mapped(NamedTuple):
    """A normalised text and where each of its characters came from.

    ``starts`` and ``ends`` are None when normalising moved nothing (the usual case, and the cheap one).
    """

    text: str
    starts: tuple[int, ...] | None = None
    ends: tuple[int, ...] | None = None

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """Code-point offsets in the text as sent of ``text[start:end]`` (which must not be empty)."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


def compose(text: str) -> Mapped:
    """NFC and casefold, diacritics kept, with the offset map."""
    folded = text.casefold()
    # Casefolding never shrinks, so an unchanged length means that every character stayed in its place.
    if len(folded) == len(text) and (text.isascii() or unicodedata.is_normalized("NFC", text)):
        return Mapped(folded)
    return _by_cluster(text, lambda cluster: unicodedata.normalize("NFC", cluster).casefold())


def fold(text: str) -> Mapped:
    """NFC, casefold, diacritics stripped (``Đ`` becomes ``d``), with the offset map."""
    if text.isascii():
        return Mapped(text.lower())
    return _by_cluster(text, fold_search)


#: Combining characters of the first plane, which ``re`` finds by a table, and where the few others are.
_MARKS = re.compile(f"[{''.join(chr(code) for code in range(0x300, 0x10000) if unicodedata.combining(chr(code)))}]+")
_BEYOND = re.compile("[\U00010000-\U0001efff]")
#: What is neither ASCII nor one of the marks on Latin letters (U+034F joins letters and is none): leaving out the marks then
#: leaves ASCII.
_OTHER = re.compile("[^\x00-\x7f\u0300-\u034e\u0350-\u036f]")


def fold_search(text: str) -> str:
    """The form under which search ignores case and diacritics: ``Đặt hàng`` and ``dat hang`` are the same."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFD", text.casefold())
    if decomposed.isascii():
        return decomposed
    decomposed = decomposed.replace("đ", "d")
    if not _OTHER.search(decomposed):
        return decomposed.encode("ascii", "ignore").decode()
    if _BEYOND.search(decomposed):
        decomposed = "".join(char for char in decomposed if not unicodedata.combining(char))
    return _MARKS.sub("", decomposed)


#: What no reader sees: invisible characters, and control characters that are no white space.
_UNSEEN = re.compile(
    f"[{''.join(map(chr, _INVISIBLE))}{''.join(re.escape(chr(code)) for code in (*range(0x20), *range(0x7F, 0xA0)) if not chr(code).isspace())}]+"
)


def normalize_message(text: str) -> str:
    """The form in which two messages count as the same text.

    Unicode form, case, white space and invisible characters do not tell two messages apart; words, diacritics
    and punctuation do, so that nobody's changed question is swallowed as a repeat.
    """
    plain = unicodedata.normalize("NFKC", text)
    if not plain.isprintable():  # nothing unseen is
        plain = _UNSEEN.sub("", plain)
    return " ".join(unicodedata.normalize("NFC", plain.casefold()).split())


def tone_key(word: str) -> str:
    """A casefolded NFC word with its tone mark moved to the end.

    Vietnamese has two customs of placing the mark (``hủy``/``huỷ``, ``hòa``/``hoà``); both give one key, while
    words that differ in tone or letter (``bán``/``bạn``, ``giá``/``già``) stay apart.
    """
    if word.isascii():
        return word
    marks: list[str] = []
    letters: list[str] = []
    for char in unicodedata.normalize("NFD", word):
        (marks if char in _TONES else letters).append(char)
    return unicodedata.normalize("NFC", "".join(letters)) + "".join(marks)


def _by_cluster(text: str, convert: Callable[[str], str]) -> Mapped:
    """Convert base character by base character (with its combining marks), recording where each came from."""
    out: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    converted: dict[str, str] = {}  # the clusters of this text: few, and many times each
    i, size = 0, len(text)
    while i < size:
        j = i + 1
        while j < size and unicodedata.combining(text[j]):
            j += 1
        cluster = text[i:j]
        piece = converted.get(cluster)
        if piece is None:
            piece = converted[cluster] = convert(cluster)
        out.append(piece)
        for _ in piece:
            starts.append(i)
            ends.append(j)
        i = j
    return Mapped("".join(out), tuple(starts), tuple(ends))


def word_key(word: str) -> str:
    """The key under which a token of a message is looked up (numbers are all alike)."""
    return "#" if word[0].isdecimal() else tone_key(word.replace("’", "'"))

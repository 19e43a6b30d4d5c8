"""Text normalisation: folding with a way back to the text as sent, tokens, language, forms to compare.

Pure functions on strings. Offsets are code points of the text as sent, because that is what a browser and an
API client can highlight; NFD input, where one letter is several code points, therefore needs an offset map.
"""

import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

_TONES = frozenset("\u0300\u0301\u0303\u0309\u0323")  # grave, acute, tilde, hook above, dot below
# Invisible characters that spammers and copy-paste leave inside words; they carry no meaning here.
_INVISIBLE = dict.fromkeys([*range(0x200B, 0x2010), 0x2060, 0xFEFF, 0x00AD])


_WORDS = re.compile(
    r"\d(?:\w|[.,](?=\d))*|[^\W_]+(?:['’][^\W_]+)*"
    r"|[.!?;,:()\n%$€£₫…]|[\U0001F300-\U0001FAFF\u2600-\u27BF\u2B50]"
)
# The special forms are tried only on texts that hold one: they cost more per token. All bounded or linear.
_SPECIAL_HINT = re.compile(r"[@]|\w\.[a-z]{2}|://|\d[\d\s().-]{7,17}\d")
_SPECIAL = re.compile(
    r"(?P<url>https?://\S+|www\.\S+|(?<![\w@.])[a-z0-9-]{2,40}\.(?:com|net|org|io|vn|example|ly|me|info|biz|xyz|top|shop)\b\S*)"
    r"|(?P<email>[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4})"
    r"|(?P<phone>\+?\(?\d[\d\s().-]{7,17}\d(?!\w))"
    r"|(?P<word>" + _WORDS.pattern + ")"
)
#: What ends a sentence, and the key that it leaves in the text.
_ENDERS = {".": ".", "!": "!", "?": "?", "…": ".", "\n": None, ";": None}
_BREAKS = frozenset(",:()")
_CLAUSE_STARTS = _BREAKS | {"^"}
_PHONE_DIGITS = range(9, 16)

_VI_BARE_WORDS = """
khong ko hok hong hem hom kg dc duoc minh mik mk anh chi em ben cho gia nhieu nhiu bao nha nhe voi cua
roi giup gi nao nay vay sao xin tu van goi lai can mua ban hang muon lay dat chot cty cong ty ng nguoi
thi chua con cam on oi ad shop la co o toi bn sdt dien thoai ngay gap khi neu de den di ra vao ve them
mot hai nhan gui tien loi hoi lam tuyen hop tac va cac nhung trong ngoai sau truoc
"""
_VI_BARE = frozenset(_VI_BARE_WORDS.split())
_EN_COMMON_WORDS = """
the you your is are for and with this that have can we i my our of to in on it a an be do does how what
please from at or if not would could any us me by was will about has
"""
_EN_COMMON = frozenset(_EN_COMMON_WORDS.split())
_LOANS_WORDS = """
shop size ship online email mail zoom app web website link inbox sale fanpage menu file excel zalo
facebook fb tiktok video laptop camera pro vip combo team group admin ok oke hotline internet wifi
massage spa photo seo google marketing sir data demo gps pin code freeship form logo fan like
"""
_LOANS = frozenset(_LOANS_WORDS.split())
_VI_SYLLABLE = re.compile(
    r"(?:ngh|ng|nh|gh|gi|kh|ph|qu|th|tr|ch|[bcdghklmnpqrstvx])?[aeiouy]{1,3}(?:ch|ng|nh|[cmnpt])?"
)

_VOWELS = frozenset("aeiou")

_KEYS: dict[str, str] = {}
_KINDS: dict[str, str] = {}
_KEYS_MAX = 50_000  # a bound on what hostile input can make a process remember


@dataclass(frozen=True, slots=True)
class Mapped:
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


def fold_search(text: str) -> str:
    """The form under which search ignores case and diacritics: ``Đặt hàng`` and ``dat hang`` are the same."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFD", text.casefold())
    if decomposed.isascii():
        return decomposed
    if _BEYOND.search(decomposed):
        decomposed = "".join(char for char in decomposed if not unicodedata.combining(char))
    return _MARKS.sub("", decomposed).replace("đ", "d")


#: What no reader sees: invisible characters, and control characters that are no white space.
_UNSEEN = re.compile(
    f"[{''.join(map(chr, _INVISIBLE))}{''.join(re.escape(chr(code)) for code in (*range(0x20), *range(0x7F, 0xA0)) if not chr(code).isspace())}]+"
)


def normalize_message(text: str) -> str:
    """The form in which two messages count as the same text.

    Unicode form, case, white space and invisible characters do not tell two messages apart; words, diacritics
    and punctuation do, so that nobody's changed question is swallowed as a repeat.
    """
    plain = _UNSEEN.sub("", unicodedata.normalize("NFKC", text)).casefold()
    return " ".join(unicodedata.normalize("NFC", plain).split())


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
    i, size = 0, len(text)
    while i < size:
        j = i + 1
        while j < size and unicodedata.combining(text[j]):
            j += 1
        piece = convert(text[i:j])
        out.append(piece)
        starts.extend([i] * len(piece))
        ends.extend([j] * len(piece))
        i = j
    return Mapped("".join(out), tuple(starts), tuple(ends))


@dataclass(frozen=True, slots=True)
class Tokens:
    """Parallel lists: key for the trie, and surface form ("" for the virtual tokens ``^`` and ``<end>``)."""

    keys: list[str]
    words: list[str]

    def same_sentence(self, first: int, last: int) -> bool:
        """Does no sentence begin after token ``first`` and up to ``last``?"""
        return "^" not in self.keys[first + 1 : last + 1]

    def same_clause(self, first: int, last: int) -> bool:
        """Does neither a sentence nor a clause begin after token ``first`` and up to ``last``?"""
        return _CLAUSE_STARTS.isdisjoint(self.keys[first + 1 : last + 1])


def word_key(word: str) -> str:
    """The key under which a token of a message is looked up (numbers are all alike)."""
    return "#" if word[0].isdecimal() else tone_key(word.replace("’", "'"))


def tokenize(text: str) -> Tokens:
    words, keys = _pieces(text)
    stops = [i for i, word in enumerate(words) if word in _ENDERS]
    if not stops:
        return Tokens(["^", *keys, "<end>"], ["", *words, ""])
    found = Tokens(["^"], [""])
    at = 0
    ended = False
    for stop in stops:
        if at < stop:
            ended = _add(found, keys[at:stop], words[at:stop], ended)
        if (key := _ENDERS[words[stop]]) is not None:
            found.keys.append(key)
            found.words.append(words[stop])
        ended = True
        at = stop + 1
    if at < len(words):
        _add(found, keys[at:], words[at:], ended)
    found.keys.append("<end>")
    found.words.append("")
    return found


def _add(found: Tokens, keys: list[str], words: list[str], ended: bool) -> bool:
    """Take over tokens between two enders. A sentence begins with the first that is no comma or the like, when one has
    ``ended`` before; the answer is whether its beginning is still awaited."""
    if ended:
        begin = next((i for i, key in enumerate(keys) if key not in _BREAKS), len(keys))
        found.keys.extend(keys[:begin])
        found.words.extend(words[:begin])
        if begin == len(keys):
            return True
        found.keys.append("^")
        found.words.append("")
        keys, words = keys[begin:], words[begin:]
    found.keys.extend(keys)
    found.words.extend(words)
    return False


def _pieces(text: str) -> tuple[list[str], list[str]]:
    """The words and their keys, in order."""
    if not _SPECIAL_HINT.search(text):
        words: list[str] = _WORDS.findall(text)
        return words, [_KEYS.get(word) or _key(word) for word in words]
    words, keys = [], []
    for match in _SPECIAL.finditer(text):
        word, group = match[0], match.lastgroup
        words.append(word)
        if group == "word":
            keys.append(_KEYS.get(word) or _key(word))
        elif group == "phone":
            digits = sum(c.isdecimal() for c in word)
            keys.append("<phone>" if digits in _PHONE_DIGITS else "#")
        else:
            keys.append(f"<{group}>")
    return words, keys


def _key(word: str) -> str:
    key = word_key(word)
    if key == "#":
        return key  # not remembered: numbers have no end, and would push the words out
    if not word[0].isalnum() and ord(word[0]) > 0x2000 and word not in "€₫…":
        key = "<emoji>"
    elif len(word) > 3:
        key = re.sub(r"(\w)\1{2,}", r"\1", key)  # "giáaaa", "soooo"
    if len(_KEYS) < _KEYS_MAX and len(word) <= 40:
        key = _KEYS[word] = sys.intern(key)  # the very string that the rules hold is found without being compared
    return key


def language(words: list[str]) -> tuple[str, bool]:
    """``en``, ``vi`` or ``mixed`` (English when nothing speaks for Vietnamese), and whether diacritics are left out."""
    kinds = [_KINDS.get(word) or _kind(word) for word in words if word]
    total = len(kinds) - kinds.count("-")
    marked, shaped, foreign = kinds.count("marked"), kinds.count("shaped"), kinds.count("foreign")
    both = kinds.count("both")
    english, bare = kinds.count("english") + both, kinds.count("bare") + both
    if total > 1 and english * 4 <= min(total, bare * 4) and (bare + shaped + english) * 4 >= total * 3:
        bare += shaped  # a bare Vietnamese text of rarer words
    elif bare and not english and not foreign:
        bare += shaped  # the rest are loans, sizes and abbreviations, which either language has
    if (marked * 5 < total and bare * 3 < total) or (not marked and bare <= english):
        return "en", False
    mixed = foreign + english >= 3 or (foreign >= 2 and foreign * 8 >= total)
    return "mixed" if mixed else "vi", marked * 6 < total


def _kind(word: str) -> str:
    """What a word says about the language of its text."""
    if not word.isalpha():
        return "-"
    if not word.isascii():
        kind = "marked"
    elif word in _EN_COMMON:
        kind = "both" if word in _VI_BARE else "english"
    elif word in _VI_BARE:
        kind = "bare"
    elif _VI_SYLLABLE.fullmatch(word):
        kind = "shaped"
    elif len(word) > 2 and word not in _LOANS and not _VOWELS.isdisjoint(word):
        kind = "foreign"
    else:
        kind = "other"
    if len(_KINDS) < _KEYS_MAX and len(word) <= 40:
        _KINDS[word] = kind
    return kind

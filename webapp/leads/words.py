"""A message's words, each looked up once for all that the judge wants to know of it.

A text is split at its spaces, and every piece is looked up among those met before: what it was cut into, the keys of its
words for the rules' tries, what they say about the language, their weights in the model. Only new pieces are read letter
by letter. What is remembered is a bounded cache of such pieces, never of messages.
"""

import re
import struct
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, NamedTuple

from webapp.leads import language
from webapp.leads.textnorm import word_key

if TYPE_CHECKING:
    from webapp.leads.wordmodel import WordModel

_WORDS = re.compile(
    r"\d(?:\w|[.,](?=\d))*|[^\W_]+(?:['’][^\W_]+)*"
    r"|[.!?;,:()\n%$€£₫…]|[\U0001F300-\U0001FAFF\u2600-\u27BF\u2B50]"
)
# The special forms are tried only on texts that hold one: they cost more per token. All bounded or linear.
_SPECIAL = re.compile(
    r"(?P<url>https?://\S+|www\.\S+|(?<![\w@.])[a-z0-9-]{2,40}\.(?:com|net|org|io|vn|example|ly|me|info|biz|xyz|top|shop)\b\S*)"
    r"|(?P<email>[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4})"
    r"|(?P<phone>\+?\(?\d[\d\s().-]{7,17}\d(?!\w))"
    r"|(?P<word>" + _WORDS.pattern + ")"
)
_DOMAIN_HINT = re.compile(r"\.(?<=\w\.)[a-z]{2}")  # begins with the point, which is found without trying each letter
_PHONE_HINT = re.compile(r"\d[\d\s().-]{7,17}\d")
_PHONE_DIGITS = range(9, 16)
#: What ends a sentence, and the key that it leaves in the text.
_ENDERS = {".": ".", "!": "!", "?": "?", "…": ".", "\n": "", ";": ""}
_STOPS = frozenset(".!?")
_BREAKS = frozenset(",:()")
_CLAUSE_STARTS = _BREAKS | {"^"}
#: Tokens that say something without being a word.
_TELLING = frozenset(("<phone>", "<email>", "<url>", "$", "£", "€", "₫"))
#: Pieces that are remembered, the longest of them, and their most words: a bound on what hostile input can make a process
#: hold. Nearly all pieces are a word or two with a mark; the worst take 2 KB.
_MOST, _LONGEST, _FEW = 25_000, 40, 4

# ``signs`` of a word are lanes of one number, so that a message's are added up at once: first those of ``language``.
_SIGNS = language.LANES + 4
_SPOKEN, _TELLS, _ENDS, _SKIPPED = (1 << 32 * (language.LANES + lane) for lane in range(4))
_NO_PAIRS: dict[str, int] = {}
_unpack = struct.Struct(f"<{_SIGNS}I").unpack


class Word(NamedTuple):
    """A token. ``text``: as it stands in the composed text, "" for the virtual tokens ``^`` and ``<end>``; ``key``: for
    the tries; ``weight``, ``pairs``: what the model of words gives it, and the pairs that it begins, by their second key;
    ``advance``: from its start to that of the next, a space after its piece counted."""

    text: str
    key: str
    signs: int
    weight: int
    pairs: dict[str, int]
    advance: int = 0


class Lexicon(dict[str, tuple[Word, ...]]):
    """Pieces of text between spaces → their words, with the weights of ``model``. What a piece begins with before its
    first word (a quote, a dash), and a piece without any, is a word without a key, which ``read`` leaves out."""

    def __init__(self, model: "WordModel | None" = None) -> None:
        super().__init__()
        self._model = model
        self.start, self.end = self.word("", key="^"), self.word("", key="<end>")

    def __missing__(self, piece: str) -> tuple[Word, ...]:
        found = [(match.start(), match[0]) for match in _WORDS.finditer(piece)]
        starts = [*(start for start, _ in found), len(piece) + 1]
        words = [self.word(text, advance=after - at) for (at, text), after in zip(found, starts[1:], strict=True)]
        if starts[0] or not found:
            words.insert(0, Word("", "", _SKIPPED, 0, _NO_PAIRS, starts[0]))
        known = tuple(words)
        if len(piece) <= _LONGEST and len(known) <= _FEW:
            if len(self) >= _MOST:
                self.clear()
            self[piece] = known
        return known

    def word(self, text: str, *, key: str | None = None, advance: int = 0) -> Word:
        """A new one. ``key``: of what is no word by itself."""
        signs = text[:1].isalnum() * _SPOKEN
        if key is None:
            signs += language.sign_of(text)
            if text in _ENDERS:
                key = _ENDERS[text]
                signs += _ENDS
            else:
                key = _key(text)
        if key in _TELLING or key[:1].isalnum():
            signs += _TELLS
        model = self._model
        if model is None:
            return Word(text, key, signs, 0, _NO_PAIRS, advance)
        return Word(text, key, signs, model.weight_of(key), model.pairs.get(key, _NO_PAIRS), advance)


class Words(NamedTuple):
    """A text's tokens, with ``^`` where a sentence begins and ``<end>`` at the end, by columns (see ``Word``), and where in
    the composed text each starts. ``spoken``: how many begin with a letter or a digit; ``telling``: how many say something.
    ``lang`` and ``bare``: see ``language``."""

    texts: Sequence[str]
    keys: Sequence[str]
    weights: Sequence[int]
    pairs: Sequence[dict[str, int]]
    places: Sequence[int]
    spoken: int
    telling: int
    lang: str
    bare: bool

    def same_sentence(self, first: int, last: int) -> bool:
        """Does no sentence begin after token ``first`` and up to ``last``?"""
        return "^" not in self.keys[first + 1 : last + 1]

    def same_clause(self, first: int, last: int) -> bool:
        """Does neither a sentence nor a clause begin after token ``first`` and up to ``last``?"""
        return _CLAUSE_STARTS.isdisjoint(self.keys[first + 1 : last + 1])


def read(text: str, lexicon: Lexicon) -> Words:
    """The tokens of a composed text."""
    places: Sequence[int] | None = None
    if _has_special(text):
        words, places = _with_special(text, lexicon)
    else:
        words = list(chain.from_iterable(map(lexicon.__getitem__, text.split(" "))))
    signs = 0
    for word in words:
        signs += word[2]
    *of_language, spoken, telling, ends, skipped = _unpack(signs.to_bytes(4 * _SIGNS, "little"))
    if skipped or ends > 1 or (ends and words[-1].key not in _STOPS):
        places = places or list(accumulate([word.advance for word in words], initial=0))
        words, places = _in_sentences(words, places, lexicon)
    else:
        words = [lexicon.start, *words, lexicon.end]
        places = places and [0, *places]
    texts, keys, _, weights, pairs, advances = zip(*words, strict=True)
    if places is None:
        places = list(accumulate(advances, initial=0))
    lang, bare = language.language(*of_language)
    return Words(texts, keys, weights, pairs, places, spoken, telling, lang, bare)


def _has_special(text: str) -> bool:
    return (
        "@" in text
        or "://" in text
        or ("." in text and _DOMAIN_HINT.search(text) is not None)
        or _PHONE_HINT.search(text) is not None
    )


def _with_special(text: str, lexicon: Lexicon) -> tuple[list[Word], list[int]]:
    words, places = [], []
    for match in _SPECIAL.finditer(text):
        word, group = match[0], match.lastgroup
        places.append(match.start())
        if group == "word":
            words.append(lexicon[word][0])
        elif group == "phone":
            digits = sum(c.isdecimal() for c in word)
            words.append(lexicon.word(word, key="<phone>" if digits in _PHONE_DIGITS else "#"))
        else:
            words.append(lexicon.word(word, key=f"<{group}>"))
    return words, [*places, len(text)]


def _in_sentences(words: Sequence[Word], places: Sequence[int], lexicon: Lexicon) -> tuple[list[Word], list[int]]:
    """The tokens with the virtual ones and without what is skipped. A sentence begins with the first token after the end
    of one that is no comma or the like."""
    found, at = [lexicon.start], [0]
    ended = False
    for word, place in zip(words, places, strict=False):
        if not word.key:
            ended = ended or word.text in _ENDERS
            continue
        if word.text in _ENDERS:
            ended = True
        elif ended and word.key not in _BREAKS:
            found.append(lexicon.start)
            at.append(place)
            ended = False
        found.append(word)
        at.append(place)
    found.append(lexicon.end)
    at.append(places[-1])
    return found, at


def _key(word: str) -> str:
    key = word_key(word)
    if key == "#":
        return key
    if not word[0].isalnum() and ord(word[0]) > 0x2000 and word not in "€₫…":
        return "<emoji>"
    if len(word) > 3:
        return re.sub(r"(\w)\1{2,}", r"\1", key)  # "giáaaa", "soooo"
    return key

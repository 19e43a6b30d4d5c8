"""A message's words, each looked up once for all that the judge wants to know of it.

A text is split at its spaces, and every piece is looked up among those met before: what it was cut into, the keys of its
words for the rules' tries, what they say about the language, their weights in the model. Only new pieces are read letter
by letter. What is remembered is a bounded cache of such pieces, never of messages, addresses and long numbers.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from webapp.leads import language
from webapp.leads.textnorm import word_key

if TYPE_CHECKING:
    from webapp.leads.wordmodel import WordModel

_WORDS: Final = re.compile(
    r"\d(?:\w|[.,](?=\d))*|[^\W_]+(?:['’][^\W_]+)*"
    r"|[.!?;,:()\n%$€£₫…]|[\U0001F300-\U0001FAFF\u2600-\u27BF\u2B50]"
)
# The special forms are tried only on texts that hold one: they cost more per token. All bounded or linear.
_SPECIAL: Final = re.compile(
    r"(?P<url>https?://\S+|www\.\S+|(?<![\w@.])[a-z0-9-]{2,40}\.(?:com|net|org|io|vn|example|ly|me|info|biz|xyz|top|shop)\b\S*)"
    r"|(?P<email>[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4})"
    r"|(?P<phone>\+?\(?\d[\d\s().-]{7,17}\d(?!\w))"
    r"|(?P<word>" + _WORDS.pattern + ")"
)
_DOMAIN_HINT: Final = re.compile(
    r"\.(?<=\w\.)[a-z]{2}"
)  # begins with the point, which is found without trying each letter
_PHONE_HINT: Final = re.compile(r"\d[\d\s().-]{7,17}\d")
_PHONE_DIGITS: Final = range(9, 16)
#: What ends a sentence, and the key that it leaves in the text.
_ENDERS: Final = {".": ".", "!": "!", "?": "?", "…": ".", "\n": "", ";": ""}
_STOPS: Final = frozenset(".!?")
_BREAKS: Final = frozenset(",:()")
_CLAUSE_STARTS: Final = _BREAKS | {"^"}
#: Tokens that say something without being a word.
_TELLING: Final = frozenset(("<phone>", "<email>", "<url>", "$", "£", "€", "₫"))
_NUMBERS: Final = frozenset(("#", "<phone>"))
#: Pieces that are remembered, the longest of them, and their most words: a bound on what hostile input can make a process
#: hold. Nearly all pieces are a word or two with a mark; the worst take 2 KB.
_MOST, _LONGEST, _FEW = 25_000, 40, 4

_NO_PAIRS: dict[str, int] = {}


class Word:
    """A token. ``text``: as it stands in the composed text, "" for the virtual tokens ``^`` and ``<end>``; ``key``: for
    the tries; ``sign``: of ``language``; ``weight``, ``pairs``: what the model of words gives it, and the pairs that it
    begins, by their second key; ``advance``: from its start to that of the next, a space after its piece counted.

    To be added up, 1 or 0: ``spoken``, it begins with a letter or a digit; ``number``; ``telling``, it says something;
    ``ends`` a sentence; ``skipped``, it is left out."""

    __slots__ = ("advance", "ends", "key", "number", "pairs", "sign", "skipped", "spoken", "telling", "text", "weight")

    def __init__(self, text: str, key: str, sign: int, ends: bool, weight: int, pairs: dict[str, int]) -> None:
        self.text = text
        self.key = key
        self.sign = sign
        self.spoken = int(text[:1].isalnum())
        self.number = int(key in _NUMBERS)
        self.telling = int(key in _TELLING or key[:1].isalnum())
        self.ends = int(ends)
        self.skipped = int(not key and not ends)
        self.weight = weight
        self.pairs = pairs
        self.advance = 0


class Lexicon:
    """Pieces of text between spaces → their words, with the weights of ``model``. What a piece begins with before its
    first word (a quote, a dash), and a piece without any, is a word without a key, which ``read`` leaves out."""

    def __init__(self, model: "WordModel | None" = None) -> None:
        self.known: dict[str, list[Word]] = {}
        self._model = model
        self.start, self.end = self.word("", key="^"), self.word("", key="<end>")

    def words_of(self, piece: str) -> list[Word]:
        """Nobody changes them: they are those of all texts."""
        found = self.known.get(piece)
        return self._learn(piece) if found is None else found

    def _learn(self, piece: str) -> list[Word]:
        words: list[Word] = []
        at = 0
        special = _may_be_special(piece)
        for match in (_SPECIAL if special else _WORDS).finditer(piece):
            start = match.start()
            if start and not words:
                words.append(Word("", "", 0, False, 0, _NO_PAIRS))
            if words:
                words[-1].advance = start - at
            words.append(self.word_of(match))
            at = start
        if not words:
            words.append(Word("", "", 0, False, 0, _NO_PAIRS))
        words[-1].advance = len(piece) + 1 - at
        if len(piece) <= _LONGEST and len(words) <= _FEW and not special and not _may_be_phone(piece):
            if len(self.known) >= _MOST:
                self.known.clear()
            self.known[piece] = words
        return words

    def word_of(self, match: re.Match[str]) -> Word:
        """The word that ``_SPECIAL`` or ``_WORDS`` met."""
        word, group = match[0], match.lastgroup
        if group is None or group == "word":
            return self.word(word)
        if group == "phone":
            digits = sum([c.isdecimal() for c in word])
            return self.word(word, key="<phone>" if digits in _PHONE_DIGITS else "#")
        return self.word(word, key=f"<{group}>")

    def word(self, text: str, *, key: str | None = None) -> Word:
        """A new one. ``key``: of what is no word by itself."""
        sign, ends = 0, False
        if key is None:
            sign = language.sign_of(text)
            ends = text in _ENDERS
            key = _ENDERS[text] if ends else _key(text)
        model = self._model
        if model is None:
            return Word(text, key, sign, ends, 0, _NO_PAIRS)
        return Word(text, key, sign, ends, model.weight_of(key), model.pairs.get(key, _NO_PAIRS))


def _may_be_special(piece: str) -> bool:
    return "@" in piece or "://" in piece or ("." in piece and _DOMAIN_HINT.search(piece) is not None)


def _may_be_phone(piece: str) -> bool:
    return len(piece) >= _PHONE_DIGITS.start and sum([c.isdecimal() for c in piece]) >= _PHONE_DIGITS.start


class Words:
    """A text's tokens, with ``^`` where a sentence begins and ``<end>`` at the end, and where in the composed text each
    starts. ``spoken``: how many begin with a letter or a digit; ``telling``: how many say something.
    ``lang`` and ``bare``: see ``language``."""

    __slots__ = ("bare", "lang", "places", "spoken", "telling", "tokens")

    def __init__(self, tokens: list[Word], places: list[int], spoken: int, telling: int, lang: str, bare: bool) -> None:
        self.tokens = tokens
        self.places = places
        self.spoken = spoken
        self.telling = telling
        self.lang = lang
        self.bare = bare

    def same_sentence(self, first: int, last: int) -> bool:
        """Does no sentence begin after token ``first`` and up to ``last``?"""
        return all(self.tokens[i].key != "^" for i in range(first + 1, last + 1))

    def same_clause(self, first: int, last: int) -> bool:
        """Does neither a sentence nor a clause begin after token ``first`` and up to ``last``?"""
        return all(self.tokens[i].key not in _CLAUSE_STARTS for i in range(first + 1, last + 1))


def read(text: str, lexicon: Lexicon) -> Words:
    """The tokens of a composed text."""
    words: list[Word] = []
    places = [0]
    for piece in text.split(" "):
        for word in lexicon.words_of(piece):
            words.append(word)
            places.append(places[-1] + word.advance)
    numbers = 0
    for word in words:
        numbers += word.number
    if numbers and (hint := _PHONE_HINT.search(text)):
        words, places = _with_phones(text, hint.start(), words, places, lexicon)
    signs = [0] * language.SIGNS
    spoken = telling = ends = skipped = 0
    for word in words:
        signs[word.sign] = signs[word.sign] + 1
        spoken += word.spoken
        telling += word.telling
        ends += word.ends
        skipped += word.skipped
    if skipped or ends > 1 or (ends and words[-1].key not in _STOPS):
        words, places = _in_sentences(words, places, lexicon)
    else:
        words = [lexicon.start, *words, lexicon.end]
        places.insert(0, 0)
    lang, bare = language.language(signs)
    return Words(words, places, spoken, telling, lang, bare)


def _with_phones(
    text: str, hint: int, words: list[Word], places: list[int], lexicon: Lexicon
) -> tuple[list[Word], list[int]]:
    """The tokens when there may be phone numbers from ``hint`` on: the only ones that may have spaces in them. What
    stands before is right already."""
    split = text.rfind(" ", 0, hint) + 1
    before = bisect_left(places, split)
    words, places = words[:before], places[:before]
    for match in _SPECIAL.finditer(text, split):
        places.append(match.start())
        words.append(lexicon.words_of(match[0])[0] if match.lastgroup == "word" else lexicon.word_of(match))
    return words, [*places, len(text)]


def _in_sentences(words: Sequence[Word], places: Sequence[int], lexicon: Lexicon) -> tuple[list[Word], list[int]]:
    """The tokens with the virtual ones and without what is skipped. A sentence begins with the first token after the end
    of one that is no comma or the like."""
    found, at = [lexicon.start], [0]
    ended = False
    for i, word in enumerate(words):
        place = places[i]
        if not word.key:
            ended = ended or word.ends > 0
            continue
        if word.ends:
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

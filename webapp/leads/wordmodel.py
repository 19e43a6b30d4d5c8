"""The second half of the shipped judge: a small model of words, learned from labelled messages, that also hears the rules.

Multinomial logistic regression. What it looks at: each distinct word of the message and its first letters, pairs of neighbours, the message's length, and what the rules made of it (scores, choice, flags,
negations). So it weighs words that no rule knows, and learns how far each rule is to be believed. ``script/train`` makes
the file ``rulesets/words.json``; nothing but Python is needed to use it.

The weights of one feature for all intents are the 32-bit lanes of one integer, so that adding up a message's features
is adding integers: a few microseconds a message.
"""

import base64
import itertools
import json
import struct
import sys
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from math import exp
from pathlib import Path
from typing import Any, Final

from webapp.leads.states import Intent
from webapp.leads.words import Lexicon, Words

#: Compiled, the module is elsewhere.
PATH = Path(str(files("webapp.leads"))) / "rulesets" / "words.json"
#: Letters of a word that stand for its family (``deliv…``, ``subsc…``).
STEM = 4
#: Tokens that are looked at; more could not add up within the lanes for certain, and say nothing new.
LONGEST: Final = 4_000
#: A lane's unit; ``words.json`` holds the words' weights as bytes of 1/32.
UNIT: Final = 1024
COARSE: Final = 32
_LANE: Final = 1 << 32
_WORTH: Final = 1 / UNIT
#: The classes of length begin at so many tokens; two of them are the ends of the message.
_LENGTHS: Final = (3, 4, 5, 7, 11, 20, 45)
#: Rules' scores are heard in halves, up to 8.
_MOST: Final = 16
_CHOSEN: Final = {intent: "T" + intent for intent in Intent}
_SCORED: Final = {intent: "R" + intent for intent in Intent}
_STRONG: Final = {intent: "S" + intent for intent in Intent}
_WEAK: Final = {intent: "W" + intent for intent in Intent}

Steps = tuple[tuple[float, float], ...]


@dataclass(slots=True, eq=False)
class WordModel:
    """Loaded weights. ``intents``: in the order of the lanes; ``pairs``: by the first token, then the second.
    ``calibration``: language → rising (from, probability)."""

    version: str
    intents: tuple[Intent, ...]
    words: Mapping[str, int]
    pairs: Mapping[str, dict[str, int]]
    rules: Mapping[str, int]
    bias: int
    calibration: Mapping[str, Steps]
    lexicon: Lexicon = field(init=False)
    _lengths: tuple[int, ...] = field(init=False)
    _always: int = field(init=False)
    _bytes: int = field(init=False)
    _steps: Mapping[str, tuple[list[float], list[float]]] = field(init=False)
    _unpack: Callable[[bytes], tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        size = len(self.intents)
        self._always = self.bias + _all_lanes(size, _LANE >> 1)  # with what makes every lane positive
        self._bytes = 4 * size
        self._steps = {
            lang: ([low for low, _ in steps], [0.0, *(promised for _, promised in steps)])
            for lang, steps in self.calibration.items()
        }
        self._unpack = struct.Struct(f"<{size}I").unpack
        begins = self.pairs.get("", {}).get("^", 0)  # as every message
        self._lengths = tuple(self.words.get(f"len{i}", 0) + begins for i in range(len(_LENGTHS) + 1))
        self.lexicon = Lexicon(self)

    def best(self, said: int, undone: Collection[str] = ()) -> tuple[Intent, float, Intent, float]:
        """The likeliest intent and its probability, and the next, of a message of which words (``of_words``) and rules
        (``of_heard``) together have ``said`` so much. ``undone``: intents that it cannot be."""
        lanes = self._unpack((said + self._always).to_bytes(self._bytes, "little"))
        top = max(lanes)
        whole = 0.0
        for lane in lanes:
            whole += exp((lane - top) * _WORTH)
        first = self._likeliest(lanes, undone)
        second = self._likeliest(lanes, undone, first)
        return (
            self.intents[first], exp((lanes[first] - top) * _WORTH) / whole,
            self.intents[second], exp((lanes[second] - top) * _WORTH) / whole,
        )  # fmt: skip

    def _likeliest(self, lanes: tuple[int, ...], undone: Collection[str], but: int = -1) -> int:
        """The index of the largest lane that is neither ``undone`` nor ``but``; of equals, of the last by name."""
        found, most = -1, -1
        for i, lane in enumerate(lanes):
            if lane < most or i == but or self.intents[i] in undone:
                continue
            if lane > most or self.intents[i] > self.intents[found]:
                found, most = i, lane
        return found

    def weight_of(self, key: str) -> int:
        """What a token says by itself."""
        return sum(self.words.get(name, 0) for name in of_word(key))

    def of_words(self, words: Words) -> int:
        """What a message's words say: each distinct one, each distinct pair of neighbours, and how many they are."""
        tokens = words.tokens
        said = [self._lengths[bisect_right(_LENGTHS, len(tokens))]]
        if len(tokens) > LONGEST:
            tokens = tokens[:LONGEST]
        each = {word.key: word.weight for word in tokens}
        said.extend(each.values())
        twice = len(each) < len(tokens)  # what is there twice may begin the same pair twice
        counted: set[tuple[str, str]] = set()
        before = tokens[0]
        for word in tokens[1:]:
            weight = before.pairs.get(word.key)
            if weight is not None:
                if twice:
                    pair = before.key, word.key
                    if pair not in counted:
                        counted.add(pair)
                        said.append(weight)
                else:
                    said.append(weight)
            before = word
        return sum(said)

    def of_heard(self, heard: Iterable[tuple[str, int]]) -> int:
        """What the rules said (``of_rules``) says."""
        rules = self.rules
        total = 0
        for name, times in heard:
            weight = rules.get(name)
            if weight is not None:
                total += weight * times
        return total

    def confidence(self, probability: float, lang: str) -> float:
        """What a verdict of that probability is worth: the share of such that were right on messages not learned from."""
        steps = self._steps["en" if lang == "en" else "vi"]
        return steps[1][bisect_right(steps[0], probability)]

    def speaking(self, words: Words, intent: Intent) -> list[int]:
        """The indexes of the words that speak for ``intent``, strongest first."""
        shift, middle = 32 * self.intents.index(intent), _LANE >> 1
        offset = _all_lanes(len(self.intents), middle)
        found = []
        for i, word in enumerate(words.tokens[:LONGEST]):
            worth = ((word.weight + offset) >> shift) % _LANE
            if worth > middle:
                found.append((-worth, i))
        return [i for _, i in sorted(found)]


def of_word(key: str) -> tuple[str, ...]:
    """The features of one token by itself."""
    return ("1" + key, "p" + key[:STEM]) if len(key) > STEM else ("1" + key,)


def length_of(keys: Sequence[str]) -> str:
    return f"len{bisect_right(_LENGTHS, len(keys))}"


def of_text(keys: Sequence[str]) -> dict[str, int]:
    """Everything that the tokens say, as training sees it: feature → how often. ``2…`` are pairs."""
    found: dict[str, int] = {length_of(keys): 1}
    for key in dict.fromkeys(keys):
        for name in of_word(key):
            found[name] = found.get(name, 0) + 1
    for before, after in itertools.pairwise(["", *keys]):
        found[f"2{before} {after}"] = 1
    return found


def of_rules(
    scores: Mapping[Intent, float], strong: float, chosen: Intent, flags: Collection[str], negated: Collection[str]
) -> list[tuple[str, int]]:
    """What the rules made of a message, as features: (name, times)."""
    heard = [(_CHOSEN[chosen], 1)]
    for intent, score in scores.items():
        heard.append((_SCORED[intent], min(int(score * 2), _MOST)))
        heard.append((_STRONG[intent] if score >= strong else _WEAK[intent], 1))
    if flags:
        heard.extend([("F" + name, 1) for name in set(flags)])
    if negated:
        heard.extend([("N" + name, 1) for name in set(negated)])
    return heard


def _all_lanes(size: int, value: int) -> int:
    return sum(value << (32 * lane) for lane in range(size))


def pack(weights: Iterable[int]) -> int:
    """Lanes in units of 1/``UNIT``; negative ones borrow from the next, which adding up undoes."""
    return sum(weight << (32 * lane) for lane, weight in enumerate(weights))


def load(data: Mapping[str, Any]) -> WordModel:
    """From the shape that ``script/train`` writes."""
    intents = tuple(Intent(value) for value in data["intents"])
    size = len(intents)
    names: list[str] = data["features"].split("\n")
    coarse = base64.b64decode(data["weights"])
    if len(coarse) != size * len(names):
        raise ValueError("the model's weights do not fit its features")
    # A byte of each weight, 128 meaning 0, spread over the lanes; the offset of all lanes is taken off at once.
    spread = bytearray(4 * size)
    middle = _all_lanes(size, 128)
    words: dict[str, int] = {}
    pairs: dict[str, dict[str, int]] = {}
    for i, name in enumerate(names):
        spread[::4] = coarse[i * size : (i + 1) * size]
        weight = (int.from_bytes(spread, "little") - middle) * (UNIT // COARSE)
        if name[0] == "2":
            before, _, after = name[1:].partition(" ")
            pairs.setdefault(sys.intern(before), {})[sys.intern(after)] = weight
        else:
            words[name] = weight
    return WordModel(
        version=data["version"],
        intents=intents,
        words=words,
        pairs=pairs,
        rules={name: pack(weights) for name, weights in data["rules"].items()},
        bias=pack(data["bias"]),
        calibration={lang: tuple((low, p) for low, p in steps) for lang, steps in data["calibration"].items()},
    )


@cache
def default_model() -> WordModel:
    """The shipped one, loaded once per process (some 50 ms)."""
    return load(json.loads(PATH.read_text(encoding="utf-8")))

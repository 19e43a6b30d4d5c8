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
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import exp
from pathlib import Path
from typing import Any

from webapp.leads.states import Intent

PATH = Path(__file__).with_name("rulesets") / "words.json"
#: Letters of a word that stand for its family (``deliv…``, ``subsc…``).
STEM = 4
#: Tokens that are looked at; more could not add up within the lanes for certain, and say nothing new.
LONGEST = 4_000
#: A lane's unit; ``words.json`` holds the words' weights as bytes of 1/32.
UNIT, COARSE = 1024, 32
_LANE = 1 << 32
_CACHE_MAX = 50_000  # a bound on what hostile input can make a process remember
#: The classes of length begin at so many tokens; two of them are the ends of the message.
_LENGTHS = (3, 4, 5, 7, 11, 20, 45)
#: Rules' scores are heard in halves, up to 8.
_MOST = 16

Steps = tuple[tuple[float, float], ...]


@dataclass(slots=True)
class WordModel:
    """Loaded weights. ``intents``: in the order of the lanes. ``calibration``: language → rising (from, probability)."""

    version: str
    intents: tuple[Intent, ...]
    words: dict[str, int]
    pairs: dict[str, int]
    rules: dict[str, int]
    bias: int
    calibration: Mapping[str, Steps]
    _known: dict[str, int] = field(default_factory=dict)
    _offset: int = 0
    _bytes: int = 0
    _unpack: Callable[[bytes], tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        size = len(self.intents)
        self._offset, self._bytes = _all_lanes(size, _LANE >> 1), 4 * size  # what makes every lane positive
        self._unpack = struct.Struct(f"<{size}I").unpack

    def best(
        self, keys: Sequence[str], heard: Iterable[tuple[str, int]], undone: Collection[str] = ()
    ) -> tuple[Intent, float, Intent, float]:
        """The likeliest intent and its probability, and the next, of a message of the tokens ``keys``
        (``textnorm.tokenize``) on which the rules said ``heard``. ``undone``: intents that it cannot be."""
        total = self.bias + self._of_words(keys)
        rules = self.rules
        for name, times in heard:
            weight = rules.get(name)
            if weight is not None:
                total += weight * times
        lanes = self._unpack((total + self._offset).to_bytes(self._bytes, "little"))
        ranked = sorted(zip(lanes, self.intents, strict=True), reverse=True)
        top = ranked[0][0]
        whole = sum([exp((lane - top) / UNIT) for lane in lanes])
        if undone:
            ranked = [one for one in ranked if one[1] not in undone]
        (first, intent), (second, after) = ranked[:2]
        return intent, exp((first - top) / UNIT) / whole, after, exp((second - top) / UNIT) / whole

    def _of_words(self, keys: Sequence[str]) -> int:
        known, pairs = self._known, self.pairs
        total = 0
        before = ""
        seen = set()
        for key in keys[:LONGEST]:
            if key not in seen:
                seen.add(key)
                weight = known.get(key)
                total += self._learn(key) if weight is None else weight
            pair = before + " " + key
            weight = pairs.get(pair)
            if weight is not None and pair not in seen:
                seen.add(pair)
                total += weight
            before = key
        return total + self.words.get(length_of(keys), 0)

    def _learn(self, key: str) -> int:
        found = sum(self.words.get(name, 0) for name in of_word(key))
        if len(self._known) < _CACHE_MAX and len(key) <= 40:
            self._known[key] = found
        return found

    def confidence(self, probability: float, lang: str) -> float:
        """What a verdict of that probability is worth: the share of such that were right on messages not learned from."""
        found = 0.0
        for low, promised in self.calibration["en" if lang == "en" else "vi"]:
            if probability < low:
                break
            found = promised
        return found

    def speaking(self, keys: Sequence[str], intent: Intent) -> list[int]:
        """The indexes of the words that speak for ``intent``, strongest first."""
        shift, offset, middle = 32 * self.intents.index(intent), self._offset, _LANE >> 1
        known = self._known
        found = []
        for i, key in enumerate(keys[:LONGEST]):
            weight = known.get(key) or 0
            worth = ((weight + offset) >> shift) % _LANE
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
    scores: Mapping[Intent, float], strong: float, chosen: Intent, flags: Iterable[str], negated: Iterable[str]
) -> list[tuple[str, int]]:
    """What the rules made of a message, as features: (name, times)."""
    heard = [("T" + chosen, 1)]
    for intent, score in scores.items():
        heard.append(("R" + intent, min(int(score * 2), _MOST)))
        heard.append((("S" if score >= strong else "W") + intent, 1))
    heard.extend(("F" + name, 1) for name in set(flags))
    heard.extend(("N" + name, 1) for name in set(negated))
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
    pairs: dict[str, int] = {}
    for i, name in enumerate(names):
        spread[::4] = coarse[i * size : (i + 1) * size]
        weight = (int.from_bytes(spread, "little") - middle) * (UNIT // COARSE)
        if name[0] == "2":
            pairs[name[1:]] = weight
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

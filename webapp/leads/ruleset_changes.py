"""A workspace's changes to the shipped rules, and the ruleset that the two make together.

Only the changes are kept, and only they are compiled: the tries of the shipped rules are shared, and just the nodes on
the way to a changed phrase are copied. So an edited workspace costs milliseconds and some hundred kilobytes instead of
seconds and 50 MB, and follows the shipped rules at upgrades with its changes on top.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from webapp.leads.errors import Problem
from webapp.leads.ruleset import (
    FLAGS,
    LANGS,
    MAX_WEIGHT,
    Compiler,
    Problems,
    Ruleset,
    Tokens,
    default_data,
    default_ruleset,
)
from webapp.leads.ruleset_trie import Cue, Node
from webapp.leads.states import Intent

Section = Literal["cues", "negations", "flags", "masks"]
SECTIONS: tuple[Section, ...] = ("cues", "flags", "negations", "masks")
KINDS = {"cues": "intent", "negations": "negation", "flags": "flag", "masks": "mask"}
INTENTS = tuple(intent.value for intent in Intent if intent is not Intent.UNKNOWN)
MAX_REACH = 10
MAX_PHRASE = 200
#: Of one workspace: what a list can show, and what compiles in a blink.
MAX_CHANGES = 2_000
MAX_SPELLINGS = 60_000

#: (section, label, lang, phrase) names a phrase among all of them.
Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One phrase that the workspace adds, weighs differently or switches off (``off``). ``label``: the intent or the
    flag, empty for negations and masks. ``weight`` counts for cues, ``reach`` (tokens) for negations."""

    section: Section
    label: str
    lang: str
    phrase: str
    weight: float = 0.0
    reach: int = 0
    off: bool = False

    @property
    def key(self) -> Key:
        return self.section, self.label, self.lang, self.phrase

    @property
    def amount(self) -> float:
        """What can be set of it: its weight, or its reach."""
        return self.weight if self.section == "cues" else float(self.reach)

    def as_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {"section": self.section, "label": self.label, "lang": self.lang, "phrase": self.phrase}
        if self.off:
            return said | {"off": True}
        if self.section == "cues":
            said["weight"] = self.weight
        if self.section == "negations":
            said["reach"] = self.reach
        return said

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Change":
        return cls(
            data["section"], data["label"], data["lang"], data["phrase"], float(data.get("weight", 0.0)),
            int(data.get("reach", 0)), bool(data.get("off", False)),
        )  # fmt: skip


def read(stored: Iterable[Mapping[str, Any]]) -> list[Change]:
    """The stored changes."""
    return [Change.from_json(one) for one in stored]


@dataclass(frozen=True, slots=True)
class Shipped:
    """A phrase of the shipped rules. ``amount``: its weight, or its reach."""

    amount: float
    narrowable: bool = False


@cache
def shipped() -> Mapping[Key, Shipped]:
    """Every phrase of the shipped rules, in their order."""
    found: dict[Key, Shipped] = {}
    data = default_data()
    for section in SECTIONS:
        for group in data[section]:
            label = group.get("intent") or group.get("flag") or ""
            amount = float(group.get("weight") or group.get("reach") or 0)
            for phrase in group["phrases"]:
                found[section, label, group["lang"], phrase] = Shipped(amount, group.get("narrowable", False))
    return found


def problems_of(changes: Sequence[Change]) -> list[Problem]:
    """What is wrong with the changes, each named by its phrase; nothing: they can be activated."""
    found = Problems()
    if len(changes) > MAX_CHANGES:
        found.add("changes", f"are {len(changes):,}; a workspace can have {MAX_CHANGES:,}")
        return found
    seen: set[Key] = set()
    for change in changes:
        if why := _problem(change):
            found.add(change.phrase, why)
        elif change.key in seen:
            found.add(change.phrase, "is changed twice")
        seen.add(change.key)
    if not found:
        overlay = _Overlay(default_ruleset(), found)
        overlay.apply(changes)
        if overlay.spellings > MAX_SPELLINGS and not found:
            found.add(
                "changes", f"stand for {overlay.spellings:,} spellings; {MAX_SPELLINGS:,} are the most. Use fewer {{classes}}"
            )  # fmt: skip
    return [Problem(one.field, one.reason.removeprefix(f"{one.field!r}: ")) for one in found]


def _problem(change: Change) -> str | None:
    if change.section not in SECTIONS:
        return "is of no known kind"
    if change.lang not in LANGS:
        return "needs a language: English or Vietnamese"
    if change.section == "cues" and change.label not in INTENTS:
        return "needs an intent"
    if change.section == "flags" and change.label not in FLAGS:
        return "needs a kind of priority word"
    if change.section in ("negations", "masks") and change.label:
        return "has a label where none belongs"
    if not change.phrase.strip() or len(change.phrase) > MAX_PHRASE:
        return f"must have 1 to {MAX_PHRASE} characters"
    if change.off:
        return None
    if change.section == "cues" and not 0 < change.weight <= MAX_WEIGHT:  # also refuses NaN
        return f"needs a weight above 0 and up to {MAX_WEIGHT:g}"
    if change.section == "negations" and not 0 <= change.reach <= MAX_REACH:
        return f"needs a reach from 0 to {MAX_REACH} words"
    return None


def without_effect(changes: Iterable[Change]) -> list[Change]:
    """Those that switch off what the shipped rules do not have (any more)."""
    return [change for change in changes if change.off and change.key not in shipped()]


def compile_changes(changes: Sequence[Change], version: str) -> tuple[Ruleset, list[Problem]]:
    """The shipped rules with ``changes`` on top. What cannot be compiled (any more, since the shipped rules have
    changed) is left out and told: leads are judged all the same."""
    base, problems = default_ruleset(), Problems()
    overlay = _Overlay(base, problems)
    overlay.apply(changes)
    ruleset = replace(
        base, version=f"{base.version}+{version}", english=overlay.english, marked=overlay.marked, bare=overlay.bare
    )
    return ruleset, problems


class _Overlay(Compiler):
    """Compiles changes into tries that share every node with ``base`` but those that the changes touch."""

    def __init__(self, base: Ruleset, problems: Problems) -> None:
        classes, bare_stop = _ground()
        super().__init__(classes, bare_stop, problems)
        self._owned: set[int] = set()
        self.english, self.marked, self.bare = (self._own(node) for node in (base.english, base.marked, base.bare))
        self._removing: Cue | None = None
        self.spellings = 0

    def apply(self, changes: Iterable[Change]) -> None:
        """Take out what the changes name, then put in what they say."""
        known = shipped()
        changes = list(changes)
        for change in changes:
            if change.key in known:
                self._removing = Cue(KINDS[change.section], _label(change), change.phrase)
                self.add(change.phrase, self._removing, change.lang)
        self._removing = None
        for change in changes:
            if not change.off:
                self.add(change.phrase, _cue(change, known.get(change.key)), change.lang)

    def leaves(self, root: Node, spellings: Iterable[Tokens]) -> Iterator[Node]:
        for spelling in spellings:
            self.spellings += 1
            node = root
            for key in spelling:
                following = node.next.get(key)
                if following is None or id(following) not in self._owned:
                    following = node.next[key] = self._own(following or Node())
                node = following
            yield node

    def _own(self, node: Node) -> Node:
        """A copy that may be changed. It stays reachable from its root, so its id is not given again."""
        copied = Node(dict(node.next), node.cues, node.flags, node.opens, node.steps, node.ends)
        self._owned.add(id(copied))
        return copied

    def _chain(self, parts: list[str]) -> int:
        return self._chains.setdefault(tuple(parts), _FIRST_CHAIN + len(self._chains))

    def _whole(self, root: Node, spellings: Iterable[Tokens], cue: Cue) -> None:
        if self._removing is None:
            super()._whole(root, spellings, cue)
            return
        for node in self.leaves(root, spellings):
            node.cues = tuple(one for one in node.cues if not _is(one, cue))
            node.flags = tuple(one for one in node.flags if not _is(one, cue))

    def _gapped(self, root: Node, parts: list[str], spellings: list[list[Tokens]], cue: Cue) -> None:
        if self._removing is None:
            super()._gapped(root, parts, spellings, cue)
            return
        for node in self.leaves(root, spellings[-1]):
            node.steps = tuple(step for step in node.steps if step[2] is None or not _is(step[2], cue))


#: Chains of phrases with gaps are numbered; those of the shipped rules begin at 0.
_FIRST_CHAIN = 1_000_000


@cache
def _ground() -> tuple[dict[str, list[str]], frozenset[str]]:
    data = default_data()
    return data["classes"], frozenset(data["bare_stop"])


def classes() -> Mapping[str, Sequence[str]]:
    """The shipped classes, which phrases may name in braces."""
    return _ground()[0]


def _label(change: Change) -> str:
    return "negation" if change.section == "negations" else change.label


def _cue(change: Change, before: Shipped | None) -> Cue:
    return Cue(
        KINDS[change.section], _label(change), change.phrase, weight=change.weight, reach=change.reach,
        narrowable=bool(before and before.narrowable),
    )  # fmt: skip


def _is(one: Cue, other: Cue) -> bool:
    return (one.kind, one.label, one.phrase) == (other.kind, other.label, other.phrase)

"""The ruleset: what the judge knows, as data that a manager can edit, validated and compiled into a token trie.

Shape of the JSON (``rulesets/default.json`` is the shipped one)::

    schema      1
    version     free text, stored with every verdict
    gap         how many tokens a ``..`` in a phrase may skip (within one sentence)
    classes     {name: [phrase, ...]}; ``{name}`` in a phrase stands for any of them
    cues        [{intent, lang: en|vi, weight: >0..6, phrases, narrowable?: bool}]
    masks       [{lang, phrases}]: phrases that mean nothing and hide the shorter cues inside them
    negations   [{lang, reach, phrases}]: undo a cue that starts at most ``reach`` tokens later in the clause
    negatable   [intent, ...]: the intents whose cues a negation undoes
    bare_stop   [word, ...]: bare words too ambiguous to stand alone for a word with diacritics (``cho``, ``chó``)
    flags       [{flag: urgent|deadline|put_off|threat|attack|budget|narrowed, lang, phrases}]
                narrowed: a channel or topic is meant; then the ``narrowable`` cues (refusals such as
                "don't call me") yield to every intent that is clearly there
    attack_literals  [text, ...]: looked for as they are (markup, template and formula injection)
    amounts     {large: USD, units: {en: {unit: USD each}, vi: {...}}}
    decision    {strong, pitch, floor}: scores from which an intent counts (see ``hearing._decide``)
    calibration {margin: [[from, probability], ...], ...}: see ``verdict._confidence``
    words       optional; true: the shipped model of words (``wordmodel``) hears the rules and decides with them

Phrases: words as people write them; ``(a|b|)`` alternatives, an empty one makes it optional; ``{class}``;
``..`` a gap; ``#`` any number; ``^`` the start of a sentence; ``<end>`` the end of the message; ``<phone>``,
``<email>``, ``<url>``, ``<emoji>``; the marks ``?``, ``!``, ``$``, ``%``. A word with diacritics also matches
its bare spelling, never other diacritics; a word with an apostrophe also matches without it.

Vietnamese phrases are not tried on English text, where their bare forms would be English words (``ban``).
"""

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webapp.leads import ruleset_packed
from webapp.leads.errors import Invalid, Problem
from webapp.leads.ruleset_trie import JOINS, WHOLE, Cue, Node, shared
from webapp.leads.states import Intent
from webapp.leads.textnorm import fold_search, word_key
from webapp.leads.wordmodel import WordModel, default_model

SCHEMA = 1
PATH = Path(__file__).with_name("rulesets") / "default.json"
LANGS = ("en", "vi")
FLAGS = ("urgent", "deadline", "put_off", "threat", "attack", "budget", "narrowed")
#: A phrase that unfolds into more spellings than this is a mistake (or would make compiling slow).
MAX_EXPANSION = 20_000
MAX_WEIGHT = 6.0

_SECTIONS: dict[str, type] = {
    "version": str,
    "gap": int,
    "classes": dict,
    "cues": list,
    "masks": list,
    "negations": list,
    "negatable": list,
    "bare_stop": list,
    "flags": list,
    "attack_literals": list,
    "amounts": dict,
    "decision": dict,
    "calibration": dict,
}
_ATOM = re.compile(
    r"\(([^()]*)\)|\{(\w+)\}|<(?:phone|email|url|emoji|end)>|\.\.|[#^?!$%,:.£€₫]|[^\W_]+(?:['’][^\W_]+)*"
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|<\w+>|[#^?!$%,:.£€₫]")

Tokens = tuple[str, ...]
#: (key, whether it is the bare form of a word that has diacritics) of each token
Spelling = tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True)
class Ruleset:
    """A compiled ruleset; immutable, shared between requests."""

    version: str
    gap: int
    english: Node
    marked: Node
    bare: Node
    negatable: frozenset[Intent]
    attacks: re.Pattern[str] | None  # the literals of attacks
    large_sum: float
    units: Mapping[str, Mapping[str, float]]
    strong: float
    pitch: float
    floor: float
    margins: tuple[tuple[float, float], ...]
    unknown: Mapping[str, float]
    model: WordModel | None = None


class Problems(list[Problem]):
    def add(self, where: str, why: str) -> None:
        self.append(Problem(where, why))


def load_ruleset(data: Mapping[str, Any], tries: Sequence[Node] | None = None) -> Ruleset:
    """Validate and compile; raises :class:`Invalid` whose details name every problem at once.

    ``tries``: what compiling ``data`` gives, where that is known already (``ruleset_packed``).
    """
    problems = Problems()
    if data.get("schema") != SCHEMA:
        problems.add("schema", f"must be {SCHEMA}")
    for name, kind in _SECTIONS.items():
        if not isinstance(data.get(name), kind):
            problems.add(name, f"is missing or not a {kind.__name__}")
    if not isinstance(data.get("words", False), bool):
        problems.add("words", "must be true or false")
    if problems:
        raise Invalid("The ruleset lacks whole sections.", details=tuple(problems))
    english, marked, bare = tries or _compiled(data, problems)
    numbers = _numbers(data, problems)
    if problems:
        raise Invalid("The ruleset is not valid.", details=tuple(problems))
    return Ruleset(
        version=data["version"],
        gap=data["gap"],
        english=english,
        marked=marked,
        bare=bare,
        negatable=frozenset(Intent(value) for value in data["negatable"]),
        attacks=_any_of(data["attack_literals"]),
        model=default_model() if data.get("words") else None,
        **numbers,
    )


def _any_of(literals: Iterable[str]) -> re.Pattern[str] | None:
    """What finds any of them in a casefolded text."""
    patterns = [re.escape(literal.casefold()) for literal in literals]
    return re.compile("|".join(patterns)) if patterns else None


def _compiled(data: Mapping[str, Any], problems: Problems) -> list[Node]:
    """The tries for English text, and for Vietnamese text with and without diacritics."""
    compiler = Compiler(_classes(data["classes"], problems), frozenset(data["bare_stop"]), problems)
    for where, group, cue_of in _groups(data, problems):
        for i, phrase in enumerate(group["phrases"]):
            compiler.add(f"{where}.phrases[{i}]", cue_of(phrase), group["lang"])
    return shared(compiler.english, compiler.marked, compiler.bare)


_loading = threading.Lock()


def default_ruleset() -> Ruleset:
    """The shipped ruleset, loaded once per process. That takes a moment, so processes that judge call this at start;
    first callers side by side wait for one of them instead of each loading it."""
    return _default or _load_default()


_default: Ruleset | None = None


def _load_default() -> Ruleset:
    global _default
    with _loading:
        _default = _default or shipped()
        return _default


def shipped(path: Path = PATH) -> Ruleset:
    """The ruleset of a file; what it was compiled into is read where it is known, which takes a tenth of compiling."""
    source = path.read_bytes()
    return load_ruleset(json.loads(source), ruleset_packed.load(ruleset_packed.digest(source)))


def default_data() -> dict[str, Any]:
    """The shipped ruleset as it is written, read anew."""
    data: dict[str, Any] = json.loads(PATH.read_bytes())
    return data


def pack() -> str:
    """The shipped ruleset, compiled anew, as ``rulesets/default.trie.json`` holds it."""
    ruleset = load_ruleset(default_data())
    return ruleset_packed.dump(
        (ruleset.english, ruleset.marked, ruleset.bare), ruleset_packed.digest(PATH.read_bytes())
    )


def _classes(raw: Mapping[str, Any], problems: Problems) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = {}
    for name, members in raw.items():
        if not re.fullmatch(r"\w+", name) or not _is_phrases(members):
            problems.add(f"classes.{name}", "needs a one-word name and a list of phrases")
        elif any("{" in m or ".." in m for m in members):
            problems.add(f"classes.{name}", "may hold neither another class nor a gap")
        else:
            classes[name] = list(members)
    return classes


def _is_phrases(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(p, str) and p.strip() for p in value)


def _groups(data: Mapping[str, Any], problems: Problems) -> Iterator[tuple[str, Any, Any]]:
    """Every valid group of phrases with its place in the JSON and a maker of its cues."""
    intents = {intent.value for intent in Intent} - {Intent.UNKNOWN.value}
    for section in ("cues", "masks", "negations", "flags"):
        for i, group in enumerate(data[section]):
            where = f"{section}[{i}]"
            wrong = _group_problem(section, group, intents)
            if wrong:
                problems.add(where, wrong)
                continue
            yield where, group, _cue_maker(section, group)
    for value in data["negatable"]:
        if value not in intents:
            problems.add("negatable", f"{value!r} is not an intent")


def _group_problem(section: str, group: Any, intents: set[str]) -> str | None:
    if not isinstance(group, dict) or not _is_phrases(group.get("phrases")):
        return "needs a non-empty list of phrases"
    if group.get("lang") not in LANGS:
        return f"lang must be one of {', '.join(LANGS)}"
    if section == "cues":
        weight = group.get("weight")
        if group.get("intent") not in intents:
            return f"{group.get('intent')!r} is not an intent"
        if not isinstance(weight, int | float) or not 0 < weight <= MAX_WEIGHT:
            return f"weight must be a number above 0 and at most {MAX_WEIGHT:g}"
        if not isinstance(group.get("narrowable", False), bool):
            return "narrowable must be true or false"
    if section == "flags" and group.get("flag") not in FLAGS:
        return f"flag must be one of {', '.join(FLAGS)}"
    if section == "negations" and not (isinstance(group.get("reach"), int) and 0 <= group["reach"] <= 10):
        return "reach must be a whole number from 0 to 10"
    return None


def _cue_maker(section: str, group: Mapping[str, Any]) -> Any:
    if section == "cues":
        weight, narrowable = float(group["weight"]), group.get("narrowable", False)
        return lambda phrase: Cue("intent", group["intent"], phrase, weight=weight, narrowable=narrowable)
    if section == "negations":
        return lambda phrase: Cue("negation", "negation", phrase, reach=group["reach"])
    if section == "flags":
        return lambda phrase: Cue("flag", group["flag"], phrase)
    return lambda phrase: Cue("mask", "", phrase)


def _numbers(data: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """The thresholds and tables, checked; an empty dict when something is wrong with them."""
    try:
        decision, amounts, calibration = data["decision"], data["amounts"], data["calibration"]
        margins = tuple((float(low), float(p)) for low, p in calibration["margin"])
        found = {
            "large_sum": float(amounts["large"]),
            "units": {
                lang: {word_key(unit): float(worth) for unit, worth in amounts["units"][lang].items()} for lang in LANGS
            },
            "strong": float(decision["strong"]),
            "pitch": float(decision["pitch"]),
            "floor": float(decision["floor"]),
            "margins": margins,
            "unknown": {name: float(calibration["unknown"][name]) for name in ("empty", "short", "long")},
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problems.add("decision/amounts/calibration", f"not the documented shape ({error!r})")
        return {}
    if not margins or any(a >= b or p > q for (a, p), (b, q) in itertools.pairwise(margins)):
        problems.add("calibration.margin", "needs rising steps with probabilities that never fall")
    if any(not 0 <= p <= 1 for _, p in margins):
        problems.add("calibration.margin", "probabilities lie between 0 and 1")
    return found


class Compiler:
    """Builds the three tries: for English text, and for Vietnamese text with and without diacritics.

    Who types diacritics means ``cho`` by ``cho``; who types none may mean ``chó``. So in text with diacritics a
    bare word alone never stands for a marked cue (in a longer phrase it does: ``báo gia``), and in bare text it
    does unless it is in ``bare_stop``.
    """

    def __init__(self, classes: dict[str, list[str]], bare_stop: frozenset[str], problems: Problems) -> None:
        self.english, self.marked, self.bare = Node(), Node(), Node()
        self._classes = classes
        self._bare_stop = bare_stop
        self._problems = problems
        self._chains: dict[tuple[str, ...], int] = {}

    def add(self, where: str, cue: Cue, lang: str) -> None:
        parts = [part.strip() for part in cue.phrase.split("..")]
        try:
            spellings = [list(self._spellings(part)) for part in parts]
        except ValueError as error:
            self._problems.add(where, f"{cue.phrase!r}: {error}")
            return
        if len(parts) > 1 and cue.kind not in ("intent", "flag"):
            self._problems.add(where, f"{cue.phrase!r}: only cues and flags may have a gap")
            return
        self._insert(self.marked, parts, [_keys(part, self._ok_marked) for part in spellings], cue)
        self._insert(self.bare, parts, [_keys(part, self._ok_bare) for part in spellings], cue)
        if lang == "en":
            self._insert(self.english, parts, [_keys(part, self._ok_bare) for part in spellings], cue)

    def _ok_marked(self, spelling: Spelling) -> bool:
        bare = [is_bare for _, is_bare in spelling]
        if not any(bare):
            return True
        return (len(bare) > 1 and all(bare)) or not all(key.isascii() for key, _ in spelling)

    def _ok_bare(self, spelling: Spelling) -> bool:
        bare = [key for key, is_bare in spelling if is_bare]
        return len(bare) != 1 or bare[0] not in self._bare_stop

    def _insert(self, root: Node, parts: list[str], spellings: list[list[Tokens]], cue: Cue) -> None:
        if not all(spellings):
            return
        if len(parts) == 1:
            self._whole(root, spellings[0], cue)
        else:
            self._gapped(root, parts, spellings, cue)

    def _whole(self, root: Node, spellings: Iterable[Tokens], cue: Cue) -> None:
        for node in self.leaves(root, spellings):
            node.ends |= WHOLE
            if cue.kind == "flag":
                node.flags += (cue,)
            else:
                node.cues += (cue,)

    def _gapped(self, root: Node, parts: list[str], spellings: list[list[Tokens]], cue: Cue) -> None:
        last = len(parts) - 1
        for i, options in enumerate(spellings):
            after = None if i == last else self._chain(parts[: i + 1])
            before = None if i == 0 else self._chain(parts[:i])
            for node in self.leaves(root, options):
                node.ends |= JOINS
                if before is not None:
                    step = (before, after, cue if i == last else None)
                    if step not in node.steps:
                        node.steps += (step,)
                elif after is not None and after not in node.opens:
                    node.opens += (after,)

    def leaves(self, root: Node, spellings: Iterable[Tokens]) -> Iterator[Node]:
        """The node at which each spelling ends, made where there is none yet."""
        for spelling in spellings:
            node = root
            for key in spelling:
                node = node.next.setdefault(key, Node())
            yield node

    def _chain(self, parts: list[str]) -> int:
        return self._chains.setdefault(tuple(parts), len(self._chains))

    def _spellings(self, part: str) -> Iterator[Spelling]:
        """Every sequence of token keys that one gapless phrase stands for."""
        options: list[list[Spelling]] = []
        rest = _ATOM.sub("", part).strip()
        if rest.strip("-/&.'"):
            raise ValueError(f"cannot read {rest!r}")
        for atom in _ATOM.finditer(part):
            options.append(list(self._alternatives(atom)))
        size = 1
        for option in options:
            size *= len(option)
        if not options or size > MAX_EXPANSION:
            raise ValueError("is empty" if not options else f"stands for {size} spellings, too many")
        seen = dict.fromkeys(tuple(itertools.chain(*choice)) for choice in itertools.product(*options))
        if () in seen:
            raise ValueError("every part is optional")
        yield from seen

    def _members(self, choice: str) -> list[str]:
        """The phrases of the class that the choice names in braces; else the choice itself."""
        named = re.search(r"\{(\w+)\}", choice)
        if named is None:
            return [choice]
        if named[1] not in self._classes:
            raise ValueError(f"there is no class {named[1]!r}")
        return [choice.replace(named[0], member) for member in self._classes[named[1]]]

    def _alternatives(self, atom: re.Match[str]) -> Iterator[Spelling]:
        if atom[1] is not None:
            choices = [one for choice in atom[1].split("|") for one in self._members(choice.strip())]
        else:
            choices = self._members(atom[0])
        for choice in choices:
            words = _WORD.findall(choice.casefold())
            if choice and not words:
                raise ValueError(f"cannot read {choice!r}")
            yield from itertools.product(*(word_keys(word) for word in words))


def word_keys(word: str) -> Spelling:
    """The keys that a word of a phrase answers to, and whether each is its bare form."""
    key = word_key(word)
    if key == "#":
        return ((key, False),)
    bare = fold_search(word).replace("’", "'")
    forms = dict.fromkeys((key, key.replace("'", ""), bare, bare.replace("'", "")))
    return tuple((form, form.isascii() and not key.isascii()) for form in forms)


def _keys(spellings: Iterable[Spelling], allowed: Callable[[Spelling], bool]) -> list[Tokens]:
    return [tuple(key for key, _ in spelling) for spelling in spellings if allowed(spelling)]

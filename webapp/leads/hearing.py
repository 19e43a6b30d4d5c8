"""What the rules alone make of a message: the phrases that they know in it, and what those add up to."""

import re
from collections.abc import Sequence, Set
from typing import NamedTuple

from webapp.leads.matching import Hit, met
from webapp.leads.ruleset import Ruleset
from webapp.leads.states import BUYING_INTENTS, PRECEDENCE, Intent
from webapp.leads.textnorm import Mapped, compose, fold_search
from webapp.leads.words import Lexicon, Words, read

_INQUIRY, _UNKNOWN = Intent.INQUIRY, Intent.UNKNOWN
_KEY_MASHING = re.compile("[bcdfghjklmnpqrstvwxz]{4}")
_RANK = {intent: rank for rank, intent in enumerate((Intent.SPAM, Intent.VENDOR_PITCH, *PRECEDENCE, Intent.UNKNOWN))}
_JUNK = frozenset({Intent.SPAM, Intent.VENDOR_PITCH})
#: The words of rulesets that ask for no model.
_UNWEIGHED = Lexicon()


class Said(NamedTuple):
    """What the rules make of a message. ``negated``: which of the ``hits`` a negation undoes; ``names``: its flags;
    ``scores``: of the intents that they found."""

    mapped: Mapped
    words: Words
    hits: list[Hit]
    flags: list[Hit]
    negated: Set[int]
    names: set[str]
    narrowed: bool
    scores: dict[Intent, float]
    intent: Intent
    runner_up: Intent | None


def lexicon_of(rules: Ruleset) -> Lexicon:
    return rules.model.lexicon if rules.model else _UNWEIGHED


def listen(text: str, rules: Ruleset) -> Said:
    mapped = compose(text)
    words = read(mapped.text, lexicon_of(rules))
    hits, flags, negated = met(words, rules)
    names = {flag[2].label for flag in flags}
    narrowed = "narrowed" in names
    if narrowed:
        names.remove("narrowed")
        flags = [flag for flag in flags if flag[2].label != "narrowed"]
    scores = _scores(hits, negated, rules, narrowed)
    if not words.spoken:
        scores = {intent: score for intent, score in scores.items() if intent is Intent.ENGAGEMENT}
    elif not scores and _gibberish(words):
        scores[Intent.SPAM] = rules.pitch
    if rules.attacks is not None and rules.attacks.search(mapped.text):
        names.add("attack")
    if "attack" in names:
        scores[Intent.SPAM] = scores.get(Intent.SPAM, 0.0) + rules.strong - 0.5
    intent, runner_up = _decide(scores, rules)
    if runner_up is _INQUIRY and intent in BUYING_INTENTS:
        intent, runner_up = _decide(_without_question_mark(scores, hits, negated), rules)
    return Said(mapped, words, hits, flags, negated, names, narrowed, scores, intent, runner_up)


def _gibberish(words: Words) -> bool:
    """Whether the words look like keys hit at random; a single such word says nothing (``unknown``)."""
    spoken = [word for word in words.texts if word[:1].isalnum()]
    odd = sum(_KEY_MASHING.search(fold_search(word)) is not None for word in spoken)
    return odd >= 2 and odd * 2 >= len(spoken)


def _scores(hits: Sequence[Hit], negated: Set[int], rules: Ruleset, narrowed: bool) -> dict[Intent, float]:
    """Weights summed per intent; the same phrase said twice counts once.

    When the message narrows its refusal to a channel or a topic ("don't call me, just email the price"), the
    narrowable cues together stay below ``strong``: they decide only where no other intent is clearly there.
    """
    scores: dict[Intent, float] = {}
    limited: dict[Intent, float] = {}
    seen: set[str] = set()
    for n, hit in enumerate(hits):
        cue = hit[2]
        intent = cue.intent
        if intent is None or cue.said in seen or n in negated:
            continue
        seen.add(cue.said)
        if narrowed and cue.narrowable:
            limited[intent] = min(cue.weight, rules.strong - 0.5)
        else:
            scores[intent] = scores.get(intent, 0.0) + cue.weight
    for intent, weight in limited.items():
        scores[intent] = max(scores.get(intent, 0.0), weight)
    return scores


def _decide(scores: dict[Intent, float], rules: Ruleset) -> tuple[Intent, Intent | None]:
    """The intent and its closest rival.

    A pitch or spam that is clearly one wins whatever else it says. Otherwise precedence chooses
    among the intents that are clearly there (``strong``), and failing those among the best-scored.
    """
    if not scores:
        return _UNKNOWN, None
    if len(scores) == 1:
        ((intent, score),) = scores.items()
        return (intent, None) if score >= rules.floor else (_UNKNOWN, intent)
    ranked = sorted(scores, key=lambda i: (-scores[i], _RANK[i]))
    junk = [i for i in ranked if i in _JUNK and scores[i] >= rules.pitch]
    needed = min(rules.strong, scores[ranked[0]])
    eligible = junk or [i for i in sorted(scores, key=_RANK.__getitem__) if scores[i] >= needed]
    intent = eligible[0] if scores[eligible[0]] >= rules.floor else _UNKNOWN
    rivals = [i for i in ranked if i is not intent]
    return intent, rivals[0] if rivals else None


def _without_question_mark(scores: dict[Intent, float], hits: Sequence[Hit], negated: Set[int]) -> dict[Intent, float]:
    """A question mark speaks for ``inquiry`` among other things, but against no buying intent: who asks "how much
    is it?" is no less sure to want the price than who leaves the mark out."""
    marks = next((hit[2].weight for n, hit in enumerate(hits) if hit[2].phrase == "?" and n not in negated), 0.0)
    scores[Intent.INQUIRY] -= marks
    if scores[Intent.INQUIRY] <= 0:
        del scores[Intent.INQUIRY]
    return scores

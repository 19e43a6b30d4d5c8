"""What the rules alone make of a message: the phrases that they know in it, and what those add up to."""

import re
from collections.abc import Sequence, Set
from typing import Final

from webapp.leads.matching import Hit, met
from webapp.leads.ruleset import Ruleset
from webapp.leads.states import BUYING_INTENTS, PRECEDENCE, Intent
from webapp.leads.textnorm import Mapped, compose, fold_search
from webapp.leads.words import Lexicon, Words, read

_INQUIRY: Final = Intent.INQUIRY
_UNKNOWN: Final = Intent.UNKNOWN
_KEY_MASHING: Final = re.compile("[bcdfghjklmnpqrstvwxz]{4}")
_RANK: Final = {
    intent: rank for rank, intent in enumerate((Intent.SPAM, Intent.VENDOR_PITCH, *PRECEDENCE, Intent.UNKNOWN))
}
_JUNK: Final = frozenset({Intent.SPAM, Intent.VENDOR_PITCH})
#: The words of rulesets that ask for no model.
_UNWEIGHED: Final = Lexicon()


class Said:
    """What the rules make of a message. ``negated``: which of the ``hits`` a negation undoes; ``names``: its flags;
    ``scores``: of the intents that they found."""

    def __init__(
        self,
        mapped: Mapped,
        words: Words,
        hits: list[Hit],
        flags: list[Hit],
        negated: Set[int],
        names: set[str],
        narrowed: bool,
        scores: dict[Intent, float],
        intent: Intent,
        runner_up: Intent | None,
    ) -> None:
        self.mapped = mapped
        self.words = words
        self.hits = hits
        self.flags = flags
        self.negated = negated
        self.names = names
        self.narrowed = narrowed
        self.scores = scores
        self.intent = intent
        self.runner_up = runner_up


def lexicon_of(rules: Ruleset) -> Lexicon:
    return rules.model.lexicon if rules.model else _UNWEIGHED


def listen(text: str, rules: Ruleset) -> Said:
    mapped = compose(text)
    words = read(mapped.text, lexicon_of(rules))
    hits, flags, negated = met(words, rules)
    names = {flag.cue.label for flag in flags}
    narrowed = "narrowed" in names
    if narrowed:
        names.remove("narrowed")
        flags = [flag for flag in flags if flag.cue.label != "narrowed"]
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
    spoken = [word.text for word in words.tokens if word.spoken]
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
        cue = hit.cue
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
    marks = next((hit.cue.weight for n, hit in enumerate(hits) if hit.cue.phrase == "?" and n not in negated), 0.0)
    scores[Intent.INQUIRY] -= marks
    if scores[Intent.INQUIRY] <= 0:
        del scores[Intent.INQUIRY]
    return scores

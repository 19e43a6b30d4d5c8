"""The intake judge: explainable rules for English and Vietnamese, fast enough to run inside the request.

``judge`` is pure: no I/O, no clock, no framework. It splits the message into tokens once, walks the ruleset's
trie from each token (longest match wins), lets negations undo cues, sums the weights per intent, and lets the
taxonomy's precedence choose among the intents that are clearly there. A small model of words (``wordmodel``) then hears
what the rules made of the message, weighs it with all the words, and decides; priority, evidence and tags stay the rules'
business. A ruleset that does not ask for the model decides alone.
"""

import re
from dataclasses import dataclass
from typing import Final

from webapp.leads import explanation
from webapp.leads.hearing import Said, lexicon_of, listen
from webapp.leads.matching import met, place
from webapp.leads.ruleset import Ruleset, default_ruleset
from webapp.leads.states import BUYING_INTENTS, Intent, NextAction, Priority, next_action_for
from webapp.leads.textnorm import compose, word_key
from webapp.leads.types import Verdict
from webapp.leads.wordmodel import of_rules
from webapp.leads.words import Words, read

_COMPLAINT: Final = Intent.COMPLAINT
_UNKNOWN: Final = Intent.UNKNOWN  # looking up a member of an enum takes long in Python 3.11
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")


def judge(text: str, *, rules: Ruleset | None = None, channel: str | None = None) -> Verdict:
    """The verdict on one message. Never raises for any text; offsets in the evidence are those of ``text``.

    ``channel`` is accepted because callers know it; the shipped rules judge by the words alone.
    """
    rules = rules or default_ruleset()
    said = listen(text, rules)
    model = rules.model if _can_weigh(said) else None
    lang = said.words.lang
    runner_up: Intent | None
    if model:
        weighed = model.of_words(said.words) + model.of_heard(_as_features(said, rules))
        intent, likely, runner_up, less = model.best(weighed, _undone(said) if said.negated else ())
        confidence = model.confidence(likely, lang)
        runner_up_confidence = round(min(less, confidence, 1 - confidence), 3)
    else:
        intent, runner_up = said.intent, said.runner_up
        confidence = _confidence(intent, runner_up, said.scores, said.words, rules)
        runner_up_confidence = _runner_up_confidence(confidence, runner_up, said.scores)
    names = said.names
    if intent is _COMPLAINT and _large_sum(said.words, rules):
        names.add("large_sum")
    priority, next_action = _consequences(intent, names) if names else _CALM[intent]
    evidence, reasons = explanation.of(said, intent, runner_up)
    if model and intent is not _UNKNOWN and all(span.label != intent for span in evidence):
        evidence, why = explanation.by_words(model, said, intent, evidence)
        reasons = (why, *reasons[1:])
    tags = tuple(sorted(names)) if names else ()
    return tuple.__new__(  # not by the constructor, which is Python and takes ten times as long
        Verdict,
        (
            intent, priority, next_action, confidence, evidence, runner_up, runner_up_confidence, lang, tags, reasons,
            "rules", rules.version,
        ),
    )  # fmt: skip


def heard(text: str, *, rules: Ruleset | None = None) -> tuple[list[str], list[tuple[str, int]]]:
    """What the model of words is given: the tokens, and what the rules made of them. For training."""
    rules = rules or default_ruleset()
    said = listen(text, rules)
    return [word.key for word in said.words.tokens], _as_features(said, rules)


def _can_weigh(said: Said) -> bool:
    """Is the message one for the model? Not without anything to read, and what the rules know as an attack is theirs."""
    return said.words.telling > 0 and "attack" not in said.names


def _undone(said: Said) -> set[str]:
    """The intents of which a negation has left nothing ("not interested in a demo")."""
    return {said.hits[n].cue.label for n in said.negated}.difference(said.scores)


def _as_features(said: Said, rules: Ruleset) -> list[tuple[str, int]]:
    flags = {*said.names, "narrowed"} if said.narrowed else said.names
    return of_rules(said.scores, rules.strong, said.intent, flags, [said.hits[n].cue.label for n in said.negated])


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule that a message met. ``kind``: ``intent`` | ``flag`` | ``negation`` | ``mask``; ``words``: what it met."""

    kind: str
    label: str
    phrase: str
    words: str
    weight: float
    negated: bool


def fired(text: str, *, rules: Ruleset | None = None) -> tuple[Fired, ...]:
    """Every rule that ``text`` meets, from the left: what :func:`judge` goes by."""
    rules = rules or default_ruleset()
    words = read(compose(text).text, lexicon_of(rules))
    hits, flags, negated = met(words, rules)
    found = [(hit, n in negated) for n, hit in enumerate(hits)] + [(flag, False) for flag in flags]
    return tuple(
        Fired(cue.kind, cue.label, cue.phrase, explanation.words_of(hit, words.tokens), cue.weight, undone)
        for hit, undone in sorted(found, key=lambda one: place(one[0]))
        for cue in (hit.cue,)
    )


def _priority(intent: Intent, names: set[str]) -> Priority:
    """taxonomy.md, "Priority"."""
    pressing = "urgent" in names or "deadline" in names
    if intent in BUYING_INTENTS:
        if pressing and not ("put_off" in names and "urgent" not in names):
            return Priority.P0
        return Priority.P2 if "put_off" in names else Priority.P1
    if intent is Intent.COMPLAINT:
        return Priority.P0 if names & {"threat", "large_sum"} else Priority.P1
    if intent in (Intent.INQUIRY, Intent.SUPPORT, Intent.PARTNERSHIP, Intent.UNKNOWN):
        return Priority.P2
    return Priority.P3


def _consequences(intent: Intent, names: set[str]) -> tuple[Priority, NextAction]:
    priority = _priority(intent, names)
    return priority, next_action_for(intent, priority)


#: Where nothing but the intent is known.
_CALM: Final = {intent: _consequences(intent, set()) for intent in Intent}


def _large_sum(words: Words, rules: Ruleset) -> bool:
    """Whether the message names an amount of money at or above the ruleset's large sum (in USD)."""
    units = rules.units["en" if words.lang == "en" else "vi"]
    texts = [word.text for word in words.tokens]
    for i, word in enumerate(words.tokens):
        if word.key != "#":
            continue
        number = _NUMBER.match(texts[i])
        if number is None:
            continue
        near = [texts[i][number.end() :], texts[i - 1], texts[i + 1]]
        worth = [units[word_key(unit)] for unit in near if unit and word_key(unit) in units]
        if worth and _amount(number[0]) * max(worth) >= rules.large_sum:
            return True
    return False


def _amount(digits: str) -> float:
    """``38,000`` and ``38.000`` are thirty-eight thousand; ``4.5`` and ``4,5`` are four and a half."""
    groups = re.split("[.,]", digits)
    if len(groups) > 1 and len(groups[-1]) != 3:
        return float("".join(groups[:-1])[:15] + "." + groups[-1][:3])
    return float("".join(groups)[:15])


def _confidence(
    intent: Intent, rival: Intent | None, scores: dict[Intent, float], words: Words, rules: Ruleset
) -> float:
    """The share of verdicts with evidence like this that were right on labelled messages (ruleset table)."""
    if intent is Intent.UNKNOWN:
        return rules.unknown["empty" if words.spoken == 0 else "short" if words.spoken <= 4 else "long"]
    margin = min(scores[intent], 8.0) - (0.6 * min(scores[rival], 6.0) if rival else 0.0)
    found = rules.margins[0][1]
    for low, probability in rules.margins:
        if margin < low:
            break
        found = probability
    return found


def _runner_up_confidence(confidence: float, rival: Intent | None, scores: dict[Intent, float]) -> float:
    """The rival's share, by score, of what the verdict leaves over."""
    if rival is None:
        return 0.0
    rest = (1.0 - confidence) * scores[rival] / (scores[rival] + 1.0)
    return round(min(rest, confidence), 3)


#: ``Verdict.judge`` where there are no words to judge.
BY_CONTACT = "contact details"
BY_PAGE = "public page"
NO_WORDS = frozenset({BY_CONTACT, BY_PAGE})
#: The share of such leads that want what is assumed is not known: a draft at the default thresholds.
_CONTACT_CONFIDENCE = 0.72


def of_contact_details() -> Verdict:
    """The verdict on somebody whose contact details were handed over for being contacted, without a word of their own
    (a CRM record, a lead form): a person approves it."""
    intent, priority = Intent.CONTACT_REQUEST, Priority.P1
    return Verdict(
        intent, priority, next_action_for(intent, priority), _CONTACT_CONFIDENCE,
        reasons=("contact details were left, without a message",), judge=BY_CONTACT,
    )  # fmt: skip


def of_public_page() -> Verdict:
    """The verdict on a contact found on a public page: nobody has asked for anything, and the words are ours."""
    intent, priority = Intent.UNKNOWN, Priority.P2
    return Verdict(
        intent, priority, next_action_for(intent, priority), 0.5,
        reasons=("found on a public page; nobody has asked for anything",), judge=BY_PAGE,
    )  # fmt: skip

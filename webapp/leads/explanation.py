"""Why a verdict is what it is: spans of the message as evidence, and reasons that a reviewer can read."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from webapp.leads.hearing import Said
from webapp.leads.matching import Hit, parts_of
from webapp.leads.states import Intent
from webapp.leads.types import Span
from webapp.leads.wordmodel import WordModel
from webapp.leads.words import Word

_first: Final = itemgetter(0)
_UNKNOWN: Final = Intent.UNKNOWN
_NAMES: Final = {intent: intent.value for intent in Intent}
#: Kinds of cues → of evidence.
_KINDS: Final = {"intent": "intent", "flag": "priority", "negation": "negation"}
#: How many words are shown as evidence where the model decided by them, and phrases in a reason.
_WORDS_SHOWN: Final = 4
_PHRASES_SHOWN: Final = 4


def of(said: Said, intent: Intent, rival: Intent | None) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """The evidence for ``intent``, and the reasons."""
    own: list[tuple[Hit, str]] = []
    negations: list[tuple[Hit, str]] = []
    others: list[tuple[Hit, str]] = []
    undone: list[str] = []
    tokens, negated = said.words.tokens, said.negated
    for n, hit in enumerate(said.hits):
        cue = hit.cue
        if cue.intent is None:
            if cue.kind == "negation":
                negations.append((hit, _readable(hit, tokens)))
        elif n in negated:
            undone.append(_readable(hit, tokens))
        else:
            (own if cue.intent is intent else others).append((hit, _readable(hit, tokens)))
    reasons = _reasons(said, intent, rival, own, undone)
    flags = [(flag, _readable(flag, tokens)) for flag in said.flags] if said.flags else []
    return _spans(said, [*own, *flags, *negations, *others]), reasons


def _spans(said: Said, ranked: list[tuple[Hit, str]]) -> tuple[Span, ...]:
    """What of the hits does not overlap, the first before the later ones; from the left."""
    if not ranked:
        return ()
    tokens, places, mapped = said.words.tokens, said.words.places, said.mapped
    taken = [False] * len(tokens)
    spans: list[Span] = []
    for hit, readable in ranked:
        cue = hit.cue
        for first, after in parts_of(hit):
            if not tokens[first].text:  # "^" is nowhere in the text, nor is "<end>"
                first += 1
            if not tokens[after - 1].text:
                after -= 1
            if first >= after or any(taken[i] for i in range(first, after)):
                continue
            for i in range(first, after):
                taken[i] = True
            begin, stop = places[first], places[after - 1] + len(tokens[after - 1].text)
            if mapped.starts is not None:
                begin, stop = mapped.origin(begin, stop)
            spans.append(_span((begin, stop, _KINDS[cue.kind], cue.label, readable)))
    if len(spans) > 1:
        spans.sort(key=_first)
    return tuple(spans)


def _span(values: tuple[int, int, str, str, str]) -> Span:
    """A ``Span`` without the call of its Python constructor, which would take longer than finding it did."""
    return tuple.__new__(Span, values)


def _reasons(
    said: Said, intent: Intent, rival: Intent | None, own: list[tuple[Hit, str]], undone: list[str]
) -> tuple[str, ...]:
    """Why, in words that a reviewer can read."""
    scores = said.scores
    name = _NAMES[intent]
    if intent is _UNKNOWN:
        found = "No phrase of the ruleset says what this message wants."
    elif own:
        phrases = list(dict.fromkeys([readable for _, readable in own]))
        score = format(scores.get(intent, 0), "g")
        found = f"{name} ({score}): {_quoted(phrases[:_PHRASES_SHOWN])}"
    else:
        found = name
    reasons = [found]
    if rival is not None and rival in scores:
        name, score = _NAMES[rival], format(scores[rival], "g")
        reasons.append(f"also {name} ({score})")
    if undone:
        reasons.append(f"a negation undoes {_quoted(undone)}")
    if said.names:
        reasons.extend([name.replace("_", " ") for name in sorted(said.names)])
    return tuple(reasons)


def by_words(model: WordModel, said: Said, intent: Intent, spans: tuple[Span, ...]) -> tuple[tuple[Span, ...], str]:
    """Where the model decided without a phrase of the rules: the evidence ``spans`` with the words that told it, and the
    first reason."""
    words, mapped = said.words, said.mapped
    found, shown = list(spans), []
    for i in model.speaking(words, intent):
        word = words.tokens[i].text
        if not word[:1].isalnum():
            continue
        start, end = mapped.origin(words.places[i], words.places[i] + len(word))
        if any(start < span.end and span.start < end for span in found if span.kind != "intent"):
            continue
        found = [span for span in found if not (start < span.end and span.start < end)]
        found.append(Span(start, end, "intent", intent.value, word))
        shown.append(word)
        if len(shown) == _WORDS_SHOWN:
            break
    found.sort(key=_first)
    why = f"{intent} by its words" + (f": {_quoted(shown)}" if shown else "")
    return tuple(found), why if said.intent is intent else f"{why} (the rules alone: {said.intent})"


def words_of(hit: Hit, tokens: list[Word]) -> str:
    """The words that the rule met."""
    start, end = hit.start, hit.end
    if hit.parts:
        return " … ".join([_joined(tokens, a, b) for a, b in hit.parts])
    return tokens[start].text if end == start + 1 else _joined(tokens, start, end)


def _joined(tokens: list[Word], start: int, end: int) -> str:
    return " ".join([word.text for word in tokens[start:end] if word.text])


def _readable(hit: Hit, tokens: list[Word]) -> str:
    """The rule's phrase; for one that stands for many spellings, the words that it met."""
    cue = hit.cue
    return cue.phrase if cue.literal else words_of(hit, tokens) or cue.phrase


def _quoted(phrases: Sequence[str]) -> str:
    return "“" + "”, “".join(phrases) + "”"

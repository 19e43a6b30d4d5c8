"""Why a verdict is what it is: spans of the message as evidence, and reasons that a reviewer can read."""

from collections.abc import Sequence
from operator import itemgetter

from webapp.leads.hearing import Said
from webapp.leads.matching import Hit
from webapp.leads.states import Intent
from webapp.leads.types import Span
from webapp.leads.wordmodel import WordModel

_first = itemgetter(0)
_UNKNOWN = Intent.UNKNOWN
#: Kinds of cues → of evidence.
_KINDS = {"intent": "intent", "flag": "priority", "negation": "negation"}
#: How many words are shown as evidence where the model decided by them, and phrases in a reason.
_WORDS_SHOWN = _PHRASES_SHOWN = 4


def of(said: Said, intent: Intent, rival: Intent | None) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """The evidence for ``intent``, and the reasons."""
    own: list[tuple[Hit, str]] = []
    negations: list[tuple[Hit, str]] = []
    others: list[tuple[Hit, str]] = []
    undone: list[str] = []
    texts, negated = said.words.texts, said.negated
    for n, hit in enumerate(said.hits):
        cue = hit[2]
        if cue.intent is None:
            if cue.kind == "negation":
                negations.append((hit, _readable(hit, texts)))
        elif n in negated:
            undone.append(_readable(hit, texts))
        else:
            (own if cue.intent is intent else others).append((hit, _readable(hit, texts)))
    reasons = _reasons(said, intent, rival, own, undone)
    flags = [(flag, _readable(flag, texts)) for flag in said.flags] if said.flags else []
    return _spans(said, [*own, *flags, *negations, *others]), reasons


def _spans(said: Said, ranked: list[tuple[Hit, str]]) -> tuple[Span, ...]:
    """What of the hits does not overlap, the first before the later ones; from the left."""
    if not ranked:
        return ()
    texts, places, mapped = said.words.texts, said.words.places, said.mapped
    taken = bytearray(len(texts))
    spans: list[Span] = []
    for (start, end, cue, parts), readable in ranked:
        for first, after in parts or ((start, end),):
            if not texts[first]:  # "^" is nowhere in the text, nor is "<end>"
                first += 1
            if not texts[after - 1]:
                after -= 1
            if first >= after or 1 in taken[first:after]:
                continue
            taken[first:after] = b"\1" * (after - first)
            begin, stop = places[first], places[after - 1] + len(texts[after - 1])
            if mapped.starts is not None:
                begin, stop = mapped.origin(begin, stop)
            spans.append(Span(begin, stop, _KINDS[cue.kind], cue.label, readable))
    if len(spans) > 1:
        spans.sort(key=_first)
    return tuple(spans)


def _reasons(
    said: Said, intent: Intent, rival: Intent | None, own: list[tuple[Hit, str]], undone: list[str]
) -> tuple[str, ...]:
    """Why, in words that a reviewer can read."""
    scores = said.scores
    if intent is _UNKNOWN:
        found = "No phrase of the ruleset says what this message wants."
    elif own:
        phrases = dict.fromkeys([readable for _, readable in own])
        found = f"{intent} ({scores.get(intent, 0):g}): {_quoted(list(phrases)[:_PHRASES_SHOWN])}"
    else:
        found = f"{intent}"
    reasons = [found]
    if rival is not None and rival in scores:
        reasons.append(f"also {rival} ({scores[rival]:g})")
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
        word = words.texts[i]
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


def words_of(hit: Hit, texts: Sequence[str]) -> str:
    """The words that the rule met."""
    start, end, _, parts = hit
    if parts:
        return " … ".join([" ".join(filter(None, texts[a:b])) for a, b in parts])
    return texts[start] if end == start + 1 else " ".join(filter(None, texts[start:end]))


def _readable(hit: Hit, texts: Sequence[str]) -> str:
    """The rule's phrase; for one that stands for many spellings, the words that it met."""
    cue = hit[2]
    return cue.phrase if cue.literal else words_of(hit, texts) or cue.phrase


def _quoted(phrases: Sequence[str]) -> str:
    return "“" + "”, “".join(phrases) + "”"

"""The message with its evidence: cut into pieces along the verdict's spans, so that templates escape each piece."""

from collections.abc import Iterable
from typing import NamedTuple

from webapp.leads.states import Intent
from webapp.leads.types import Span, Verdict
from webapp.views import words

#: Cues that are left unmarked when they stand alone.
FUNCTION_WORDS = frozenset(
    (
        "are", "can", "could", "did", "do", "does", "has", "have", "how", "i", "if", "is", "it", "may", "shall",
        "what", "when", "where", "which", "who", "will", "would", "you", "your", "bao", "cho", "có", "co", "còn",
        "con", "duoc", "đã", "được", "hay", "không", "khong", "máy", "vs", "à", "á", "ạ",
    )
)  # fmt: skip


#: The rules' flag of messages that speak to a machine; it makes nothing more urgent.
ATTACK = "attack"


class Piece(NamedTuple):
    """Part of the message. ``kind`` is a CSS class (None: unmarked); ``why`` says what the words speak for."""

    text: str
    kind: str | None = None
    why: str = ""


def pieces(message: str, verdict: Verdict | None) -> list[Piece]:
    """``message`` in order and complete: joining the texts gives it back, whatever the spans are."""
    found: list[Piece] = []
    at = 0
    spans = sorted(verdict.evidence, key=lambda span: (span.start, span.end)) if verdict else []
    for span in spans:
        start, end = max(span.start, at), min(span.end, len(message))
        marked = _kind(span, verdict) if verdict and telling(message[start:end]) else None
        if marked is None:
            continue
        if start > at:
            found.append(Piece(message[at:start]))
        found.append(Piece(message[start:end], *marked))
        at = end
    if at < len(message):
        found.append(Piece(message[at:]))
    return found


def telling(text: str) -> bool:
    """Says something to a reader, unlike a lone question mark or "Could", which are cues to the rules alone."""
    return any(character.isalnum() for character in text) and text.strip().lower() not in FUNCTION_WORDS


def _kind(span: Span, verdict: Verdict) -> tuple[str, str] | None:
    """What decided is marked, what spoke for the runner-up is hinted at; further cues weighed little: None."""
    if span.label == ATTACK:
        return "urgent", "speaks to a machine"
    if span.kind == "priority":
        return "urgent", f"speaks for the priority: {words.plain(span.label)}"
    if span.kind == "negation":
        return "not", "a negation: it undoes what follows"
    said = f"speaks for {_intent(span.label)}"
    if span.label == verdict.intent.value:
        return "own", said
    return ("other", said) if verdict.runner_up and span.label == verdict.runner_up.value else None


def _intent(label: str) -> str:
    try:
        return words.word(Intent(label))
    except ValueError:
        return words.plain(label)


def quotes(message: str, spans: Iterable[Span], *, most: int = 4) -> list[str]:
    """The marked words themselves, each once."""
    found = dict.fromkeys(" ".join(message[span.start : span.end].split()) for span in spans)
    return [text for text in found if telling(text)][:most]


class Why(NamedTuple):
    """What the verdict rests on, as words of the message."""

    intent: list[str]
    runner_up: list[str]
    priority: list[str]
    negated: bool


def why(message: str, verdict: Verdict) -> Why:
    """Quotes per part of the verdict."""
    rival = verdict.runner_up.value if verdict.runner_up else ""
    return Why(
        quotes(message, (s for s in verdict.evidence if s.kind == "intent" and s.label == verdict.intent.value)),
        quotes(message, (s for s in verdict.evidence if s.kind == "intent" and s.label == rival)),
        quotes(message, (s for s in verdict.evidence if s.kind == "priority" and s.label != ATTACK)),
        any(s.kind == "negation" for s in verdict.evidence),
    )

"""Rules and model together: when a model is asked, what it may see, and what its opinion changes.

The rules judge every message; a model, where one is configured, is a second judge that is asked by a worker. Two
judges who agree are surer than one, two who do not are less sure than the surer of them, and what a model alone
says is a draft at best (at the default thresholds). The model's words are data like the lead's own: nothing that it says
makes the console do anything but show a verdict.
"""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from webapp.leads import verdict
from webapp.leads.ports import Model, ModelFailed, Opinion, Question, Usage
from webapp.leads.states import BUYING_INTENTS, PRECEDENCE, Intent, Priority, next_action_for
from webapp.leads.types import LeadFacts, Verdict

#: What a model sees of a message, in characters; the point of a longer one is in its beginning.
LONGEST_ASKED = 6_000
#: Confidence of what a person has to look at first: below every workspace's default threshold.
FOR_REVIEW = 0.69
#: Tags that such verdicts carry.
INJECTION, LATER = "injection", "later message"
#: ``Verdict.judge`` of those that a model had a part in begins so.
WITH_MODEL = "rules+"

#: How far a model's own confidence is believed; models say 0.95 of nearly everything.
_TRUST = 0.6
#: The most that a model gives where the rules found nothing: a draft at best.
_ALONE = 0.8
_SUREST = 0.97


class Mode(StrEnum):
    """``CLASSIFY_MODE``."""

    RULES = "rules"
    RULES_THEN_LLM = "rules_then_llm"  # the model is asked where the rules are not sure
    LLM = "llm"  # the model is asked every time, and /enrich-lead fails without it


@dataclass(frozen=True, slots=True)
class Policy:
    """When a model is asked. ``available``: one is configured and switched on."""

    mode: Mode = Mode.RULES
    available: bool = False

    @property
    def required(self) -> bool:
        """The caller of /enrich-lead gets the model's verdict or none."""
        return self.mode is Mode.LLM

    @property
    def asks(self) -> bool:
        """Can it happen at all that a model is needed?"""
        return self.required or (self.mode is Mode.RULES_THEN_LLM and self.available)

    def needs_model(self, said: Verdict, message: str, *, auto_from: float) -> bool:
        """Is ``said``, the rules' verdict, not enough? The rules are sure from where the workspace lets leads go out
        by themselves. A message without words is nothing to ask about."""
        if not self.asks or not any(character.isalnum() for character in message):
            return False
        return self.required or said.confidence < auto_from


def policy(mode: str, *, use_model: bool, available: bool) -> Policy:
    """From the settings. Switched off, a model is not required either."""
    return Policy(Mode(mode) if use_model else Mode.RULES, available)


@dataclass(frozen=True, slots=True)
class Judging:
    """A worker's judges besides the rules. ``threads``: questions under way at once; ``patience``: seconds after
    which an answer is not waited for any more, whatever the client makes of its own time limit."""

    policy: Policy = Policy()
    model: Model | None = None
    threads: int = 8
    patience: float = 60.0


RULES_ALONE = Judging()


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of asking a model: an opinion, or why there is none."""

    opinion: Opinion | None = None
    error: str | None = None
    usage: Usage | None = None


class NotHeard(Exception):
    """A model was asked and gave no opinion. The text is plain words."""


def ask(model: Model | None, facts: LeadFacts) -> Heard:
    """Ask; every failure is a result. Called outside any transaction, from any thread."""
    if model is None:
        return Heard(error="no model is configured")
    started = time.monotonic()
    question = Question(masked(facts.message[:LONGEST_ASKED], (facts.name, facts.company)))
    try:
        opinion = model.judge(question)
    except ModelFailed as failed:
        return Heard(error=failed.message[:300], usage=failed.usage)
    except Exception as error:  # a bug of a client is no reason to lose a lead, and its text may hold anything
        took = round((time.monotonic() - started) * 1000)
        return Heard(error=f"internal error: {type(error).__name__}", usage=Usage("", took))
    return Heard(opinion=opinion, usage=opinion.usage)


_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_PHONE = re.compile(r"(?<![\w.,])\+?\(?\d(?:[\s().-]{0,2}\d){7,14}(?!\w)")
_WORD = re.compile(r"\w+")


def masked(text: str, names: Iterable[str | None] = ()) -> str:
    """``text`` without what tells who wrote it: addresses, phone numbers, and the names the lead gave."""
    text = _EMAIL.sub("[email]", text)
    text = _PHONE.sub("[phone]", text)
    words = {word for name in names if name for word in _WORD.findall(name) if len(word) > 2 and not word.isdigit()}
    if words:
        listed = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        text = re.sub(rf"\b(?:{listed})\b", "[name]", text, flags=re.IGNORECASE)
        text = re.sub(r"\[name\](?:\s+\[name\])+", "[name]", text)
    return text


_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,30}\b(?:instruction|prompt|rule|direction|command|context)s?\b"
    r"|\b(?:system|developer)\s+(?:prompt|instruction)s?\b|\byou\s+are\s+(?:now|no\s+longer)\s+(?:an?|the|my|in)\b"
    r"|\bas\s+an\s+ai\s+(?:\w+\s+)?(?:model|assistant)\b|\bjailbreak\b|\bprompt\s+injection\b"
    r"|\b(?:respond|reply|answer|output)\s+(?:only\s+)?with\s+(?:json|the\s+word|exactly)\b"
    r"|\b(?:classify|mark|label|score)\s+(?:this|me|it|my\s+\w+)\s+as\b|\"(?:intent|confidence)\"\s*:"
    r"|<\|?\s*/?\s*(?:im_start|im_end|system|assistant|lead_message)\b|\[/?(?:inst|system)\]"
    r"|\bbỏ\s+qua\b.{0,20}\b(?:hướng\s+dẫn|chỉ\s+dẫn|chỉ\s+thị|lệnh|quy\s+tắc)\b",
    re.IGNORECASE | re.DOTALL,
)


#: One of these is in whatever the expression finds. Looking for them first takes a twentieth of its time.
_ORDER_WORDS = (
    "ignore", "disregard", "forget", "override", "bypass", "prompt", "instruction", "you are", "an ai", "jailbreak",
    "respond", "reply", "answer", "output", "classify", "mark", "label", "score", '"intent"', '"confidence"', "im_start",
    "im_end", "system", "assistant", "lead_message", "inst]", "bỏ qua",
)  # fmt: skip


def gives_orders(text: str) -> bool:
    """Does the message talk to a machine rather than to us? Suspected prompt injection."""
    folded = " ".join(text.lower().split())
    return any(word in folded for word in _ORDER_WORDS) and _ORDERS.search(folded) is not None


def distrusted(said: Verdict) -> Verdict:
    """``said`` of a message under suspicion of prompt injection: for a person to look at."""
    reason = "part of the message addresses the machine (suspected prompt injection)"
    return _for_review(said, INJECTION, reason)


def combine(said: Verdict, opinion: Opinion, *, prefer_model: bool = False) -> Verdict:
    """The rules' verdict and a model's opinion as one verdict whose confidence is a probability still.

    ``prefer_model``: where the two disagree the model decides; otherwise the surer one. The evidence stays the
    rules': a model points at no words.
    """
    believed = min(max(opinion.confidence, 0.0), 1.0)
    named = opinion.intent.value.replace("_", " ")
    reasons = (
        *said.reasons,
        f"the model says {named} ({believed:.0%})" + (f": {opinion.reason}" if opinion.reason else ""),
    )
    judge = f"{WITH_MODEL}{opinion.usage.model or 'model'}"
    if opinion.intent is said.intent:
        confidence = min(_SUREST, said.confidence + (1 - said.confidence) * _TRUST * believed)
        if said.intent is Intent.UNKNOWN:  # that both see nothing makes nothing known
            confidence = min(confidence, FOR_REVIEW)
        return replace(said, confidence=max(said.confidence, round(confidence, 3)), reasons=reasons, judge=judge)
    if said.intent is Intent.UNKNOWN:  # the rules found nothing: nothing to disagree with
        return _by_model(said, opinion, round(_ALONE * believed, 3), reasons, judge)
    reasons = (*reasons, "rules and model disagree")
    if opinion.intent is not Intent.UNKNOWN and (prefer_model or believed > said.confidence):
        confidence = min(FOR_REVIEW, round(believed * (1 - _TRUST * said.confidence), 3))
        return _by_model(said, opinion, confidence, reasons, judge)
    confidence = round(said.confidence * (1 - _TRUST * believed), 3)
    return replace(
        said, confidence=confidence, runner_up=opinion.intent,
        runner_up_confidence=round(min(confidence, 1 - confidence) * believed, 3), reasons=reasons, judge=judge,
    )  # fmt: skip


def _by_model(said: Verdict, opinion: Opinion, confidence: float, reasons: tuple[str, ...], judge: str) -> Verdict:
    priority = _fitting(opinion.intent, opinion.priority)
    return replace(
        said, intent=opinion.intent, priority=priority, next_action=next_action_for(opinion.intent, priority),
        confidence=confidence, runner_up=None if said.intent is Intent.UNKNOWN else said.intent,
        runner_up_confidence=round(min(confidence, 1 - confidence) * said.confidence, 3), reasons=reasons, judge=judge,
    )  # fmt: skip


def _fitting(intent: Intent, priority: Priority) -> Priority:
    """``priority`` as far as taxonomy.md allows it for ``intent``."""
    if intent in BUYING_INTENTS:
        return priority if priority is not Priority.P3 else Priority.P2
    if intent is Intent.COMPLAINT:
        return Priority.P0 if priority is Priority.P0 else Priority.P1
    if intent in (Intent.INQUIRY, Intent.SUPPORT, Intent.PARTNERSHIP, Intent.UNKNOWN):
        return Priority.P2
    return Priority.P3


def raised(said: Verdict, later: Iterable[str]) -> Verdict | None:
    """The lead's verdict after what its author wrote later (touches with other words), when one of those outranks it:
    that message's intent and priority, for a person to look at. None when ``said`` stands."""
    found = None
    for message in later:
        new = verdict.judge(message)
        if _outranks(new, found or said):
            found = new
    if found is None:
        return None
    named = f"{found.intent.value.replace('_', ' ')}, {found.priority.value}"
    taken = replace(said, intent=found.intent, priority=found.priority, next_action=found.next_action)
    return _for_review(taken, LATER, f"a later message of theirs says more ({named})")


def _outranks(new: Verdict, old: Verdict) -> bool:
    """Precedence (taxonomy.md), then urgency. Junk outranks nothing, and everything else outranks junk."""
    if new.intent not in PRECEDENCE:
        return False
    if old.intent not in PRECEDENCE:
        return True
    mine, theirs = PRECEDENCE.index(new.intent), PRECEDENCE.index(old.intent)
    return mine < theirs or (mine == theirs and new.priority < old.priority)


def _for_review(said: Verdict, tag: str, reason: str) -> Verdict:
    return replace(
        said, confidence=min(said.confidence, FOR_REVIEW), tags=tuple(sorted({*said.tags, tag})),
        reasons=said.reasons if reason in said.reasons else (*said.reasons, reason),
    )  # fmt: skip

"""Rules and model together: when a model is asked, what it may see, and what its opinion changes.

The rules judge every message; a model, where one is configured, is a second judge that is asked by a worker. Two
judges who agree are surer than one, two who do not are less sure than the surer of them, and what a model alone
says is a draft at best (at the default thresholds). The model's words are data like the lead's own: nothing that it says
makes the console do anything but show a verdict.
"""

import logging
import re
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from webapp.leads import suspicion, verdict, vocabulary
from webapp.leads.judging_policy import RULES_ONLY
from webapp.leads.judging_policy import Mode as Mode
from webapp.leads.judging_policy import Policy as Policy
from webapp.leads.judging_policy import policy as policy
from webapp.leads.ports import Model, ModelFailed, Opinion, Question, Usage
from webapp.leads.stages.classify import Judge
from webapp.leads.states import BUYING_INTENTS, PRECEDENCE, Intent, Priority, next_action_for
from webapp.leads.suspicion import FOR_REVIEW as FOR_REVIEW
from webapp.leads.suspicion import INJECTION as INJECTION
from webapp.leads.types import LeadFacts, Verdict

log = logging.getLogger(__name__)

#: What a model sees of a message, in characters; the point of a longer one is in its beginning.
LONGEST_ASKED = 6_000
#: Tag of a verdict that a later message has raised.
LATER = "later message"
#: ``Verdict.judge`` of those that a model had a part in begins so.
WITH_MODEL = "rules+"

#: How far a model's own confidence is believed; models say 0.95 of nearly everything.
_TRUST = 0.6
#: The most that a model gives where the rules found nothing: a draft at best.
_ALONE = 0.8
_SUREST = 0.97


@dataclass(frozen=True, slots=True)
class Judging:
    """A worker's judges besides the rules. ``threads``: questions under way at once; ``patience``: seconds after
    which an answer is not waited for any more, whatever the client makes of its own time limit. ``record``: keeps what
    a question took, whether or not somebody still waits for its answer."""

    policy: Policy = RULES_ONLY
    model: Model | None = None
    threads: int = 8
    patience: float = 60.0
    record: "Callable[[Asking, Heard], None] | None" = None

    @property
    def asks(self) -> bool:
        """Is there a model that any workspace could want to be asked?"""
        return not self.policy.locked and (self.policy.available or self.policy.required)

    def ask(self, asking: "Asking") -> "Heard":
        """Ask; every failure is a result. Called outside any transaction, from any thread."""
        heard = ask(self.model, asking.facts, share_personal=asking.share_personal)
        if self.record and heard.usage:
            try:
                self.record(asking, heard)
            except Exception:  # the answer is worth more than its record
                log.exception("what asking a model took could not be recorded")
        return heard


RULES_ALONE = Judging()


@dataclass(frozen=True, slots=True)
class Asking:
    """About which lead a model is asked, and for which run. ``share_personal``: nothing is masked."""

    facts: LeadFacts
    run_id: uuid.UUID
    share_personal: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of asking a model: an opinion, or why there is none. ``over_budget``: the workspace wants none to be
    asked today any more."""

    opinion: Opinion | None = None
    error: str | None = None
    usage: Usage | None = None
    over_budget: bool = False


class NotHeard(Exception):
    """A model was asked and gave no opinion. The text is plain words."""


def ask(model: Model | None, facts: LeadFacts, *, share_personal: bool = False) -> Heard:
    """Ask; every failure is a result. ``share_personal``: the message leaves as it is."""
    if model is None:
        return Heard(error="no model is configured")
    started = time.monotonic()
    text = facts.message[:LONGEST_ASKED]
    question = Question(text if share_personal else masked(text, (facts.name, facts.author_name), (facts.company,)))
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


def masked(text: str, people: Iterable[str | None] = (), companies: Iterable[str | None] = ()) -> str:
    """``text`` without what tells who wrote it: addresses, phone numbers, and the names the lead gave."""
    text = unicodedata.normalize("NFC", text)  # else "Hà" typed on another keyboard is another word
    text = _EMAIL.sub("[email]", text)
    text = _PHONE.sub("[phone]", text)
    whole, anyhow, capitalised = set[str](), set[str](), set[str]()
    for names, are_people in ((people, True), (companies, False)):
        for name in names:
            words = _WORD.findall(unicodedata.normalize("NFC", name or ""))
            if len(words) > 1:
                whole.add(r"\W{1,3}".join(re.escape(word) for word in words))
            known = [word for word in words if not word.isdigit()]
            anyhow |= {re.escape(word) for word in known if len(word) > 2}
            if are_people or len(words) == 1:  # two letters in lower case are likelier another word: "an", "do"
                capitalised |= {form for word in known if len(word) == 2 for form in (word.title(), word.upper())}
    for patterns, flags in ((whole, re.IGNORECASE), (anyhow, re.IGNORECASE), (capitalised, re.NOFLAG)):
        if patterns:
            listed = "|".join(sorted(patterns, key=len, reverse=True))
            text = re.sub(rf"\b(?:{listed})\b", "[name]", text, flags=flags)
    return re.sub(r"\[name\](?:\s+\[name\])+", "[name]", text)


def combine(said: Verdict, opinion: Opinion, *, prefer_model: bool = False) -> Verdict:
    """The rules' verdict and a model's opinion as one verdict whose confidence is a probability still.

    ``prefer_model``: where the two disagree the model decides; otherwise the surer one. The evidence stays the
    rules': a model points at no words.
    """
    believed = min(max(opinion.confidence, 0.0), 1.0)
    named = vocabulary.INTENT[opinion.intent]
    reasons = (
        *said.reasons,
        f"the model says {named} ({believed:.0%})" + (f": {opinion.reason}" if opinion.reason else ""),
    )
    judge = f"{WITH_MODEL}{opinion.usage.model or 'model'}"
    if opinion.intent is said.intent:
        confidence = min(_SUREST, said.confidence + (1 - said.confidence) * _TRUST * believed)
        if said.intent is Intent.UNKNOWN:  # that both see nothing makes nothing known
            confidence = min(confidence, FOR_REVIEW)
        return said._replace(confidence=max(said.confidence, round(confidence, 3)), reasons=reasons, judge=judge)
    if said.intent is Intent.UNKNOWN:  # the rules found nothing: nothing to disagree with
        return _by_model(said, opinion, round(_ALONE * believed, 3), reasons, judge)
    reasons = (*reasons, "rules and model disagree")
    if opinion.intent is not Intent.UNKNOWN and (prefer_model or believed > said.confidence):
        confidence = min(FOR_REVIEW, round(believed * (1 - _TRUST * said.confidence), 3))
        return _by_model(said, opinion, confidence, reasons, judge)
    confidence = round(said.confidence * (1 - _TRUST * believed), 3)
    return said._replace(confidence=confidence, runner_up=opinion.intent,
        runner_up_confidence=round(min(confidence, 1 - confidence) * believed, 3), reasons=reasons, judge=judge,
    )  # fmt: skip


def _by_model(said: Verdict, opinion: Opinion, confidence: float, reasons: tuple[str, ...], judge: str) -> Verdict:
    priority = _fitting(opinion.intent, opinion.priority)
    return said._replace(intent=opinion.intent, priority=priority, next_action=next_action_for(opinion.intent, priority),
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


def raised(said: Verdict, later: Iterable[str], *, judge: Judge = verdict.judge) -> Verdict | None:
    """The lead's verdict after what its author wrote later (touches with other words), when one of those outranks it:
    that message's intent and priority, for a person to look at. None when ``said`` stands."""
    found = None
    for message in later:
        new = suspicion.checked(judge(message), message)
        if _outranks(new, found or said):
            found = new
    if found is None:
        return None
    named = f"{vocabulary.INTENT[found.intent]}, {found.priority.value}"
    taken = said._replace(intent=found.intent, priority=found.priority, next_action=found.next_action)
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
    return said._replace(confidence=min(said.confidence, FOR_REVIEW), tags=tuple(sorted({*said.tags, tag})),
        reasons=said.reasons if reason in said.reasons else (*said.reasons, reason),
    )  # fmt: skip

"""Who judged a lead and what besides the words of the message counted, for its page."""

from typing import NamedTuple

from webapp.leads import suspicion
from webapp.leads.judging import WITH_MODEL
from webapp.leads.types import Verdict
from webapp.leads.verdict import BY_CONTACT, BY_PAGE


class Judgement(NamedTuple):
    """``by``: whose verdict it is; ``notes``: sentences beside the rules' own reasons; ``signs``: what speaks for a
    prompt injection, in words that complete "it …"; ``suspected``: whether one is suspected at all."""

    by: str
    notes: list[str]
    signs: list[str]
    suspected: bool


#: How reasons begin that tell of more than the rules' phrases (``leads.judging``, ``stages.classify``).
_NOTES = ("the model says", "rules and model", "no model was heard", "classification failed", "a later message")


def of(verdict: Verdict, message: str) -> Judgement:
    """From the stored verdict."""
    suspected = suspicion.INJECTION in verdict.tags
    return Judgement(
        by=_by(verdict),
        notes=[reason[:1].upper() + reason[1:] for reason in verdict.reasons if reason.startswith(_NOTES)],
        signs=list(suspicion.signs(message)) if suspected else [],
        suspected=suspected,
    )


def _by(verdict: Verdict) -> str:
    if verdict.judge == BY_CONTACT:
        return "contact details alone"
    if verdict.judge == BY_PAGE:
        return "where it was found: a public page"
    _, _, own = verdict.ruleset.partition("+")
    rules = f"the workspace’s rules, version {own}" if own else "the shipped rules"
    model = verdict.judge.removeprefix(WITH_MODEL) if verdict.judge.startswith(WITH_MODEL) else ""
    return f"{rules}, and the model {model}" if model else rules

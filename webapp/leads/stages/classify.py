"""Classify: what does the lead want? The judge is handed in; a model's opinion is added in ``leads.judging``."""

from collections.abc import Callable

from webapp.leads.types import LeadFacts, Verdict

Judge = Callable[[str], Verdict]

#: Just below ``draft_from``'s default: what could not be classified anew is for a person to look at.
DEGRADED_CONFIDENCE = 0.69


def classify(facts: LeadFacts, *, judge: Judge) -> Verdict:
    """The verdict on the lead's message. Whatever ``judge`` raises is the stage's failure."""
    return judge(facts.message)


def degraded(intake: Verdict) -> Verdict:
    """What stands when classifying failed: intake's verdict, no surer than a person's look allows."""
    note = "classification failed; the verdict given at intake stands"
    reasons = intake.reasons if note in intake.reasons else (*intake.reasons, note)
    return intake._replace(confidence=min(intake.confidence, DEGRADED_CONFIDENCE), reasons=reasons)

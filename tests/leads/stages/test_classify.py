import pytest

from webapp.leads.stages import classify
from webapp.leads.states import Intent, NextAction, Priority
from webapp.leads.types import LeadFacts, Verdict


def verdict(confidence=0.92):
    return Verdict(Intent.INQUIRY_PRICE, Priority.P1, NextAction.EMAIL, confidence)


def test_the_judge_is_asked_with_the_message_as_sent():
    asked = []

    def judge(text):
        asked.append(text)
        return verdict()

    assert classify.classify(LeadFacts("1", "2", "  Giá? "), judge=judge) == verdict()
    assert asked == ["  Giá? "]


@pytest.mark.parametrize(("before", "after"), [(0.92, 0.69), (0.5, 0.5)])
def test_a_failed_classification_is_never_surer_than_a_draft(before, after):
    kept = classify.degraded(verdict(before))
    assert kept.confidence == after
    assert kept.intent is Intent.INQUIRY_PRICE


def test_degrading_twice_says_it_once():
    once = classify.degraded(verdict())
    assert classify.degraded(once).reasons == once.reasons

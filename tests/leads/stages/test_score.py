import itertools

import pytest

from webapp.leads.stages import enrich, score
from webapp.leads.states import Intent, Priority, next_action_for
from webapp.leads.types import LeadFacts, Verdict


def verdict(intent=Intent.INQUIRY_PRICE, priority=Priority.P1):
    return Verdict(intent, priority, next_action_for(intent, priority), 0.9)


def facts(**over):
    values = {"message": "Could you quote fifty seats for us?", "name": "Jane", "email": "jane@acme.example"}
    return LeadFacts("1", "2", **(values | over))


def scored(lead, said=None, **kwargs):
    return score.score(lead, said or verdict(), enrich.enrich(lead, default_region="US"), **kwargs)


def points(found):
    return {part.name: part.points for part in found.parts}


def test_the_total_is_the_sum_of_its_named_parts():
    found = scored(facts())
    assert found.total == sum(part.points for part in found.parts)
    assert all(part.reason for part in found.parts)


def test_no_score_leaves_0_to_100():
    best = facts(phone="+14155552671", company="Acme", budget=1e9, touches=50)
    assert scored(best, verdict(Intent.PURCHASE_INTENT, Priority.P0)).total == 100
    nothing = LeadFacts("1", "2", "")
    for intent, priority in itertools.product(Intent, Priority):
        assert 0 <= scored(nothing, verdict(intent, priority)).total <= scored(best, verdict(intent, priority)).total
    assert scored(nothing, verdict(Intent.SPAM, Priority.P3)).total == 0


def test_a_price_question_from_a_company_qualifies_and_one_from_a_throw_away_address_does_not():
    company = scored(facts())
    throw_away = scored(facts(email="x@mailinator.com"))
    assert score.qualified(company.total, Intent.INQUIRY_PRICE, qualified_from=60)
    assert not score.qualified(throw_away.total, Intent.INQUIRY_PRICE, qualified_from=60)


@pytest.mark.parametrize("intent", [Intent.SUPPORT, Intent.SPAM, Intent.COMPLAINT, Intent.UNKNOWN, Intent.JOB])
def test_some_intents_never_qualify(intent):
    assert not score.qualified(100, intent, qualified_from=0)


def test_budgets_are_compared_in_the_workspaces_currency():
    assert points(scored(facts(budget=20_000)))["budget"] == 10
    assert points(scored(facts(budget=20_000), currency="VND"))["budget"] == 4
    assert points(scored(facts(budget=300_000_000), currency="VND"))["budget"] == 10


@pytest.mark.parametrize("budget", [None, 0, -5, float("nan")])
def test_a_budget_that_is_none_gives_nothing(budget):
    assert points(scored(facts(budget=budget)))["budget"] == 0


def test_the_fallback_needs_nothing_but_the_verdict():
    found = score.fallback(verdict())
    assert set(points(found)) == {"intent", "urgency"}
    assert found.total == points(scored(facts()))["intent"] + points(scored(facts()))["urgency"]

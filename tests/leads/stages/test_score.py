"""The score: always the sum of its parts, at most 100, and each part for a reason."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webapp.leads.stages import enrich, score
from webapp.leads.stages.score import Model, Profile
from webapp.leads.states import Intent, Priority, next_action_for
from webapp.leads.types import Fact, LeadFacts, ScorePart, SourceRecord, Verdict

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)


def verdict(intent=Intent.INQUIRY_PRICE, priority=Priority.P1):
    return Verdict(intent, priority, next_action_for(intent, priority), 0.9)


def facts(**over):
    values = {"message": "Could you quote fifty seats for us?", "name": "Jane", "email": "jane@acme.example"}
    return LeadFacts("1", "2", **(values | over))


def scored(lead, said=None, more=(), **kwargs):
    learned = enrich.enrich(lead, default_region="US") + tuple(Fact(*one, "test", 0.9) for one in more)
    return score.score(lead, said or verdict(), learned, now=NOW, **kwargs)


def points(found):
    return {part.name: part.points for part in found.parts}


def reasons(found):
    return {part.name: part.reason for part in found.parts}


def test_the_total_is_the_sum_of_its_named_parts():
    found = scored(facts())
    assert found.total == sum(part.points for part in found.parts)
    assert all(part.reason for part in found.parts)
    assert sum(part.of for part in found.parts) == 100


def test_no_score_leaves_0_to_100():
    good = SourceRecord(won=400, closed=400, all_won=500, all_closed=2_000)
    best = facts(phone="+14155552671", company="Acme", budget=1e9, touches=50, record=good)
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


def test_it_still_qualifies_when_it_has_waited_for_weeks():
    waited = scored(facts(wrote_at=NOW - timedelta(days=60)))
    assert points(waited)["freshness"] == 0
    assert waited.total >= 60


@pytest.mark.parametrize("intent", [Intent.SUPPORT, Intent.SPAM, Intent.COMPLAINT, Intent.UNKNOWN, Intent.JOB])
def test_some_intents_never_qualify(intent):
    assert not score.qualified(100, intent, qualified_from=0)


class TestBudget:
    def test_it_is_compared_in_the_workspaces_currency(self):
        assert points(scored(facts(budget=20_000)))["budget"] == 9
        assert points(scored(facts(budget=20_000), currency="VND"))["budget"] == 4
        assert points(scored(facts(budget=300_000_000), currency="VND"))["budget"] == 9

    def test_a_workspace_says_itself_what_is_large(self):
        assert points(scored(facts(budget=20_000), model=Model(large_budget=1e6)))["budget"] == 4
        assert points(scored(facts(budget=20_000), model=Model(large_budget=1e5)))["budget"] == 6

    @pytest.mark.parametrize("budget", [None, 0, -5, float("nan")])
    def test_one_that_is_none_gives_nothing(self, budget):
        assert points(scored(facts(budget=budget)))["budget"] == 0


class TestCompanyFit:
    profile = Profile(frozenset({"software"}), frozenset({"51-200"}), frozenset({"DE", "VN"}))
    model = Model(profile=profile)

    def fit(self, *more, model=None):
        return scored(facts(), more=more, model=model or self.model)

    def test_without_a_profile_it_is_no_part_and_the_others_share_its_points(self):
        assert "company_fit" not in points(scored(facts()))
        assert "company_fit" not in points(scored(facts(), model=Model(profile=Profile(weights={}))))

    def test_what_the_profile_names_counts_by_its_weight(self):
        most = self.model.points()["company_fit"]
        whole = self.fit(("industry", "software"), ("company_size", "51-200"), ("country", "VN"))
        assert points(whole)["company_fit"] == most
        assert reasons(whole)["company_fit"] == "industry fits, size fits, country fits"
        half = self.fit(("industry", "software"), ("company_size", "5001+"))
        assert points(half)["company_fit"] == round(most / 2 + 0.01)
        assert reasons(half)["company_fit"] == "industry fits, size does not fit, country unknown"

    def test_the_size_is_told_by_the_number_of_people_and_the_country_by_the_phone(self):
        found = self.fit(("company_employees", 120), ("phone_region", "DE"))
        assert reasons(found)["company_fit"] == "industry unknown, size fits, country fits"

    def test_criteria_that_are_not_named_do_not_matter(self):
        model = Model(profile=Profile(countries=frozenset({"DE"})))
        found = self.fit(("country", "DE"), ("industry", "legal"), model=model)
        assert points(found)["company_fit"] == model.points()["company_fit"]


class TestContactability:
    @pytest.mark.parametrize(
        ("more", "expected"),
        [
            ((), "e-mail address, business domain"),
            ([("email_deliverable", "undeliverable")], "e-mail address that takes no mail, business domain"),
            ([("email_deliverable", "risky")], "e-mail address that may not take mail, business domain"),
            ([("email_mx", False)], "e-mail domain that takes no mail, business domain"),
        ],
    )
    def test_an_address_counts_as_far_as_it_takes_mail(self, more, expected):
        found = scored(facts(), more=more)
        assert reasons(found)["contactability"] == expected
        assert (points(found)["contactability"] == 12) == (not more)

    def test_of_two_providers_the_surer_one_is_believed(self):
        lead = facts()
        learned = (*enrich.enrich(lead, default_region="US"), Fact("email_valid", False, "a guess", 0.1))
        assert "e-mail address" in reasons(score.score(lead, verdict(), learned))["contactability"]


class TestSource:
    def of(self, *numbers):
        found = scored(facts(record=SourceRecord(*numbers)))
        return next(part for part in found.parts if part.name == "source")

    def test_without_outcomes_it_is_average_and_says_that_there_are_none(self):
        part = self.of(0, 0, 30, 100)
        assert (part.points, part.of) == (3, 5)
        assert part.reason == "no outcomes of this source yet; counts as average"

    def test_outcomes_are_named_only_where_they_are_real(self):
        assert self.of(12, 40, 30, 100).reason == "won 12 of 40 outcomes of this source, 30 of 100 in all"

    def test_few_outcomes_move_it_little_and_many_much(self):
        whole = (100, 1_000)
        few, many = SourceRecord(2, 2, *whole), SourceRecord(60, 100, *whole)
        assert score.base_rate(few) < score.rate(few) < score.rate(many)
        assert score.rate(few) < 0.2
        assert self.of(60, 100, *whole).points == 5
        assert self.of(0, 200, *whole).points == 0

    @given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
    def test_a_rate_is_a_probability_however_few_or_many(self, won, lost, more_won, more_lost):
        record = SourceRecord(won, won + lost, won + more_won, won + lost + more_won + more_lost)
        assert 0 < score.base_rate(record) < 1
        assert 0 < score.rate(record) < 1


class TestTime:
    def at(self, days, **over):
        found = scored(facts(wrote_at=NOW - timedelta(days=days), **over))
        return {part.name: part for part in found.parts}

    def test_freshness_is_halved_by_each_half_life(self):
        assert [self.at(days)["freshness"].points for days in (0, 7, 14, 21, 70)] == [5, 3, 1, 1, 0]

    def test_engagement_fades_more_slowly(self):
        touched = [self.at(days, touches=4)["engagement"].points for days in (0, 7, 28, 300)]
        assert touched == [5, 4, 3, 0]

    def test_reasons_name_the_day_so_that_they_stay_true(self):
        part = self.at(3, touches=2, other_leads=1)
        assert part["freshness"].reason == "last wrote on 17 Nov 2026; half is gone after 7 days"
        assert part["engagement"].reason == "asked 2 times, 1 other request, last wrote on 17 Nov 2026"

    def test_someone_who_will_write_tomorrow_is_fresh(self):
        assert self.at(-1)["freshness"].points == 5

    @given(st.floats(0, 400), st.integers(1, 20), st.floats(0.5, 365))
    def test_the_next_loss_is_foreseen(self, days, touches, half_life):
        lead = facts(wrote_at=NOW - timedelta(days=days), touches=touches)
        found = scored(lead, model=Model(half_life=half_life))
        decaying = [part for part in found.parts if part.decay]
        after = score.loses_a_point_after(found.parts)
        if after is None:
            assert all(part.points == 0 for part in decaying)
            return
        before = sum(score.aged(part, after * 0.999).points for part in decaying)
        assert before >= sum(part.points for part in decaying)
        assert sum(score.aged(part, after * 1.001 + 1e-6).points for part in decaying) < before


def test_spam_is_no_better_for_being_new_or_for_where_it_comes_from():
    spam = scored(facts(touches=9, record=SourceRecord(50, 50, 50, 100)), verdict(Intent.SPAM, Priority.P3))
    assert {name: points(spam)[name] for name in ("source", "engagement", "freshness")} == {
        "source": 0, "engagement": 0, "freshness": 0,
    }  # fmt: skip
    assert reasons(spam)["freshness"] == "does not count for spam"


def test_reasons_name_an_intent_in_the_words_that_pages_have_for_it():
    assert reasons(scored(facts()))["intent"].startswith("price inquiry (")
    assert reasons(scored(facts(), verdict(Intent.INQUIRY, Priority.P2)))["intent"].startswith("product inquiry (")


class TestFailures:
    def test_a_component_that_fails_costs_only_itself_and_says_so(self, monkeypatch):
        whole = scored(facts(budget=100.0))
        monkeypatch.setattr(score, "LARGE_BUDGET", {"USD": None})
        found = scored(facts(budget=100.0))
        assert points(found) == points(whole) | {"budget": 0}
        part = next(part for part in found.parts if part.failed)
        assert part.name == "budget"
        assert part.reason == "could not be worked out and counts as nothing"
        assert "TypeError" in part.failed

    def test_the_fallback_of_the_whole_needs_nothing_but_the_verdict(self):
        found = score.fallback(verdict())
        assert set(points(found)) == {"intent", "urgency"}
        assert found.total == points(scored(facts()))["intent"] + points(scored(facts()))["urgency"]

    def test_without_outcomes_as_a_guide_the_others_share_the_points_of_the_source(self):
        model = score.unlearned(score.SHIPPED)
        assert "source" not in model.points()
        assert sum(model.points().values()) == 100


weights = st.dictionaries(st.sampled_from([*score.SHIPPED_WEIGHTS, "gone"]), st.integers(0, 100))
anything = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**9), st.floats(), st.text(max_size=8), st.lists(st.integers())
)
names = st.sampled_from(
    ["email_valid", "email_disposable", "email_deliverable", "email_mx", "phone_valid", "company_domain", "industry",
     "company_size", "company_employees", "country", "phone_region"]
)  # fmt: skip
leads = st.builds(
    LeadFacts,
    lead_id=st.just("1"),
    workspace_id=st.just("2"),
    message=st.text(max_size=60),
    name=st.none() | st.text(max_size=5),
    budget=st.none() | st.floats(),
    touches=st.integers(-1, 10**6),
    other_leads=st.integers(0, 10**6),
    wrote_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    record=st.builds(SourceRecord, *[st.integers(0, 10**6)] * 4),
)
models = st.builds(
    Model,
    weights=weights,
    profile=st.builds(
        Profile,
        st.frozensets(st.sampled_from(["software", "legal"])),
        st.frozensets(st.sampled_from(score.SIZES)),
        st.frozensets(st.sampled_from(["DE", "VN"])),
        st.dictionaries(st.sampled_from(["industry", "size", "country"]), st.integers(0, 100)),
    ),
    half_life=st.floats(0.5, 365),
    large_budget=st.none() | st.floats(1, 1e15),
)


@settings(max_examples=300)
@given(leads, st.sampled_from(Intent), st.sampled_from(Priority), st.lists(st.tuples(names, anything)), models)
def test_whatever_is_known_the_total_is_the_sum_and_fits(lead, intent, priority, learned, model):
    found = score.score(
        lead, verdict(intent, priority), [Fact(*one, "test", 0.5) for one in learned], model=model, now=NOW
    )
    assert found.total == sum(part.points for part in found.parts)
    assert 0 <= found.total <= sum(part.of for part in found.parts)
    assert sum(part.of for part in found.parts) in (0, 100)
    assert all(0 <= part.points <= part.of and part.reason for part in found.parts)
    assert [ScorePart.from_json(part.as_json()) for part in found.parts] == list(found.parts)


@given(weights)
def test_weights_are_scaled_to_100_and_keep_their_order(given_weights):
    model = Model(weights=given_weights, profile=Profile(countries=frozenset({"DE"})))
    found = model.points()
    assert sum(found.values()) in (0, 100)
    for one, other in itertools.combinations(score.SHIPPED_WEIGHTS, 2):
        if given_weights.get(one, 0) > given_weights.get(other, 0):
            assert found.get(one, 0) >= found.get(other, 0)

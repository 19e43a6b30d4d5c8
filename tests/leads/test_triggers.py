"""Which leads a destination wants."""

from types import SimpleNamespace
from typing import Any

import pytest

from webapp.leads import triggers
from webapp.leads.states import Intent, LeadStatus, Priority, Trigger


def _lead(**over: Any) -> Any:
    values = {
        "status": LeadStatus.APPROVED, "intent": Intent.DEMO_REQUEST, "priority": Priority.P1, "source": "Website",
        "lang": "en", "score": 70, "qualified": True, "settled_at": 1, "attributes": {"country": "VN"},
        "verdict": {},
    }  # fmt: skip
    return SimpleNamespace(**(values | over))


@pytest.mark.parametrize(
    ("on", "over", "holds"),
    [
        (None, {}, {Trigger.APPROVED}),
        (None, {"status": LeadStatus.NEW_AUTO}, {Trigger.NEW_AUTO}),
        (None, {"status": LeadStatus.NEW_AUTO, "settled_at": None}, set()),
        (None, {"status": LeadStatus.NEW_DRAFT}, set()),
        (None, {"status": LeadStatus.REJECTED}, set()),
        (None, {"intent": Intent.SPAM}, set()),
        (["priority_high"], {"status": LeadStatus.NEW_DRAFT}, {Trigger.PRIORITY_HIGH}),
        (["priority_high"], {"status": LeadStatus.NEW_DRAFT, "priority": Priority.P2}, set()),
        (["priority_high"], {"status": LeadStatus.NEW_DRAFT, "settled_at": None}, set()),
        (["qualified", "approved"], {}, {Trigger.QUALIFIED, Trigger.APPROVED}),
        (["cold"], {"qualified": False, "intent": Intent.THANKS}, {Trigger.COLD}),
        (["cold"], {"qualified": None}, set()),
        (["rejected"], {"status": LeadStatus.REJECTED, "intent": Intent.SPAM}, {Trigger.REJECTED}),
    ],
)
def test_an_occasion_holds_for_the_lead_as_it_stands(on: Any, over: dict[str, Any], holds: set[Trigger]) -> None:
    assert triggers.matched({"on": on} if on else {}, _lead(**over)) == holds


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ({"intent": ["demo_request"]}, True), ({"intent": ["support"]}, False), ({"source": ["website"]}, True),
        ({"country": ["us", "vn"]}, True), ({"country": ["us"]}, False), ({"lang": ["vi"]}, False),
        ({"min_score": 70}, True), ({"min_score": 71}, False), ({"qualified_only": True}, True),
        ({"priority": ["P0"], "source": ["website"]}, False),
    ],
)  # fmt: skip
def test_every_filter_has_to_let_it_pass(rules: dict[str, Any], wanted: bool) -> None:
    assert bool(triggers.matched(rules, _lead())) is wanted


@pytest.mark.parametrize("on", ["priority_high", "qualified", "cold", "new_auto"])
def test_a_suspected_lead_is_wanted_nowhere_before_a_person_has_decided(on: str) -> None:
    over = {"verdict": {"tags": ["injection"]}, "qualified": on != "cold"}
    status = LeadStatus.NEW_AUTO if on == "new_auto" else LeadStatus.NEW_ESCALATE
    assert triggers.matched({"on": [on]}, _lead(**over, status=status)) == set()
    assert triggers.matched({"on": [on]}, _lead(**over | {"verdict": {}}, status=status)) == {on}
    assert bool(triggers.matched({"on": [on, "approved"]}, _lead(**over))) is True


@pytest.mark.parametrize("least", ["²", "٧", "1" * 5_000, "-1", "7.5"])
def test_a_least_score_that_is_no_number_is_named(least: str) -> None:
    assert [problem.field for problem in triggers.checked({"on": ["approved"], "min_score": least})[1]] == ["min_score"]


def test_a_form_becomes_rules_and_every_mistake_is_named() -> None:
    given = {
        "on": ["approved"],
        "source": " a , b,a ",
        "min_score": "60",
        "intent": ["support"],
        "qualified_only": "on",
    }
    rules = {"on": ["approved"], "source": ["a", "b"], "min_score": 60, "intent": ["support"], "qualified_only": True}
    assert triggers.checked(given) == (rules, ())
    _, problems = triggers.checked({"on": ["never"], "min_score": "101", "intent": ["nonsense"]})
    assert [problem.field for problem in problems] == ["on", "intent", "min_score"]
    assert [problem.field for problem in triggers.checked({})[1]] == ["on"]

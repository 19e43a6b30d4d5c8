"""A service's JSON → facts in their standard forms."""

import pytest

from webapp.leads import fact_mapping
from webapp.leads.errors import Invalid


def one(name, value):
    facts, note = fact_mapping.read({name: "v"}, {"v": value}, trust=0.7)
    return (facts[0].value if facts else None), note


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("company_employees", "1,200", 1200), ("company_employees", 240.0, 240), ("company_employees", "many", None),
        ("company_size", "11-50", "11-50"), ("company_size", "51 to 250", "201-1000"), ("company_size", "5,000+", "5001+"),
        ("company_size", "10001+", "5001+"), ("company_size", "large", None), ("country", "Germany", "DE"),
        ("country", "Atlantis", None), ("company_logo", "javascript:alert(1)", None), ("company_logo", "https://a.de/x.png", "https://a.de/x.png"),
        ("company_logo", "https://a.de/x\x00y", None), ("company_logo", "https://a.de/\ud800", None),
        ("company_social", ["linkedin.com/company/a", "https://x.com/a"], ["https://linkedin.com/company/a", "https://x.com/a"]),
        ("company_domain", "http://www.acme.de/about", "acme.de"), ("email_deliverable", "accept_all", "risky"),
        ("email_deliverable", "purple", None), ("email_mx", True, True), ("email_mx", "maybe", None),
        ("time_zone", "Europe/Berlin", "Europe/Berlin"), ("time_zone", "CET+1", None), ("language", "vi_VN", "vi"),
        ("company_name", "A\x00\n B", "A B"), ("industry", "Hospital & Health Care", "healthcare"), ("industry", "airships", None),
    ],
)  # fmt: skip
def test_values_are_brought_to_form_or_left_out(name, given, value):
    found, note = one(name, given)
    assert found == value
    assert (note == "") is (value is not None)


def test_sizes_follow_from_employees():
    assert [fact_mapping.size_of(n) for n in (1, 10, 11, 200, 201, 5_000, 5_001)] == [
        "1-10", "1-10", "11-50", "51-200", "201-1000", "1001-5000", "5001+",
    ]  # fmt: skip


@pytest.mark.parametrize("body", [None, "text", 5, [{"v": "x"}], {"v": None}, {"v": {"a": 1}}, {"w": 1}])
def test_a_body_without_the_value_gives_nothing(body):
    assert fact_mapping.read({"company_name": "v"}, body, trust=0.7)[0] == []


def test_a_list_at_the_top_is_reached_through_items():
    assert fact_mapping.read({"city": "items[0].city"}, [{"city": "Huế"}], trust=0.7)[0][0].value == "Huế"


def test_a_mapping_needs_a_fact_and_expressions_that_are_some():
    assert fact_mapping.checked({"city": " geo.city ", "state": ""}) == {"city": "geo.city"}
    for wrong in ({}, {"city": "a..b"}, {"unknown": "x"}):
        with pytest.raises(Invalid):
            fact_mapping.checked(wrong)

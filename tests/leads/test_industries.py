"""Industries: words and codes of the official classifications → the closed list, with what says so."""

import pytest

from webapp.leads import industries
from webapp.leads.types import Fact


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("Acme Dental Clinics", "healthcare"), ("Phòng khám Nha khoa Sài Gòn", "healthcare"), ("Computer Software", "software"),
        ("hospital & health care", "healthcare"), ("Real Estate", "real_estate"), ("Banking and finance", "finance"),
        ("real_estate", "real_estate"), ("Online shop for clothing", "ecommerce"), ("Công ty Luật sư Minh", "legal"),
        ("Industrial pumps and valves", "manufacturing"), ("541511", "software"), ("621111", "healthcare"),
        ("7372", "software"), ("airships", None), ("", None), ("999999", None),
    ],
)  # fmt: skip
def test_words_and_codes_are_brought_to_the_closed_list(text, slug):
    found = industries.of_words(text)
    assert (found[0] if found else None) == slug


def test_every_industry_is_of_the_list():
    assert set(industries._WORDS) | set(industries._NAICS.values()) | set(industries._SIC.values()) <= set(
        industries.NAMES
    )


def test_the_words_that_say_so_are_the_evidence():
    learned = [Fact("company_description", "Private clinic and pharmacy", "home page", 0.75)]
    (fact,) = industries.facts(None, learned)
    assert (fact.value, fact.provider, fact.note) == ("healthcare", "home page", "because of “clinic, pharmacy”")

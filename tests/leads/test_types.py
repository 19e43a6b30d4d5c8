"""The values that pass between the stages."""

from webapp.leads.types import Fact, best


def test_the_most_trusted_fact_of_a_name_wins_and_the_first_of_equals() -> None:
    facts = [
        Fact("country", "VN", "phone", 0.6),
        Fact("country", "US", "directory", 0.9),
        Fact("country", "DE", "homepage", 0.9),
        Fact("city", "Hanoi", "form", 0.5),
    ]
    assert {name: fact.value for name, fact in best(facts).items()} == {"country": "US", "city": "Hanoi"}

import pytest

from webapp.leads.stages import place
from webapp.leads.types import Fact, best


def learned(**values):
    return [Fact(name, value, "test", 0.9) for name, value in values.items()]


def told(facts):
    return {name: fact.value for name, fact in best(facts).items()}


@pytest.mark.parametrize(
    ("written", "code"),
    [("Germany", "DE"), ("deutschland", "DE"), ("de", "DE"), ("DEU", "DE"), ("Việt Nam", "VN"), ("vietnam", "VN"), ("UK", "GB"),
     ("USA", "US"), ("Atlantis", None), ("", None), ("x" * 200, None)],
)  # fmt: skip
def test_countries_are_known_by_code_and_by_name(written, code):
    assert place.country_code(written) == code


def test_what_was_sent_counts_before_every_hint_and_all_of_them_stay():
    facts = place.place_facts({"country": "Germany"}, learned(phone_region="US", email_domain="acme.fr"), language="vi")
    countries = [fact.value for fact in facts if fact.name == "country"]
    assert countries == ["DE", "US", "FR", "VN"]
    assert told(facts)["country"] == "DE"
    assert told(facts)["time_zone"] == "Europe/Berlin"


@pytest.mark.parametrize(("domain", "code"), [("acme.de", "DE"), ("acme.co.uk", "GB"), ("acme.io", None), ("acme.com", None), ("acme.eu", None)])  # fmt: skip
def test_the_ending_of_an_address_is_a_hint_only_where_it_is_a_countrys(domain, code):
    assert place.country_of_domain(domain) == code


def test_a_country_with_one_zone_tells_the_time_and_a_number_may_too():
    assert told(place.place_facts({"country": "VN"}, []))["time_zone"] == "Asia/Ho_Chi_Minh"
    assert "time_zone" not in told(place.place_facts({"country": "US"}, []))
    zones = [Fact("phone_time_zones", ["America/New_York"], "phonenumbers", 0.8)]
    assert told(place.place_facts({"country": "US"}, zones))["time_zone"] == "America/New_York"


def test_states_get_their_names_and_cities_their_capitals():
    found = told(place.place_facts({"country": "US", "state": "CA", "city": "SAN JOSE", "zip": "95112"}, []))
    assert (found["state"], found["city"], found["postal_code"]) == ("California", "San Jose", "95112")


@pytest.mark.parametrize(
    "sent", [{"city": ["x"]}, {"city": "enc:abc"}, {"country": 5}, {"city": "x" * 500}, {"zip": True}]
)
def test_what_is_no_place_is_left_out(sent):
    assert place.place_facts(sent, []) == ()

import pytest

from webapp.leads.stages import enrich
from webapp.leads.types import LeadFacts


def named(facts):
    return {fact.name: fact.value for fact in facts}


def test_an_address_of_a_company_tells_its_domain():
    found = named(enrich.email_facts("Jane.Doe@Acme.example"))
    assert found["email_valid"] is True
    assert found["email_domain"] == "acme.example"
    assert found["company_domain"] == "acme.example"
    assert found["email_free"] is False
    assert found["email_role"] is False


@pytest.mark.parametrize(
    "address", ["jane@gmail.com", "jane@outlook.example", "jane@yahoo.com.vn", "jane@mail.ru", "jane@gmail.example"]
)
def test_free_mail_says_nothing_about_a_company(address):
    found = named(enrich.email_facts(address))
    assert found["email_free"] is True
    assert "company_domain" not in found


@pytest.mark.parametrize("domain", ["gmail-services.com", "mygmail.com", "gmail.acme.com", "outlook.museum"])
def test_a_domain_that_only_looks_like_free_mail_is_not(domain):
    assert not enrich.is_free_mail(domain)


@pytest.mark.parametrize("address", ["x@mailinator.com", "x@eu.mailinator.com", "x@yopmail.example"])
def test_throw_away_addresses_are_known_also_below_their_domain(address):
    found = named(enrich.email_facts(address))
    assert found["email_disposable"] is True
    assert "company_domain" not in found


@pytest.mark.parametrize("address", ["info@acme.example", "Sales+web@acme.example", "lienhe@acme.example"])
def test_role_accounts_are_told_from_people(address):
    assert named(enrich.email_facts(address))["email_role"] is True


def test_an_international_domain_is_given_in_its_wire_form_too():
    found = named(enrich.email_facts("jo@bücher.example"))
    assert found["email_domain"] == "xn--bcher-kva.example"
    assert found["email_ascii"] == "jo@xn--bcher-kva.example"


@pytest.mark.parametrize("address", ["bui.bao@", "a b", "x@y@z", "x" * 400 + "@acme.example", "\0@a.example"])
def test_a_malformed_address_is_a_fact_not_an_error(address):
    (fact,) = enrich.email_facts(address)
    assert (fact.name, fact.value) == ("email_valid", False)
    assert fact.note


def test_a_vietnamese_mobile_number():
    found = named(enrich.phone_facts("0912 345 678", default_region="VN"))
    assert found["phone_e164"] == "+84912345678"
    assert found["phone_type"] == "mobile"
    assert found["phone_region"] == "VN"
    assert found["phone_time_zones"] == ["Asia/Ho_Chi_Minh"]
    assert found["phone_carrier"]


@pytest.mark.parametrize("number", ["123", "not a number", "+999999999999", "(", "+"])
def test_a_number_that_cannot_be_dialled_is_a_fact_not_an_error(number):
    (fact,) = enrich.phone_facts(number, default_region="US")
    assert (fact.name, fact.value) == ("phone_valid", False)


def test_nothing_given_nothing_learned():
    assert enrich.enrich(LeadFacts("1", "2", "hello", email=" ", phone=""), default_region="US") == ()


def test_every_fact_names_its_provider_and_how_sure_it_is():
    facts = LeadFacts("1", "2", "hi", email="jane@acme.example", phone="+14155552671")
    learned = enrich.enrich(facts, default_region="US")
    assert learned
    assert all(fact.provider and 0 < fact.confidence <= 1 for fact in learned)

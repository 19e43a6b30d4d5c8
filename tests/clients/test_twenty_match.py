"""Is somebody in Twenty already? Asked of the stand-in over HTTP."""

import pytest

from tests.fakes.twenty import TOKEN, TwentyFake
from webapp.clients.http import HttpClient
from webapp.clients.twenty.client import TwentyClient
from webapp.leads.ports import CrmMatch, Refused, Throttled, Unreached


@pytest.fixture
def twenty():
    with TwentyFake() as fake:
        yield fake


def crm(fake, token=TOKEN):
    return TwentyClient(HttpClient(fake.url, headers={"Authorization": f"Bearer {token}"}, timeout=2))


def add(fake, plural, **values):
    client = HttpClient(fake.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5)
    answer = client.call("POST", f"/{plural}", params={"depth": "0"}, json_body=values)
    (record,) = answer.data["data"].values()
    return record["id"]


def person(fake, email="ada@acme.de", **more):
    return add(fake, "people", emails={"primaryEmail": email}, name={"firstName": "Ada", "lastName": "L"}, **more)


def company(fake, url="https://www.acme.de", **more):
    return add(fake, "companies", name="Acme", domainName={"primaryLinkUrl": url}, **more)


def told(facts):
    return {fact.name: fact.value for fact in facts}


def test_nobody_known_is_nothing(twenty):
    assert crm(twenty).match("ada@acme.de", "+14155552671", "acme.de") == []
    assert isinstance(crm(twenty), CrmMatch)


def test_a_person_with_an_open_deal_and_whose_it_is(twenty):
    owner = twenty.add_member("Rep@Ours.example")
    firm = company(twenty)
    who = person(twenty, companyId=firm)
    add(twenty, "opportunities", name="50 seats", stage="PROPOSAL", companyId=firm, ownerId=owner)
    found = told(crm(twenty).match("ADA@acme.de", None, "acme.de"))
    assert found == {
        "crm_customer": False, "crm_person_id": who, "crm_company_id": firm, "crm_open_deal": "50 seats",
        "crm_owner": "rep@ours.example",
    }  # fmt: skip


def test_a_colleague_of_a_customer_is_a_customers(twenty):
    owner = twenty.add_member("rep@ours.example")
    firm = company(twenty, "acme.de", accountOwnerId=owner)
    add(twenty, "opportunities", name="First order", stage="CUSTOMER", companyId=firm)
    facts = crm(twenty).match("new@acme.de", None, "acme.de")
    found = told(facts)
    assert (found["crm_customer"], found["crm_owner"]) == (True, "rep@ours.example")
    assert "crm_person_id" not in found and "crm_open_deal" not in found
    assert facts[0].note == "a sale was made: First order"


def test_an_owner_is_found_among_more_members_than_a_page_holds(twenty):
    members = [twenty.add_member(f"rep{i}@ours.example") for i in range(450)]
    client = crm(twenty)
    for number in (0, 449):
        company(twenty, f"firm{number}.de", accountOwnerId=members[number])
        found = told(client.match(None, None, f"firm{number}.de"))
        assert found["crm_owner"] == f"rep{number}@ours.example"


def test_a_lost_deal_is_neither_open_nor_a_sale(twenty):
    firm = company(twenty)
    add(twenty, "opportunities", name="Gone", stage="LOST", companyId=firm)
    assert told(crm(twenty).match(None, None, "acme.de")) == {"crm_customer": False, "crm_company_id": firm}


def test_a_domain_that_only_ends_alike_is_another_company(twenty):
    company(twenty, "https://notacme.de")
    assert crm(twenty).match(None, None, "acme.de") == []


def test_a_number_finds_the_person_where_the_address_does_not(twenty):
    phones = {"primaryPhoneNumber": "4155552671", "primaryPhoneCallingCode": "+1", "primaryPhoneCountryCode": "US"}
    who = person(twenty, "other@x.de", phones=phones)
    assert told(crm(twenty).match("ada@acme.de", "+14155552671", None))["crm_person_id"] == who


@pytest.mark.parametrize("hostile", ['a"),or(id[neq]:"x@acme.de', "%@acme.de", 'x"@acme.de'])
def test_an_address_cannot_change_the_question(twenty, hostile):
    person(twenty)
    assert crm(twenty).match(hostile, None, None) == []


def test_a_key_that_may_not_read_members_or_deals_is_told_less(twenty):
    firm = company(twenty, accountOwnerId="00000000-0000-0000-0000-000000000001")
    twenty.fail_next("GET /opportunities", kind="403")
    twenty.fail_next("GET /workspaceMembers", kind="403")
    assert told(crm(twenty).match(None, None, "acme.de")) == {"crm_customer": False, "crm_company_id": firm}


@pytest.mark.parametrize(("kind", "error"), [("500", Unreached), ("429", Throttled), ("garbage", Unreached)])
def test_trouble_is_told(twenty, kind, error):
    twenty.fail_next("GET /people", kind=kind)
    with pytest.raises(error):
        crm(twenty).match("ada@acme.de", None, None)


def test_a_wrong_key_is_a_refusal_of_us(twenty):
    with pytest.raises(Refused) as refused:
        crm(twenty, "wrong").match("ada@acme.de", None, None)
    assert refused.value.destination_wide

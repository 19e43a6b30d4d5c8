"""The stand-in keeps HubSpot's contract, or what is proven against it proves nothing."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.fakes.hubspot import TOKEN, HubspotFake

CONTACTS = "/crm/v3/objects/contacts"


@pytest.fixture
def hubspot() -> Iterator[HubspotFake]:
    with HubspotFake(search_lag=60) as fake:
        yield fake


@pytest.fixture
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        yield session


def _upsert(email: str, **properties: str) -> dict[str, Any]:
    return {"idProperty": "email", "id": email, "properties": {"email": email, **properties}}


def test_a_batch_of_upserts_makes_and_changes(hubspot: HubspotFake, http: requests.Session) -> None:
    url = f"{hubspot.url}{CONTACTS}/batch/upsert"
    first = http.post(url, json={"inputs": [_upsert("a@example.com")]})
    assert (first.status_code, first.json()["status"], first.json()["results"][0]["new"]) == (200, "COMPLETE", True)
    both = http.post(url, json={"inputs": [_upsert("A@example.com", city="Huế"), _upsert("b@example.com")]}).json()
    part = http.post(url, json={"inputs": [_upsert("a@example.com", website="a.example")]})
    assert (part.status_code, "Partial upserts are not supported" in part.json()["message"]) == (400, True)
    assert [one["new"] for one in both["results"]] == [False, True]
    assert [one["properties"].get("city") for one in hubspot.contacts] == ["Huế", None]
    partly = http.post(url, json={"inputs": [_upsert("b@example.com"), _upsert("c@example.com", nonsense="1")]})
    assert (partly.status_code, partly.json()["numErrors"], len(partly.json()["results"])) == (207, 1, 1)
    assert http.post(url, json={"inputs": [_upsert(f"{i}@example.com") for i in range(101)]}).status_code == 400


def test_a_contact_that_is_there_is_a_conflict(hubspot: HubspotFake, http: requests.Session) -> None:
    url = f"{hubspot.url}{CONTACTS}"
    made = http.post(url, json={"properties": {"email": "a@example.com"}})
    again = http.post(url, json={"properties": {"email": "a@example.com"}})
    assert (made.status_code, again.status_code) == (201, 409)
    assert again.json()["message"] == f"Contact already exists. Existing ID: {made.json()['id']}"
    patched = http.patch(f"{url}/a@example.com?idProperty=email", json={"properties": {"city": "Huế"}})
    assert patched.json()["id"] == made.json()["id"]
    nothing = http.patch(f"{url}/a%40example.com?idProperty=email", json={"properties": {}})
    assert (nothing.status_code, nothing.json()["category"]) == (400, "VALIDATION_ERROR")
    assert http.get(f"{url}/nobody@example.com?idProperty=email").status_code == 404


def test_the_search_knows_of_a_record_only_later(hubspot: HubspotFake, http: requests.Session) -> None:
    http.post(f"{hubspot.url}{CONTACTS}", json={"properties": {"email": "a@example.com"}})
    body = {"filterGroups": [{"filters": [{"propertyName": "email", "operator": "EQ", "value": "a@example.com"}]}]}
    assert http.post(f"{hubspot.url}{CONTACTS}/search", json=body).json()["total"] == 0
    hubspot.search_lag = 0
    assert http.post(f"{hubspot.url}{CONTACTS}/search", json=body).json()["total"] == 1


def test_a_task_is_linked_when_it_is_made(hubspot: HubspotFake, http: requests.Session) -> None:
    contact = http.post(f"{hubspot.url}{CONTACTS}", json={"properties": {"email": "a@example.com"}}).json()["id"]
    link = {"to": {"id": contact}, "types": [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 204}]}
    body = {"properties": {"hs_timestamp": "2026-01-01T00:00:00Z", "hs_task_subject": "Call"}, "associations": [link]}
    task = http.post(f"{hubspot.url}/crm/v3/objects/tasks", json=body)
    assert task.status_code == 201
    links = http.get(f"{hubspot.url}/crm/v4/objects/contacts/{contact}/associations/tasks").json()["results"]
    assert [one["toObjectId"] for one in links] == [int(task.json()["id"])]
    for wrong in (
        {"properties": {"hs_task_subject": "no time"}},
        {"properties": body["properties"] | {"hs_task_status": "DONE"}},
        body | {"associations": [link | {"types": [{"associationTypeId": 1}]}]},
    ):
        refused = http.post(f"{hubspot.url}/crm/v3/objects/tasks", json=wrong)
        assert (refused.status_code, refused.json()["category"]) == (400, "VALIDATION_ERROR")
    http.delete(f"{hubspot.url}/crm/v3/objects/tasks/{task.json()['id']}")
    read = {"inputs": [{"id": task.json()["id"]}], "properties": ["hs_task_subject"]}
    assert http.post(f"{hubspot.url}/crm/v3/objects/tasks/batch/read", json=read).status_code == 207
    assert hubspot.tasks == []


def test_limits_are_told_by_their_policy(http: requests.Session) -> None:
    with HubspotFake(per_ten_seconds=2, per_day=3) as hubspot:
        url = f"{hubspot.url}{CONTACTS}"
        answers = [http.get(url) for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 429, 429]
        assert [one.json()["policyName"] for one in answers[2:]] == ["TEN_SECONDLY_ROLLING", "DAILY"]


def test_a_stranger_is_refused(hubspot: HubspotFake) -> None:
    refused = requests.get(f"{hubspot.url}{CONTACTS}", headers={"Authorization": "Bearer wrong"})
    assert (refused.status_code, refused.json()["category"]) == (401, "INVALID_AUTHENTICATION")

"""The stand-in keeps Salesforce's contract, or what is proven against it proves nothing."""

from collections.abc import Iterator

import pytest
import requests

from tests.fakes.salesforce import CLIENT_ID, CLIENT_SECRET, LEAD_FIELD, TASK_FIELD, SalesforceFake

ANA = {"LastName": "Ng", "Company": "Acme"}


@pytest.fixture
def org() -> Iterator[SalesforceFake]:
    with SalesforceFake() as fake:
        yield fake


@pytest.fixture
def http(org: SalesforceFake) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {_log_in(org)}"
        yield session


def _log_in(org: SalesforceFake) -> str:
    form = {"grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    answer = requests.post(f"{org.url}/services/oauth2/token", data=form).json()
    assert answer["instance_url"] == org.url and answer["token_type"] == "Bearer"
    return str(answer["access_token"])


def _url(org: SalesforceFake, path: str) -> str:
    return f"{org.url}/services/data/v62.0{path}"


def test_an_upsert_tells_what_it_made(org: SalesforceFake, http: requests.Session) -> None:
    url = _url(org, f"/sobjects/Lead/{LEAD_FIELD}/k1")
    made, changed = http.patch(url, json=ANA), http.patch(url, json={"City": "Huế"})
    assert (made.status_code, made.json()["created"], changed.status_code, changed.json()["created"]) == (
        201,
        True,
        200,
        False,
    )
    assert made.json()["id"] == changed.json()["id"] and made.json()["id"].startswith("00Q")
    assert http.get(url).json()["City"] == "Huế"
    org._new("Lead", {LEAD_FIELD: "K1"})
    twice = http.patch(url, json=ANA)
    assert twice.status_code == 300 and len(twice.json()) == 2


def test_errors_are_lists_with_a_code(org: SalesforceFake, http: requests.Session) -> None:
    missing = http.patch(_url(org, f"/sobjects/Lead/{LEAD_FIELD}/k1"), json={"City": "Huế"})
    assert (missing.status_code, missing.json()[0]["errorCode"]) == (400, "REQUIRED_FIELD_MISSING")
    assert missing.json()[0]["fields"] == ["LastName", "Company"]
    for method, path, status, code in (
        ("PATCH", "/sobjects/Lead/Other__c/k1", 404, "NOT_FOUND"),
        ("PATCH", "/sobjects/Lead/00Q000000000099AAA", 404, "NOT_FOUND"),
        ("GET", f"/sobjects/Lead/{LEAD_FIELD}/nobody", 404, "NOT_FOUND"),
        ("GET", "/query?q=SELECT Name FROM Lead", 400, "MALFORMED_QUERY"),
    ):
        refused = http.request(method, _url(org, path), json=ANA)
        assert (refused.status_code, refused.json()[0]["errorCode"]) == (status, code), path
    unknown = http.post(_url(org, "/sobjects/Lead"), json=ANA | {"Nope__c": "1"})
    assert unknown.json()[0]["errorCode"] == "INVALID_FIELD"


def test_a_record_that_was_deleted_or_converted_cannot_be_changed(org: SalesforceFake, http: requests.Session) -> None:
    first, second = (http.post(_url(org, "/sobjects/Lead"), json=ANA).json()["id"] for _ in range(2))
    org.delete(first)
    deleted = http.patch(_url(org, f"/sobjects/Lead/{first}"), json=ANA)
    assert (deleted.status_code, deleted.json()[0]["errorCode"]) == (404, "ENTITY_IS_DELETED")
    contact = org.convert(second)
    converted = http.patch(_url(org, f"/sobjects/Lead/{second}"), json=ANA)
    assert converted.json()[0]["errorCode"] == "CANNOT_UPDATE_CONVERTED_LEAD"
    task = http.patch(_url(org, f"/sobjects/Task/{TASK_FIELD}/t1"), json={"WhoId": contact, "Subject": "Call"})
    assert task.status_code == 201
    query = f"SELECT Id, Description FROM Task WHERE WhoId = '{contact}' ORDER BY CreatedDate DESC LIMIT 10"
    assert http.get(_url(org, "/query"), params={"q": query}).json()["totalSize"] == 1


def test_a_token_that_has_run_out_is_refused(org: SalesforceFake, http: requests.Session) -> None:
    assert http.post(_url(org, "/sobjects/Lead"), json=ANA).status_code == 201
    org.expire()
    refused = http.post(_url(org, "/sobjects/Lead"), json=ANA)
    assert (refused.status_code, refused.json()[0]["errorCode"]) == (401, "INVALID_SESSION_ID")
    http.headers["Authorization"] = f"Bearer {_log_in(org)}"
    assert http.post(_url(org, "/sobjects/Lead"), json=ANA).status_code == 201
    wrong = requests.post(
        f"{org.url}/services/oauth2/token", data={"grant_type": "client_credentials", "client_id": "x"}
    )
    assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_client_id")

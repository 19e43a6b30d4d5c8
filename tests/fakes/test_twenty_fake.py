"""The stand-in keeps the contract, or what is proven against it proves nothing."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.fakes.twenty import TOKEN, TwentyFake


@pytest.fixture
def twenty() -> Iterator[TwentyFake]:
    with TwentyFake() as fake:
        yield fake


@pytest.fixture
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        yield session


def _person(email: str = "ana@example.com", **more: Any) -> dict[str, Any]:
    return {"emails": {"primaryEmail": email}, "name": {"firstName": "Ana", "lastName": "Ng"}, **more}


def test_create_answers_201_in_an_envelope(twenty: TwentyFake, http: requests.Session) -> None:
    answer = http.post(f"{twenty.url}/people", json=_person())
    person = answer.json()["data"]["createPerson"]
    assert answer.status_code == 201
    assert person["createdBy"]["source"] == "API"
    assert http.get(f"{twenty.url}/people/{person['id']}").json()["data"]["person"] == person


def test_a_duplicate_is_a_400_unless_upserted(twenty: TwentyFake, http: requests.Session) -> None:
    first = http.post(f"{twenty.url}/people", json=_person()).json()["data"]["createPerson"]
    again = http.post(f"{twenty.url}/people", json=_person("ANA@Example.com."))
    assert again.status_code == 400
    assert again.json()["messages"] == ["A duplicate entry was detected"]
    upserted = http.post(f"{twenty.url}/people?upsert=true&depth=0", json=_person("ANA@example.com", city="Hue"))
    assert upserted.status_code == 201
    assert upserted.json()["data"]["createPerson"]["id"] == first["id"]
    assert upserted.json()["data"]["createPerson"]["city"] == "Hue"
    assert len(twenty.people) == 1


def test_an_upsert_that_matches_two_people_is_refused(twenty: TwentyFake, http: requests.Session) -> None:
    first = http.post(f"{twenty.url}/people", json=_person("a@example.com")).json()["data"]["createPerson"]
    http.post(f"{twenty.url}/people", json=_person("b@example.com"))
    answer = http.post(f"{twenty.url}/people?upsert=true", json=_person("b@example.com", id=first["id"]))
    assert answer.status_code == 400
    assert "Multiple records" in answer.json()["messages"][0]


def test_an_upsert_restores_a_deleted_person(twenty: TwentyFake, http: requests.Session) -> None:
    person = http.post(f"{twenty.url}/people", json=_person()).json()["data"]["createPerson"]
    http.delete(f"{twenty.url}/people/{person['id']}?soft_delete=true")
    assert twenty.people == []
    assert http.post(f"{twenty.url}/people", json=_person()).status_code == 400
    http.post(f"{twenty.url}/people?upsert=true", json=_person())
    assert [p["id"] for p in twenty.people] == [person["id"]]


@pytest.mark.parametrize(
    ("authorization", "status", "error"),
    [(None, 403, "FORBIDDEN_EXCEPTION"), ("Bearer nonsense", 401, "UNAUTHENTICATED")],
)
def test_credentials(twenty: TwentyFake, authorization: str | None, status: int, error: str) -> None:
    answer = requests.get(f"{twenty.url}/people", headers={"Authorization": authorization} if authorization else {})
    assert (answer.status_code, answer.json()["error"]) == (status, error)


@pytest.mark.parametrize(
    "path",
    [
        "task",
        "people?depth=2",
        "people?limit=-1",
        "people?starting_after=x",
        "people?filter=nonsense",
        "people?filter=city[foo]:x",
        "people/not-a-uuid",
    ],
)
def test_bad_requests(twenty: TwentyFake, http: requests.Session, path: str) -> None:
    http.post(f"{twenty.url}/people", json=_person())
    answer = http.get(f"{twenty.url}/{path}")
    assert answer.status_code == 400
    assert set(answer.json()) == {"statusCode", "error", "messages"}


def test_filters(twenty: TwentyFake, http: requests.Session) -> None:
    for name in ("ana", "bob", "cuc"):
        http.post(f"{twenty.url}/people", json=_person(f"{name}@example.com", city=name.upper()))

    def found(text: str) -> list[str]:
        answer = http.get(f"{twenty.url}/people", params={"filter": text}).json()
        return [person["emails"]["primaryEmail"].partition("@")[0] for person in answer["data"]["people"]]

    assert found('emails.primaryEmail[eq]:"bob@example.com"') == ["bob"]
    assert found('or(city[eq]:ANA,city[eq]:"CUC")') == ["ana", "cuc"]
    assert found("not(city[in]:[ANA,BOB])") == ["cuc"]
    assert found("city[is]:NOT_NULL,city[startsWith]:A") == ["ana"]
    assert found("phones[is]:NULL,city[ilike]:b%") == ["bob"]


def test_pages_by_cursor(twenty: TwentyFake, http: requests.Session) -> None:
    for i in range(7):
        twenty.add_member(f"rep{i}@example.com")
    seen, params = [], {"limit": "3"}
    while True:
        answer = http.get(f"{twenty.url}/workspaceMembers", params=params).json()
        seen += [member["userEmail"] for member in answer["data"]["workspaceMembers"]]
        assert answer["totalCount"] == 7
        if not answer["pageInfo"]["hasNextPage"]:
            break
        params["starting_after"] = answer["pageInfo"]["endCursor"]
    assert seen == [f"rep{i}@example.com" for i in range(7)]


def test_an_order_and_its_cursor_hold_among_equal_timestamps(twenty: TwentyFake, http: requests.Session) -> None:
    same = "2026-01-02T03:04:05.678Z"
    made = {twenty.add("opportunities", name=f"d{n}", updatedAt=same) for n in range(5)}
    last = twenty.add("opportunities", name="last", updatedAt="2026-01-02T03:04:06.000Z")
    seen: list[str] = []
    params = {"limit": "2", "order_by": "updatedAt[AscNullsFirst]", "filter": f'updatedAt[gte]:"{same}"'}
    while True:
        answer = http.get(f"{twenty.url}/opportunities", params=params).json()
        page = [one["id"] for one in answer["data"]["opportunities"]]
        if not seen:  # one of those read moves on, and is met again at the end
            twenty.change("opportunities", page[0], name="moved")
        seen += page
        if not answer["pageInfo"]["hasNextPage"]:
            break
        params["starting_after"] = answer["pageInfo"]["endCursor"]
    assert set(seen) == made | {last} and seen[-2] == last and seen[-1] == seen[0] and len(seen) == 7
    for wrong in ({"order_by": "nothing"}, {"order_by": "name[Up]"}, {"starting_after": "x"}):
        assert http.get(f"{twenty.url}/opportunities", params=wrong).status_code == 400
    newest = http.get(f"{twenty.url}/opportunities", params={"order_by": "updatedAt[DescNullsLast]", "limit": "1"})
    assert newest.json()["data"]["opportunities"][0]["name"] == "moved"


def test_what_was_deleted_is_found_by_a_filter_that_names_it(twenty: TwentyFake, http: requests.Session) -> None:
    kept, soft, hard = (twenty.add("opportunities", name=name) for name in ("kept", "soft", "hard"))
    assert http.delete(f"{twenty.url}/opportunities/{soft}?soft_delete=true").status_code == 200
    assert http.delete(f"{twenty.url}/opportunities/{hard}").status_code == 200

    def found(**params: str) -> list[str]:
        answer = http.get(f"{twenty.url}/opportunities", params=params).json()
        return [one["id"] for one in answer["data"]["opportunities"]]

    assert found() == [kept]
    assert found(filter="deletedAt[is]:NOT_NULL") == [soft]
    assert found(filter='deletedAt[gte]:"2020-01-01T00:00:00+00:00"') == [soft]
    assert found(filter='deletedAt[gte]:"2120-01-01T00:00:00Z"') == []
    assert http.get(f"{twenty.url}/opportunities/{soft}").status_code == 404
    assert http.patch(f"{twenty.url}/restore/opportunities/{soft}").status_code == 200
    assert set(found()) == {kept, soft}


def test_an_opportunity_takes_an_amount_and_ids_that_are_there(twenty: TwentyFake, http: requests.Session) -> None:
    person = twenty.add("people", **_person())
    amount = {"amountMicros": 5_000_000, "currencyCode": "EUR"}
    good = {"name": "Deal", "stage": "NEW", "amount": amount, "pointOfContactId": person}
    assert http.post(f"{twenty.url}/opportunities", json=good).status_code == 201
    for wrong in ({"amount": 5}, {"amount": {"value": 5}}, {"pointOfContactId": str(uuid.uuid4())}):
        assert http.post(f"{twenty.url}/opportunities", json=good | wrong).status_code == 400


@pytest.mark.parametrize(("old", "field"), [(False, "targetPersonId"), (True, "personId")])
def test_a_task_target_takes_one_name_of_the_field_and_not_the_other(
    http: requests.Session, old: bool, field: str
) -> None:
    with TwentyFake(old_task_targets=old) as twenty:
        person = http.post(f"{twenty.url}/people", json=_person()).json()["data"]["createPerson"]["id"]
        made = http.post(f"{twenty.url}/tasks", json={"title": "Call", "status": "TODO"})
        task = made.json()["data"]["createTask"]["id"]
        other = {"personId", "targetPersonId"} - {field}
        refused = http.post(f"{twenty.url}/taskTargets", json={"taskId": task, other.pop(): person})
        assert refused.status_code == 400
        taken = http.post(f"{twenty.url}/taskTargets", json={"taskId": task, field: person})
        assert taken.status_code == 201
        assert len(twenty.task_targets) == 1


def test_a_client_supplied_id_is_kept_and_taken_once(twenty: TwentyFake, http: requests.Session) -> None:
    body = {"id": str(uuid.uuid4()), "title": "Call", "status": "TODO"}
    assert http.post(f"{twenty.url}/tasks", json=body).json()["data"]["createTask"]["id"] == body["id"]
    assert http.post(f"{twenty.url}/tasks", json=body).status_code == 400
    assert http.post(f"{twenty.url}/tasks", json={"status": "LATER"}).status_code == 400


def test_rate_buckets(http: requests.Session) -> None:
    with TwentyFake(long_limit=3) as twenty:
        answers = [http.get(f"{twenty.url}/people") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[3].headers["Retry-After"]) <= 61
    assert answers[3].json()["error"] == "RATE_LIMITED"
    assert answers[3].headers["X-RateLimit-Remaining"] == "0"


def test_faults_on_demand(twenty: TwentyFake, http: requests.Session) -> None:
    twenty.fail_next("POST /people", kind="500")
    requests.post(
        f"{twenty.root}/__faults", json={"match": "POST /people", "kind": "reset_after", "times": 1}
    ).raise_for_status()
    assert http.post(f"{twenty.url}/people", json=_person()).status_code == 500
    assert twenty.people == []
    with pytest.raises(requests.ConnectionError):
        http.post(f"{twenty.url}/people", json=_person())
    assert len(twenty.people) == 1
    assert http.get(f"{twenty.url}/people").status_code == 200
    twenty.fail_next(kind="429", retry_after="7")
    assert http.get(f"{twenty.url}/people").headers["Retry-After"] == "7"
    state = requests.get(f"{twenty.root}/__state").json()
    assert [person["emails"]["primaryEmail"] for person in state["people"]] == ["ana@example.com"]

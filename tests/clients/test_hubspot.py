"""HubSpot's client against the stand-in: one contact, one task, one note, whatever happens on the way."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.clients.support import a_request
from tests.fakes.hubspot import TOKEN, HubspotFake
from webapp.clients.http import HttpClient
from webapp.clients.hubspot.client import HubspotClient
from webapp.leads.errors import Permanent
from webapp.leads.ports import DeliveryRequest, OutcomeUnknown, Refused, Throttled, Unreached, Unusable
from webapp.leads.states import DeliveryOperation, DestinationKind, NextAction, Priority

UNIQUE = "lead_ops_person"


@pytest.fixture
def hubspot() -> Iterator[HubspotFake]:
    with HubspotFake() as fake:
        yield fake


def _client(
    fake: HubspotFake, *, token: str = TOKEN, timeout: float = 5, id_property: str | None = UNIQUE
) -> HubspotClient:
    http = HttpClient(fake.url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout, secrets=(token,))
    return HubspotClient(http, id_property=id_property)


def _request(action: str, **over: Any) -> DeliveryRequest:
    return a_request(action, kind=DestinationKind.HUBSPOT, **over)


def _task(client: HubspotClient, action: str = "task", **over: Any) -> DeliveryRequest:
    """A request for somebody who is there."""
    return _request(action, remote={"person": str(client.send(_request("person")).remote_id)}, **over)


def _again(request: DeliveryRequest, operation: DeliveryOperation, remote_id: str | None) -> DeliveryRequest:
    remote = request.remote if remote_id is None else {**request.remote, request.action: remote_id}
    return replace(request, operation=operation, remote=remote, revision=request.revision + 1)


def test_a_contact_is_upserted_by_email_with_what_is_known(hubspot: HubspotFake) -> None:
    client = _client(hubspot)
    first = client.send(_request("person", email="ANA@Example.com", job_title="Buyer"))
    second = client.send(_request("person", email="ana@example.com", name=None, company=None))
    assert first.remote_id == second.remote_id
    (contact,) = hubspot.contacts
    shown = {
        name: contact["properties"][name] for name in ("email", "firstname", "lastname", "phone", "jobtitle", "company")
    }
    assert shown == {
        "email": "ana@example.com", "firstname": "Ana", "lastname": "Nguyễn", "phone": "+14155552671", "jobtitle": "Buyer",
        "company": "Ánh Dương",
    }  # fmt: skip
    assert contact["properties"]["lifecyclestage"] == "lead"
    assert second.exchange.payload is not None and "firstname" not in second.exchange.payload


def test_a_customer_stays_a_customer(hubspot: HubspotFake) -> None:
    client = _client(hubspot)
    client.send(_request("person"))
    hubspot.contacts[0]["properties"]["lifecyclestage"] = "customer"
    client.send(_request("person"))
    assert hubspot.contacts[0]["properties"]["lifecyclestage"] == "customer"


def test_without_an_email_the_unique_property_tells_people_apart(hubspot: HubspotFake) -> None:
    client = _client(hubspot)
    nobody = {"email": None, "phone": None, "phone_e164": None}
    first = client.send(_request("person", **{**nobody, "phone_e164": "+84912345678"})).remote_id
    # The search does not know of them yet.
    assert client.send(_request("person", **{**nobody, "phone_e164": "+84912345678"})).remote_id == first
    author = {**nobody, "platform": "facebook", "author_id": "7"}
    second = client.send(_request("person", **author)).remote_id
    assert client.send(_request("person", **author)).remote_id == second != first
    assert client.send(_request("person", **nobody)).remote_id not in (first, second)
    assert len(hubspot.contacts) == 3


@pytest.mark.parametrize("stored", ["+84912345678", "0912 345 678", "(+84) 912-345-678"])
def test_somebody_whose_number_hubspot_knows_is_used_and_marked(stored: str) -> None:
    with HubspotFake(search_lag=0) as hubspot:
        hubspot.store["contacts"] = {}
        with hubspot.lock:
            known = hubspot._create("contacts", {"properties": {"firstname": "Ana", "phone": stored}})
        known["properties"]["hs_searchable_calculated_phone_number"] = "912345678"
        client = _client(hubspot)
        request = _request("person", email=None, phone_e164="+84912345678")
        assert client.send(request).remote_id == known["id"]
        assert known["properties"][UNIQUE]
        searches = len(hubspot.calls("POST /crm/v3/objects/contacts/search"))
        assert client.send(request).remote_id == known["id"]  # known by the mark now
        assert len(hubspot.calls("POST /crm/v3/objects/contacts/search")) == searches
        assert len(hubspot.contacts) == 1


def test_a_number_of_another_country_is_somebody_else() -> None:
    with HubspotFake(search_lag=0) as hubspot:
        with hubspot.lock:
            hubspot._create("contacts", {"properties": {"phone": "+33912345678"}})
        _client(hubspot).send(_request("person", email=None, phone_e164="+84912345678"))
        assert len(hubspot.contacts) == 2


def test_without_email_and_property_nobody_is_made(hubspot: HubspotFake) -> None:
    with pytest.raises(Refused, match="no e-mail, and HubSpot knows nobody under its number") as refused:
        _client(hubspot, id_property=None).send(_request("person", email=None))
    assert not refused.value.destination_wide
    assert hubspot.contacts == []


def test_a_task_is_made_with_its_link_and_says_what_to_do_for_whom(hubspot: HubspotFake) -> None:
    owner = hubspot.add_owner("Rep@Example.com")
    client = _client(hubspot)
    request = _task(client, next_action=NextAction.CALL, priority=Priority.P0, url="https://ops.example/queue/1")
    receipt = client.send(request)
    (task,) = hubspot.tasks
    assert hubspot.linked("tasks", request.remote["person"]) == [task["id"]] == [receipt.remote_id]
    properties = task["properties"]
    body = properties.pop("hs_task_body")
    assert properties == {
        "hs_timestamp": "2026-01-02T04:05:00.000Z", "hs_task_subject": "📞 Sales Follow-up — Ana Nguyễn",
        "hs_task_status": "NOT_STARTED", "hs_task_priority": "HIGH", "hs_task_type": "CALL", "hubspot_owner_id": owner,
    }  # fmt: skip
    assert "<h2>" in body and "Cho tôi báo giá gói Enterprise" in body and 'href="https://ops.example/queue/1"' in body
    client.send(_task(client))
    assert len(hubspot.calls("GET /crm/v3/owners")) == 1  # an owner is remembered for a while


def test_a_lead_s_words_are_text_in_the_task(hubspot: HubspotFake) -> None:
    client = _client(hubspot)
    client.send(_task(client, message="# Hi\n[click](https://evil.example) <img src=x onerror=alert(1)>"))
    body = hubspot.tasks[0]["properties"]["hs_task_body"]
    assert "<img" not in body and "href" not in body and "&lt;img" in body
    client.send(_task(client, task_text="<script>alert(1)</script> [x](javascript:alert(1))"))
    body = hubspot.tasks[1]["properties"]["hs_task_body"]
    assert "<script" not in body and "href" not in body


def test_owners_that_may_not_be_read_leave_the_task_unassigned() -> None:
    with HubspotFake(owners_readable=False) as hubspot:
        client = _client(hubspot)
        client.send(_task(client))
        assert "hubspot_owner_id" not in hubspot.tasks[0]["properties"]
        assert "tasks stay unassigned" in client.probe()


@pytest.mark.parametrize("action", ["task", "note"])
@pytest.mark.parametrize("kind", ["reset_after", "500_after", "hang_after", "garbage_after", "reset_before", "garbage"])
def test_what_lost_its_answer_is_found_among_the_contact_s(hubspot: HubspotFake, action: str, kind: str) -> None:
    client = _client(hubspot, timeout=1)
    hubspot.page_size = 2
    request = _task(client, action)
    for _ in range(3):  # others of the same contact, on more than one page
        client.send(replace(_task(client, action), remote=request.remote))
    hubspot.fail_next(f"POST /crm/v3/objects/{action}s", kind=kind, seconds=3)
    with pytest.raises(OutcomeUnknown):
        client.send(request)
    found = client.reconcile(request)
    assert (found is not None) == kind.endswith("after")
    receipt = found or client.send(request)
    made = [record["id"] for record in hubspot._live(f"{action}s")]
    assert len(made) == 4 and receipt.remote_id == made[-1]


def test_a_task_is_changed_closed_and_opened_again_rather_than_made_anew(hubspot: HubspotFake) -> None:
    client = _client(hubspot)
    request = _task(client)
    sent = client.send(request).remote_id
    hubspot.tasks[0]["properties"]["hs_task_status"] = "IN_PROGRESS"
    client.send(
        _again(replace(request, lead=replace(request.lead, priority=Priority.P3)), DeliveryOperation.UPDATE, sent)
    )
    properties = hubspot.tasks[0]["properties"]
    assert (properties["hs_task_priority"], properties["hs_task_status"]) == ("LOW", "IN_PROGRESS")
    client.send(_again(request, DeliveryOperation.WITHDRAW, sent))
    assert properties["hs_task_status"] == "COMPLETED" and properties["hs_task_subject"].startswith("✕ Withdrawn")
    client.send(_again(request, DeliveryOperation.RESTORE, sent))
    assert properties["hs_task_status"] == "NOT_STARTED" and properties["hs_task_subject"].startswith("📞")
    assert len(hubspot.tasks) == 1


def test_a_task_whose_id_never_came_back_is_looked_for_before_it_is_changed(hubspot: HubspotFake) -> None:
    client = _client(hubspot)
    request = _task(client)
    assert client.send(_again(request, DeliveryOperation.WITHDRAW, None)).remote_id is None
    hubspot.fail_next("POST /crm/v3/objects/tasks", kind="reset_after")
    with pytest.raises(OutcomeUnknown):
        client.send(request)
    found = client.send(_again(request, DeliveryOperation.WITHDRAW, None))
    assert found.remote_id == hubspot.tasks[0]["id"]
    assert hubspot.tasks[0]["properties"]["hs_task_status"] == "COMPLETED"


@pytest.mark.parametrize("action", ["person", "task", "note"])
def test_what_somebody_deleted_there_is_not_made_again(hubspot: HubspotFake, action: str) -> None:
    client = _client(hubspot)
    request = _request("person") if action == "person" else _task(client, action)
    sent = client.send(request).remote_id
    plural = "contacts" if action == "person" else f"{action}s"
    hubspot.store[plural][str(sent)]["archived"] = True
    with pytest.raises(Permanent, match="is not in HubSpot any more"):
        client.send(_again(request, DeliveryOperation.UPDATE, sent))
    if action == "task":
        client.send(_again(request, DeliveryOperation.WITHDRAW, sent))  # nothing is left to be taken back
    assert hubspot._live(plural) == []


def test_a_task_for_a_deleted_contact_stays_with_a_person(hubspot: HubspotFake) -> None:
    client = _client(hubspot)
    request = _task(client)
    hubspot.contacts[0]["archived"] = True
    assert client.reconcile(request) is None
    with pytest.raises(Refused, match="does not exist"):
        client.send(request)


@pytest.mark.parametrize(
    ("retry_after", "policy", "waits"),
    [
        (None, "SECONDLY", 1),
        (None, "TEN_SECONDLY_ROLLING", 10),
        (None, "DAILY", 3_600),
        ("17", "DAILY", 17),
    ],
)
def test_limits_say_how_long_to_wait(hubspot: HubspotFake, retry_after: str | None, policy: str, waits: float) -> None:
    hubspot._limited = lambda: hubspot.throttled(retry_after, policy)  # type: ignore[method-assign]
    with pytest.raises(Throttled) as told:
        _client(hubspot).send(_request("person"))
    assert told.value.retry_after == waits


def test_a_day_s_calls_that_are_used_up_are_told_as_such() -> None:
    with HubspotFake(per_day=0) as hubspot, pytest.raises(Throttled, match="today's calls are used up"):
        _client(hubspot).send(_request("person"))


@pytest.mark.parametrize(
    ("category", "error"),
    [
        ("CONFLICT", Unreached),
        ("INTERNAL_ERROR", Unreached),
        ("SOMETHING_NEW", Unreached),
        ("RATE_LIMITS", Throttled),
        ("VALIDATION_ERROR", Refused),
        ("OBJECT_NOT_FOUND", Refused),
        ("EXPIRED_AUTHENTICATION", Unusable),
        ("MISSING_SCOPES", Unusable),
    ],
)
def test_a_batch_that_was_refused_in_part_is_not_taken_for_done(
    hubspot: HubspotFake, category: str, error: type[Exception]
) -> None:
    hubspot.category = category
    hubspot.fail_next("POST /crm/v3/objects/contacts/batch/upsert", kind="partial")
    client = _client(hubspot)
    request = _request("person", email=None, phone=None, phone_e164=None)
    with pytest.raises(error) as told:
        client.send(request)
    if not isinstance(told.value, Unusable):
        assert told.value.exchange.http_status == 207  # type: ignore[attr-defined]
    assert hubspot.contacts == []
    assert client.send(request).remote_id == hubspot.contacts[0]["id"]


def test_a_contact_that_is_there_keeps_what_is_not_sent_and_one_that_is_made_beside_us_is_used(
    hubspot: HubspotFake,
) -> None:
    client = _client(hubspot)
    known = client.send(_request("person", email="a+b/c@example.com")).remote_id
    hubspot.contacts[0]["properties"]["website"] = "https://ana.example"
    assert client.send(_request("person", email="a+b/c@example.com", city="Huế")).remote_id == known
    properties = hubspot.contacts[0]["properties"]
    assert (properties["website"], properties["city"], properties["email"]) == (
        "https://ana.example", "Huế", "a+b/c@example.com",
    )  # fmt: skip
    hubspot.made_beside = 1
    beside = client.send(_request("person", email="bob@example.com"))
    assert [contact["id"] for contact in hubspot.contacts] == [known, beside.remote_id]
    assert hubspot.contacts[1]["properties"]["firstname"] == "Ana"
    bare = _request("person", email="bob@example.com", phone=None, phone_e164=None)
    assert client.send(replace(bare, fields={})).remote_id == beside.remote_id  # nothing is to be changed


def test_a_known_contact_is_changed_whoever_has_the_lead_s_e_mail(hubspot: HubspotFake) -> None:
    client = _client(hubspot)
    request = _request("person")
    known = client.send(request).remote_id
    hubspot.contacts[0]["properties"]["email"] = "ana.nguyen@example.com"  # a colleague put it right
    other = client.send(_request("person")).remote_id
    assert other != known
    later = replace(request, fields={**request.fields, "city": "Huế"})
    assert client.send(_again(later, DeliveryOperation.UPDATE, known)).remote_id == known
    properties = hubspot.contacts[0]["properties"]
    assert (properties["city"], properties["email"]) == ("Huế", "ana.nguyen@example.com")


def test_a_value_that_another_contact_has_is_refused_for_this_lead_alone() -> None:
    with HubspotFake(unique=(UNIQUE, "customer_number")) as hubspot:
        client = _client(hubspot)
        for email in ("ana@example.com", "bob@example.com"):
            client.send(_request("person", email=email))
        hubspot.contacts[0]["properties"]["customer_number"] = "website_form"
        with pytest.raises(Refused, match="another contact has a value that only one may have") as refused:
            client.send(_request("person", email="bob@example.com", mapping={"customer_number": "source"}))
        assert not refused.value.destination_wide


def test_data_at_fault_is_refused_for_this_lead_alone_in_hubspot_s_words(hubspot: HubspotFake) -> None:
    with pytest.raises(Refused, match='Property "plan" does not exist') as refused:
        _client(hubspot).send(_request("person", mapping={"plan": "source"}))
    assert not refused.value.destination_wide


@pytest.mark.parametrize(
    ("kind", "token", "words"),
    [
        (None, "pat-wrong-token", "HubSpot does not know this token"),
        ("expired", TOKEN, "the token has expired"),
        ("403", TOKEN, "the token lacks a permission"),
    ],
)
def test_with_a_bad_credential_the_destination_cannot_be_used_and_it_is_never_shown(
    hubspot: HubspotFake, kind: str | None, token: str, words: str
) -> None:
    if kind:
        hubspot.fail_next(kind=kind)
    with pytest.raises(Unusable, match=words) as refused:
        _client(hubspot, token=token).send(_request("person"))
    assert "Enter the access token" in refused.value.remedy
    assert token not in refused.value.message


@pytest.mark.parametrize("status", ["423", "409"])
def test_a_record_that_is_busy_is_tried_again(hubspot: HubspotFake, status: str) -> None:
    client = _client(hubspot)
    hubspot.fail_next(kind=status)
    with pytest.raises(Unreached):
        client.send(_request("person"))


def test_the_probe_writes_nothing_and_looks_at_the_property(hubspot: HubspotFake) -> None:
    assert f"told apart by {UNIQUE}" in _client(hubspot).probe()
    assert "only if HubSpot knows their number" in _client(hubspot, id_property=None).probe()
    with pytest.raises(Permanent, match="has no contact property nothing"):
        _client(hubspot, id_property="nothing").probe()
    with pytest.raises(Permanent, match="does not require unique values"):
        _client(hubspot, id_property="city").probe()
    assert {request.method for request in hubspot.requests} == {"GET"}

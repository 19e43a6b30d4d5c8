"""Twenty's client against the stand-in: one person, one task, one link, whatever happens on the way."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.clients.support import a_lead, a_request
from tests.fakes.twenty import TOKEN, TwentyFake
from webapp.clients.crm import canonical_email, task_markdown
from webapp.clients.http import HttpClient
from webapp.clients.twenty.client import TwentyClient
from webapp.clients.twenty.people import person_body
from webapp.clients.twenty.records import remote_id
from webapp.clients.twenty.values import phone_parts
from webapp.leads.errors import Permanent
from webapp.leads.ports import OutcomeUnknown, Refused, Throttled, Unreached, Unusable
from webapp.leads.states import DeliveryOperation, Intent, Priority


@pytest.fixture
def twenty() -> Iterator[TwentyFake]:
    with TwentyFake() as fake:
        yield fake


def _client(twenty: TwentyFake, *, token: str = TOKEN, timeout: float = 5, **over: Any) -> TwentyClient:
    http = HttpClient(twenty.url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout, secrets=(token,))
    return TwentyClient(http, **over)


def test_a_person_is_upserted_with_the_fields_we_own(twenty: TwentyFake) -> None:
    client = _client(twenty)
    first = client.send(a_request("person", email="ANA@Example.COM"))
    second = client.send(a_request("person", email="ana@example.com", name=None))
    assert first.remote_id == second.remote_id
    (person,) = twenty.people
    assert person["name"] == {"firstName": "Ana", "lastName": "Nguyễn"}  # not blanked by the nameless second one
    assert person["emails"]["primaryEmail"] == "ana@example.com"
    assert person["phones"] == {
        "primaryPhoneNumber": "4155552671", "primaryPhoneCallingCode": "+1", "primaryPhoneCountryCode": "US",
    }  # fmt: skip
    (call,) = twenty.calls("POST")[:1]
    assert call.query == {"upsert": "true", "depth": "0"}
    assert set(call.json) == {"name", "emails", "phones"}


def test_a_collision_of_two_upserts_is_tried_once_more(twenty: TwentyFake) -> None:
    duplicate = twenty.error(400)
    duplicate.json["messages"] = ["A duplicate entry was detected"]
    answers = iter([duplicate])
    real = twenty.handle
    twenty.handle = lambda request: next(answers, None) or real(request)  # type: ignore[method-assign]
    assert _client(twenty).send(a_request("person")).remote_id == twenty.people[0]["id"]
    assert len(twenty.calls("POST /people")) == 2


def test_without_an_email_the_phone_finds_the_person(twenty: TwentyFake) -> None:
    client = _client(twenty)
    known = client.send(a_request("person")).remote_id
    assert client.send(a_request("person", email=None, name="Ana")).remote_id == known
    assert len(twenty.people) == 1


def test_without_an_email_an_unknown_phone_gets_the_same_id_each_time(twenty: TwentyFake) -> None:
    client = _client(twenty)
    first = client.send(a_request("person", email=None)).remote_id
    assert client.send(a_request("person", email=None)).remote_id == first
    other = client.send(a_request("person", email=None, phone=None, phone_e164=None)).remote_id
    assert other != first
    assert len(twenty.people) == 2


def test_a_task_says_what_to_do_and_for_whom(twenty: TwentyFake) -> None:
    for i in range(210):  # more than a page
        twenty.add_member(f"other{i}@example.com")
    member = twenty.add_member("Rep@Example.com")
    client = _client(twenty)
    person = client.send(a_request("person"))
    request = a_request("task", remote={"person": str(person.remote_id)})
    receipt = client.send(request)
    (task,) = twenty.tasks
    assert task["id"] == receipt.remote_id == str(remote_id(request))
    assert task["title"] == "📞 Sales Follow-up — Ana Nguyễn"
    assert task["status"] == "TODO"
    assert task["assigneeId"] == member
    assert task["dueAt"] == "2026-01-02T11:05:00.000Z"  # P1: 8 hours after the decision
    assert "Cho tôi báo giá gói Enterprise" in task["bodyV2"]["markdown"]
    client.send(a_request("task"))
    assert len(twenty.calls("GET /workspaceMembers")) == 2  # two pages, read once


def test_members_that_may_not_be_read_leave_the_task_unassigned() -> None:
    with TwentyFake(members_readable=False) as twenty:
        _client(twenty).send(a_request("task"))
        assert twenty.tasks[0]["assigneeId"] is None


@pytest.mark.parametrize("old", [False, True])
def test_the_link_uses_the_field_that_the_server_knows(old: bool) -> None:
    with TwentyFake(old_task_targets=old) as twenty:
        field = "personId" if old else "targetPersonId"
        client = _client(twenty, task_target_field=field)
        person, task = client.send(a_request("person")), client.send(a_request("task"))
        remote = {"person": str(person.remote_id), "task": str(task.remote_id)}
        client.send(a_request("task_target", remote=remote))
        (target,) = twenty.task_targets
        assert (target["taskId"], target[field]) == (task.remote_id, person.remote_id)


def test_sending_a_task_again_keeps_what_a_colleague_did_with_it(twenty: TwentyFake) -> None:
    client, request = _client(twenty), a_request("task")
    client.send(request)
    twenty.store["tasks"][str(remote_id(request))]["status"] = "DONE"
    assert client.send(request).remote_id == str(remote_id(request))
    assert [task["status"] for task in twenty.tasks] == ["DONE"]


@pytest.mark.parametrize(("action", "plural"), [("task", "tasks"), ("note", "notes")])
@pytest.mark.parametrize("operation", [DeliveryOperation.UPDATE, DeliveryOperation.RESTORE])
def test_what_somebody_deleted_there_is_not_told_as_changed(
    twenty: TwentyFake, action: str, plural: str, operation: DeliveryOperation
) -> None:
    client, request = _client(twenty), a_request(action)
    sent = client.send(request)
    twenty.store[plural].clear()
    again = replace(request, operation=operation, remote={action: str(sent.remote_id)}, revision=1)
    with pytest.raises(Permanent, match=f"the {action} is not in Twenty any more"):
        client.send(again)
    client.send(replace(again, operation=DeliveryOperation.WITHDRAW))  # nothing is left to be taken back
    assert twenty.store[plural] == {}


def test_a_task_that_never_arrived_is_made_when_it_is_wanted_again(twenty: TwentyFake) -> None:
    client, request = _client(twenty), a_request("task")
    assert client.send(replace(request, operation=DeliveryOperation.WITHDRAW, revision=1)).remote_id is None
    again = replace(request, operation=DeliveryOperation.RESTORE, revision=2)
    assert client.send(again).remote_id == str(remote_id(request))
    assert [task["status"] for task in twenty.tasks] == ["TODO"]
    assert client.send(again).remote_id == str(remote_id(request))
    assert len(twenty.tasks) == 1


def test_reconcile_tells_what_is_there(twenty: TwentyFake) -> None:
    client, request = _client(twenty), a_request("task")
    assert client.reconcile(request) is None
    client.send(request)
    receipt = client.reconcile(request)
    assert receipt is not None
    assert receipt.remote_id == str(remote_id(request))
    assert client.reconcile(a_request("person")) is None


@pytest.mark.parametrize("kind", ["500", "500_after", "503", "reset_before", "reset_after"])
def test_an_answer_that_says_nothing_leaves_the_outcome_unknown(twenty: TwentyFake, kind: str) -> None:
    client, request = _client(twenty), a_request("task")
    twenty.fail_next("POST /tasks", kind=kind)
    with pytest.raises(OutcomeUnknown):
        client.send(request)
    if client.reconcile(request) is None:
        client.send(request)
    assert len(twenty.tasks) == 1


@pytest.mark.parametrize("kind", ["hang", "hang_after"])
def test_a_hang_ends_with_the_time_limit(twenty: TwentyFake, kind: str) -> None:
    client, request = _client(twenty, timeout=0.3), a_request("task", assignee_email=None)
    twenty.fail_next("POST /tasks", kind=kind)
    with pytest.raises(OutcomeUnknown, match="timed out"):
        client.send(request)
    assert (client.reconcile(request) is not None) == (kind == "hang_after")


def test_no_connection_is_no_effect() -> None:
    with TwentyFake() as twenty:
        pass
    with pytest.raises(Unreached):
        _client(twenty).send(a_request("person"))


def test_429_tells_how_long_to_wait(twenty: TwentyFake) -> None:
    twenty.fail_next(kind="429", retry_after="17")
    twenty.fail_next(kind="429", retry_after=None)
    client = _client(twenty)
    with pytest.raises(Throttled) as told:
        client.send(a_request("person"))
    assert told.value.retry_after == 17
    with pytest.raises(Throttled) as untold:
        client.send(a_request("person"))
    assert untold.value.retry_after == 60


def test_with_a_bad_token_the_destination_is_unusable_and_it_is_never_shown(twenty: TwentyFake) -> None:
    client = _client(twenty, token="wrong-secret-token")
    for call, action in ((client.send, "person"), (client.send, "note"), (client.reconcile, "task")):
        with pytest.raises(Unusable, match="Twenty does not know the API key, or it has expired") as refused:
            call(a_request(action, remote={"person": "p"}))
        assert "TWENTY_REST_TOKEN" in refused.value.remedy
        assert "wrong-secret-token" not in refused.value.message


def test_a_key_that_may_not_write_notes_still_makes_people(twenty: TwentyFake) -> None:
    client = _client(twenty)
    twenty.fail_next("POST /notes", kind="403")
    with pytest.raises(Refused, match="the API key lacks a permission") as refused:
        client.send(a_request("note", remote={"person": str(client.send(a_request("person")).remote_id)}))
    assert not refused.value.destination_wide
    twenty.fail_next("POST /people", kind="403")
    with pytest.raises(Unusable, match="the API key lacks a permission"):
        client.send(a_request("person"))


def test_another_400_is_refused_for_this_lead_alone(twenty: TwentyFake) -> None:
    with pytest.raises(Refused) as refused:
        _client(twenty).send(
            a_request("task_target", remote={"task": str(remote_id(a_request("x"))), "person": "nobody"})
        )
    assert not refused.value.destination_wide
    assert refused.value.exchange.http_status == 400


def test_concurrent_sends_of_one_delivery_make_one_of_each(twenty: TwentyFake) -> None:
    twenty.latency = 0.02
    client, person, task = _client(twenty), a_request("person"), a_request("task")
    receipts: list[Any] = []

    def both() -> None:
        receipts.append(client.send(person).remote_id)
        receipts.append(client.send(task).remote_id)

    threads = [threading.Thread(target=both) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receipts) == 16
    assert len(set(receipts)) == 2
    assert (len(twenty.people), len(twenty.tasks)) == (1, 1)


def test_the_lead_s_words_are_text_in_the_task() -> None:
    lead = a_lead(message="# Hi\n[click](https://evil.example) <img src=x> `rm`", intent=Intent.COMPLAINT, lang="en")
    text = task_markdown(lead)
    assert "\\[click\\](https://evil.example)" in text
    assert "\\<img" in text
    assert "> \\# Hi" in text
    assert "1. Say sorry for the trouble first." in text
    assert "1. Xin lỗi khách" in task_markdown(replace(lead, lang="vi"))
    assert task_markdown(replace(lead, priority=Priority.P0)).count("## ") == 3


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        (" Ana.B@EXAMPLE.com. ", "ana.b@example.com"),
        ("a@bücher.example", "a@xn--bcher-kva.example"),
        ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
    ],
)
def test_emails_are_compared_as_twenty_stores_them(given: str, canonical: str) -> None:
    assert canonical_email(given) == canonical


def test_phone_parts() -> None:
    assert phone_parts("+84912345678") == {
        "primaryPhoneNumber": "912345678", "primaryPhoneCallingCode": "+84", "primaryPhoneCountryCode": "VN",
    }  # fmt: skip
    assert phone_parts("nonsense") is None
    assert "phones" not in person_body(a_lead(phone_e164=None), {})


def test_a_change_whose_answer_is_not_twenty_s_is_not_taken_for_done(twenty: TwentyFake) -> None:
    client = _client(twenty)
    sent = a_request("task", remote={})
    client.send(sent)
    changed = replace(sent, operation=DeliveryOperation.WITHDRAW, remote={"task": str(remote_id(sent))})
    twenty.fail_next("PATCH /tasks", kind="garbage")
    with pytest.raises(OutcomeUnknown):
        client.send(changed)
    client.send(changed)
    assert twenty.tasks[0]["status"] == "DONE"

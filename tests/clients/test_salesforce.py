"""Salesforce's client against the stand-in: one lead, one task, one login, whatever happens on the way."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.clients.support import a_request
from tests.fakes.salesforce import CLIENT_ID, CLIENT_SECRET, LEAD_FIELD, REFRESH_TOKEN, TASK_FIELD, SalesforceFake
from webapp.clients.guard import networks
from webapp.clients.http import HttpClient
from webapp.clients.salesforce.access import Login
from webapp.clients.salesforce.client import SalesforceClient
from webapp.leads.errors import Permanent
from webapp.leads.ports import DeliveryRequest, OutcomeUnknown, Refused, Throttled, Unreached, Unusable
from webapp.leads.states import DeliveryOperation, DestinationKind, Priority

LOGIN = "/services/oauth2/token"
LEADS, TASKS = "/services/data/v62.0/sobjects/Lead", "/services/data/v62.0/sobjects/Task"
BY_SECRET = {"grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
NOBODY: dict[str, Any] = {"email": None, "phone": None, "phone_e164": None}


@pytest.fixture
def org() -> Iterator[SalesforceFake]:
    with SalesforceFake() as fake:
        yield fake


@pytest.fixture
def bare() -> Iterator[SalesforceFake]:
    """An org without an external id on Activity."""
    with SalesforceFake(task_field=None) as fake:
        yield fake


def _client(
    fake: SalesforceFake, form: dict[str, str] = BY_SECRET, *, timeout: float = 5, login_url: str | None = None
) -> SalesforceClient:
    def http(url: str, *secrets: str) -> HttpClient:
        return HttpClient(url, timeout=timeout, secrets=(*form.values(), *secrets), allow=networks(("127.0.0.0/8",)))

    login = Login(http(fake.url), form, login_url=login_url or fake.url, org=http)
    return SalesforceClient(login, lead_field=LEAD_FIELD, task_field=fake.fields["Task"])


def _request(action: str, **over: Any) -> DeliveryRequest:
    return a_request(action, kind=DestinationKind.SALESFORCE, **over)


def _task(client: SalesforceClient, **over: Any) -> DeliveryRequest:
    """A request for somebody who is there."""
    return _request("task", remote={"person": str(client.send(_request("person")).remote_id)}, **over)


def _again(request: DeliveryRequest, operation: DeliveryOperation, remote_id: str | None) -> DeliveryRequest:
    remote = request.remote if remote_id is None else {**request.remote, request.action: remote_id}
    return replace(request, operation=operation, remote=remote, revision=request.revision + 1)


# The lead


def test_a_lead_is_upserted_by_a_key_of_its_email(org: SalesforceFake) -> None:
    client = _client(org)
    first = client.send(_request("person", email="ANA@Example.com", job_title="Buyer"))
    assert (
        client.send(_request("person", email="ana@example.com", name=None, company=None)).remote_id == first.remote_id
    )
    (lead,) = org.leads
    shown = {name: lead[name] for name in ("FirstName", "LastName", "Company", "Title", "Email", "Phone", "LeadSource")}
    assert shown == {
        "FirstName": "Ana", "LastName": "Nguyễn", "Company": "Ánh Dương", "Title": "Buyer", "Email": "ana@example.com",
        "Phone": "+14155552671", "LeadSource": "website_form",
    }  # fmt: skip


def test_without_an_email_number_author_or_lead_tell_people_apart(org: SalesforceFake) -> None:
    client = _client(org)
    for known in ({"phone_e164": "+84912345678"}, {"platform": "facebook", "author_id": "7"}):
        sent = [client.send(_request("person", **NOBODY | known)).remote_id for _ in range(2)]
        assert sent[0] == sent[1]
    client.send(_request("person", **NOBODY))
    client.send(_request("person", **NOBODY))
    assert len(org.leads) == 4


def test_what_salesforce_insists_on_is_filled_in_for_a_new_lead_alone(org: SalesforceFake) -> None:
    client = _client(org)
    client.send(_request("person", name="Ana", company=None))
    (lead,) = org.leads
    assert (lead["LastName"], lead["Company"]) == ("Ana", "[not provided]")
    assert "FirstName" not in lead
    lead |= {"LastName": "Nguyễn", "Company": "Ánh Dương"}  # a colleague found out
    client.send(_request("person", name="Ana", company=None))
    assert (lead["FirstName"], lead["LastName"], lead["Company"]) == ("Ana", "Nguyễn", "Ánh Dương")


def test_long_values_are_cut_to_what_fields_take(org: SalesforceFake) -> None:
    _client(org).send(_request("person", name="Ana " + "x" * 300, message="y" * 40_000))
    (lead,) = org.leads
    assert len(lead["LastName"]) == 80 and 10_000 < len(lead["Description"]) <= 32_000


def test_somebody_who_was_converted_gets_the_task_as_a_contact(org: SalesforceFake) -> None:
    client = _client(org)
    lead_id = str(client.send(_request("person")).remote_id)
    contact = org.convert(lead_id)
    request = _request("person")
    assert client.send(request).remote_id == contact
    client.send(_again(request, DeliveryOperation.UPDATE, contact))
    client.send(_request("task", remote={"person": contact}))
    client.send(_request("task", remote={"person": lead_id}))  # converted since the step before
    assert [task["WhoId"] for task in org.tasks] == [contact, contact]
    assert len(org.leads) == 1


def test_a_task_whose_answer_was_lost_is_found_at_the_contact_that_its_lead_became(bare: SalesforceFake) -> None:
    client = _client(bare)
    request = _task(client, assignee_email=None)
    bare.fail_next("POST " + TASKS, kind="reset_after")
    with pytest.raises(OutcomeUnknown):
        client.send(request)
    contact = bare.convert(request.remote["person"])
    (task,) = bare.tasks
    assert task["WhoId"] == contact
    found = client.reconcile(request)
    assert found is not None and found.remote_id == task["Id"]
    assert client.send(request).remote_id == task["Id"]  # converted after it was looked for
    client.send(_again(request, DeliveryOperation.WITHDRAW, None))
    assert [one["Status"] for one in bare.tasks] == ["Completed"]
    never = _request("task", remote=dict(request.remote))
    assert client.reconcile(never) is None


def test_a_task_of_a_converted_lead_keeps_what_a_colleague_did_with_it(org: SalesforceFake) -> None:
    client = _client(org)
    request = _task(client)
    client.send(request)
    org.convert(request.remote["person"])
    org.tasks[0]["Status"] = "In Progress"
    assert client.send(request).remote_id == org.tasks[0]["Id"]
    assert [task["Status"] for task in org.tasks] == ["In Progress"]


@pytest.mark.parametrize("action", ["person", "task"])
@pytest.mark.parametrize("named", ["its own", "<unknown>"])
def test_an_upsert_that_another_one_was_faster_than_is_tried_again(
    org: SalesforceFake, action: str, named: str
) -> None:
    client = _client(org)
    request = _task(client) if action == "task" else _request("person")
    field = LEAD_FIELD if action == "person" else TASK_FIELD
    org.overtaken = [field if named == "its own" else named]
    with pytest.raises(Unreached, match="duplicate value found"):
        client.send(request)
    receipt = client.send(request)
    assert [record["Id"] for record in org._live("Lead" if action == "person" else "Task")] == [receipt.remote_id]


def test_another_unique_value_that_is_taken_is_refused_for_this_lead_alone(org: SalesforceFake) -> None:
    org.overtaken = ["Customer_Number__c"]
    with pytest.raises(Refused, match="Customer_Number__c duplicates value") as refused:
        _client(org).send(_request("person"))
    assert not refused.value.destination_wide


def test_two_records_with_one_external_id_are_told_as_such(org: SalesforceFake) -> None:
    client = _client(org)
    client.send(_request("person"))
    org._new("Lead", {LEAD_FIELD: org.leads[0][LEAD_FIELD]})
    with pytest.raises(Refused, match="several records there have this external id"):
        client.send(_request("person"))


# The task


def test_a_task_says_what_to_do_and_for_whom(org: SalesforceFake) -> None:
    user = org.add_user("Rep@Example.com")
    client = _client(org)
    request = _task(client, priority=Priority.P0, url="https://ops.example/queue/1")
    receipt = client.send(request)
    (task,) = org.tasks
    assert task["Id"] == receipt.remote_id and task["WhoId"] == request.remote["person"]
    assert (task["Subject"], task["Status"], task["Priority"]) == (
        "📞 Sales Follow-up — Ana Nguyễn",
        "Not Started",
        "High",
    )
    assert (task["ActivityDate"], task["OwnerId"]) == ("2026-01-02", user)
    assert (
        "Cho tôi báo giá gói Enterprise" in task["Description"] and "https://ops.example/queue/1" in task["Description"]
    )
    assert "**" not in task["Description"] and "## " not in task["Description"]
    client.send(_task(client))
    assert len(org.calls("GET /services/data/v62.0/query")) == 1  # a user is remembered for a while


@pytest.mark.parametrize("email", ["rep@example.com", "o'rep@example.com", "\\' OR Name != '@example.com"])
def test_without_such_a_user_the_task_stays_unassigned(org: SalesforceFake, email: str) -> None:
    org.add_user("somebody@example.com")
    client = _client(org)
    client.send(_task(client, assignee_email=email))
    assert "OwnerId" not in org.tasks[0]


def test_users_that_may_not_be_read_leave_the_task_unassigned() -> None:
    with SalesforceFake(users_readable=False) as org:
        client = _client(org)
        client.send(_task(client))
        assert "OwnerId" not in org.tasks[0]
        assert "tasks stay its own" in client.probe()


@pytest.mark.parametrize("org_with", [TASK_FIELD, None])
@pytest.mark.parametrize("kind", ["reset_after", "500_after", "hang_after", "garbage_after", "reset_before", "garbage"])
def test_a_task_that_lost_its_answer_is_found(org_with: str | None, kind: str) -> None:
    with SalesforceFake(task_field=org_with) as org:
        client = _client(org, timeout=1)
        request = _task(client, assignee_email=None)
        client.send(replace(_task(client, assignee_email=None), remote=request.remote))
        org.fail_next("PATCH " + TASKS if org_with else "POST " + TASKS, kind=kind, seconds=3)
        with pytest.raises(OutcomeUnknown):
            client.send(request)
        found = client.reconcile(request)
        assert (found is not None) == kind.endswith("after")
        receipt = found or client.send(request)
        assert [task["Id"] for task in org.tasks][1:] == [receipt.remote_id]


@pytest.mark.parametrize("org_with", [TASK_FIELD, None])
def test_a_task_is_changed_closed_and_opened_again_rather_than_made_anew(org_with: str | None) -> None:
    with SalesforceFake(task_field=org_with) as org:
        client = _client(org)
        request = _task(client)
        sent = client.send(request).remote_id
        (task,) = org.tasks
        task["Status"] = "In Progress"
        low = replace(request, lead=replace(request.lead, priority=Priority.P3))
        client.send(_again(low, DeliveryOperation.UPDATE, sent))
        assert (task["Priority"], task["Status"]) == ("Low", "In Progress")
        client.send(_again(request, DeliveryOperation.WITHDRAW, None))  # its id never came back
        assert task["Status"] == "Completed" and task["Subject"].startswith("✕ Withdrawn")
        client.send(_again(request, DeliveryOperation.RESTORE, sent))
        assert task["Status"] == "Not Started" and task["Subject"].startswith("📞")
        assert len(org.tasks) == 1
        never = _request("task", remote=dict(request.remote))
        assert client.send(_again(never, DeliveryOperation.WITHDRAW, None)).remote_id is None


@pytest.mark.parametrize("action", ["person", "task"])
def test_what_somebody_deleted_there_is_not_made_again(org: SalesforceFake, action: str) -> None:
    client = _client(org)
    request = _request("person") if action == "person" else _task(client)
    sent = str(client.send(request).remote_id)
    org.delete(sent)
    with pytest.raises(Permanent, match="is not in Salesforce any more"):
        client.send(_again(request, DeliveryOperation.UPDATE, sent))
    if action == "task":
        client.send(_again(request, DeliveryOperation.WITHDRAW, sent))  # nothing is left to be taken back
    assert (org.leads if action == "person" else org.tasks) == []


def test_a_task_for_a_deleted_lead_stays_with_a_person(org: SalesforceFake) -> None:
    client = _client(org)
    request = _task(client)
    org.delete(request.remote["person"])
    with pytest.raises(Refused, match="invalid cross reference id"):
        client.send(request)


# Logging in


@pytest.mark.parametrize(
    "form", [BY_SECRET, {"grant_type": "refresh_token", "client_id": CLIENT_ID, "refresh_token": REFRESH_TOKEN}]
)
def test_all_threads_share_one_login_and_renew_it_once(org: SalesforceFake, form: dict[str, str]) -> None:
    client = _client(org, form)

    def send_eight() -> list[Any]:
        results: list[Any] = []
        threads = [
            threading.Thread(
                target=lambda n=n: results.append(client.send(_request("person", email=f"{n}@example.com")))
            )
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    assert len(send_eight()) == 8
    assert len(org.calls("POST " + LOGIN)) == 1
    org.expire()
    org.latency = 0.05  # so that all of them meet the token that has run out
    assert len(send_eight()) == 8
    assert len(org.calls("POST " + LOGIN)) == 2
    assert len(org.leads) == 8


def test_a_token_that_is_refused_again_leaves_the_destination_unusable(org: SalesforceFake) -> None:
    client = _client(org)
    org.fail_next("PATCH", kind="expired", times=2)
    with pytest.raises(Unusable, match="takes none of the tokens"):
        client.send(_request("person"))
    assert len(org.calls("POST " + LOGIN)) == 2
    assert client.send(_request("person")).remote_id == org.leads[0]["Id"]


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"client_id": "stranger"}, "does not know the consumer key"),
        ({"client_secret": "wrong-secret-value"}, "consumer key and secret do not fit"),
        ({"grant_type": "refresh_token", "refresh_token": "old-refresh-token"}, "does not log us in: expired access"),
        ({"grant_type": "password"}, "does not allow this way of logging in"),
    ],
)
def test_a_login_that_is_refused_leaves_the_destination_unusable_and_shows_no_secret(
    org: SalesforceFake, over: dict[str, str], words: str
) -> None:
    client = _client(org, BY_SECRET | over)
    for _ in range(3):
        with pytest.raises(Unusable, match=words) as refused:
            client.send(_request("person"))
        assert not any(value in str(refused.value) for value in over.values() if len(value) > 13)
    assert len(org.calls("POST " + LOGIN)) == 1  # those that come at once are told the same


@pytest.mark.parametrize("kind", ["500_after", "reset_after", "hang", "garbage", "503"])
def test_a_login_that_does_not_answer_has_no_effect(org: SalesforceFake, kind: str) -> None:
    org.fail_next("POST " + LOGIN, kind=kind)
    with pytest.raises(Unreached):
        _client(org, timeout=0.5).send(_request("person"))
    assert org.leads == []


def test_the_token_never_shows(org: SalesforceFake) -> None:
    client = _client(org)
    client.send(_request("person"))
    org.handle = lambda request: org.error(400) if request.method == "GET" else _echo(org)  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown) as unknown:
        client.send(_request("person"))
    assert org.tokens[-1] not in str(unknown.value.exchange)


def _echo(org: SalesforceFake) -> Any:
    found = org.error(500)
    found.json = {"said": org.tokens[-1]}
    return found


@pytest.mark.parametrize(
    ("instance", "login", "words"),
    [
        ("http://acme.my.salesforce.com", "https://login.salesforce.com", "is not reached over https"),
        ("ftp://acme.my.salesforce.com", None, "is not reached over https"),
        ("https://user:pass@acme.my.salesforce.com", None, "is no address"),
        ("https://acme.my.salesforce.com/elsewhere", None, "has a path"),
        ("https://acme.my.salesforce.com:99999", None, "is no address"),
        ("nothing", None, "is no address"),
        ("http://10.0.0.7", None, "blocked"),
        ("http://[::ffff:169.254.169.254]", None, "blocked"),
    ],
)
def test_the_instance_that_the_login_names_is_checked(instance: str, login: str | None, words: str) -> None:
    with SalesforceFake(instance_url=instance) as org, pytest.raises((Unusable, Refused), match=words):
        _client(org, login_url=login).send(_request("person"))


# Errors


@pytest.mark.parametrize(
    ("status", "code", "error", "words", "wide"),
    [
        (400, "UNABLE_TO_LOCK_ROW", Unreached, "UNABLE_TO_LOCK_ROW it is", None),
        (403, "REQUEST_LIMIT_EXCEEDED", Throttled, "the org's calls of a day are used up", None),
        (400, "DUPLICATES_DETECTED", Refused, "a duplicate rule of yours holds it back", False),
        (
            400,
            "FIELD_CUSTOM_VALIDATION_EXCEPTION",
            Refused,
            "Salesforce says: FIELD_CUSTOM_VALIDATION_EXCEPTION",
            False,
        ),
        (403, "API_DISABLED_FOR_ORG", Unusable, "API_DISABLED_FOR_ORG it is", None),
        (403, "INSUFFICIENT_ACCESS_OR_READONLY", Refused, "Salesforce says", False),
    ],
)
def test_errors_are_told_by_their_code(
    org: SalesforceFake, status: int, code: str, error: type[Exception], words: str, wide: bool | None
) -> None:
    client = _client(org)
    org.refuse.append((status, code))
    with pytest.raises(error, match=words) as told:
        client.send(_request("person"))
    assert getattr(told.value, "destination_wide", None) == wide
    assert client.send(_request("person")).remote_id


def test_a_day_s_calls_that_are_used_up_come_back_after_a_while() -> None:
    with SalesforceFake(calls_left=0) as org, pytest.raises(Throttled) as told:
        _client(org).send(_request("person"))
    assert told.value.retry_after == 900


def test_a_duplicate_rule_holds_back_whom_somebody_else_entered() -> None:
    with SalesforceFake(duplicate_rule=True) as org:
        org._new("Lead", {"LastName": "Nguyễn", "Email": "ana@example.com"})
        with pytest.raises(Refused, match="a duplicate rule of yours") as refused:
            _client(org).send(_request("person"))
        assert not refused.value.destination_wide


def test_data_at_fault_is_refused_for_this_lead_alone_in_salesforce_s_words(org: SalesforceFake) -> None:
    with pytest.raises(Refused, match="No such column 'Plan__c' on sobject of type Lead") as refused:
        _client(org).send(_request("person", mapping={"Plan__c": "source"}))
    assert not refused.value.destination_wide


@pytest.mark.parametrize("missing", ["lead_field", "task_field"])
def test_an_external_id_that_is_not_there_is_told_before_and_leaves_the_destination_unusable(missing: str) -> None:
    with SalesforceFake(**{missing: "Other__c"}) as org:
        client = _client(org)
        client._task_field = TASK_FIELD
        with pytest.raises(Permanent, match="has no external id LeadOps_"):
            client.probe()
        with pytest.raises(Unusable, match="external ID field does not exist"):
            client.send(_request("person") if missing == "lead_field" else _task(client))


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"not_unique": (LEAD_FIELD,)}, "LeadOps_Id__c on Lead may hold the same value twice: tick “Unique”"),
        ({"not_unique": (TASK_FIELD,)}, "LeadOps_Task__c on Activity may hold the same value twice"),
        ({"lead_field": None, "not_external": (LEAD_FIELD,)}, "LeadOps_Id__c on Lead is no external id: tick"),
    ],
)
def test_the_probe_says_what_is_wrong_with_an_external_id(over: dict[str, Any], words: str) -> None:
    with SalesforceFake(**over) as org, pytest.raises(Permanent, match=words):
        _client(org).probe()


def test_the_probe_writes_nothing(org: SalesforceFake, bare: SalesforceFake) -> None:
    assert _client(org).probe() == "Salesforce lets us in, and its fields are there."
    assert "found again by a mark" in _client(bare).probe()
    assert {request.method for request in org.requests if request.path != LOGIN} == {"GET"}

"""Google Sheets: one row for each lead, whatever colleagues and the network do in between."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.support import a_request
from tests.fakes.sheets import ACCOUNT, SPREADSHEET, SheetsFake, service_account
from webapp.clients import sheets as client_module
from webapp.clients.google_tokens import ServiceAccount
from webapp.clients.guard import networks
from webapp.clients.http import HttpClient
from webapp.clients.sheets import SCOPE, SheetsClient
from webapp.leads.kinds.sheets import KIND, key_problem, spreadsheet_id
from webapp.leads.ports import DeliveryRequest, OutcomeUnknown, Refused, Throttled, Unreached, Unusable
from webapp.leads.states import DeliveryOperation, DestinationKind

_COLUMNS = ["Lead ID", "Lead status", *(field.name for field in KIND.mapping)]


@pytest.fixture
def sheets() -> Iterator[SheetsFake]:
    with SheetsFake() as fake:
        yield fake


def _client(fake: SheetsFake, *, tab: str = "Leads", timeout: float = 2, key: Any = None, **over: Any) -> SheetsClient:
    key = key or json.loads(fake.key)
    account = ServiceAccount(key, HttpClient(key["token_uri"], timeout=timeout), scope=SCOPE, **over)
    return SheetsClient(
        HttpClient(fake.root, timeout=timeout), account, spreadsheet=SPREADSHEET, tab=tab, columns=_COLUMNS[2:]
    )


def _request(**over: Any) -> DeliveryRequest:
    return a_request("row", kind=DestinationKind.SHEETS, lead_id=uuid.uuid4(), **over)


def _again(
    request: DeliveryRequest, operation: DeliveryOperation, remote_id: str | None, **fields: str
) -> DeliveryRequest:
    remote = {} if remote_id is None else {"row": remote_id}
    filled = {**request.fields, **fields}
    return DeliveryRequest(request.delivery_id, "row", 2, request.lead, remote, filled, operation, revision=1)


def test_the_console_s_own_columns_cannot_be_mapped() -> None:
    assert KIND.reserved == {client_module.KEY.casefold(), client_module.STATUS.casefold()}


def test_an_empty_tab_gets_a_header_and_a_row_for_each_lead(sheets: SheetsFake) -> None:
    client, first, second = _client(sheets), _request(score=74), _request(name='=HYPERLINK("http://evil")')
    assert client.send(first).remote_id == "Leads!A2"
    client.send(second)
    header, one, two = sheets.tabs["Leads"]
    assert header == _COLUMNS
    assert (one[0], one[1], one[header.index("Score")]) == (str(first.lead.lead_id), "active", 74)
    assert two[header.index("Name")] == '=HYPERLINK("http://evil")'  # as text: RAW
    writes = [call for call in sheets.calls() if call.method in ("PUT", "POST") and call.path != "/token"]
    assert {call.query["valueInputOption"] for call in writes} == {"RAW"}


def test_a_lead_that_changes_is_changed_in_its_row_wherever_colleagues_have_moved_it(sheets: SheetsFake) -> None:
    client, request = _client(sheets), _request()
    client.send(_request())
    sent = client.send(request)
    rows = sheets.tabs["Leads"]
    rows.insert(1, rows.pop())  # sorted
    for number, row in enumerate(rows):  # a column of their own in between, and another one at the end
        row.insert(2, "Notes" if number == 0 else f"called {number}")
    rows[0].append("Mine")
    rows[1].append("kept")
    client.send(_again(request, DeliveryOperation.UPDATE, sent.remote_id, Priority="P0"))
    assert len(sheets.records()) == 2
    (record,) = [one for one in sheets.records() if one["Lead ID"] == str(request.lead.lead_id)]
    assert (record["Priority"], record["Notes"], record["Mine"]) == ("P0", "called 1", "kept")


def test_a_field_that_is_mapped_later_gets_a_column_at_the_end(sheets: SheetsFake) -> None:
    client, request = _client(sheets), _request()
    sent = client.send(request)
    client.send(_again(request, DeliveryOperation.UPDATE, sent.remote_id, Plan="Enterprise"))
    assert sheets.tabs["Leads"][0][-1] == "Plan" and sheets.records()[0]["Plan"] == "Enterprise"


def test_a_lead_taken_back_is_marked_and_marked_again_when_it_comes_back(sheets: SheetsFake) -> None:
    client, request = _client(sheets), _request()
    sent = client.send(request)
    client.send(_again(request, DeliveryOperation.WITHDRAW, sent.remote_id, Priority="P3"))
    assert [(row["Lead status"], row["Priority"]) for row in sheets.records()] == [("taken back", "P1")]
    client.send(_again(request, DeliveryOperation.RESTORE, sent.remote_id, Priority="P3"))
    assert [(row["Lead status"], row["Priority"]) for row in sheets.records()] == [("active", "P3")]


def test_a_row_that_a_colleague_deleted_is_not_written_again(sheets: SheetsFake) -> None:
    client, request = _client(sheets), _request()
    sent = client.send(request)
    del sheets.tabs["Leads"][1]
    for operation in (DeliveryOperation.UPDATE, DeliveryOperation.RESTORE):
        with pytest.raises(Refused, match="deleted") as refused:
            client.send(_again(request, operation, sent.remote_id))
        assert not refused.value.destination_wide
    assert client.send(_again(request, DeliveryOperation.WITHDRAW, sent.remote_id)).remote_id is None
    assert sheets.records() == []
    # One that never arrived for sure is written.
    client.send(_again(request, DeliveryOperation.UPDATE, None))
    assert len(sheets.records()) == 1


@pytest.mark.parametrize("kind", ["reset_after", "500_after", "hang_after", "garbage_after", "reset_before", "garbage"])
def test_after_an_append_whose_answer_was_lost_column_a_is_read_first(sheets: SheetsFake, kind: str) -> None:
    client, request = _client(sheets, timeout=0.5), _request()
    sheets.fail_next("POST /v4", kind=kind)
    with pytest.raises(OutcomeUnknown):
        client.send(request)
    assert client.reconciles and client.reconcile(request) is None
    assert client.send(request).remote_id == "Leads!A2"
    assert len(sheets.records()) == 1


def test_a_token_is_kept_until_it_expires_and_renewed_once_when_it_is_refused(sheets: SheetsFake) -> None:
    now = [time.monotonic()]
    client = _client(sheets, clock=lambda: now[0])
    for _ in range(2):
        client.send(_request())
    assert len(sheets.calls("POST /token")) == 1
    sheets.fail_next("GET /v4", kind="expired")
    client.send(_request())
    assert len(sheets.calls("POST /token")) == 2
    now[0] += 3_600
    client.send(_request())
    assert len(sheets.calls("POST /token")) == 3
    sheets.fail_next("POST /v4", kind="expired", times=2)
    with pytest.raises(Unusable, match="does not accept the service account's access"):
        client.send(_request())
    assert len(sheets.records()) == 4


def test_without_a_token_nothing_has_happened(sheets: SheetsFake) -> None:
    for kind in ("500", "reset_after", "garbage"):
        sheets.fail_next("POST /token", kind=kind)
        with pytest.raises(Unreached):
            _client(sheets).send(_request())
    stranger = service_account(f"{sheets.root}/token", client_email="other@leads.iam.gserviceaccount.com")
    with pytest.raises(Unusable, match="does not accept the service account's key") as unusable:
        _client(sheets, key=stranger).send(_request())
    assert unusable.value.remedy.startswith("Make a new key")
    assert sheets.calls("GET /v4") == []


def test_the_address_in_the_key_is_guarded(sheets: SheetsFake) -> None:
    key = json.loads(sheets.key)
    account = ServiceAccount(key, HttpClient(key["token_uri"], timeout=2, allow=networks(())), scope=SCOPE)
    with pytest.raises(Refused, match="not a public address"):
        account.token()
    assert sheets.calls() == []


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda fake: setattr(fake, "shared", False), f"not shared with {ACCOUNT} as an editor"),
        (lambda fake: setattr(fake, "writable", False), f"not shared with {ACCOUNT} as an editor"),
        (lambda fake: fake.tabs.pop("Leads"), "has no tab called Leads"),
        (lambda fake: fake.tabs["Leads"].append(["Name", "E-mail"]), "column A of the tab holds “Name”"),
        (lambda fake: fake.tabs["Leads"].append(["", *"abcdefghijklmnopqrstuvwxy"]), "no room for another column"),
    ],
)
def test_what_is_wrong_with_the_sheet_makes_everything_wait_and_says_what_to_do(
    sheets: SheetsFake, prepare: Any, words: str
) -> None:
    prepare(sheets)
    with pytest.raises(Unusable, match=words) as unusable:
        _client(sheets).send(_request())
    assert unusable.value.remedy.endswith(".")


def test_a_full_quota_makes_everybody_wait(sheets: SheetsFake) -> None:
    sheets.fail_next("GET", kind="429", retry_after=None)
    with pytest.raises(Throttled) as throttled:
        _client(sheets).send(_request())
    assert throttled.value.retry_after == 60


def test_a_tab_that_is_too_long_to_be_read_is_said_to_be(sheets: SheetsFake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_READ", 20_000)
    sheets.tabs["Leads"] = [["Lead ID"], *([str(uuid.uuid4())] for _ in range(2_000))]
    with pytest.raises(Unusable, match="too many rows"):
        _client(sheets).send(_request())


def test_a_test_writes_the_header_and_nothing_else(sheets: SheetsFake) -> None:
    client = _client(sheets)
    assert "it has 0 rows" in client.probe()
    assert sheets.tabs["Leads"] == [_COLUMNS]
    client.send(_request())
    before = json.dumps(sheets.tabs)
    assert "it has 1 row." in client.probe() and json.dumps(sheets.tabs) == before
    sheets.writable = False
    with pytest.raises(Unusable, match="as an editor"):
        client.probe()


def test_a_tab_s_name_may_hold_anything(sheets: SheetsFake) -> None:
    sheets.tabs["Bob's leads/2026 & more!"] = []
    _client(sheets, tab="Bob's leads/2026 & more!").send(_request())
    assert len(sheets.records("Bob's leads/2026 & more!")) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "whole JSON file"),
        ('{"type": "authorized_user"}', "key of a service account"),
        ("[]", "key of a service account"),
        ({"private_key": None}, "lacks private_key"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\nMIIE"}, "cannot be read"),
        ({"token_uri": "http://169.254.169.254/"}, "no https://"),
        ({"client_email": "nobody"}, "no address"),
    ],
)
def test_a_key_is_looked_at_when_it_is_pasted(text: Any, words: str) -> None:
    key = service_account("https://oauth2.googleapis.com/token")
    whole = text if isinstance(text, str) else json.dumps(key | text)
    assert words in str(key_problem(whole))


def test_a_good_key_names_whom_to_share_with_and_an_address_is_stored_as_the_id() -> None:
    key = json.dumps(service_account("https://oauth2.googleapis.com/token"))
    given = {
        "spreadsheet": f"https://docs.google.com/spreadsheets/d/{SPREADSHEET}/edit#gid=0",
        "tab": "Leads",
        "key": key,
    }
    config, secrets, problems = KIND.read(given)
    assert problems == ()
    assert config == {"spreadsheet": SPREADSHEET, "tab": "Leads", "account": ACCOUNT}
    assert secrets == {"key": key} and ACCOUNT in str(KIND.note(config))
    assert KIND.read({**given, "key": ""}, secrets)[0] == config  # one that is left empty stays
    assert spreadsheet_id(f"https://docs.google.com/spreadsheets/u/1/d/{SPREADSHEET}/edit") == SPREADSHEET
    assert [one.field for one in KIND.read({**given, "spreadsheet": "Leads 2026"})[2]] == ["spreadsheet"]

"""The stand-in of Google Sheets answers as Google does."""

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests
from google.auth import crypt, jwt

from tests.fakes.sheets import ACCOUNT, SCOPE, SPREADSHEET, SheetsFake


@pytest.fixture
def sheets() -> Iterator[SheetsFake]:
    with SheetsFake() as fake:
        yield fake


def _token(fake: SheetsFake, **over: Any) -> requests.Response:
    key, now = json.loads(fake.key), int(time.time())
    claims = {"iss": ACCOUNT, "scope": SCOPE, "aud": key["token_uri"], "iat": now, "exp": now + 3_600} | over
    signer = crypt.RSASigner.from_service_account_info(key)
    body = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": jwt.encode(signer, claims)}
    return requests.post(key["token_uri"], data=body)


def _call(fake: SheetsFake, method: str, path: str, token: str | None = None, **more: Any) -> requests.Response:
    token = token or _token(fake).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    return requests.request(method, f"{fake.root}/v4/spreadsheets/{SPREADSHEET}{path}", headers=headers, **more)


def _append(fake: SheetsFake, *row: Any) -> dict[str, Any]:
    path = f"/values/{quote('Leads!A1', safe='')}:append?valueInputOption=RAW&insertDataOption=INSERT_ROWS"
    return dict(_call(fake, "POST", path, json={"values": [list(row)]}).json())


def test_a_signed_assertion_is_exchanged_for_a_token(sheets: SheetsFake) -> None:
    given = _token(sheets).json()
    assert given["token_type"] == "Bearer" and given["expires_in"] == 3_599
    assert _token(sheets, iss="somebody@else").json()["error"] == "invalid_grant"
    assert _token(sheets, aud="https://elsewhere").status_code == 400
    assert _call(sheets, "GET", "/values:batchGet", token="wrong").json()["error"]["status"] == "UNAUTHENTICATED"


def test_rows_are_appended_read_and_written_over_where_there_is_something_to_write(sheets: SheetsFake) -> None:
    empty = _call(sheets, "GET", "/values:batchGet?ranges=Leads!1:1&ranges=Leads!A:A").json()
    assert [("values" in found) for found in empty["valueRanges"]] == [False, False]
    _append(sheets, "Lead ID", "Name")
    assert _append(sheets, "k1", "=1+1")["updates"]["updatedRange"] == "Leads!A2:B2"
    path = "/values/%27Leads%27%21A2?valueInputOption=RAW"
    assert _call(sheets, "PUT", path, json={"values": [[None, "Ada", 7]]}).json()["updatedRange"] == "Leads!A2:C2"
    read = _call(sheets, "GET", "/values:batchGet?ranges=Leads!1:1&ranges=Leads!A:A").json()
    assert [found["values"] for found in read["valueRanges"]] == [[["Lead ID", "Name"]], [["Lead ID"], ["k1"]]]
    assert sheets.tabs["Leads"][1] == ["k1", "Ada", 7]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/values:batchGet?ranges=Other!A:A", 400, "Unable to parse range"),
        ("PUT", "/values/Leads!A1", 400, "valueInputOption"),
        ("PUT", "/values/Leads!Z1?valueInputOption=RAW", 400, "exceeds grid limits"),
    ],
)
def test_it_refuses_in_google_s_words(sheets: SheetsFake, method: str, path: str, status: int, words: str) -> None:
    answer = _call(sheets, method, path, json={"values": [["a", "b"]]})
    assert answer.status_code == status and words in answer.json()["error"]["message"]


def test_who_may_not_is_refused(sheets: SheetsFake) -> None:
    sheets.shared = False
    answer = _call(sheets, "GET", "/values:batchGet?ranges=Leads!A:A")
    assert (answer.status_code, answer.json()["error"]["status"]) == (403, "PERMISSION_DENIED")

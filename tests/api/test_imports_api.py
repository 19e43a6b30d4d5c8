"""Files of leads by API: upload, progress, errors, cancel, undo."""

import csv
import io
import json
import resource
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from tests import factories
from tests.leads.importing import work
from webapp.config import Settings
from webapp.leads import imports
from webapp.leads.claims import Holder
from webapp.leads.states import Scope
from webapp.models import Import, Lead, Workspace

URL = "/api/v1/imports"
CSV = b"Name,E-mail,Message\nAda,ada@example.com,Please quote 5 seats\nBob,bob@,Hello\n=cmd(),,\n"
Factory = sessionmaker[Session]


@pytest.fixture
def folder(settings: Settings) -> Path:
    return settings.imports_folder


def post(client: FlaskClient, headers: dict[str, str], data: bytes = CSV, query: str = "", **more: Any) -> Any:
    more = {"content_type": "text/csv"} | more
    return client.post(f"{URL}?filename=people.csv{query}", data=data, headers=headers, **more)


def test_a_file_is_taken_in_by_a_worker(
    client: FlaskClient, headers: dict[str, str], session: Session, session_factory: Factory, folder: Path
) -> None:
    answer = post(client, headers, query="&source=fair")
    assert answer.status_code == 202, answer.text
    made = answer.json
    assert answer.headers["Location"] == f"{URL}/{made['id']}"
    assert (made["state"], made["filename"], made["size_bytes"]) == ("queued", "people.csv", len(CSV))
    assert made["mapping"] == {"Name": "name", "E-mail": "email", "Message": "message"}
    assert session.scalar(sa.select(sa.func.count()).select_from(Lead)) == 0
    work(session_factory, folder)
    shown = client.get(answer.headers["Location"], headers=headers).json
    assert (shown["state"], shown["progress"], shown["rows_done"], shown["rows_total"]) == ("done", 1.0, 3, 3)
    assert (shown["created"], shown["touched"], shown["failed"]) == (1, 0, 2)
    assert shown["undo_until"] and shown["finished_at"]
    listed = client.get(URL, headers=headers).json
    assert listed == {"imports": [shown], "next_cursor": None}
    session.rollback()
    lead = session.scalars(sa.select(Lead)).one()
    assert (lead.source, str(lead.import_id)) == ("fair", made["id"])

    errors = client.get(shown["errors_url"], headers=headers)
    assert errors.mimetype == "text/csv" and "attachment" in errors.headers["Content-Disposition"]
    table = list(csv.reader(io.StringIO(errors.text.removeprefix("\ufeff"))))
    assert table[0] == ["row number", "field", "reason"]
    assert [row[:2] for row in table[1:]] == [["2", "email"], ["3", "row"]]


def test_the_errors_file_runs_in_no_spreadsheet(
    client: FlaskClient, headers: dict[str, str], session_factory: Factory, folder: Path
) -> None:
    data = b'{"email": "a@example.com", "=1+1": "a\\u0000b"}\n'
    answer = post(client, headers, data, "&format=ndjson")
    work(session_factory, folder)
    text = client.get(f"{answer.headers['Location']}/errors", headers=headers).text
    assert "1,'=1+1,must not contain NUL characters" in text


@pytest.mark.parametrize("chunked", [False, True])
def test_a_form_is_taken_too(
    client: FlaskClient, headers: dict[str, str], session_factory: Factory, folder: Path, chunked: bool
) -> None:
    body = (
        b'--xyz\r\nContent-Disposition: form-data; name="mapping"\r\n\r\n{"a": "email", "b": "message"}\r\n'
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="p.csv"\r\nContent-Type: text/csv\r\n\r\n'
        b"a;b\nada@example.com;Please quote\n\r\n--xyz--\r\n"
    )
    more: dict[str, Any] = {"data": body, "content_type": "multipart/form-data; boundary=xyz"}
    if chunked:
        more = {
            "input_stream": io.BytesIO(body),
            "content_type": more["content_type"],
            "headers": headers | {"Transfer-Encoding": "chunked"},
        }
    answer = client.post(URL, **({"headers": headers} | more))
    assert answer.status_code == 202, answer.text
    assert (answer.json["filename"], answer.json["delimiter"]) == ("p.csv", ";")
    assert answer.json["mapping"] == {"a": "email", "b": "message"}
    work(session_factory, folder)
    assert client.get(answer.headers["Location"], headers=headers).json["created"] == 1


def test_what_cannot_be_an_import_is_refused_and_leaves_nothing(
    client: FlaskClient, headers: dict[str, str], session: Session, folder: Path
) -> None:
    before = set(folder.iterdir()) if folder.exists() else set()
    form = "multipart/form-data; boundary=xyz"
    for data, query, kind, status in (
        (b"", "", "text/csv", 400),
        (b" \n\t", "", "text/csv", 400),
        (b"PK\x03\x04zip", "", "application/octet-stream", 400),
        (b"colour,size\nred,5\n", "", "text/csv", 400),  # nothing that could be a lead
        (CSV, "&mapping={}", "text/csv", 400),
        (CSV, "&mapping=[", "text/csv", 400),
        (CSV, '&mapping={"Name": 5}', "text/csv", 400),
        (CSV, '&mapping={"Nobody": "email"}', "text/csv", 400),
        (CSV, "&delimiter=x", "text/csv", 400),
        (CSV, "&encoding=rot13", "text/csv", 400),
        (CSV, "&dry_run=maybe", "text/csv", 400),
        (CSV, "&source=%20", "text/csv", 400),
        (b"[{]", "&format=json", "application/json", 400),
        (b"--xyz\r\nrubbish", "", form, 400),
        (b'--xyz\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n--xyz--\r\n', "", form, 400),
        (CSV, "", "multipart/form-data", 400),
    ):
        answer = post(client, headers, data, query, content_type=kind)
        assert answer.status_code == status, (data, query, answer.text)
        assert set(answer.json) == {"error"}
    assert session.scalar(sa.select(sa.func.count()).select_from(Import)) == 0
    assert (set(folder.iterdir()) if folder.exists() else set()) == before


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("form", [False, True])
def test_a_file_over_the_limit_is_413(
    client: FlaskClient, headers: dict[str, str], session: Session, app: Any, folder: Path, monkeypatch: pytest.MonkeyPatch,
    chunked: bool, form: bool,
) -> None:  # fmt: skip
    small = app.extensions["settings"].model_copy(update={"max_import_bytes": 4_096})
    monkeypatch.setitem(app.extensions, "settings", small)
    before = set(folder.iterdir()) if folder.exists() else set()
    data, kind = CSV + b"x,y@example.com,z\n" * 20_000, "text/csv"
    if form:
        kind = "multipart/form-data; boundary=xyz"
        data = (
            b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="p.csv"\r\n\r\n'
            + data
            + b"\r\n--xyz--\r\n"
        )
    sent: dict[str, Any] = {"data": data, "headers": headers}
    if chunked:
        sent = {"input_stream": io.BytesIO(data), "headers": headers | {"Transfer-Encoding": "chunked"}}
    answer = client.post(URL, content_type=kind, **sent)
    assert (answer.status_code, answer.json["error"]["code"]) == (413, "payload_too_large")
    assert session.scalar(sa.select(sa.func.count()).select_from(Import)) == 0
    assert (set(folder.iterdir()) if folder.exists() else set()) == before


def test_the_same_key_is_answered_once(client: FlaskClient, headers: dict[str, str], session: Session) -> None:
    keyed = headers | {"Idempotency-Key": "k-1"}
    first, again = post(client, keyed), post(client, keyed)
    assert (first.status_code, again.status_code, first.data) == (202, 202, again.data)
    assert again.headers["Idempotent-Replayed"] == "true" and again.headers["Location"] == first.headers["Location"]
    for other in (post(client, keyed, CSV + b"x,y@example.com,\n"), post(client, keyed, query="&dry_run=true")):
        assert (other.status_code, other.json["error"]["code"]) == (409, "idempotency_mismatch")
    assert session.scalar(sa.select(sa.func.count()).select_from(Import)) == 1


def test_cancel_and_undo(
    client: FlaskClient, headers: dict[str, str], session: Session, session_factory: Factory, folder: Path,
    workspace: Workspace,
) -> None:  # fmt: skip
    first, second = (post(client, headers).headers["Location"] for _ in range(2))
    cancelled = client.post(f"{first}/cancel", headers=headers)
    assert (cancelled.status_code, cancelled.json["state"]) == (200, "cancelled")
    assert client.post(f"{first}/cancel", headers=headers).status_code == 409
    assert client.post(f"{first}/undo", headers=headers).status_code == 409  # nothing came in
    assert client.post(f"{second}/undo", headers=headers).status_code == 409  # not over
    work(session_factory, folder)
    weak = {"X-API-Key": factories.make_key(session, workspace, scopes={Scope.INGEST, Scope.READ})}
    assert client.post(f"{second}/undo", headers=weak).status_code == 403
    undone = client.post(f"{second}/undo", headers=headers)
    assert (undone.status_code, undone.json["state"]) == (202, "undo_queued")
    imports.process_undos(session_factory, Holder())
    shown = client.get(second, headers=headers).json
    assert (shown["state"], shown["undo_removed"], shown["undo_kept"], shown["undo_until"]) == ("undone", 1, 0, None)
    assert client.get(f"{URL}/nothing", headers=headers).status_code == 404


def test_what_is_cancelled_before_a_row_came_in_leaves_no_file(
    client: FlaskClient, headers: dict[str, str], folder: Path
) -> None:
    before = set(folder.iterdir()) if folder.exists() else set()
    place = post(client, headers).headers["Location"]
    assert len(set(folder.iterdir()) - before) == 1
    assert client.post(f"{place}/cancel", headers=headers).status_code == 200
    assert set(folder.iterdir()) == before


def test_too_many_that_are_not_over_are_429(client: FlaskClient, headers: dict[str, str], folder: Path) -> None:
    keyed = headers | {"Idempotency-Key": "k-20"}
    first = post(client, keyed)
    for _ in range(19):
        assert post(client, headers).status_code == 202
    before = set(folder.iterdir())
    batch = [{"email": f"p{n}@example.com"} for n in range(1_001)]
    for answer in (
        post(client, headers),
        post(client, headers | {"Idempotency-Key": "k-21"}),
        client.post("/api/v1/leads/batch", json=batch, headers=headers),
    ):
        assert (answer.status_code, answer.json["error"]["code"]) == (429, "rate_limited"), answer.text
        assert answer.headers["Retry-After"] == "60"
    assert set(folder.iterdir()) == before
    assert post(client, keyed).data == first.data
    assert client.post(f"{first.headers['Location']}/cancel", headers=headers).status_code == 200
    assert post(client, headers | {"Idempotency-Key": "k-21"}).status_code == 202


@pytest.mark.parametrize("form", [False, True])
def test_a_file_for_which_the_disk_has_no_room_is_503(
    client: FlaskClient, headers: dict[str, str], session: Session, folder: Path, form: bool
) -> None:
    before = set(folder.iterdir()) if folder.exists() else set()
    data, kind = CSV + b"x,y@example.com,z\n" * 200_000, "text/csv"
    if form:
        head = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="p.csv"\r\n\r\n'
        data, kind = head + data + b"\r\n--xyz--\r\n", "multipart/form-data; boundary=xyz"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, limits[1]))  # the kernel refuses what a file has beyond
    try:
        answer = post(client, headers, data, content_type=kind)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "unavailable"), answer.text
    assert "no room on the disk" in answer.json["error"]["message"] and answer.headers["Retry-After"] == "60"
    assert session.scalar(sa.select(sa.func.count()).select_from(Import)) == 0
    assert (set(folder.iterdir()) if folder.exists() else set()) == before


def test_a_dry_run_says_what_would_be(
    client: FlaskClient, headers: dict[str, str], session: Session, session_factory: Factory, folder: Path
) -> None:
    place = post(client, headers, query="&dry_run=true").headers["Location"]
    work(session_factory, folder)
    shown = client.get(place, headers=headers).json
    assert (shown["dry_run"], shown["created"], shown["failed"], shown["undo_until"]) == (True, 1, 2, None)
    assert session.scalar(sa.select(sa.func.count()).select_from(Lead)) == 0


def test_pages_by_cursor(client: FlaskClient, headers: dict[str, str]) -> None:
    made = [post(client, headers).json["id"] for _ in range(3)]
    first = client.get(f"{URL}?limit=2", headers=headers).json
    rest = client.get(f"{URL}?limit=2&cursor={first['next_cursor']}", headers=headers).json
    assert [one["id"] for one in first["imports"] + rest["imports"]] == made[::-1] and rest["next_cursor"] is None
    for wrong in ("limit=0", "limit=x", "cursor=x"):
        assert client.get(f"{URL}?{wrong}", headers=headers).status_code == 400


def test_json_is_streamed_as_well(
    client: FlaskClient, headers: dict[str, str], session_factory: Factory, folder: Path
) -> None:
    rows = [{"email": f"p{n}@example.com", "message": "Giá bao nhiêu?", "lead_id": f"x{n}"} for n in range(1_500)]
    place = client.post(URL, data=json.dumps(rows), content_type="application/json", headers=headers).headers[
        "Location"
    ]
    work(session_factory, folder)
    shown = client.get(place, headers=headers).json
    assert (shown["format"], shown["created"], shown["failed"], shown["state"]) == ("json", 1_500, 0, "done")

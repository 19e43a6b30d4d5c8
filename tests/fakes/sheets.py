"""A stand-in of Google Sheets (values: batchGet, update, append) and of the token endpoint of service accounts.

Tokens are given for assertions that the account's key has signed, and are good for an hour. A call without a good one is
answered with 401, a spreadsheet that is not shared with 403, as Google words them. Appended rows go after the table that
begins in A1.
"""

import argparse
import json
import re
import time
from functools import cache
from typing import Any
from urllib.parse import unquote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from tests.fakes.server import FakeServer, Request, Response, main

SPREADSHEET = "1AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_leads"
ACCOUNT = "console@leads.iam.gserviceaccount.com"
SCOPE = "https://www.googleapis.com/auth/spreadsheets"
_PATH = re.compile(r"/v4/spreadsheets/([^/]+)/values(?::batchGet|/(.+))")
_A1 = re.compile(r"(?:'((?:[^']|'')+)'|([^'!]+))!([A-Z]*)(\d*)(?::([A-Z]*)(\d*))?")
_COLUMNS = 26


@cache
def _pair() -> tuple[str, str]:
    """(private, public) key in PEM, one for all stand-ins of a process."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def service_account(token_uri: str, **over: Any) -> dict[str, Any]:
    """A key as Google Cloud hands it out."""
    return {
        "type": "service_account",
        "project_id": "leads",
        "private_key_id": "f00",
        "private_key": _pair()[0],
        "client_email": ACCOUNT,
        "client_id": "1",
        "token_uri": token_uri,
    } | over


class SheetsFake(FakeServer):
    """``tabs``: title → rows of cells. ``shared`` False: the account may not open the spreadsheet; ``writable`` False: it
    may only read. ``tokens``: those given, and until when they are good."""

    def __init__(self, *, tabs: dict[str, list[list[Any]]] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tabs: dict[str, list[list[Any]]] = {"Leads": []} if tabs is None else tabs
        self.shared = self.writable = True
        self.tokens: dict[str, float] = {}

    @property
    def key(self) -> str:
        return json.dumps(service_account(f"{self.root}/token"))

    def records(self, tab: str = "Leads") -> list[dict[str, Any]]:
        """The rows below the header by its names."""
        with self.lock:
            rows = self.tabs[tab]
            return [dict(zip(rows[0], row, strict=False)) for row in rows[1:] if any(cell != "" for cell in row)]

    def state(self) -> Any:
        return self.tabs

    def forget(self) -> None:
        for rows in self.tabs.values():
            rows.clear()
        self.tokens.clear()

    def error(self, status: int) -> Response:
        words = {429: "RESOURCE_EXHAUSTED", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 503: "UNAVAILABLE"}
        return _no(status, words.get(status, "INTERNAL"), "Something went wrong.")

    def expired(self) -> Response:
        return _no(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")

    def handle(self, request: Request) -> Response:
        if request.path == "/token":
            return self._token(request)
        found = _PATH.fullmatch(request.path)
        if found is None:
            return _no(404, "NOT_FOUND", "Requested entity was not found.")
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, 0) < time.time():
            return self.expired()
        if found[1] != SPREADSHEET:
            return _no(404, "NOT_FOUND", "Requested entity was not found.")
        if not self.shared or (request.method != "GET" and not self.writable):
            return _no(403, "PERMISSION_DENIED", "The caller does not have permission")
        with self.lock:
            return self._values(request, unquote(found[2] or ""))

    def _values(self, request: Request, cells: str) -> Response:
        try:
            if request.method == "GET":
                return self._batch_get([value for name, value in request.pairs if name == "ranges"])
            if request.query.get("valueInputOption") != "RAW":
                return _no(400, "INVALID_ARGUMENT", "'valueInputOption' is required but not specified")
            values = request.json["values"]
            if request.method == "POST" and cells.endswith(":append"):
                return self._append(cells.removesuffix(":append"), values, request.query)
            if request.method == "PUT":
                return self._update(cells, values)
        except _NoRange as error:
            return _no(400, "INVALID_ARGUMENT", str(error))
        return _no(404, "NOT_FOUND", "Requested entity was not found.")

    def _batch_get(self, ranges: list[str]) -> Response:
        shown = []
        for one in ranges:
            title, rows, (left, top, right, bottom) = self._at(one)
            cut = [_trimmed(row[left:right]) for row in rows[top:bottom]]
            while cut and not cut[-1]:
                cut.pop()
            shown.append({"range": f"{title}!A1", "majorDimension": "ROWS"} | ({"values": cut} if cut else {}))
        return Response(200, {"spreadsheetId": SPREADSHEET, "valueRanges": shown})

    def _update(self, cells: str, values: list[list[Any]]) -> Response:
        title, rows, (left, top, _, _) = self._at(cells)
        for number, row in enumerate(values):
            self._write(rows, top + number, left, row)
        return Response(200, {"spreadsheetId": SPREADSHEET, **_updated(title, top, len(values[0]))})

    def _append(self, cells: str, values: list[list[Any]], query: dict[str, str]) -> Response:
        title, rows, _ = self._at(cells)
        end = next((n for n, row in enumerate(rows) if not any(cell != "" for cell in row)), len(rows))
        if query.get("insertDataOption") == "INSERT_ROWS":
            rows[end:end] = [[] for _ in values]
        for number, row in enumerate(values):
            self._write(rows, end + number, 0, row)
        updates = {"spreadsheetId": SPREADSHEET, **_updated(title, end, len(values[0]))}
        return Response(200, {"spreadsheetId": SPREADSHEET, "updates": updates})

    def _write(self, rows: list[list[Any]], top: int, left: int, cells: list[Any]) -> None:
        """Null leaves a cell as it is."""
        if left + len(cells) > _COLUMNS:
            raise _NoRange(f"Range (Leads!AA1) exceeds grid limits. Max rows: 1000, max columns: {_COLUMNS}")
        rows.extend([] for _ in range(top + 1 - len(rows)))
        row = rows[top]
        row.extend("" for _ in range(left + len(cells) - len(row)))
        for number, cell in enumerate(cells):
            if cell is not None:
                row[left + number] = cell

    def _at(self, cells: str) -> tuple[str, list[list[Any]], tuple[int, int, int, int]]:
        """(tab, its rows, (left, top, right, bottom)), the latter two behind the last."""
        found = _A1.fullmatch(cells)
        title = (found[1] or found[2] or "").replace("''", "'") if found else ""
        if found is None or title not in self.tabs:
            raise _NoRange(f"Unable to parse range: {cells}")
        left, top, right, bottom = found[3], found[4], found[5], found[6]
        return (
            title,
            self.tabs[title],
            (
                _column(left) if left else 0,
                int(top) - 1 if top else 0,
                _column(right) + 1 if right else 10_000,
                int(bottom) if bottom else 10_000_000,
            ),
        )

    def _token(self, request: Request) -> Response:
        form = dict(part.split("=", 1) for part in request.body.decode().split("&"))
        try:
            claims: Any = jwt.decode(unquote(form["assertion"]), certs=_pair()[1], audience=f"{self.root}/token")  # type: ignore[no-untyped-call]
        except (ValueError, KeyError):
            return Response(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
        if claims["iss"] != ACCOUNT or claims["scope"] != SCOPE:
            return Response(400, {"error": "invalid_grant", "error_description": "Invalid grant: account not found"})
        with self.lock:
            token = f"ya29.fake-{len(self.tokens) + 1}"
            self.tokens[token] = time.time() + 3_599
        return Response(200, {"access_token": token, "expires_in": 3_599, "token_type": "Bearer"})


class _NoRange(Exception):
    """A range that the spreadsheet does not have."""


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number - 1


def _trimmed(cells: list[Any]) -> list[Any]:
    found = list(cells)
    while found and found[-1] == "":
        found.pop()
    return [str(cell) for cell in found]


def _updated(title: str, row: int, columns: int) -> dict[str, Any]:
    last = chr(64 + min(max(columns, 1), 26))
    return {
        "updatedRange": f"{title}!A{row + 1}:{last}{row + 1}",
        "updatedRows": 1,
        "updatedColumns": columns,
        "updatedCells": columns,
    }


def _no(code: int, status: str, message: str) -> Response:
    return Response(code, {"error": {"code": code, "message": message, "status": status}})


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tab", default="Leads")


def _make(arguments: argparse.Namespace) -> SheetsFake:
    return SheetsFake(port=arguments.port, latency=arguments.latency, tabs={arguments.tab: []})


if __name__ == "__main__":
    main(_make, _arguments)

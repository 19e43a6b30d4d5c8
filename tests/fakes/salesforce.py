"""A stand-in of a Salesforce org: login, leads and tasks by id and by external id, the queries that clients of ours make."""

import argparse
import itertools
import re
import secrets
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from tests.fakes.server import FakeServer, Request, Response, main

CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "3MVG9-consumer-key", "salesforce-consumer-secret", "5Aep861-refresh-token"
LEAD_FIELD, TASK_FIELD = "LeadOps_Id__c", "LeadOps_Task__c"
_PREFIXES = {"Lead": "00Q", "Task": "00T", "User": "005", "Contact": "003"}
_FIELDS = {
    "Lead": {
        "FirstName", "LastName", "Company", "Title", "City", "Website", "LeadSource", "Description", "Email", "Phone",
        "Status", "OwnerId",
    },
    "Task": {"WhoId", "Subject", "Status", "Priority", "ActivityDate", "Description", "OwnerId"},
}  # fmt: skip
_REQUIRED = {"Lead": ("LastName", "Company"), "Task": ()}
_TASKS = re.compile(
    r"SELECT Id, Description FROM Task WHERE WhoId = '(?P<who>\w+)' ORDER BY CreatedDate DESC LIMIT (?P<limit>\d+)"
)
_USERS = re.compile(
    r"SELECT Id FROM User WHERE IsActive = true(?: AND Email = '(?P<email>(?:[^'\\]|\\.)*)')? LIMIT (?P<limit>\d+)"
)
_LENGTHS = {
    "LastName": 80,
    "FirstName": 40,
    "Company": 255,
    "Subject": 255,
    "Description": 32_000,
    "City": 40,
    "Title": 128,
}

Record = dict[str, Any]


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str, *fields: str) -> None:
        super().__init__(message)
        error: dict[str, Any] = {"message": message, "errorCode": code}
        self.response = Response(status, [error | ({"fields": list(fields)} if fields else {})])


class SalesforceFake(FakeServer):
    """``lead_field``, ``task_field``: the external ids that the org has; None: none. ``instance_url``: what the login
    names instead of this server. ``refuse``: (status, code) of the next writes. ``duplicate_rule``: a new lead with an
    e-mail that is there is held back. ``calls_left``: of the org's day; None is off. ``not_unique``, ``not_external``:
    fields that lack it. ``overtaken``: as many upserts find nothing and meet another one that has made the record since,
    with what Salesforce names as its field."""

    def __init__(
        self,
        *,
        lead_field: str | None = LEAD_FIELD,
        task_field: str | None = TASK_FIELD,
        instance_url: str | None = None,
        users_readable: bool = True,
        duplicate_rule: bool = False,
        calls_left: int | None = None,
        not_unique: tuple[str, ...] = (),
        not_external: tuple[str, ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fields = {"Lead": lead_field, "Task": task_field}
        self.instance_url = instance_url
        self.users_readable = users_readable
        self.duplicate_rule = duplicate_rule
        self.calls_left = calls_left
        self.not_unique, self.not_external = not_unique, not_external
        self.overtaken: list[str] = []
        self.refuse: list[tuple[int, str]] = []
        self.tokens: list[str] = []  # the last one is good
        self.forget()

    # What tests look at

    @property
    def leads(self) -> list[Record]:
        return self._live("Lead")

    @property
    def tasks(self) -> list[Record]:
        return self._live("Task")

    def add_user(self, email: str) -> str:
        record = self._new("User", {"Email": email, "IsActive": True})
        return str(record["Id"])

    def expire(self) -> None:
        """The tokens that were given so far are good no more."""
        with self.lock:
            self.tokens.append("")

    def convert(self, lead_id: str) -> str:
        """A colleague makes a contact of a lead."""
        with self.lock:
            contact = self._new("Contact", {})
            self.store["Lead"][lead_id] |= {"IsConverted": True, "ConvertedContactId": contact["Id"]}
            for task in self.store["Task"].values():
                if task.get("WhoId") == lead_id:
                    task["WhoId"] = contact["Id"]
        return str(contact["Id"])

    def delete(self, record_id: str) -> None:
        with self.lock:
            next(records[record_id] for records in self.store.values() if record_id in records)["IsDeleted"] = True

    def state(self) -> Any:
        return {name: self._live(name) for name in ("Lead", "Task")}

    def forget(self) -> None:
        self.store: dict[str, dict[str, Record]] = {name: {} for name in _PREFIXES}
        self._numbers = itertools.count(1)

    def _live(self, name: str) -> list[Record]:
        with self.lock:
            return [record for record in self.store[name].values() if not record["IsDeleted"]]

    # HTTP

    def error(self, status: int) -> Response:
        known = {
            401: ("INVALID_SESSION_ID", "Session expired or invalid"),
            403: ("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
            404: ("NOT_FOUND", "The requested resource does not exist"),
            503: ("SERVER_UNAVAILABLE", "Server unavailable"),
        }
        return _Refusal(status, *known.get(status, ("UNKNOWN_EXCEPTION", "An unexpected error occurred."))).response

    def throttled(self, retry_after: str | None) -> Response:
        """Salesforce has no 429: the calls of a day are used up."""
        found = self.error(403)
        if retry_after is not None:
            found.headers["Retry-After"] = retry_after
        return found

    def handle(self, request: Request) -> Response:
        try:
            with self.lock:
                if request.path == "/services/oauth2/token":
                    return self._log_in(request)
                return self._answered(request)
        except _Refusal as refusal:
            return refusal.response

    def _log_in(self, request: Request) -> Response:
        form = dict(parse_qsl(request.body.decode()))
        if form.get("client_id") != CLIENT_ID:
            return _no_login("invalid_client_id", "client identifier invalid")
        match form.get("grant_type"):
            case "client_credentials":
                if form.get("client_secret") != CLIENT_SECRET:
                    return _no_login("invalid_client", "invalid client credentials")
            case "refresh_token":
                if form.get("refresh_token") != REFRESH_TOKEN:
                    return _no_login("invalid_grant", "expired access/refresh token")
            case _:
                return _no_login("unsupported_grant_type", "grant type not supported")
        self.tokens.append(f"00D-{secrets.token_hex(8)}")
        answer = {
            "access_token": self.tokens[-1],
            "instance_url": self.instance_url or self.root,
            "id": "https://login.salesforce.com/id/00D/005",
            "token_type": "Bearer",
            "issued_at": "1767322980000",
            "signature": "c2lnbmF0dXJl",
        }
        return Response(200, answer)

    def _answered(self, request: Request) -> Response:
        given = request.headers.get("authorization", "")
        if not self.tokens or not self.tokens[-1] or given != f"Bearer {self.tokens[-1]}":
            return self.error(401)
        if self.calls_left is not None:
            if self.calls_left <= 0:
                return self.error(403)
            self.calls_left -= 1
        found = re.fullmatch(r"/services/data/v(\d\d)\.0(/.*)", request.path)
        if found is None:
            return self.error(404)
        response = self._route(request, [unquote(part) for part in found[2].strip("/").split("/")])
        response.headers["Sforce-Limit-Info"] = "api-usage=25/15000"
        return response

    def _route(self, request: Request, parts: list[str]) -> Response:
        match request.method, parts:
            case "GET", ["query"]:
                return self._query(request.query.get("q", ""))
            case "POST", ["sobjects", name] if name in _FIELDS:
                record = self._create(name, request.json)
                return Response(201, {"id": record["Id"], "success": True, "errors": []})
            case "GET", ["sobjects", name, "describe"] if name in _FIELDS:
                return Response(200, {"name": name, "fields": self._described(name)})
            case "GET", ["sobjects", name, *key] if name in _FIELDS and key:
                wanted = request.query.get("fields")
                return Response(200, _only(self._get(name, key), wanted.split(",") if wanted else None))
            case "PATCH", ["sobjects", name, record_id] if name in _FIELDS:
                record = self._get(name, [record_id])
                self._write(name, record, request.json)
                return Response(204)
            case "PATCH", ["sobjects", name, field, value] if name in _FIELDS:
                return self._upsert(name, field, value, request.json)
        return self.error(404)

    def _query(self, soql: str) -> Response:
        if found := _TASKS.fullmatch(soql):
            theirs = [task for task in self.tasks if task["WhoId"] == found["who"]]
            newest = sorted(theirs, key=lambda task: task["_number"], reverse=True)
            records = [_only(task, ["Id", "Description"]) for task in newest[: int(found["limit"])]]
        elif found := _USERS.fullmatch(soql):
            if not self.users_readable:
                raise _Refusal(400, "INVALID_TYPE", "sObject type 'User' is not supported.")
            email = found["email"]
            users = [one for one in self._live("User") if email is None or one["Email"].lower() == email.lower()]
            records = [_only(user, ["Id"]) for user in users[: int(found["limit"])]]
        else:
            raise _Refusal(400, "MALFORMED_QUERY", f"unexpected token: {soql[:40]}")
        return Response(200, {"totalSize": len(records), "done": True, "records": records})

    def _described(self, name: str) -> list[Record]:
        own = [field for field in (self.fields[name], *self.not_external) if field]
        custom = [
            {"name": field, "externalId": field not in self.not_external, "unique": field not in self.not_unique}
            for field in own
        ]
        return [{"name": field, "externalId": False, "unique": False} for field in sorted(_FIELDS[name])] + custom

    # Records

    def _get(self, name: str, key: list[str]) -> Record:
        found = self._matching(name, *key) if len(key) == 2 else [self.store[name].get(key[0])]
        live = [record for record in found if record is not None and not record["IsDeleted"]]
        if len(key) == 1 and not live and found[0] is not None:
            raise _Refusal(404, "ENTITY_IS_DELETED", "entity is deleted")
        if not live:
            raise _Refusal(404, "NOT_FOUND", "The requested resource does not exist")
        return live[0]

    def _matching(self, name: str, field: str, value: str) -> list[Record]:
        if field != self.fields[name]:
            message = f"Provided external ID field does not exist or is not accessible: {field}"
            raise _Refusal(404, "NOT_FOUND", message)
        return [record for record in self._live(name) if str(record.get(field, "")).lower() == value.lower()]

    def _upsert(self, name: str, field: str, value: str, body: Any) -> Response:
        found = self._matching(name, field, value)
        if len(found) > 1:
            return Response(300, [f"/services/data/v62.0/sobjects/{name}/{record['Id']}" for record in found])
        if isinstance(body, dict) and {"Id", field} & set(body):
            raise _Refusal(400, "INVALID_FIELD", "The Id field should not be specified in the sobject data.")
        if found:
            self._write(name, found[0], body)
            return Response(200, {"id": found[0]["Id"], "success": True, "errors": [], "created": False})
        record = self._create(name, body)
        record[field] = value
        if self.overtaken:
            named = self.overtaken.pop(0)
            message = f"duplicate value found: {named} duplicates value on record with id: {record['Id']}"
            raise _Refusal(400, "DUPLICATE_VALUE", message)
        return Response(201, {"id": record["Id"], "success": True, "errors": [], "created": True})

    def _create(self, name: str, body: Any) -> Record:
        self._check(name, body)
        missing = [field for field in _REQUIRED[name] if not body.get(field)]
        if missing:
            listed = ", ".join(missing)
            raise _Refusal(400, "REQUIRED_FIELD_MISSING", f"Required fields are missing: [{listed}]", *missing)
        email = body.get("Email")
        if name == "Lead" and self.duplicate_rule and email and any(one.get("Email") == email for one in self.leads):
            raise _Refusal(400, "DUPLICATES_DETECTED", "Use one of these records?")
        return self._new(name, body)

    def _write(self, name: str, record: Record, body: Any) -> None:
        self._check(name, body)
        if record.get("IsConverted"):
            raise _Refusal(400, "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead")
        record.update(body)

    def _check(self, name: str, body: Any) -> None:
        if self.refuse:
            status, code = self.refuse.pop(0)
            raise _Refusal(status, code, f"{code} it is")
        if not isinstance(body, dict):
            raise _Refusal(400, "JSON_PARSER_ERROR", "The HTTP entity body is required")
        for field, value in body.items():
            if field not in _FIELDS[name]:
                raise _Refusal(400, "INVALID_FIELD", f"No such column '{field}' on sobject of type {name}")
            if isinstance(value, str) and len(value) > _LENGTHS.get(field, 255):
                raise _Refusal(400, "STRING_TOO_LONG", f"{field}: data value too large", field)
        who = body.get("WhoId")
        if who is None:
            return
        if self.store["Lead"].get(who, {}).get("IsConverted"):
            raise _Refusal(400, "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead", "WhoId")
        known = {record["Id"] for kind in ("Lead", "Contact") for record in self._live(kind)}
        if who not in known:
            raise _Refusal(400, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", "WhoId")

    def _new(self, name: str, body: Record) -> Record:
        with self.lock:
            number = next(self._numbers)
            record_id = f"{_PREFIXES[name]}{number:012d}AAA"
            created = datetime.now(UTC).isoformat()
            record = {"Id": record_id, "IsDeleted": False, "CreatedDate": created, "_number": number, **body}
            self.store[name][record_id] = record
            return record


def _only(record: Record, fields: list[str] | None) -> Record:
    return record if fields is None else {field: record.get(field) for field in {"Id", *fields}}


def _no_login(error: str, description: str) -> Response:
    return Response(400, {"error": error, "error_description": description})


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", action="append", default=[], help="e-mail of a user")


def _make(arguments: argparse.Namespace) -> SalesforceFake:
    fake = SalesforceFake(port=arguments.port, latency=arguments.latency)
    for email in arguments.user:
        fake.add_user(email)
    return fake


if __name__ == "__main__":
    main(_make, _arguments)

"""A stand-in of HubSpot's CRM API (v3; v4 for associations): contacts, tasks, notes, owners, search and limits.

The search knows of what was written only ``search_lag`` seconds later, as HubSpot's does.
"""

import argparse
import itertools
import json
import time
import uuid
from collections import deque
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import phonenumbers

from tests.fakes.server import FakeServer, Request, Response, main

TOKEN = "pat-eu1-hubspot-test-token"
#: Properties that every portal has, as far as they matter here.
PROPERTIES: dict[str, set[str]] = {
    "contacts": {
        "email", "firstname", "lastname", "phone", "mobilephone", "jobtitle", "company", "city", "website", "lifecyclestage",
        "hs_lead_status", "hubspot_owner_id", "createdate", "hs_searchable_calculated_phone_number",
        "hs_searchable_calculated_mobile_number",
    },
    "tasks": {
        "hs_timestamp", "hs_task_subject", "hs_task_body", "hs_task_status", "hs_task_priority", "hs_task_type",
        "hubspot_owner_id",
    },
    "notes": {"hs_timestamp", "hs_note_body", "hubspot_owner_id"},
}  # fmt: skip
_CHOICES = {
    "hs_task_status": {"NOT_STARTED", "IN_PROGRESS", "WAITING", "COMPLETED", "DEFERRED"},
    "hs_task_priority": {"NONE", "LOW", "MEDIUM", "HIGH"},
    "hs_task_type": {"TODO", "CALL", "EMAIL"},
}
_STAGES = [
    "subscriber",
    "lead",
    "marketingqualifiedlead",
    "salesqualifiedlead",
    "opportunity",
    "customer",
    "evangelist",
]
_CALCULATED = {"createdate", "hs_searchable_calculated_phone_number", "hs_searchable_calculated_mobile_number"}
#: HubSpot's type of the association with a contact.
_LINKS = {"tasks": 204, "notes": 202}
_NEEDED = {"tasks": "hs_timestamp", "notes": "hs_timestamp"}
_MAX_BATCH = 100

Record = dict[str, Any]


class _Refusal(Exception):
    def __init__(self, status: int, category: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.body = _error(category, message, **more)
        self.response = Response(status, self.body)


def _error(category: str, message: str, **more: Any) -> dict[str, Any]:
    return {"status": "error", "message": message, "correlationId": str(uuid.uuid4()), "category": category, **more}


def _bad(message: str) -> _Refusal:
    return _Refusal(400, "VALIDATION_ERROR", message)


class HubspotFake(FakeServer):
    """``unique``: contact properties of the customer's that require unique values. ``search_lag``: seconds.
    ``owners_readable`` False: the token lacks the scope. ``category``: what a batch says of an input that it
    did not do (``fail_next(kind="partial")``). ``made_beside``: as many contacts are made by somebody else in the moment
    between our look and our creation. ``per_ten_seconds``, ``per_day``: calls; None is off."""

    def __init__(
        self,
        *,
        token: str = TOKEN,
        unique: tuple[str, ...] = ("lead_ops_person",),
        search_lag: float = 5.0,
        owners_readable: bool = True,
        per_ten_seconds: int | None = None,
        per_day: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.token = token
        self.unique = unique
        self.search_lag = search_lag
        self.owners_readable = owners_readable
        self.per_ten_seconds, self.per_day = per_ten_seconds, per_day
        self.owners: list[Record] = []
        self.page_size = 500  # of associations, at most
        self.category = "CONFLICT"
        self.made_beside = 0
        self._taken: deque[float] = deque()
        self.forget()

    # What tests look at

    @property
    def contacts(self) -> list[Record]:
        return self._live("contacts")

    @property
    def tasks(self) -> list[Record]:
        return self._live("tasks")

    @property
    def notes(self) -> list[Record]:
        return self._live("notes")

    def linked(self, plural: str, contact: str) -> list[str]:
        """Ids of the tasks or notes of a contact."""
        with self.lock:
            live = {record["id"] for record in self._live(plural)}
            return [one for one, of in self.links[plural] if of == contact and one in live]

    def add_owner(self, email: str) -> str:
        owner = {"id": str(7_000 + len(self.owners)), "email": email, "firstName": "Ana", "archived": False}
        self.owners.append(owner)
        return str(owner["id"])

    def state(self) -> Any:
        return {plural: self._live(plural) for plural in PROPERTIES}

    def forget(self) -> None:
        self.store: dict[str, dict[str, Record]] = {plural: {} for plural in PROPERTIES}
        self.links: dict[str, list[tuple[str, str]]] = {plural: [] for plural in _LINKS}
        self._ids = itertools.count(51)

    def _live(self, plural: str) -> list[Record]:
        with self.lock:
            return [record for record in self.store[plural].values() if not record["archived"]]

    # HTTP

    def error(self, status: int) -> Response:
        known = {
            401: ("INVALID_AUTHENTICATION", "Authentication credentials not found."),
            403: ("MISSING_SCOPES", "This app hasn't been granted all required scopes to make this call."),
            404: ("OBJECT_NOT_FOUND", "resource not found"),
            423: ("LOCKED", "The resource is locked"),
        }
        return Response(status, _error(*known.get(status, ("INTERNAL_ERROR", "internal error"))))

    def expired(self) -> Response:
        return Response(401, _error("EXPIRED_AUTHENTICATION", "The OAuth token used to make this call expired."))

    def throttled(self, retry_after: str | None, policy: str = "TEN_SECONDLY_ROLLING") -> Response:
        message = "You have reached your daily limit." if policy == "DAILY" else "You have reached your secondly limit."
        headers = {
            "X-HubSpot-RateLimit-Max": "100",
            "X-HubSpot-RateLimit-Remaining": "0",
            "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
        } | ({} if retry_after is None else {"Retry-After": retry_after})
        body = _error("RATE_LIMITS", message, errorType="RATE_LIMIT", policyName=policy)
        return Response(429, body, headers)

    def partial(self, request: Request) -> Response:
        """All inputs of a batch but the last, which meets another write."""
        inputs = request.json["inputs"]
        with self.lock:
            results = [self._upsert("contacts", one) for one in inputs[:-1]]
        error = _error(self.category, "Another request is updating this record.", context={"ids": [inputs[-1]["id"]]})
        return _batch(results, [error])

    def handle(self, request: Request) -> Response:
        try:
            if request.headers.get("authorization") != f"Bearer {self.token}":
                return self.error(401)
            if (limited := self._limited()) is not None:
                return limited
            with self.lock:
                return self._route(request)
        except _Refusal as refusal:
            return refusal.response

    def _limited(self) -> Response | None:
        with self.lock:
            if self.per_day is not None:
                if self.per_day <= 0:
                    return self.throttled(None, "DAILY")
                self.per_day -= 1
            now = time.monotonic()
            while self._taken and self._taken[0] <= now - 10:
                self._taken.popleft()
            if self.per_ten_seconds is not None and len(self._taken) >= self.per_ten_seconds:
                return self.throttled(None)
            self._taken.append(now)
        return None

    def _route(self, request: Request) -> Response:
        match [unquote(part) for part in request.path.strip("/").split("/")]:
            case ["crm", "v3", "owners"]:
                return self._read_owners(request)
            case ["crm", "v3", "properties", plural, name]:
                return self._property(plural, name)
            case ["crm", "v4", "objects", "contacts", contact, "associations", plural] if plural in _LINKS:
                return self._associations(request, contact, plural)
            case ["crm", "v3", "objects", plural, *rest] if plural in PROPERTIES:
                return self._objects(request, plural, rest)
        return self.error(404)

    def _objects(self, request: Request, plural: str, rest: list[str]) -> Response:
        body = request.json
        match request.method, rest:
            case "GET", []:
                return Response(200, {"results": self._live(plural)[: int(request.query.get("limit") or 10)]})
            case "GET", [key]:
                return Response(200, self._get(plural, key, request.query.get("idProperty")))
            case "POST", []:
                if plural == "contacts" and self.made_beside:
                    self.made_beside -= 1
                    self._create(plural, {"properties": {"email": body["properties"]["email"]}})
                return Response(201, self._create(plural, body))
            case "POST", ["search"]:
                return self._search(plural, body)
            case "POST", ["batch", "read"]:
                return self._batch_read(plural, body)
            case "POST", ["batch", "upsert"]:
                return self._batch_upsert(plural, body)
            case "PATCH", [key]:
                record = self._get(plural, key, request.query.get("idProperty"))
                if not body.get("properties"):
                    raise _bad("No properties found to update, please provide at least one.")
                self._write(plural, record, body.get("properties"))
                return Response(200, record)
            case "DELETE", [key]:
                if key in self.store[plural]:
                    self.store[plural][key]["archived"] = True
                return Response(204)
        return self.error(405)

    def _read_owners(self, request: Request) -> Response:
        if not self.owners_readable:
            return self.error(403)
        email = request.query.get("email")
        found = [one for one in self.owners if email is None or one["email"].lower() == email.lower()]
        return Response(200, {"results": found[: int(request.query.get("limit") or 100)]})

    def _property(self, plural: str, name: str) -> Response:
        if name not in PROPERTIES[plural] | set(self.unique):
            return self.error(404)
        return Response(200, {"name": name, "type": "string", "hasUniqueValue": name in self.unique or name == "email"})

    def _associations(self, request: Request, contact: str, plural: str) -> Response:
        self._get("contacts", contact, None)
        ids = self.linked(plural, contact)
        start, limit = int(request.query.get("after") or 0), min(int(request.query.get("limit") or 500), self.page_size)
        page = ids[start : start + limit]
        types = [{"category": "HUBSPOT_DEFINED", "typeId": _LINKS[plural] - 1, "label": None}]
        found: dict[str, Any] = {"results": [{"toObjectId": int(one), "associationTypes": types} for one in page]}
        if start + limit < len(ids):
            found["paging"] = {"next": {"after": str(start + limit)}}
        return Response(200, found)

    # Records

    def _get(self, plural: str, key: str, id_property: str | None) -> Record:
        if id_property is None:
            record = self.store[plural].get(key)
            found = record if record and not record["archived"] else None
        else:
            found = self._by(plural, id_property, key)
        if found is None:
            raise _Refusal(404, "OBJECT_NOT_FOUND", "resource not found")
        return found

    def _by(self, plural: str, name: str, value: str) -> Record | None:
        if plural != "contacts" or (name != "email" and name not in self.unique):
            raise _bad(f"{name} is not a unique property of {plural}")
        wanted = value.strip().lower()
        return next((one for one in self._live(plural) if (one["properties"].get(name) or "").lower() == wanted), None)

    def _create(self, plural: str, body: Any) -> Record:
        if not isinstance(body, dict):
            raise _bad("Invalid input JSON")
        needed = _NEEDED.get(plural)
        if needed and not (body.get("properties") or {}).get(needed):
            raise _bad(f"Required properties are missing: {needed}")
        contacts = []
        for link in body.get("associations") or ():
            contact = str(link["to"]["id"])
            if [one["associationTypeId"] for one in link["types"]] != [_LINKS[plural]]:
                raise _bad("invalid association type")
            if contact not in {one["id"] for one in self.contacts}:
                raise _Refusal(404, "OBJECT_NOT_FOUND", f"contact {contact} does not exist")
            contacts.append(contact)
        now = _now()
        record = {"id": str(next(self._ids)), "properties": {}, "createdAt": now, "updatedAt": now, "archived": False}
        self._write(plural, record, body.get("properties"))
        self.store[plural][record["id"]] = record
        self.links.get(plural, []).extend((record["id"], contact) for contact in contacts)
        return record

    def _write(self, plural: str, record: Record, properties: Any) -> None:
        if not isinstance(properties, dict):
            raise _bad("Invalid input JSON")
        known = PROPERTIES[plural] | (set(self.unique) if plural == "contacts" else set())
        for name, value in properties.items():
            if name not in known:
                wrong = [
                    {"isValid": False, "message": f'Property "{name}" does not exist', "error": "PROPERTY_DOESNT_EXIST"}
                ]
                raise _bad(f"Property values were not valid: {json.dumps(wrong)}")
            if not isinstance(value, str):
                raise _bad(f"{name} must be a string")
            if name in _CHOICES and value not in _CHOICES[name]:
                raise _bad(f"{value} was not one of the allowed options for {name}")
        for name in ("email", *self.unique) if plural == "contacts" else ():
            other = self._by(plural, name, properties[name]) if properties.get(name) else None
            if other is not None and other is not record:
                raise _Refusal(409, "CONFLICT", f"Contact already exists. Existing ID: {other['id']}")
        record["properties"] |= _calculated(_forward(record["properties"], properties))
        record["updatedAt"], record["_at"] = _now(), time.monotonic()

    def _upsert(self, plural: str, one: Any) -> Record:
        name, value = one.get("idProperty"), str(one.get("id"))
        found = self._by(plural, str(name), value)
        properties = {name: value, **one["properties"]}
        if name == "email" and found and set(found["properties"]) - set(properties) - _CALCULATED:
            raise _bad("Partial upserts are not supported when using email as the id property")
        if found is None:
            return {**self._create(plural, {"properties": properties}), "new": True}
        self._write(plural, found, properties)
        return {**found, "new": False}

    def _batch_upsert(self, plural: str, body: Any) -> Response:
        results, errors = [], []
        for one in _inputs(body):
            try:
                result = self._upsert(plural, one)
            except _Refusal as refusal:
                if len(body["inputs"]) == 1 and refusal.response.status == 400:
                    raise
                errors.append(refusal.body | {"id": one.get("id")})
            else:
                trace = one.get("objectWriteTraceId")
                results.append(result | ({"objectWriteTraceId": trace} if trace else {}))
        return _batch(results, errors)

    def _batch_read(self, plural: str, body: Any) -> Response:
        wanted = [str(one["id"]) for one in _inputs(body)]
        live = {record["id"]: record for record in self._live(plural)}
        named = set(body.get("properties") or ())
        found = [_only(live[one], named) for one in wanted if one in live]
        missing = [one for one in wanted if one not in live]
        errors = [_error("OBJECT_NOT_FOUND", "Could not get some objects", context={"ids": missing})] if missing else []
        return _batch(found, errors)

    def _search(self, plural: str, body: Any) -> Response:
        groups = [group["filters"] for group in body["filterGroups"]]
        if len(groups) > 5 or any(one["operator"] != "EQ" for group in groups for one in group):
            raise _bad("this stand-in knows EQ, and at most 5 groups")
        known = time.monotonic() - self.search_lag
        found = [
            record
            for record in self._live(plural)
            if record["_at"] <= known
            and any(all(record["properties"].get(f["propertyName"]) == f["value"] for f in group) for group in groups)
        ]
        named = set(body.get("properties") or ())
        limit = int(body.get("limit") or 10)
        return Response(200, {"total": len(found), "results": [_only(record, named) for record in found[:limit]]})


def _inputs(body: Any) -> list[Any]:
    inputs = body.get("inputs") if isinstance(body, dict) else None
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= _MAX_BATCH:
        raise _bad("Invalid input JSON")
    return inputs


def _batch(results: list[Record], errors: list[dict[str, Any]]) -> Response:
    body = {"status": "COMPLETE", "results": results, "startedAt": _now(), "completedAt": _now()}
    if not errors:
        return Response(200, body)
    return Response(207, body | {"numErrors": len(errors), "errors": errors})


def _forward(before: Record, properties: Record) -> Record:
    """A lifecycle stage that lies behind is left as it is."""
    old, new = before.get("lifecyclestage"), properties.get("lifecyclestage")
    if old in _STAGES and new in _STAGES and _STAGES.index(new) < _STAGES.index(old):
        return {name: value for name, value in properties.items() if name != "lifecyclestage"}
    return dict(properties)


def _calculated(properties: Record) -> Record:
    for name, made in (("phone", "phone_number"), ("mobilephone", "mobile_number")):
        if properties.get(name):
            try:
                number = phonenumbers.national_significant_number(phonenumbers.parse(properties[name], "US"))
            except phonenumbers.NumberParseException:
                continue
            properties[f"hs_searchable_calculated_{made}"] = number
    return properties


def _only(record: Record, named: set[str]) -> Record:
    return {**record, "properties": {name: value for name, value in record["properties"].items() if name in named}}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--token", default=TOKEN)
    parser.add_argument("--owner", action="append", default=[], help="e-mail of an owner")
    parser.add_argument("--rate-limits", action="store_true", help="100 calls in ten seconds")


def _make(arguments: argparse.Namespace) -> HubspotFake:
    limits = {"per_ten_seconds": 100} if arguments.rate_limits else {}
    fake = HubspotFake(port=arguments.port, latency=arguments.latency, token=arguments.token, **limits)
    for email in arguments.owner:
        fake.add_owner(email)
    return fake


if __name__ == "__main__":
    main(_make, _arguments)

"""A stand-in of Twenty CRM's REST core API: what the contract says of envelopes, duplicates, filters and limits."""

import argparse
import base64
import json
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from tests.fakes.server import FakeServer, Request, Response, main
from tests.fakes.twenty_filter import BadFilter, parse_filter

TOKEN = "twenty-test-token"

_SYSTEM = {"id", "createdAt", "updatedAt", "deletedAt", "position", "createdBy", "searchVector"}
#: Object plural → (singular, the fields a body may have).
OBJECTS: dict[str, tuple[str, set[str]]] = {
    "people": (
        "person",
        {"name", "emails", "phones", "jobTitle", "city", "companyId", "linkedinLink", "xLink", "avatarUrl"},
    ),
    "companies": ("company", {"name", "domainName", "address", "employees", "linkedinLink", "accountOwnerId"}),
    "opportunities": (
        "opportunity",
        {"name", "stage", "amount", "closeDate", "companyId", "pointOfContactId", "ownerId"},
    ),
    "tasks": ("task", {"title", "bodyV2", "dueAt", "status", "assigneeId"}),
    "taskTargets": (
        "taskTarget",
        {
            "taskId", "targetPersonId", "targetCompanyId", "targetOpportunityId",
            "personId", "companyId", "opportunityId",
        },
    ),
    "notes": ("note", {"title", "bodyV2"}),
    "noteTargets": ("noteTarget", {"noteId", "targetPersonId", "targetCompanyId", "targetOpportunityId"}),
    "workspaceMembers": (
        "workspaceMember",
        {"name", "userEmail", "userId", "locale", "timeZone", "colorScheme", "avatarUrl"},
    ),
}  # fmt: skip
_STATUSES = {"TODO", "IN_PROGRESS", "DONE"}
_DEFAULT_LIMIT, _MAX_LIMIT = 60, 200
_DUPLICATE = "A duplicate entry was detected"

Record = dict[str, Any]


class _Refusal(Exception):
    def __init__(self, status: int, error: str, *messages: str) -> None:
        super().__init__(*messages)
        self.response = Response(status, {"statusCode": status, "error": error, "messages": list(messages)})


def _bad(message: str) -> _Refusal:
    return _Refusal(400, "BadRequestException", message)


class TwentyFake(FakeServer):
    """``old_task_targets``: a server before about 1.17, which knows ``personId`` and not ``targetPersonId``.

    ``short_limit`` (per second) and ``long_limit`` (per minute): calls per key; None is off.
    ``members_readable`` False: the key's role may not read workspace members; ``unreadable`` names other objects that it
    may not. ``page_limit``: larger pages are capped to it.
    """

    base_path = "/rest"

    def __init__(
        self,
        *,
        token: str = TOKEN,
        old_task_targets: bool = False,
        short_limit: int | None = None,
        long_limit: int | None = None,
        members_readable: bool = True,
        page_limit: int = _MAX_LIMIT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.token = token
        self.old_task_targets = old_task_targets
        self.members_readable = members_readable
        self.page_limit = page_limit
        self.unreadable: set[str] = set()
        self._buckets = [_Bucket(short_limit, 1.0), _Bucket(long_limit, 60.0)]
        self.store: dict[str, dict[str, Record]] = {}
        self.forget()

    # What tests look at

    @property
    def people(self) -> list[Record]:
        return self._live("people")

    @property
    def opportunities(self) -> list[Record]:
        return self._live("opportunities")

    @property
    def tasks(self) -> list[Record]:
        return self._live("tasks")

    @property
    def companies(self) -> list[Record]:
        return self._live("companies")

    @property
    def notes(self) -> list[Record]:
        return self._live("notes")

    @property
    def note_targets(self) -> list[Record]:
        return self._live("noteTargets")

    @property
    def task_targets(self) -> list[Record]:
        return self._live("taskTargets")

    def add_member(self, email: str, first: str = "Ana", last: str = "Rep") -> str:
        name = {"firstName": first, "lastName": last}
        record = _new_record({"userEmail": email, "name": name, "userId": str(uuid.uuid4())})
        with self.lock:
            self.store["workspaceMembers"][record["id"]] = record
        return str(record["id"])

    def add(self, plural: str, **values: Any) -> str:
        """A record as a colleague makes it; system fields (``createdAt``, ``updatedAt``) may be given."""
        with self.lock:
            record = _new_record(self._checked(plural, values))
            self.store[plural][record["id"]] = record
        return str(record["id"])

    def change(self, plural: str, record_id: str, **values: Any) -> None:
        """As a colleague changes a record; ``updatedAt`` moves on unless it is given."""
        with self.lock:
            record = self._get(plural, record_id)
            self._overwrite(plural, record, self._checked(plural, values, partial=True))
            record["updatedAt"] = values.get("updatedAt", record["updatedAt"])

    def delete(self, plural: str, record_id: str, *, for_good: bool = False) -> None:
        """As a colleague deletes a record: to be brought back from what was deleted, or ``for_good``."""
        with self.lock:
            record = self._get(plural, record_id, deleted=for_good)
            if for_good:
                del self.store[plural][record_id]
            else:
                record["deletedAt"] = record["updatedAt"] = _now()

    def bring_back(self, plural: str, record_id: str) -> None:
        with self.lock:
            record = self._get(plural, record_id, deleted=True)
            record["deletedAt"], record["updatedAt"] = None, _now()

    def state(self) -> Any:
        return {plural: list(records.values()) for plural, records in self.store.items()}

    def forget(self) -> None:
        self.store = {plural: {} for plural in OBJECTS}
        self._emails: dict[str, list[Record]] = {}
        self._indexed = 0

    def _live(self, plural: str) -> list[Record]:
        with self.lock:
            return [record for record in self.store[plural].values() if record["deletedAt"] is None]

    # HTTP

    def error(self, status: int) -> Response:
        known = {
            401: ("UNAUTHENTICATED", "Token invalid."),
            403: ("FORBIDDEN_EXCEPTION", "Missing authentication token"),
            402: ("QUOTA_EXHAUSTED", "Quota exhausted"),
            400: ("BadRequestException", "Bad request"),
            404: ("NotFoundException", "Record not found"),
        }
        error, message = known.get(status, ("INTERNAL_SERVER_ERROR", "Internal server error"))
        return Response(status, {"statusCode": status, "error": error, "messages": [message]})

    def expired(self) -> Response:
        return Response(401, {"statusCode": 401, "error": "UNAUTHENTICATED", "messages": ["Token has expired."]})

    def throttled(self, retry_after: str | None) -> Response:
        return _rate_limited(100, 60.0, retry_after)

    def handle(self, request: Request) -> Response:
        try:
            self._authenticate(request)
            for bucket in self._buckets:
                wait = bucket.take()
                if wait is not None:
                    return _rate_limited(bucket.limit or 0, bucket.seconds, str(max(1, round(wait + 0.5))))
            with self.lock:
                return self._route(request)
        except _Refusal as refusal:
            return refusal.response
        except BadFilter as error:
            return _bad(str(error)).response

    def _authenticate(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        if not given:
            raise _Refusal(403, "FORBIDDEN_EXCEPTION", "Missing authentication token")
        if given == f"Bearer {self.token}-expired":
            raise _Refusal(401, "UNAUTHENTICATED", "Token has expired.")
        if given != f"Bearer {self.token}":
            raise _Refusal(401, "UNAUTHENTICATED", "Token invalid.")

    def _route(self, request: Request) -> Response:
        parts = request.path.strip("/").split("/")
        batch = parts[0] == "batch"
        restore = parts[0] == "restore"
        parts = parts[1:] if batch or restore else parts
        plural, record_id = parts[0], parts[1] if len(parts) > 1 else None
        self._check_object(plural)
        _check_depth(request.query.get("depth"))
        singular = OBJECTS[plural][0]
        title = singular[0].upper() + singular[1:]
        match request.method:
            case "GET" if record_id:
                return Response(200, {"data": {singular: self._get(plural, record_id)}})
            case "GET":
                return self._list(plural, request.query)
            case "POST":
                upsert = request.query.get("upsert") == "true"
                if batch:
                    if not isinstance(request.json, list):
                        raise _bad("Body must be an array")
                    made = [self._create(plural, body, upsert) for body in request.json]
                    return Response(201, {"data": {f"create{plural[0].upper()}{plural[1:]}": made}})
                return Response(201, {"data": {f"create{title}": self._create(plural, request.json, upsert)}})
            case "PATCH" | "PUT" if restore and record_id:
                self.bring_back(plural, record_id)
                record = self._get(plural, record_id)
                return Response(200, {"data": {f"restore{title}": record}})
            case "PATCH" | "PUT" if record_id:
                record = self._get(plural, record_id)
                self._overwrite(plural, record, self._checked(plural, request.json, partial=True))
                return Response(200, {"data": {f"update{title}": record}})
            case "DELETE" if record_id:
                record = self._get(plural, record_id)
                self.delete(plural, str(record["id"]), for_good=request.query.get("soft_delete") != "true")
                return Response(200, {"data": {f"delete{title}": {"id": record_id}}})
        raise _bad("Invalid path")

    def _check_object(self, plural: str) -> None:
        if plural in OBJECTS:
            if plural in self.unreadable or (plural == "workspaceMembers" and not self.members_readable):
                raise _Refusal(403, "ForbiddenException", f"Method not allowed: role may not read {plural}")
            return
        meant = next((name for name, (singular, _) in OBJECTS.items() if plural == singular), None)
        raise _bad(f"object '{plural}' not found." + (f" Did you mean '{meant}'?" if meant else ""))

    # Records

    def _get(self, plural: str, record_id: str, *, deleted: bool = False) -> Record:
        _check_uuid(record_id)
        record = self.store[plural].get(record_id)
        if record is None or (record["deletedAt"] is not None and not deleted):
            raise _Refusal(404, "NotFoundException", "Record not found")
        return record

    def _list(self, plural: str, query: dict[str, str]) -> Response:
        limit = _limit(query.get("limit"))
        # What was deleted is only found by a filter that names the field.
        everything = "deletedAt" in query.get("filter", "")
        records: Iterable[Record] = list(self.store[plural].values()) if everything else self._live(plural)
        if query.get("filter"):
            matches = parse_filter(query["filter"])
            records = [record for record in records if matches(record)]
        order = _order(plural, query.get("order_by"))
        ordered = _sorted(records, order)
        total, start = len(ordered), 0
        if query.get("starting_after"):
            after = _place(query["starting_after"])
            start = sum(_compare_places(_values(record, order), after, order) <= 0 for record in ordered)
        page = ordered[start : start + min(limit, self.page_limit)]
        limit = min(limit, self.page_limit)
        info = {
            "hasNextPage": start + limit < total,
            "hasPreviousPage": start > 0,
            "startCursor": _cursor(_values(page[0], order)) if page else None,
            "endCursor": _cursor(_values(page[-1], order)) if page else None,
        }
        return Response(200, {"data": {plural: page}, "pageInfo": info, "totalCount": total})

    def _create(self, plural: str, body: Any, upsert: bool) -> Record:
        body = self._checked(plural, body)
        found = self._matching(plural, body)
        if found and not upsert:
            raise _bad(_DUPLICATE)
        if len(found) > 1:
            raise _bad(f"Multiple records found with the same unique field values for {OBJECTS[plural][0]}")
        if found:
            self._overwrite(plural, found[0], body)
            found[0]["deletedAt"] = None
            return found[0]
        record = _new_record(body)
        self.store[plural][record["id"]] = record
        if plural == "people":
            self._index(record)
        return record

    def _matching(self, plural: str, body: Record) -> list[Record]:
        """Every record, deleted ones included, that shares a unique key with ``body``."""
        records = self.store[plural]
        found = [records[body["id"]]] if body.get("id") in records else []
        email = (body.get("emails") or {}).get("primaryEmail") if plural == "people" else None
        if email:
            found += [record for record in self._people_by(email) if all(record is not one for one in found)]
        return found

    def _people_by(self, email: str) -> list[Record]:
        """As an index has them: reading every person for each new one would cost most of an answer's time."""
        if self._indexed != len(self.store["people"]):
            self._emails, self._indexed = {}, 0
            for record in self.store["people"].values():
                self._index(record)
        return self._emails.get(email, [])

    def _index(self, record: Record) -> None:
        self._emails.setdefault((record.get("emails") or {}).get("primaryEmail"), []).append(record)
        self._indexed += 1

    def _overwrite(self, plural: str, record: Record, body: Record) -> None:
        rivals = [other for other in self._matching(plural, body) if other is not record]
        if rivals:
            raise _bad(_DUPLICATE)
        self._indexed = -1
        for name, value in body.items():
            if name in ("id", "createdBy"):
                continue
            # Composite fields are columns of their own: a sub-field that is not sent stays.
            old = record.get(name)
            record[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        record["updatedAt"] = _now()

    def _checked(self, plural: str, given: Any, *, partial: bool = False) -> Record:
        if not isinstance(given, dict):
            raise _bad("Body must be an object")
        body: Record = dict(given)
        singular, fields = OBJECTS[plural]
        for name in body:
            if name not in fields | _SYSTEM:
                raise _bad(f'Object {singular} doesn\'t have any "{name}" field.')
        if "id" in body:
            _check_uuid(body["id"])
        if plural == "people" and isinstance(body.get("emails"), dict) and body["emails"].get("primaryEmail"):
            body["emails"] = {**body["emails"], "primaryEmail": _canonical(body["emails"]["primaryEmail"])}
        if plural == "tasks":
            self._check_task(body)
        if plural == "opportunities":
            self._check_opportunity(body)
        if plural == "taskTargets" and not partial:
            self._check_task_target(body)
        return body

    def _check_task(self, body: Record) -> None:
        if body.get("status") is not None and body["status"] not in _STATUSES:
            raise _bad(f'Invalid value "{body["status"]}" for field "status"')
        if body.get("dueAt") is not None:
            try:
                datetime.fromisoformat(body["dueAt"].replace("Z", "+00:00"))
            except (ValueError, AttributeError):
                raise _bad('Invalid value for field "dueAt"') from None
        assignee = body.get("assigneeId")
        if assignee is not None and assignee not in self.store["workspaceMembers"]:
            raise _bad("insert or update violates foreign key constraint on assigneeId")
        rich = body.get("bodyV2", {})
        if not isinstance(rich, dict) or set(rich) - {"markdown", "blocknote"}:
            raise _bad('Invalid value for field "bodyV2"')

    def _check_opportunity(self, body: Record) -> None:
        amount = body.get("amount")
        if amount is not None and (not isinstance(amount, dict) or set(amount) - {"amountMicros", "currencyCode"}):
            raise _bad('Invalid value for field "amount"')
        for field, plural in (("companyId", "companies"), ("pointOfContactId", "people")):
            if body.get(field) is not None and body[field] not in self.store[plural]:
                raise _bad(f"insert or update violates foreign key constraint on {field}")

    def _check_task_target(self, body: Record) -> None:
        names = {"personId", "companyId", "opportunityId"}
        known = names if self.old_task_targets else {"target" + name[0].upper() + name[1:] for name in names}
        for name in set(body) - {"taskId"} - _SYSTEM:
            if name not in known:
                raise _bad(f'Object taskTarget doesn\'t have any "{name}" field.')
        given = [name for name in known if body.get(name)]
        if len(given) != 1:
            raise _bad("A task target must have exactly one target")
        task, person = body.get("taskId"), body.get("personId") or body.get("targetPersonId")
        if task not in self.store["tasks"] or (person and person not in self.store["people"]):
            raise _bad("insert or update violates foreign key constraint")


class _Bucket:
    """A token bucket; ``take`` returns None, or how many seconds are missing."""

    def __init__(self, limit: int | None, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        self._taken: deque[float] = deque()
        self._lock = threading.Lock()

    def take(self) -> float | None:
        if self.limit is None:
            return None
        with self._lock:
            now = time.monotonic()
            while self._taken and self._taken[0] <= now - self.seconds:
                self._taken.popleft()
            if len(self._taken) >= self.limit:
                return self._taken[0] + self.seconds - now
            self._taken.append(now)
            return None


def _rate_limited(limit: int, seconds: float, retry_after: str | None) -> Response:
    headers = {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": "0"}
    if retry_after is not None:
        headers |= {"Retry-After": retry_after, "X-RateLimit-Reset": retry_after}
    body = {
        "statusCode": 429,
        "error": "RATE_LIMITED",
        "messages": ["Limit reached, please try again later"],
        "limitKind": "SHORT" if seconds <= 1 else "LONG",
        "scope": {"spenderType": "apiKey", "spenderId": str(uuid.UUID(int=1))},
        "limit": limit,
        "remaining": 0,
        "periodCount": int(seconds),
        "periodUnit": "SECOND",
        "retryAfterSeconds": int(retry_after) if retry_after and retry_after.isdigit() else None,
    }
    return Response(429, body, headers)


def _new_record(body: Record) -> Record:
    now = _now()
    return {
        "id": body.get("id") or str(uuid.uuid4()),
        "createdAt": now,
        "updatedAt": now,
        "deletedAt": None,
        "position": time.monotonic_ns(),
        "createdBy": {"source": "API", "workspaceMemberId": None, "name": "", "context": {}},
        **{name: value for name, value in body.items() if name != "id"},
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _canonical(email: str) -> str:
    local, _, domain = email.strip().lower().rpartition("@")
    domain = domain.rstrip(".")
    return f"{local}@{domain.encode('idna').decode()}" if local else email


def _check_uuid(value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value):
        raise _bad(f"'{value}' is not a valid UUID")


def _check_depth(value: str | None) -> None:
    if value is not None and value not in ("0", "1"):
        raise _bad(f"'depth={value}' parameter invalid. Allowed values are 0, 1")


def _limit(value: str | None) -> int:
    if value is None:
        return _DEFAULT_LIMIT
    if not value.isdigit():
        raise _bad(f"limit '{value}' is invalid. Should be an integer")
    return min(int(value), _MAX_LIMIT)


#: Fields and whether they descend; the last word has the id.
Order = list[tuple[str, bool]]
_DIRECTIONS = {"AscNullsFirst": False, "AscNullsLast": False, "DescNullsFirst": True, "DescNullsLast": True}


def _order(plural: str, text: str | None) -> Order:
    """``updatedAt[AscNullsFirst],name``; without one, as they were made."""
    found: Order = []
    for part in (text or "").split(","):
        if not part:
            continue
        match = re.fullmatch(r"(\w+)(?:\[(\w+)\])?", part)
        if not match or match[1] not in OBJECTS[plural][1] | _SYSTEM:
            raise _bad(f"'order_by' invalid for '{part}'. eg: field_1[AscNullsFirst],field_2")
        if match[2] is not None and match[2] not in _DIRECTIONS:
            raise _bad(f"'order_by' direction '{match[2]}' invalid. Allowed values are {', '.join(_DIRECTIONS)}")
        found.append((match[1], _DIRECTIONS.get(match[2] or "", False)))
    return [*(found or [("createdAt", False), ("position", False)]), ("id", False)]


def _values(record: Record, order: Order) -> list[Any]:
    return [record.get(name) for name, _ in order]


def _compare_places(here: list[Any], there: list[Any], order: Order) -> int:
    for mine, theirs, (_, descends) in zip(here, there, order, strict=True):
        if mine != theirs:
            before = mine is None or (theirs is not None and mine < theirs)
            return -1 if before != descends else 1
    return 0


def _sorted(records: Iterable[Record], order: Order) -> list[Record]:
    found = list(records)
    for name, descends in reversed(order):
        found.sort(key=lambda record: (record.get(name) is not None, record.get(name)), reverse=descends)
    return found


def _cursor(place: list[Any]) -> str:
    """Where a record stands in the order, so that the place is found again when the record has moved on."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _place(cursor: str) -> list[Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise _bad("Invalid cursor")
    return found


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--token", default=TOKEN)
    parser.add_argument("--member", action="append", default=[], help="e-mail of a workspace member")
    parser.add_argument("--rate-limits", action="store_true", help="100 calls a second, 100 a minute")


def _make(arguments: argparse.Namespace) -> TwentyFake:
    limits: dict[str, Any] = {"short_limit": 100, "long_limit": 100} if arguments.rate_limits else {}
    fake = TwentyFake(port=arguments.port, latency=arguments.latency, token=arguments.token, **limits)
    for email in arguments.member:
        fake.add_member(email)
    return fake


if __name__ == "__main__":
    main(_make, _arguments)

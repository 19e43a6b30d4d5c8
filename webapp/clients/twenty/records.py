"""Records of any kind at Twenty: made under an id of ours, changed, looked up, paged through."""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from webapp.clients.http import Answer, HttpClient
from webapp.leads.errors import Permanent
from webapp.leads.ports import DeliveryRequest, Exchange, OutcomeUnknown, Receipt, Refused, Unreached, remote_id_for

#: Twenty caps larger ones.
_PAGE = 200
_MAX_PAGES = 200
#: How many ids one filter names, so that the URL stays short.
_IDS = 60


Record = dict[str, Any]


class Records:
    """``plural`` and ``singular``: a kind's two names in the API. Errors as of :meth:`HttpClient.call`."""

    def __init__(self, http: HttpClient) -> None:
        self.call = http.call

    def create(self, plural: str, singular: str, body: dict[str, Any]) -> Receipt:
        try:
            answer = self.call("POST", f"/{plural}", params={"depth": "0"}, json_body=body, shown=body)
        except Refused as error:
            # An older server words it differently, so whatever 400 it is: is our record there?
            found = self.find(plural, singular, body["id"], body) if error.exchange.http_status == 400 else None
            if found is None:
                raise
            return found
        return Receipt(answered_id(answer, f"create{singular[0].upper()}{singular[1:]}"), answer.exchange)

    def change(self, request: DeliveryRequest, plural: str, record_id: str, body: dict[str, Any]) -> Receipt | None:
        """What was sent before becomes ``body``. None when it never arrived, so that it has to be made; Permanent when
        somebody has deleted it since. Taking back is done in either case."""
        changed = self.patch(plural, request.action, record_id, body)
        if changed is not None:
            return Receipt(record_id, changed)
        if request.withdrawn:
            return Receipt(None, Exchange(payload=body))
        if request.action in request.remote:
            raise Permanent(f"the {request.action} is not in Twenty any more")
        return None

    def patch(self, plural: str, singular: str, record_id: str, body: dict[str, Any]) -> Exchange | None:
        """Change a record; None when it is not there any more. Harmless to repeat."""
        answer = self.call(
            "PATCH",
            f"/{plural}/{record_id}",
            params={"depth": "0"},
            json_body=body,
            shown=body,
            accept=frozenset({400, 404}),
        )
        if answer.status < 300:
            answered_id(answer, f"update{singular[0].upper()}{singular[1:]}")
            return answer.exchange
        if self.look_up(plural, singular, record_id) is None:
            return None
        raise Refused(f"answered {answer.status}", exchange=answer.exchange)

    def find(self, plural: str, singular: str, record_id: str, shown: dict[str, Any] | None) -> Receipt | None:
        found = self.look_up(plural, singular, record_id, shown)
        return Receipt(record_id, found[1].exchange) if found else None

    def look_up(
        self, plural: str, singular: str, record_id: str, shown: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], Answer] | None:
        # Twenty answers 400 or 404 for an id that is not there, depending on its version.
        answer = self.call(
            "GET", f"/{plural}/{record_id}", params={"depth": "0"}, shown=shown, accept=frozenset({400, 404})
        )
        if answer.status != 200:
            return None
        record = inner(answer, singular)
        if not isinstance(record, dict) or record.get("id") != record_id:
            raise Unreached(f"answered 200 without the {singular}", exchange=answer.exchange)
        return record, answer

    def by_ids(self, plural: str, field: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """All records whose ``field`` is one of ``ids``."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(ids), _IDS):
            found += self.all(plural, filter=by_one_of(field, ids[start : start + _IDS]))
        return found

    def all(self, plural: str, **params: str) -> Iterator[Record]:
        """Permanent when there are more than can be read: to leave some out would be a wrong answer."""
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            records, cursor = self.page(plural, cursor, **params)
            yield from records
            if cursor is None:
                return
        raise Permanent(f"there are more {plural} than can be read")

    def page(self, plural: str, cursor: str | None, **params: str) -> tuple[list[dict[str, Any]], str | None]:
        """One large page, and the cursor of the next one if there is any."""
        more = {"starting_after": cursor} if cursor else {}
        answer = self.call("GET", f"/{plural}", params={"depth": "0", "limit": str(_PAGE), **params, **more})
        records = records_of(answer, plural)
        info = answer.data.get("pageInfo") if isinstance(answer.data, dict) else None
        if not isinstance(info, dict) or not info.get("hasNextPage") or not info.get("endCursor"):
            return records, None
        following = str(info["endCursor"])
        if following == cursor or not records:
            raise Unreached(f"answered a page of {plural} that leads nowhere", exchange=answer.exchange)
        return records, following


def by_one_of(field: str, ids: Sequence[str]) -> str:
    """The filter for records whose ``field`` is one of ``ids``."""
    listed = ",".join(f'"{one}"' for one in ids)
    return f"{field}[in]:[{listed}]"


def remote_id(request: DeliveryRequest) -> uuid.UUID:
    """The id that the record has in Twenty: a function of the delivery, so the same on every attempt."""
    return uuid.UUID(remote_id_for(request.delivery_id, request.action))


def uuid5_of(request: DeliveryRequest, action: str) -> str:
    return remote_id_for(request.delivery_id, action)


def is_duplicate(error: Refused) -> bool:
    excerpt = (error.exchange.excerpt or "").lower()
    return error.exchange.http_status == 400 and ("duplicate" in excerpt or "already exists" in excerpt)


def inner(answer: Answer, key: str) -> Any:
    data = answer.data.get("data") if isinstance(answer.data, dict) else None
    return data.get(key) if isinstance(data, dict) else None


def records_of(answer: Answer, plural: str) -> list[dict[str, Any]]:
    found = inner(answer, plural)
    if not isinstance(found, list):
        raise Unreached(f"answered {answer.status} without {plural}", exchange=answer.exchange)
    return [record for record in found if isinstance(record, dict)]


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


def answered_id(answer: Answer, key: str) -> str:
    """The id of the record made or changed. A 2xx without it is not Twenty's (a proxy's page, say), so nothing is known."""
    record = inner(answer, key)
    if not isinstance(record, dict) or not _is_uuid(record.get("id")):
        raise OutcomeUnknown(f"answered {answer.status} without the record", exchange=answer.exchange)
    return str(record["id"])

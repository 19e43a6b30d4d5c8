"""One call to Salesforce, and its errors in the domain's words."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from webapp.clients.http import MAX_BODY, Answer, redact
from webapp.clients.salesforce.access import Login
from webapp.leads.errors import LeadError
from webapp.leads.ports import OutcomeUnknown, Refused, Throttled, Unreached, Unusable
from webapp.leads.task_template import one_line

API = "/services/data/v62.0"
#: Statuses whose bodies say more than they do themselves.
_SAID = frozenset({300, 400, 401, 403, 404, 405, 412, 415})
#: The org's calls of the last 24 hours are used up: some come back all the time.
_LIMIT_PAUSE = 900.0
#: Somebody else writes to the record, or the server is busy: nothing was done.
_BUSY = frozenset({"UNABLE_TO_LOCK_ROW", "SERVER_UNAVAILABLE", "QUERY_TIMEOUT", "CONCURRENT_REQUEST_LIMIT_EXCEEDED"})
#: Of an upsert that another one was faster than: it names the field whose value is there by now, or none.
_DUPLICATE = re.compile(r"duplicate value found: (\S+) duplicates")
#: Would be said to every other delivery as well.
_FOR_ALL = frozenset({"INVALID_SESSION_ID", "API_DISABLED_FOR_ORG", "API_CURRENTLY_DISABLED"})
_IN_WORDS = {
    "DUPLICATES_DETECTED": "a duplicate rule of yours holds it back; somebody has to merge or allow it there",
    "REQUEST_LIMIT_EXCEEDED": "the org's calls of a day are used up",
    "INVALID_SESSION_ID": "Salesforce takes none of the tokens that it gives us",
}


class Wire:
    """Used by several threads at a time."""

    def __init__(self, login: Login) -> None:
        self._login = login

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json_body: Any = None,
        accept: frozenset[int] = frozenset(),
        max_body: int = MAX_BODY,
    ) -> Answer:
        """A 2xx, or a status of ``accept``. ``path``: below the API's version. ``max_body``: bytes of an answer. A token that has run out is renewed
        once; the call that met it has done nothing."""
        access = self._login.access()
        for again in (True, False):
            answer = access.http.call(
                method,
                API + path,
                params=params,
                json_body=json_body,
                shown=json_body,
                headers={"Authorization": f"Bearer {access.token}"},
                accept=_SAID | accept,
                max_body=max_body,
            )
            if answer.status != 401 or not again:
                break
            access = self._login.access(refused=access)
        if answer.status in accept or (answer.status == 204 and method == "PATCH"):
            return answer
        if answer.status >= 300:
            raise refusal(answer)
        if not isinstance(answer.data, dict):
            unknown = Unreached if method == "GET" else OutcomeUnknown
            raise unknown("answered something that is not Salesforce's", exchange=answer.exchange)
        return answer


def code_of(answer: Answer) -> str:
    """``errorCode`` of the first error."""
    return str(_first(answer).get("errorCode") or "")


def _first(answer: Answer) -> dict[str, Any]:
    data = answer.data
    return data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}


def refusal(answer: Answer, *, upsert_by: Collection[str] = ()) -> LeadError:
    """An error of Salesforce's in the domain's words. ``upsert_by``: fields of which a value that is there by now means
    that another upsert was faster, so that the next one changes what that one made."""
    said, code = _first(answer), code_of(answer)
    message = redact(one_line(str(said.get("message") or "")))
    words = _IN_WORDS.get(code) or (f"Salesforce says: {message}" if message else f"answered {answer.status}")
    if answer.status == 300:
        words = "several records there have this external id; make its field unique and merge them"
    if code == "REQUEST_LIMIT_EXCEEDED":
        return Throttled(words, retry_after=answer.retry_after or _LIMIT_PAUSE, exchange=answer.exchange)
    if code in _BUSY or (code == "DUPLICATE_VALUE" and _overtaken(str(said.get("message") or ""), upsert_by)):
        return Unreached(words, retry_after=answer.retry_after, exchange=answer.exchange)
    if no_such_field(answer):
        return Unusable(words, remedy="Put the names of the external ids right, or what the user may see of them.")
    if answer.status == 401 or code in _FOR_ALL:
        return Unusable(words, remedy="Put its settings right, or the connected app or its user's permissions there.")
    return Refused(words, exchange=answer.exchange)


def _overtaken(message: str, upsert_by: Collection[str]) -> bool:
    found = _DUPLICATE.search(message)
    return bool(upsert_by) and (found is None or found[1].startswith("<") or found[1] in upsert_by)


def no_such_field(answer: Answer) -> bool:
    """Of a call by an external id: the org has no such field."""
    return answer.status == 404 and "external id field" in str(_first(answer).get("message") or "").lower()

"""One call to HubSpot, and its errors in the domain's words."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from webapp.clients.http import Answer, HttpClient, redact
from webapp.leads.errors import LeadError
from webapp.leads.ports import OutcomeUnknown, Refused, Throttled, Unreached, Unusable
from webapp.leads.task_template import one_line

#: Statuses whose bodies say more than they do themselves.
_SAID = frozenset({400, 401, 403, 404, 409, 423, 429, 477})
#: HubSpot names no time in most of its 429s. Seconds by policy; a day's calls come back at midnight there.
_PAUSES = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 10.0, "TEN_SECONDLY": 10.0, "DAILY": 3_600.0}
_PAUSE = 10.0
#: What HubSpot says of one input of a batch that will not go away; whatever else it says may.
_FINAL = frozenset({"VALIDATION_ERROR", "OBJECT_NOT_FOUND"})
#: The credential is at fault, so every other call would be refused as well.
_CREDENTIAL = frozenset({"INVALID_AUTHENTICATION", "EXPIRED_AUTHENTICATION", "MISSING_SCOPES"})
_REMEDY = "Enter the access token of a private app with the permissions that are named beside it in its settings."


class Wire:
    """Used by several threads at a time."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json_body: Any = None,
        shown: dict[str, Any] | None = None,
        accept: frozenset[int] = frozenset(),
        reads: bool | None = None,
    ) -> Answer:
        """A 2xx with an object, or a status of ``accept``."""
        answer = self._http.call(
            method, path, params=params, json_body=json_body, shown=shown, accept=_SAID | accept, reads=reads
        )
        if answer.status in accept:
            return answer
        if answer.status >= 300:
            raise refusal(answer, answer.data if isinstance(answer.data, dict) else {})
        if not isinstance(answer.data, dict):
            reading = method == "GET" if reads is None else reads
            kind = Unreached if reading else OutcomeUnknown
            raise kind("answered something that is not HubSpot's", exchange=answer.exchange)
        return answer


def refusal(answer: Answer, said: Mapping[str, Any], *, by_our_key: bool = False) -> LeadError:
    """An error of HubSpot's, of a whole answer or of one input of a batch, in the domain's words. ``by_our_key``: of an
    upsert by it, where nothing else is unique: what is there already was made beside us."""
    status, category = answer.status, str(said.get("category") or "")
    message = redact(one_line(_message(said)))
    words = f"HubSpot says: {message}" if message else f"answered {status}"
    if status in (429, 477) or category == "RATE_LIMITS":
        policy = str(said.get("policyName") or "")
        pause = answer.retry_after or (3_600.0 if status == 477 else _PAUSES.get(policy, _PAUSE))
        what = "today's calls are used up" if policy == "DAILY" else words
        return Throttled(what, retry_after=max(1.0, pause), exchange=answer.exchange)
    if status in (401, 403) or category in _CREDENTIAL:
        return Unusable(_of_token(status, category, words), remedy=_REMEDY)
    taken = category == "CONFLICT" and "existing id" in message.lower()
    if taken and not by_our_key:
        return Refused(f"another contact has a value that only one may have. {words}", exchange=answer.exchange)
    busy = taken or status in (409, 423) or category == "CONFLICT"
    if busy or (status == 207 and category not in _FINAL):
        return Unreached(words, retry_after=answer.retry_after, exchange=answer.exchange)
    return Refused(words, exchange=answer.exchange)


def _of_token(status: int, category: str, words: str) -> str:
    if status == 403 or category == "MISSING_SCOPES":
        return f"the token lacks a permission. {words}"
    return "the token has expired" if category == "EXPIRED_AUTHENTICATION" else "HubSpot does not know this token"


def _message(said: Mapping[str, Any]) -> str:
    """What HubSpot says; of a bad property that is JSON inside of the text."""
    text = str(said.get("message") or "")
    _, found, inner = text.partition("[{")
    if found:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return "; ".join(str(one["message"]) for one in json.loads(found + inner))
    return text


def results(answer: Answer) -> Sequence[dict[str, Any]]:
    found = answer.data.get("results")
    if not isinstance(found, list):
        raise Unreached(f"answered {answer.status} without results", exchange=answer.exchange)
    return [one for one in found if isinstance(one, dict)]


def id_of(record: Any, answer: Answer) -> str:
    found = record.get("id") if isinstance(record, dict) else None
    if not isinstance(found, str) or not found:
        raise OutcomeUnknown(f"answered {answer.status} without the record", exchange=answer.exchange)
    return found

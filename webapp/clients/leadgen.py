"""Lead Ads: the answers of a form that somebody filled in, by the Graph API, as a lead."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from webapp.clients.graph import GraphClient, TokenRefused
from webapp.leads.errors import Permanent
from webapp.leads.ports import Fetched, FetchTask, LeadIn, PageTokens, Unreached
from webapp.leads.states import Door

_FIELDS = "id,created_time,ad_id,form_id,field_data"
#: Keys of Meta's own questions → fields of a lead; the first that is answered counts.
_EMAIL = ("email", "work_email")
_PHONE = ("phone_number", "work_phone_number", "phone")
_COMPANY = ("company_name", "company")
#: Keys under which forms ask for free words.
_MESSAGE = ("message", "your_message", "comments", "comment", "note", "notes", "question", "inquiry")
#: Keys of Meta's own questions → attributes, which are no request.
_FACTS = {
    "first_name": "first_name",
    "last_name": "last_name",
    "job_title": "job_title",
    "street_address": "address_line1",
    "city": "city",
    "state": "state_province",
    "province": "state_province",
    "zip_code": "postal_code",
    "post_code": "postal_code",
    "postal_code": "postal_code",
    "country": "country",
    "date_of_birth": "date_of_birth",
    "gender": "gender",
    "marital_status": "marital_status",
    "relationship_status": "relationship_status",
    "military_status": "military_status",
    "website": "website",
}
_LONGEST_MESSAGE = 20_000
#: PostgreSQL keeps no NUL, and half of a surrogate pair is no character.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class LeadgenFetcher:
    """``ports.Fetcher`` of announced forms."""

    def __init__(self, graph: GraphClient, tokens: PageTokens, seal: Callable[[Any], Any]) -> None:
        """``seal``: encrypts sensitive values of a JSON object by their names."""
        self._graph = graph
        self._tokens = tokens
        self._seal = seal

    def fetch(self, task: FetchTask) -> Fetched:
        """The form's answers as one lead, whose message id is the leadgen id."""
        page_id = _page_of(task.payload)
        token = self._tokens.token(task.workspace_id, page_id)
        if token is None:
            raise Permanent("the page has no access token; connect it under Settings, Social pages")
        try:
            found = self._graph.read(task.target, token=token, fields=_FIELDS)
        except TokenRefused as error:
            self._tokens.used(task.workspace_id, page_id, error.message)
            raise
        self._tokens.used(task.workspace_id, page_id, None)
        answers = _answers(found)
        return Fetched(leads=[self._lead(task, page_id, found, answers)], result={"answers": len(answers)})

    def _lead(self, task: FetchTask, page_id: str, found: Mapping[str, Any], answers: dict[str, str]) -> LeadIn:
        sealed = self._seal(answers)
        private = {name for name, answer in answers.items() if sealed[name] != answer}
        facts = {_FACTS.get(name, name): sealed[name] for name in answers if name in _FACTS or name in private}
        about = {name: _text(found.get(name)) for name in ("ad_id", "form_id")}
        about |= {"page_id": page_id, "created_time": _moment(found.get("created_time"))}
        name = answers.get("full_name") or " ".join(filter(None, (answers.get("first_name"), answers.get("last_name"))))
        return LeadIn(
            door=Door.SOCIAL,
            platform="facebook",
            source="facebook",
            source_type="leadgen",
            source_subtype="form",
            message=_message({name: answer for name, answer in answers.items() if name not in private}),
            name=name or None,
            author_name=name or None,
            email=_first(answers, _EMAIL),
            phone=_first(answers, _PHONE),
            company=_first(answers, _COMPANY),
            external_message_id=task.target,
            attributes=facts | {name: value for name, value in about.items() if value is not None},
            payload=about | {"leadgen_id": task.target, "answers": sealed},
        )


def _page_of(change: Mapping[str, Any]) -> str:
    value = change.get("value")
    page_id = _text(value.get("page_id")) if isinstance(value, Mapping) else None
    if page_id is None:
        raise Permanent("it does not say which page the form is of")
    return page_id


def _answers(found: Mapping[str, Any]) -> dict[str, str]:
    """Key of the question → answer; several choices are one text. Unreached when these are no answers of a form."""
    data = found.get("field_data")
    if not isinstance(data, list):
        raise Unreached("Facebook's answer holds no answers of a form")
    answers = {}
    for one in data:
        name, values = (one.get("name"), one.get("values")) if isinstance(one, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(values, list):
            continue
        said = ", ".join(filter(None, (_text(value) for value in values)))
        if name := _clean(name):
            answers[name] = said
    return {name: answer for name, answer in answers.items() if answer}


def _message(answers: Mapping[str, str]) -> str:
    """The free words, then every question of the form's own with its answer."""
    free = [answers[name] for name in _MESSAGE if name in answers]
    known = {"full_name", *_EMAIL, *_PHONE, *_COMPANY, *_MESSAGE, *_FACTS}
    asked = [f"{_question(name)} {answer}" for name, answer in answers.items() if name not in known]
    return "\n".join([*free, *asked])[:_LONGEST_MESSAGE]


def _question(name: str) -> str:
    """``what_is_your_budget?`` → ``what is your budget?``; one without a question mark gets a colon."""
    words = name.replace("_", " ").strip()
    return words if words.endswith("?") else f"{words}:"


def _first(answers: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((answers[name] for name in names if name in answers), None)


def _text(value: Any) -> str | None:
    """Ids and answers come as strings or numbers."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return _clean(str(value)) or None


def _clean(text: str) -> str:
    return _UNSTORABLE.sub("", text).strip()


def _moment(value: Any) -> str | None:
    """``2018-02-28T08:49:14+0000`` in UTC; what is no moment stays as it came."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 34:
        return datetime.fromtimestamp(value, UTC).isoformat()
    text = _text(value)
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").astimezone(UTC).isoformat() if text else None
    except (ValueError, OverflowError):
        return text

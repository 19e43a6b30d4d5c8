"""Twenty CRM (REST core API): a person, a follow-up task for them and the link between the two, their company, a note.

Twenty has no idempotency header. A person is upserted (matched by id or by primary e-mail), so sending again is
harmless. Tasks and task targets take an id of ours: the POST is without ``upsert``, so that a task that a colleague
has already moved on is never overwritten, and "duplicate" means that an earlier attempt arrived. A later decision
changes what the task says, and closes or reopens it; who has it and where it stands is otherwise the colleagues'.
"""

import contextlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from typing import Any

import idna
import phonenumbers

from webapp.clients.http import Answer, HttpClient
from webapp.leads.errors import Permanent
from webapp.leads.ports import (
    DeliveryRequest,
    Exchange,
    FollowUp,
    LeadSnapshot,
    OutcomeUnknown,
    PersonTasks,
    Receipt,
    Refused,
    Unreached,
    remote_id_for,
)
from webapp.leads.states import DeliveryOperation, Intent, NextAction, Priority

#: Ids of people without an e-mail; never to be changed.
_NAMESPACE = uuid.UUID("6f1b3b1e-5f4c-5d0e-9a51-6c3f0f0d7a11")
_MEMBERS_SECONDS = 300.0
_MEMBERS_AGAIN_SECONDS = 30.0
_PAGE = 60
#: Twenty caps larger ones.
_LARGE_PAGE = 200
_MAX_PAGES = 50
#: How many ids one filter names, so that the URL stays short.
_IDS = 60
_FOLLOW_UP = "📞 Sales Follow-up"
_OPEN = 'or(status[neq]:"DONE",status[is]:NULL)'
_MAX_MESSAGE = 4_000
#: Mapped fields that are not the person's.
_OF_OTHERS = ("company.", "task.")

#: How soon somebody has to follow up. P0 now, P1 today, P2 this week, P3 whenever (taxonomy: priority).
DUE_IN = {
    Priority.P0: timedelta(hours=1),
    Priority.P1: timedelta(hours=8),
    Priority.P2: timedelta(days=5),
    Priority.P3: timedelta(days=14),
}

_STEPS = {
    NextAction.CALL: ("Call them; if nobody answers, write and propose two times.", "Note what was agreed here."),
    NextAction.EMAIL: ("Answer their question by e-mail.", "Propose the next step and a date for it."),
    NextAction.QUALIFY: ("Find out what they need, by when, and who decides.", "Move it on, or close it."),
    NextAction.IGNORE: ("Check whether anything has to be done.", "Close the task if not."),
}


class TwentyClient:
    """``send`` handles the actions of webapp.leads.kinds.twenty. Also :class:`leads.ports.CrmTasks`."""

    reconciles = True

    def __init__(
        self,
        http: HttpClient,
        *,
        task_target_field: str = "targetPersonId",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._task_target_field = task_target_field
        self._clock = clock
        self._members: dict[str, str] = {}
        self._members_until = float("-inf")
        self._members_again = float("-inf")
        self._members_lock = threading.Lock()

    def send(self, request: DeliveryRequest) -> Receipt:
        match request.action:
            case "person":
                return self._person(request)
            case "task":
                return self._task(request)
            case "task_target":
                return self._create("taskTargets", "taskTarget", self._target_body(request))
            case "company":
                return self._company(request)
            case "note":
                return self._note(request)
        raise Permanent(f"Twenty knows no action {request.action!r}")

    def reconcile(self, request: DeliveryRequest) -> Receipt | None:
        """A person needs none: the upsert is idempotent, and so are company and note, whose ids are known. Tasks and
        links are looked up by their id."""
        match request.action:
            case "task":
                return self._find("tasks", "task", str(remote_id(request)), None)
            case "task_target":
                return self._find("taskTargets", "taskTarget", str(remote_id(request)), None)
        return None

    def render(self, request: DeliveryRequest) -> dict[str, Any]:
        match request.action:
            case "person":
                return person_body(request.lead, request.fields)
            case "task":
                return self._task_fields(request) if not request.withdrawn else _closed(request)
            case "task_target":
                person = request.remote.get("person", "(the person's id)")
                return {"taskId": str(uuid5_of(request, "task")), self._task_target_field: person}
            case "company":
                return _company_body(request.fields)
            case "note":
                return _note_body(request.lead)
        return {}

    def probe(self) -> str:
        """Reads one person and, where the key may, the members."""
        self._http.call("GET", "/people", params={"limit": "1", "depth": "0"})
        members = len(self._read_members())
        if not members:
            return "Twenty knows the key. It may not read workspace members, so tasks stay unassigned."
        return f"Twenty knows the key, and tasks can be given to {members} member{'s' if members != 1 else ''}."

    # People

    def _person(self, request: DeliveryRequest) -> Receipt:
        lead = request.lead
        body = person_body(lead, request.fields)
        if "emails" not in body:
            body["id"] = self._person_by_phone(lead) or str(person_id(lead))
        try:
            answer = self._upsert_person(body)
        except Refused as error:
            if not _is_duplicate(error):
                raise
            # Two upserts of one person ran side by side and the other one won: now it is there to be matched.
            answer = self._upsert_person(body)
        return Receipt(_answered_id(answer, "createPerson"), answer.exchange)

    def _upsert_person(self, body: dict[str, Any]) -> Answer:
        params = {"upsert": "true", "depth": "0"}
        return self._http.call("POST", "/people", params=params, json_body=body, shown=body)

    def _person_by_phone(self, lead: LeadSnapshot) -> str | None:
        """The person that Twenty has under this number, since an upsert matches by e-mail and id alone."""
        phone = phone_parts(lead.phone_e164)
        if phone is None:
            return None
        number = phone["primaryPhoneNumber"]
        params = {"filter": f'phones.primaryPhoneNumber[eq]:"{number}"', "depth": "0", "limit": str(_PAGE)}
        found = _records(self._http.call("GET", "/people", params=params), "people")
        for person in found:
            theirs = (person.get("phones") or {}).get("primaryPhoneCallingCode")
            if theirs in (None, "", phone["primaryPhoneCallingCode"]) and isinstance(person.get("id"), str):
                return str(person["id"])
        return None

    # The company

    def _company(self, request: DeliveryRequest) -> Receipt:
        """Found by its domain, else its name, or made; then the person is linked to it."""
        body = _company_body(request.fields)
        if not body:
            return Receipt()  # nothing is known of a company
        company_id, exchange = self._company_id(request.lead, body)
        person = request.remote.get("person")
        if person is not None and self._patch("people", "person", person, {"companyId": company_id}) is None:
            raise Permanent("the person is not in Twenty any more")
        return Receipt(company_id, exchange)

    def _company_id(self, lead: LeadSnapshot, body: dict[str, Any]) -> tuple[str, Exchange]:
        found = self._find_company(body)
        if found is not None:
            return found
        key = body.get("domainName", {}).get("primaryLinkUrl") or str(body["name"]).casefold()
        made = {"id": str(uuid.uuid5(_NAMESPACE, f"{lead.workspace_id}:company:{key}")), **body}
        try:
            receipt = self._create("companies", "company", made)
        except Refused as error:
            # Another delivery made it under the same domain a moment ago.
            if not _is_duplicate(error) or (found := self._find_company(body)) is None:
                raise
            return found
        return str(receipt.remote_id), receipt.exchange

    def _find_company(self, body: dict[str, Any]) -> tuple[str, Exchange] | None:
        if "domainName" in body:
            wanted = f'domainName.primaryLinkUrl[ilike]:"%{_quoted(body["domainName"]["primaryLinkUrl"])}%"'
        else:
            wanted = f'name[ilike]:"{_quoted(str(body["name"]))}"'
        answer = self._http.call("GET", "/companies", params={"filter": wanted, "depth": "0", "limit": "10"})
        for company in _records(answer, "companies"):
            theirs = _domain((company.get("domainName") or {}).get("primaryLinkUrl"))
            if "domainName" not in body or theirs == body["domainName"]["primaryLinkUrl"]:
                return str(company["id"]), answer.exchange
        return None

    # The note

    def _note(self, request: DeliveryRequest) -> Receipt:
        note_id = uuid5_of(request, "note")
        body = _note_body(request.lead)
        if request.operation is not DeliveryOperation.SEND and (there := self._change(request, "notes", note_id, body)):
            return there
        receipt = self._create("notes", "note", {"id": note_id, **body})
        if (person := request.remote.get("person")) is not None:
            link = {"id": uuid5_of(request, "note_target"), "noteId": note_id, "targetPersonId": person}
            self._create("noteTargets", "noteTarget", link)
        return receipt

    def _change(self, request: DeliveryRequest, plural: str, record_id: str, body: dict[str, Any]) -> Receipt | None:
        """What was sent before becomes ``body``. None when it never arrived, so that it has to be made; Permanent when
        somebody has deleted it since. Taking back is done in either case."""
        changed = self._patch(plural, request.action, record_id, body)
        if changed is not None:
            return Receipt(record_id, changed)
        if request.withdrawn:
            return Receipt(None, Exchange(payload=body))
        if request.action in request.remote:
            raise Permanent(f"the {request.action} is not in Twenty any more")
        return None

    def _patch(self, plural: str, singular: str, record_id: str, body: dict[str, Any]) -> Exchange | None:
        """Change a record; None when it is not there any more. Harmless to repeat."""
        answer = self._http.call(
            "PATCH",
            f"/{plural}/{record_id}",
            params={"depth": "0"},
            json_body=body,
            shown=body,
            accept=frozenset({400, 404}),
        )
        if answer.status < 300:
            _answered_id(answer, f"update{singular[0].upper()}{singular[1:]}")
            return answer.exchange
        if self._look_up(plural, singular, record_id) is None:
            return None
        raise Refused(f"answered {answer.status}", exchange=answer.exchange)

    # Tasks

    def _task(self, request: DeliveryRequest) -> Receipt:
        task_id = request.remote.get("task") or str(remote_id(request))
        if request.operation is not DeliveryOperation.SEND:
            body = _closed(request) if request.withdrawn else self._task_fields(request)
            if request.operation is DeliveryOperation.UPDATE:
                del body["status"]  # a colleague's
            if there := self._change(request, "tasks", task_id, body):
                return there
        fields = self._task_fields(request)
        assignee = self._member_id(request.lead.assignee_email)
        return self._create("tasks", "task", {"id": str(remote_id(request)), **fields, "assigneeId": assignee})

    def _task_fields(self, request: DeliveryRequest) -> dict[str, Any]:
        fields = _task_fields(request.lead, since=request.lead.event_at)
        if title := request.fields.get("task.title"):
            fields["title"] = _one_line(title)
        return fields

    def _target_body(self, request: DeliveryRequest) -> dict[str, Any]:
        try:
            task, person = request.remote["task"], request.remote["person"]
        except KeyError as error:
            raise Permanent(f"the step before left no id for its {error.args[0]}") from None
        return {"id": str(remote_id(request)), "taskId": task, self._task_target_field: person}

    def _create(self, plural: str, singular: str, body: dict[str, Any]) -> Receipt:
        try:
            answer = self._http.call("POST", f"/{plural}", params={"depth": "0"}, json_body=body, shown=body)
        except Refused as error:
            # An older server words it differently, so whatever 400 it is: is our record there?
            found = self._find(plural, singular, body["id"], body) if error.exchange.http_status == 400 else None
            if found is None:
                raise
            return found
        return Receipt(_answered_id(answer, f"create{singular[0].upper()}{singular[1:]}"), answer.exchange)

    def _find(self, plural: str, singular: str, record_id: str, shown: dict[str, Any] | None) -> Receipt | None:
        found = self._look_up(plural, singular, record_id, shown)
        return Receipt(record_id, found[1].exchange) if found else None

    def _look_up(
        self, plural: str, singular: str, record_id: str, shown: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], Answer] | None:
        # Twenty answers 400 or 404 for an id that is not there, depending on its version.
        answer = self._http.call(
            "GET", f"/{plural}/{record_id}", params={"depth": "0"}, shown=shown, accept=frozenset({400, 404})
        )
        if answer.status != 200:
            return None
        record = _inner(answer, singular)
        if not isinstance(record, dict) or record.get("id") != record_id:
            raise Unreached(f"answered 200 without the {singular}", exchange=answer.exchange)
        return record, answer

    # Follow-up tasks for people who are in the CRM already (leads.ports.CrmTasks)

    def member_page(self, cursor: str | None) -> tuple[Mapping[str, str], str | None]:
        try:
            records, following = self._page("workspaceMembers", cursor)
        except Refused as error:
            if error.exchange.http_status == 403:
                return {}, None  # the key's role may not read members: tasks go out unassigned
            raise
        return {str(one["id"]): _member_name(one) for one in records if one.get("id")}, following

    def open_task_page(self, cursor: str | None) -> tuple[Mapping[str, int], str | None]:
        records, following = self._page("tasks", cursor, filter=_OPEN)
        return Counter(str(task["assigneeId"]) for task in records if task.get("assigneeId")), following

    def tasks_of(self, person_ids: Sequence[str], *, follow_ups: Set[str]) -> Mapping[str, PersonTasks]:
        here = {str(person["id"]) for person in self._by_ids("people", "id", person_ids)}
        links: dict[str, set[str]] = {person_id: set() for person_id in person_ids if person_id in here}
        for link in self._by_ids("taskTargets", self._task_target_field, list(links)):
            links[str(link[self._task_target_field])].add(str(link.get("taskId")))
        tasks = self._by_ids("tasks", "id", sorted(set().union(*links.values())))
        waiting = {
            str(task["id"])
            for task in tasks
            if task.get("status") != "DONE"
            and (task["id"] in follow_ups or str(task.get("title") or "").startswith(_FOLLOW_UP))
        }
        return {
            person_id: PersonTasks(open_follow_up=bool(theirs & waiting), links=len(theirs))
            for person_id, theirs in links.items()
        }

    def create_follow_up(self, wanted: FollowUp) -> str:
        fields = _task_fields(wanted.lead, since=wanted.asked_at) | {"assigneeId": wanted.assignee_id}
        for task_id, link_id in wanted.ids:
            if self._make("tasks", "task", {"id": task_id, **fields}, usable=lambda task: task.get("status") != "DONE"):
                link = {"id": link_id, "taskId": task_id, self._task_target_field: wanted.person_id}
                if self._make("taskTargets", "taskTarget", link):
                    return task_id
        raise Permanent("Twenty has deleted the tasks that were made for them before, and keeps their ids")

    def _make(
        self,
        plural: str,
        singular: str,
        body: dict[str, Any],
        *,
        usable: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> bool:
        """Is the record there now, made by this call or an earlier one? False when its id is used up: the record was
        deleted, or is not ``usable`` any more."""
        try:
            self._http.call("POST", f"/{plural}", params={"depth": "0"}, json_body=body)
            return True
        except OutcomeUnknown:
            if self._look_up(plural, singular, body["id"]) is None:
                raise
            return True
        except Refused as error:
            if error.exchange.http_status != 400:
                raise
            found = self._look_up(plural, singular, body["id"])
            if found is None and not _is_duplicate(error):
                raise
            return found is not None and usable(found[0])

    def _by_ids(self, plural: str, field: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """All records whose ``field`` is one of ``ids``."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(ids), _IDS):
            listed = ",".join(f'"{one}"' for one in ids[start : start + _IDS])
            found += self._all(plural, filter=f"{field}[in]:[{listed}]")
        return found

    def _all(self, plural: str, **params: str) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            records, cursor = self._page(plural, cursor, **params)
            yield from records
            if cursor is None:
                return

    def _page(self, plural: str, cursor: str | None, **params: str) -> tuple[list[dict[str, Any]], str | None]:
        """One large page, and the cursor of the next one if there is any."""
        more = {"starting_after": cursor} if cursor else {}
        answer = self._http.call(
            "GET", f"/{plural}", params={"depth": "0", "limit": str(_LARGE_PAGE), **params, **more}
        )
        records = _records(answer, plural)
        info = answer.data.get("pageInfo") if isinstance(answer.data, dict) else None
        if not isinstance(info, dict) or not info.get("hasNextPage") or not info.get("endCursor"):
            return records, None
        following = str(info["endCursor"])
        if following == cursor or not records:
            raise Unreached(f"answered a page of {plural} that leads nowhere", exchange=answer.exchange)
        return records, following

    # Members

    def _member_id(self, email: str | None) -> str | None:
        """The workspace member with this e-mail; None when there is none, or the key may not read members."""
        if not email:
            return None
        wanted = canonical_email(email)
        with self._members_lock:
            now = self._clock()
            stale = now >= self._members_until
            if stale or (wanted not in self._members and now >= self._members_again):
                self._members = self._read_members()
                self._members_until = now + _MEMBERS_SECONDS
                self._members_again = now + _MEMBERS_AGAIN_SECONDS
            return self._members.get(wanted)

    def _read_members(self) -> dict[str, str]:
        members: dict[str, str] = {}
        params = {"limit": str(_PAGE), "depth": "0"}
        for _ in range(_MAX_PAGES):
            try:
                answer = self._http.call("GET", "/workspaceMembers", params=params)
            except Refused as error:
                if error.exchange.http_status == 403:
                    return members  # the key's role may not read members: tasks go out unassigned
                raise
            for member in _records(answer, "workspaceMembers"):
                if isinstance(member.get("userEmail"), str) and isinstance(member.get("id"), str):
                    members[canonical_email(member["userEmail"])] = member["id"]
            page = answer.data.get("pageInfo") if isinstance(answer.data, dict) else None
            if not isinstance(page, dict) or not page.get("hasNextPage") or not page.get("endCursor"):
                break
            params = {**params, "starting_after": str(page["endCursor"])}
        return members


def _task_fields(lead: LeadSnapshot, *, since: datetime) -> dict[str, Any]:
    """A follow-up task for ``lead``, due by its priority counted from ``since``."""
    return {
        "title": f"{_FOLLOW_UP} — {_one_line(lead.display_name)}",
        "bodyV2": {"markdown": lead.task_text or task_markdown(lead)},
        "dueAt": _iso(since + DUE_IN[lead.priority]),
        "status": "TODO",
    }


def _member_name(member: dict[str, Any]) -> str:
    name = member.get("name")
    parts = [str(name.get(part) or "") for part in ("firstName", "lastName")] if isinstance(name, dict) else []
    return _one_line(" ".join(parts)) or str(member.get("userEmail") or member["id"])


def remote_id(request: DeliveryRequest) -> uuid.UUID:
    """The id that the record has in Twenty: a function of the delivery, so the same on every attempt."""
    return uuid.UUID(remote_id_for(request.delivery_id, request.action))


def person_id(lead: LeadSnapshot) -> uuid.UUID:
    """For people without an e-mail: by phone, else by their id on the platform, else of this lead alone."""
    if lead.phone_e164:
        key = f"phone:{lead.phone_e164}"
    elif lead.platform and lead.author_id:
        key = f"author:{lead.platform}:{lead.author_id}"
    else:
        key = f"lead:{lead.lead_id}"
    return uuid.uuid5(_NAMESPACE, f"{lead.workspace_id}:{key}")


def uuid5_of(request: DeliveryRequest, action: str) -> str:
    return remote_id_for(request.delivery_id, action)


def person_body(lead: LeadSnapshot, fields: Mapping[str, str]) -> dict[str, Any]:
    """Only fields that we own and know: an upsert overwrites whatever it is sent. ``fields``: as mapped; a dot leads
    into a composite field. E-mail and phone, by which people are told apart, are the lead's own."""
    body: dict[str, Any] = {}
    for name, value in fields.items():
        if name.startswith(_OF_OTHERS):
            continue
        *outer, last = name.split(".")
        place = body
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = _one_line(value)
    if "name" in body:
        body["name"] = {"firstName": "", "lastName": ""} | body["name"]
    if lead.email:
        body["emails"] = {"primaryEmail": canonical_email(lead.email)}
    phone = phone_parts(lead.phone_e164)
    if phone:
        body["phones"] = phone
    return body


def _company_body(fields: Mapping[str, str]) -> dict[str, Any]:
    """Empty when nothing is known of a company."""
    name, domain = fields.get("company.name"), _domain(fields.get("company.domain"))
    if not name and not domain:
        return {}
    body: dict[str, Any] = {"name": _one_line(name or str(domain))}
    return body | ({"domainName": {"primaryLinkUrl": domain}} if domain else {})


def _domain(url: str | None) -> str | None:
    """``https://www.Acme.com/x`` → ``acme.com``; None for nothing."""
    host = (url or "").strip().lower().rpartition("//")[2].split("/")[0].split(":")[0]
    return host.removeprefix("www.") or None


def _quoted(text: str) -> str:
    """For a filter's value, which ends at a double quote and knows % and _ as wildcards."""
    return text.replace("\\", "").replace('"', "").replace("%", "\\%").replace("_", "\\_")


def _note_body(lead: LeadSnapshot) -> dict[str, Any]:
    title = f"Verdict: {lead.intent.value.replace('_', ' ')}, {lead.priority.value}"
    reasons = "\n".join(f"- {_escape(_one_line(reason))}" for reason in lead.reasons)
    text = task_markdown(lead) + (f"\n\n## Why\n\n{reasons}" if reasons else "")
    return {"title": title, "bodyV2": {"markdown": text}}


def _closed(request: DeliveryRequest) -> dict[str, Any]:
    """A task that was made for a lead that is none after all."""
    return {"status": "DONE", "title": f"✕ Withdrawn — {_one_line(request.lead.display_name)}"}


def canonical_email(email: str) -> str:
    """As Twenty stores it: lower case, IDN as punycode, no trailing dot."""
    local, at, domain = email.strip().lower().rpartition("@")
    domain = domain.rstrip(".")
    with contextlib.suppress(idna.IDNAError, UnicodeError):  # not ours to judge: the other side will
        domain = idna.encode(domain, uts46=True).decode()
    return f"{local}{at}{domain}"


def phone_parts(e164: str | None) -> dict[str, str] | None:
    """Twenty's three fields of a phone number; None when there is none or it makes no sense."""
    if not e164:
        return None
    try:
        number = phonenumbers.parse(e164)
    except phonenumbers.NumberParseException:
        return None
    parts = {
        "primaryPhoneNumber": phonenumbers.national_significant_number(number),
        "primaryPhoneCallingCode": f"+{number.country_code}",
    }
    region = phonenumbers.region_code_for_number(number)
    return parts | ({"primaryPhoneCountryCode": region} if region and region.isalpha() else {})


def task_markdown(lead: LeadSnapshot) -> str:
    """The static follow-up text: verdict, message, next steps."""
    facts = [
        ("Intent", lead.intent.value.replace("_", " ")),
        ("Priority", lead.priority.value),
        ("Confidence", f"{lead.confidence:.0%}"),
        ("Score", str(lead.score) if lead.score is not None else ""),
        ("E-mail", lead.email or ""),
        ("Phone", lead.phone_e164 or lead.phone or ""),
        ("Company", lead.company or ""),
        ("Source", lead.source),
        ("Decided by", lead.decided_by or ""),
    ]
    lines = [f"- **{name}:** {_escape(_one_line(value))}" for name, value in facts if value]
    message = lead.message.strip()
    shown = message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE].rstrip() + " …"
    quote = "\n".join(f"> {_escape(line)}".rstrip() for line in shown.splitlines())
    steps = "\n".join(f"{i}. {step}" for i, step in enumerate(_next_steps(lead), 1))
    return "\n\n".join(["## Verdict", "\n".join(lines), "## Message", quote, "## Next steps", steps])


def _next_steps(lead: LeadSnapshot) -> tuple[str, ...]:
    first = "Read the message: it is a complaint." if lead.intent is Intent.COMPLAINT else None
    return (*([first] if first else []), *_STEPS[lead.next_action])


def _escape(text: str) -> str:
    """A lead's words are text: no links, images or HTML of theirs in our CRM."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>#!|~" else char for char in text)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_duplicate(error: Refused) -> bool:
    excerpt = (error.exchange.excerpt or "").lower()
    return error.exchange.http_status == 400 and ("duplicate" in excerpt or "already exists" in excerpt)


def _inner(answer: Answer, key: str) -> Any:
    data = answer.data.get("data") if isinstance(answer.data, dict) else None
    return data.get(key) if isinstance(data, dict) else None


def _records(answer: Answer, plural: str) -> list[dict[str, Any]]:
    found = _inner(answer, plural)
    if not isinstance(found, list):
        raise Unreached(f"answered {answer.status} without {plural}", exchange=answer.exchange)
    return [record for record in found if isinstance(record, dict)]


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


def _answered_id(answer: Answer, key: str) -> str:
    """The id of the record made or changed. A 2xx without it is not Twenty's (a proxy's page, say), so nothing is known."""
    record = _inner(answer, key)
    if not isinstance(record, dict) or not _is_uuid(record.get("id")):
        raise OutcomeUnknown(f"answered {answer.status} without the record", exchange=answer.exchange)
    return str(record["id"])

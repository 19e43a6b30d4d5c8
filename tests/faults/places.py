"""The destinations as the fault matrix and the kills see them: what is written there, and which lead each record is of.

A further destination is a line of :data:`PLACES`.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy.orm import Session

from tests.fakes import hubspot, salesforce, sheets, slack, smtp, twenty, webhook_receiver
from tests.fakes.server import FakeServer, Request, Response
from tests.leads.delivering import CIPHER, decided_lead
from webapp.leads import callbacks, deliver, kinds
from webapp.leads.kinds.base import Kind
from webapp.leads.states import DestinationKind, Door, Priority
from webapp.models import Destination, Lead, Workspace

_numbers = iter(range(1, 1_000_000))
_MARK = re.compile(r"marked\d+", re.IGNORECASE)
#: What is written → the marks of the leads that it is there for, one for each record.
Records = Mapping[str, list[str]]


@dataclass(frozen=True, eq=False)
class Place:
    """``settings``: the destination's configuration and credentials. ``writes``: what goes wrong, as action → the call that
    commits it at the stand-in; ``looks``: action → the call that looks for it after its answer was lost. ``records``:
    what is there. ``takes_any_2xx``: an answer that makes no sense is as good as any other, by the other side's
    contract. ``partly``: writes that may be done in part. ``environment``: settings that lead to the stand-in. ``protocol``: whose faults it has. ``about``:
    of the leads that go there, by mark and number. ``killed``: enough of its own that kills of the
    worker are tried there too."""

    name: str
    kind: DestinationKind
    fake: Callable[[], Any]
    settings: Callable[[Any], tuple[dict[str, Any], dict[str, Any]]]
    writes: Mapping[str, str]
    records: Callable[[Any], Records]
    looks: Mapping[str, str] = field(default_factory=dict)
    takes_any_2xx: bool = False
    partly: frozenset[str] = frozenset()
    environment: Callable[[Any], dict[str, str]] = lambda fake: {}
    protocol: str = "http"
    about: Callable[[str, int], dict[str, Any]] = lambda mark, number: {"email": f"{mark}@example.com"}
    plan: Callable[[Session, Lead], object] = lambda session, lead: deliver.plan(session, lead, due_in_seconds=0)
    killed: bool = True

    @property
    def described(self) -> Kind:
        return kinds.of(self.kind)

    @property
    def once(self) -> bool:
        """Do all of its declared guarantees promise no second record?"""
        return all(one.promise.startswith(("at most one", "at most once", "one ")) for one in self.described.guarantees)

    def destination(self, session: Session, workspace: Workspace, fake: FakeServer) -> Destination:
        config, credentials = self.settings(fake)
        row = Destination(
            workspace_id=workspace.id,
            kind=self.kind,
            name=self.name,
            config=config,
            credentials=CIPHER.encrypt(credentials),
        )
        session.add(row)
        session.commit()
        return row

    def counts(self, fake: FakeServer, leads: Iterable[str]) -> "Counts":
        return Counts.of(self.records(fake), list(leads))


@dataclass(frozen=True)
class Counts:
    """Over all that is written for each lead: what is there, what is missing, what is there once too often."""

    wanted: int
    records: int
    missing: int
    duplicates: int

    @classmethod
    def of(cls, records: Records, leads: list[str]) -> "Counts":
        missing = duplicates = found = 0
        for marks in records.values():
            each = Counter(marks)
            assert set(each) <= set(leads), f"records of nobody: {set(each) - set(leads)}"
            found += len(marks)
            missing += sum(each[lead] == 0 for lead in leads)
            duplicates += sum(max(0, each[lead] - 1) for lead in leads)
        return cls(len(records) * len(leads), found, missing, duplicates)


def approved(session: Session, workspace: Workspace, place: Place, number: int) -> list[str]:
    """Approved leads whose deliveries are due; returns their marks."""
    marks = []
    for _ in range(number):
        count = next(_numbers)
        marks.append(mark := f"marked{count}")
        about = {"name": f"Ada {mark}", "company": f"{mark} Ltd"} | place.about(mark, count)
        place.plan(session, decided_lead(session, workspace, **about))
    session.commit()
    return marks


def mark_of(record: Any) -> str:
    found = _MARK.search(json.dumps(record, ensure_ascii=False))
    return found[0].lower() if found else "nobody"


def _at_twenty(fake: twenty.TwentyFake) -> Records:
    with fake.lock:
        tasks = {task["id"]: mark_of(task) for task in fake.tasks}
        return {
            "person": [mark_of(person["name"]) for person in fake.people],
            "task": list(tasks.values()),
            "task_target": [tasks.get(link["taskId"], "nobody") for link in fake.task_targets],
        }


def _all_at_twenty(fake: twenty.TwentyFake) -> Records:
    with fake.lock:
        notes = {note["id"]: mark_of(note) for note in fake.notes}
        return {
            **_at_twenty(fake),
            "company": [mark_of(company["name"]) for company in fake.companies],
            "company's link": [mark_of(person["name"]) for person in fake.people if person.get("companyId")],
            "note": list(notes.values()),
            "note's link": [notes.get(link["noteId"], "nobody") for link in fake.note_targets],
        }


def _at_slack(fake: slack.SlackFake) -> Records:
    with fake.lock:
        return {"message": [mark_of(message) for channel in fake.messages.values() for message in channel]}


def _in_sheet(fake: sheets.SheetsFake) -> Records:
    return {"row": [mark_of(row) for row in fake.records()]} if fake.tabs["Leads"] else {"row": []}


def _mailed(fake: smtp.SmtpFake) -> Records:
    with fake.lock:
        return {"mail": [mark_of(mail.text) for mail in fake.mails]}


def _at_receiver(fake: webhook_receiver.WebhookReceiver) -> Records:
    """As its contract has it: the same ``webhook-id`` is the same event."""
    with fake.lock:
        return {"event": [mark_of(event) for event in fake.events.values()]}


class _Workflow(webhook_receiver.WebhookReceiver):
    """An n8n workflow that knows a post again by its key."""

    def __init__(self) -> None:
        super().__init__(secret=None)

    def handle(self, request: Request) -> Response:
        return super().handle(
            replace(request, headers={**request.headers, "webhook-id": request.headers["idempotency-key"]})
        )


def _follow_up(session: Session, lead: Lead) -> None:
    assert deliver.plan_follow_up(session, lead) == 1


def _callback(session: Session, lead: Lead) -> None:
    (place,) = callbacks.places(session, lead.workspace_id)
    lead.callback_url = f"{place.url}/hook/{lead.id}"
    session.flush()
    assert callbacks.plan(session, [lead]) == 1


def _twenty(name: str, writes: Mapping[str, str], **over: Any) -> Place:
    whole = any(write in ("company", "note") for write in writes)
    return Place(
        name,
        DestinationKind.TWENTY,
        twenty.TwentyFake,
        lambda fake: ({"url": fake.url, "companies": whole, "notes": whole}, {"token": fake.token}),
        writes,
        _all_at_twenty if whole else _at_twenty,
        **over,
    )


def _at_hubspot(fake: hubspot.HubspotFake) -> Records:
    with fake.lock:
        people = {contact["id"]: mark_of(contact["properties"]) for contact in fake.contacts}
        return {
            "person": list(people.values()),
            **{
                action: [mark for contact, mark in people.items() for _ in fake.linked(plural, contact)]
                for action, plural in (("task", "tasks"), ("note", "notes"))
            },
        }


def _hubspot(name: str, writes: Mapping[str, str], **over: Any) -> Place:
    settings = {"notes": True, "id_property": "lead_ops_person"}
    return Place(
        name,
        DestinationKind.HUBSPOT,
        hubspot.HubspotFake,
        lambda fake: ({"url": fake.url, **settings}, {"token": fake.token}),
        writes,
        _at_hubspot,
        **over,
    )


def _at_salesforce(fake: salesforce.SalesforceFake) -> Records:
    with fake.lock:
        return {"person": [mark_of(lead) for lead in fake.leads], "task": [mark_of(task) for task in fake.tasks]}


def _salesforce(name: str, writes: Mapping[str, str], *, task_field: str | None, **over: Any) -> Place:
    config = {
        "grant": "client_credentials",
        "client_id": salesforce.CLIENT_ID,
        "lead_field": salesforce.LEAD_FIELD,
        "task_field": task_field,
    }
    return Place(
        name,
        DestinationKind.SALESFORCE,
        salesforce.SalesforceFake,
        lambda fake: ({"url": fake.url, **config}, {"client_secret": salesforce.CLIENT_SECRET}),
        writes,
        _at_salesforce,
        **over,
    )


_SALESFORCE = "/services/data/v62.0"
_HUBSPOT_UPSERT = "POST /crm/v3/objects/contacts/batch/upsert"
_PERSON_BY_UPSERT = frozenset({"person"})

PLACES: tuple[Place, ...] = (
    _twenty(
        "Twenty",
        {"person": "POST /people", "task": "POST /tasks", "task_target": "POST /taskTargets"},
        looks={"task": "GET /tasks", "task_target": "GET /taskTargets"},
    ),
    _twenty(
        "Twenty, company, note",
        {
            "company": "POST /companies",
            "company's link": "PATCH /people",
            "note": "POST /notes",
            "note's link": "POST /noteTargets",
        },
    ),
    _twenty(
        "Twenty, phone alone",
        {"person": "POST /people"},
        about=lambda mark, number: {"email": None, "phone": f"+8490{number:07d}"},
        killed=False,
    ),
    _twenty(
        "Twenty, name alone",
        {"person": "POST /people"},
        about=lambda mark, number: {"email": None},
        killed=False,
    ),
    Place(
        "Slack bot",
        DestinationKind.SLACK,
        slack.SlackFake,
        lambda fake: ({"channel": "C0LEADS"}, {"token": fake.token}),
        {"message": "POST /api/chat.postMessage"},
        _at_slack,
        {"message": "GET /api/conversations.history"},
        environment=lambda fake: {"slack_api_url": fake.api_url},
    ),
    Place(
        "Slack incoming webhook",
        DestinationKind.SLACK_WEBHOOK,
        slack.IncomingFake,
        lambda fake: ({}, {"url": fake.webhook_url}),
        {"message": "POST /services"},
        _at_slack,
    ),
    Place(
        "webhook",
        DestinationKind.WEBHOOK,
        webhook_receiver.WebhookReceiver,
        lambda fake: ({"url": fake.url}, {"secret": webhook_receiver.SECRET}),
        {"event": "POST"},
        _at_receiver,
        takes_any_2xx=True,
    ),
    Place(
        "callback",
        DestinationKind.CALLBACK,
        webhook_receiver.WebhookReceiver,
        lambda fake: ({"url": fake.root}, {"secret": webhook_receiver.SECRET}),
        {"result": "POST"},
        lambda fake: {"result": _at_receiver(fake)["event"]},
        takes_any_2xx=True,
        plan=_callback,
        killed=False,
    ),
    Place(
        "n8n follow-up",
        DestinationKind.N8N,
        _Workflow,
        lambda fake: ({}, {"url": fake.url}),
        {"follow_up": "POST"},
        lambda fake: {"follow_up": _at_receiver(fake)["event"]},
        takes_any_2xx=True,
        about=lambda mark, number: {
            "email": f"{mark}@example.com",
            "door": Door.SOCIAL,
            "author_name": mark,
            "priority": Priority.P1,
        },
        plan=_follow_up,
    ),
    _hubspot(
        "HubSpot",
        {
            "person": "POST /crm/v3/objects/contacts",
            "task": "POST /crm/v3/objects/tasks",
            "note": "POST /crm/v3/objects/notes",
        },
        looks={
            "task": "GET /crm/v4/objects/contacts",
            "note": "POST /crm/v3/objects/notes/batch/read",
        },
    ),
    _hubspot("HubSpot, looked for", {"person": "PATCH /crm/v3/objects/contacts"}, killed=False),
    _hubspot(
        "HubSpot, phone alone",
        {"person": _HUBSPOT_UPSERT},
        partly=_PERSON_BY_UPSERT,
        about=lambda mark, number: {"email": None, "phone": f"+8490{number:07d}"},
        killed=False,
    ),
    _hubspot(
        "HubSpot, name alone",
        {"person": _HUBSPOT_UPSERT},
        partly=_PERSON_BY_UPSERT,
        about=lambda mark, number: {"email": None},
        killed=False,
    ),
    Place(
        "Google Sheets",
        DestinationKind.SHEETS,
        sheets.SheetsFake,
        lambda fake: ({"spreadsheet": sheets.SPREADSHEET, "tab": "Leads"}, {"key": fake.key}),
        {"row": "POST /v4"},
        _in_sheet,
        {"row": "GET /v4"},
        environment=lambda fake: {"sheets_api_url": fake.root},
    ),
    _salesforce(
        "Salesforce",
        {"person": f"PATCH {_SALESFORCE}/sobjects/Lead", "task": f"PATCH {_SALESFORCE}/sobjects/Task"},
        task_field=salesforce.TASK_FIELD,
        looks={"task": f"GET {_SALESFORCE}/sobjects/Task"},
    ),
    _salesforce(
        "Salesforce, no task id",
        {"task": f"POST {_SALESFORCE}/sobjects/Task"},
        task_field=None,
        looks={"task": f"GET {_SALESFORCE}/query"},
    ),
    _salesforce(
        "Salesforce, name alone",
        {"person": f"PATCH {_SALESFORCE}/sobjects/Lead"},
        task_field=salesforce.TASK_FIELD,
        about=lambda mark, number: {"email": None},
        killed=False,
    ),
    Place(
        "e-mail",
        DestinationKind.EMAIL,
        smtp.SmtpFake,
        lambda fake: (
            {
                "host": "127.0.0.1",
                "port": fake.port,
                "security": "none",
                "sender": "leads@acme.example",
                "to": "ana@acme.example, bob@acme.example",
                "when": "each",
            },
            {},
        ),
        {"mail": "DOT"},
        _mailed,
        protocol="smtp",
    ),
)

"""Every JSON door, taken from the app's own map of addresses: a key opens its own workspace and nothing else.

``DOORS`` says for each door how to reach for what belongs to another workspace. A door that is not in it fails.
"""

import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from tests import factories
from webapp.errors import CODES, is_json_path
from webapp.leads import run
from webapp.leads.claims import Holder
from webapp.leads.quarantine import Bad, quarantine
from webapp.leads.states import DestinationKind, Role, Scope, TaskRequestState
from webapp.leads.states import Door as IntakeDoor
from webapp.models import (
    ApiKey,
    AuditEvent,
    Decision,
    Delivery,
    Destination,
    IdempotencyKey,
    Import,
    Lead,
    Run,
    SocialPage,
    SyncRequest,
    TaskRequest,
    Touch,
    Workspace,
    db,
)
from webapp.security.keys import create_key

MESSAGE = "Beatrix wants a quote for 70 zeppelin moorings please, what is the price"
LEAD = {
    "lead_id": "b-crm-70", "message": MESSAGE, "name": "Beatrix Quill", "email": "beatrix@quill.example",
    "phone": "+84912345670", "company": "Quill Zeppelins", "source": "b_landing",
}  # fmt: skip
COMMENT = {
    "message": "Beatrix asks again: price for moorings?", "sender_name": "Bea Social", "sender_id": "b-author-7",
    "post_id": "b-post-7", "comment_id": "b-comment-7",
}  # fmt: skip
PAGE = "b-page-7"
ASKED = {"X-Request-ID": "asked-1"}


@dataclass(frozen=True)
class Theirs:
    """What workspace B holds, as somebody in A may have come to know it."""

    workspace_id: uuid.UUID
    headers: dict[str, str]  # B's own key
    lead_id: uuid.UUID
    person_id: uuid.UUID
    user_id: uuid.UUID
    version: int
    idempotency_key: str
    cursor: str
    run_id: uuid.UUID
    delivery_id: uuid.UUID
    sync_id: uuid.UUID
    round_id: uuid.UUID
    held_id: uuid.UUID  # in quarantine
    import_id: uuid.UUID

    @property
    def ids(self) -> list[str]:
        """All that names the lead in an address."""
        return [str(self.lead_id), self.lead_id.hex, LEAD["lead_id"]]


@dataclass(frozen=True)
class Call:
    """One way to reach for it. ``status``: what A gets; B gets an answer of its own, with its lead if ``shows``."""

    path: str
    status: int
    body: dict[str, Any] | list[Any] | None = None
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    shows: bool = False


@dataclass(frozen=True)
class Door:
    """``scope`` None: open to everybody, who get ``status``. ``platform``: a platform key opens it too."""

    scope: Scope | None
    calls: Callable[[Theirs], list[Call]] = lambda _: []
    status: int = 200
    platform: bool = False


def _of_lead(path: str, bodies: Callable[[Theirs], list[Any]] = lambda _: [None]) -> Callable[[Theirs], list[Call]]:
    def calls(theirs: Theirs) -> list[Call]:
        return [Call(path.format(id=known), 404, body, shows=True) for known in theirs.ids for body in bodies(theirs)]

    return calls


def _decisions(theirs: Theirs) -> list[dict[str, Any]]:
    at = {"version": theirs.version}
    return [
        at | {"action": "approve"},
        at | {"action": "override", "intent": "job", "priority": "P3", "reason": "mine now"},
        at | {"action": "reject", "reason": "spam"},
        {"action": "approve", "version": theirs.version + 1},  # nor does a stale version tell who did what
    ]


def _lists_v1(theirs: Theirs) -> list[Call]:
    filters = [
        {}, {"q": "zeppelin"}, {"q": LEAD["email"]}, {"q": LEAD["phone"]}, {"source": LEAD["source"]},
        {"person_id": str(theirs.person_id)}, {"assignee": str(theirs.user_id)}, {"status": "approved"},
        {"view": "decided"}, {"limit": "200"},
    ]  # fmt: skip
    calls = [Call("/api/v1/leads", 200, query=query, shows=True) for query in filters]
    return [*calls, Call("/api/v1/leads", 200, query={"cursor": theirs.cursor, "limit": "200"}, shows=True)]


def _lists_triage(path: str) -> Callable[[Theirs], list[Call]]:
    return lambda _: [Call(path, 200, shows=True), Call(path, 200, query={"limit": "10000"}, shows=True)]


def _lists_signals(theirs: Theirs) -> list[Call]:
    tenant = str(theirs.workspace_id)
    return [
        Call("/api/leads", 200, shows=True),
        Call("/api/leads", 200, query={"status": "approved"}, shows=True),
        Call("/api/leads", 403, query={"tenant_id": tenant}, shows=True),
        Call("/api/leads", 403, query={"tenant_id": tenant.upper()}, shows=True),
        Call("/api/leads", 200, headers={"X-Tenant-ID": tenant}, shows=True),
    ]


def _events(theirs: Theirs) -> list[Call]:
    lead, tenant = str(theirs.lead_id), str(theirs.workspace_id)
    return [
        Call("/audit/events", 200, shows=True),
        Call("/audit/events", 200, query={"lead_id": lead}, shows=True),
        Call("/audit/events", 200, query={"event_type": "LEAD_APPROVED"}, shows=True),
        Call("/audit/events", 403, query={"tenant_id": tenant}, shows=True),
        Call("/audit/events", 403, query={"tenant_id": tenant, "lead_id": lead}, shows=True),
    ]


def _post_triage(theirs: Theirs) -> list[Call]:
    # The same person with the same words under the same key: A's own lead, no touch, no replay, no mismatch.
    body = {"note": MESSAGE, "email": LEAD["email"], "phone": LEAD["phone"]}
    return [
        Call("/leads/", 201, body, headers={"Idempotency-Key": theirs.idempotency_key}),
        Call("/leads/", 201, body | {"tenant_id": str(theirs.workspace_id)}, headers={"Idempotency-Key": str(uuid.uuid4()), "X-Tenant-ID": str(theirs.workspace_id)}),
    ]  # fmt: skip


def _post_enrich(theirs: Theirs) -> list[Call]:
    body = {"message": MESSAGE, "email": LEAD["email"], "phone": LEAD["phone"]}
    return [Call("/enrich-lead", 200, body), Call("/enrich-lead", 200, {"message": MESSAGE, "email": LEAD["email"]})]


def _post_crm(theirs: Theirs) -> list[Call]:
    same = {name: LEAD[name] for name in ("lead_id", "email", "phone")}
    return [Call("/leads", 200, same), Call("/leads", 200, same | {"tenant_id": str(theirs.workspace_id)})]


def _found(_: Theirs) -> list[Call]:
    parts = [{"name": "eatri"}, {"email": "beatrix@"}, {"phone": "912345"}, {"name": "Beatrix", "email": "quill"}]
    return [Call("/leads/search", 200, query=query, shows=True) for query in parts]


def _deliveries(theirs: Theirs) -> list[Call]:
    path = "/api/v1/deliveries"
    return [
        Call(path, 200, shows=True),
        Call(path, 200, query={"state": "pending"}, shows=True),
        Call(path, 200, query={"destination": "quill hook"}, shows=True),
        *(Call(path, 404, query={"lead": known}, shows=True) for known in theirs.ids),
    ]


def _trail(theirs: Theirs) -> list[Call]:
    path = "/api/v1/audit"
    return [
        Call(path, 200, shows=True),
        Call(path, 200, query={"event_type": "LEAD_APPROVED"}, shows=True),
        *(Call(path, 404, query={"lead": known}, shows=True) for known in theirs.ids),
    ]


def _post_v1(theirs: Theirs) -> list[Call]:
    same = {name: LEAD[name] for name in ("lead_id", "message", "email")}
    return [Call("/api/v1/leads", 201, same, headers={"Idempotency-Key": theirs.idempotency_key})]


def _post_batch(theirs: Theirs) -> list[Call]:
    same = {name: LEAD[name] for name in ("message", "email")}
    return [Call("/api/v1/leads/batch", 200, [same], headers={"Idempotency-Key": theirs.idempotency_key})]


def _post_import(theirs: Theirs) -> list[Call]:
    same = {name: LEAD[name] for name in ("lead_id", "message", "email")}
    return [Call("/api/v1/imports", 202, [same], headers={"Idempotency-Key": theirs.idempotency_key})]


def _post_webhook(theirs: Theirs) -> list[Call]:
    tenant = str(theirs.workspace_id)
    change = {
        "field": "feed",
        "value": {"item": "comment", "verb": "add", "comment_id": "c-new", "message": "price?", "from": {"id": "x"}},
    }
    return [
        Call("/webhooks/facebook", 403, COMMENT | {"comment_id": "c-1", "tenant_id": tenant}),
        Call("/webhooks/facebook", 403, COMMENT | {"comment_id": "c-2"}, headers={"X-Tenant-ID": tenant}),
        Call("/webhooks/facebook", 403, {"object": "page", "entry": [{"id": PAGE, "changes": [change]}]}),
        # A comment that B has seen already is news to A.
        Call("/webhooks/facebook", 200, COMMENT),
    ]


def _post_whatsapp(theirs: Theirs) -> list[Call]:
    tenant = str(theirs.workspace_id)
    said = {"id": "wamid.1", "from": "14155550000", "type": "text", "text": {"body": "price?"}}

    def sent(number: str) -> dict[str, Any]:
        value = {"metadata": {"phone_number_id": number}, "messages": [said]}
        return {"object": "whatsapp_business_account", "entry": [{"changes": [{"field": "messages", "value": value}]}]}

    return [
        Call("/webhooks/whatsapp", 403, sent("free") | {"tenant_id": tenant}),
        Call("/webhooks/whatsapp", 403, sent("free"), headers={"X-Tenant-ID": tenant}),
        Call("/webhooks/whatsapp", 403, sent(PAGE)),
        Call("/webhooks/whatsapp", 200, sent("free")),
    ]


def _quarantined(theirs: Theirs) -> list[Call]:
    path = "/api/v1/quarantine"
    return [Call(path, 200, query=query, shows=True) for query in ({}, {"state": "held"}, {"dialect": "facebook"})]


#: (method, address) → what it needs and how to reach through it for another workspace's lead.
DOORS: dict[tuple[str, str], Door] = {
    ("GET", "/healthz"): Door(None),
    ("GET", "/health"): Door(None),
    ("GET", "/readyz"): Door(None),
    ("GET", "/api/openapi.json"): Door(None),
    ("GET", "/api/docs"): Door(None),
    # That the figures are the workspace's own: tests/api/test_metrics.py
    ("GET", "/metrics"): Door(Scope.ADMIN, lambda _: [Call("/metrics", 200)], platform=True),
    ("GET", "/webhooks/facebook"): Door(None, status=403),  # its proof is the verify token
    ("POST", "/webhooks/facebook"): Door(Scope.INGEST, _post_webhook),
    ("GET", "/webhooks/whatsapp"): Door(None, status=403),
    # Its proof is the token in the address: tests/api/test_hooks.py
    ("POST", "/hooks/<token>"): Door(None, status=404),
    ("GET", "/api/v1/quarantine"): Door(Scope.ADMIN, _quarantined),
    ("GET", "/api/v1/quarantine/<uuid:entry_id>"): Door(
        Scope.ADMIN, lambda b: [Call(f"/api/v1/quarantine/{b.held_id}", 404, shows=True)]
    ),
    ("POST", "/api/v1/quarantine/<uuid:entry_id>/replay"): Door(
        Scope.ADMIN,
        lambda b: [
            Call(f"/api/v1/quarantine/{b.held_id}/replay", 404, body, shows=True)
            for body in (None, {}, {"fixed": COMMENT | {"comment_id": "c-mended"}})
        ],
    ),
    ("POST", "/api/v1/quarantine/<uuid:entry_id>/discard"): Door(
        Scope.ADMIN, lambda b: [Call(f"/api/v1/quarantine/{b.held_id}/discard", 404, shows=True)]
    ),
    ("POST", "/api/v1/quarantine/<uuid:entry_id>/restore"): Door(
        Scope.ADMIN, lambda b: [Call(f"/api/v1/quarantine/{b.held_id}/restore", 404, shows=True)]
    ),
    ("POST", "/webhooks/whatsapp"): Door(Scope.INGEST, _post_whatsapp),
    ("POST", "/leads"): Door(Scope.INGEST, _post_crm),
    ("GET", "/leads/search"): Door(Scope.READ, _found),
    # Neither has a CRM here: what they do with one is in tests/leads/test_crm_sync.py.
    ("POST", "/sync-crm"): Door(Scope.REVIEW, lambda _: [Call("/sync-crm", 409)]),
    ("POST", "/tasks/auto-assign"): Door(Scope.REVIEW, lambda _: [Call("/tasks/auto-assign", 409)]),
    ("GET", "/sync-crm/<uuid:request_id>"): Door(Scope.READ, lambda b: [Call(f"/sync-crm/{b.sync_id}", 404)]),
    ("GET", "/tasks/auto-assign/<uuid:request_id>"): Door(
        Scope.READ, lambda b: [Call(f"/tasks/auto-assign/{b.round_id}", 404, shows=True)]
    ),
    ("POST", "/onboarding"): Door(Scope.PLATFORM),  # no workspace's: tests/api/test_onboarding.py
    ("POST", "/leads/"): Door(Scope.INGEST, _post_triage),
    ("POST", "/enrich-lead"): Door(Scope.INGEST, _post_enrich),
    ("GET", "/leads"): Door(Scope.READ, _lists_triage("/leads")),
    ("GET", "/leads/"): Door(Scope.READ, _lists_triage("/leads/")),
    ("GET", "/leads/<lead_id>"): Door(Scope.READ, _of_lead("/leads/{id}")),
    ("GET", "/leads/<lead_id>/insight"): Door(Scope.READ, _of_lead("/leads/{id}/insight")),
    ("GET", "/api/leads"): Door(Scope.READ, _lists_signals),
    ("GET", "/audit/events"): Door(Scope.READ, _events),
    ("POST", "/api/v1/leads"): Door(Scope.INGEST, _post_v1),
    ("POST", "/api/v1/leads/batch"): Door(Scope.INGEST, _post_batch),
    ("POST", "/api/v1/imports"): Door(Scope.INGEST, _post_import),
    ("GET", "/api/v1/imports"): Door(
        Scope.READ,
        lambda b: [
            Call("/api/v1/imports", 200, shows=True),
            Call("/api/v1/imports", 400, query={"cursor": str(b.import_id)}),
        ],
    ),
    ("GET", "/api/v1/imports/<uuid:import_id>"): Door(
        Scope.READ, lambda b: [Call(f"/api/v1/imports/{b.import_id}", 404, shows=True)]
    ),
    ("GET", "/api/v1/imports/<uuid:import_id>/errors"): Door(
        Scope.READ, lambda b: [Call(f"/api/v1/imports/{b.import_id}/errors", 404)]
    ),
    ("POST", "/api/v1/imports/<uuid:import_id>/cancel"): Door(
        Scope.INGEST, lambda b: [Call(f"/api/v1/imports/{b.import_id}/cancel", 404)]
    ),
    ("POST", "/api/v1/imports/<uuid:import_id>/undo"): Door(
        Scope.ADMIN, lambda b: [Call(f"/api/v1/imports/{b.import_id}/undo", 404)]
    ),
    ("GET", "/api/v1/leads"): Door(Scope.READ, _lists_v1),
    ("GET", "/api/v1/leads/<lead_id>"): Door(Scope.READ, _of_lead("/api/v1/leads/{id}")),
    ("GET", "/api/v1/runs/<uuid:run_id>"): Door(
        Scope.READ, lambda b: [Call(f"/api/v1/runs/{b.run_id}", 404, shows=True)]
    ),
    ("GET", "/api/v1/deliveries"): Door(Scope.READ, _deliveries),
    ("GET", "/api/v1/deliveries/<uuid:delivery_id>"): Door(
        Scope.READ, lambda b: [Call(f"/api/v1/deliveries/{b.delivery_id}", 404, shows=True)]
    ),
    ("POST", "/api/v1/deliveries/<uuid:delivery_id>/replay"): Door(
        Scope.REVIEW, lambda b: [Call(f"/api/v1/deliveries/{b.delivery_id}/replay", 404)]
    ),
    ("GET", "/api/v1/audit"): Door(Scope.READ, _trail),
    ("GET", "/api/v1/stats"): Door(Scope.READ, lambda _: [Call("/api/v1/stats", 200, shows=True)]),
    ("GET", "/api/v1/leads/<lead_id>/runs"): Door(Scope.READ, _of_lead("/api/v1/leads/{id}/runs")),
    ("POST", "/api/v1/leads/<lead_id>/rerun"): Door(Scope.REVIEW, _of_lead("/api/v1/leads/{id}/rerun")),
    ("POST", "/api/v1/leads/<lead_id>/outcome"): Door(
        Scope.REVIEW, _of_lead("/api/v1/leads/{id}/outcome", lambda _: [{"outcome": "won", "external_id": "deal-1"}])
    ),
    ("GET", "/api/v1/leads/<lead_id>/outcomes"): Door(Scope.READ, _of_lead("/api/v1/leads/{id}/outcomes")),
    ("POST", "/api/v1/leads/<lead_id>/decision"): Door(
        Scope.REVIEW, _of_lead("/api/v1/leads/{id}/decision", _decisions)
    ),
}
KEYED = {
    f"{method} {rule}": (method, door)
    for (method, rule), door in DOORS.items()
    if door.scope not in (None, Scope.PLATFORM)
}
OPEN = {f"{method} {rule}": (method, rule, door) for (method, rule), door in DOORS.items() if door.scope is None}

every_keyed_door = pytest.mark.parametrize(("method", "door"), KEYED.values(), ids=KEYED)


def test_no_door_is_forgotten(app: Flask) -> None:
    found = set()
    for rule in app.url_map.iter_rules():
        if is_json_path(rule.rule):
            found |= {(method, rule.rule) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
        else:
            module = app.view_functions[rule.endpoint].__module__
            assert not module.startswith("webapp.api"), f"{rule.rule} is a door outside of JSON_ROOTS"
    assert found - set(DOORS) == set(), "say in DOORS how to reach through them for another workspace's lead"
    assert set(DOORS) - found == set(), "these doors are gone"


@pytest.fixture
def theirs(client: FlaskClient, session: Session, session_factory: sessionmaker[Session]) -> Theirs:
    """A decided lead of workspace B with a person, an assignee, a touch, runs, deliveries; and a social one."""
    b = factories.make_workspace(session, "quill workspace")
    user = factories.make_user(
        session, b, email="rep@quill.example", name="Rep of Quill", role=Role.REVIEWER, takes_leads=True
    )
    session.add(Destination(workspace_id=b.id, kind=DestinationKind.WEBHOOK, name="quill hook"))
    session.add(SocialPage(platform="facebook", page_id=PAGE, workspace_id=b.id))
    session.add(SocialPage(platform="whatsapp", page_id=PAGE, workspace_id=b.id))
    session.commit()
    headers = {"X-API-Key": factories.make_key(session, b)}
    key = str(uuid.uuid4())
    made = client.post("/api/v1/leads", json=LEAD, headers=headers)
    assert made.status_code == 201, made.text
    lead_id = uuid.UUID(made.json["id"])
    touched = client.post(
        "/leads/",
        json={"note": MESSAGE, "email": LEAD["email"], "name": LEAD["name"]},
        headers=headers | {"Idempotency-Key": key},
    )
    assert (touched.status_code, touched.json["id"]) == (201, str(lead_id))
    assert client.post("/webhooks/facebook", json=COMMENT, headers=headers).json["created"] == 1
    assert run.process(session_factory, Holder()).done == 2
    judged = client.get(f"/api/v1/leads/{lead_id}", headers=headers).json
    decided = client.post(
        f"/api/v1/leads/{lead_id}/decision",
        json={"action": "approve", "version": judged["version"], "reason": "Quill is a friend of the house"},
        headers=headers,
    ).json
    assert decided["status"] == "approved" and decided["touches"] == 2 and decided["assignee_id"] == str(user.id)
    reported = {"outcome": "open", "external_id": "deal-0"}
    assert client.post(f"/api/v1/leads/{lead_id}/outcome", json=reported, headers=headers).status_code == 201
    for model in (Decision, Delivery, Touch):
        assert session.scalar(sa.select(sa.func.count()).select_from(model)), model
    newest = client.get("/api/v1/leads?limit=1", headers=headers).json
    sync = SyncRequest(workspace_id=b.id, lead_ids=[lead_id], requested_by="Quill's program")
    failed = {"customer": LEAD["name"], "error": "answered 400"}
    done = TaskRequest(workspace_id=b.id, state=TaskRequestState.DONE, details=[failed], requested_by="Quill's program")
    session.add_all([sync, done])
    unread = {name: value for name, value in COMMENT.items() if name != "comment_id"}
    came = Import(workspace_id=b.id, filename="quill.csv", format="csv", created_by="Rep of Quill")
    session.add(came)
    kept = quarantine(session, b.id, IntakeDoor.SOCIAL, "facebook", Bad("comment_id is missing or no text", unread))
    session.commit()
    ran, sent = (
        session.scalars(sa.select(model.id).where(model.lead_id == lead_id)).first() for model in (Run, Delivery)
    )
    assert ran and sent
    return Theirs(
        workspace_id=b.id,
        headers=headers,
        lead_id=lead_id,
        person_id=uuid.UUID(decided["person_id"]),
        user_id=user.id,
        version=decided["version"],
        idempotency_key=key,
        cursor=newest["next_cursor"],
        run_id=ran,
        delivery_id=sent,
        sync_id=sync.id,
        round_id=done.id,
        held_id=kept.id,
        import_id=came.id,
    )


def held(session: Session, theirs: Theirs) -> dict[str, list[dict[str, Any]]]:
    """All rows of workspace B and all that hang on its leads and people, whoever's they say they are."""
    session.rollback()
    mine = {
        "workspace_id": sa.literal(theirs.workspace_id, sa.Uuid),
        "lead_id": sa.select(Lead.id).where(Lead.workspace_id == theirs.workspace_id),
        "person_id": sa.literal(theirs.person_id, sa.Uuid),
    }
    found = {}
    for table in db.metadata.sorted_tables:
        which = [table.c[name].in_([rows] if isinstance(rows, sa.BindParameter) else rows)
                 for name, rows in mine.items() if name in table.c]  # fmt: skip
        if which:
            rows = session.execute(sa.select(table).where(sa.or_(*which)).order_by(*table.primary_key))
            found[table.name] = [dict(row._mapping) for row in rows]
    session.rollback()
    return found


def secrets(rows: dict[str, list[dict[str, Any]]]) -> set[str]:
    """What must not be seen: every id among ``rows``, and every word by which B's people are known."""
    ids = {str(value) for table in rows.values() for row in table for value in row.values()
           if isinstance(value, uuid.UUID)}  # fmt: skip
    words = {"Beatrix", "zeppelin", "Zeppelins", "moorings", "quill", "Quill", "84912345670", "b_landing", "b-crm-70"}
    return ids | words | {COMMENT["sender_name"], COMMENT["sender_id"], COMMENT["post_id"], COMMENT["comment_id"]}


def do(client: FlaskClient, method: str, call: Call, headers: dict[str, str]) -> Any:
    return client.open(
        call.path, method=method, json=call.body, query_string=call.query, headers=call.headers | headers
    )


def seen(answer: Any, hidden: set[str]) -> set[str]:
    everything = f"{answer.text}\n{answer.headers}"
    return {secret for secret in hidden if secret in everything}


@every_keyed_door
def test_a_key_reaches_nothing_of_another_workspace(
    client: FlaskClient, headers: dict[str, str], session: Session, theirs: Theirs, method: str, door: Door
) -> None:
    before = held(session, theirs)
    hidden = secrets(before)
    calls = door.calls(theirs)
    assert calls
    for call in calls:
        answer = do(client, method, call, headers)
        assert answer.status_code == call.status, (call, answer.text)
        said = json.dumps(call.body) if door.scope is Scope.INGEST else ""  # what A sent is A's, and echoed
        assert seen(answer, {secret for secret in hidden if secret not in said}) == set(), (call, answer.text)
    assert held(session, theirs) == before
    # The same calls are good ones for who the lead belongs to, or nothing would have been shown by the above.
    for call in calls:
        answer = do(client, method, call, theirs.headers)
        assert answer.status_code in (200, 201, 202, 409), (call, answer.text)
        assert not call.shows or answer.status_code == 409 or seen(answer, hidden), call


@pytest.mark.parametrize(
    ("method", "rule"), [key for key in DOORS if "<lead_id>" in key[1]], ids=lambda value: str(value)
)
def test_anothers_lead_looks_like_one_that_does_not_exist(
    client: FlaskClient, headers: dict[str, str], theirs: Theirs, method: str, rule: str
) -> None:
    asked = headers | {"X-Request-ID": "same"}
    bodies = {"decision": _decisions(theirs)[0], "outcome": {"outcome": "won"}}
    body = bodies.get(rule.rpartition("/")[2])
    answers = [
        client.open(rule.replace("<lead_id>", str(one)), method=method, json=body, headers=asked)
        for one in (theirs.lead_id, uuid.uuid4())
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].data == answers[1].data


def test_leads_that_are_alike_in_two_workspaces_stay_two(
    client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace, theirs: Theirs
) -> None:
    made = client.post("/api/v1/leads", json=LEAD, headers=headers).json
    assert made["touches"] == 1 and made["status"].startswith("new_") and made["decided_by"] is None
    assert made["person_id"] != str(theirs.person_id) and made["assignee_id"] is None
    both = [client.get(f"/api/v1/leads/{LEAD['lead_id']}", headers=h).json["id"] for h in (headers, theirs.headers)]
    assert both == [made["id"], str(theirs.lead_id)]
    for path in (f"/leads/{theirs.lead_id}", f"/leads/{made['id']}"):
        assert sorted(client.get(path, headers=h).status_code for h in (headers, theirs.headers)) == [200, 404]
    listed = client.get("/api/leads", headers=headers).json
    assert (listed["tenant_id"], listed["total"]) == (str(workspace.id), 1)
    events = client.get("/audit/events", headers=headers).json
    assert {(event["tenant_id"], event["lead_id"]) for event in events} == {(str(workspace.id), made["id"])}
    stored = session.execute(sa.select(IdempotencyKey.workspace_id, IdempotencyKey.lead_id)).all()
    assert all((row.workspace_id == theirs.workspace_id) == (row.lead_id == theirs.lead_id) for row in stored)
    assert session.scalar(sa.select(sa.func.count()).select_from(AuditEvent)) > len(events)


def refused(answer: Any, status: int, code: str) -> None:
    """With the envelope, under the request id that was sent."""
    assert answer.status_code == status, answer.text
    assert answer.headers["X-Request-ID"] == "asked-1"
    if answer.request.method == "HEAD":
        return
    error = answer.json["error"]
    assert list(answer.json) == ["error"] and set(error) == {"code", "message", "details", "request_id"}
    assert (error["code"], error["request_id"]) == (code, "asked-1")
    assert error["message"] and isinstance(error["details"], list)


@pytest.fixture
def no_proof(session: Session, workspace: Workspace) -> list[tuple[dict[str, str], str]]:
    """Headers that prove nothing, with the code of the refusal."""
    revoked, expired = factories.make_key(session, workspace), factories.make_key(session, workspace)
    now = datetime.now(UTC)
    for secret, change in ((revoked, {"revoked_at": now}), (expired, {"expires_at": now - timedelta(days=1)})):
        which = ApiKey.key_hash == hashlib.sha256(secret.encode()).digest()
        session.execute(sa.update(ApiKey).where(which).values(**change))
    session.commit()
    return [
        ({}, "invalid_auth"),
        ({"X-API-Key": "", "Authorization": "Bearer "}, "invalid_auth"),
        ({"X-API-Key": "lo_" + "x" * 43}, "invalid_auth"),
        ({"Authorization": f"Bearer {workspace.id}"}, "invalid_auth"),
        ({"Authorization": "Basic YTpi"}, "invalid_auth"),
        ({"X-API-Key": revoked}, "invalid_auth"),
        ({"Authorization": f"Bearer {expired}"}, "expired_key"),
        ({"X-Hub-Signature-256": "sha256=" + "0" * 64}, "invalid_auth"),
    ]


@every_keyed_door
def test_without_a_good_credential_it_is_401_whatever_is_asked_for(
    client: FlaskClient,
    session: Session,
    login: Callable[..., Any],
    no_proof: list[tuple[dict[str, str], str]],
    theirs: Theirs,
    method: str,
    door: Door,
) -> None:
    before = held(session, theirs)
    calls = door.calls(theirs)
    assert calls
    login(client, Role.ADMIN)  # nor does a browser's session open a door for programs
    for credential, code in no_proof:
        for call in calls:
            for verb in ("GET", "HEAD") if method == "GET" else (method,):
                refused(do(client, verb, call, credential | ASKED), 401, code)
    assert held(session, theirs) == before


@every_keyed_door
def test_a_key_without_the_scope_is_403_at_its_own_workspace_too(
    client: FlaskClient, session: Session, theirs: Theirs, method: str, door: Door
) -> None:
    assert door.scope is not None
    b = session.get_one(Workspace, theirs.workspace_id)
    lacking = [factories.make_key(session, b, scopes=factories.ALL_SCOPES - {door.scope})]
    if not door.platform:
        lacking.append(create_key(session, workspace_id=None, name="platform", scopes={Scope.PLATFORM})[1])
    enough = factories.make_key(session, b, scopes={door.scope})
    session.commit()
    calls = door.calls(theirs)
    for secret in lacking:
        for call in calls:
            for verb in ("GET", "HEAD") if method == "GET" else (method,):
                refused(do(client, verb, call, {"X-API-Key": secret} | ASKED), 403, "insufficient_scope")
    for call in calls:
        assert do(client, method, call, {"X-API-Key": enough}).status_code not in (401, 403), call


@pytest.mark.parametrize(("method", "rule", "door"), OPEN.values(), ids=OPEN)
def test_open_doors_answer_everybody_alike(
    client: FlaskClient, headers: dict[str, str], theirs: Theirs, session: Session, method: str, rule: str, door: Door
) -> None:
    before = held(session, theirs)
    hidden = secrets(before)
    for credential in ({}, headers, {"X-API-Key": "lo_nobody's"}):
        answer = client.open(rule, method=method, headers=credential | ASKED)
        assert (answer.status_code, answer.headers["X-Request-ID"]) == (door.status, "asked-1")
        assert seen(answer, hidden) == set()
        if door.status >= 400:
            refused(answer, door.status, CODES[door.status])
    assert held(session, theirs) == before

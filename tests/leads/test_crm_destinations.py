"""HubSpot and Salesforce from the form to the other side: sent, changed, taken back, brought back; out of order."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests.fakes.hubspot import HubspotFake
from tests.fakes.salesforce import CLIENT_ID, CLIENT_SECRET, LEAD_FIELD, SalesforceFake
from tests.fakes.slack import SlackFake
from tests.fakes.twenty import TwentyFake
from tests.leads.delivering import CIPHER, EAGER, all_states, clients, drain, planned, rows, states
from webapp.leads import alerting, destinations, kinds, review, trial
from webapp.leads.destinations import Wanted
from webapp.leads.errors import Invalid
from webapp.leads.ports import Unusable
from webapp.leads.review import Actor
from webapp.leads.states import AlertState, DecisionAction, DestinationKind, Priority, RejectReason
from webapp.models import Alert, DeliveryAttempt, Destination, Lead, Workspace

Factory = sessionmaker[Session]


@dataclass(frozen=True)
class Crm:
    """``task``: its tasks as (title, state, priority)."""

    kind: DestinationKind
    fake: Any
    values: dict[str, str]
    people: Callable[[], list[Any]]
    tasks: Callable[[], list[tuple[str, str, str]]]
    states: tuple[str, str]  # open, closed


def _hubspot(fake: HubspotFake) -> Crm:
    def tasks() -> list[tuple[str, str, str]]:
        of = ("hs_task_subject", "hs_task_status", "hs_task_priority")
        return [tuple(task["properties"][name] for name in of) for task in fake.tasks]  # type: ignore[misc]

    values = {"url": fake.url, "token": fake.token}
    return Crm(DestinationKind.HUBSPOT, fake, values, lambda: fake.contacts, tasks, ("NOT_STARTED", "COMPLETED"))


def _salesforce(fake: SalesforceFake) -> Crm:
    def tasks() -> list[tuple[str, str, str]]:
        return [(task["Subject"], task["Status"], task["Priority"]) for task in fake.tasks]

    values = {
        "url": fake.url, "grant": "client_credentials", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
        "lead_field": LEAD_FIELD,
    }  # fmt: skip
    return Crm(DestinationKind.SALESFORCE, fake, values, lambda: fake.leads, tasks, ("Not Started", "Completed"))


@pytest.fixture(params=["hubspot", "salesforce"])
def crm(request: pytest.FixtureRequest) -> Iterator[Crm]:
    with ExitStack() as stack:
        if request.param == "hubspot":
            yield _hubspot(stack.enter_context(HubspotFake()))
        else:
            yield _salesforce(stack.enter_context(SalesforceFake()))


def _made(session: Session, workspace: Workspace, crm: Crm, **over: str) -> Destination:
    row, _ = destinations.create(
        session,
        workspace.id,
        crm.kind,
        Wanted("CRM", crm.values | over, {"per_second": "", "per_minute": ""}),
        cipher=CIPHER,
    )
    session.commit()
    return row


def _decide(session: Session, lead: Lead, action: DecisionAction, **more: Any) -> None:
    session.refresh(lead)
    if action is DecisionAction.REJECT:
        more = {"reject_reason": RejectReason.SPAM}
    review.decide(
        session,
        lead.workspace_id,
        lead.id,
        action=action,
        version=lead.version,
        actor=Actor("Mai"),
        undo_seconds=0,
        **more,
    )
    session.commit()


def test_a_lead_goes_there_and_its_task_follows_what_is_decided(
    session: Session, workspace: Workspace, session_factory: Factory, crm: Crm
) -> None:
    _made(session, workspace, crm)
    lead = planned(session, workspace, email="ana@example.com", name="Ana Nguyễn", priority=Priority.P1)
    opened, closed = crm.states
    drain(session_factory)
    assert crm.tasks() == [("📞 Sales Follow-up — Ana Nguyễn", opened, crm.tasks()[0][2])]
    assert crm.tasks()[0][2].lower() == "high"
    _decide(session, lead, DecisionAction.OVERRIDE, priority=Priority.P3)
    drain(session_factory)
    assert [task[1:] for task in crm.tasks()] == [(opened, crm.tasks()[0][2])] and crm.tasks()[0][2].lower() == "low"
    _decide(session, lead, DecisionAction.REJECT)
    drain(session_factory)
    assert [task[1] for task in crm.tasks()] == [closed] and crm.tasks()[0][0].startswith("✕ Withdrawn")
    assert states(session, lead)["task"] == "withdrawn"
    _decide(session, lead, DecisionAction.APPROVE)
    drain(session_factory)
    assert [task[1] for task in crm.tasks()] == [opened] and len(crm.people()) == 1
    assert set(states(session, lead).values()) == {"delivered"}


def test_somebody_who_writes_again_is_one_person_with_two_tasks(
    session: Session, workspace: Workspace, session_factory: Factory, crm: Crm
) -> None:
    _made(session, workspace, crm)
    for message in ("How much is it for 5 seats?", "Can we have a demo on Monday?"):
        planned(session, workspace, message=message, email="ana@example.com")
        drain(session_factory)
    assert (len(crm.people()), len(crm.tasks())) == (1, 2)


def test_a_task_that_somebody_deleted_stays_with_a_person(
    session: Session, workspace: Workspace, session_factory: Factory, crm: Crm
) -> None:
    _made(session, workspace, crm)
    lead = planned(session, workspace, email="ana@example.com")
    drain(session_factory)
    remote = str(rows(session, lead)["task"].remote_id)
    if isinstance(crm.fake, SalesforceFake):
        crm.fake.delete(remote)
    else:
        crm.fake.store["tasks"][remote]["archived"] = True
    _decide(session, lead, DecisionAction.OVERRIDE, priority=Priority.P0)
    drain(session_factory)
    task = rows(session, lead)["task"]
    assert (task.state.value, crm.tasks()) == ("dead", [])
    assert "not in" in (task.last_error or "") and "any more" in (task.last_error or "")


def test_the_test_button_s_call_and_watching_write_nothing(
    session: Session, workspace: Workspace, session_factory: Factory, crm: Crm
) -> None:
    row = _made(session, workspace, crm)
    assert clients().client_for(trial.target(row)).probe()
    row.mode = destinations.DestinationMode.SHADOW
    session.commit()
    lead = planned(session, workspace, email="ana@example.com")
    drain(session_factory)
    assert set(states(session, lead).values()) == {"shadowed"}
    assert rows(session, lead)["task"].payload and rows(session, lead)["person"].payload
    assert (crm.people(), crm.tasks()) == ([], [])


def test_a_budget_of_the_kind_s_own_is_set_unless_another_is(session: Session, workspace: Workspace, crm: Crm) -> None:
    wanted = Wanted("CRM", crm.values, {})
    row, _ = destinations.create(session, workspace.id, crm.kind, wanted, cipher=CIPHER)
    assert row.options["per_second"] == 10
    assert crm.values.get("token", CLIENT_SECRET) not in str(row.config)


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        (DestinationKind.HUBSPOT, {"id_property": "Lead Ops"}, "id_property"),
        (DestinationKind.HUBSPOT, {"url": "ftp://api.hubapi.com"}, "url"),
        (DestinationKind.SALESFORCE, {"lead_field": "Email"}, "lead_field"),
        (DestinationKind.SALESFORCE, {"task_field": "x'y__c"}, "task_field"),
        (DestinationKind.SALESFORCE, {"grant": "password"}, "grant"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind: DestinationKind, values: dict[str, str], field: str) -> None:
    _, _, problems = kinds.of(kind).read(values)
    assert field in {problem.field for problem in problems}


@pytest.mark.parametrize("url", ["http://93.184.215.14", "http://93.184.215.14:8080"])
def test_a_credential_does_not_go_over_plain_http(
    session: Session, workspace: Workspace, session_factory: Factory, crm: Crm, url: str
) -> None:
    row = _made(session, workspace, crm, url=url)
    with pytest.raises(Unusable, match="over plain http"):
        clients().client_for(trial.target(row)).probe()
    planned(session, workspace, email="ana@example.com")
    drain(session_factory)
    assert all_states(session) == {"pending"}


_MAIL = {
    "host": "smtp.example.com", "port": "587", "security": "starttls", "user": "leads", "password": "open-sesame",
    "sender": "leads@example.com", "to": "ana@example.com", "when": "each",
}  # fmt: skip
_CLIENT = {"grant": "client_credentials", "client_id": "key", "client_secret": "open-sesame", "lead_field": LEAD_FIELD}
_REFRESH = {"grant": "refresh_token", "client_id": "key", "refresh_token": "open-sesame", "lead_field": LEAD_FIELD}


@pytest.mark.parametrize(
    ("kind", "values", "field", "elsewhere", "secret"),
    [
        (DestinationKind.HUBSPOT, {"url": "https://api.hubapi.com", "token": "open-sesame"}, "url", "https://e.example", "token"),
        (DestinationKind.SALESFORCE, {"url": "https://a.example", **_CLIENT}, "url", "https://e.example", "client_secret"),
        (DestinationKind.SALESFORCE, {"url": "https://a.example", **_REFRESH}, "url", "https://e.example", "refresh_token"),
        (
            DestinationKind.TWENTY,
            {"url": "https://a.example/rest", "token": "open-sesame", "task_target_field": "targetPersonId"},
            "url", "http://a.example/rest", "token",
        ),
        (DestinationKind.EMAIL, _MAIL, "host", "smtp.evil.example", "password"),
        (DestinationKind.EMAIL, _MAIL, "port", "2525", "password"),
        (DestinationKind.EMAIL, _MAIL, "security", "tls", "password"),
    ],
)  # fmt: skip
def test_a_stored_secret_does_not_go_to_another_address(
    session: Session,
    workspace: Workspace,
    kind: DestinationKind,
    values: dict[str, str],
    field: str,
    elsewhere: str,
    secret: str,
) -> None:
    row, _ = destinations.create(session, workspace.id, kind, Wanted("There", values, {}), cipher=CIPHER)
    session.commit()

    def saved(**over: str) -> dict[str, Any]:
        wanted = Wanted("There", {**values, secret: "", **over}, {})
        changed = destinations.change(session, workspace.id, row.id, wanted, cipher=CIPHER, actor="Mai")
        session.commit()
        return dict(CIPHER.decrypt(str(changed.credentials)))

    assert saved() == {secret: "open-sesame"}  # the address is the same
    with pytest.raises(Invalid) as refused:
        saved(**{field: elsewhere})
    assert [(problem.field, problem.reason) for problem in refused.value.details] == [
        (secret, "has to be entered again, since it would be sent to another address than before")
    ]
    session.rollback()
    assert str(row.config[field]) == values[field]
    assert saved(**{field: elsewhere, secret: "another"}) == {secret: "another"}


def test_a_mail_server_without_a_login_is_changed_without_its_old_password(
    session: Session, workspace: Workspace
) -> None:
    row, _ = destinations.create(session, workspace.id, DestinationKind.EMAIL, Wanted("M", _MAIL, {}), cipher=CIPHER)
    without = Wanted("M", _MAIL | {"host": "smtp.other.example", "user": "", "password": ""}, {})
    changed = destinations.change(session, workspace.id, row.id, without, cipher=CIPHER, actor="Mai")
    assert CIPHER.decrypt(str(changed.credentials)) == {}


def test_while_salesforce_does_not_log_in_deliveries_wait_and_admins_are_told(
    session: Session, workspace: Workspace, session_factory: Factory
) -> None:
    with SalesforceFake() as org:
        row = _made(session, workspace, _salesforce(org), client_secret="an-old-secret")
        for number in range(5):
            planned(session, workspace, email=f"{number}@example.com")
        policy = replace(EAGER, breaker_seconds=0.01)
        drain(session_factory, policy=policy)
        assert all_states(session) == {"pending"}
        assert session.scalar(sa.select(sa.func.count()).select_from(DeliveryAttempt)) == 0
        (alert,) = session.scalars(sa.select(Alert))
        assert alert.kind == alerting.UNUSABLE and "consumer key and secret do not fit" in alert.message
        given = Wanted("CRM", _salesforce(org).values, {"per_second": "", "per_minute": ""})
        destinations.change(session, workspace.id, row.id, given, cipher=CIPHER, actor="Mai")
        session.commit()
        session.execute(sa.update(Destination).values(open_until=sa.func.now()))
        session.commit()
        for _ in range(2):  # the first as a probe
            drain(session_factory, policy=policy)
        alerting.settle(session)  # the clock's
        session.commit()
        session.refresh(alert)
        assert (alert.state, all_states(session), len(org.leads)) == (AlertState.RESOLVED, {"delivered"}, 5)


@pytest.mark.parametrize("kind", [DestinationKind.HUBSPOT, DestinationKind.TWENTY, DestinationKind.SLACK])
def test_while_a_credential_is_refused_deliveries_wait_with_one_alert_and_go_out_once_it_is_good(
    session: Session, workspace: Workspace, session_factory: Factory, kind: DestinationKind
) -> None:
    fakes: dict[DestinationKind, Any] = {
        DestinationKind.HUBSPOT: HubspotFake, DestinationKind.TWENTY: TwentyFake, DestinationKind.SLACK: SlackFake,
    }  # fmt: skip
    with fakes[kind]() as fake:
        config = {"channel": "C0LEADS"} if kind is DestinationKind.SLACK else {"url": fake.url}
        credentials = CIPHER.encrypt({"token": fake.token})
        row = Destination(workspace_id=workspace.id, kind=kind, name="There", config=config, credentials=credentials)
        session.add(row)
        session.commit()
        good, fake.token = fake.token, "another-token"
        for number in range(5):
            planned(session, workspace, email=f"{number}@example.com")
        registry = clients(slack_api_url=f"{fake.root}/api")
        policy = replace(EAGER, breaker_seconds=0.01)

        def try_again() -> None:
            session.execute(sa.update(Destination).values(open_until=sa.func.now()))
            session.commit()
            drain(session_factory, policy=policy, registry=registry)

        for _ in range(3):
            try_again()
        assert all_states(session) == {"pending"}
        assert session.scalar(sa.select(sa.func.count()).select_from(DeliveryAttempt)) == 0
        (alert,) = session.scalars(sa.select(Alert))
        assert (alert.kind, alert.times) == (alerting.UNUSABLE, 1)
        assert "deliveries wait" in alert.message
        fake.token = good
        for _ in range(2):  # the first as a probe
            try_again()
        alerting.settle(session)
        session.commit()
        session.refresh(alert)
        assert (alert.state, all_states(session)) == (AlertState.RESOLVED, {"delivered"})


def test_the_secret_with_which_it_logs_in_is_asked_for(session: Session, workspace: Workspace) -> None:
    with SalesforceFake() as org:
        crm = _salesforce(org)
    for over, field in (({"grant": "refresh_token"}, "refresh_token"), ({"client_secret": ""}, "client_secret")):
        with pytest.raises(Invalid) as refused:
            _made(session, workspace, crm, **over)
        assert [(problem.field, problem.reason) for problem in refused.value.details] == [(field, "is needed")]
    row = _made(session, workspace, crm)
    stored = CIPHER.decrypt(str(row.credentials))
    kept = kinds.of(crm.kind).read(crm.values | {"client_secret": ""}, stored)
    assert kept[1:] == (stored, ())

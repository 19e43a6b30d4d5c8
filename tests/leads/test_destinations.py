"""Destinations from the environment and from the settings page."""

import base64
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.orm import Session, sessionmaker

from tests.conftest import environment
from tests.factories import make_workspace
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.leads.delivering import (
    CIPHER,
    count,
    drain,
    events,
    outcomes,
    planned,
    rows,
    states,
    webhook_destination,
)
from webapp.clients.registry import Registry
from webapp.clients.twenty.client import TwentyClient
from webapp.config import Settings, load_settings
from webapp.leads import crm_pulls, destinations
from webapp.leads.destinations import Wanted
from webapp.leads.errors import Conflict, Invalid, NotFound
from webapp.leads.sending import target_of
from webapp.leads.states import DeliveryState, DestinationKind, DestinationMode
from webapp.leads.triggers import DEFAULT_ON
from webapp.models import CrmPull, Destination, Workspace


def _settings(**more: str) -> Settings:
    return load_settings(environment("postgresql://x/y", "redis://127.0.0.1:1/0", **more))


TWENTY = {"TWENTY_REST_URL": "http://127.0.0.1:3000/rest", "TWENTY_REST_TOKEN": "secret-token"}


def _sync(session: Session, **more: str) -> dict[DestinationKind, Destination]:
    destinations.sync_environment(session, _settings(**more), CIPHER)
    session.commit()
    found = sa.select(Destination).execution_options(populate_existing=True)
    return {row.kind: row for row in session.scalars(found)}


def test_the_environment_makes_the_default_workspace_s_destinations(session: Session, workspace: Workspace) -> None:
    make_workspace(session)
    made = _sync(session, **TWENTY, WEBHOOK_URL="http://127.0.0.1:5678/webhook/abc123")
    assert {row.workspace_id for row in made.values()} == {workspace.id}
    twenty, follow_up = made[DestinationKind.TWENTY], made[DestinationKind.N8N]
    assert twenty.config == {"url": "http://127.0.0.1:3000/rest", "task_target_field": "targetPersonId"}
    assert follow_up.config == {"url": "http://127.0.0.1:5678"}
    stored = str(twenty.credentials) + str(follow_up.credentials) + str(follow_up.config)
    assert "secret-token" not in stored
    assert "abc123" not in stored
    assert isinstance(Registry(_settings(), CIPHER.decrypt).client_for(target_of(twenty)), TwentyClient)


def test_a_destination_has_its_kind_s_limits_unless_somebody_sets_others(
    session: Session, workspace: Workspace
) -> None:
    row = _sync(session, **TWENTY)[DestinationKind.TWENTY]
    assert row.options == {"per_second": 100, "per_minute": 100}
    row.options = {}
    session.commit()
    assert _sync(session, **{**TWENTY, "TWENTY_REST_TOKEN": "b"})[DestinationKind.TWENTY].options == {}
    values = {"url": "https://crm.example.com/rest", "token": "t", "task_target_field": "targetPersonId"}
    made = [
        destinations.create(
            session, workspace.id, DestinationKind.TWENTY, Wanted(f"CRM {n}", values, given), cipher=CIPHER
        )[0].options
        for n, given in enumerate(({}, {"per_second": "5"}, {"per_second": "", "per_minute": ""}))
    ]
    assert made == [{"per_second": 100, "per_minute": 100}, {"per_second": 5, "per_minute": 100}, {}]


def test_the_environment_s_slack_is_told_of_qualified_leads_and_goes_with_its_variables(
    session: Session, workspace: Workspace
) -> None:
    slack = _sync(session, SLACK_BOT_TOKEN="xoxb-secret", SLACK_CHANNEL="C0123ABCD")[DestinationKind.SLACK]
    assert (slack.mode, slack.config, slack.rules, slack.options) == (
        DestinationMode.LIVE, {"channel": "C0123ABCD"}, {"qualified_only": True}, {"per_second": 1},
    )  # fmt: skip
    assert CIPHER.decrypt(str(slack.credentials)) == {"token": "xoxb-secret"}
    assert _sync(session)[DestinationKind.SLACK].mode is DestinationMode.OFF


def test_syncing_again_changes_nothing(session: Session, workspace: Workspace) -> None:
    before = _sync(session, **TWENTY)[DestinationKind.TWENTY]
    credentials, told = before.credentials, len(events(session, None, "DESTINATION_SET"))
    after = _sync(session, **TWENTY)[DestinationKind.TWENTY]
    assert (after.id, after.credentials) == (before.id, credentials)
    assert len(events(session, None, "DESTINATION_SET")) == told == 1


def test_a_change_of_the_environment_is_taken_over(session: Session, workspace: Workspace) -> None:
    _sync(session, **TWENTY)
    session.execute(sa.update(Destination).values(failures=9, open_until=sa.func.now()))
    row = _sync(session, **{**TWENTY, "TWENTY_REST_TOKEN": "another"})[DestinationKind.TWENTY]
    assert CIPHER.decrypt(str(row.credentials)) == {"token": "another"}
    assert (row.failures, row.open_until) == (0, None)
    assert count(session, Destination) == 1


def test_with_another_credential_it_is_read_back_at_once(session: Session, workspace: Workspace) -> None:
    _sync(session, **TWENTY)
    assert crm_pulls.begin(session) == 1
    session.execute(sa.update(CrmPull).values(tries=9, due_at=sa.func.now() + sa.text("interval '1 hour'")))
    session.commit()
    _sync(session, **TWENTY)
    assert not crm_pulls.has_due(session)
    _sync(session, **{**TWENTY, "TWENTY_REST_TOKEN": "another"})
    assert crm_pulls.has_due(session)
    assert session.scalars(sa.select(CrmPull.tries)).one() == 0


def test_a_variable_that_is_gone_switches_off_and_back_on(session: Session, workspace: Workspace) -> None:
    first = _sync(session, **TWENTY)[DestinationKind.TWENTY].id
    assert _sync(session)[DestinationKind.TWENTY].mode is DestinationMode.OFF
    again = _sync(session, **TWENTY)[DestinationKind.TWENTY]
    assert (again.id, again.mode) == (first, DestinationMode.LIVE)


def test_without_a_default_workspace_nothing_is_made(session: Session, app: Any) -> None:
    make_workspace(session, "acme")
    assert _sync(session, **TWENTY) == {}


def test_a_name_that_an_admin_has_taken_is_left_to_them(session: Session, workspace: Workspace) -> None:
    _webhook(session, workspace, "Twenty")
    assert _sync(session, **TWENTY)[DestinationKind.TWENTY].name == "Twenty 2"


def _webhook(
    session: Session, workspace: Workspace, name: str = "Hook", url: str = "https://example.com/h?x=1", **more: Any
) -> tuple[Destination, dict[str, str]]:
    wanted = Wanted(name, {"url": url, "secret": more.pop("secret", "")}, {}, **more)
    return destinations.create(session, workspace.id, DestinationKind.WEBHOOK, wanted, cipher=CIPHER, actor="Mai")


def test_a_webhook_is_made_with_a_secret_that_is_shown_once(session: Session, workspace: Workspace) -> None:
    row, made = _webhook(session, workspace, " Hook ", rules={"on": list(DEFAULT_ON), "qualified_only": True})
    session.commit()
    assert len(base64.b64decode(made["secret"].removeprefix("whsec_"))) == 32
    assert (row.name, row.config) == ("Hook", {"url": "https://example.com/h?x=1"})
    assert row.rules == {"qualified_only": True}
    assert made["secret"] not in str(row.credentials)
    assert destinations.listing(session, workspace.id) == [row]
    with pytest.raises(Conflict):
        _webhook(session, workspace)


def test_a_secret_that_is_left_empty_stays(session: Session, workspace: Workspace) -> None:
    row, _ = _webhook(session, workspace)
    before = CIPHER.decrypt(str(row.credentials))
    wanted = Wanted("Renamed", {"url": "https://example.com/2", "secret": ""}, {"per_second": "5"})
    changed = destinations.change(session, workspace.id, row.id, wanted, cipher=CIPHER, actor="Mai")
    assert (changed.name, changed.config["url"], changed.options) == (
        "Renamed",
        "https://example.com/2",
        {"per_second": 5},
    )
    assert CIPHER.decrypt(str(changed.credentials)) == before
    (event,) = events(session, None, "DESTINATION_CHANGED")
    assert event.details["changed"] == ["name", "settings", "limits"]


def test_only_what_differs_from_the_kind_s_own_fields_is_stored(session: Session, workspace: Workspace) -> None:
    values = {"url": "https://crm.example.com/rest", "token": "t", "task_target_field": "targetPersonId"}
    wanted = Wanted(
        "CRM", values, {}, mapping={"jobTitle": "job_title", "city": "", "x.linkedin": "attributes.linkedin"}
    )
    row, _ = destinations.create(session, workspace.id, DestinationKind.TWENTY, wanted, cipher=CIPHER)
    assert row.mapping == {"city": "", "x.linkedin": "attributes.linkedin"}
    assert target_of(row).mapping["name.firstName"] == "first_name"
    broken = Wanted("CRM 2", values, {"per_second": "-1"}, rules={"on": []}, mapping={"task.title": "", "city": "a..b"})
    with pytest.raises(Invalid) as invalid:
        destinations.create(session, workspace.id, DestinationKind.TWENTY, broken, cipher=CIPHER)
    assert {problem.field for problem in invalid.value.details} == {"per_second", "on", "task.title", "city"}


def test_a_rotation_signs_with_both_secrets_until_the_old_one_is_given_up(
    session: Session, workspace: Workspace
) -> None:
    row, made = _webhook(session, workspace)
    _, fresh = destinations.rotate_secret(session, workspace.id, row.id, cipher=CIPHER, actor="Mai")
    assert CIPHER.decrypt(str(row.credentials)) == {"secret": fresh, "old_secret": made["secret"]}
    _, none = destinations.rotate_secret(session, workspace.id, row.id, cipher=CIPHER, actor="Mai")
    assert none is None
    assert CIPHER.decrypt(str(row.credentials)) == {"secret": fresh}


def test_one_with_a_history_is_kept(session: Session, workspace: Workspace) -> None:
    row, _ = _webhook(session, workspace)
    planned(session, workspace)
    with pytest.raises(Conflict):
        destinations.remove(session, workspace.id, row.id, actor="Mai")
    other, _ = _webhook(session, workspace, "Other")
    assert destinations.remove(session, workspace.id, other.id, actor="Mai") == "Other"


def test_what_was_only_recorded_is_sent_when_somebody_says_so(
    session: Session, workspace: Workspace, session_factory: sessionmaker[Session]
) -> None:
    with WebhookReceiver() as receiver:
        hook = webhook_destination(session, workspace, receiver, mode=DestinationMode.SHADOW)
        lead = planned(session, workspace)
        drain(session_factory)
        row = rows(session)["lead.approved"]
        assert (row.state, outcomes(session, row)) == (DeliveryState.SHADOWED, ["shadowed"])
        assert (row.payload or {})["data"]["id"] == str(lead.id)
        assert receiver.requests == []
        destinations.set_mode(session, workspace.id, hook.id, DestinationMode.LIVE, actor="Mai")
        session.commit()
        drain(session_factory)
        assert receiver.requests == []
        destinations.set_mode(session, workspace.id, hook.id, DestinationMode.LIVE, actor="Mai", send_shadowed=True)
        session.commit()
        drain(session_factory)
        assert (states(session), len(receiver.deliveries)) == ({"lead.approved": "delivered"}, 1)


@pytest.mark.parametrize(
    ("name", "url", "secret", "fields"),
    [
        ("", "https://example.com", None, ["name"]),
        ("x" * 81, "ftp://example.com", "whsec_short", ["name", "url", "secret"]),
        ("n", "https://user:pw@example.com", None, ["url"]),
        ("n", "javascript:alert(1)", None, ["url"]),
        ("n", "http://[::1", None, ["url"]),
        ("n", "https://example.com:99999", None, ["url"]),
        ("n", "https://example.com", "whsec_" + base64.b64encode(b"x" * 65).decode(), ["secret"]),
    ],
)
def test_every_bad_field_is_named(
    session: Session, workspace: Workspace, name: str, url: str, secret: str | None, fields: list[str]
) -> None:
    with pytest.raises(Invalid) as invalid:
        _webhook(session, workspace, name, url, secret=secret or "")
    assert [problem.field for problem in invalid.value.details] == fields


def test_switching(session: Session, workspace: Workspace) -> None:
    row, _ = _webhook(session, workspace)
    off = destinations.set_mode(session, workspace.id, row.id, DestinationMode.OFF, actor="Mai")
    assert off.mode is DestinationMode.OFF
    row.open_until, row.failures = sa.func.now(), 7
    on = destinations.set_mode(session, workspace.id, row.id, DestinationMode.LIVE, actor="Mai")
    session.commit()
    assert (on.mode, on.failures, on.open_until) == (DestinationMode.LIVE, 0, None)
    assert events(session, None, "DESTINATION_OFF")[0].actor == "Mai"
    with pytest.raises(NotFound):
        destinations.set_mode(session, make_workspace(session).id, row.id, DestinationMode.OFF, actor="Mai")
    environment_s = _sync(session, **TWENTY)[DestinationKind.TWENTY]
    with pytest.raises(Conflict):
        destinations.set_mode(session, workspace.id, environment_s.id, DestinationMode.OFF, actor="Mai")


def test_waiting_counts_by_destination(session: Session, workspace: Workspace) -> None:
    row, _ = _webhook(session, workspace)
    planned(session, workspace)
    planned(session, workspace)
    assert destinations.waiting(session, workspace.id) == {row.id: {DeliveryState.PENDING: 2}}
    assert destinations.waiting(session, make_workspace(session).id) == {}


def test_settings_offer_what_sync_needs() -> None:
    settings = _settings(**TWENTY)
    assert isinstance(settings.twenty_rest_token, SecretStr)

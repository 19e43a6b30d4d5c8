"""The page of features: what holds, switching, and what becomes of webhooks that were held."""

import re

import pytest
import sqlalchemy as sa

from tests.fakes.webhook_receiver import WebhookReceiver
from tests.leads.delivering import planned, webhook_destination
from webapp.leads import flags
from webapp.leads.flags import Flag
from webapp.leads.states import DeliveryOperation, Role
from webapp.leads.task_texts import Preferences
from webapp.models import Delivery


@pytest.fixture
def admin(client, login):
    return login(client, Role.ADMIN)


def press(client, flag, **form):
    return client.post(f"/settings/features/{flag.value}", data=form, follow_redirects=True)


def test_it_says_what_each_does_and_what_is_the_default(client, admin):
    html = client.get("/settings/features").text
    for words in ("Enrichment", "Learned scoring", "Automatic routing", "Outgoing webhooks", "the default"):
        assert words in html
    html = press(client, Flag.AUTO_ROUTING, to="off").text
    assert "set here; the default is on" in html
    html = press(client, Flag.AUTO_ROUTING, to="default").text
    assert "set here" not in html


@pytest.mark.parametrize("flag", list(Flag))
def test_a_feature_is_switched_off_and_on(client, admin, session, workspace, flag):
    press(client, flag, to="off")
    assert not flags.of_workspace(session, workspace.id).on(flag)
    session.rollback()
    press(client, flag, to="on")
    assert flags.of_workspace(session, workspace.id).on(flag)


@pytest.mark.parametrize(("name", "to"), [("enableMagic", "on"), ("enableWebhooks", "perhaps"), ("enableWebhooks", "")])
def test_what_does_not_exist_cannot_be_switched(client, admin, name, to):
    assert client.post(f"/settings/features/{name}", data={"to": to}).status_code == 404


@pytest.mark.parametrize(("waiting", "state"), [("send", "pending"), ("discard", "cancelled")])
def test_held_webhooks_are_sent_or_discarded_by_choice(client, admin, session, workspace, waiting, state):
    with WebhookReceiver() as fake:
        webhook_destination(session, workspace, fake)
    planned(session, workspace)
    press(client, Flag.WEBHOOKS, to="off")
    assert "1 webhook is held" in client.get("/deliveries").text
    assert "1 waits" in client.get("/settings/features").text
    answer = press(client, Flag.WEBHOOKS, to="on")
    assert answer.status_code == 422
    assert "Choose whether" in answer.text
    assert not flags.of_workspace(session, workspace.id).webhooks
    session.rollback()
    press(client, Flag.WEBHOOKS, to="on", waiting=waiting)
    assert flags.of_workspace(session, workspace.id).webhooks
    assert session.scalars(sa.select(Delivery.state)).one().value == state


def test_what_is_owed_is_not_counted_as_discarded(client, admin, session, workspace):
    with WebhookReceiver() as fake:
        webhook_destination(session, workspace, fake)
    planned(session, workspace)
    planned(session, workspace)
    owed = session.scalars(sa.select(Delivery)).first()
    owed.operation = DeliveryOperation.WITHDRAW
    session.commit()
    press(client, Flag.WEBHOOKS, to="off")
    page = press(client, Flag.WEBHOOKS, to="on", waiting="discard").text
    assert "1 discarded; 1 that take back or change go out" in page


def test_how_tasks_are_written_is_chosen(client, admin, session, workspace):
    client.post("/settings/copywriting", data={"language": "vi"})
    session.refresh(workspace)
    assert Preferences.of(workspace.settings["copywriting"]) == Preferences("vi")
    assert re.search(r'value="vi"\s+selected', client.get("/settings/features").text)
    assert client.post("/settings/copywriting", data={"language": "de"}).status_code == 404


def test_without_a_model_the_page_says_that_the_template_is_used(client, admin):
    assert "No model is configured" in press(client, Flag.LLM_COPYWRITING, to="on").text

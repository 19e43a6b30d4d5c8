"""What was read back from Twenty, as people see it, and how an admin steers it."""

import pytest
import sqlalchemy as sa

from tests.fakes.twenty import TwentyFake
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.leads.delivering import EAGER, clients, drain, planned, rows, twenty_destination, webhook_destination
from tests.views.test_pages import text_of
from webapp.leads import crm_pulling, crm_pulls
from webapp.leads.claims import Holder
from webapp.leads.states import DestinationMode, Role
from webapp.models import CrmPull, Destination


@pytest.fixture
def twenty():
    with TwentyFake() as fake:
        yield fake


@pytest.fixture
def crm(session, workspace, twenty):
    """Made by the environment, as most are."""
    return twenty_destination(session, workspace, twenty)


@pytest.fixture
def admin(client, login):
    return login(client, Role.ADMIN, name="Mai")


@pytest.fixture
def lead(session, workspace, session_factory, crm):
    found = planned(session, workspace, email="ada@example.com", name="Ada")
    drain(session_factory)
    return found


def pull(session, session_factory):
    crm_pulls.begin(session)
    session.execute(sa.update(CrmPull).values(due_at=sa.func.now()))
    session.commit()
    crm_pulling.process(session_factory, Holder(), clients(), every=300, policy=EAGER)


def plain(html):
    return " ".join(text_of(html).split())


def page_of(client, crm):
    return plain(client.get(f"/settings/destinations/{crm.id}").text)


def test_the_page_tells_how_it_went(client, admin, session, session_factory, twenty, crm, lead):
    assert "not read yet" in page_of(client, crm)
    assert session.scalar(sa.select(sa.func.count()).select_from(CrmPull)) == 0  # looking makes nothing
    person = rows(session, lead)["person"].remote_id
    twenty.add("opportunities", stage="CUSTOMER", pointOfContactId=person)
    pull(session, session_factory)
    said = page_of(client, crm)
    assert "1 deal looked at, 1 piece of news; 1 in all" in said and "failure" not in said
    twenty.unreadable = {"opportunities"}
    pull(session, session_factory)
    said = page_of(client, crm)
    assert "the last try failed" in said and "answered 403." in said and "needs to read opportunities" in said
    twenty.unreadable = set()
    pull(session, session_factory)
    said = page_of(client, crm)
    assert "Last failure" in said and "It has worked again since." in said
    twenty.unreadable = {"tasks"}
    pull(session, session_factory)
    said = page_of(client, crm)
    assert "read in part" in said and "Not told there: which tasks were deleted (answered 403)" in said
    assert "role needs to read people, tasks and opportunities" in said


def test_the_lead_tells_what_became_of_it_and_what_was_deleted(
    client, admin, session, session_factory, twenty, crm, lead
):
    stored = rows(session, lead)
    amount = {"amountMicros": 4_000_000_000, "currencyCode": "EUR"}
    person = stored["person"].remote_id
    twenty.add("opportunities", stage="CUSTOMER", pointOfContactId=person, amount=amount)
    twenty.delete("tasks", stored["task"].remote_id)
    pull(session, session_factory)
    said = plain(client.get(f"/queue/{lead.id}").text)
    assert "won" in said and "4,000 EUR" in said and "read from Twenty" in said
    day = f"{rows(session, lead)['task'].deleted_there_at:%-d %b %Y}"
    assert f"deleted in Twenty on {day}" in said
    assert f"deleted in Twenty on {day}" in plain(client.get("/deliveries").text)
    said = plain(client.get(f"/deliveries/{stored['task'].id}").text)
    assert f"Deleted in Twenty on {day}" in said and "not made again" in said


def test_an_admin_says_what_stages_mean(client, admin, session, crm):
    form = {"enabled": "1", "won_stages": "Signed, Paid", "lost_stages": "No\r\nNever"}
    path = f"/settings/destinations/{crm.id}/read-back"
    assert client.post(path, data=form).status_code == 303
    stored = session.scalars(sa.select(CrmPull)).one()
    assert (stored.enabled, stored.won_stages, stored.lost_stages) == (True, ["Signed", "Paid"], ["No", "Never"])
    html = client.get(f"/settings/destinations/{crm.id}").text
    assert 'value="Signed, Paid"' in html and 'value="No, Never"' in html
    answer = client.post(path, data=form | {"won_stages": "", "lost_stages": "<b>"})
    assert answer.status_code == 422 and "must name at least one stage" in answer.text and "&lt;b&gt;" in answer.text
    session.rollback()
    assert session.scalars(sa.select(CrmPull.won_stages)).one() == ["Signed", "Paid"]


def test_it_is_switched_off_and_asked_for_at_once(client, admin, session, session_factory, crm):
    pull(session, session_factory)
    path = f"/settings/destinations/{crm.id}/read-back"
    assert client.post(f"{path}/now").status_code == 303
    session.rollback()
    assert crm_pulls.has_due(session)
    assert "as soon as a worker is free" in page_of(client, crm)
    session.execute(sa.update(Destination).values(paused_until=sa.func.now() + sa.text("interval '10 minutes'")))
    session.commit()
    client.post(f"{path}/now")
    assert "it is left alone at the moment, and read in about 10 min" in page_of(client, crm)
    session.execute(sa.update(Destination).values(paused_until=None))
    session.commit()
    client.post(path, data={"won_stages": "WON"})
    session.rollback()
    assert not crm_pulls.has_due(session) and "not read back" in page_of(client, crm)
    assert client.post(f"{path}/now").status_code == 409
    crm.mode = DestinationMode.OFF
    session.commit()
    client.post(path, data={"won_stages": "WON", "enabled": "1"})
    assert "not read while the destination is not on" in page_of(client, crm)


def test_only_a_crm_is_read_back(client, admin, session, workspace):
    with WebhookReceiver() as receiver:
        hook = webhook_destination(session, workspace, receiver)
        assert "What became of leads" not in page_of(client, hook)
        path = f"/settings/destinations/{hook.id}/read-back"
        assert client.post(path, data={"won_stages": "WON", "enabled": "1"}).status_code == 409


def test_one_that_was_only_read_can_be_removed(client, admin, session, session_factory, workspace, twenty):
    crm = twenty_destination(session, workspace, twenty, managed_by=None)
    pull(session, session_factory)
    assert client.post(f"/settings/destinations/{crm.id}/remove").status_code == 303
    session.rollback()
    assert session.scalars(sa.select(CrmPull)).all() == []

"""The follow-up task on the lead's page: what it will say, edited, written by the model, fixed once it goes out."""

import pytest
import sqlalchemy as sa

from tests.fakes.hubspot import HubspotFake
from tests.fakes.twenty import TwentyFake
from tests.leads.delivering import CIPHER, decided_lead, twenty_destination
from tests.leads.writing import MESSAGE, model, switch_on
from tests.views.conftest import fragment
from webapp.leads import copywriting
from webapp.leads.claims import Holder
from webapp.leads.states import DestinationKind, Intent
from webapp.models import TaskText


@pytest.fixture
def lead(session, workspace):
    with TwentyFake() as fake:
        twenty_destination(session, workspace, fake)
    return decided_lead(session, workspace, message=MESSAGE, name="Jane Roe")


def test_it_is_shown_before_it_goes_out_and_says_how_it_was_made(client, reviewer, lead):
    html = client.get(f"/queue/{lead.id}").text
    assert "This is what the task will say" in html
    assert "From the template." in html
    assert "2. Ask how many they need." in html


def test_nothing_is_shown_where_no_task_goes_out(client, reviewer, session, lead):
    lead.intent = Intent.SPAM
    session.commit()
    assert "the task will say" not in client.get(f"/queue/{lead.id}").text


def test_a_reviewer_edits_it_and_takes_that_back(client, reviewer, lead):
    answer = client.post(f"/queue/{lead.id}/task-text", data={"body": "Ring <her>"}, headers=fragment("task-text"))
    assert "Written by Ana Torres." in answer.text
    assert "Ring &lt;her&gt;" in answer.text
    assert "<main" not in answer.text
    answer = client.post(f"/queue/{lead.id}/task-text", data={"body": " "})
    assert answer.status_code == 422
    assert "must have 1 to 10,000 characters" in answer.text
    assert client.post(f"/queue/{lead.id}/task-text/anew").status_code == 303
    assert "From the template." in client.get(f"/queue/{lead.id}").text


def test_what_has_begun_to_go_out_is_not_edited(client, reviewer, session, lead):
    client.post(f"/queue/{lead.id}/task-text", data={"body": "Ring her"})
    session.execute(sa.update(TaskText).values(used_at=sa.func.now()))
    session.commit()
    for path in ("task-text", "task-text/anew"):
        answer = client.post(f"/queue/{lead.id}/{path}", data={"body": "Too late"})
        assert answer.status_code == 409
        assert "has begun to go out" in answer.text
        assert "Ring her" in answer.text


def test_a_reviewer_who_looks_has_the_model_write_it(client, reviewer, session, session_factory, workspace, lead):
    switch_on(session, workspace)
    html = client.get(f"/queue/{lead.id}").text
    assert "The model is writing it" in html
    with model() as (_, writing):
        copywriting.process(session_factory, Holder(), writing)
    html = client.get(f"/queue/{lead.id}/task-text", headers=fragment("task-text")).text
    assert "Written by the model <b>fake-model</b>" in html
    assert "They want 50 seats" in html
    assert "hx-trigger" not in html


def test_it_is_shown_for_every_crm_that_a_task_goes_to(client, reviewer, session, workspace):
    with HubspotFake() as fake:
        hubspot = {"kind": DestinationKind.HUBSPOT, "credentials": CIPHER.encrypt({"token": fake.token})}
        twenty_destination(session, workspace, fake, **hubspot)
    lead = decided_lead(session, workspace, message=MESSAGE)
    assert "This is what the task will say" in client.get(f"/queue/{lead.id}").text

"""The follow-up task on the lead's page: what it will say, edited, written by the model, fixed once it goes out."""

import pytest
import sqlalchemy as sa
from markupsafe import escape

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
    assert "<h4>Next steps</h4>" in html
    assert "<li>Ask how many they need.</li>" in html
    assert "\n2. Ask how many they need." in html  # to be edited as it is written


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


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
        ("a <b onclick=x>b</b>", "<p>a &lt;b onclick=x&gt;b&lt;/b&gt;</p>"),
        ("[x](javascript:alert)", "<p>[x](javascript:alert)</p>"),
        ("[x](data:text/html;base64,AA)", "<p>[x](data:text/html;base64,AA)</p>"),
        ("[x](/settings/members)", "<p>[x](/settings/members)</p>"),
        ("![a <i>](https://evil.example/x.png)", "<p>a &lt;i&gt;</p>"),
        ("![x](javascript:alert)", "<p>![x](javascript:alert)</p>"),
        (
            '[x](https://a.example/?q="><b>)',
            '<p><a href="https://a.example/?q=%22%3E%3Cb%3E" rel="noopener noreferrer nofollow">x</a></p>',
        ),
        ("[x](mailto:a@b.example)", '<p><a href="mailto:a@b.example" rel="noopener noreferrer nofollow">x</a></p>'),
        ("# A\n## B\n### C\n###### D", "<h4>A</h4>\n<h4>B</h4>\n<h5>C</h5>\n<h6>D</h6>"),
        ("**now**, not\nlater", "<p><strong>now</strong>, not<br />\nlater</p>"),
    ],
)
def test_what_a_person_writes_is_shown_rendered_and_never_as_html(client, reviewer, lead, body, shown):
    answer = client.post(f"/queue/{lead.id}/task-text", data={"body": body}, headers=fragment("task-text"))
    assert f">{shown}\n</div>" in answer.text
    assert f">{escape(body)}</textarea>" in answer.text


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

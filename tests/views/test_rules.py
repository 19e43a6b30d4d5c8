"""The rules in the browser: a draft, what it would change, activation, the way back; and the bench."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests.factories import make_lead
from tests.views.conftest import fragment
from tests.views.test_pages import text_of
from webapp.leads.states import Intent, Role
from webapp.models import AuditEvent, Lead, RulesetVersion, Workspace

PHRASE = "send the zibbit"
MESSAGE = "ok send the zibbit along"
ADD = {"kind": "cues:purchase_intent", "lang": "en", "amount": "5", "phrases": PHRASE}


@pytest.fixture
def manager(client: FlaskClient, login: Callable[..., Any]) -> Any:
    return login(client, Role.MANAGER, name="Mai Le")


def activate(client: FlaskClient, session: Session, **more: str) -> Any:
    session.rollback()
    draft = session.scalars(sa.select(RulesetVersion).where(RulesetVersion.number.is_(None))).one()
    return client.post("/settings/rules/activate", data={"revision": str(draft.revision), **more})


def test_a_phrase_goes_from_draft_to_verdict_and_back(
    client: FlaskClient, session: Session, workspace: Workspace, manager: Any
) -> None:
    assert client.post("/settings/rules/phrases", data=ADD).status_code == 303
    page = client.get("/settings/rules").text
    assert PHRASE in page and "not active" in page and "<b>the shipped rules</b>" in page
    assert make_lead(session, workspace, MESSAGE).intent is Intent.UNKNOWN  # a draft judges nothing

    assert activate(client, session, note="our own word").status_code == 303
    page = client.get("/settings/rules").text
    assert "version 1</b>" in page and "our own word" in page and "Mai Le" in page
    session.expire_all()
    lead = make_lead(session, workspace, MESSAGE)
    assert (lead.intent, lead.verdict["ruleset"][-2:]) == (Intent.PURCHASE_INTENT, "+1")

    assert client.post("/settings/rules/shipped").status_code == 303
    session.expire_all()
    assert make_lead(session, workspace, MESSAGE, email="b@example.com").intent is Intent.UNKNOWN
    version = session.scalars(sa.select(RulesetVersion.id)).one()
    assert client.post(f"/settings/rules/versions/{version}/activate").status_code == 303
    session.expire_all()
    assert make_lead(session, workspace, MESSAGE, email="c@example.com").intent is Intent.PURCHASE_INTENT
    events = sa.select(AuditEvent.event_type).where(AuditEvent.event_type.like("RULES%"))
    assert session.scalars(events.order_by(AuditEvent.created_at, AuditEvent.id)).all() == [
        "RULES_ACTIVATED",
        "RULES_ROLLED_BACK",
        "RULES_ROLLED_BACK",
    ]


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"phrases": ""}, "are missing"),
        ({"kind": "cues:nothing"}, "must be chosen"),
        ({"amount": "seven"}, "must be a number"),
        ({"amount": "7"}, "needs a weight above 0 and up to 6"),
        ({"phrases": "buy {nobody}"}, "there is no class"),
        ({"phrases": "a @@ b"}, "cannot read"),
        ({"kind": "negations", "amount": "40"}, "needs a reach from 0 to 10"),
    ],
)
def test_what_is_wrong_with_a_phrase_is_said_and_kept_in_the_form(
    client: FlaskClient, session: Session, workspace: Workspace, manager: Any, over: dict[str, str], words: str
) -> None:
    answer = client.post("/settings/rules/phrases", data=ADD | over)
    assert answer.status_code == 422 and words in answer.text.replace("&#39;", "'")
    assert (ADD | over)["phrases"] in answer.text
    assert session.scalar(sa.select(sa.func.count()).select_from(RulesetVersion)) == 0


def test_a_draft_that_somebody_changed_meanwhile_is_not_activated(
    client: FlaskClient, session: Session, workspace: Workspace, manager: Any
) -> None:
    client.post("/settings/rules/phrases", data=ADD)
    client.post("/settings/rules/phrases", data=ADD | {"phrases": "another one"})
    answer = client.post("/settings/rules/activate", data={"revision": "1"})
    assert answer.status_code == 409 and "changed by Mai Le meanwhile" in answer.text
    assert session.scalars(sa.select(RulesetVersion.active)).all() == [False]


def test_shipped_phrases_are_weighed_switched_off_and_put_back(
    client: FlaskClient, session: Session, workspace: Workspace, manager: Any
) -> None:
    key = {"section": "flags", "label": "urgent", "lang": "en", "phrase": "asap"}
    client.post("/settings/rules/phrase", data=key | {"do": "off"})
    page = client.get("/settings/rules?q=asap&own=yes").text
    assert "○</span> off" in page
    text = "I want to buy 5 seats asap"
    bench = client.post("/settings/rules/bench", data={"message": text}).text
    assert "By the draft" in bench and bench.count("P0") == 1 and bench.count("P1") == 1
    client.post("/settings/rules/phrase", data=key | {"do": "restore"})
    assert "It is the same as what is active" in client.get("/settings/rules").text
    nobodys = key | {"phrase": "no such phrase", "do": "off"}
    assert client.post("/settings/rules/phrase", data=nobodys).status_code == 404


def test_the_bench_shows_spans_rules_and_weights(
    client: FlaskClient, session: Session, workspace: Workspace, reviewer: Any
) -> None:
    text = "I don't need a demo, but I want to buy 5 seats. How much is it? <b>x</b>"
    page = client.post("/settings/rules/bench", data={"message": text}, headers=fragment("outcome")).text
    assert "<html" not in page and "<b>x</b>" not in page
    assert "<mark" in page and "Purchase" in page and "undone by a negation" in page and "runner-up" in page
    lead = make_lead(session, workspace, "Can you call me back?")
    assert "Can you call me back?" in client.get(f"/settings/rules/bench?lead={lead.id}").text
    assert session.scalar(sa.select(sa.func.count()).select_from(Lead)) == 1  # nothing of it is kept


def test_what_a_draft_would_change_is_counted(
    client: FlaskClient, session: Session, workspace: Workspace, manager: Any
) -> None:
    assert "There is no draft" in client.get("/settings/rules/effect").text
    changed = make_lead(session, workspace, MESSAGE)
    make_lead(session, workspace, "Cho tôi báo giá gói Enterprise")
    client.post("/settings/rules/phrases", data=ADD)
    page = client.get("/settings/rules/effect").text
    told = " ".join(text_of(page).split())
    assert "Leads looked at 2 Another intent 1 Another priority 1 Another status 1" in told
    assert "unknown → purchase 1" in told and f"/queue/{changed.id}" in page
    session.refresh(changed)
    assert changed.intent is Intent.UNKNOWN


def test_a_draft_is_thrown_away(client: FlaskClient, session: Session, workspace: Workspace, manager: Any) -> None:
    client.post("/settings/rules/phrases", data=ADD)
    assert client.post("/settings/rules/discard").status_code == 303
    assert session.scalars(sa.select(RulesetVersion)).all() == []
    assert PHRASE not in client.get("/settings/rules").text

"""The settings page Judging: who judges, what leaves, what it may cost, what it has cost."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from webapp.leads import llm_usage
from webapp.leads.judging_policy import Preferences
from webapp.leads.ports import Usage
from webapp.leads.states import Role
from webapp.models import AuditEvent, Workspace


@pytest.fixture
def manager(client: FlaskClient, login: Callable[..., Any]) -> Any:
    return login(client, Role.MANAGER)


@pytest.fixture
def with_model(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = app.extensions["settings"].model_copy(update={"openai_base_url": "http://127.0.0.1:1/v1"})
    monkeypatch.setitem(app.extensions, "settings", settings)


def kept(session: Session, workspace: Workspace) -> Preferences:
    session.rollback()
    return Preferences.of(session.scalar(sa.select(Workspace.settings["classify"]).where(Workspace.id == workspace.id)))


def test_what_is_chosen_is_kept_and_recorded(
    client: FlaskClient, session: Session, workspace: Workspace, manager: Any, with_model: None
) -> None:
    given = {"mode": "llm", "share_personal": "yes", "daily_tokens": "200,000", "daily_usd": "2.50"}
    assert client.post("/settings/judging", data=given).status_code == 303
    assert kept(session, workspace).as_json() == {
        "mode": "llm", "share_personal": True, "daily_tokens": 200_000, "daily_usd": 2.5,
    }  # fmt: skip
    assert session.scalars(sa.select(AuditEvent.details).where(AuditEvent.event_type == "JUDGING_CHANGED")).one()
    page = client.get("/settings/judging").text
    assert 'value="200000"' in page and "checked" in page
    client.post("/settings/judging", data={"mode": "", "daily_tokens": "", "daily_usd": ""})
    assert kept(session, workspace) == Preferences()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mode": "perhaps"}, "must be one of those"),
        ({"daily_tokens": "-1"}, "must be a whole number"),
        ({"daily_tokens": "many"}, "must be a whole number"),
        ({"daily_usd": "nan"}, "must be an amount"),
        ({"daily_usd": "-1"}, "must be an amount"),
    ],
)
def test_nonsense_is_refused_and_nothing_saved(
    client: FlaskClient, session: Session, workspace: Workspace, manager: Any, with_model: None,
    given: dict[str, str], words: str,
) -> None:  # fmt: skip
    answer = client.post("/settings/judging", data=given)
    assert answer.status_code == 422 and words in answer.text
    assert kept(session, workspace) == Preferences()


def test_a_model_cannot_be_required_where_there_is_none(
    client: FlaskClient, session: Session, workspace: Workspace, manager: Any
) -> None:
    answer = client.post("/settings/judging", data={"mode": "llm"})
    assert answer.status_code == 422 and "none is configured on this server" in answer.text


def test_dollars_need_a_price(
    client: FlaskClient, session: Session, workspace: Workspace, manager: Any, app: Flask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = app.extensions["settings"].model_copy(update={"openai_model": "my-own"})
    monkeypatch.setitem(app.extensions, "settings", settings)
    answer = client.post("/settings/judging", data={"daily_usd": "5"})
    assert answer.status_code == 422 and "no price is known for my-own" in answer.text


def test_what_was_spent_is_told_by_day_and_against_the_budget(
    client: FlaskClient, session: Session, workspace: Workspace, manager: Any, with_model: None
) -> None:
    assert "No model was asked." in client.get("/settings/judging").text
    usage = Usage("gpt-4o-mini", 800, calls=2, tokens_in=900, tokens_out=120, cost=0.0002)
    llm_usage.record(session, workspace.id, usage, purpose="classify")
    llm_usage.record(session, workspace.id, replace(usage, calls=1), purpose="classify", error="answered 500")
    session.commit()
    client.post("/settings/judging", data={"daily_tokens": "2000"})
    page = " ".join(client.get("/settings/judging").text.split())
    assert "2,040 of 2,000" in page and "used up (2,040 of 2,000 tokens)" in page
    assert "gpt-4o-mini" in page and "$0.0004" in page and "3 calls" in page and "800 ms" in page

"""The page of alerts: for admins, with a figure in the rail, acknowledged and resolved by a press."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.orm import Session

from tests import factories
from tests.views.conftest import fragment
from webapp.leads import alerts
from webapp.leads.states import Role
from webapp.models import Alert, Workspace


@pytest.fixture
def admin(client: FlaskClient, login: Callable[..., Any]) -> Any:
    return login(client, Role.ADMIN, name="Ada Admin")


def read(text: str) -> str:
    return " ".join(re.sub(r"(?s)<(script|head).*?</\1>|<[^>]*>", " ", text).split())


def raised(session: Session, workspace: Workspace, kind: str = "routing_nobody", **over: Any) -> Alert:
    values = {"key": "", "message": "Nobody in Vietnam takes leads", "link": "/queue?view=all"} | over
    alerts.raise_alert(session, workspace.id, kind, **values)
    session.commit()
    return session.scalars(sa.select(Alert).order_by(Alert.id.desc()).limit(1)).one()


def test_no_alert_says_so(client: FlaskClient, admin: Any) -> None:
    assert "Nothing needs you" in client.get("/alerts").text
    assert "No resolved alert" in client.get("/alerts?view=resolved").text


def test_an_alert_is_counted_in_the_rail_until_it_is_acknowledged(
    app: Flask, client: FlaskClient, admin: Any, login: Callable[..., Any], session: Session, workspace: Workspace
) -> None:
    alert = raised(session, workspace, times=3)
    raised(session, factories.make_workspace(session), message="elsewhere")
    page = client.get("/alerts").text
    assert re.search(r'id="n-alerts"[^>]*>1<', page) and 'href="/queue?view=all"' in page
    said = read(page)
    assert "Leads that nobody gets" in said and "Nobody in Vietnam takes leads." in said and "3 times" in said
    assert "elsewhere" not in said and "routing_nobody" not in page
    done = client.post(f"/alerts/{alert.id}/acknowledge", follow_redirects=True).text
    assert "Ada Admin sees to it" in read(done) and re.search(r'id="n-alerts"[^>]*><', done)
    client.post(f"/alerts/{alert.id}/resolve")
    assert "Nothing needs you" in client.get("/alerts").text
    assert "Ada Admin" in read(client.get("/alerts?view=resolved", headers=fragment("results")).text)
    assert client.post(f"/alerts/{alert.id}/acknowledge").status_code == 409
    other = app.test_client()
    login(other, Role.MANAGER)
    assert "n-alerts" not in other.get("/queue").text and other.get("/alerts").status_code == 403


def test_hostile_words_are_shown_as_text(
    client: FlaskClient, admin: Any, session: Session, workspace: Workspace
) -> None:
    raised(session, workspace, "a_kind_without_words", message="<script>alert(1)</script>" * 40, link=None)
    page = client.get("/alerts").text
    assert "a kind without words" in page and "<script>alert" not in page


def test_prometheus_hears_of_standing_alerts_by_kind(
    client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace
) -> None:
    raised(session, workspace), raised(session, workspace, key="2"), raised(session, workspace, "scoring_fallback")
    alerts.resolve(session, workspace.id, "routing_nobody", "2")
    session.commit()
    raised(session, factories.make_workspace(session), "routing_failed")
    answer = client.get("/metrics", headers=headers)
    found = {
        sample.labels["kind"]: sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == "leadops_alerts"
    }
    assert found == {"routing_nobody": 1, "scoring_fallback": 1}

"""``POST /onboarding``: a workspace per name, by a platform key alone."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests import factories
from tests.api.test_bad_input import BODIES
from webapp.leads.states import Scope
from webapp.models import AuditEvent, Workspace
from webapp.security.keys import create_key


@pytest.fixture
def platform(session: Session) -> dict[str, str]:
    secret = create_key(session, workspace_id=None, name="platform", scopes={Scope.PLATFORM}, rate_limited=False)[1]
    session.commit()
    return {"X-API-Key": secret}


Post = Callable[[Any], Any]


@pytest.fixture
def post(client: FlaskClient, platform: dict[str, str]) -> Post:
    return lambda body: client.post("/onboarding", json=body, headers=platform)


def workspaces(session: Session) -> list[Workspace]:
    session.rollback()
    return list(session.scalars(sa.select(Workspace).execution_options(populate_existing=True)))


def test_a_new_name_makes_a_workspace_and_the_same_again_finds_it(post: Post, session: Session) -> None:
    first = post({"name": "Zeppelin GmbH", "industry": "airships"})
    assert first.status_code == 201 and list(first.json) == ["tenant_id", "name"]
    (made,) = workspaces(session)
    assert first.json == {"tenant_id": str(made.id), "name": "Zeppelin GmbH"}
    assert made.industry == "airships"
    again = post({"name": "  Zeppelin GmbH ", "industry": "balloons"})
    assert (again.status_code, again.json) == (200, first.json)
    assert [one.industry for one in workspaces(session)] == ["airships"]
    assert post({"name": "zeppelin gmbh"}).status_code == 201  # another name
    events = list(session.scalars(sa.select(AuditEvent).where(AuditEvent.workspace_id == made.id)))
    assert [(one.event_type, one.actor) for one in events] == [("WORKSPACE_CREATED", "platform (API)")]


def test_twenty_at_once_make_one(app: Flask, platform: dict[str, str], session: Session) -> None:
    barrier = threading.Barrier(20)

    def one(_: int) -> tuple[int, str]:
        barrier.wait()
        answer = app.test_client().post("/onboarding", json={"name": "Race"}, headers=platform)
        return answer.status_code, answer.json["tenant_id"]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(one, range(20)))
    assert sorted(status for status, _ in answers) == [200] * 19 + [201]
    assert {tenant for _, tenant in answers} == {str(one.id) for one in workspaces(session)}


def test_a_key_of_the_new_workspace_opens_its_doors(app: Flask, post: Post, client: FlaskClient) -> None:
    """As docs/api.md says how to get one."""
    tenant = post({"name": "Fresh"}).json["tenant_id"]
    made = app.test_cli_runner().invoke(
        args=["create-key", "--workspace", tenant, "--name", "first", "--scopes", "ingest,read"]
    )
    assert made.exit_code == 0, made.output
    headers = {"X-API-Key": made.output.strip().splitlines()[-1]}
    assert client.post("/leads", json={"lead_id": "x"}, headers=headers).json["status"] == "created"
    assert client.get("/api/leads", headers=headers).json["tenant_id"] == tenant


def test_only_a_platform_key_may(client: FlaskClient, session: Session, headers: dict[str, str]) -> None:
    before = len(workspaces(session))
    assert client.post("/onboarding", json={"name": "x"}).status_code == 401
    answer = client.post("/onboarding", json={"name": "x"}, headers=headers)
    assert (answer.status_code, answer.json["error"]["code"]) == (403, "insufficient_scope")
    assert len(workspaces(session)) == before


def test_a_platform_key_may_nothing_else(client: FlaskClient, session: Session, platform: dict[str, str]) -> None:
    other = factories.make_workspace(session)
    factories.make_lead(session, other)
    for path in ("/leads", "/leads/search?name=a", "/api/v1/stats", "/api/v1/deliveries", "/api/v1/audit"):
        assert client.get(path, headers=platform).status_code == 403
    for path in ("/leads", "/sync-crm", "/tasks/auto-assign"):
        assert client.post(path, json={"lead_id": "x"}, headers=platform).status_code == 403
    assert client.get(f"/sync-crm/{uuid.uuid4()}", headers=platform).status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "name"), ({"name": ""}, "name"), ({"name": " \t"}, "name"), ({"name": 7}, "name"), ({"name": "a\nb"}, "name"),
     ({"name": "x" * 201}, "name"), ({"name": "x", "industry": []}, "industry"), ({"name": None}, "name")],
)  # fmt: skip
def test_what_does_not_fit_is_named(post: Post, session: Session, body: Any, field: str) -> None:
    answer = post(body)
    assert answer.status_code == 400 and [one["field"] for one in answer.json["error"]["details"]] == [field]
    assert workspaces(session) == []


@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies_are_refused(client: FlaskClient, platform: dict[str, str], session: Session, name: str) -> None:
    answer = client.post("/onboarding", data=BODIES[name], content_type="application/json", headers=platform)
    assert 400 <= answer.status_code < 500 and answer.json["error"]["request_id"]
    assert workspaces(session) == []

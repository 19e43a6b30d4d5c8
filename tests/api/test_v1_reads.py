"""``/api/v1``: runs, deliveries, the audit trail and figures, of one workspace, page by page."""

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from tests.factories import make_key, make_lead, make_workspace
from tests.fakes.twenty import TwentyFake
from tests.leads.delivering import EAGER, drain, planned, states, twenty_destination
from webapp.leads import run
from webapp.leads.claims import Holder
from webapp.leads.deliver import DeliveryPolicy
from webapp.leads.states import DeliveryState, Intent, LeadStatus, Priority, Scope
from webapp.models import AuditEvent, Delivery, Lead, Run, Workspace

Get = Callable[..., Any]


@pytest.fixture
def twenty() -> Iterator[TwentyFake]:
    with TwentyFake() as fake:
        yield fake


@pytest.fixture
def get(client: FlaskClient, headers: dict[str, str]) -> Get:
    def do(path: str, status: int = 200, **query: Any) -> Any:
        answer = client.get(f"/api/v1{path}", query_string=query, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json

    return do


def pages(get: Get, path: str, rows: str, **query: Any) -> list[Any]:
    """All rows of a list, page by page."""
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = get(path, **query, **({"cursor": cursor} if cursor else {}))
        assert len(page[rows]) <= query.get("limit", 50)
        found += page[rows]
        cursor = page["next_cursor"]
    return found


def test_a_run_by_its_id(
    get: Get, session: Session, workspace: Workspace, session_factory: sessionmaker[Session]
) -> None:
    lead = make_lead(session, workspace)
    run.process(session_factory, Holder())
    (listed,) = get(f"/leads/{lead.id}/runs")["runs"]
    shown = get(f"/runs/{listed['id']}")
    assert shown == listed and shown["state"] == "success" and len(shown["stages"]) == 4
    for unknown in (uuid.uuid4(), lead.id):
        assert get(f"/runs/{unknown}", 404)["error"]["code"] == "not_found"
    get("/runs/nonsense", 404)


def test_deliveries_page_by_page_with_filters(
    get: Get, session: Session, workspace: Workspace, session_factory: sessionmaker[Session], twenty: TwentyFake
) -> None:
    crm = twenty_destination(session, workspace, twenty)
    leads = [planned(session, workspace, message=f"message {n}", external_id=f"biz-{n}") for n in range(3)]
    assert drain(session_factory).done == 9
    planned(session, workspace, message="message 4")
    every = pages(get, "/deliveries", "deliveries", limit=4)
    assert len({one["id"] for one in every}) == len(every) == 12
    moments = [(one["created_at"], one["id"]) for one in every]
    assert moments == sorted(moments, reverse=True)
    assert [one["state"] for one in every] == ["pending"] * 3 + ["delivered"] * 9
    waiting = get("/deliveries", state="pending")["deliveries"]
    assert {one["state"] for one in waiting} == {"pending"} and len(waiting) == 3
    for of_lead in ("biz-1", leads[1].id):
        mine = get("/deliveries", lead=of_lead)["deliveries"]
        assert {one["action"] for one in mine} == {"person", "task", "task_target"}
        assert {one["lead_id"] for one in mine} == {str(leads[1].id)}
    for destination in (crm.id, "Twenty"):
        assert len(pages(get, "/deliveries", "deliveries", destination=destination, limit=5)) == 12
    assert get("/deliveries", destination="Slack") == {"deliveries": [], "next_cursor": None}
    assert len(pages(get, "/deliveries", "deliveries", state="delivered", lead="biz-0", limit=1)) == 3
    (first, *_) = get("/deliveries", lead="biz-0", state="delivered")["deliveries"]
    assert (first["destination"], first["kind"], first["last_error"]) == ("Twenty", "twenty", None)


def test_a_delivery_with_its_attempts_and_again(
    get: Get,
    client: FlaskClient,
    headers: dict[str, str],
    session: Session,
    workspace: Workspace,
    session_factory: sessionmaker[Session],
    twenty: TwentyFake,
) -> None:
    twenty_destination(session, workspace, twenty)
    planned(session, workspace)
    twenty.fail_next("POST /people", kind="503", times=2)
    drain(session_factory, policy=DeliveryPolicy(max_tries=2, retry_delay=0.001, max_delay=0.001))
    drain(session_factory, policy=DeliveryPolicy(max_tries=2, retry_delay=0.001, max_delay=0.001))
    (dead,) = get("/deliveries", state="dead")["deliveries"]
    shown = get(f"/deliveries/{dead['id']}")
    assert {name: value for name, value in shown.items() if name not in ("payload", "attempts")} == dead
    assert [one["http_status"] for one in shown["attempts"]] == [503, 503]
    assert shown["payload"]["emails"] and shown["last_error"] == "answered 503"

    def replay(status: int) -> Any:
        answer = client.post(f"/api/v1/deliveries/{dead['id']}/replay", headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json

    again = replay(202)
    assert (again["state"], again["tries"]) == ("pending", 0)
    assert replay(409)["error"]["code"] == "version_conflict"
    drain(session_factory, policy=EAGER)
    assert set(states(session).values()) == {"delivered"} and len(twenty.people) == 1
    told = session.scalars(sa.select(AuditEvent).where(AuditEvent.event_type == "DELIVERY_REPLAYED")).one()
    assert told.actor == "test key (API)"
    get(f"/deliveries/{uuid.uuid4()}", 404)
    reader = make_key(session, workspace, scopes={Scope.READ})
    refused = client.post(f"/api/v1/deliveries/{dead['id']}/replay", headers={"X-API-Key": reader})
    assert refused.status_code == 403


def test_the_audit_trail_page_by_page(get: Get, session: Session, workspace: Workspace, client: FlaskClient,
                                      headers: dict[str, str]) -> None:  # fmt: skip
    leads = [make_lead(session, workspace, f"message {n}", external_id=f"biz-{n}") for n in range(5)]
    # Events of one transaction have one moment; none may be lost between two pages.
    session.add_all(
        AuditEvent(workspace_id=workspace.id, lead_id=leads[0].id, event_type="RUN_REQUESTED", actor="x", details={})
        for _ in range(7)
    )
    session.commit()
    every = pages(get, "/audit", "events", limit=3)
    assert len({one["id"] for one in every}) == len(every) == 12
    whole = client.get("/audit/events?limit=200", headers=headers).json
    assert every == whole
    assert len(get("/audit", lead="biz-0")["events"]) == 8
    assert [one["lead_id"] for one in get("/audit", lead=leads[1].id)["events"]] == [str(leads[1].id)]
    assert len(pages(get, "/audit", "events", event_type="RUN_REQUESTED", limit=2)) == 7
    assert get("/audit", event_type="NOTHING") == {"events": [], "next_cursor": None}


def test_rows_that_come_meanwhile_are_not_repeated(get: Get, session: Session, workspace: Workspace) -> None:
    for n in range(4):
        make_lead(session, workspace, f"message {n}")
    first = get("/audit", limit=2)
    make_lead(session, workspace, "a new one")
    second = get("/audit", limit=2, cursor=first["next_cursor"])
    assert not {one["id"] for one in first["events"]} & {one["id"] for one in second["events"]}
    assert second["next_cursor"] is None and len(second["events"]) == 2


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/deliveries", {"state": "lost"}, "state"),
        ("/deliveries", {"limit": "0"}, "limit"),
        ("/deliveries", {"limit": "201"}, "limit"),
        ("/deliveries", {"cursor": "!"}, "cursor"),
        ("/deliveries", {"cursor": "MjAyNi0xMS0yMFQwMDowMDowMH4x"}, "cursor"),
        ("/audit", {"limit": "ten"}, "limit"),
        ("/audit", {"cursor": "x" * 300}, "cursor"),
        ("/stats", {"from": "yesterday"}, "from"),
        ("/stats", {"to": "2026-13-01"}, "to"),
        ("/stats", {"to": "0001-01-01"}, "to"),
        ("/stats", {"from": "2026-02-02", "to": "2026-02-01"}, "from"),
        ("/stats", {"from": "2000-01-01", "to": "2199-12-31"}, "from"),
    ],
)
def test_bad_parameters_are_named(get: Get, path: str, query: dict[str, str], field: str) -> None:
    error = get(path, 400, **query)["error"]
    assert error["code"] == "invalid_param" and [one["field"] for one in error["details"]] == [field]


@pytest.mark.parametrize("path", ["/deliveries", "/audit"])
def test_an_unknown_lead_is_not_found(get: Get, path: str) -> None:
    assert get(path, 404, lead="nobody")["error"]["code"] == "not_found"


def test_figures_add_up(
    get: Get, session: Session, workspace: Workspace, session_factory: sessionmaker[Session], twenty: TwentyFake
) -> None:
    twenty_destination(session, workspace, twenty)
    planned(session, workspace, message="Cho tôi báo giá gói Enterprise", source="fair")
    drain(session_factory)
    make_lead(session, workspace, "asdf", source="web", status=LeadStatus.NEW_ESCALATE)
    make_lead(session, workspace, "asdf again", source="web", status=LeadStatus.NEW_DRAFT, priority=Priority.P3)
    old = make_lead(session, workspace, "older", source="web", created_at=datetime.now(UTC) - timedelta(days=3))
    make_lead(session, workspace, "oldest", created_at=datetime.now(UTC) - timedelta(days=40))
    make_lead(session, make_workspace(session), "another's")
    found = get("/stats")
    leads = session.scalars(sa.select(Lead).where(Lead.workspace_id == workspace.id)).all()
    today = datetime.now(UTC).date()
    assert found["total"] == 4
    assert set(found["by_status"]) == set(LeadStatus) and set(found["by_intent"]) == set(Intent)
    for name in ("by_status", "by_intent", "by_priority"):
        assert sum(found[name].values()) == 4
    assert found["by_status"]["approved"] == 1 and found["by_intent"]["inquiry_price"] >= 1
    assert found["by_source"] == [{"source": "web", "count": 3}, {"source": "fair", "count": 1}]
    assert found["other_sources"] == 0
    days = {one["day"]: one["count"] for one in found["by_day"]}
    assert len(days) == 30 and sum(days.values()) == 4
    assert (days[today.isoformat()], days[old.created_at.date().isoformat()]) == (3, 1)
    assert found["waiting"] == sum(lead.status in (LeadStatus.NEW_DRAFT, LeadStatus.NEW_ESCALATE) for lead in leads)
    assert found["deliveries"] == {state.value: 3 * (state is DeliveryState.DELIVERED) for state in DeliveryState}
    one_day = get("/stats", **{"from": old.created_at.date().isoformat(), "to": old.created_at.date().isoformat()})
    assert one_day["total"] == 1 and len(one_day["by_day"]) == 1
    assert one_day["from"].endswith("T00:00:00.000000Z") and one_day["waiting"] == found["waiting"]


def test_figures_of_nothing(get: Get) -> None:
    found = get("/stats")
    assert found["total"] == found["waiting"] == 0 and found["by_source"] == []
    assert {one["count"] for one in found["by_day"]} == {0}


def test_rare_sources_are_one_sum(get: Get, session: Session, workspace: Workspace) -> None:
    for n in range(53):
        make_lead(session, workspace, f"message {n}", source=f"source {n % 52}")
    found = get("/stats")
    assert len(found["by_source"]) == 50 and found["by_source"][0] == {"source": "source 0", "count": 2}
    assert found["other_sources"] == 2 and found["total"] == 53


def test_another_workspace_sees_none_of_it(
    client: FlaskClient, session: Session, workspace: Workspace, session_factory: sessionmaker[Session],
    twenty: TwentyFake,
) -> None:  # fmt: skip
    twenty_destination(session, workspace, twenty)
    lead = planned(session, workspace, external_id="biz")
    drain(session_factory)
    delivery = session.scalars(sa.select(Delivery.id)).first()
    run_id = session.scalars(sa.select(Run.id)).first()
    session.commit()
    stranger = {"X-API-Key": make_key(session, make_workspace(session))}
    for path in (f"/runs/{run_id}", f"/deliveries/{delivery}", "/deliveries?lead=biz", f"/audit?lead={lead.id}"):
        assert client.get(f"/api/v1{path}", headers=stranger).status_code == 404
    assert client.post(f"/api/v1/deliveries/{delivery}/replay", headers=stranger).status_code == 404
    for path, rows in (
        ("/deliveries", "deliveries"),
        ("/deliveries?destination=Twenty", "deliveries"),
        ("/audit", "events"),
    ):
        assert client.get(f"/api/v1{path}", headers=stranger).json[rows] == []
    assert client.get("/api/v1/stats", headers=stranger).json["total"] == 0

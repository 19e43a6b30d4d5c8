"""Routing and hours in the browser: set up by managers, tried without effect, told on the lead page and in the queue."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from tests import factories
from tests.leads.test_run import drain, says
from webapp.leads import queries
from webapp.leads.queries import LeadFilter
from webapp.leads.states import LeadStatus, Priority, Role, RouteState, TeamPolicy
from webapp.models import Absence, Lead, Membership, RoutingRule, Run, Team, TeamMember, User, Workspace


@pytest.fixture
def manager(client: FlaskClient, login: Callable[..., Any]) -> Any:
    return login(client, Role.MANAGER, name="Mai Manager")


@pytest.fixture
def ana(session: Session, workspace: Workspace) -> User:
    return factories.make_user(session, workspace, name="Ana Torres", takes_leads=True)


def read(text: str) -> str:
    return " ".join(re.sub(r"(?s)<(script|head).*?</\1>|<[^>]*>", " ", text).split())


def make_team(client: FlaskClient, name: str, *users: User, **over: Any) -> None:
    data = {
        "name": name,
        "policy": "least_loaded",
        "member": [str(user.id) for user in users],
        "time_zone": "UTC",
    } | over
    assert client.post("/settings/routing/teams/new", data=data).status_code == 303


def make_rule(client: FlaskClient, session: Session, name: str, team: str, **conditions: Any) -> None:
    team_id = session.scalars(sa.select(Team.id).where(Team.name == team)).one()
    data = {"name": name, "team": str(team_id), "active": "1"} | conditions
    assert client.post("/settings/routing/rules/new", data=data).status_code == 303


def test_nothing_is_set_up_yet(client: FlaskClient, manager: Any) -> None:
    said = read(client.get("/settings/routing").text)
    assert "No rules: every lead goes to whoever takes leads" in said and "Make a team first" in said
    assert "No leads yet" in client.get("/settings/routing/trial").text


def test_rules_are_made_ordered_changed_and_deleted(
    client: FlaskClient, manager: Any, session: Session, ana: User
) -> None:
    make_team(client, "North", ana)
    make_rule(client, session, "Vietnam", "North", country="vn, th", priority=["P0", "P1"])
    make_rule(client, session, "Rest", "North")
    page = client.get("/settings/routing").text
    assert "country VN or TH · priority P0 or P1" in page and "every lead" in page
    first, second = session.scalars(sa.select(RoutingRule).order_by(RoutingRule.position)).all()
    form = client.get(f"/settings/routing/rules/{first.id}").text
    assert re.findall(r'value="(\w+)"\s+checked', form)[:3] == ["P0", "P1", "1"]
    client.post(f"/settings/routing/rules/{second.id}/move", data={"to": "up"})
    client.post(f"/settings/routing/rules/{second.id}/move", data={"to": "up"})
    session.expire_all()
    assert [second.position, first.position] == [1, 2]
    changed = {"name": "Vietnam", "team": str(first.team_id), "country": "VN"}
    client.post(f"/settings/routing/rules/{first.id}", data=changed)
    session.expire_all()
    assert (first.conditions, first.active) == ({"country": ["VN"]}, False)
    client.post(f"/settings/routing/rules/{first.id}/delete")
    assert session.scalars(sa.select(RoutingRule.name)).all() == ["Rest"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("country", "Vietnam"), ("industry", "magic"), ("priority", "P9"), ("language", "x"), ("name", ""), ("team", "x"),
     ("region", "x" * 61)],
)  # fmt: skip
def test_a_rule_that_is_not_understood_is_kept_as_typed(
    client: FlaskClient, manager: Any, session: Session, ana: User, field: str, value: str
) -> None:
    make_team(client, "North", ana)
    team_id = session.scalars(sa.select(Team.id)).one()
    data = {"name": "One", "team": str(team_id), "source": "google_ads"} | {field: value}
    answer = client.post("/settings/routing/rules/new", data=data)
    assert answer.status_code == 422 and 'value="google_ads"' in answer.text and "wrong" in answer.text
    assert session.scalars(sa.select(RoutingRule)).all() == []


def test_a_team_has_members_shares_and_hours(client: FlaskClient, manager: Any, session: Session, ana: User) -> None:
    own = {"own": "1", "when": "week", "mon": "09:00-17:00", f"weight-{ana.id}": "3", "policy": "weighted"}
    make_team(client, "North", ana, **own)
    team = session.scalars(sa.select(Team)).one()
    seat = session.scalars(sa.select(TeamMember)).one()
    assert (team.policy, seat.user_id, seat.weight) == (TeamPolicy.WEIGHTED, ana.id, 3)
    assert team.hours and team.hours["week"]["mon"] == ["09:00-17:00"]
    assert "Ana Torres (share 3)" in read(client.get("/settings/routing").text)
    seat.last_given_at = datetime.now(UTC)
    session.commit()
    again = {"name": "South", "policy": "round_robin", "member": [str(ana.id)]}
    client.post(f"/settings/routing/teams/{team.id}", data=again)
    session.expire_all()
    assert (team.name, team.hours) == ("South", None) and seat.last_given_at is not None
    wrong = client.post(f"/settings/routing/teams/{team.id}", data=again | {"own": "1", "when": "week", "mon": "9-5"})
    assert wrong.status_code == 422 and "Must be times such as" in wrong.text
    assert client.post("/settings/routing/teams/new", data=again).status_code == 422  # the name is taken


def test_a_team_in_use_is_not_deleted_and_what_waits_for_one_is_kept(
    client: FlaskClient, manager: Any, session: Session, workspace: Workspace, ana: User
) -> None:
    make_team(client, "North", ana)
    make_rule(client, session, "All", "North")
    team = session.scalars(sa.select(Team)).one()
    lead = factories.make_lead(session, workspace, team_id=team.id, route_state=RouteState.BACKLOG)
    assert client.post(f"/settings/routing/teams/{team.id}/delete").status_code == 409
    session.execute(sa.delete(RoutingRule))
    session.commit()
    client.post(f"/settings/routing/teams/{team.id}/delete")
    session.refresh(lead)
    assert lead.team_id is None and lead.route_state is RouteState.BACKLOG
    assert session.scalars(sa.select(Team)).all() == []


def test_members_have_a_capacity_hours_and_absences(
    client: FlaskClient, manager: Any, session: Session, workspace: Workspace, ana: User
) -> None:
    path = f"/settings/routing/members/{ana.id}"
    client.post(path, data={"capacity": "5", "own": "1", "when": "always", "time_zone": "Asia/Tokyo"})
    session.expire_all()
    membership = session.get_one(Membership, (workspace.id, ana.id))
    assert membership.capacity == 5 and membership.hours and membership.hours["time_zone"] == "Asia/Tokyo"
    for wrong in ("many", "²", "9" * 5_000):
        assert client.post(path, data={"capacity": wrong}).status_code == 422
    client.post(f"{path}/absences", data={"first_day": "2030-01-02", "last_day": "2030-01-05", "note": "Skiing"})
    assert "2 Jan to 5 Jan 2030 Skiing" in read(client.get(path).text)
    assert (
        client.post(f"{path}/absences", data={"first_day": "2030-01-02", "last_day": "2029-01-05"}).status_code == 422
    )
    assert client.post(f"{path}/absences", data={"first_day": "soon"}).status_code == 422
    away = session.scalars(sa.select(Absence)).one()
    client.post(f"/settings/routing/absences/{away.id}/remove")
    assert session.scalars(sa.select(Absence)).all() == []
    client.post(path, data={"capacity": ""})
    session.expire_all()
    assert (membership.capacity, membership.hours) == (None, None)


def test_a_trial_says_who_and_why_and_changes_nothing(
    client: FlaskClient, manager: Any, session: Session, workspace: Workspace, ana: User
) -> None:
    make_team(client, "North", ana)
    make_rule(client, session, "Vietnamese", "North", language="vi")
    client.post("/settings/routing/otherwise", data={"otherwise": "manual"})
    theirs = factories.make_lead(session, workspace, name="Hạnh")
    other = factories.make_lead(session, workspace, "What is the price?", name="John")
    said = read(client.get("/settings/routing/trial").text)
    assert "Rule “Vietnamese”: fewest open leads (no open lead)." in said and "Manual review: no rule fits." in said
    assert "language is en, not vi" in said
    one = read(client.get(f"/settings/routing/trial?lead=https://x.example/queue/{theirs.id}").text)
    assert "Hạnh" in one and "John" not in one
    assert client.get("/settings/routing/trial?lead=nonsense").status_code == 422
    elsewhere = factories.make_lead(session, factories.make_workspace(session))
    assert client.get(f"/settings/routing/trial?lead={elsewhere.id}").status_code == 422
    session.expire_all()
    assert theirs.assignee_id is None and other.assignee_id is None


def test_hours_and_targets_are_saved_and_shown_again(
    client: FlaskClient, manager: Any, session: Session, workspace: Workspace
) -> None:
    given = {"when": "week", "mon": "09:00-12:00, 13:00-17:00", "time_zone": "Asia/Ho_Chi_Minh", "country": "vn"}
    given |= {"P0": "5 min", "P1": "2 h", "P2": "", "P3": "", "days_off": "2030-12-24"}
    assert client.post("/settings/hours", data=given).status_code == 303
    session.refresh(workspace)
    assert workspace.settings["sla"] == {"P0": 5, "P1": 120, "P2": None, "P3": None}
    assert workspace.settings["hours"]["country"] == "VN"
    page = client.get("/settings/hours").text
    assert 'value="09:00-12:00, 13:00-17:00"' in page and 'value="2 h"' in page and "Lunar New Year" in page


@pytest.mark.parametrize("wrong", [{"time_zone": "Mars"}, {"mon": "all day"}, {"P0": "soon"}, {"country": "XX"}])
def test_hours_that_are_not_understood_are_kept_as_typed(
    client: FlaskClient, manager: Any, session: Session, workspace: Workspace, wrong: dict[str, str]
) -> None:
    given = {"when": "week", "mon": "09:00-17:00", "time_zone": "UTC", "P1": "4 h"} | wrong
    answer = client.post("/settings/hours", data=given)
    assert answer.status_code == 422 and f'value="{next(iter(wrong.values()))}"' in answer.text
    session.refresh(workspace)
    assert "hours" not in workspace.settings


class TestQueue:
    def leads(self, session: Session, workspace: Workspace) -> dict[str, Lead]:
        now = datetime.now(UTC)
        made = {
            name: factories.make_lead(session, workspace, name=name, status=LeadStatus.NEW_DRAFT, **over)
            for name, over in {
                "Late": {"sla_due_at": now - timedelta(minutes=12), "priority": Priority.P2},
                "Later": {"sla_due_at": now - timedelta(hours=5), "priority": Priority.P1},
                "Soon": {"sla_due_at": now + timedelta(minutes=8, seconds=30), "route_state": RouteState.MANUAL},
                "Never": {"sla_due_at": None, "route_state": RouteState.BACKLOG},
            }.items()
        }
        factories.make_lead(session, workspace, status=LeadStatus.APPROVED, sla_due_at=now - timedelta(hours=1),
                            route_state=RouteState.MANUAL)  # fmt: skip
        return made

    def names(self, client: FlaskClient, query: str) -> list[str]:
        page = client.get(f"/queue?{query}").text
        return re.findall(r'hx-swap="innerHTML show:top"\s*>(\w+)', page)

    def test_views_and_orders(self, client: FlaskClient, manager: Any, session: Session, workspace: Workspace) -> None:
        self.leads(session, workspace)
        assert self.names(client, "view=overdue") == ["Later", "Late"]
        assert self.names(client, "view=waiting&sort=due") == ["Later", "Late", "Soon", "Never"]
        assert self.names(client, "view=manual") == ["Soon"] and self.names(client, "view=backlog") == ["Never"]
        assert client.get("/queue?sort=odd").text.count("This filter is not understood") == 1

    @pytest.mark.parametrize("text", ["", "gói"])
    def test_counts_equal_the_lists(self, session: Session, workspace: Workspace, text: str, manager: Any) -> None:
        self.leads(session, workspace)
        wanted = LeadFilter.parse({"q": text})
        counted = queries.counts(session, workspace.id, wanted)
        for view, expected in {"overdue": 2, "manual": 1, "backlog": 1, "waiting": 4}.items():
            listed = queries.page(session, workspace.id, LeadFilter.parse({"q": text, "view": view})).rows
            assert len(listed) == counted.of(view).n == expected, view

    def test_pages_by_due_time_neither_repeat_nor_miss(
        self, session: Session, workspace: Workspace, manager: Any
    ) -> None:
        self.leads(session, workspace)
        wanted, seen, cursor = LeadFilter.parse({"view": "waiting", "sort": "due"}), [], None
        while True:
            page = queries.page(session, workspace.id, wanted, cursor=cursor, limit=1)
            seen += [row.name for row in page.rows]
            if not (cursor := page.next_cursor):
                break
        assert seen == ["Later", "Late", "Soon", "Never"]

    def test_what_is_due_is_told_in_words(
        self, client: FlaskClient, manager: Any, session: Session, workspace: Workspace
    ) -> None:
        made = self.leads(session, workspace)
        page = read(client.get("/queue").text)
        assert "due 12 minutes ago" in page and "due in 8 minutes" in page
        assert "decision was due 12 minutes ago" in read(client.get(f"/queue/{made['Late'].id}").text)
        assert "decision due" not in client.get(f"/queue/{made['Never'].id}").text


def test_the_lead_page_says_why_them_and_why_not_you(
    client: FlaskClient, manager: Any, session: Session, session_factory: sessionmaker[Session], workspace: Workspace,
    ana: User,
) -> None:  # fmt: skip
    session.execute(sa.update(Membership).values(takes_leads=True))
    session.commit()
    make_team(client, "North", ana, manager)
    make_rule(client, session, "Website", "North", source="website_form")
    for _ in range(2):
        factories.make_lead(session, workspace, assignee_id=manager.id, status=LeadStatus.NEW_DRAFT)
    session.execute(sa.delete(Run))
    lead = factories.make_lead(session, workspace)
    drain(session_factory, judge=says(0.75))
    said = read(client.get(f"/queue/{lead.id}").text)
    assert "Why them, why not others" in said and "✓ Website goes to North" in said
    assert "● Ana Torres chosen fewest open leads (no open lead)" in said and "You: 2 open, more" in said


def test_a_lead_that_nobody_gets_says_what_to_do(
    client: FlaskClient, manager: Any, session: Session, session_factory: sessionmaker[Session], workspace: Workspace
) -> None:
    session.execute(sa.update(Membership).values(takes_leads=False))
    session.commit()
    lead = factories.make_lead(session, workspace)
    drain(session_factory, judge=says(0.75))
    said = read(client.get(f"/queue/{lead.id}").text)
    assert "Manual review: no member of the workspace takes leads." in said and "Assign it by hand" in said

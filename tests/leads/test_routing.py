"""Routing on a real database: who is there, whose turn it is among several workers, backlogs, due times, alerts."""

import threading
import uuid
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa

from tests import waiting
from tests.factories import make_lead, make_user, make_workspace
from tests.leads.test_run import drain, events, fresh, runs_of, says
from webapp.leads import alerts, backlog, boards, claims, flags, hours, review, run, sla
from webapp.leads.claims import RUNS, Holder
from webapp.leads.hours import DAYS
from webapp.leads.stages import route, score
from webapp.leads.states import AlertState, LeadStatus, Priority, RouteState, RunStatus, RunTrigger, TeamPolicy
from webapp.models import Absence, Alert, Lead, Membership, RoutingRule, Run, Team, TeamMember

UNSURE = {"judge": says(0.75)}
#: Never open within a week of now; never shut.
SHUT = {"time_zone": "UTC", "week": dict.fromkeys(DAYS, "09:00-17:00"),
        "days_off": [(datetime.now(UTC).date() + timedelta(days=n)).isoformat() for n in range(-2, 8)]}  # fmt: skip
OPEN = {"time_zone": "UTC", "week": dict.fromkeys(DAYS, "00:00-24:00")}


def make_team(session, workspace, *users, policy=TeamPolicy.LEAST_LOADED, name="North", rule=True, **over):
    team = Team(workspace_id=workspace.id, name=name, policy=policy, **over)
    session.add(team)
    session.flush()
    for user in users:
        session.add(TeamMember(team_id=team.id, user_id=user.id, workspace_id=workspace.id))
    if rule:
        session.add(RoutingRule(workspace_id=workspace.id, position=1, name="All", conditions={}, team_id=team.id))
    session.commit()
    return team


def set_member(session, workspace, user, **values):
    session.execute(
        sa.update(Membership)
        .where(Membership.workspace_id == workspace.id, Membership.user_id == user.id)
        .values(**values)
    )
    session.commit()


def set_up(session, workspace, **settings):
    workspace.settings = workspace.settings | settings
    session.commit()


def takers(session, workspace, count=2):
    return [make_user(session, workspace, takes_leads=True) for _ in range(count)]


def standing(session):
    session.rollback()
    return session.scalars(sa.select(Alert).order_by(Alert.id), execution_options={"populate_existing": True}).all()


class TestWhoIsThere:
    def board(self, session, workspace, now=None):
        return boards.load(session, [workspace.id], now=now)[workspace.id]

    def test_members_with_their_loads_capacity_and_hours(self, session, workspace):
        one, two = takers(session, workspace)
        set_member(session, workspace, two, capacity=3, hours=SHUT)
        make_lead(session, workspace, assignee_id=one.id, status=LeadStatus.NEW_DRAFT)
        make_lead(session, workspace, assignee_id=one.id, status=LeadStatus.APPROVED)
        board = self.board(session, workspace)
        first, second = board.members[str(one.id)], board.members[str(two.id)]
        assert (first.open_leads, first.capacity, first.away) == (1, None, "")
        assert second.capacity == 3 and second.away.startswith("outside working hours, works again")

    def test_the_hours_of_a_seat_are_the_members_then_the_teams_then_the_workspaces(self, session, workspace):
        one, two = takers(session, workspace)
        set_up(session, workspace, hours=SHUT)
        set_member(session, workspace, two, hours=OPEN)
        shut = make_team(session, workspace, one, two)
        always = make_team(session, workspace, one, two, name="Always", hours=OPEN, rule=False)
        board = self.board(session, workspace)
        seats = {
            team: {seat.user_id: bool(seat.away) for seat in board.teams[str(team.id)].seats} for team in (shut, always)
        }
        assert seats[shut] == {str(one.id): True, str(two.id): False}
        assert seats[always] == {str(one.id): False, str(two.id): False}

    def test_absence_is_by_the_days_of_the_members_own_zone(self, session, workspace):
        (one,) = takers(session, workspace, 1)
        set_member(session, workspace, one, hours=OPEN | {"time_zone": "Pacific/Auckland"})
        session.add(
            Absence(workspace_id=workspace.id, user_id=one.id, first_day=date(2030, 6, 1), last_day=date(2030, 6, 2))
        )
        session.commit()

        def absent(text):
            now = datetime.fromisoformat(text).replace(tzinfo=UTC)
            return self.board(session, workspace, now).members[str(one.id)].absent

        assert absent("2030-05-31T11:00") == "" and absent("2030-05-31T13:00") == "absent until 2 Jun"
        assert absent("2030-06-02T11:00") and not absent("2030-06-02T13:00")

    def test_viewers_and_members_who_left_are_nobody(self, session, workspace):
        one, two = takers(session, workspace)
        team = make_team(session, workspace, one, two)
        session.delete(session.get_one(Membership, (workspace.id, two.id)))
        session.commit()
        board = self.board(session, workspace)
        assert [seat.user_id for seat in board.teams[str(team.id)].seats] == [str(one.id)]
        assert str(two.id) not in board.members


class TestARun:
    def test_the_rule_and_each_candidates_why_are_recorded(self, session, session_factory, workspace):
        one, two = takers(session, workspace)
        team = make_team(session, workspace, one, two)
        make_lead(session, workspace, assignee_id=one.id, status=LeadStatus.NEW_DRAFT)
        lead = make_lead(session, workspace)
        drain(session_factory, **UNSURE)
        lead = fresh(session, lead)
        assert (lead.assignee_id, lead.team_id, lead.route_state) == (two.id, team.id, None)
        evidence = runs_of(session, lead)[0].stages[-1]["evidence"]
        assert evidence["rules"] == [{"name": "All", "matched": True, "why": "goes to North"}]
        assert {c["name"]: c["chosen"] for c in evidence["candidates"]} == {one.name: False, two.name: True}

    def test_a_persons_next_lead_goes_to_who_had_the_last(self, session, session_factory, workspace):
        _, two = takers(session, workspace)
        before = make_lead(session, workspace, email="ann@a.example", assignee_id=two.id)
        session.execute(sa.delete(Run))
        for _ in range(2):
            make_lead(session, workspace, assignee_id=two.id, status=LeadStatus.NEW_DRAFT)
        lead = make_lead(session, workspace, "And how much is shipping?", email="ann@a.example")
        assert lead.person_id == before.person_id
        drain(session_factory, **UNSURE)
        assert fresh(session, lead).assignee_id == two.id
        assert fresh(session, lead).assignment_reason == "had this person’s last lead"

    def test_outside_working_hours_it_waits_for_the_team(self, session, session_factory, workspace):
        team = make_team(session, workspace, *takers(session, workspace), hours=SHUT)
        lead = make_lead(session, workspace)
        drain(session_factory, **UNSURE)
        lead = fresh(session, lead)
        assert (lead.assignee_id, lead.team_id, lead.route_state) == (None, team.id, RouteState.BACKLOG)
        assert lead.route_reason.startswith("waits for North: outside working hours") and standing(session) == []

    def test_nobody_is_manual_review_and_alerts_admins_once_with_a_count(self, session, session_factory, workspace):
        leads = [make_lead(session, workspace) for _ in range(3)]
        make_lead(session, make_workspace(session, settings={"flags": {"enableAutoRouting": False}}))
        drain(session_factory, **UNSURE)
        assert fresh(session, leads[0]).route_state is RouteState.MANUAL
        (alert,) = standing(session)
        assert (alert.kind, alert.times, alert.workspace_id) == (alerts.ROUTING_NOBODY, 3, workspace.id)
        assert "no member of the workspace takes leads" in alert.message and alert.link == "/queue?view=manual"

    def test_a_hand_given_lead_leaves_manual_review_and_the_last_one_ends_the_alert(
        self, session, session_factory, workspace
    ):
        (one,) = takers(session, workspace, 1)
        set_member(session, workspace, one, takes_leads=False)
        lead = make_lead(session, workspace)
        drain(session_factory, **UNSURE)
        assert backlog.settle_alerts(session) == 0
        review.assign(session, workspace.id, lead.id, user_id=one.id, actor=review.Actor("Ana"))
        session.commit()
        assert fresh(session, lead).route_state is None
        assert backlog.settle_alerts(session) == 1
        session.commit()
        assert standing(session)[0].state is AlertState.RESOLVED

    def test_routing_that_breaks_is_its_own_alert(self, session, session_factory, workspace, monkeypatch):
        takers(session, workspace, 1)
        monkeypatch.setattr(route.Board, "pick", lambda self, team: 1 / 0)
        lead = make_lead(session, workspace)
        drain(session_factory, **UNSURE)
        assert fresh(session, lead).route_state is RouteState.MANUAL
        assert [alert.kind for alert in standing(session)] == [alerts.ROUTING_FAILED]

    def test_two_runs_of_a_lead_in_a_batch_keep_what_the_first_has_routed(self, session, session_factory, workspace):
        (one,) = takers(session, workspace, 1)
        team = make_team(session, workspace, one)
        lead = make_lead(session, workspace)
        lead.route_state, lead.route_reason = RouteState.BACKLOG, "waits"
        session.add(Run(workspace_id=workspace.id, lead_id=lead.id, source="x", trigger=RunTrigger.RERUN))
        session.commit()
        assert drain(session_factory, judge=says(0.75, priority=Priority.P0)).done == 2
        assert {one.status for one in runs_of(session, lead)} == {RunStatus.SUCCESS}
        lead = fresh(session, lead)
        assert (lead.assignee_id, lead.team_id, lead.route_state, lead.route_reason) == (one.id, team.id, None, None)
        assert lead.assignment_reason.startswith("rule “All”: fewest open leads")
        assert lead.sla_due_at == lead.created_at + timedelta(minutes=15)

    def test_scores_by_fallback_are_an_alert_that_ends_when_it_is_quiet(
        self, session, session_factory, workspace, monkeypatch
    ):
        takers(session, workspace, 1)
        monkeypatch.setattr(score, "score", lambda *a, **k: 1 / 0)
        make_lead(session, workspace)
        drain(session_factory, **UNSURE)
        (alert,) = standing(session)
        assert alert.kind == alerts.SCORING_FALLBACK and backlog.settle_alerts(session) == 0
        alert.last_at = datetime.now(UTC) - timedelta(hours=2)
        session.commit()
        assert backlog.settle_alerts(session) == 1

    def test_switched_off_it_waits_for_a_person_without_an_alert(self, session, session_factory, workspace):
        takers(session, workspace)
        flags.choose(session, workspace.id, flags.Flag.AUTO_ROUTING, False, actor="Ada")
        session.commit()
        lead = make_lead(session, workspace)
        drain(session_factory, **UNSURE)
        lead = fresh(session, lead)
        assert lead.route_state is RouteState.MANUAL and "switched off" in lead.route_reason and standing(session) == []


class TestSeveralWorkers:
    def together(self, session_factory, workers=4, batch=5):
        threads = [
            threading.Thread(target=lambda: drain(session_factory, batch=batch, **UNSURE)) for _ in range(workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def given(self, session, workspace):
        session.rollback()
        rows = session.scalars(sa.select(Lead.assignee_id).where(Lead.workspace_id == workspace.id))
        return Counter(rows)

    def test_round_robin_is_even_to_the_lead(self, session, session_factory, workspace):
        users = takers(session, workspace, 3)
        make_team(session, workspace, *users, policy=TeamPolicy.ROUND_ROBIN)
        for _ in range(60):
            make_lead(session, workspace)
        self.together(session_factory)
        assert self.given(session, workspace) == {user.id: 20 for user in users}

    @pytest.mark.parametrize("policy", TeamPolicy)
    def test_turns_are_kept_where_they_decide(self, session, session_factory, workspace, policy):
        (one,) = takers(session, workspace, 1)
        make_team(session, workspace, one, policy=policy)
        make_lead(session, workspace)
        drain(session_factory, **UNSURE)
        assert self.given(session, workspace) == {one.id: 1}
        given_at = session.scalars(sa.select(TeamMember.last_given_at)).one()
        assert (given_at is not None) is (policy is TeamPolicy.ROUND_ROBIN)

    def test_nobody_gets_more_than_their_capacity(self, session, session_factory, workspace):
        one, two = takers(session, workspace)
        set_member(session, workspace, one, capacity=7)
        set_member(session, workspace, two, capacity=11)
        make_team(session, workspace, one, two)
        for _ in range(40):
            make_lead(session, workspace)
        self.together(session_factory)
        assert self.given(session, workspace) == {one.id: 7, two.id: 11, None: 22}
        full = session.scalars(sa.select(Lead.route_reason).where(Lead.assignee_id.is_(None)).distinct()).all()
        assert full == ["waits for North: everybody there is full"]


class TestBacklog:
    def waiting(self, session, workspace, team, count=3):
        leads = [make_lead(session, workspace, status=LeadStatus.NEW_DRAFT) for _ in range(count)]
        session.execute(sa.delete(Run))
        for number, lead in enumerate(leads):
            lead.route_state, lead.route_reason, lead.team_id = RouteState.BACKLOG, "waits", team and team.id
            lead.created_at = datetime.now(UTC) - timedelta(hours=count - number)
        session.commit()
        return leads

    def test_nothing_moves_while_nobody_works(self, session, workspace):
        team = make_team(session, workspace, *takers(session, workspace), hours=SHUT)
        self.waiting(session, workspace, team)
        assert backlog.drain(session) == 0

    def test_the_oldest_goes_first_as_far_as_there_is_room(self, session, workspace):
        (one,) = takers(session, workspace, 1)
        set_member(session, workspace, one, capacity=2)
        team = make_team(session, workspace, one)
        leads = self.waiting(session, workspace, team)
        assert backlog.drain(session) == 2
        assert [fresh(session, lead).assignee_id for lead in leads] == [one.id, one.id, None]
        assert fresh(session, leads[0]).route_state is None
        (told,) = events(session, leads[0], "LEAD_ROUTED")
        assert told["assignee"] == one.name and told["evidence"]["candidates"][0]["chosen"]
        assert backlog.drain(session) == 0
        leads[0].status = LeadStatus.APPROVED
        session.commit()
        assert backlog.drain(session) == 1 and fresh(session, leads[2]).assignee_id == one.id

    def test_what_somebody_has_already_is_given_to_nobody_else(self, session, workspace):
        one, two = takers(session, workspace)
        (lead,) = self.waiting(session, workspace, make_team(session, workspace, one), 1)
        lead.assignee_id = two.id
        session.commit()
        assert backlog.drain(session) == 0 and fresh(session, lead).assignee_id == two.id

    def test_decided_leads_and_those_of_a_switched_off_workspace_stay(self, session, workspace):
        team = make_team(session, workspace, *takers(session, workspace))
        decided, other = self.waiting(session, workspace, team, 2)
        decided.status = LeadStatus.REJECTED
        session.commit()
        flags.choose(session, workspace.id, flags.Flag.AUTO_ROUTING, False, actor="Ada")
        session.commit()
        assert backlog.drain(session) == 0
        flags.choose(session, workspace.id, flags.Flag.AUTO_ROUTING, True, actor="Ada")
        session.commit()
        assert backlog.drain(session) == 1
        assert fresh(session, decided).assignee_id is None and fresh(session, other).assignee_id

    def test_a_team_that_is_gone_is_everybodys_backlog(self, session, workspace):
        takers(session, workspace)
        gone = Team(id=uuid.uuid4(), workspace_id=workspace.id, name="gone")
        (lead,) = self.waiting(session, workspace, gone, 1)
        assert backlog.drain(session) == 1 and fresh(session, lead).assignee_id

    def test_a_team_that_takes_no_leads_any_more_is_manual_review(self, session, workspace):
        (one,) = takers(session, workspace, 1)
        team = make_team(session, workspace, one)
        (lead,) = self.waiting(session, workspace, team, 1)
        set_member(session, workspace, one, takes_leads=False)
        backlog.drain(session)
        assert fresh(session, lead).route_state is RouteState.MANUAL

    def test_any_number_of_clocks_give_each_lead_once(self, session, session_factory, workspace):
        users = takers(session, workspace, 2)
        team = make_team(session, workspace, *users, policy=TeamPolicy.ROUND_ROBIN)
        leads = self.waiting(session, workspace, team, 30)
        done = []

        def clock():
            with session_factory() as mine:
                done.append(backlog.drain(mine))

        threads = [threading.Thread(target=clock) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(done) == 30
        assert Counter(fresh(session, lead).assignee_id for lead in leads) == {user.id: 15 for user in users}
        assert all(len(events(session, lead, "LEAD_ROUTED")) == 1 for lead in leads)


class TestDue:
    def test_at_intake_by_the_rules_priority(self, session, workspace):
        lead = make_lead(session, workspace)
        assert lead.priority is Priority.P1
        assert abs(lead.sla_due_at - lead.created_at - timedelta(hours=4)) < timedelta(seconds=5)

    def test_in_the_workspaces_hours(self, session, workspace):
        set_up(session, workspace, hours=SHUT, sla={"P1": 30})
        lead = make_lead(session, workspace)
        opens = hours.next_open(hours.read(SHUT), lead.created_at)
        assert lead.sla_due_at == opens + timedelta(minutes=30)

    @pytest.mark.parametrize(("priority", "minutes"), [(Priority.P0, 15), (Priority.P2, 1_440), (Priority.P3, None)])
    def test_another_priority_found_by_a_run(self, session, session_factory, workspace, priority, minutes):
        lead = make_lead(session, workspace)
        drain(session_factory, judge=says(0.75, priority=priority))
        lead = fresh(session, lead)
        expected = lead.created_at + timedelta(minutes=minutes) if minutes else None
        assert lead.sla_due_at == expected and lead.sla_since is None

    def test_a_decided_leads_time_stays(self, session, session_factory, workspace):
        lead = make_lead(session, workspace, status=LeadStatus.APPROVED)
        before = lead.sla_due_at
        drain(session_factory, judge=says(0.75, priority=Priority.P0))
        assert fresh(session, lead).sla_due_at == before

    def test_what_the_machine_was_sure_of_and_is_not_any_more_is_counted_from_now(
        self, session, session_factory, workspace
    ):
        lead = make_lead(session, workspace)
        drain(session_factory)
        lead = fresh(session, lead)
        assert lead.status is LeadStatus.NEW_AUTO
        lead.created_at -= timedelta(days=3)
        run.request_rerun(session, lead, requested_by="Ana")
        session.commit()
        drain(session_factory, **UNSURE)
        lead = fresh(session, lead)
        assert lead.sla_since > datetime.now(UTC) - timedelta(minutes=1) and lead.sla_due_at > datetime.now(UTC)

    def test_changed_targets_reach_what_waits_and_nothing_else(self, session, workspace):
        waiting = [make_lead(session, workspace, status=LeadStatus.NEW_DRAFT) for _ in range(5)]
        decided = make_lead(session, workspace, status=LeadStatus.APPROVED)
        theirs = make_lead(session, make_workspace(session), status=LeadStatus.NEW_DRAFT)
        stays = [decided.sla_due_at, theirs.sla_due_at]
        targets = {"P0": 15, "P1": 60, "P2": None, "P3": None}
        sla.save(session, workspace.id, calendar=hours.ALWAYS, targets=targets, actor="Mai")
        session.commit()
        assert [sla.refresh(session, limit=2) for _ in range(4)] == [2, 2, 1, 0]
        session.commit()
        for lead in waiting:
            lead = fresh(session, lead)
            assert lead.sla_due_at == lead.created_at + timedelta(hours=1)
        assert [fresh(session, one).sla_due_at for one in (decided, theirs)] == stays
        assert "sla_refresh" not in fresh(session, workspace).settings

    def test_a_time_that_a_run_is_about_to_change_is_waited_for(self, session, session_factory, workspace):
        lead = make_lead(session, workspace, status=LeadStatus.NEW_DRAFT)
        targets = {"P0": 5, "P1": 60, "P2": None, "P3": None}
        sla.save(session, workspace.id, calendar=hours.ALWAYS, targets=targets, actor="Mai")
        session.commit()
        with session_factory() as settling, session_factory() as clock:
            clock_pid = clock.scalar(sa.text("SELECT pg_backend_pid()"))
            urgent = {"priority": Priority.P0, "sla_due_at": lead.created_at + timedelta(minutes=5)}
            settling.execute(sa.update(Lead).where(Lead.id == lead.id).values(**urgent))

            def refresh():
                sla.refresh(clock)
                clock.commit()

            thread = threading.Thread(target=refresh)
            thread.start()
            blocked = sa.text("SELECT cardinality(pg_blocking_pids(:pid))")
            waiting.until(lambda: settling.scalar(blocked, {"pid": clock_pid}))
            settling.commit()
            thread.join()
        assert fresh(session, lead).sla_due_at == lead.created_at + timedelta(minutes=5)


def test_runs_claimed_by_rank_are_worked(session, session_factory, workspace):
    """The claim's share for lower ranks goes through the whole of a drain."""
    leads = [make_lead(session, workspace) for _ in range(4)]
    for rank, lead in enumerate(leads):
        session.execute(sa.update(Run).where(Run.lead_id == lead.id).values(rank=rank))
    session.commit()
    assert [len(claims.claim(session, RUNS, Holder(), limit=0)), drain(session_factory).done] == [0, 4]

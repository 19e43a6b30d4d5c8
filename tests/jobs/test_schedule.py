import uuid
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from rq import Queue

from jobs import schedule
from jobs.schedule import Clock, Periodic, Unfinished
from tests.factories import make_lead, make_user
from webapp.leads import llm_usage
from webapp.leads.ports import Usage
from webapp.leads.quarantine import Bad, quarantine
from webapp.leads.states import Door, LeadStatus, QuarantineState, RouteState
from webapp.models import IdempotencyKey, Lead, LlmCall, Presence, Quarantined


@pytest.mark.usefixtures("wired")
class TestJobs:
    def test_keys_past_their_days_go_in_batches(self, session, workspace, monkeypatch):
        monkeypatch.setattr(schedule, "PURGE_ROWS", 2)
        monkeypatch.setattr(schedule, "TURN_SECONDS", 60)
        for _ in range(6):
            make_lead(session, workspace)
        kept = session.scalars(sa.select(IdempotencyKey.key).limit(1)).one()
        session.execute(
            sa.update(IdempotencyKey)
            .where(IdempotencyKey.key != kept)
            .values(expires_at=sa.func.now() - timedelta(seconds=1))
        )
        session.commit()
        assert schedule.purge_idempotency_keys(session) == 5
        assert session.scalars(sa.select(IdempotencyKey.key)).all() == [kept]

    def test_leads_past_the_window_take_no_more_touches(self, session, workspace):
        old, new = make_lead(session, workspace), make_lead(session, workspace)
        assert old.dedupe_key
        past = datetime.now(UTC) - timedelta(days=31)
        session.execute(sa.update(Lead).where(Lead.id == old.id).values(created_at=past))
        session.commit()
        assert schedule.clear_dedupe_keys(session) == 1
        keys = dict(session.execute(sa.select(Lead.id, Lead.dedupe_key)).all())
        assert keys[old.id] is None
        assert keys[new.id] is not None

    def test_closed_pages_are_forgotten_and_open_ones_not(self, session, workspace):
        lead = make_lead(session, workspace)
        gone, here = make_user(session, workspace), make_user(session, workspace)
        stale = datetime.now(UTC) - timedelta(minutes=schedule.PRESENCE_MINUTES + 1)
        session.add(Presence(lead_id=lead.id, user_id=gone.id, seen_at=stale))
        session.add(Presence(lead_id=lead.id, user_id=here.id))
        session.commit()
        assert schedule.drop_stale_presence(session) == 1
        assert session.scalars(sa.select(Presence.user_id)).all() == [here.id]

    def test_calls_of_models_are_kept_for_a_year_and_a_bit(self, session, workspace):
        for _ in range(2):
            llm_usage.record(session, workspace.id, Usage("m", 5), purpose="classify")
        session.execute(
            sa.update(LlmCall)
            .where(LlmCall.id == sa.select(LlmCall.id).limit(1).scalar_subquery())
            .values(created_at=sa.text("now() - interval '401 days'"))
        )
        session.commit()
        assert schedule.forget_llm_calls(session) == 1
        assert session.scalar(sa.select(sa.func.count()).select_from(LlmCall)) == 1

    def test_entries_of_quarantine_that_were_decided_about_go_and_held_ones_stay(self, session, workspace):
        long_ago = datetime.now(UTC) - timedelta(days=schedule.QUARANTINE_DAYS + 1)
        kept = set()
        for state in QuarantineState:
            for decided_at in (long_ago, datetime.now(UTC)):
                held = quarantine(session, workspace.id, Door.HOOK, "hook", Bad("why", {"n": f"{state}{decided_at}"}))
                held.state, held.created_at = state, long_ago
                held.decided_at = None if state is QuarantineState.HELD else decided_at
                if state is QuarantineState.HELD or decided_at is not long_ago:
                    kept.add(held.id)
        session.commit()
        assert schedule.forget_quarantine(session) == 2
        assert set(session.scalars(sa.select(Quarantined.id))) == kept
        assert len(kept) == 4

    def test_what_a_turn_does_not_reach_is_left_to_the_next(self, session, workspace, monkeypatch):
        monkeypatch.setattr(schedule, "TURN_SECONDS", 0)
        monkeypatch.setattr(schedule, "PURGE_ROWS", 2)
        for _ in range(3):
            make_lead(session, workspace, status=LeadStatus.NEW_DRAFT)
        session.execute(sa.update(IdempotencyKey).values(expires_at=sa.func.now() - timedelta(seconds=1)))
        session.execute(sa.update(Lead).values(rescore_at=sa.func.now() - timedelta(seconds=1)))
        workspace.settings = workspace.settings | {"sla_refresh": str(uuid.UUID(int=0))}
        session.commit()
        for job, turns in (
            (schedule.purge_idempotency_keys, [2, 1, 0]),
            (schedule.rescore, [3, 0]),
            (schedule.refresh_sla, [3, 0]),
        ):
            done = [job(session) for _ in turns]
            assert done == turns
            assert [isinstance(one, Unfinished) for one in done] == [True] * (len(turns) - 1) + [False]

    def test_the_backlog_keeps_the_clock_for_no_longer_than_a_turn(self, session, workspace, monkeypatch):
        rep = make_user(session, workspace, takes_leads=True)
        lead = make_lead(session, workspace, status=LeadStatus.NEW_DRAFT, route_state=RouteState.BACKLOG)
        monkeypatch.setattr(schedule, "TURN_SECONDS", 0)
        assert schedule.give_out_backlog(session) == 0
        monkeypatch.setattr(schedule, "TURN_SECONDS", 60)
        assert schedule.give_out_backlog(session) == 1
        assert session.get_one(Lead, lead.id, populate_existing=True).assignee_id == rep.id

    def test_it_rings_for_what_is_due_and_only_then(self, session, workspace, bell):
        schedule.ring_runs(session)
        assert Queue("runs", connection=bell).count == 0
        make_lead(session, workspace)
        schedule.ring_runs(session)
        schedule.ring_deliveries(session)
        assert Queue("runs", connection=bell).count == 1
        assert Queue("deliveries", connection=bell).count == 0

    def test_a_failing_job_stops_neither_the_clock_nor_the_others(self, caplog):
        ran = []

        def fails(session):
            raise OSError("gone")

        clock = Clock((Periodic("fails", 1, fails), Periodic("works", 1, lambda session: ran.append(1))))
        for now in range(10):
            clock.tick(now)
        assert len(ran) == 10
        assert sum("fails" in record.message for record in caplog.records) == 1

    def test_a_job_that_has_more_to_do_goes_on_with_the_next_tick(self):
        ran, left = [], [Unfinished(5), Unfinished(5), 1]

        def long(session):
            ran.append(now)
            return left.pop(0)

        clock = Clock((Periodic("long", 3600, long),))
        for now in range(10):
            clock.tick(now)
        assert ran == [0, 1, 2]

    def test_each_job_keeps_its_own_time(self):
        ran = []
        clock = Clock(
            (Periodic("second", 1, lambda s: ran.append("s")), Periodic("hour", 3600, lambda s: ran.append("h")))
        )
        for now in range(3601):
            clock.tick(now)
        assert ran.count("s") == 3601
        assert ran.count("h") == 2


def test_every_periodic_job_is_in_the_one_list():
    assert [job.name for job in schedule.JOBS] == [
        "ring runs",
        "ring deliveries",
        "ring imports",
        "ring fetches",
        "give out backlog",
        "refresh SLA",
        "begin reading CRMs",
        "settle alerts",
        "expire suppressions",
        "rescore",
        "purge idempotency keys",
        "clear dedupe keys",
        "drop stale presence",
        "forget CRM requests",
        "forget imports",
        "forget answers of enrichment",
        "forget quarantine",
        "forget calls of models",
    ]

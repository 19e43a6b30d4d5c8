"""The filter of the list of runs: what is understood, what it finds, and counts that equal the list."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from tests.factories import make_lead, make_workspace
from tests.leads.test_run import drain, says
from webapp.leads import counts, listings, run, run_filters
from webapp.leads.errors import Invalid
from webapp.leads.run_filters import RunFilter
from webapp.leads.states import RunStatus, RunTrigger
from webapp.models import Lead, Run


def found(session, workspace, **given):
    """Lead ids of all pages; checks that the count says as many."""
    wanted, ids, cursor = RunFilter.parse(given), [], None
    while True:
        page = listings.runs(session, workspace.id, wanted, cursor=cursor)
        ids += [row.lead_id for row in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            break
    where = run_filters.conditions(workspace.id, wanted)
    assert counts.how_many(session, Run, where).n == len(ids)
    session.rollback()
    return ids


def set_run(session, lead, **values):
    session.execute(sa.update(Run).where(Run.lead_id == lead.id).values(**values))
    session.commit()


class TestParsing:
    def test_nothing_given_narrows_nothing(self):
        assert not RunFilter.parse({}).narrowed
        assert RunFilter.parse({"status": " ", "slower": "0"}) == RunFilter()

    def test_everything_is_understood(self):
        lead, rerun = uuid.uuid4(), uuid.uuid4()
        wanted = RunFilter.parse(
            {"status": "failed", "trigger": "rerun", "stage": "classify", "source": "zalo", "since": "2026-11-20",
             "slower": "2.5", "q": " jane  roe ", "lead": str(lead), "rerun": str(rerun)}
        )  # fmt: skip
        assert wanted == RunFilter(
            RunStatus.FAILED, False, RunTrigger.RERUN, "classify", "zalo", datetime(2026, 11, 20, tzinfo=UTC), 2.5,
            "jane roe", lead, rerun,
        )  # fmt: skip
        assert RunFilter.parse({"status": "unrepaired"}) == RunFilter(unrepaired=True)

    def test_a_leads_id_in_the_search_is_that_lead(self):
        lead = uuid.uuid4()
        assert RunFilter.parse({"q": str(lead)}) == RunFilter(lead_id=lead)

    @pytest.mark.parametrize(("given", "ago"), [("3h", timedelta(hours=3)), ("7d", timedelta(days=7))])
    def test_since_is_counted_back_from_now(self, given, ago):
        since = RunFilter.parse({"since": given}).since
        assert abs(datetime.now(UTC) - ago - since) < timedelta(minutes=1)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("status", "lost"), ("trigger", "x"), ("stage", "settle"), ("since", "soon"), ("since", "9999d9"), ("slower", "x"),
         ("slower", "nan"), ("slower", "-1"), ("lead", "7"), ("rerun", "7")],
    )  # fmt: skip
    def test_nonsense_is_named(self, name, value):
        with pytest.raises(Invalid) as caught:
            RunFilter.parse({name: value, "source": "zalo"})
        assert [problem.field for problem in caught.value.details] == [name]


class TestFinding:
    def test_by_state_trigger_and_source(self, session, session_factory, workspace):
        done = make_lead(session, workspace, source="zalo")
        drain(session_factory)
        waits = make_lead(session, workspace)
        assert found(session, workspace) == [waits.id, done.id]
        assert found(session, workspace, status="success") == [done.id]
        assert found(session, workspace, status="queued") == [waits.id]
        assert found(session, workspace, source="zalo") == [done.id]
        run.request_rerun(session, session.get_one(Lead, done.id), requested_by="Ann")
        session.commit()
        assert found(session, workspace, trigger="rerun") == [done.id]
        assert found(session, workspace, trigger="rerun", source="form") == []

    def test_by_the_stage_that_went_on_with_less_or_failed(self, session, session_factory, workspace):
        broken = make_lead(session, workspace)

        def judge(text):
            raise RuntimeError("no ruleset")

        drain(session_factory, judge=judge)
        make_lead(session, workspace)
        drain(session_factory, judge=says())
        assert found(session, workspace, stage="classify") == [broken.id]
        assert found(session, workspace, stage="score") == []
        failed = make_lead(session, workspace)
        set_run(session, failed, status="failed", stage="classify", finished_at=sa.func.now())
        assert found(session, workspace, stage="classify") == [failed.id, broken.id]

    def test_by_how_long_it_took_and_when(self, session, workspace):
        slow, quick, going = (make_lead(session, workspace) for _ in range(3))
        now, start = sa.func.now(), sa.func.now() - sa.text("interval '9 seconds'")
        set_run(session, slow, started_at=start, finished_at=now, status="success")
        set_run(session, quick, started_at=now, finished_at=now, status="success")
        set_run(session, going, started_at=start, status="running")
        assert found(session, workspace, slower="5") == [going.id, slow.id]
        assert found(session, workspace, slower="60") == []
        set_run(session, slow, created_at=sa.func.now() - sa.text("interval '3 days'"))
        assert found(session, workspace, since="24h") == [going.id, quick.id]

    def test_by_who_wrote(self, session, workspace):
        jane = make_lead(session, workspace, name="Jane Roe")
        make_lead(session, workspace, name="Bob Bar")
        assert found(session, workspace, q="roe") == [jane.id]
        assert found(session, workspace, q=str(jane.id)) == [jane.id]
        assert found(session, workspace, q="!!!") == []

    def test_pages_of_one_workspace_only(self, session, workspace, monkeypatch):
        monkeypatch.setattr(listings, "PAGE", 2)
        make_lead(session, make_workspace(session))
        leads = [make_lead(session, workspace).id for _ in range(5)]
        assert found(session, workspace) == leads[::-1]

    def test_a_row_says_what_each_stage_took_and_no_more_of_it(self, session, session_factory, workspace):
        make_lead(session, workspace)
        drain(session_factory)
        (row,) = listings.runs(session, workspace.id, RunFilter(), cursor=None).rows
        assert [stage["name"] for stage in row.stages] == list(run_filters.STAGES)
        assert all(set(stage) == {"name", "status", "ms"} for stage in row.stages)

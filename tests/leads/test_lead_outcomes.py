"""Outcomes: a history of reports, each once, and what sources are worth by them."""

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa

from tests.factories import make_lead, make_workspace
from tests.leads.test_run import drain, fresh
from webapp.leads import lead_outcomes, run, run_store
from webapp.leads.errors import Conflict, Invalid, NotFound
from webapp.leads.lead_outcomes import Report, history, record, source_records
from webapp.leads.states import DealState, OutcomeSource
from webapp.leads.types import SourceRecord
from webapp.models import AuditEvent, LeadOutcome

WON = Report(DealState.WON)
DAY = timedelta(days=1)


def report(session, lead, given=WON, source=OutcomeSource.API):
    found = record(session, lead.workspace_id, lead.id, given, source=source, actor="Ann", currency="EUR")
    session.commit()
    return found


class TestHistory:
    def test_a_report_is_stored_and_audited(self, session, workspace):
        lead = make_lead(session, workspace)
        given = Report(DealState.WON, " Closed  won ", 48_000.5, "usd", "deal-7:won")
        row = report(session, lead, given).row
        assert (row.outcome, row.stage, row.value, row.currency) == (
            DealState.WON,
            "Closed won",
            Decimal("48000.50"),
            "USD",
        )
        assert row.source is OutcomeSource.API
        assert datetime.now(UTC) - row.occurred_at < DAY
        event = session.scalars(sa.select(AuditEvent).where(AuditEvent.event_type == "OUTCOME_RECORDED")).one()
        assert (event.lead_id, event.actor, event.details["value"]) == (lead.id, "Ann", "48000.50")

    def test_a_value_without_a_currency_is_in_the_workspaces(self, session, workspace):
        lead = make_lead(session, workspace)
        assert report(session, lead, Report(DealState.OPEN, value=5)).row.currency == "EUR"
        assert report(session, lead).row.currency is None

    def test_what_happened_last_stands_in_whatever_order_it_was_told(self, session, workspace):
        lead, now = make_lead(session, workspace), datetime.now(UTC)
        for outcome, days in ((DealState.LOST, 1), (DealState.OPEN, 9), (DealState.WON, 5)):
            report(session, lead, Report(outcome, occurred_at=now - days * DAY))
        told = history(session, workspace.id, lead.id)
        assert [row.outcome for row in told] == [DealState.LOST, DealState.WON, DealState.OPEN]

    def test_a_history_is_never_rewritten(self, session, workspace):
        report(session, make_lead(session, workspace))
        with pytest.raises(sa.exc.DBAPIError, match="append-only"):
            session.execute(sa.update(LeadOutcome).values(outcome=DealState.LOST))


class TestRepeats:
    def test_the_same_report_again_is_a_repeat(self, session, workspace):
        lead = make_lead(session, workspace)
        given = Report(DealState.WON, value=0.1, external_id="d1", occurred_at=datetime.now(UTC))
        first, again = report(session, lead, given), report(session, lead, given)
        assert (first.replayed, again.replayed) == (False, True)
        assert first.row.id == again.row.id
        assert len(history(session, workspace.id, lead.id)) == 1
        assert session.scalar(sa.select(sa.func.count()).where(AuditEvent.event_type == "OUTCOME_RECORDED")) == 1

    @pytest.mark.parametrize(
        "other",
        [Report(DealState.LOST, external_id="d1"), Report(DealState.WON, value=2, external_id="d1"),
         Report(DealState.WON, external_id="d1", occurred_at=datetime(2026, 1, 1, tzinfo=UTC))],
    )  # fmt: skip
    def test_one_name_for_two_reports_is_refused(self, session, workspace, other):
        lead = make_lead(session, workspace)
        report(session, lead, Report(DealState.WON, external_id="d1"))
        with pytest.raises(Conflict) as refused:
            report(session, lead, other)
        assert refused.value.code == "idempotency_mismatch"

    def test_a_name_belongs_to_its_source_and_workspace(self, session, workspace):
        lead, there = make_lead(session, workspace), make_lead(session, make_workspace(session))
        given = Report(DealState.WON, external_id="d1")
        told = [
            report(session, lead, given),
            report(session, lead, given, OutcomeSource.CRM),
            report(session, there, given),
        ]
        assert not any(one.replayed for one in told)

    def test_two_at_once_are_stored_once(self, session, session_factory, workspace):
        lead, given = make_lead(session, workspace), Report(DealState.WON, external_id="d1")
        start, found = threading.Barrier(4), []

        def tell():
            with session_factory() as own:
                start.wait()
                found.append(report(own, lead, given).replayed)

        threads = [threading.Thread(target=tell) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert sorted(found) == [False, True, True, True]


class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "field"),
        [
            (Report(DealState.WON, value=-1), "value"),
            (Report(DealState.WON, value=float("nan")), "value"),
            (Report(DealState.WON, value=1e13), "value"),
            (Report(DealState.WON, currency="XXQ"), "currency"),
            (Report(DealState.WON, stage="x" * 201), "stage"),
            (Report(DealState.WON, stage="a\x00b"), "stage"),
            (Report(DealState.WON, external_id="x" * 201), "external_id"),
            (Report(DealState.WON, occurred_at=datetime(2026, 1, 1)), "occurred_at"),  # noqa: DTZ001
            (Report(DealState.WON, occurred_at=datetime.now(UTC) + DAY), "occurred_at"),
        ],
    )
    def test_what_makes_no_sense_is_refused_by_name(self, session, workspace, given, field):
        lead = make_lead(session, workspace)
        with pytest.raises(Invalid) as refused:
            report(session, lead, given)
        assert [problem.field for problem in refused.value.details] == [field]

    def test_anothers_lead_is_none(self, session, workspace):
        there = make_lead(session, make_workspace(session))
        with pytest.raises(NotFound):
            record(session, workspace.id, there.id, WON, source=OutcomeSource.API, actor="Ann", currency="EUR")


class TestSources:
    def test_a_lead_counts_once_by_what_stands(self, session, workspace):
        now = datetime.now(UTC)
        good, bad, open_ = (make_lead(session, workspace, source=name) for name in ("fair", "fair", "fair"))
        other = make_lead(session, workspace, source="ads")
        for lead, outcomes in ((good, "open lost won"), (bad, "won lost"), (open_, "won open"), (other, "lost")):
            for number, outcome in enumerate(outcomes.split()):
                moment = now - (9 - number) * DAY
                report(session, lead, Report(DealState(outcome), occurred_at=moment))
        empty = make_workspace(session)
        found = source_records(session, [workspace.id, empty.id])
        assert found[workspace.id].of("fair") == SourceRecord(1, 2, 1, 3)
        assert found[workspace.id].of("ads") == SourceRecord(0, 1, 1, 3)
        assert found[workspace.id].of("never heard of") == SourceRecord(0, 0, 1, 3)
        assert found[empty.id].of("fair") == SourceRecord()

    def test_what_is_long_past_teaches_nothing(self, session, workspace):
        lead = make_lead(session, workspace, source="fair")
        report(session, lead, Report(DealState.WON, occurred_at=datetime.now(UTC) - 400 * DAY))
        assert source_records(session, [workspace.id])[workspace.id].closed == 0

    def test_a_run_scores_by_what_was_learned(self, session, session_factory, workspace):
        lead = make_lead(session, workspace, source="fair")
        drain(session_factory)
        before = {part["name"]: part for part in fresh(session, lead).score_parts}["source"]
        assert before["reason"] == "no outcomes of this source yet; counts as average"
        for number in range(6):
            report(session, make_lead(session, workspace, source="fair" if number < 3 else "ads"), Report(
                DealState.WON if number < 3 else DealState.LOST))  # fmt: skip
        run_store._RECORDS.clear()
        run.request_rerun(session, lead, requested_by="Ann")
        session.commit()
        drain(session_factory)
        after = {part["name"]: part for part in fresh(session, lead).score_parts}["source"]
        assert after["reason"] == "won 3 of 3 outcomes of this source, 3 of 6 in all"

    def test_a_cache_asks_again_only_after_a_while(self, session, workspace, monkeypatch):
        cache = lead_outcomes.RecordCache()
        cache.refresh(session, [workspace.id])
        report(session, make_lead(session, workspace, source="fair"))
        cache.refresh(session, [workspace.id])
        assert cache.of(workspace.id, "fair").closed == 0
        monkeypatch.setattr(lead_outcomes, "CACHE_SECONDS", -1.0)
        cache.refresh(session, [workspace.id])
        assert cache.of(workspace.id, "fair") == SourceRecord(1, 1, 1, 1)

"""Stored scores stay true as time passes, for what waits."""

import threading
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from tests.factories import make_lead
from tests.leads.test_run import drain, fresh, says
from webapp.leads import rescoring
from webapp.leads.states import LeadStatus
from webapp.models import Lead


def scored(session, session_factory, workspace, **over):
    lead = make_lead(session, workspace, **over)
    drain(session_factory, judge=says(0.75))
    return fresh(session, lead)


def later(session, lead, days):
    """As if ``days`` had passed."""
    passed = timedelta(days=days)
    session.execute(
        sa.update(Lead)
        .where(Lead.id == lead.id)
        .values(last_contact_at=Lead.last_contact_at - passed, rescore_at=Lead.rescore_at - passed)
    )
    session.commit()


def work(session_factory):
    with session_factory.begin() as session:
        return rescoring.batch(session)


def parts(lead):
    return {part["name"]: part["points"] for part in lead.score_parts}


def test_a_point_is_lost_when_its_time_has_come_and_not_before(session, session_factory, workspace):
    lead = scored(session, session_factory, workspace)
    before = (parts(lead), lead.score, lead.version, lead.status)
    assert work(session_factory) == 0
    later(session, lead, 6.9)
    assert fresh(session, lead).rescore_at < datetime.now(UTC)
    assert work(session_factory) == 1
    after = fresh(session, lead)
    assert parts(after) == before[0] | {"freshness": 3}
    assert after.score == before[1] - 2 == sum(part["points"] for part in after.score_parts)
    assert (after.version, after.status) == before[2:]
    assert after.rescore_at > datetime.now(UTC)
    assert work(session_factory) == 0


def test_in_the_end_there_is_nothing_left_to_lose(session, session_factory, workspace):
    lead = scored(session, session_factory, workspace)
    later(session, lead, 100)
    assert work(session_factory) == 1
    after = fresh(session, lead)
    assert (parts(after)["freshness"], after.rescore_at) == (0, None)


def test_a_lead_falls_below_the_cut(session, session_factory, workspace):
    workspace.qualified_from = 0
    session.commit()
    lead = scored(session, session_factory, workspace)
    assert lead.qualified is True
    workspace.qualified_from = lead.score
    session.commit()
    later(session, lead, 30)
    work(session_factory)
    assert fresh(session, lead).qualified is False


def test_what_is_decided_keeps_the_score_of_its_decision(session, session_factory, workspace):
    lead = scored(session, session_factory, workspace)
    before = lead.score
    session.execute(sa.update(Lead).values(status=LeadStatus.APPROVED))
    later(session, lead, 30)
    assert work(session_factory) == 0
    assert fresh(session, lead).score == before


def test_a_score_that_cannot_be_read_is_left_to_the_next_run(session, session_factory, workspace):
    lead = scored(session, session_factory, workspace)
    before = lead.score
    session.execute(sa.update(Lead).values(score_parts=[{"name": "from the future"}]))
    later(session, lead, 30)
    assert work(session_factory) == 1
    after = fresh(session, lead)
    assert (after.score, after.rescore_at) == (before, None)


def test_several_clocks_share_the_work(session, session_factory, workspace, monkeypatch):
    leads = [make_lead(session, workspace, f"price {number}?") for number in range(9)]
    drain(session_factory, judge=says(0.75))
    for lead in leads:
        later(session, lead, 30)
    found = []

    def clock():
        for _ in range(5):
            with session_factory.begin() as own:
                found.append(rescoring.batch(own, limit=2))

    threads = [threading.Thread(target=clock) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    session.rollback()
    assert sum(found) == 9
    assert {parts(fresh(session, lead))["freshness"] for lead in leads} == {0}

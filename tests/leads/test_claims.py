"""Which runs are claimed first: P0 overtakes a backlog, and nothing starves while more urgent work keeps coming."""

from collections import Counter
from random import Random

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.factories import make_lead
from webapp.leads import claims
from webapp.leads.claims import FROM_BATCHES, FROM_FILES, RERUN, RUNS, Holder
from webapp.models import Run, Workspace


def queue(session: Session, workspace: Workspace, rank: int, count: int, *, seconds_ago: float = 0) -> None:
    """Due runs of one lead; what matters here is their rank and time alone."""
    lead = session.info.setdefault("lead", None) or make_lead(session, workspace)
    session.info["lead"] = lead
    session.execute(sa.delete(Run).where(Run.rank == 99))
    due = sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds_ago)
    for _ in range(count):
        session.add(Run(workspace_id=workspace.id, lead_id=lead.id, source="x", rank=rank, due_at=due))
    session.commit()


@pytest.fixture(autouse=True)
def empty(session: Session, workspace: Workspace) -> None:
    """No run but those that a test queues."""
    session.info["lead"] = make_lead(session, workspace)
    session.execute(sa.delete(Run))
    session.commit()


def claimed(session: Session, limit: int = 64) -> Counter[int]:
    ids = [one.id for one in claims.claim(session, RUNS, Holder(), limit=limit)]
    found = Counter(session.scalars(sa.select(Run.rank).where(Run.id.in_(ids))))
    assert found.total() == len(ids) == len(set(ids))
    session.commit()
    return found


def test_p0_overtakes_a_backlog(session: Session, workspace: Workspace) -> None:
    queue(session, workspace, 3, 150, seconds_ago=3_600)
    queue(session, workspace, FROM_FILES, 150, seconds_ago=7_200)
    queue(session, workspace, 0, 20)
    assert claimed(session) == {0: 20, 3: 42, FROM_FILES: 2}


def test_everything_progresses_under_a_stream_of_p0(session: Session, workspace: Workspace) -> None:
    others = (1, 2, 3, FROM_BATCHES, FROM_FILES, RERUN)
    for rank in others:
        queue(session, workspace, rank, 12)
    total: Counter[int] = Counter()
    for _ in range(6):
        queue(session, workspace, 0, 70)  # more than a claim takes, each time
        total += claimed(session)
    assert {rank: total[rank] for rank in others} == dict.fromkeys(others, 12)
    assert total[0] > 6 * 64 * 0.7


def test_re_runs_of_many_leads_stand_behind_imports(session: Session, workspace: Workspace) -> None:
    queue(session, workspace, RERUN, 70, seconds_ago=3_600)
    queue(session, workspace, FROM_FILES, 40)
    assert claimed(session) == {FROM_FILES: 40, RERUN: 24}


def test_small_claims_share_too(session: Session, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "random", Random(1))  # the same chances each time
    queue(session, workspace, 3, 30)
    total: Counter[int] = Counter()
    for _ in range(60):
        queue(session, workspace, 0, 1)
        total += claimed(session, 1)
    assert 0 < total[3] < 40 and total.total() == 60


def test_a_claim_is_full_as_long_as_there_is_work(session: Session, workspace: Workspace) -> None:
    queue(session, workspace, 2, 70)
    assert claimed(session) == {2: 64} and claimed(session) == {2: 6} and claimed(session) == {}


def test_within_a_rank_the_oldest_goes_first(session: Session, workspace: Workspace) -> None:
    queue(session, workspace, 1, 5)
    queue(session, workspace, 1, 1, seconds_ago=60)
    (first,) = claims.claim(session, RUNS, Holder(), limit=1, where=[Run.rank == 1])
    assert session.get_one(Run, first.id).due_at == session.scalar(sa.select(sa.func.min(Run.due_at)))


def test_backlogs_without_ranks_are_not_shared() -> None:
    assert claims.shares(claims.DELIVERIES, 64) == {}
    assert claims.shares(RUNS, 64) == dict.fromkeys((1, 2, 3, FROM_BATCHES, FROM_FILES, RERUN), 2)

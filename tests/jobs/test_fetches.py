"""The queue ``fetches``: rung for by the clock, drained by its worker, with what the environment says."""

import pytest
import sqlalchemy as sa

from jobs import queue, schedule, tasks, wiring
from tests.fakes.site import Site
from webapp.leads import webpages
from webapp.leads.states import FetchKind, FetchState
from webapp.models import Fetch, Lead


@pytest.fixture
def anonymous(monkeypatch):
    monkeypatch.delenv("WORKER_SLOT", raising=False)
    monkeypatch.setattr(tasks, "_process", tasks._Process())


@pytest.mark.usefixtures("wired", "bell", "anonymous")
class TestFetches:
    def test_a_page_is_fetched_and_its_leads_are_rung_for(self, session, workspace, monkeypatch):
        rung = []
        monkeypatch.setattr(queue, "ring", rung.append)
        with Site() as site:
            webpages.ask(session, workspace.id, f"{site.url}/about", actor="Ada")
            session.commit()
            assert tasks.process_fetches() == 1
        assert rung == [queue.RUNS]
        assert session.scalars(sa.select(Lead.email)).all() == ["desk@contoso.example"]

    def test_who_fetches_and_how_hard_comes_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("PUBLIC_URL", "https://console.example")
        monkeypatch.setenv("MAX_RETRIES", "3")
        wiring.settings.cache_clear()
        with Site() as site:
            assert wiring.fetchers().keys() == set(FetchKind)
            wiring.fetchers()[FetchKind.PAGE].get(f"{site.url}/about")
            assert site.agents[0].endswith("(+https://console.example)")
        assert (wiring.fetch_policy().max_tries, wiring.fetch_policy().retry_delay) == (3, 0.05)

    def test_private_addresses_are_fetched_only_where_the_operator_allows_it(self, session, workspace, monkeypatch):
        monkeypatch.setenv("OUTBOUND_ALLOW_CIDRS", "")
        wiring.settings.cache_clear()
        with Site() as site:
            webpages.ask(session, workspace.id, f"{site.url}/about", actor="Ada")
            session.commit()
            tasks.process_fetches()
            assert site.asked == []
        session.rollback()
        row = session.scalars(sa.select(Fetch)).one()
        assert row.state is FetchState.DEAD and "private network" in row.last_error

    def test_the_clock_rings_when_something_is_due(self, session, workspace, bell):
        schedule.ring_fetches(session)
        assert bell.keys("rq:queue:fetches") == []
        webpages.ask(session, workspace.id, "https://acme.example/", actor="Ada")
        session.commit()
        schedule.ring_fetches(session)
        assert bell.llen("rq:queue:fetches") == 1

"""Pages of runs and of re-runs: filters as a plain form, a run followed while it goes, and many re-run at once."""

import re

import pytest
import sqlalchemy as sa

from tests.factories import make_lead
from tests.leads.test_run import drain
from tests.views.conftest import fragment
from tests.views.test_pages import text_of
from webapp.leads import rerun_work
from webapp.leads.claims import Holder
from webapp.leads.states import Role
from webapp.models import Rerun, Run
from webapp.views import reruns


@pytest.fixture
def manager(client, login):
    return login(client, Role.MANAGER, name="Mai")


@pytest.fixture
def leads(session, session_factory, workspace):
    made = [make_lead(session, workspace, name=f"Lead {n}", source="zalo" if n < 2 else "web") for n in range(5)]
    drain(session_factory)
    return made


def count_in(html):
    return int(re.search(r'<b class="num">(\d+)</b>', html)[1])


class TestRuns:
    @pytest.mark.parametrize(
        ("query", "count"),
        [("", 5), ("source=zalo", 2), ("status=success&since=1h", 5), ("q=Lead+3", 1), ("trigger=touch", 0)],
    )
    def test_the_count_is_the_list(self, client, manager, leads, query, count):
        html = client.get(f"/runs?{query}").text
        assert html.count('href="/runs/') == count
        assert (count_in(html) if count else 0) == count
        assert ("No run matches" in html) == (count == 0)

    def test_the_form_keeps_what_was_asked_for_and_htmx_gets_the_list_alone(self, client, manager, leads):
        html = client.get("/runs?status=success&slower=7&q=Lead").text
        assert 'value="success" selected' in re.sub(r"\s+", " ", html)
        assert '<option value="7"' in html
        part = client.get("/runs?status=success", headers=fragment("results")).text
        assert "<form" not in part
        assert "Lead 1" in part

    def test_a_filter_that_is_not_understood_is_told(self, client, manager):
        html = client.get("/runs?stage=nowhere&slower=x").text
        assert "This filter is not understood" in html
        assert "“stage” and “slower”" in html

    def test_where_the_time_went_is_drawn_and_said(self, client, manager, leads):
        html = client.get("/runs").text
        assert html.count('class="stagebar"') == 5
        assert "Judge " in text_of(html)

    def test_a_run_that_waits_is_followed_until_it_is_over(self, client, manager, session, session_factory, workspace):
        lead = make_lead(session, workspace)
        run_id = session.scalars(sa.select(Run.id).where(Run.lead_id == lead.id)).one()
        session.rollback()
        html = client.get(f"/runs/{run_id}").text
        assert 'hx-trigger="every 1s"' in html
        assert html.count("to come") == 4
        session.execute(sa.update(Run).values(status="running", stage="classify", stage_since=sa.func.now()))
        session.commit()
        said = text_of(client.get(f"/runs/{run_id}", headers=fragment("state")).text)
        assert said.split().count("done") == 1
        assert "under way Judge" in " ".join(said.replace("◔", "").split())
        session.execute(sa.update(Run).values(status="queued"))
        session.commit()
        drain(session_factory)
        html = client.get(f"/runs/{run_id}").text
        assert "hx-trigger" not in html.split('id="state"')[1]
        assert "Fewest waiting" in html or "manual review" in html


class TestReruns:
    def test_the_confirmation_says_how_many_and_what_it_costs(self, client, manager, leads):
        said = text_of(client.get("/reruns/new?of=runs&source=zalo").text)
        assert "Re-run 2 leads" in said
        assert "No model is asked here" in said
        assert "Re-run 5 leads" in text_of(client.get("/reruns/new?of=leads&view=all").text)
        page = client.get("/reruns/new?of=leads&view=all&source=zalo").text
        assert "Of the queue: Everything, source: Zalo" in " ".join(text_of(page).split())
        assert re.search(r'href="/runs"\s+aria-current="page"', page)  # they belong to the runs
        assert "nothing to re-run" in text_of(client.get("/reruns/new?of=leads&view=rejected").text)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({}, "Waiting"), ({"view": "backlog"}, "Waits for its team"), ({"of": "runs"}, "All"),
            ({"status": "new_auto", "q": "A_b"}, "Status: auto, text: A_b"),
            ({"view": "all", "intent": "inquiry_price,support"}, "Everything, intent: price inquiry, support"),
            ({"of": "runs", "status": "failed", "source": "google_ads"}, "Status: failed, source: Google Ads"),
        ],
    )  # fmt: skip
    def test_which_leads_is_said_in_words(self, given, said):
        assert reruns.chosen(given) == said

    def test_a_model_s_cost_is_measured_or_said_not_to_be(self, app, client, manager, session, leads, monkeypatch):
        settings = app.extensions["settings"].model_copy(update={"openai_base_url": "http://127.0.0.1:9/v1"})
        monkeypatch.setitem(app.extensions, "settings", settings)
        assert "not yet measured" in text_of(client.get("/reruns/new?of=leads&view=all").text)
        model = {"ms": 800, "tokens_in": 500, "tokens_out": 60, "cost": None}
        stages = [{"name": "classify", "status": "ok", "ms": 1, "output": {"model": model}}]
        session.execute(sa.update(Run).values(stages=stages))
        session.commit()
        said = " ".join(text_of(client.get("/reruns/new?of=leads&view=all").text).split())
        assert "About 5 questions, 2,800 tokens; their price is not yet measured" in said

    def test_from_asking_to_the_result(self, client, manager, session, session_factory, leads):
        answer = client.post("/reruns", data={"of": "runs", "source": "zalo", "count": "2"})
        assert answer.status_code == 303
        page = answer.location
        assert "begins as soon as a worker is free" in client.get(page).text
        assert "Re-run of 2 leads" in client.get("/runs").text
        rerun_work.process(session_factory, Holder())
        assert "2 waiting" in text_of(client.get(page, headers=fragment("state")).text)
        drain(session_factory)
        session.execute(sa.update(Rerun).values(due_at=sa.func.now()))
        session.commit()
        rerun_work.process(session_factory, Holder())
        html = client.get(page).text
        assert "hx-trigger" not in html.split('id="state"')[1]
        assert "leads" in text_of(html)
        rerun_id = page.rpartition("/")[2]
        assert count_in(client.get(f"/runs?rerun={rerun_id}&status=success").text) == 2
        assert "Source: Zalo" in client.get("/reruns").text

    def test_a_list_that_has_changed_is_looked_at_again(self, client, manager, session, leads):
        answer = client.post("/reruns", data={"of": "leads", "view": "all", "count": "4"})
        assert answer.status_code == 409
        assert "The list has changed since you looked: 5 leads now. Nothing was started." in answer.text
        assert session.scalar(sa.select(sa.func.count()).select_from(Rerun)) == 0
        assert client.post("/reruns", data={"of": "leads", "view": "x", "count": "5"}).status_code == 422
        assert client.post("/reruns", data={"of": "leads", "view": "all"}).status_code == 422

    def test_it_is_stopped(self, client, manager, session, session_factory, leads):
        page = client.post("/reruns", data={"of": "leads", "view": "all", "count": "5"}).location
        rerun_work.process(session_factory, Holder())
        said = text_of(client.post(f"{page}/cancel", follow_redirects=True).text)
        assert "5 runs that had not begun were taken back" in said
        assert "Stopped by Mai" in said
        assert client.post(f"{page}/cancel").status_code == 409

"""Settings → Scoring and Suppression, and what the lead's page shows of both."""

import csv
import io
import re
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from tests.factories import make_lead
from tests.leads.test_run import drain, says
from tests.leads.test_scoring import form
from webapp.leads import lead_outcomes, suppression
from webapp.leads.lead_outcomes import Report
from webapp.leads.states import DealState, LeadStatus, OutcomeSource, Role, SuppressionKind
from webapp.leads.suppression import LISTS, Line
from webapp.models import ScoreVersion, Suppression
from webapp.views import waterfall

PAGE = "/settings/suppression"


@pytest.fixture
def manager(client, login):
    return login(client, Role.MANAGER, name="Mai")


def filled(**over):
    """The form as a browser sends it: nothing for a list in which nothing is chosen."""
    return {name: value for name, value in form(**over).items() if value != ()}


def post(client, path, **data):
    return client.post(path, data=data, follow_redirects=True)


class TestScoring:
    def test_a_manager_saves_restores_and_sees_versions(self, client, session, manager):
        assert "What is shipped holds" in client.get("/settings/scoring").text
        page = post(client, "/settings/scoring", **filled(weight_intent="80", industries=["software"]))
        assert "Version 1 holds" in page.text and "Mai" in page.text
        assert post(client, "/settings/scoring/restore", version="0").text.count("as shipped") == 1
        assert session.scalar(sa.select(sa.func.count()).select_from(ScoreVersion)) == 2
        assert client.post("/settings/scoring/restore", data={"version": "9"}).status_code == 404
        assert client.post("/settings/scoring/restore", data={"version": "x"}).status_code == 404

    def test_a_wrong_value_is_named_and_kept_and_nothing_saved(self, client, session, manager):
        answer = client.post("/settings/scoring", data=filled(weight_intent="many"))
        assert answer.status_code == 422
        assert "Intent must be a whole number from 0 to 100" in answer.text and 'value="many"' in answer.text
        assert session.scalar(sa.select(sa.func.count()).select_from(ScoreVersion)) == 0

    def test_the_preview_shows_a_real_lead_and_saves_nothing(
        self, client, session, session_factory, workspace, manager
    ):
        make_lead(session, workspace, name="Jane Preview")
        drain(session_factory, judge=says())
        only = {name: "0" for name in form() if name.startswith("weight_")} | {"weight_urgency": "5"}
        fragment = {"HX-Request": "true", "HX-Target": "section#preview"}
        answer = client.post("/settings/scoring", data=filled(**only, preview="1"), headers=fragment)
        assert "Jane Preview" in answer.text and "Not saved yet" in answer.text and "<html" not in answer.text
        assert re.search(r'<b class="num">60</b>', answer.text)
        assert session.scalar(sa.select(sa.func.count()).select_from(ScoreVersion)) == 0


class TestSuppression:
    def test_a_paste_is_added_and_lines_that_make_no_sense_are_told(self, client, session, manager):
        page = post(client, PAGE, lines="rival.com\n\n+49 30 901820\ngmail.com", kind="competitor", reason="they look")
        assert "2 added" in page.text and "gmail.com" in page.text and "everybody" in page.text
        page = client.get(f"{PAGE}?q=rival")
        assert "rival.com" in page.text and "+4930901820" not in page.text and "Mai" in page.text
        assert "Nobody like that" in client.get(f"{PAGE}?q=nobody").text

    def test_nothing_is_added_without_entries_or_a_good_day(self, client, session, manager):
        assert client.post(PAGE, data={"lines": " ", "kind": "test"}).status_code == 422
        answer = client.post(PAGE, data={"lines": "rival.com", "kind": "test", "expires": "soon"})
        assert answer.status_code == 422 and "must be a day" in answer.text and "rival.com" in answer.text
        assert session.scalar(sa.select(sa.func.count()).select_from(Suppression)) == 0

    def test_what_is_exported_can_be_brought_in_again(self, client, session, workspace, manager):
        post(
            client,
            PAGE,
            lines="rival.com\n+49 30 901820\n=cmd test*",
            kind="own_staff",
            reason="=1+1",
            expires="2099-01-01",
        )
        raw = client.get(f"{PAGE}/export.csv").data
        told = {row["value"]: row for row in csv.DictReader(io.StringIO(raw.decode()))}
        assert set(told) == {"rival.com", "'+4930901820", "'=cmd test*"}
        for row in session.scalars(sa.select(Suppression)):
            suppression.remove(session, workspace.id, row.id, actor="Bob")
        session.commit()
        answer = client.post(f"{PAGE}/import", data={"file": (io.BytesIO(raw), "list.csv")}, follow_redirects=True)
        assert "3 added" in answer.text
        rows = {
            row.value: row for row in session.scalars(sa.select(Suppression).where(Suppression.removed_at.is_(None)))
        }
        assert set(rows) == {"rival.com", "+4930901820", "=cmd test*"}
        one = rows["rival.com"]
        assert (one.kind, one.reason) == (SuppressionKind.OWN_STAFF, "=1+1")
        assert one.expires_at == datetime(2099, 1, 1, 23, 59, 59, tzinfo=UTC)

    @pytest.mark.parametrize("raw", [b"", b"name\nx", b"\xff\xfe", b"value,kind\nrival.com,nonsense"])
    def test_a_file_that_is_none_is_refused(self, client, session, manager, raw):
        answer = client.post(f"{PAGE}/import", data={"file": (io.BytesIO(raw), "list.csv")})
        assert answer.status_code == 422 and "CSV" in answer.text
        assert session.scalar(sa.select(sa.func.count()).select_from(Suppression)) == 0

    def test_an_entry_is_taken_off(self, client, session, workspace, manager):
        suppression.add(session, workspace.id, [Line("rival.com", SuppressionKind.TEST)], region="US", actor="Ann")
        session.commit()
        one = session.scalars(sa.select(Suppression.id)).one()
        assert "Nobody is on the list" in post(client, f"{PAGE}/{one}/remove").text
        assert client.post(f"{PAGE}/{one}/remove").status_code == 409


class TestTheLead:
    def test_the_banner_says_who_holds_it_back_and_why(self, client, session, workspace, login):
        login(client, Role.VIEWER)
        line = Line("rival.com", SuppressionKind.COMPETITOR, "they look at our prices")
        suppression.add(session, workspace.id, [line], region="US", actor="Ann Torres")
        session.commit()
        LISTS.clear()
        lead = make_lead(session, workspace, email="a@rival.com", status=LeadStatus.NEW_DRAFT, name="Rival Ron")
        page = re.sub(r"\s+", " ", client.get(f"/queue/{lead.id}").text)
        assert "On the suppression list." in page and "they look at our prices" in page
        assert "Competitor: Ann Torres put domain “rival.com” on it" in page
        assert "Rival Ron" not in client.get("/queue?view=waiting").text
        assert "Rival Ron" in client.get("/queue?view=suppressed").text

    def test_outcomes_are_shown_what_stands_first(self, client, session, workspace, login):
        login(client, Role.VIEWER)
        lead = make_lead(session, workspace)
        for report in (Report(DealState.OPEN, "Proposal"), Report(DealState.WON, "Closed", 48_000, "EUR")):
            lead_outcomes.record(
                session, workspace.id, lead.id, report, source=OutcomeSource.CRM, actor="CRM", currency="EUR"
            )
            session.commit()
        page = client.get(f"/queue/{lead.id}").text
        shown = page[page.index("What became of it") :]
        assert shown.index("48,000 EUR") < shown.index("Proposal")
        assert "Outcome reported: won (Closed), 48,000 EUR" in page

    def test_the_waterfall_says_what_the_table_says(self, client, session, session_factory, workspace, login):
        login(client, Role.VIEWER)
        lead = make_lead(session, workspace)
        drain(session_factory, judge=says())
        page = client.get(f"/queue/{lead.id}").text
        assert 'class="waterfall"' in page and "Parts of the score in order: Intent 31" in page
        assert 'style="' not in page


def test_a_bar_begins_where_the_ones_before_it_end():
    parts = [{"name": "intent", "points": 30, "of": 34}, {"name": "urgency", "points": 0, "of": 13},
             {"name": "budget", "points": 9, "of": 9}, {"name": "old", "points": 5}]  # fmt: skip
    found = waterfall.of(parts, qualified_from=60)
    assert [round((bar.x - waterfall.LABELS) / 2) for bar in found.bars] == [0, 30, 30, 39]
    assert [round(bar.width / 2) for bar in found.bars] == [30, 0, 9, 5]
    assert [round(bar.rest / 2) for bar in found.bars] == [4, 13, 0, 0]
    assert (found.total.points, round(found.total.width / 2)) == (44, 44)
    assert waterfall.of(None, qualified_from=60) is None

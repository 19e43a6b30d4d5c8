"""Settings → Web pages, as an admin sees it."""

import pytest
import sqlalchemy as sa

from jobs import queue
from tests.fakes.site import Site
from tests.views.conftest import fragment
from webapp.clients import guard
from webapp.clients.pages import PageFetcher, PageLimits
from webapp.leads import fetching
from webapp.leads.claims import Holder
from webapp.leads.fetching import FetchPolicy
from webapp.leads.states import FetchKind, FetchState, Role
from webapp.models import AuditEvent, Fetch, Lead

PAGE = "/settings/web-pages"


@pytest.fixture
def admin(client, login):
    return login(client, Role.ADMIN, name="Ada Admin")


@pytest.fixture
def fetched(session_factory):
    """Fetch everything that waits, as a worker does."""

    def do() -> None:
        fetcher = PageFetcher(allow=guard.networks(["127.0.0.0/8"]), limits=PageLimits(gap=0.0))
        policy = FetchPolicy(host_pause=0.0, max_tries=1)
        while fetching.process(session_factory, Holder(), {FetchKind.PAGE: fetcher}, policy=policy).more:
            pass
        with session_factory() as session:
            assert not session.scalar(sa.select(sa.exists().where(Fetch.state == FetchState.PENDING)))

    return do


@pytest.mark.usefixtures("admin")
class TestPage:
    def test_it_says_what_to_do_when_there_is_nothing(self, client):
        page = client.get(PAGE)
        assert page.status_code == 200 and "No pages yet" in page.text and "Web pages" in page.text

    def test_pages_are_added_and_rung_for(self, client, session, monkeypatch):
        rung = []
        monkeypatch.setattr("webapp.views.webpages.ring", rung.append)
        answer = client.post(
            PAGE, data={"urls": "acme.example/contact\nhttps://b.example/about"}, follow_redirects=True
        )
        assert "2 pages added" in answer.text and "https://acme.example/contact" in answer.text
        assert rung == [queue.FETCHES]
        assert {row.requested_by for row in session.scalars(sa.select(Fetch))} == {"Ada Admin"}
        events = session.scalars(sa.select(AuditEvent.event_type)).all()
        assert events == ["WEB_PAGES_ADDED"]

    def test_pages_that_are_listed_already_are_said(self, client):
        client.post(PAGE, data={"urls": "acme.example"})
        answer = client.post(PAGE, data={"urls": "https://acme.example/"}, follow_redirects=True)
        assert "0 pages added" in answer.text and "1 on the list already" in answer.text

    def test_wrong_lines_are_named_and_what_was_typed_stays(self, client, session):
        answer = client.post(PAGE, data={"urls": "https://ok.example/\nftp://x.example\n<script>"})
        assert answer.status_code == 422
        assert "“ftp://x.example” must begin with https:// or http://" in answer.text
        assert "Nothing was added" in answer.text and "https://ok.example/" in answer.text
        assert "<script>" not in answer.text.partition('name="urls"')[2]
        assert session.scalars(sa.select(Fetch.id)).all() == []

    def test_none_at_all(self, client):
        answer = client.post(PAGE, data={"urls": " "})
        assert answer.status_code == 422 and "at least one address" in answer.text

    def test_what_was_found_is_shown_with_its_leads(self, client, session, fetched):
        with Site() as site:
            client.post(PAGE, data={"urls": f"{site.url}/contact"})
            fetched()
        page = client.get(PAGE)
        jana = session.scalars(sa.select(Lead).where(Lead.email == "jana.mueller@acme.example")).one()
        assert f'href="/queue/{jana.id}"' in page.text and "Jana Müller" in page.text
        assert "Acme GmbH" in page.text and "Beispielweg 1" in page.text
        assert "hx-trigger" not in page.text.partition('id="list"')[2].partition("</main>")[0]

    def test_a_failure_is_told_in_words_and_can_be_tried_again(self, client, session, fetched):
        with Site() as site:
            client.post(PAGE, data={"urls": f"{site.url}/gone"})
            fetched()
            assert "The page is gone for good (410)." in client.get(PAGE).text
            row = session.scalars(sa.select(Fetch)).one()
            answer = client.post(f"{PAGE}/{row.id}/again", follow_redirects=True)
            assert "Fetching again" in answer.text
            session.rollback()
            assert session.scalars(sa.select(Fetch.state)).one() is FetchState.PENDING

    def test_one_without_contacts(self, client, fetched):
        with Site() as site:
            client.post(PAGE, data={"urls": f"{site.url}/nothing"})
            fetched()
        assert "No contact on it" in client.get(PAGE).text

    def test_leads_that_are_gone_are_no_link(self, client, session, fetched):
        with Site() as site:
            client.post(PAGE, data={"urls": f"{site.url}/about"})
            fetched()
        session.execute(sa.update(Fetch).values(result=sa.func.jsonb_set(Fetch.result, ["lead_ids"], sa.text(
            """'["00000000-0000-7000-8000-000000000000"]'::jsonb"""))))  # fmt: skip
        session.commit()
        page = client.get(PAGE)
        assert page.status_code == 200 and "its leads are gone" in page.text

    def test_removing_keeps_the_leads(self, client, session, fetched):
        with Site() as site:
            client.post(PAGE, data={"urls": f"{site.url}/about"})
            fetched()
        row = session.scalars(sa.select(Fetch)).one()
        answer = client.post(f"{PAGE}/{row.id}/remove", follow_redirects=True)
        assert "its leads stay" in answer.text
        session.rollback()
        assert session.scalars(sa.select(Fetch.id)).all() == []
        assert len(session.scalars(sa.select(Lead.id)).all()) == 1

    def test_what_is_gone_is_404(self, client):
        missing = "00000000-0000-7000-8000-000000000000"
        assert client.post(f"{PAGE}/{missing}/again").status_code == 404
        assert client.post(f"{PAGE}/{missing}/remove").status_code == 404

    def test_the_list_looks_again_until_all_is_done(self, client):
        client.post(PAGE, data={"urls": "acme.example"})
        part = client.get(PAGE, headers=fragment("list"))
        assert 'hx-trigger="every 2s"' in part.text and "<h1>" not in part.text and "<textarea" not in part.text

    def test_a_long_list_has_pages(self, client):
        client.post(PAGE, data={"urls": "\n".join(f"https://host{n}.example/" for n in range(60))})
        first = client.get(PAGE)
        assert first.text.count("Remove https") == 50 and 'rel="next"' in first.text


def test_a_manager_sees_no_tab(client, login):
    login(client, Role.MANAGER)
    assert "Web pages" not in client.get("/settings").text
    assert client.get(PAGE).status_code == 403

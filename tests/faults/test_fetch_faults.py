"""A worker of the queue ``fetches`` that is killed in the middle of a page: a real process on servers of its own."""

import threading

import pytest
import sqlalchemy as sa

from tests.factories import make_workspace
from tests.fakes.site import CONTACT, Site
from tests.faults.processes import kill, wait_until
from webapp.leads import webpages
from webapp.leads.states import FetchState
from webapp.models import Fetch, Lead

pytestmark = [pytest.mark.fault, pytest.mark.slow]


def test_a_worker_killed_over_a_page_loses_and_doubles_nothing(session, processes):
    asked, hold = threading.Event(), threading.Event()

    def slow(handler):
        """The first visitor waits for its page until it is killed; the next one gets it at once."""
        if not asked.is_set():
            asked.set()
            hold.wait(30)
            return
        body = CONTACT.encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html; charset=utf-8")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    workspace = make_workspace(session, "default")
    with Site() as site:
        site.pages["/slow"] = slow
        webpages.ask(session, workspace.id, f"{site.url}/slow", actor="Ada")
        session.commit()
        worker = processes.worker("fetches")
        assert asked.wait(30)
        kill(worker)
        hold.set()
        session.rollback()
        assert session.scalars(sa.select(Fetch.state)).one() is FetchState.FETCHING

        processes.worker("fetches")

        def done():
            session.rollback()
            return session.scalars(sa.select(Fetch.state)).one() is FetchState.DONE

        wait_until(done, seconds=20)  # at once: the slot is taken back, no lease is waited for
        assert site.visits() == ["/slow", "/slow"]
    found = session.scalars(sa.select(Fetch)).one()
    assert found.leads_made == 3 and found.attempt == 2
    assert sorted(session.scalars(sa.select(Lead.email))) == [
        "info@acme.example",
        "jana.mueller@acme.example",
        "sales@acme.example",
    ]

"""Lead Ads: announced by the webhook, fetched by a worker, docs/api.md §4."""

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from tests import factories
from tests.conftest import environment
from tests.fakes.graph import TOKEN, GraphFake, Token
from tests.faults.processes import Processes, kill
from tests.meta import leadgen, page_body
from tests.waiting import until
from webapp.api import dialects
from webapp.clients.graph import GraphClient
from webapp.clients.leadgen import LeadgenFetcher
from webapp.leads import fetching
from webapp.leads import leadgen as announcing
from webapp.leads.claims import Holder
from webapp.leads.fetching import FetchPolicy
from webapp.leads.leadgen import Announced
from webapp.leads.quarantine import Bad
from webapp.leads.social_pages import StoredTokens
from webapp.leads.states import FetchKind, FetchState, QuarantineState
from webapp.models import AuditEvent, Fetch, Lead, Quarantined, Run, SocialPage, WorkerSlot, Workspace

PATH = "/webhooks/facebook"
Drain = Callable[..., None]


@pytest.fixture
def graph() -> Iterator[GraphFake]:
    with GraphFake() as fake:
        fake.tokens[TOKEN] = Token(("PAGE",))
        fake.fill_in(
            "1001", "PAGE", full_name="Ana Torres", email="ana@example.com", seats="50", note="What is the price?"
        )
        yield fake


@pytest.fixture
def page(app: Flask, session: Session, workspace: Workspace) -> SocialPage:
    """The page, connected."""
    made = SocialPage(
        platform="facebook",
        page_id="PAGE",
        workspace_id=workspace.id,
        access_token=app.extensions["cipher"].encrypt(TOKEN),
    )
    session.add(made)
    session.commit()
    return made


@pytest.fixture
def drain(app: Flask, session_factory: sessionmaker[Session], graph: GraphFake) -> Drain:
    """What a worker does when it is rung; tries follow each other at once."""

    def do(*, default_token: str | None = None) -> None:
        cipher = app.extensions["cipher"]
        tokens = StoredTokens(session_factory, cipher.decrypt, default_token)
        fetcher = LeadgenFetcher(GraphClient(graph.url, "v24.0", timeout=5), tokens, cipher.seal)
        policy = FetchPolicy(max_tries=3, retry_delay=0.0, max_delay=0.0, throttle_delay=0.0, max_pause=0.0)
        fetching.process(session_factory, Holder(), {FetchKind.LEADGEN: fetcher}, policy=policy)

    return do


def announce(client: FlaskClient, headers: dict[str, str], *changes: Any) -> Any:
    answer = client.post(PATH, json=page_body(*(changes or [leadgen(1001)])), headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json


def all_of(session: Session, model: Any) -> list[Any]:
    session.rollback()
    return list(session.scalars(sa.select(model).execution_options(populate_existing=True)))


def the_fetch(session: Session) -> Fetch:
    (row,) = all_of(session, Fetch)
    assert isinstance(row, Fetch)
    return row


def test_a_form_is_announced_once_and_answered_at_once(
    client: FlaskClient, headers: dict[str, str], session: Session, workspace: Workspace, graph: GraphFake
) -> None:
    assert announce(client, headers) == {"ok": True, "created": 0, "lead_ids": []}
    announce(client, headers)
    announce(client, headers, leadgen("1001"))  # the same id as text
    row = the_fetch(session)
    assert (row.kind, row.target, row.state, row.workspace_id) == ("leadgen", "1001", "pending", workspace.id)
    assert row.payload["value"] == leadgen(1001)["value"]
    assert graph.calls() == []  # nothing outside is asked within the request


def test_the_answers_become_a_lead(
    client: FlaskClient, headers: dict[str, str], session: Session, page: SocialPage, drain: Drain
) -> None:
    announce(client, headers)
    drain()
    (lead,) = all_of(session, Lead)
    assert (lead.name, lead.email, lead.platform, lead.source_type) == (
        "Ana Torres", "ana@example.com", "facebook", "leadgen",
    )  # fmt: skip
    assert lead.message == "What is the price?\nseats: 50" and lead.intent == "inquiry_price"
    assert lead.external_message_id == "1001" and lead.attributes["created_time"] == "2018-02-28T08:49:14+00:00"
    assert lead.status.startswith("new_") and lead.person_id is not None
    row = the_fetch(session)
    assert (row.state, row.leads_made, row.result["answers"]) == (FetchState.DONE, 1, 4)
    assert len(all_of(session, Run)) == 1
    announce(client, headers)  # sent again days later
    drain()
    assert len(all_of(session, Lead)) == 1 and the_fetch(session).state is FetchState.DONE
    listed = client.get("/api/leads", headers=headers).json["leads"]
    assert [one["source_type"] for one in listed] == ["leadgen"]


def test_a_form_beside_comments_and_messages(
    client: FlaskClient, headers: dict[str, str], session: Session, page: SocialPage, drain: Drain
) -> None:
    comment = {"field": "feed", "value": {"item": "comment", "verb": "add", "comment_id": "c1", "message": "price?"}}
    said = announce(client, headers, comment, leadgen(1001), leadgen(None), leadgen("../me"), comment)
    assert said["created"] == 1
    kept = all_of(session, Quarantined)
    assert sorted(row.reason for row in kept) == [
        "leadgen_id is missing or no text",
        "leadgen_id is none that Meta gives",
    ]
    drain()
    assert len(all_of(session, Lead)) == 2


def test_the_default_workspace_has_the_environment_s_token(
    client: FlaskClient, headers: dict[str, str], session: Session, drain: Drain
) -> None:
    announce(client, headers)
    drain(default_token=TOKEN)
    assert len(all_of(session, Lead)) == 1


def test_and_no_other_workspace_does(client: FlaskClient, session: Session, workspace: Workspace, drain: Drain) -> None:
    other = factories.make_workspace(session)
    announce(client, {"X-API-Key": factories.make_key(session, other)})
    drain(default_token=TOKEN)
    assert all_of(session, Lead) == [] and the_fetch(session).state is FetchState.DEAD


def test_a_page_without_a_token_loses_nothing(
    client: FlaskClient, headers: dict[str, str], session: Session, app: Flask, page: SocialPage, drain: Drain
) -> None:
    session.execute(sa.update(SocialPage).values(access_token=None))
    session.commit()
    announce(client, headers)
    drain()
    row = the_fetch(session)
    assert row.state is FetchState.DEAD and "no access token" in str(row.last_error)
    (held,) = all_of(session, Quarantined)
    assert (held.dialect, held.source_id, held.state) == ("leadgen", row.id, QuarantineState.HELD)
    assert "no access token" in held.reason
    # Connected now: what is in quarantine is asked for again, and leaves it when it has come.
    session.execute(sa.update(SocialPage).values(access_token=app.extensions["cipher"].encrypt(TOKEN)))
    (again,) = dialects.read(held.dialect, json.loads(held.raw), seal=app.extensions["cipher"].seal)
    assert isinstance(again, Announced) and again.page_id == "PAGE"
    assert announcing.announce(session, row.workspace_id, [again]) == []
    assert announcing.announce(session, row.workspace_id, [again], again=True) == [row.id]
    session.commit()
    drain()
    assert len(all_of(session, Lead)) == 1
    (held,) = all_of(session, Quarantined)
    assert (held.state, held.decided_by) == (QuarantineState.REPLAYED, "SYSTEM")


def test_a_token_that_is_refused_is_said_where_it_is_seen(
    client: FlaskClient, headers: dict[str, str], session: Session, page: SocialPage, graph: GraphFake, drain: Drain
) -> None:
    graph.fill_in("1002", "PAGE", full_name="Bo")
    graph.fail_next(kind="190", times=2)
    announce(client, headers, leadgen(1001), leadgen(1002))
    drain()
    assert {row.state for row in all_of(session, Fetch)} == {FetchState.DEAD}
    assert all("connect the page again" in row.last_error for row in all_of(session, Fetch))
    (seen,) = all_of(session, SocialPage)
    assert "connect the page again" in seen.token_problem and seen.token_checked_at is not None
    events = [event for event in all_of(session, AuditEvent) if event.event_type == "SOCIAL_PAGE_TROUBLE"]
    assert len(events) == 1 and TOKEN not in json.dumps(events[0].details)
    assert announcing.waiting(session, seen.workspace_id) == {"PAGE": 2}
    assert announcing.ask_again(session, seen.workspace_id, "ELSE") == 0
    assert announcing.ask_again(session, seen.workspace_id, "PAGE") == 2
    session.commit()
    drain()
    assert len(all_of(session, Lead)) == 2
    (seen,) = all_of(session, SocialPage)
    assert seen.token_problem is None
    assert {row.state for row in all_of(session, Quarantined)} == {QuarantineState.REPLAYED}


def test_a_form_that_is_given_up_twice_is_kept_once(
    client: FlaskClient, headers: dict[str, str], session: Session, page: SocialPage, graph: GraphFake, drain: Drain
) -> None:
    announce(client, headers)
    for kind in ("190", "100"):
        graph.fail_next(kind=kind)
        drain()
        announcing.ask_again(session, page.workspace_id, "PAGE")
        session.commit()
    (held,) = all_of(session, Quarantined)
    assert "no such thing" in held.reason


@pytest.mark.parametrize("kind", ["4", "80005", "2", "503", "reset_before", "garbage", "429"])
def test_what_passes_is_waited_out(
    client: FlaskClient,
    headers: dict[str, str],
    session: Session,
    page: SocialPage,
    graph: GraphFake,
    drain: Drain,
    kind: str,
) -> None:
    graph.fail_next(kind=kind, times=2)
    announce(client, headers)
    drain()
    assert len(all_of(session, Lead)) == 1 and len(graph.calls()) == 3
    # Being asked to wait costs no try.
    assert the_fetch(session).tries == (1 if kind in ("4", "80005", "429") else 3)


def test_another_workspace_s_token_is_never_used(
    client: FlaskClient, session: Session, page: SocialPage, graph: GraphFake, drain: Drain
) -> None:
    """A key's holder may announce anything; what they get is what their own pages' tokens open."""
    other = factories.make_workspace(session)
    theirs = {"X-API-Key": factories.make_key(session, other)}
    assert client.post(PATH, json=page_body(leadgen(1001)), headers=theirs).status_code == 403
    announced = page_body(leadgen(1001))
    del announced["entry"][0]["id"]  # the page stands in the change alone
    assert client.post(PATH, json=announced, headers=theirs).status_code == 200
    drain()
    assert all_of(session, Lead) == [] and graph.calls() == []
    assert the_fetch(session).state is FetchState.DEAD


def test_what_is_announced_is_read_again_from_quarantine(app: Flask) -> None:
    seal = app.extensions["cipher"].seal
    (found,) = dialects.read("leadgen", {"id": "P", "changes": [leadgen(5, page_id="OTHER")]}, seal=seal)
    assert isinstance(found, Announced)
    assert (found.leadgen_id, found.page_id, found.change["value"]["page_id"]) == ("5", "P", "P")
    (bad,) = dialects.read("leadgen", {"changes": [leadgen(5, page_id=None)]}, seal=seal)
    assert isinstance(bad, Bad) and "which page" in bad.reason


@pytest.fixture
def processes(app: Flask, database_url: str, redis_url: str, graph: GraphFake) -> Iterator[Processes]:
    started = Processes(environment(database_url, redis_url, META_GRAPH_URL=graph.url, LOG_LEVEL="ERROR"))
    yield started
    started.kill_all()


@pytest.mark.fault
@pytest.mark.slow
def test_a_worker_killed_between_the_answers_and_the_lead_leaves_one_lead(
    client: FlaskClient,
    headers: dict[str, str],
    session: Session,
    session_factory: sessionmaker[Session],
    page: SocialPage,
    graph: GraphFake,
    processes: Processes,
) -> None:
    announce(client, headers)
    with session_factory() as barrier:
        # Nobody can write a lead: the worker has its answers and stands before the save.
        barrier.execute(sa.text("LOCK TABLE leads IN SHARE MODE"))
        worker = processes.worker("fetches")
        until(lambda: _waits_for_leads(session), seconds=60)
        assert len(graph.calls("GET")) == 1
        kill(worker)
        barrier.rollback()
    before = _incarnation(session)
    processes.worker("fetches")
    until(lambda: _incarnation(session) != before, seconds=90)
    until(lambda: the_fetch(session).state is FetchState.DONE, seconds=60)
    (lead,) = all_of(session, Lead)
    assert lead.name == "Ana Torres" and the_fetch(session).leads_made == 1
    assert len(graph.calls("GET")) == 2


def _waits_for_leads(session: Session) -> bool:
    session.rollback()
    waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'leads'::regclass)"
    return bool(session.scalar(sa.text(waits)))


def _incarnation(session: Session) -> uuid.UUID | None:
    session.rollback()
    found: uuid.UUID | None = session.scalar(
        sa.select(WorkerSlot.incarnation).where(WorkerSlot.slot.endswith("/fetches-1"))
    )
    return found

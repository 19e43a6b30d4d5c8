"""What is fetched becomes leads once, whoever is killed and however often it is tried."""

import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.factories import make_workspace
from tests.fakes.site import Site
from tests.waiting import until
from webapp.clients import guard
from webapp.clients.pages import PageFetcher, PageLimits
from webapp.leads import claims, fetching, run, webpages
from webapp.leads.claims import FETCHES, Holder, SlotTaken
from webapp.leads.errors import Invalid, NotFound, Permanent, Transient
from webapp.leads.fetching import FetchPolicy
from webapp.leads.intake import LeadIn
from webapp.leads.ports import Fetched, FetchTask, Throttled
from webapp.leads.states import Door, FetchKind, FetchState, LeadStatus
from webapp.models import AuditEvent, Fetch, Lead, Person, Run

#: Again at once, so that tests need not wait.
EAGER = FetchPolicy(retry_delay=0.0, max_delay=0.0, max_tries=3, throttle_delay=0.0, host_pause=0.0)
ANYBODY = Holder()


def web_lead(**over: Any) -> LeadIn:
    values = {"door": Door.WEB, "source": "web", "message": "Found.", "email": "a@acme.example", "external_id": "web:1"}
    return LeadIn(**(values | over))


@dataclass
class Scripted:
    """A fetcher that does what each target's list says, one after another, then the last for ever."""

    answers: Mapping[str, list[Any]] = field(default_factory=dict)
    seen: list[FetchTask] = field(default_factory=list)

    def fetch(self, task: FetchTask) -> Fetched:
        self.seen.append(task)
        steps = self.answers.get(task.target, [Fetched()])
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if isinstance(step, Exception):
            raise step
        found = step() if callable(step) else step
        assert isinstance(found, Fetched)
        return found


@pytest.fixture
def asked(session, workspace) -> Callable[..., uuid.UUID]:
    def ask(target: str = "https://acme.example/contact", *, kind: FetchKind = FetchKind.PAGE, into=None) -> uuid.UUID:
        row = Fetch(workspace_id=(into or workspace).id, kind=kind, target=target, payload={"why": "test"})
        session.add(row)
        session.commit()
        return row.id

    return ask


@pytest.fixture
def drain(session_factory):
    def do(fetcher: Any, *, holder: Holder = ANYBODY, policy: FetchPolicy = EAGER, **over: Any):
        kinds = over.pop("kinds", (FetchKind.PAGE, FetchKind.LEADGEN))
        return fetching.process(session_factory, holder, dict.fromkeys(kinds, fetcher), policy=policy, **over)

    return do


@pytest.fixture
def row(session):
    def get(fetch_id: uuid.UUID) -> Fetch:
        session.rollback()
        return session.get_one(Fetch, fetch_id, populate_existing=True)

    return get


URL = "https://acme.example/contact"


class TestTaking:
    def test_what_was_found_becomes_leads_with_their_runs(self, session, asked, drain, row):
        fetch_id = asked()
        other = web_lead(email="b@acme.example", external_id="web:2")
        drained = drain(Scripted({URL: [Fetched([web_lead(), other], {"title": "Contact"})]}))
        assert (drained.done, drained.more) == (1, False)
        found = row(fetch_id)
        leads = session.scalars(sa.select(Lead).order_by(Lead.email)).all()
        assert [lead.email for lead in leads] == ["a@acme.example", "b@acme.example"]
        assert (found.state, found.leads_made, found.tries, found.last_error) == (FetchState.DONE, 2, 1, None)
        assert found.finished_at is not None and found.result["title"] == "Contact"
        assert found.result["lead_ids"] == [str(lead.id) for lead in leads] and found.result["refused"] == []
        assert session.scalar(sa.select(sa.func.count()).select_from(Run)) == 2

    def test_the_task_knows_what_the_row_does(self, workspace, asked, drain):
        fetch_id = asked()
        scripted = Scripted()
        drain(scripted)
        assert scripted.seen == [FetchTask(fetch_id, workspace.id, FetchKind.PAGE, URL, {"why": "test"}, 0)]

    def test_what_is_found_on_a_page_never_goes_out_by_itself(self, session, workspace, session_factory, asked, drain):
        workspace.auto_from, workspace.draft_from = 0.01, 0.005
        session.merge(workspace)
        session.commit()
        asked()
        drain(Scripted({URL: [Fetched([web_lead(message="I want to buy 50 licences today, call me, send a quote")])]}))
        session.rollback()
        assert session.scalars(sa.select(Lead.status)).all() == [LeadStatus.NEW_DRAFT]
        run.process(session_factory, ANYBODY)
        session.rollback()
        assert session.scalars(sa.select(Lead.status)).all() == [LeadStatus.NEW_DRAFT]
        assert session.scalars(sa.select(Lead.intent)).all() == ["unknown"]  # nobody has asked for anything

    def test_other_doors_are_judged_as_ever(self, session, asked, drain):
        asked("17", kind=FetchKind.LEADGEN)
        lead = web_lead(
            door=Door.SOCIAL, message="I want to buy 50 licences today, please call me", external_id=None,
            platform="facebook", external_message_id="17",
        )  # fmt: skip
        drain(Scripted({"17": [Fetched([lead])]}))
        assert session.scalars(sa.select(Lead.intent)).one() == "purchase_intent"

    def test_the_same_again_makes_no_second_lead(self, session, workspace, asked, drain, row):
        fetch_id = asked()
        scripted = Scripted({URL: [Fetched([web_lead()])]})
        drain(scripted)
        (first,) = row(fetch_id).result["lead_ids"]
        webpages.again(session, workspace.id, fetch_id, actor="Ada")
        session.commit()
        assert drain(scripted).done == 1
        found = row(fetch_id)
        assert found.result["lead_ids"] == [first] and found.leads_made == 1
        assert session.scalar(sa.select(sa.func.count()).select_from(Lead)) == 1

    def test_nor_the_same_message_of_a_platform(self, session, asked, drain, row):
        lead = web_lead(door=Door.SOCIAL, external_id=None, platform="facebook", external_message_id="17")
        ids = [asked(name, kind=FetchKind.LEADGEN) for name in ("17", "17b")]
        drain(Scripted({"17": [Fetched([lead])], "17b": [Fetched([lead])]}))
        assert row(ids[0]).result["lead_ids"] == row(ids[1]).result["lead_ids"]
        assert session.scalar(sa.select(sa.func.count()).select_from(Lead)) == 1

    def test_a_lead_that_cannot_be_stored_costs_no_other(self, session, asked, drain, row):
        fetch_id = asked()
        bad = web_lead(name="a\x00b", external_id="web:2", email="b@acme.example")
        drain(Scripted({URL: [Fetched([bad, web_lead()])]}))
        found = row(fetch_id)
        assert found.state is FetchState.DONE and found.leads_made == 1
        assert found.result["refused"] == ["name must not contain NUL characters"]

    def test_what_cannot_be_taken_in_is_given_up_after_its_tries(self, session, asked, drain, row):
        fetch_id = asked()
        drain(Scripted({URL: [Fetched([web_lead(attributes={"a": "\x00"})])]}))
        found = row(fetch_id)
        assert (found.state, found.tries) == (FetchState.DEAD, EAGER.max_tries)
        assert found.last_error.startswith("internal error: ")
        assert session.scalars(sa.select(Lead.id)).all() == []

    def test_it_goes_to_its_own_workspace(self, session, asked, drain):
        there = make_workspace(session)
        asked(into=there)
        drain(Scripted({URL: [Fetched([web_lead()])]}))
        assert session.scalars(sa.select(Lead.workspace_id)).all() == [there.id]

    def test_only_kinds_that_somebody_fetches_are_touched(self, asked, drain, row):
        fetch_id = asked("17", kind=FetchKind.LEADGEN)
        assert drain(Scripted(), kinds=(FetchKind.PAGE,)).done == 0
        assert row(fetch_id).attempt == 0


class TestFailing:
    def test_a_passing_trouble_is_tried_again(self, session, asked, drain, row):
        fetch_id = asked()
        scripted = Scripted({URL: [Transient("The site is slow."), Fetched([web_lead()])]})
        assert drain(scripted).done == 2
        found = row(fetch_id)
        assert (found.state, found.tries, found.last_error) == (FetchState.DONE, 2, None)

    def test_after_so_many_tries_it_is_given_up_with_the_reason(self, session, asked, drain, row):
        fetch_id = asked()
        drain(Scripted({URL: [Transient("The site is slow.")]}))
        found = row(fetch_id)
        assert (found.state, found.tries, found.last_error) == (FetchState.DEAD, 3, "The site is slow.")
        event = session.scalars(sa.select(AuditEvent).where(AuditEvent.event_type == "FETCH_DEAD")).one()
        assert event.details == {"kind": "page", "target": URL, "error": "The site is slow."}

    def test_what_cannot_work_is_given_up_at_once(self, asked, drain, row):
        fetch_id = asked()
        drain(Scripted({URL: [Permanent("There is no such page (404).")]}))
        assert (row(fetch_id).state, row(fetch_id).tries) == (FetchState.DEAD, 1)

    def test_being_asked_to_wait_costs_no_try(self, asked, drain, row):
        fetch_id = asked()
        drain(Scripted({URL: [*[Throttled("slower", retry_after=0.0)] * 5, Fetched()]}))
        assert (row(fetch_id).state, row(fetch_id).tries) == (FetchState.DONE, 1)

    def test_the_wait_is_kept_in_the_row(self, session, asked, drain, row):
        fetch_id = asked()
        drained = drain(Scripted({URL: [Transient("later", retry_after=600)]}))
        found = row(fetch_id)
        left = found.due_at - session.scalar(sa.select(sa.func.now()))
        assert timedelta(seconds=590) < left <= timedelta(seconds=600)
        assert (found.state, drained.more) == (FetchState.PENDING, False)

    def test_an_unforeseen_error_is_told_by_its_kind_alone(self, asked, drain, row):
        fetch_id = asked()
        drain(Scripted({URL: [RuntimeError("secret")]}))
        assert (row(fetch_id).state, row(fetch_id).last_error) == (FetchState.DEAD, "internal error: RuntimeError")

    def test_backoff_doubles_up_to_a_bound(self):
        policy = FetchPolicy(retry_delay=2, max_delay=9)
        for tries, most in ((1, 2), (2, 4), (3, 8), (4, 9), (90, 9)):
            drawn = [fetching.backoff(tries, policy) for _ in range(200)]
            assert min(drawn) >= 0 and max(drawn) <= most and max(drawn) > most / 2


class TestWorkers:
    def test_one_that_was_given_up_writes_nothing(self, session, session_factory, asked, drain, row):
        fetch_id = asked()

        def meanwhile_taken_over() -> Fetched:
            with session_factory() as other:
                other.execute(sa.update(Fetch).values(lease_until=sa.func.now() - timedelta(seconds=1)))
                other.commit()
            drain(Scripted({URL: [Fetched([web_lead()])]}))
            return Fetched([web_lead(email="late@acme.example", external_id="web:late")])

        drained = drain(Scripted({URL: [meanwhile_taken_over]}))
        assert drained.done == 0
        assert row(fetch_id).leads_made == 1
        assert session.scalars(sa.select(Lead.email)).all() == ["a@acme.example"]

    def test_a_page_removed_meanwhile_makes_no_lead(self, session, session_factory, workspace, asked, drain):
        fetch_id = asked()

        def meanwhile_removed() -> Fetched:
            with session_factory() as other:
                webpages.remove(other, workspace.id, fetch_id, actor="Ada")
                other.commit()
            return Fetched([web_lead()])

        assert drain(Scripted({URL: [meanwhile_removed]})).done == 0
        assert session.scalars(sa.select(Lead.id)).all() == []

    def test_a_restarted_worker_takes_back_what_its_predecessor_held(self, session_factory, asked, drain, row):
        fetch_id = asked()
        with session_factory() as session:
            dead = Holder("host/fetches", claims.enter(session, "host/fetches"))
            assert len(claims.claim(session, FETCHES, dead, limit=5)) == 1
            session.commit()
        assert drain(Scripted()).done == 0  # the lease holds it
        with session_factory() as session:
            heir = Holder("host/fetches", claims.enter(session, "host/fetches"))
            session.commit()
        assert drain(Scripted(), holder=heir).done == 1
        assert row(fetch_id).state is FetchState.DONE

    def test_one_whose_slot_was_taken_claims_nothing(self, session_factory, asked, drain):
        asked()
        with session_factory() as session:
            old = Holder("host/fetches", claims.enter(session, "host/fetches"))
            claims.enter(session, "host/fetches")
            session.commit()
        with pytest.raises(SlotTaken):
            drain(Scripted(), holder=old)

    def test_a_long_fetch_keeps_its_lease(self, session_factory, asked, drain, row):
        fetch_id = asked()
        policy = FetchPolicy(host_pause=0.0, lease_seconds=0.6)
        start = threading.Event()

        def slow() -> Fetched:
            start.set()
            first = lease()
            until(lambda: lease() > first)
            return Fetched([web_lead()])

        def lease():
            with session_factory() as session:
                return session.scalars(sa.select(Fetch.lease_until)).one()

        assert drain(Scripted({URL: [slow]}), policy=policy).done == 1
        assert start.is_set() and row(fetch_id).attempt == 1

    def test_two_drains_at_once_fetch_everything_once(self, session, asked, drain):
        targets = [f"https://host{n}.example/" for n in range(30)]
        for target in targets:
            asked(target)
        answers = {
            t: [Fetched([web_lead(email=f"{n}@x.example", external_id=f"web:{n}")])] for n, t in enumerate(targets)
        }
        fetchers = [Scripted(answers), Scripted(answers)]
        threads = [threading.Thread(target=drain, args=(one,)) for one in fetchers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        seen = [task.target for one in fetchers for task in one.seen]
        assert sorted(seen) == sorted(targets)
        assert session.scalar(sa.select(sa.func.count()).select_from(Lead)) == 30

    def test_workers_that_found_the_same_people_do_not_deadlock(self, session, asked, drain):
        both = [web_lead(email=f"{n}@x.example", external_id=f"web:{n}") for n in range(8)]
        for n in range(12):
            asked(f"https://host{n}.example/")
        answers = {f"https://host{n}.example/": [Fetched(both if n % 2 else both[::-1])] for n in range(12)}
        failures: list[BaseException] = []

        def work() -> None:
            try:
                drain(Scripted(answers))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert failures == []
        assert session.scalar(sa.select(sa.func.count()).select_from(Person)) == 8

    def test_a_process_killed_in_the_middle_loses_and_doubles_nothing(
        self, session, session_factory, asked, drain, row
    ):
        """A forked worker is killed (as by kill -9) between its fetch and its settling."""
        fetch_id = asked()
        reached, wrote = os.pipe()
        child = os.fork()
        if child == 0:
            sa_engine = session_factory.kw["bind"]
            sa_engine.dispose(close=False)

            def die() -> Fetched:
                os.write(wrote, b"x")
                os.kill(os.getpid(), 9)
                return Fetched()

            drain(Scripted({URL: [die]}))
            os._exit(1)
        assert os.read(reached, 1) == b"x"
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == 9
        assert row(fetch_id).state is FetchState.FETCHING
        session.execute(sa.update(Fetch).values(lease_until=sa.func.now() - timedelta(seconds=1)))
        session.commit()
        drain(Scripted({URL: [Fetched([web_lead()])]}))
        assert (row(fetch_id).state, row(fetch_id).leads_made) == (FetchState.DONE, 1)


class TestManners:
    def test_pages_of_one_host_come_one_at_a_time(self, session, asked, drain):
        """Nobody ever meets anybody there."""
        met: list[int] = []

        def visit() -> Fetched:
            meeting.append(1)
            if len(meeting) > 1:
                met.append(1)
            with contextlib.suppress(threading.BrokenBarrierError):
                threading.Barrier(2, timeout=0.05).wait()
            meeting.pop()
            return Fetched()

        meeting: list[int] = []
        targets = [f"https://acme.example/{n}" for n in range(6)]
        for target in targets:
            asked(target)
        scripted = Scripted({target: [visit] for target in targets})
        until(lambda: drain(scripted).done + 1 and len(scripted.seen) == 6)
        assert met == []

    def test_hosts_do_not_wait_for_one_another(self, session_factory, asked, drain):
        """All at once: each waits for the others to have begun."""
        everybody = threading.Barrier(4, timeout=10)

        def visit() -> Fetched:
            everybody.wait()
            return Fetched()

        targets = [f"https://host{n}.example/" for n in range(4)]
        for target in targets:
            asked(target)
        assert drain(Scripted({target: [visit] for target in targets})).done == 4

    def test_after_a_page_its_host_rests(self, session, asked, drain, row):
        first, second = asked(f"{URL}/1"), asked(f"{URL}/2")
        elsewhere = asked("https://other.example/")
        drained = drain(Scripted({f"{URL}/1": [Fetched(pause=30.0)]}))
        assert row(first).state is FetchState.DONE and row(elsewhere).state is FetchState.DONE
        waiting = row(second)
        left = waiting.due_at - session.scalar(sa.select(sa.func.now()))
        assert waiting.state is FetchState.PENDING and timedelta(seconds=25) < left <= timedelta(seconds=30)
        assert not drained.more

    def test_a_busy_host_is_not_due(self, session, session_factory, asked):
        asked(f"{URL}/1")
        asked(f"{URL}/2")
        with session_factory() as other:
            assert fetching.has_due(other)
            claims.claim(other, FETCHES, ANYBODY, limit=1)
            other.commit()
            assert not fetching.has_due(other)


class TestThroughTheWire:
    def test_pages_of_a_real_site(self, session, asked, drain, row):
        fetcher = PageFetcher(allow=guard.networks(["127.0.0.0/8"]), limits=PageLimits(gap=0.0))
        with Site() as site:
            good, bad = asked(f"{site.url}/contact"), asked(f"{site.url}/gone")
            until(lambda: drain(fetcher) and row(bad).state is FetchState.DEAD and row(good).state is FetchState.DONE)
        assert row(bad).last_error == "The page is gone for good (410)."
        leads = session.scalars(sa.select(Lead).order_by(Lead.email)).all()
        assert [lead.email for lead in leads] == [
            "info@acme.example",
            "jana.mueller@acme.example",
            "sales@acme.example",
        ]
        assert {(lead.door, lead.source, lead.status) for lead in leads} == {(Door.WEB, "web", LeadStatus.NEW_ESCALATE)}
        assert leads[1].phone_e164 == "+4930901821" and leads[1].attributes["job_title"] == "Head of Purchasing"


class TestAsking:
    def ask(self, session, workspace, text: str):
        return webpages.ask(session, workspace.id, text, actor="Ada")

    def test_one_address_a_line(self, session, workspace):
        asked = self.ask(
            session, workspace, "acme.example/contact\n\n  HTTPS://Acme.Example:443/contact#team \nhttp://b.example"
        )
        assert (asked.added, asked.known) == (2, 0)
        rows = session.scalars(sa.select(Fetch).order_by(Fetch.target)).all()
        assert [row.target for row in rows] == ["http://b.example/", "https://acme.example/contact"]
        assert {(row.kind, row.state, row.requested_by) for row in rows} == {
            (FetchKind.PAGE, FetchState.PENDING, "Ada")
        }

    def test_what_is_listed_stays_as_it_is(self, session, workspace):
        self.ask(session, workspace, URL)
        session.execute(sa.update(Fetch).values(state=FetchState.DONE))
        asked = self.ask(session, workspace, f"{URL}\nhttps://new.example/")
        assert (asked.added, asked.known) == (1, 1)
        assert session.scalars(sa.select(Fetch.state).where(Fetch.target == URL)).one() is FetchState.DONE

    def test_every_line_that_is_no_address_is_named_and_none_is_added(self, session, workspace):
        with pytest.raises(Invalid) as raised:
            self.ask(session, workspace, f"{URL}\nftp://x.example\nhello world\n")
        assert [problem.reason for problem in raised.value.details] == [
            "“ftp://x.example” must begin with https:// or http://",
            "“hello world” must not hold spaces or control characters",
        ]
        assert session.scalars(sa.select(Fetch.id)).all() == []

    @pytest.mark.parametrize("text", ["", " \n ", "\n".join(f"https://a{n}.example" for n in range(101))])
    def test_none_or_too_many(self, session, workspace, text):
        with pytest.raises(Invalid):
            self.ask(session, workspace, text)

    @pytest.mark.parametrize(
        ("address", "stored"),
        [
            ("bücher.example", "https://xn--bcher-kva.example/"),
            ("http://a.example:80/x?y=1#z", "http://a.example/x?y=1"),
            ("a.example:8443/x", "https://a.example:8443/x"),
            ("http://[2001:db8::1]:8080/", "http://[2001:db8::1]:8080/"),
            ("http://127.0.0.1:5000/x", "http://127.0.0.1:5000/x"),
        ],
    )
    def test_addresses_are_stored_in_one_form(self, address, stored):
        assert webpages.normalized(address) == stored

    @pytest.mark.parametrize(
        "address",
        ["javascript:alert(1)", "mailto:a@b.example", "https://", "https://user:pw@a.example/", "http://[::1", "nodot",
         "https://a.example:0/", "https://a.example:99999/", "https://a..example/", "a.example/\x00", "x" * 2_001,
         "https://-a-.example/", "file:///etc/passwd", "https://a\ud800.example/"],
    )  # fmt: skip
    def test_what_is_no_address(self, address):
        with pytest.raises(ValueError):
            webpages.normalized(address)

    def test_again_and_remove_know_only_their_own_workspace(self, session, asked):
        fetch_id = asked()
        other = make_workspace(session)
        for verb in (webpages.again, webpages.remove):
            with pytest.raises(NotFound):
                verb(session, other.id, fetch_id, actor="Eve")
        assert session.get(Fetch, fetch_id) is not None

    def test_again_leaves_what_is_under_way(self, session, session_factory, workspace, asked, row):
        fetch_id = asked()
        with session_factory() as other:
            claims.claim(other, FETCHES, ANYBODY, limit=1)
            other.commit()
        webpages.again(session, workspace.id, fetch_id, actor="Ada")
        session.commit()
        assert row(fetch_id).state is FetchState.FETCHING

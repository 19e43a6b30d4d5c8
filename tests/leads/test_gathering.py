"""Runs that ask the outside: what they wait for, what they share, what they go on without, what is kept."""

import threading
import time

import pytest
import sqlalchemy as sa

from jobs import schedule
from tests.factories import make_lead, make_workspace
from tests.leads.test_judging import ON, UNSURE, Stub
from tests.leads.test_run import drain, events, fresh, runs_of
from webapp.leads import enrichment, run
from webapp.leads.claims import Holder
from webapp.leads.enrichment import Enriching
from webapp.leads.errors import NotFound, Permanent, Transient
from webapp.leads.judging import Judging
from webapp.leads.ports import Refused, Throttled
from webapp.leads.states import LookupSubject, RunStatus, StageStatus
from webapp.leads.types import Fact
from webapp.models import EnrichmentAnswer, EnrichmentHealth, EnrichmentProvider, Run


class Outside:
    """Stands in for all clients. ``answers``: kind → a callable of the subject, or an error to raise."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []
        self.lock = threading.Lock()

    def _tell(self, kind, subject, otherwise):
        with self.lock:
            self.asked.append((kind, subject))
        answer = self.answers.get(kind, otherwise)
        if isinstance(answer, Exception):
            raise answer
        return answer(subject) if callable(answer) else answer

    def mail_server(self, domain):
        return self._tell("dns", domain, [Fact("email_mx", True, "", 0.95)])

    def home_page(self, domain):
        return self._tell(
            "home", domain, [Fact("company_name", "Acme Pumps", "", 0.8), Fact("country", "Germany", "", 0.65)]
        )

    def ask(self, service, subject):
        return self._tell("own", subject, {"name": "Acme Pumps GmbH", "country": "AT"})

    def crm(self, target, email, phone, domain):
        return self._tell("crm", email, [])

    def count(self, kind):
        return sum(one == kind for one, _ in self.asked)


def enriched(session_factory, outside, *, timeout=5.0, **kwargs):
    return drain(session_factory, enriching=Enriching(outside, timeout=timeout), **kwargs)


def facts_of(session, lead):
    return {(row["name"], row["provider"]): row["value"] for row in fresh(session, lead).facts}


def stage_of(session, lead):
    return next(stage for stage in runs_of(session, lead)[-1].stages if stage["name"] == "enrich")


def provider(session, workspace, **over):
    values = {"subject": LookupSubject.DOMAIN, "name": "DataCo", "url": "https://data.example/{domain}",
              "mapping": {"company_name": "name", "country": "country"}}  # fmt: skip
    row = EnrichmentProvider(workspace_id=workspace.id, **(values | over))
    session.add(row)
    session.commit()
    return row


def again(session, lead):
    run.request_rerun(session, fresh(session, lead), requested_by="Ann")
    session.commit()


class TestAsking:
    def test_a_company_address_is_looked_up_and_what_is_said_stands_side_by_side(
        self, session, session_factory, workspace
    ):
        provider(session, workspace)
        lead = make_lead(session, workspace, email="jo@acme-pumps.de", phone="+14155552671")
        outside = Outside()
        assert enriched(session_factory, outside).done == 1
        found = facts_of(session, lead)
        assert found["email_mx", "DNS"] is True
        assert found["company_name", "home page"] == "Acme Pumps"
        assert found["company_name", "DataCo"] == "Acme Pumps GmbH"
        assert {value for (name, _), value in found.items() if name == "country"} == {"DE", "AT", "US", "VN"}
        assert found["industry", "home page"] == "manufacturing"
        stage = stage_of(session, lead)
        assert stage["status"] == StageStatus.OK
        assert stage["evidence"]["conflicts"] == ["company_name", "country", "time_zone"]
        assert [one["source"] for one in stage["evidence"]["asked"]] == ["DNS", "home page", "DataCo"]

    @pytest.mark.parametrize(
        "email", ["jo@gmail.com", "jo@mailinator.com", "jo@acme.example", "jo@example.com", "jo@box.local", None]
    )
    def test_nobody_is_asked_about_addresses_that_have_no_company(self, session, session_factory, workspace, email):
        make_lead(session, workspace, email=email, phone="+14155552671")
        outside = Outside()
        enriched(session_factory, outside)
        assert outside.asked == []

    def test_leads_of_one_domain_share_the_answer(self, session, session_factory, workspace):
        leads = [make_lead(session, workspace, email=f"p{i}@acme-pumps.de") for i in range(5)]
        outside = Outside(home=lambda _: time.sleep(0.05) or [Fact("city", "Berlin", "", 0.6)])
        assert enriched(session_factory, outside).done == 5
        assert (outside.count("home"), outside.count("dns")) == (1, 1)
        assert all(facts_of(session, lead)["city", "home page"] == "Berlin" for lead in leads)

    def test_public_answers_serve_every_workspace_and_own_services_only_theirs(
        self, session, session_factory, workspace
    ):
        provider(session, workspace)
        there = make_workspace(session)
        make_lead(session, workspace, email="a@acme-pumps.de")
        outside = Outside()
        enriched(session_factory, outside)
        lead = make_lead(session, there, email="b@acme-pumps.de")
        enriched(session_factory, outside)
        assert (outside.count("home"), outside.count("own")) == (1, 1)
        assert "DataCo" not in {provider for _, provider in facts_of(session, lead)}

    def test_an_answer_serves_until_it_is_too_old_and_keeps_its_time(self, session, session_factory, workspace):
        lead = make_lead(session, workspace, email="a@acme-pumps.de")
        outside = Outside()
        enriched(session_factory, outside)
        session.execute(sa.update(EnrichmentAnswer).values(facts=[{"name": "city", "value": "Bonn", "provider": "home page", "confidence": 0.6, "at": "2026-01-01T00:00:00+00:00"}]))  # fmt: skip
        session.commit()
        again(session, lead)
        enriched(session_factory, outside)
        assert outside.count("home") == 1
        (city,) = [row for row in fresh(session, lead).facts if row["name"] == "city"][:1]
        assert (city["value"], city["at"]) == ("Bonn", "2026-01-01T00:00:00+00:00")
        session.execute(sa.update(EnrichmentAnswer).values(expires_at=sa.func.now() - sa.text("interval '1s'")))
        session.commit()
        again(session, lead)
        enriched(session_factory, outside)
        assert outside.count("home") == 2

    def test_that_nothing_is_known_is_remembered_too(self, session, session_factory, workspace):
        outside = Outside(home=Permanent("there is no site of that name"), dns=NotFound("nothing"))
        for i in range(2):
            lead = make_lead(session, workspace, email=f"p{i}@acme-pumps.de")
            enriched(session_factory, outside)
        assert (outside.count("home"), outside.count("dns")) == (1, 1)
        stage = stage_of(session, lead)
        assert stage["status"] == StageStatus.OK
        assert {one["came"] for one in stage["evidence"]["asked"]} == {"nothing"}

    def test_a_changed_service_is_asked_anew(self, session, session_factory, workspace):
        row = provider(session, workspace)
        lead = make_lead(session, workspace, email="a@acme-pumps.de")
        outside = Outside()
        enriched(session_factory, outside)
        row.version += 1
        session.commit()
        again(session, lead)
        enriched(session_factory, outside)
        assert outside.count("own") == 2

    @pytest.mark.parametrize(
        "stored", [{"flags": {"enableEnrichment": False}}, {"enrich": {"dns": False, "home": False}}]
    )
    def test_what_is_switched_off_is_not_asked(self, session, session_factory, workspace, stored):
        workspace.settings = stored
        session.commit()
        make_lead(session, workspace, email="a@acme-pumps.de")
        outside = Outside()
        enriched(session_factory, outside)
        assert outside.asked == []


class TestFailing:
    @pytest.mark.parametrize("broken", ["https://a.de/x\0y", "https://a.de/x\ud800y"])
    def test_text_that_cannot_be_stored_costs_the_fact_and_not_the_lead(
        self, session, session_factory, workspace, broken
    ):
        found = [
            Fact("company_logo", broken, "", 0.8), Fact("company_social", ["https://a.de", broken], "", 0.8),
            Fact("city", "Bonn", "", 0.8, note=f"from “{broken}”"), Fact("company_description", "Two\nlines", "", 0.8),
        ]  # fmt: skip
        lead = make_lead(session, workspace, email="a@acme-pumps.de")
        enriched(session_factory, Outside(home=found, dns=Permanent(f"it said {broken}")))
        assert runs_of(session, lead)[0].status is RunStatus.SUCCESS
        assert {(name, value) for (name, who), value in facts_of(session, lead).items() if who == "home page"} == {
            ("city", "Bonn"),
            ("company_description", "Two\nlines"),
        }
        assert session.scalar(sa.select(sa.func.count()).select_from(EnrichmentAnswer)) == 2

    def test_no_answer_in_time_costs_the_fact_and_not_the_lead(self, session, session_factory, workspace):
        lead = make_lead(session, workspace, email="a@acme-pumps.de")
        over = threading.Event()
        outside = Outside(home=lambda _: over.wait(30) and [])
        try:
            began = time.monotonic()
            assert enriched(session_factory, outside, timeout=0.3).done == 1
            assert time.monotonic() - began < 10
        finally:
            over.set()
        assert runs_of(session, lead)[0].status is RunStatus.SUCCESS
        stage = stage_of(session, lead)
        assert stage["status"] == StageStatus.DEGRADED
        assert stage["error"] == "went on without home page: no answer within 0.3 s"
        assert facts_of(session, lead)["email_mx", "DNS"] is True
        assert events(session, lead, "STAGE_DEGRADED")[0]["stage"] == "enrich"

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (Transient("The site did not answer in time."), "The site did not answer in time."),
            (Refused("it answered 401", destination_wide=True), "it does not accept our key (it answered 401)"),
            (KeyError("secret words"), "internal error: KeyError"),
        ],
    )
    def test_every_failure_is_said_in_words(self, session, session_factory, workspace, error, said):
        lead = make_lead(session, workspace, email="a@acme-pumps.de")
        enriched(session_factory, Outside(home=error))
        assert stage_of(session, lead)["error"] == f"went on without home page: {said}"

    def test_facts_of_a_source_that_gives_no_answer_this_time_stay(self, session, session_factory, workspace):
        lead = make_lead(session, workspace, email="a@acme-pumps.de")
        enriched(session_factory, Outside())
        session.execute(sa.delete(EnrichmentAnswer))
        session.commit()
        again(session, lead)
        enriched(session_factory, Outside(home=Transient("busy")))
        assert facts_of(session, lead)["company_name", "home page"] == "Acme Pumps"
        assert stage_of(session, lead)["status"] == StageStatus.DEGRADED

    def test_a_source_that_fails_again_and_again_is_left_alone_by_all_workers(
        self, session, session_factory, workspace
    ):
        provider(session, workspace)
        outside = Outside(own=Transient("down"))
        for i in range(5):
            make_lead(session, workspace, email=f"a@firm{i}.de")
            enriched(session_factory, outside)
        assert outside.count("own") == 5
        lead = make_lead(session, workspace, email="a@firm99.de")
        enriched(session_factory, outside)
        assert outside.count("own") == 5
        assert "DataCo: left alone for another" in stage_of(session, lead)["error"]
        session.execute(sa.update(EnrichmentHealth).values(open_until=sa.func.now() - sa.text("interval '1s'")))
        session.commit()
        outside.answers.clear()
        make_lead(session, workspace, email="a@firm100.de")
        enriched(session_factory, outside)
        health = session.scalars(sa.select(EnrichmentHealth).where(EnrichmentHealth.provider.like("own:%"))).one()
        session.refresh(health)
        assert (health.failures, health.open_until) == (0, None)

    def test_a_refused_key_and_a_429_pause_at_once(self, session, session_factory, workspace):
        provider(session, workspace, name="One")
        outside = Outside(own=Throttled("it asks us to wait (429)", retry_after=120))
        make_lead(session, workspace, email="a@firm1.de")
        enriched(session_factory, outside)
        make_lead(session, workspace, email="a@firm2.de")
        enriched(session_factory, outside)
        assert outside.count("own") == 1

    def test_what_is_under_way_goes_back_when_the_worker_stops(self, session, session_factory, workspace):
        lead = make_lead(session, workspace, email="a@acme-pumps.de")
        over, stopping = threading.Event(), threading.Event()

        def home(_):
            stopping.set()
            over.wait(30)
            return []

        try:
            enriched(session_factory, Outside(home=home), stop=stopping.is_set)
        finally:
            over.set()
        assert runs_of(session, lead)[0].status is RunStatus.QUEUED
        assert enriched(session_factory, Outside()).done == 1


class TestManyAtOnce:
    def test_who_waits_for_facts_and_then_a_model_has_a_place_with_the_model(self, session, session_factory, workspace):
        leads = [make_lead(session, workspace, UNSURE, email=f"jo@acme-{number}.de") for number in range(6)]
        released, held = threading.Event(), []

        def look() -> bool:
            session.rollback()
            held.append(sum(run.status is RunStatus.RUNNING for lead in leads for run in runs_of(session, lead)))
            if len(held) == 4:
                released.set()
            return False

        def slowly(_: str) -> list[Fact]:
            released.wait(30)
            return []

        judges = Judging(ON, Stub(), threads=2)
        enriched(session_factory, Outside(home=slowly), timeout=30, judge=None, judges=judges, stop=look)
        assert held[:4] == [2, 2, 2, 2]
        assert len(judges.model.asked) == 6

    def test_runs_that_ask_nothing_are_not_held_up_by_those_that_do(self, session, session_factory, workspace):
        over = threading.Event()
        for i in range(6):
            make_lead(session, workspace, email=f"a@slow{i}.de")
        quick = [make_lead(session, workspace, email=f"q{i}@gmail.com") for i in range(20)]
        seen = []

        def home(_):
            while not over.wait(0.05):
                pass
            return []

        def look():
            with session_factory() as other:
                while not over.is_set():
                    done = other.scalar(sa.select(sa.func.count()).where(Run.status == RunStatus.SUCCESS))
                    other.rollback()
                    if done == len(quick):
                        seen.append(done)
                        over.set()
                    over.wait(0.05)

        looker = threading.Thread(target=look, daemon=True)
        looker.start()
        clients = Outside(home=home)
        done = drain(session_factory, Holder(), enriching=Enriching(clients, timeout=30, threads=2), batch=8).done
        looker.join(10)
        assert seen == [20] and done == 26

    def test_no_more_is_asked_at_once_than_there_are_threads(self, session, session_factory, workspace):
        now, most = [0], [0]
        lock = threading.Lock()

        def home(_):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.02)
            with lock:
                now[0] -= 1
            return []

        workspace.settings = {"enrich": {"dns": False}}
        session.commit()
        for i in range(20):
            make_lead(session, workspace, email=f"a@firm{i}.de")
        drain(session_factory, enriching=Enriching(Outside(home=home), timeout=30, threads=3))
        assert most[0] == 3
        assert session.scalar(sa.select(sa.func.count()).select_from(EnrichmentAnswer)) == 20


def test_old_answers_are_forgotten(session, session_factory, workspace):
    make_lead(session, workspace, email="a@acme-pumps.de")
    enriched(session_factory, Outside())
    assert schedule.forget_answers(session) == 0
    session.execute(sa.update(EnrichmentAnswer).values(expires_at=sa.func.now() - sa.text("interval '2 days'")))
    assert schedule.forget_answers(session) == 2


@pytest.mark.parametrize(
    ("domain", "public"),
    [
        ("acme.de", True),
        ("acme.example", False),
        ("www.example.com", False),
        ("localhost", False),
        ("x.internal", False),
    ],
)
def test_domains_that_nobody_can_own_are_known(domain, public):
    assert enrichment.is_public(domain) is public

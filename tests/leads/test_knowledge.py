"""Facts as they are stored and read again: nothing overwritten, conflicts told apart from agreement."""

from datetime import UTC, datetime

from tests.factories import make_lead
from tests.leads.test_run import drain, fresh
from webapp.leads import knowledge, run
from webapp.leads.types import Fact, best

NOW = datetime(2026, 11, 28, 8, 0, tzinfo=UTC)


def test_what_is_stored_reads_back_with_its_time():
    facts = (
        Fact("country", "VN", "phonenumbers", 0.4, "by the number"),
        Fact("company_social", ["https://x.example"], "p", 0.7),
    )
    read = knowledge.read(knowledge.stored(facts, now=NOW))
    assert [(fact.name, fact.value, fact.provider, fact.confidence, fact.note) for fact in read] == [
        ("country", "VN", "phonenumbers", 0.4, "by the number"), ("company_social", ["https://x.example"], "p", 0.7, ""),
    ]  # fmt: skip
    assert {fact.at for fact in read} == {"2026-11-28T08:00:00+00:00"}


def test_a_fact_learned_earlier_keeps_its_own_time():
    (row,) = knowledge.stored([Fact("city", "Huế", "p", 0.5, at="2026-11-01T00:00:00+00:00")], now=NOW)
    assert row["at"] == "2026-11-01T00:00:00+00:00"


def test_the_same_word_of_the_same_provider_is_kept_once_and_nothing_learned_keeps_what_was():
    twice = [Fact("city", "Huế", "p", 0.5), Fact("city", "Huế", "p", 0.5), Fact("city", "Huế", "q", 0.5)]
    assert [row["provider"] for row in knowledge.stored(twice)] == ["p", "q"]
    assert knowledge.stored(()) is None


def test_contradictions_stay_beside_the_most_trusted():
    facts = [
        Fact("country", "US", "phone", 0.4),
        Fact("country", "DE", "site", 0.8),
        Fact("country", "de", "data", 0.6),
    ]
    known = knowledge.by_name(facts)["country"]
    assert known.best is best(facts)["country"]
    assert [fact.provider for fact in known.agreeing] == ["site", "data"]
    assert [fact.value for fact in known.others] == ["US"]


def test_rows_that_cannot_be_read_are_left_out():
    assert knowledge.read(["x", {}, {"name": 1}, {"name": "city"}]) == (Fact("city", None, "", 0.0),)


def test_a_run_stores_what_it_learned_and_one_that_may_not_look_keeps_it(session, session_factory, workspace):
    lead = make_lead(session, workspace, email="jane@acme.example", phone="+84912345678")
    drain(session_factory)
    lead = fresh(session, lead)
    names = {row["name"]: row for row in lead.facts}
    assert names["company_domain"]["value"] == "acme.example"
    assert names["phone_region"]["value"] == "VN"
    assert set(names["email_valid"]) == {"name", "value", "provider", "confidence", "note", "at"}
    workspace.settings = {"flags": {"enableEnrichment": False}}
    session.add(workspace)
    run.request_rerun(session, lead, requested_by="Ann")
    session.commit()
    drain(session_factory)
    assert {row["name"] for row in fresh(session, lead).facts} >= {"company_domain", "phone_region"}

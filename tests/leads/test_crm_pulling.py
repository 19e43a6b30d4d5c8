"""What became of leads, read back from Twenty: everything once, whatever happens on the way."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests.fakes.twenty import TwentyFake
from tests.leads.delivering import (
    EAGER,
    clients,
    drain,
    events,
    new_holder,
    planned,
    rows,
    states,
    twenty_destination,
)
from tests.waiting import until
from webapp.leads import crm_pulling, crm_pulls, lead_outcomes, outbox
from webapp.leads.claims import Holder
from webapp.leads.crm_pulling import OVERLAP
from webapp.leads.deliver import DeliveryPolicy
from webapp.leads.errors import Conflict, Invalid
from webapp.leads.lead_outcomes import Report
from webapp.leads.ports import Drained
from webapp.leads.states import DealState, DestinationMode, OutcomeSource, Priority, PullState
from webapp.models import CrmPull, Destination, Lead, LeadOutcome, Workspace

Factory = sessionmaker[Session]


@pytest.fixture
def twenty() -> Iterator[TwentyFake]:
    with TwentyFake() as fake:
        yield fake


@pytest.fixture
def crm(session: Session, workspace: Workspace, twenty: TwentyFake) -> Destination:
    row = twenty_destination(session, workspace, twenty)
    assert crm_pulls.begin(session) == 1
    session.commit()
    return row


@pytest.fixture
def ada(session: Session, workspace: Workspace, crm: Destination, session_factory: Factory) -> Lead:
    """Her lead, delivered."""
    lead = planned(session, workspace, email="ada@example.com", name="Ada")
    drain(session_factory)
    assert set(states(session, lead).values()) == {"delivered"}
    return lead


def turn(
    session_factory: Factory, holder: Holder | None = None, *, policy: DeliveryPolicy = EAGER, **over: Any
) -> Drained:
    values: dict[str, Any] = {"every": 300.0, "policy": policy} | over
    return crm_pulling.process(session_factory, holder or Holder(), clients(), **values)


def pull(session: Session, session_factory: Factory, **over: Any) -> CrmPull:
    """As soon as it is due again, until it is over."""
    session.execute(sa.update(CrmPull).values(due_at=sa.func.now()))
    session.commit()
    turn(session_factory, **over)
    return the_pull(session)


def the_pull(session: Session) -> CrmPull:
    session.rollback()
    return session.scalars(sa.select(CrmPull).execution_options(populate_existing=True)).one()


def a_deal(session: Session, twenty: TwentyFake, lead: Lead, stage: str = "PROPOSAL", **over: Any) -> str:
    person = rows(session, lead)["person"].remote_id
    amount = {"amountMicros": 1_250_500_000, "currencyCode": "EUR"}
    return twenty.add("opportunities", name="Deal", stage=stage, amount=amount, pointOfContactId=person, **over)


def told(session: Session, lead: Lead) -> list[tuple[str, str | None, float | None]]:
    """The history, oldest first."""
    session.rollback()
    found = lead_outcomes.history(session, lead.workspace_id, lead.id)[::-1]
    return [(row.outcome.value, row.stage, float(row.value) if row.value is not None else None) for row in found]


def test_a_deal_s_way_is_told_step_by_step(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead, crm: Destination
) -> None:
    deal = a_deal(session, twenty, ada, "NEW")
    pull(session, session_factory)
    assert told(session, ada) == [("open", "NEW", 1250.5)]
    twenty.change("opportunities", deal, name="Another name")  # nothing that we tell
    pull(session, session_factory)
    assert len(told(session, ada)) == 1
    for stage in ("PROPOSAL", "CUSTOMER"):
        twenty.change("opportunities", deal, stage=stage)
        pull(session, session_factory)
    assert [outcome for outcome, *_ in told(session, ada)] == ["open", "open", "won"]
    (row, *_) = lead_outcomes.history(session, ada.workspace_id, ada.id)
    assert (row.source, row.currency, row.deal, row.destination.name) == (OutcomeSource.CRM, "EUR", deal, "Twenty")
    assert row.occurred_at == datetime.fromisoformat(twenty.store["opportunities"][deal]["updatedAt"])
    found = the_pull(session)
    assert (found.deals_seen, found.reports_made, found.reports_total, found.error) == (1, 1, 3, None)
    assert found.pulled_at is not None and found.due_at > datetime.now(UTC) + timedelta(seconds=200)
    assert len(events(session, ada.id, "OUTCOME_RECORDED")) == 3


def test_reading_again_makes_nothing_twice_and_asks_for_what_is_new_alone(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    old = (datetime.now(UTC) - OVERLAP * 3).isoformat(timespec="milliseconds")
    deal = a_deal(session, twenty, ada, "WON", createdAt=old)
    twenty.store["opportunities"][deal]["updatedAt"] = old
    session.execute(sa.update(Lead).values(created_at=sa.func.now() - sa.text("interval '1 day'")))
    session.commit()
    a_deal(session, twenty, ada, "NEW")
    for _ in range(4):
        pull(session, session_factory)
    assert len(told(session, ada)) == 2
    first, *later = [
        call.query for call in twenty.calls("GET /opportunities") if "updatedAt" in call.query.get("order_by", "")
    ]
    assert "filter" not in first and all("updatedAt[gte]" in query["filter"] for query in later)
    assert the_pull(session).deals_seen == 1  # the old one is not asked for any more


def test_hundreds_of_one_timestamp_are_all_read(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    twenty.page_limit = 7
    same = datetime.now(UTC).isoformat(timespec="milliseconds")
    deals = [a_deal(session, twenty, ada, f"S{n}", updatedAt=same) for n in range(40)]
    assert pull(session, session_factory).deals_seen == 40
    for n, deal in enumerate(deals):  # and another one of that very moment, seen later
        twenty.change("opportunities", deal, stage=f"T{n}", updatedAt=same)
    pull(session, session_factory)
    assert len(told(session, ada)) == 80
    pull(session, session_factory)
    assert len(told(session, ada)) == 80


def test_a_worker_that_is_killed_costs_one_page(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    twenty.page_limit = 5
    for n in range(20):
        a_deal(session, twenty, ada, f"S{n}")

    class Killed(BaseException):
        pass

    pages = 0
    real = twenty.handle

    def stop() -> bool:
        nonlocal pages
        pages += 1
        if pages == 3:  # before the first page, then after each
            raise Killed
        return False

    dying = new_holder(session, "w1")
    with pytest.raises(Killed):
        turn(session_factory, dying, stop=stop)
    assert the_pull(session).state is PullState.RUNNING and len(told(session, ada)) == 10
    assert turn(session_factory).done == 0  # it is held
    twenty.requests.clear()
    twenty.handle = real  # type: ignore[method-assign]
    assert turn(session_factory, new_holder(session, "w1")).done == 1
    assert len(told(session, ada)) == 20
    assert [call.query.get("starting_after") is not None for call in twenty.calls("GET /opportunities")][:2] == [
        True, True,
    ]  # fmt: skip


def test_a_worker_that_was_given_up_writes_nothing(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    a_deal(session, twenty, ada)
    real, overtaken = twenty.handle, []

    def handle(request: Any) -> Any:
        if request.path == "/opportunities" and not overtaken:
            overtaken.append(True)
            session.execute(sa.update(CrmPull).values(lease_until=sa.func.now() - sa.text("interval '1 s'")))
            session.commit()
            assert turn(session_factory).done == 1
        return real(request)

    twenty.handle = handle  # type: ignore[method-assign]
    turn(session_factory)
    assert len(told(session, ada)) == 1 and the_pull(session).reports_total == 1


def test_twenty_workers_at_once_are_one_reader(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    for n in range(10):
        a_deal(session, twenty, ada, f"S{n}")
    barrier = threading.Barrier(20)

    def one(_: int) -> int:
        barrier.wait()
        return turn(session_factory).done

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(one, range(20))) == 1
    assert len(told(session, ada)) == 10
    assert len([call for call in twenty.calls("GET /opportunities") if "filter" not in call.query]) == 1


@pytest.mark.parametrize("kind", ["500", "reset_before", "cut_after", "garbage", "busy"])
def test_trouble_is_told_and_passes(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead, kind: str
) -> None:
    twenty.page_limit = 2
    for n in range(5):
        a_deal(session, twenty, ada, f"S{n}")
    twenty.fail_next("GET /opportunities", kind=kind, times=2, retry_after="0")
    found = pull(session, session_factory)
    while found.pulled_at is None:
        found = pull(session, session_factory)
    assert found.error and found.tries == 0 and found.pulled_at > found.failed_at
    assert len(told(session, ada)) == 5


def test_a_hang_ends_with_the_time_limit(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    twenty.fail_next("GET /opportunities", kind="hang")
    crm_pulling.process(session_factory, Holder(), clients(delivery_timeout=0.3), every=300, policy=EAGER)
    assert the_pull(session).error == "timed out"


def test_a_pause_that_twenty_asks_for_holds_deliveries_too(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead, crm: Destination
) -> None:
    twenty.page_limit = 1
    for n in range(3):
        a_deal(session, twenty, ada, f"S{n}")
    real, seen = twenty.handle, []

    def handle(request: Any) -> Any:
        seen.append(request)
        return twenty.throttled("30") if len(seen) == 2 else real(request)

    twenty.handle = handle  # type: ignore[method-assign]
    found = pull(session, session_factory)
    assert found.error and "429" in found.error
    session.refresh(crm)
    for left_alone_until in (found.due_at, crm.paused_until):
        assert left_alone_until is not None and left_alone_until > datetime.now(UTC) + timedelta(seconds=20)
    assert found.progress["cursor"] and len(told(session, ada)) == 1
    assert pull(session, session_factory).pulled_at is None  # due, and the destination is being left alone
    session.execute(sa.update(Destination).values(paused_until=None))
    session.commit()
    assert pull(session, session_factory).pulled_at is not None
    assert len(told(session, ada)) == 3


def test_a_cursor_that_twenty_does_not_know_any_more_begins_the_phase_again(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    twenty.page_limit = 2
    for n in range(5):
        a_deal(session, twenty, ada, f"S{n}")
    turn(session_factory, max_seconds=0.0001)
    found = the_pull(session)
    session.execute(sa.update(CrmPull).values(progress={**found.progress, "cursor": "bm9uc2Vuc2U="}))
    session.commit()
    assert pull(session, session_factory).pulled_at is not None
    assert len(told(session, ada)) == 5


@pytest.mark.parametrize("max_seconds", [5.0, 0.0001])
def test_a_second_page_that_is_always_refused_is_a_failure_and_not_a_loop(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead, max_seconds: float
) -> None:
    twenty.page_limit = 2
    for n in range(5):
        a_deal(session, twenty, ada, f"S{n}")
    real = twenty.handle

    def handle(request: Any) -> Any:
        return twenty.error(400) if "starting_after" in request.query else real(request)

    twenty.handle = handle  # type: ignore[method-assign]
    for _ in range(2):  # the next try begins anew and is another failure
        twenty.requests.clear()
        found = pull(session, session_factory, max_seconds=max_seconds)
        for _ in range(9):
            if found.due_at <= datetime.now(UTC):
                found = pull(session, session_factory, max_seconds=max_seconds)
        assert [call.query.get("starting_after") is not None for call in twenty.calls("GET /opportunities")] == [
            False, True, False, True,
        ]  # fmt: skip
        assert found.pulled_at is None and found.error == "answered 400"
        assert found.due_at > datetime.now(UTC) + timedelta(seconds=200)
    twenty.handle = real  # type: ignore[method-assign]
    assert pull(session, session_factory).pulled_at is not None
    assert len(told(session, ada)) == 5


def test_a_deal_dated_in_the_future_does_not_stop_the_news(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    ahead = datetime.now(UTC) + timedelta(days=3_000)
    a_deal(session, twenty, ada, "NEW", updatedAt=ahead.isoformat(timespec="milliseconds"))
    pull(session, session_factory)
    a_deal(session, twenty, ada, "CUSTOMER")
    pull(session, session_factory)
    assert [outcome for outcome, *_ in told(session, ada)] == ["open", "won"]
    assert datetime.fromisoformat(the_pull(session).progress["marks"]["deals"]) <= datetime.now(UTC)


def deals_with_people(twenty: TwentyFake) -> int:
    """How often deals with those who have arrived were asked for."""
    return len([call for call in twenty.calls("GET /opportunities") if "OfContactId" in call.query.get("filter", "")])


def test_who_has_arrived_is_asked_for_once(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crm_pulling, "OVERLAP", timedelta(0))  # as if it was over
    session.execute(sa.update(CrmPull).values(progress={"marks": {"arrived": "2020-01-01T00:00:00+00:00"}}))
    session.commit()
    pull(session, session_factory)
    assert deals_with_people(twenty) == 1
    pull(session, session_factory)
    assert deals_with_people(twenty) == 1


def test_who_arrives_during_a_long_first_pull_is_asked_for(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    a_deal(session, twenty, ada, "NEW")
    began = datetime.now(UTC) - timedelta(hours=1)  # and all deals have been read since
    session.execute(sa.update(CrmPull).values(progress={"phase": "arrived", "began": began.isoformat()}))
    session.execute(sa.text("UPDATE deliveries SET delivered_at = now() - interval '30 minutes'"))
    session.commit()
    pull(session, session_factory)
    assert told(session, ada) == [("open", "NEW", 1250.5)]


def test_a_key_that_may_not_read_deals_is_told_as_a_failure(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    twenty.unreadable = {"opportunities"}
    found = pull(session, session_factory)
    assert found.pulled_at is None and found.error == "answered 403"
    assert found.due_at > datetime.now(UTC) + timedelta(seconds=200)
    twenty.unreadable = {"people", "tasks"}  # what is deleted there is then not known
    a_deal(session, twenty, ada)
    found = pull(session, session_factory)
    assert found.pulled_at is not None and found.hint is not None
    assert "which people were deleted (answered 403); which tasks were deleted (answered 403)" in found.hint
    assert len(told(session, ada)) == 1
    twenty.unreadable = set()
    assert pull(session, session_factory).hint is None


# Whose a deal is


def test_a_deal_goes_to_the_newest_lead_before_it(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    later = planned(session, workspace, email="ada@example.com", name="Ada", message="again")
    drain(session_factory)
    deal = a_deal(session, twenty, ada, "WON")
    third = planned(session, workspace, email="ada@example.com", name="Ada", message="and again")
    drain(session_factory)
    pull(session, session_factory)
    assert [len(told(session, lead)) for lead in (ada, later, third)] == [0, 1, 0]
    # It stays with its lead.
    session.execute(sa.update(Lead).where(Lead.id == third.id).values(created_at=later.created_at))
    session.commit()
    twenty.change("opportunities", deal, stage="LOST")
    pull(session, session_factory)
    assert told(session, later)[-1][0] == "lost"


def test_what_was_over_before_the_lead_came_is_not_the_lead_s(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    deal = a_deal(
        session, twenty, ada, "WON", createdAt="2020-01-01T00:00:00.000Z", updatedAt="2020-02-01T00:00:00.000Z"
    )
    pull(session, session_factory)
    assert told(session, ada) == []
    for over in ({"name": "Edited"}, {"stage": "Won"}, {"amount": {"amountMicros": 1, "currencyCode": "EUR"}}):
        twenty.change("opportunities", deal, **over)  # later, and no other stage
        pull(session, session_factory)
        assert told(session, ada) == []
    twenty.change("opportunities", deal, stage="NEW", amount=None)
    pull(session, session_factory)
    assert told(session, ada) == [("open", "NEW", None)]


@pytest.mark.parametrize("stage", ["WON", "LOST"])
def test_what_was_over_when_it_was_first_seen_is_not_the_lead_s_though_edited_since(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead, stage: str
) -> None:
    deal = a_deal(session, twenty, ada, stage, createdAt="2020-01-01T00:00:00.000Z")  # changed just now
    for _ in range(2):
        pull(session, session_factory)
    assert told(session, ada) == []
    twenty.change("opportunities", deal, stage="WON" if stage == "LOST" else "LOST")
    pull(session, session_factory)
    assert [outcome for outcome, *_ in told(session, ada)] == ["won" if stage == "LOST" else "lost"]


def test_an_old_deal_that_was_open_when_the_lead_came_and_is_won_since_is_the_lead_s(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    long_ago = {"createdAt": "2020-01-01T00:00:00.000Z", "updatedAt": "2020-02-01T00:00:00.000Z"}
    deal = a_deal(session, twenty, ada, "PROPOSAL", **long_ago)
    pull(session, session_factory)
    assert told(session, ada) == []
    twenty.change("opportunities", deal, stage="WON")
    pull(session, session_factory)
    assert told(session, ada) == [("won", "WON", 1250.5)]


def test_without_a_contact_of_ours_the_company_tells(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    crm.config = {**crm.config, "companies": True}
    session.commit()
    lead = planned(session, workspace, email="ada@acme.example", company="Acme")
    drain(session_factory)
    company = rows(session, lead)["company"].remote_id
    stranger = twenty.add("people", name={"firstName": "Bo", "lastName": ""})
    twenty.add("opportunities", stage="CUSTOMER", companyId=company, pointOfContactId=stranger)
    twenty.add("opportunities", stage="CUSTOMER", pointOfContactId=stranger)
    pull(session, session_factory)
    assert told(session, lead) == [("won", "CUSTOMER", None)]


def test_a_deal_that_was_there_before_the_person_was_delivered_is_found(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    lead = planned(session, workspace, email="ada@example.com")
    person = twenty.add("people", name={"firstName": "Ada", "lastName": ""}, emails={"primaryEmail": "ada@example.com"})
    twenty.add("opportunities", stage="MEETING", pointOfContactId=person)
    assert pull(session, session_factory).deals_seen == 1
    marks = {**the_pull(session).progress["marks"], "deals": (datetime.now(UTC) + OVERLAP * 2).isoformat()}
    session.execute(sa.update(CrmPull).values(progress={"marks": marks}))  # the deal was seen long ago
    session.commit()
    drain(session_factory)
    assert told(session, lead) == []
    assert pull(session, session_factory).deals_seen == 0
    assert told(session, lead) == [("open", "MEETING", None)]


def test_a_value_that_is_none_does_not_keep_the_rest_back(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    person = rows(session, ada)["person"].remote_id
    for amount in ({"amountMicros": -5, "currencyCode": "EUR"}, {"amountMicros": "x"}, None,
                   {"amountMicros": 1_000_000, "currencyCode": "???"}):  # fmt: skip
        twenty.add("opportunities", stage="WON", amount=amount, pointOfContactId=person)
    for _ in range(2):
        pull(session, session_factory)
    assert told(session, ada) == [("won", "WON", None)] * 4


# Stages


def test_what_stages_mean_is_a_setting(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, ada: Lead, crm: Destination
) -> None:
    for stage in ("Closed won", "closed_lost", "SIGNED"):
        a_deal(session, twenty, ada, stage)
    pull(session, session_factory)
    assert sorted(outcome for outcome, *_ in told(session, ada)) == ["lost", "open", "won"]
    crm_pulls.save(session, workspace.id, crm.id, enabled=True, won="Signed, closed won", lost="", actor="Mai")
    session.commit()
    pull(session, session_factory)
    standing = {row.deal: row for row in lead_outcomes.history(session, workspace.id, ada.id)[::-1]}
    assert {row.stage: row.outcome.value for row in standing.values()} == {
        "Closed won": "won", "closed_lost": "open", "SIGNED": "won",
    }  # fmt: skip
    assert len(told(session, ada)) == 5
    for _ in range(2):  # and back
        crm_pulls.save(session, workspace.id, crm.id, enabled=True, won="WON", lost="LOST", actor="Mai")
        crm_pulls.save(session, workspace.id, crm.id, enabled=True, won="SIGNED", lost="closed lost", actor="Mai")
        session.commit()
        pull(session, session_factory)
    standing = {row.deal: row for row in lead_outcomes.history(session, workspace.id, ada.id)[::-1]}
    assert {row.stage: row.outcome.value for row in standing.values()} == {
        "Closed won": "open", "closed_lost": "lost", "SIGNED": "won",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("won", "lost", "field"),
    [("", "LOST", "won_stages"), ("WON", "won", "lost_stages"), ("x" * 61, "", "won_stages"), ("!!", "", "won_stages"),
     (",".join(f"s{n}" for n in range(31)), "", "won_stages")],
)  # fmt: skip
def test_stages_that_make_no_sense_are_refused(
    session: Session, workspace: Workspace, crm: Destination, won: str, lost: str, field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        crm_pulls.save(session, workspace.id, crm.id, enabled=True, won=won, lost=lost, actor="Mai")
    assert field in {problem.field for problem in refused.value.details}


def test_what_is_switched_off_is_not_read(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, ada: Lead, crm: Destination
) -> None:
    twenty.requests.clear()
    crm_pulls.save(session, workspace.id, crm.id, enabled=False, won="WON", lost="LOST", actor="Mai")
    session.commit()
    assert not crm_pulls.has_due(session) and turn(session_factory).done == 0
    with pytest.raises(Conflict):
        crm_pulls.now(session, workspace.id, crm.id)
    crm_pulls.save(session, workspace.id, crm.id, enabled=True, won="WON", lost="LOST", actor="Mai")
    session.commit()
    assert crm_pulls.has_due(session)
    crm.mode = DestinationMode.OFF
    session.commit()
    assert not crm_pulls.has_due(session) and turn(session_factory).done == 0
    assert twenty.requests == []
    assert [event.details["enabled"] for event in events(session, None, "CRM_PULL_CHANGED")] == [False, True]


# What sources are worth


def test_what_is_read_back_counts_for_the_source(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    a_deal(session, twenty, ada, "CUSTOMER")
    a_deal(session, twenty, ada, "NEW")  # the customer's next one
    bo = planned(session, workspace, email="bo@example.com", name="Bo", message="me too")
    cy = planned(session, workspace, email="cy@example.com", name="Cy", message="and me")
    drain(session_factory)
    a_deal(session, twenty, bo, "LOST")
    a_deal(session, twenty, bo, "LOST")
    a_deal(session, twenty, cy, "LOST")
    a_deal(session, twenty, cy, "MEETING")
    pull(session, session_factory)
    found = lead_outcomes.source_records(session, [workspace.id])[workspace.id].of(ada.source)
    assert (found.won, found.closed) == (1, 2)
    told_by_hand = Report(DealState.WON)
    lead_outcomes.record(
        session, workspace.id, cy.id, told_by_hand, source=OutcomeSource.API, actor="Mai", currency="USD"
    )
    found = lead_outcomes.source_records(session, [workspace.id])[workspace.id].of(ada.source)
    assert (found.won, found.closed) == (2, 3)


# What was deleted there


@pytest.mark.parametrize("for_good", [False, True])
def test_what_was_deleted_there_is_shown_and_not_made_again(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, ada: Lead, crm: Destination,
    for_good: bool,
) -> None:  # fmt: skip
    task = str(rows(session, ada)["task"].remote_id)
    twenty.delete("tasks", task, for_good=for_good)
    pull(session, session_factory)
    stored = rows(session, ada)
    assert stored["task"].deleted_there_at is not None and stored["person"].deleted_there_at is None
    assert len(events(session, ada.id, "DELIVERY_DELETED_THERE")) == 1
    pull(session, session_factory)
    assert len(events(session, ada.id, "DELIVERY_DELETED_THERE")) == 1
    # The lead changes and is approved again: nothing is sent for the task.
    ada.priority = Priority.P0
    session.add(ada)
    session.flush()
    outbox.plan(session, ada, due_in_seconds=0)
    session.commit()
    writes = len(twenty.calls("PATCH /tasks")) + len(twenty.calls("POST /tasks"))
    drain(session_factory)
    assert len(twenty.calls("PATCH /tasks")) + len(twenty.calls("POST /tasks")) == writes
    task_row = rows(session, ada)["task"]
    assert task_row.state.value == "delivered" and "was deleted in Twenty on" in str(task_row.last_error)
    assert twenty.tasks == []


def test_nothing_more_is_made_for_a_person_who_was_deleted(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, ada: Lead, crm: Destination
) -> None:
    person = str(rows(session, ada)["person"].remote_id)
    twenty.delete("people", person)
    pull(session, session_factory)
    assert rows(session, ada)["person"].deleted_there_at is not None
    ada.priority = Priority.P0
    session.add(ada)
    crm.config = {**crm.config, "notes": True}
    session.flush()
    outbox.plan(session, ada, due_in_seconds=0)
    session.commit()
    until(lambda: drain(session_factory) and states(session, ada)["note"] == "cancelled")
    assert twenty.people == [] and twenty.notes == []
    assert rows(session, ada)["note"].last_error.startswith("the person was deleted in Twenty on")
    twenty.bring_back("people", person)
    pull(session, session_factory)
    assert rows(session, ada)["person"].deleted_there_at is None
    assert len(events(session, ada.id, "DELIVERY_BACK_THERE")) == 1


def test_a_deal_that_was_deleted_is_neither_won_nor_lost(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    deal = a_deal(session, twenty, ada, "WON")
    pull(session, session_factory)
    twenty.delete("opportunities", deal)
    for _ in range(2):
        pull(session, session_factory)
    assert [(outcome, stage) for outcome, stage, _ in told(session, ada)] == [("won", "WON"), ("open", "deleted there")]
    assert lead_outcomes.source_records(session, [workspace.id])[workspace.id].closed == 0
    twenty.bring_back("opportunities", deal)
    pull(session, session_factory)
    assert told(session, ada)[-1][:2] == ("won", "WON")


def test_a_deal_that_was_deleted_does_not_keep_the_lead_from_being_lost(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    a_deal(session, twenty, ada, "LOST")
    mistaken = a_deal(session, twenty, ada, "NEW")
    pull(session, session_factory)
    assert lead_outcomes.source_records(session, [workspace.id])[workspace.id].closed == 0
    twenty.delete("opportunities", mistaken)
    pull(session, session_factory)
    found = lead_outcomes.source_records(session, [workspace.id])[workspace.id]
    assert (found.won, found.closed) == (0, 1)


def test_thousands_of_people_are_looked_after_a_bit_at_a_time(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(crm_pulling, "BATCH", 3)
    leads = [planned(session, workspace, email=f"p{n}@example.com", message=f"m {n}") for n in range(8)]
    drain(session_factory)
    pull(session, session_factory)
    gone = {str(rows(session, lead)["person"].remote_id) for lead in leads[::3]}
    for person in gone:
        twenty.delete("people", person, for_good=True)
    for _ in range(4):
        twenty.requests.clear()
        pull(session, session_factory)
        assert len(twenty.calls("GET /people")) <= 1 + 1 + 3
    marked = {str(row.remote_id) for lead in leads if (row := rows(session, lead)["person"]).deleted_there_at}
    assert marked == gone


def test_who_is_brought_back_is_seen_by_the_next_pull_among_thousands(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(crm_pulling, "BATCH", 3)
    leads = [planned(session, workspace, email=f"p{n}@example.com", message=f"m {n}") for n in range(8)]
    drain(session_factory)
    people = {str(rows(session, lead)["person"].remote_id): lead for lead in leads}
    first = min(people)
    twenty.delete("people", first)
    pull(session, session_factory)
    assert rows(session, people[first])["person"].deleted_there_at is not None
    twenty.bring_back("people", first)
    pull(session, session_factory)
    assert rows(session, people[first])["person"].deleted_there_at is None


def test_many_that_are_gone_are_asked_for_a_few_at_a_time_and_none_is_left_out(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(crm_pulling, "SECOND_LOOKS", 2)
    leads = [planned(session, workspace, email=f"p{n}@example.com", message=f"m {n}") for n in range(5)]
    drain(session_factory)
    pull(session, session_factory)
    for lead in leads:
        twenty.delete("people", str(rows(session, lead)["person"].remote_id), for_good=True)
    for marked in (2, 4, 5):
        pull(session, session_factory)
        gone = [rows(session, lead)["person"].deleted_there_at for lead in leads]
        assert len(gone) - gone.count(None) == marked


def test_a_deal_with_nobody_of_ours_is_passed_by(
    session: Session, session_factory: Factory, twenty: TwentyFake, ada: Lead
) -> None:
    twenty.add("opportunities", stage="WON", pointOfContactId=None, companyId=None)
    assert pull(session, session_factory).deals_seen == 1
    assert session.scalar(sa.select(sa.func.count()).select_from(LeadOutcome)) == 0

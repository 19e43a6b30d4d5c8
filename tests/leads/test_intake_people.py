"""Whom intake links a lead to, what it puts in order, and how a person takes that back."""

import json
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests.waiting import until
from webapp.leads import corrections, crm, intake
from webapp.leads.errors import Conflict, NotFound
from webapp.leads.intake import LeadIn
from webapp.leads.review import Actor
from webapp.leads.states import Door, LeadStatus
from webapp.models import AuditEvent, Lead, Person, Workspace
from webapp.models.base import new_id
from webapp.security.keys import tenant_of

ANA = Actor("Ana")


@pytest.fixture
def tenant(workspace: Workspace) -> intake.Tenant:
    return tenant_of(workspace, default_region="US", duplicate_days=30, idempotency_days=30)


def take_in(session: Session, tenant: intake.Tenant, message: str = "What does it cost?", **fields: Any) -> Lead:
    received = intake.accept(session, tenant, LeadIn(door=Door.V1, message=message, **fields))
    session.commit()
    return session.get_one(Lead, received.lead_id)


def test_one_mailbox_is_one_person_and_what_was_sent_stays(session: Session, tenant: intake.Tenant) -> None:
    first = take_in(session, tenant, "What does it cost?", email="A.na+shop@GoogleMail.com")
    second = take_in(session, tenant, "Can I see a demo?", email="ana@gmail.com")
    assert first.person_id == second.person_id
    assert first.email == "A.na+shop@GoogleMail.com"
    assert first.email_normalized == "a.na+shop@googlemail.com"
    person = session.get_one(Person, first.person_id)
    assert (person.identity_key, person.email) == ("ana@gmail.com", "a.na+shop@googlemail.com")


def test_the_same_words_by_one_mailbox_are_a_touch(session: Session, tenant: intake.Tenant) -> None:
    first = take_in(session, tenant, email="a.na@gmail.com")
    received = intake.accept(session, tenant, LeadIn(door=Door.V1, message="What does it cost?", email="ana@gmail.com"))
    assert (received.lead_id, received.touched) == (first.id, True)


def test_a_repeat_tells_the_consent_that_stands_and_new_attribution(session: Session, tenant: intake.Tenant) -> None:
    first, second = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 3, 4, tzinfo=UTC)

    def again(**fields: Any) -> tuple[Any, Any, dict[str, Any]]:
        lead = take_in(session, tenant, email="ana@acme.example", **fields)
        session.refresh(lead)
        return lead.consent, lead.consent_at, lead.attribution

    google = {"utm_source": "google"}
    assert again(consent="yes", consent_at=first, attribution=google) == ("yes", first, google)
    assert again() == ("yes", first, google)
    assert again(consent="yes") == ("yes", first, google)
    both = google | {"gclid": "g-1"}  # the first touch keeps its campaign
    assert again(attribution={"utm_source": "bing", "gclid": "g-1"}) == ("yes", first, both)
    assert again(consent="no") == ("no", None, both)  # withdrawn, at no moment that was told
    assert again(consent="no", consent_at=second) == ("no", second, both)
    query = sa.select(AuditEvent).where(AuditEvent.event_type == "LEAD_TOUCHED").order_by(AuditEvent.id)
    told = [event.details.get("consent") for event in session.scalars(query)]
    assert told == [None, None, None, "no", None]


def test_a_lead_of_somebody_merged_goes_to_whom_they_were_merged_into(session: Session, tenant: intake.Tenant) -> None:
    kept = take_in(session, tenant, email="ana@acme.example")
    merged = take_in(session, tenant, "Hello?", email="ana.perez@home.example")
    session.get_one(Person, merged.person_id).merged_into = kept.person_id
    session.commit()
    assert take_in(session, tenant, "And a demo?", email="ana.perez@home.example").person_id == kept.person_id


def test_a_cap_holds_the_confidence_down(session: Session, tenant: intake.Tenant) -> None:
    words = "I want to buy 20 seats today, please send the contract"
    free = take_in(session, tenant, words, email="ana@acme.example")
    capped = take_in(session, tenant, words, email="bo@acme.example", confidence_cap=0.71)
    assert free.confidence > 0.71
    assert (capped.confidence, capped.status) == (0.71, LeadStatus.NEW_DRAFT)


def test_a_name_is_shown_in_order_and_as_sent_again(session: Session, tenant: intake.Tenant) -> None:
    lead = take_in(session, tenant, name=" ANA  PEREZ", email="ana@acme.example")
    assert (lead.name, lead.shown_name) == (" ANA  PEREZ", "Ana Perez")
    assert session.get_one(Person, lead.person_id).name == "Ana Perez"
    assert session.scalar(sa.select(Lead.shown_name).where(Lead.id == lead.id)) == "Ana Perez"

    def use(wanted: bool) -> Lead:
        found = corrections.correct(session, tenant.id, lead.id, "name", use=wanted, actor=ANA, region="US")
        session.commit()
        return found

    version = lead.version
    assert use(False).shown_name == " ANA  PEREZ"
    assert use(False).version == version + 1  # a second press changes nothing
    assert session.get_one(Person, lead.person_id).name == " ANA  PEREZ"
    assert use(True).shown_name == "Ana Perez"
    events = session.scalars(sa.select(AuditEvent).where(AuditEvent.event_type == "LEAD_CORRECTED")).all()
    assert [event.details["used"] for event in events] == [False, True]


def test_a_mistyped_address_is_used_only_when_a_person_says_so(session: Session, tenant: intake.Tenant) -> None:
    right = take_in(session, tenant, "I'd like a demo", email="ana@gmail.com")
    lead = take_in(session, tenant, email="a.na@gmial.com")
    assert lead.cleaned == {"email_suggestion": "a.na@gmail.com"}
    assert (lead.email_normalized, lead.person_id == right.person_id) == ("a.na@gmial.com", False)
    before = lead.person_id
    corrections.correct(session, tenant.id, lead.id, "email", use=True, actor=ANA, region="US")
    session.commit()
    assert (lead.email, lead.email_normalized) == ("a.na@gmial.com", "a.na@gmail.com")
    assert lead.person_id == right.person_id
    found = session.scalar(
        sa.select(Lead.id).where(Lead.id == lead.id, Lead.search.op("@@")(sa.func.to_tsquery("simple", "gmail")))
    )
    assert found == lead.id
    corrections.correct(session, tenant.id, lead.id, "email", use=False, actor=ANA, region="US")
    session.commit()
    assert (lead.email_normalized, lead.person_id) == ("a.na@gmial.com", before)


def test_a_number_is_read_by_the_lead_and_as_one_of_ours_again(session: Session, tenant: intake.Tenant) -> None:
    lead = take_in(session, tenant, "chốt em váy hoa size M nha shop", phone="0912 345 678")
    assert lead.phone_e164 == "+84912345678"
    assert lead.cleaned == {"phone_region": "VN", "phone_region_from": "language"}
    vietnamese = lead.person_id
    corrections.correct(session, tenant.id, lead.id, "phone", use=False, actor=ANA, region="US")
    session.commit()
    assert lead.phone_e164 == "+10912345678"
    assert lead.person_id != vietnamese
    corrections.correct(session, tenant.id, lead.id, "phone", use=True, actor=ANA, region="US")
    session.commit()
    assert (lead.phone_e164, lead.person_id) == ("+84912345678", vietnamese)


def test_the_same_words_are_a_repeat_for_whom_the_lead_is_from_now(session: Session, tenant: intake.Tenant) -> None:
    lead = take_in(session, tenant, email="ana@gmial.com")
    correct(session, tenant, lead, "email", use=True)
    assert take_in(session, tenant, email="ana@gmail.com").id == lead.id
    assert take_in(session, tenant, email="ana@gmial.com").id != lead.id  # who has that address is somebody else
    correct(session, tenant, lead, "email", use=False)
    assert lead.dedupe_key is None  # whose those words are has been taken meanwhile
    assert take_in(session, tenant, email="ana@gmail.com").id != lead.id


def test_a_correction_leaves_the_words_of_another_lead_alone(session: Session, tenant: intake.Tenant) -> None:
    right = take_in(session, tenant, email="ana@gmail.com")
    lead = take_in(session, tenant, email="ana@gmial.com")
    correct(session, tenant, lead, "email", use=True)
    assert (lead.person_id, lead.dedupe_key) == (right.person_id, None)
    assert take_in(session, tenant, email="ana@gmail.com").id == right.id


def correct(session: Session, tenant: intake.Tenant, lead: Lead, field: str, *, use: bool) -> None:
    corrections.correct(session, tenant.id, lead.id, field, use=use, actor=ANA, region="US")
    session.commit()
    session.refresh(lead)


def crm_again(own: Session, tenant: intake.Tenant, lead: Lead, turn: int) -> None:
    again = LeadIn(door=Door.CRM, message="", external_id=f"crm-{turn}", email=lead.email, company=f"Company {turn}")
    assert not crm.receive(own, tenant, again).created


def name_again(own: Session, tenant: intake.Tenant, lead: Lead, turn: int) -> None:
    corrections.correct(own, tenant.id, lead.id, "name", use=bool(turn % 2), actor=ANA, region="US")


def email_again(own: Session, tenant: intake.Tenant, lead: Lead, turn: int) -> None:
    corrections.correct(own, tenant.id, lead.id, "email", use=not turn % 2, actor=ANA, region="US")


CHANGES = pytest.mark.parametrize("change", [crm_again, name_again, email_again])


@CHANGES
def test_the_person_is_locked_before_the_lead(
    session: Session, session_factory: sessionmaker[Session], tenant: intake.Tenant, change: Any
) -> None:
    """As intake does: whoever waits for a person holds none of their leads."""
    lead = take_in(session, tenant, name="ANA PEREZ", email="ana@gmial.com")
    take_in(session, tenant, "Hello?", email="ana@gmail.com")
    lead_id = lead.id
    session.commit()
    held = session.execute(sa.select(sa.func.pg_backend_pid(), Person.id).with_for_update()).all()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with session_factory() as own:
                change(own, tenant, lead_of(own, lead_id), 0)
                own.commit()
        except BaseException as error:
            failed.append(error)

    pid = held[0][0]
    thread = threading.Thread(target=work)
    thread.start()
    try:
        with session_factory() as other:
            waits = sa.text("SELECT count(*) FROM pg_stat_activity WHERE :pid = ANY (pg_blocking_pids(pid))")
            until(lambda: failed or other.scalar(waits, {"pid": pid}))
        session.execute(sa.select(Lead.id).where(Lead.id == lead_id).with_for_update(nowait=True))
    finally:
        session.rollback()
        thread.join(30)
    assert failed == []


def lead_of(own: Session, lead_id: uuid.UUID) -> Lead:
    lead = own.get_one(Lead, lead_id)
    own.commit()
    return lead


@CHANGES
def test_changes_and_repeats_at_once_do_not_deadlock(
    session: Session, session_factory: sessionmaker[Session], tenant: intake.Tenant, change: Any
) -> None:
    lead = take_in(session, tenant, name="ANA PEREZ", email="ana@gmial.com")
    take_in(session, tenant, email="ana@gmail.com")
    lead_id, rounds = lead.id, 80
    session.commit()
    failed: list[BaseException] = []
    barrier = threading.Barrier(2)

    def again(own: Session, _: Lead, turn: int) -> None:
        for email in ("ana@gmial.com", "ana@gmail.com"):
            intake.accept(own, tenant, LeadIn(door=Door.V1, message="What does it cost?", email=email))
            own.commit()

    def work(do: Any) -> None:
        try:
            with session_factory() as own:
                mine = lead_of(own, lead_id)
                barrier.wait()
                for turn in range(rounds):
                    do(own, mine, turn)
                    own.commit()
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=work, args=(do,))
        for do in (again, lambda own, mine, turn: change(own, tenant, mine, turn))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []


def test_nothing_to_correct_is_said(session: Session, tenant: intake.Tenant) -> None:
    lead = take_in(session, tenant, name="Ana Perez", email="ana@acme.example")
    for field in corrections.FIELDS:
        with pytest.raises(Conflict):
            corrections.correct(session, tenant.id, lead.id, field, use=True, actor=ANA, region="US")
    with pytest.raises(NotFound):
        corrections.correct(session, tenant.id, lead.id, "message", use=True, actor=ANA, region="US")
    with pytest.raises(NotFound):
        corrections.correct(session, uuid.uuid4(), lead.id, "name", use=True, actor=ANA, region="US")


def test_the_view_lead_signals_is_what_clients_query(
    session_factory: sessionmaker[Session], session: Session, tenant: intake.Tenant
) -> None:
    take_in(session, tenant, "Is there a job for me?", email="bo@acme.example")
    signal = LeadIn(
        door=Door.SOCIAL, message="How much is it?", platform="facebook", external_message_id="c-1", author_id="7",
        author_name="Bo", external_post_id="p-1", source_type="comment",
    )  # fmt: skip
    intake.accept_signals(session, tenant, [signal])
    session.commit()
    rows = session.execute(
        sa.text(
            "SELECT intent_label, priority, platform, content_id, status, author_name FROM lead_signals "
            "WHERE tenant_id = :tenant ORDER BY created_at"
        ),
        {"tenant": tenant.id},
    ).all()
    job, comment = rows
    assert (job.intent_label, job.priority, job.platform) == ("inquiry", "low", "unknown")
    assert (comment.intent_label, comment.priority, comment.platform) == ("inquiry_price", "high", "facebook")
    assert (comment.content_id, comment.author_name) == ("c-1", "Bo")


def test_the_tables_runs_and_idempotency_keys_have_the_columns_of_before(
    session: Session, tenant: intake.Tenant
) -> None:
    lead = LeadIn(door=Door.TRIAGE, message="Hello", source="website", payload={"note": "Hello"})
    key = str(new_id())
    intake.accept(session, tenant, lead, key=intake.Key(key, "hash"))
    session.commit()
    run = session.execute(
        sa.text("SELECT id, idempotency_key, source, payload_json, result_json, status, error, created_at FROM runs")
    ).one()
    assert (run.idempotency_key, run.source, run.status) == (key, "website", "queued")
    assert json.loads(json.dumps(run.payload_json)) == {"note": "Hello"}
    assert session.execute(sa.text("SELECT key, created_at FROM idempotency_keys")).one().key == key


def test_look_alikes_are_searched_anew_when_more_is_known_of_a_person(session: Session, tenant: intake.Tenant) -> None:
    first = take_in(session, tenant, email="ana@acme.example", name="Ana Perez")
    session.get_one(Person, first.person_id).looked_at = sa.func.now()
    session.commit()
    take_in(session, tenant, "And a demo?", email="ana@acme.example", name="Ana P.")
    assert session.get_one(Person, first.person_id, populate_existing=True).looked_at is not None
    take_in(session, tenant, "Hello?", email="ana@acme.example", phone="+84912345678")
    assert session.get_one(Person, first.person_id, populate_existing=True).looked_at is None


@pytest.mark.parametrize("phone", ["no number", "…", "+", "()"])
def test_a_phone_without_a_digit_is_kept_as_sent(session: Session, tenant: intake.Tenant, phone: str) -> None:
    lead = take_in(session, tenant, phone=phone)
    assert (lead.phone, lead.phone_e164, lead.person_id) == (phone, None, None)

"""Leads by mail: one at a time or gathered in a digest, once each, and what may have arrived is not mailed again."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests.fakes.smtp import USER, SmtpFake
from tests.leads.delivering import CIPHER, EAGER, all_states, decided_lead, drain, outcomes, planned, rows, states
from webapp.leads import deliver, outbox, sending
from webapp.leads.claims import Claim, Holder
from webapp.leads.destinations import Wanted
from webapp.leads.destinations import change as change_destination
from webapp.leads.kinds.base import SEND_AGAIN, WHEN_UNCERTAIN
from webapp.leads.states import DeliveryOperation, DestinationKind, LeadStatus
from webapp.models import Alert, Delivery, Destination, Lead, Workspace

Factory = sessionmaker[Session]
ANA, BOB = "ana@acme.example", "bob@acme.example"


@pytest.fixture
def mail() -> Iterator[SmtpFake]:
    with SmtpFake() as fake:
        yield fake


def _destination(session: Session, workspace: Workspace, fake: SmtpFake, **over: Any) -> Destination:
    config = {"host": "127.0.0.1", "port": fake.port, "security": "none", "sender": "leads@acme.example"}
    config |= {"to": f"{ANA}, {BOB}", "when": "each"} | over
    row = Destination(workspace_id=workspace.id, kind=DestinationKind.EMAIL, name="Mail", config=config)
    session.add(row)
    session.commit()
    return row


def _leads(session: Session, workspace: Workspace, number: int) -> list[Lead]:
    return [planned(session, workspace, name=f"Lead {one}", message=f"Text of {one}.") for one in range(number)]


def _make_due(session: Session) -> None:
    session.execute(sa.update(Delivery).where(Delivery.state == "pending").values(due_at=sa.func.now()))
    session.commit()


def test_a_digest_waits_for_its_time_and_holds_all_leads_since_the_last_one(
    session: Session, session_factory: Factory, workspace: Workspace, mail: SmtpFake
) -> None:
    _destination(session, workspace, mail, when="minutes", minutes=60)
    leads = _leads(session, workspace, 40)
    due = set(session.scalars(sa.select(Delivery.due_at)))
    assert len(due) == 1 and datetime.now(UTC) < min(due) <= datetime.now(UTC) + timedelta(hours=1)
    assert drain(session_factory).done == 0 and mail.mails == []
    _make_due(session)
    drain(session_factory)
    (sent,) = mail.mails
    assert sent.message["Subject"].startswith("40 leads: ")
    assert set(re.findall(r"Text of (\d+)\.", sent.text)) == {str(number) for number in range(40)}
    found = [rows(session, lead)["mail"] for lead in leads]
    assert {row.remote_id for row in found} == {sent.message["Message-ID"]}
    assert all_states(session) == {"delivered"} and outcomes(session, found[0]) == ["delivered"]


def test_a_digest_that_fails_is_tried_again_as_one(
    session: Session, session_factory: Factory, workspace: Workspace, mail: SmtpFake
) -> None:
    row = _destination(session, workspace, mail, when="daily", hour=8)
    leads = _leads(session, workspace, 6)
    _make_due(session)
    mail.fail_next("DATA", kind="451")
    drain(session_factory, max_rows=6)
    session.refresh(row)
    assert row.failures == 1  # one call, not six: the breaker is for calls
    assert len({rows(session, lead)["mail"].due_at for lead in leads}) == 1
    _make_due(session)
    drain(session_factory)
    assert len(mail.mails) == 1 and all_states(session) == {"delivered"}


def test_of_a_digest_whose_answer_is_lost_nothing_is_mailed_again_without_a_person(
    session: Session, session_factory: Factory, workspace: Workspace, mail: SmtpFake
) -> None:
    _destination(session, workspace, mail, when="minutes", minutes=60)
    leads = _leads(session, workspace, 3)
    _make_due(session)
    mail.fail_next("DOT", kind="reset_after")
    drain(session_factory)
    assert all_states(session) == {"uncertain"}
    outbox.send_again(session, [rows(session, lead)["mail"].id for lead in leads[:2]])
    session.commit()
    drain(session_factory)
    assert [sent.message["Subject"][:7] for sent in mail.mails] == ["3 leads", "2 leads"]


@pytest.mark.parametrize("lost", ["answer", "worker"])
def test_with_send_again_a_digest_that_may_have_arrived_is_sent_again_as_the_one_that_it_was(
    session: Session, session_factory: Factory, workspace: Workspace, mail: SmtpFake, lost: str
) -> None:
    row = _destination(session, workspace, mail, when="minutes", minutes=60)
    row.options = {WHEN_UNCERTAIN: SEND_AGAIN}
    session.commit()
    _leads(session, workspace, 20)
    _make_due(session)
    if lost == "answer":
        mail.fail_next("DOT", kind="reset_after")
        drain(session_factory, max_rows=20)
        (first,) = mail.mails
    else:
        work = sending.with_work(session)[row.id]
        sending.claim_for(session, Holder(), work, limit=16, lease=-1, destination_id=row.id)
        session.commit()
    late = _leads(session, workspace, 1)[0]
    _make_due(session)
    drain(session_factory)
    again, other = sorted(mail.mails[-2:], key=lambda sent: len(sent.text), reverse=True)
    assert again.message["Subject"].startswith("20 leads") and other.message["Subject"].endswith("Lead 0")
    assert len(mail.mails) == (3 if lost == "answer" else 2)
    if lost == "answer":
        assert again.message["Message-ID"] == first.message["Message-ID"]
    assert all_states(session) == {"delivered"}
    assert rows(session, late)["mail"].remote_id == other.message["Message-ID"]


def test_a_digest_takes_one_call_and_what_goes_by_itself_a_share_of_them(
    session: Session, session_factory: Factory, workspace: Workspace, mail: SmtpFake
) -> None:
    row = _destination(session, workspace, mail, when="minutes", minutes=60, tells_withdrawal=True)
    back = _leads(session, workspace, 8)
    _make_due(session)
    drain(session_factory)
    for lead in back:
        lead.status = LeadStatus.REJECTED
        deliver.withdraw(session, lead, reason="rejected", due_in_seconds=0)
    _leads(session, workspace, 5)
    _make_due(session)

    def operations(claims: list[Claim]) -> list[str]:
        found = sa.select(Delivery.operation).where(Delivery.id.in_([claim.id for claim in claims]))
        return sorted(operation.value for operation in session.scalars(found))

    work = sending.with_work(session)[row.id]
    claims, calls = sending.claim_for(session, Holder(), work, limit=4, lease=30, destination_id=row.id)
    assert (operations(claims), calls) == (["send"] * 5 + ["withdraw"] * 3, 4)
    session.rollback()
    # As a probe there is one call, whichever it is.
    session.execute(sa.update(Destination).values(open_until=sa.func.now()))
    session.commit()
    for left in (["send"] * 5, ["withdraw"]):
        claims, calls = sending.claim_probes(session, Holder(), limit=16, lease=30, hold=0)
        assert (operations(claims), calls) == (left, 1)
        session.commit()


def test_what_a_lost_worker_may_have_mailed_is_left_to_a_person_and_the_others_go(
    session: Session, session_factory: Factory, workspace: Workspace, mail: SmtpFake
) -> None:
    row = _destination(session, workspace, mail, when="minutes", minutes=60)
    lost, *others = _leads(session, workspace, 3)
    _make_due(session)
    (held,) = sending.claim_due(session, Holder(), limit=1, lease=-1, destination_id=row.id)
    session.commit()
    drain(session_factory)
    (sent,) = mail.mails
    assert sent.message["Subject"].startswith("2 leads")
    stuck = session.scalars(sa.select(Delivery).where(Delivery.state == "uncertain")).one()
    assert stuck.id == held.id
    assert len({lost.id, *(lead.id for lead in others)}) == 3


def test_one_who_is_refused_for_now_gets_the_digest_later_and_nobody_twice(
    session: Session, session_factory: Factory, workspace: Workspace, mail: SmtpFake
) -> None:
    row = _destination(session, workspace, mail, when="minutes", minutes=60)
    _leads(session, workspace, 3)
    _make_due(session)
    mail.fail_next(f"RCPT {BOB}", kind="450")
    drain(session_factory, max_rows=3)
    late = planned(session, workspace, name="Late", message="Text of 9.")
    _make_due(session)
    drain(session_factory)
    assert sorted((sent.recipients, sent.message["Subject"][:7]) for sent in mail.mails if "Late" not in sent.text) == [
        ((ANA,), "3 leads"),
        ((BOB,), "3 leads"),
    ]
    assert [sent.recipients for sent in mail.mails if "Late" in sent.text] == [(ANA, BOB)]
    assert states(session, late) == {"mail": "delivered"} and all_states(session) == {"delivered"}
    session.refresh(row)
    assert row.failures == 0  # the server is well


@pytest.mark.parametrize("switched", [True, False])
def test_a_lead_taken_back_is_told_of_only_where_that_is_wanted(
    session: Session, session_factory: Factory, workspace: Workspace, mail: SmtpFake, switched: bool
) -> None:
    _destination(session, workspace, mail, **({"tells_withdrawal": True} if switched else {}))
    lead = planned(session, workspace)
    drain(session_factory)
    lead.status = LeadStatus.REJECTED
    deliver.withdraw(session, lead, reason="rejected", due_in_seconds=0)
    session.commit()
    drain(session_factory)
    assert states(session, lead) == {"mail": "withdrawn" if switched else "delivered"}
    assert [sent.message["In-Reply-To"] for sent in mail.mails] == [
        None,
        *([mail.mails[0].message["Message-ID"]] * switched),
    ]


@pytest.mark.parametrize("switched", [True, False])
def test_a_mail_that_only_some_have_is_taken_back_from_them_and_comes_to_the_others_with_an_approval(
    session: Session, session_factory: Factory, workspace: Workspace, mail: SmtpFake, switched: bool
) -> None:
    _destination(session, workspace, mail, **({"tells_withdrawal": True} if switched else {}))
    lead = planned(session, workspace)
    mail.fail_next(f"RCPT {BOB}", kind="450")
    drain(session_factory, max_rows=1)
    lead.status = LeadStatus.REJECTED
    deliver.cancel(session, lead.id, reason="rejected")
    deliver.withdraw(session, lead, reason="rejected", due_in_seconds=0)
    session.commit()
    drain(session_factory)
    assert states(session, lead) == {"mail": "withdrawn" if switched else "cancelled"}
    assert [sent.recipients for sent in mail.mails] == [(ANA,)] * (1 + switched)
    lead.status = LeadStatus.APPROVED
    deliver.plan(session, lead, due_in_seconds=0)
    session.commit()
    drain(session_factory)
    assert states(session, lead) == {"mail": "delivered"}
    assert mail.mails[-1].recipients == ((ANA, BOB) if switched else (BOB,))


def test_a_taking_back_that_is_called_off_leaves_nobody_without_the_mail(
    session: Session, session_factory: Factory, workspace: Workspace, mail: SmtpFake
) -> None:
    _destination(session, workspace, mail, tells_withdrawal=True)
    lead = planned(session, workspace)
    mail.fail_next(f"RCPT {BOB}", kind="450")
    drain(session_factory, max_rows=1)
    lead.status = LeadStatus.REJECTED
    deliver.cancel(session, lead.id, reason="rejected")
    deliver.withdraw(session, lead, reason="rejected", due_in_seconds=60)
    lead.status = LeadStatus.APPROVED
    outbox.keep_there(session, [lead])
    deliver.plan(session, lead, due_in_seconds=0)
    session.commit()
    drain(session_factory)
    assert [sent.recipients for sent in mail.mails] == [(ANA,), (BOB,)]


def test_a_login_that_is_refused_makes_deliveries_wait(
    session: Session, session_factory: Factory, workspace: Workspace, mail: SmtpFake
) -> None:
    row = _destination(session, workspace, mail, user=USER)
    row.credentials = CIPHER.encrypt({"password": "rotated"})
    session.commit()
    leads = _leads(session, workspace, 3)
    drain(session_factory)
    session.refresh(row)
    assert row.open_until is not None and "refuses the login: 535" in str(row.problem)
    found = [rows(session, lead)["mail"] for lead in leads]
    assert {(one.state, one.tries) for one in found} == {("pending", 0)}
    (alert,) = session.scalars(sa.select(Alert))
    assert "Put user name and password right in its settings" in alert.message


def test_a_line_of_taking_back_that_a_lost_worker_may_have_mailed_is_not_repeated(
    session: Session, session_factory: Factory, workspace: Workspace, mail: SmtpFake
) -> None:
    row = _destination(session, workspace, mail, tells_withdrawal=True)
    lead = planned(session, workspace)
    drain(session_factory)
    lead.status = LeadStatus.REJECTED
    deliver.withdraw(session, lead, reason="rejected", due_in_seconds=0)
    session.commit()
    sending.claim_due(session, Holder(), limit=1, lease=-1, destination_id=row.id)
    session.commit()
    drain(session_factory)
    found = rows(session, lead)["mail"]
    assert (found.state, found.operation) == ("uncertain", DeliveryOperation.WITHDRAW)
    assert len(mail.mails) == 1


def test_what_it_would_have_mailed_is_recorded_lead_by_lead(
    session: Session, session_factory: Factory, workspace: Workspace, mail: SmtpFake
) -> None:
    row = _destination(session, workspace, mail, when="minutes", minutes=60)
    row.mode = "shadow"
    session.commit()
    leads = _leads(session, workspace, 2)
    _make_due(session)
    drain(session_factory, policy=EAGER)
    assert all_states(session) == {"shadowed"} and mail.mails == []
    payload = rows(session, leads[0])["mail"].payload
    assert payload is not None and "Lead 0" in payload["subject"] and "Text of 0." in payload["text"]


def test_a_lead_decided_while_a_digest_is_near_goes_with_the_next_one(
    session: Session, workspace: Workspace, mail: SmtpFake
) -> None:
    """Held for the undo window, as everywhere."""
    _destination(session, workspace, mail, when="minutes", minutes=5)
    lead = decided_lead(session, workspace)
    deliver.plan(session, lead, due_in_seconds=600)
    session.commit()
    assert rows(session, lead)["mail"].due_at >= datetime.now(UTC) + timedelta(seconds=590)


def test_what_waits_for_a_digest_follows_the_settings(session: Session, workspace: Workspace, mail: SmtpFake) -> None:
    row = _destination(session, workspace, mail, when="daily", hour=8)
    lead = planned(session, workspace)

    def change(**values: str) -> timedelta:
        given = {name: str(value) for name, value in row.config.items()} | values
        wanted = Wanted(name=row.name, values=given, options={})
        change_destination(session, workspace.id, row.id, wanted, cipher=CIPHER, actor="Mai")
        session.commit()
        due: timedelta = rows(session, lead)["mail"].due_at - datetime.now(UTC)
        return due

    assert change(when="minutes", minutes="5") <= timedelta(minutes=6)
    change(when="daily")
    assert change(when="each") <= timedelta(minutes=1)

"""An import from upload to undo, on real PostgreSQL."""

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests import factories
from tests.leads.importing import queued, upload, work
from webapp.leads import imports, lead_outcomes, review, run
from webapp.leads.claims import IMPORTS as IMPORTS_BACKLOG
from webapp.leads.claims import Holder, claim, enter
from webapp.leads.errors import Conflict, Invalid, NotFound, Transient
from webapp.leads.states import DealState, DecisionAction, DeliveryState, DestinationKind, ImportState, OutcomeSource
from webapp.models import (
    AuditEvent,
    Delivery,
    Destination,
    Import,
    ImportProblem,
    Lead,
    Person,
    Run,
    Touch,
    Workspace,
)

Factory = sessionmaker[Session]


def rows(count: int, *, first: int = 0) -> str:
    lines = ["Name,E-mail,Message"]
    lines += [f"Person {n},person{n}@example.com,Please quote {n} seats" for n in range(first, first + count)]
    return "\n".join(lines) + "\n"


def count(session: Session, model: Any, *where: Any) -> int:
    session.rollback()
    return session.scalar(sa.select(sa.func.count()).select_from(model).where(*where)) or 0


def fresh(session: Session, found: Import) -> Import:
    session.rollback()
    session.refresh(found)
    return found


def counts(session: Session, found: Import) -> tuple[int, int, int, int]:
    fresh(session, found)
    return found.rows_done, found.created_count, found.touched_count, found.failed_count


def test_a_file_becomes_leads(session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path) -> None:
    data = (
        "Họ tên;E-Mail;SĐT;Nội dung;Ngân sách;Thành phố;Favourite colour\n"
        'NGUYỄN VĂN AN;an@example.vn;0912 345 678;"Cho tôi\nbáo giá";1.500,50;Hà Nội;blue\n'
        "Ada;not an address;;Hello;;;\n"
        ";;;;;;red\n"
        "An again;an@example.vn;;cho tôi báo giá;;;\n"
    )
    found = queued(session, workspace, tmp_path, data, source="fair")
    assert work(session_factory, tmp_path).done == 4
    assert counts(session, found) == (4, 1, 1, 2)
    assert (found.state, found.rows_total, found.position) == (ImportState.DONE, 4, found.size_bytes)
    assert [(p.row_number, p.field, p.reason[:24]) for p in imports.problems(session, found)] == [
        (2, "email", "is not a valid e-mail ad"),
        (3, "row", "a lead needs a message, "),
    ]
    lead = session.scalars(sa.select(Lead)).one()
    assert (lead.door.value, lead.source, lead.import_id, lead.budget) == ("import", "fair", found.id, 1500.5)
    assert (lead.name, lead.email, lead.message, lead.touches) == (
        "NGUYỄN VĂN AN",
        "an@example.vn",
        "Cho tôi\nbáo giá",
        2,
    )
    assert lead.attributes == {"city": "Hà Nội"} and lead.intent.value == "inquiry_price"
    made = session.scalars(sa.select(Run)).one()
    assert made.payload_json["Favourite colour"] == "blue" and made.rank == 9
    assert session.scalars(sa.select(Touch)).one().import_id == found.id
    assert {row.event_type for row in session.scalars(sa.select(AuditEvent))} == {
        "LEAD_SIGNAL_CREATED",
        "LEAD_TOUCHED",
        "IMPORT_STARTED",
        "IMPORT_FINISHED",
    }


def test_a_dry_run_counts_and_writes_no_lead(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    factories.make_lead(session, workspace, "Please quote 3 seats", email="person3@example.com")
    before = count(session, Lead)
    found = queued(session, workspace, tmp_path, rows(10) + "x,broken,\n", dry_run=True)
    work(session_factory, tmp_path)
    assert counts(session, found) == (11, 9, 1, 1) and found.state is ImportState.DONE
    assert (count(session, Lead), count(session, Touch)) == (before, 0)
    with pytest.raises(Conflict):
        imports.undo(session, found, by="Tess")
    # The same file for real, from its beginning, without the old problems twice.
    imports.start(session, found, by="Tess", dry_run=False)
    session.commit()
    work(session_factory, tmp_path)
    assert counts(session, found) == (11, 9, 1, 1)
    assert count(session, Lead) == before + 9 and count(session, ImportProblem) == 1
    with pytest.raises(Conflict):
        imports.start(session, found, by="Tess")


def test_it_goes_on_where_a_bounded_drain_left_it(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    found = queued(session, workspace, tmp_path, rows(25))
    other = queued(session, workspace, tmp_path, rows(10, first=100))
    seen, drains = set(), 0
    while True:
        drained = work(session_factory, tmp_path, chunk_rows=5, max_seconds=1e-9)  # one chunk at a time
        drains += 1
        seen.add((counts(session, found)[0], counts(session, other)[0]))
        if not drained.more:
            break
    assert counts(session, found) == (25, 25, 0, 0) and counts(session, other) == (10, 10, 0, 0)
    assert drains >= 7 and count(session, Lead) == 35
    assert any(0 < a < 25 and b for a, b in seen), "imports take turns"


@pytest.mark.parametrize("format", ["csv", "ndjson", "json"])
def test_a_resumed_file_loses_and_repeats_nothing(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path, format: str
) -> None:
    import json

    records = [{"email": f"p{n}@example.com", "message": f"Đoạn {n} \u00fc\n{{]"} for n in range(23)]
    data = {
        "csv": "\ufeffemail,message\r\n" + "".join(f'{r["email"]},"{r["message"]}"\r\n' for r in records),
        "ndjson": "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records),
        "json": "\ufeff" + json.dumps(records, ensure_ascii=False, indent=1),
    }[format]
    found = queued(session, workspace, tmp_path, data, filename=f"x.{format}")
    assert found.format == format
    while work(session_factory, tmp_path, chunk_rows=4, max_seconds=1e-9).more:
        pass
    assert counts(session, found) == (23, 23, 0, 0)
    session.rollback()
    assert sorted(session.scalars(sa.select(Lead.message))) == sorted(r["message"] for r in records)


def test_a_worker_given_up_for_dead_writes_nothing_more(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    found = queued(session, workspace, tmp_path, rows(12))
    stolen = []

    def steal() -> bool:
        # Between two chunks of the first worker its lease runs out and another one claims the import.
        if counts(session, found)[0] >= 3 and not stolen:
            session.execute(sa.update(Import).values(lease_until=sa.func.now() - sa.text("interval '1 second'")))
            stolen.extend(claim(session, IMPORTS_BACKLOG, Holder(), limit=1))
            session.commit()
        return False

    work(session_factory, tmp_path, chunk_rows=3, stop=steal)
    assert stolen and 3 <= counts(session, found)[0] < 12 and found.state is ImportState.RUNNING
    session.execute(sa.update(Import).values(lease_until=sa.func.now() - sa.text("interval '1 second'")))
    session.commit()
    work(session_factory, tmp_path, chunk_rows=3)
    assert counts(session, found) == (12, 12, 0, 0) and count(session, Lead) == 12


def test_a_restarted_worker_takes_its_import_back_at_once(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    found = queued(session, workspace, tmp_path, rows(3))
    holder = Holder("host/imports-1", enter(session, "host/imports-1"))
    assert claim(session, IMPORTS_BACKLOG, holder, limit=1)
    session.commit()
    assert work(session_factory, tmp_path).done == 0  # it is held
    enter(session, "host/imports-1")
    session.commit()
    assert work(session_factory, tmp_path).done == 3
    assert counts(session, found)[1] == 3


def test_cancelling_stops_it_and_keeps_what_came_in(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    found = queued(session, workspace, tmp_path, rows(12))

    def cancel() -> bool:
        if counts(session, found)[0] >= 3 and found.state is ImportState.RUNNING:
            imports.cancel(session, found, by="Tess")
            session.commit()
        return False

    work(session_factory, tmp_path, chunk_rows=3, stop=cancel)
    done, created, *_ = counts(session, found)
    assert found.state is ImportState.CANCELLED and 3 <= done < 12 and created == done == count(session, Lead)
    with pytest.raises(Conflict):
        imports.cancel(session, found, by="Tess")


def test_broken_json_fails_with_what_came_before(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    data = '[{"email": "a@example.com"}, {"email": "b@example.com"}, {"email" "c@example.com"}]'
    found = queued(session, workspace, tmp_path, data, filename="x.json")
    work(session_factory, tmp_path)
    assert counts(session, found) == (2, 2, 0, 0)
    assert found.state is ImportState.FAILED and "broken" in str(found.error)


def test_a_file_that_is_gone_is_said(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    found = queued(session, workspace, tmp_path, rows(3))
    imports.remove(tmp_path, found.stored_as)
    work(session_factory, tmp_path)
    assert fresh(session, found).state is ImportState.FAILED and "not here any more" in str(found.error)
    with pytest.raises(NotFound):
        imports.preview(tmp_path, found)


def test_a_file_that_was_cut_short_is_said(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    data = "Name,Message\n" + "".join(f"Person {n},Hello {n}\n" for n in range(20))
    found = queued(session, workspace, tmp_path, data)
    with imports.path_of(tmp_path, found.stored_as).open("r+b") as file:
        file.truncate(len("Name,Message\n" + "".join(f"Person {n},Hello {n}\n" for n in range(5))))
    work(session_factory, tmp_path)
    session.refresh(found)
    assert (found.state, found.created_count) == (ImportState.FAILED, 5)
    assert found.error and "The file is not whole any more" in found.error


def test_a_row_that_postgresql_refuses_costs_only_itself(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    session.execute(sa.text("ALTER TABLE leads ADD CONSTRAINT ck_leads_test CHECK (name <> 'Person 7')"))
    session.commit()
    try:
        found = queued(session, workspace, tmp_path, rows(12))
        work(session_factory, tmp_path)
        assert counts(session, found) == (12, 11, 0, 1)
        assert [p.row_number for p in imports.problems(session, found)] == [8]
    finally:
        session.rollback()
        session.execute(sa.text("ALTER TABLE leads DROP CONSTRAINT ck_leads_test"))
        session.commit()


def test_an_external_id_that_is_here_is_a_problem_of_its_row(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    factories.make_lead(session, workspace, external_id="crm-1")
    found = queued(
        session, workspace, tmp_path, "id,email\ncrm-1,a@example.com\ncrm-2,b@example.com\ncrm-2,c@example.com\n"
    )
    work(session_factory, tmp_path)
    assert counts(session, found) == (3, 1, 0, 2)
    assert [(p.row_number, p.field) for p in imports.problems(session, found)] == [(1, "lead_id"), (3, "lead_id")]


@pytest.fixture
def refuses(session: Session) -> Iterator[Callable[[str], None]]:
    """``refuses("UPDATE ON imports WHEN …")``: PostgreSQL answers such statements with an error."""
    tables: list[str] = []

    def do(when: str) -> None:
        session.rollback()
        tables.append(when.split(" ON ")[1].split()[0])
        session.execute(
            sa.text(
                "CREATE OR REPLACE FUNCTION test_refuse() RETURNS trigger LANGUAGE plpgsql "
                "AS $$ BEGIN RAISE EXCEPTION 'no'; END $$"
            )
        )
        event, _, condition = when.partition(" WHEN ")
        condition = f" WHEN ({condition})" if condition else ""
        session.execute(
            sa.text(f"CREATE TRIGGER test_refuse BEFORE {event} FOR EACH ROW{condition} EXECUTE FUNCTION test_refuse()")
        )
        session.commit()

    yield do
    session.rollback()
    for table in tables:
        session.execute(sa.text(f"DROP TRIGGER IF EXISTS test_refuse ON {table}"))
    session.execute(sa.text("DROP FUNCTION IF EXISTS test_refuse"))
    session.commit()


def lease_over(session: Session) -> None:
    session.rollback()
    session.execute(sa.update(Import).values(lease_until=sa.func.now() - sa.text("interval '1 second'")))
    session.commit()


def test_an_import_that_gets_no_further_is_given_up(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path, refuses: Callable[[str], None]
) -> None:
    found = queued(session, workspace, tmp_path, rows(4) + "Eve,not an address,Hi\n")
    refuses("INSERT ON import_problems")
    for _ in range(5):
        with pytest.raises(psycopg.errors.RaiseException):
            work(session_factory, tmp_path, chunk_rows=4)
        assert fresh(session, found).state is ImportState.RUNNING
        lease_over(session)
    # The first chunk came in at the first claim, so that this was its own; the sixth without one more is the end.
    assert counts(session, found) == (4, 4, 0, 0)
    with pytest.raises(psycopg.errors.RaiseException):
        work(session_factory, tmp_path, chunk_rows=4)
    lease_over(session)
    work(session_factory, tmp_path, chunk_rows=4)
    assert fresh(session, found).state is ImportState.FAILED
    assert "stopped by an error of ours" in str(found.error) and count(session, Lead) == 4
    event = session.scalars(sa.select(AuditEvent).where(AuditEvent.event_type == "IMPORT_FINISHED")).one()
    assert "stopped by an error of ours" in event.details["error"]
    assert imports.undo_problem(fresh(session, found)) is None


def test_behind_a_chunk_that_is_not_written_nothing_is(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path, refuses: Callable[[str], None]
) -> None:
    found = queued(session, workspace, tmp_path, rows(3) + "Eve,not an address,Hi\n" + rows(8).partition("\n")[2])
    refuses("INSERT ON import_problems")
    with pytest.raises(psycopg.errors.RaiseException):  # by the second chunk, with the third one waiting
        work(session_factory, tmp_path, chunk_rows=3)
    assert counts(session, found) == (3, 3, 0, 0) and count(session, Lead) == 3
    session.execute(sa.text("DROP TRIGGER test_refuse ON import_problems"))
    session.commit()
    lease_over(session)
    work(session_factory, tmp_path, chunk_rows=3)
    assert counts(session, found) == (12, 8, 3, 1) and found.state is ImportState.DONE


def test_a_turn_goes_on_while_nobody_else_waits(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    found = queued(session, workspace, tmp_path, rows(9))
    assert work(session_factory, tmp_path, chunk_rows=3, max_seconds=0.0, alone_seconds=60.0).done == 9
    assert counts(session, found) == (9, 9, 0, 0) and found.attempt == 1
    first = queued(session, workspace, tmp_path, rows(9, first=9))
    imports.undo(session, fresh(session, found), by="Tess")
    session.commit()
    assert work(session_factory, tmp_path, chunk_rows=3, max_seconds=0.0, alone_seconds=60.0).more
    assert counts(session, first)[0] < 9, "an undo waits"


def test_an_undo_that_gets_no_further_is_given_up_and_can_be_asked_for_again(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path, refuses: Callable[[str], None]
) -> None:
    found = queued(session, workspace, tmp_path, rows(4))
    work(session_factory, tmp_path)
    imports.undo(session, fresh(session, found), by="Tess")
    session.commit()
    refuses("DELETE ON leads")
    for _ in range(5):
        with pytest.raises(sa.exc.DBAPIError):
            imports.process_undos(session_factory, Holder())
        assert fresh(session, found).state is ImportState.UNDOING
        lease_over(session)
    imports.process_undos(session_factory, Holder())
    assert fresh(session, found).state is ImportState.FAILED and "press Undo this import" in str(found.error)
    assert count(session, AuditEvent, AuditEvent.event_type == "IMPORT_UNDO_FAILED") == 1
    session.execute(sa.text("DROP TRIGGER test_refuse ON leads"))
    session.commit()
    fresh(session, found).finished_at = datetime.now(UTC) - timedelta(hours=30)  # begun in time is in time
    session.commit()
    undo(session, session_factory, found)
    assert (found.state, found.undo_removed, found.error) == (ImportState.UNDONE, 4, None)


def test_turns_that_get_on_are_no_tries(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    found = queued(session, workspace, tmp_path, rows(24))
    while work(session_factory, tmp_path, chunk_rows=3, max_seconds=0.0).more:
        assert fresh(session, found).tries == 0
    assert found.attempt > 5 and counts(session, found) == (24, 24, 0, 0)
    imports.undo(session, fresh(session, found), by="Tess")
    session.commit()
    while imports.process_undos(session_factory, Holder(), batch=3, max_seconds=0.0).more:
        assert fresh(session, found).tries == 0
    assert fresh(session, found).undo_removed == 24


def test_a_column_of_json_that_was_left_out_stays_out(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    data = '{"email": "a@example.com", "phone": "+12025550100", "note": "secret"}\n'
    found = upload(session, workspace, tmp_path, data, filename="x.ndjson")
    chosen = {"email": "email", "phone": "", "note": ""}
    assert imports.preview(tmp_path, found, mapping=chosen).rows[0].fields.keys() == {"email", "source"}
    imports.start(session, found, by="Tess", mapping=chosen)
    session.commit()
    work(session_factory, tmp_path)
    lead = session.scalars(sa.select(Lead)).one()
    assert (lead.email, lead.phone, lead.message) == ("a@example.com", None, "")


def test_discarding_tells_which_file_is_needless(session: Session, workspace: Workspace, tmp_path: Path) -> None:
    found = upload(session, workspace, tmp_path, rows(3))
    name = found.stored_as
    assert name and imports.cancel(session, found, by="Tess") == name and found.stored_as is None
    going = queued(session, workspace, tmp_path, rows(3))
    going.rows_done = 1
    session.commit()
    assert imports.cancel(session, going, by="Tess") is None and going.stored_as


def test_a_workspace_has_so_many_imports_that_are_not_over(
    session: Session, workspace: Workspace, tmp_path: Path
) -> None:
    made = [upload(session, workspace, tmp_path, rows(1)) for _ in range(20)]
    with pytest.raises(Transient) as refused:
        upload(session, workspace, tmp_path, rows(1))
    assert (refused.value.code, refused.value.retry_after) == ("rate_limited", 60)
    session.rollback()
    upload(session, factories.make_workspace(session), tmp_path, rows(1))
    imports.cancel(session, made[0], by="Tess")
    session.commit()
    upload(session, workspace, tmp_path, rows(1))


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    receiver = imports.Receiver(tmp_path, limit=1 << 30)
    receiver._file.close()
    receiver._file = open("/dev/full", "wb")  # noqa: SIM115
    receiver.write(b"buffered")
    with pytest.raises(Transient, match="no room"):
        receiver.finish()
    receiver.discard()
    assert list(tmp_path.iterdir()) == []


def test_sensitive_columns_are_sealed_whatever_they_are_called(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    def seal(value: Any) -> Any:
        return {k: f"enc:{v}" if k == "date_of_birth" else v for k, v in value.items()}

    queued(session, workspace, tmp_path, "email,Geburtsdatum\na@example.com,1980-02-03\n")
    work(session_factory, tmp_path, seal=seal)
    lead = session.scalars(sa.select(Lead)).one()
    assert lead.attributes == {"date_of_birth": "enc:1980-02-03"}
    assert session.scalars(sa.select(Run)).one().payload_json["Geburtsdatum"] == "enc:1980-02-03"


def test_preview_shows_rows_as_they_would_come_in(session: Session, workspace: Workspace, tmp_path: Path) -> None:
    found = upload(session, workspace, tmp_path, rows(30) + "")
    shown = imports.preview(tmp_path, found)
    assert len(shown.rows) == 20 and shown.columns == ("Name", "E-mail", "Message")
    assert shown.rows[0].cells == ("Person 0", "person0@example.com", "Please quote 0 seats")
    assert shown.rows[0].fields["name"] == "Person 0" and shown.rows[0].problems == ()
    other = imports.preview(tmp_path, found, mapping={"Message": "email"})
    assert other.rows[0].problems[0].field == "email" and other.rows[0].fields == {}
    with pytest.raises(Invalid) as refused:
        imports.preview(tmp_path, found, mapping={"Name": "email", "E-mail": "email", "None": "x", "Message": "y"})
    assert [problem.field for problem in refused.value.details] == ["E-mail", "None", "Message"]


def test_preview_says_amounts_and_what_is_wrong_as_people_do(
    session: Session, workspace: Workspace, tmp_path: Path
) -> None:
    found = upload(session, workspace, tmp_path, "E-mail,Budget\na@example.com,12500\nb@example.com,1.5\nnobody,x\n")
    first, second, wrong = imports.preview(tmp_path, found).rows
    assert (first.fields["budget"], second.fields["budget"]) == ("12,500", "1.50")
    assert {problem.field: problem.reason for problem in wrong.problems} == {
        "email": "is not a valid e-mail address: An email address must have an @-sign",
        "budget": "must be one amount of 0 or more, of at most 15 digits, such as 12,500 or 20k",
    }


def test_reading_it_otherwise_maps_the_columns_anew(session: Session, workspace: Workspace, tmp_path: Path) -> None:
    found = upload(session, workspace, tmp_path, "email;note\na@example.com;caf\xe9\n".encode("cp1252"))
    layout = imports.inspect(
        imports.path_of(tmp_path, found.stored_as), delimiter=",", has_header=False, encoding="cp437"
    )
    imports.relayout(session, found, layout)
    session.commit()
    assert (found.columns, found.delimiter, found.encoding, found.has_header) == (["column 1"], ",", "cp437", False)


# Undo


def undo(session: Session, session_factory: Factory, found: Import, **more: Any) -> None:
    imports.undo(session, fresh(session, found), by="Tess")
    session.commit()
    while imports.process_undos(session_factory, Holder(), **more).more:
        pass
    fresh(session, found)


def test_undo_removes_what_the_import_brought(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    here = factories.make_lead(session, workspace, "Please quote 3 seats", email="person3@example.com")
    contact = here.last_contact_at
    found = queued(session, workspace, tmp_path, rows(30) + "Person 4,person4@example.com,Please quote 4 seats\n")
    work(session_factory, tmp_path)
    run.process(session_factory, Holder())
    assert counts(session, found) == (31, 29, 2, 0)
    undo(session, session_factory, found, batch=7)
    assert (found.state, found.undo_removed, found.undo_kept, found.undone_by) == (ImportState.UNDONE, 29, 0, "Tess")
    session.refresh(here)
    assert session.scalars(sa.select(Lead.id)).all() == [here.id]
    assert (here.touches, here.last_contact_at) == (1, contact)
    assert (count(session, Touch), count(session, Run), count(session, Person)) == (0, 1, 1)
    event = session.scalars(sa.select(AuditEvent).where(AuditEvent.event_type == "IMPORT_UNDONE")).one()
    assert event.actor == "Tess" and event.details["removed"] == 29
    assert imports.path_of(tmp_path, found.stored_as).is_file()
    with pytest.raises(Conflict):
        imports.undo(session, found, by="Tess")


def test_undo_keeps_what_somebody_has_built_upon(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    found = queued(session, workspace, tmp_path, rows(6) + rows(2).partition("\n")[2])
    work(session_factory, tmp_path)
    run.process(session_factory, Holder())
    leads = {lead.email: lead for lead in session.scalars(sa.select(Lead))}
    decided, sent, waiting, again, won = (leads[f"person{n}@example.com"] for n in range(5))
    report = lead_outcomes.Report(DealState.WON)
    lead_outcomes.record(session, workspace.id, won.id, report, source=OutcomeSource.CRM, actor="CRM", currency="EUR")
    review.decide(
        session,
        workspace.id,
        decided.id,
        action=DecisionAction.APPROVE,
        version=decided.version,
        actor=review.Actor("Rae"),
        undo_seconds=0,
    )
    destination = Destination(workspace_id=workspace.id, kind=DestinationKind.WEBHOOK, name="hook")
    session.add(destination)
    session.flush()
    for lead, state in ((sent, DeliveryState.DELIVERED), (waiting, DeliveryState.PENDING)):
        session.execute(sa.delete(Delivery).where(Delivery.lead_id == lead.id))
        session.add(
            Delivery(
                workspace_id=workspace.id, lead_id=lead.id, destination_id=destination.id, action="deliver", state=state,
            )
        )  # fmt: skip
    session.commit()
    factories.make_lead(session, workspace, again.message, email=again.email)
    undo(session, session_factory, found)
    kept = set(session.scalars(sa.select(Lead.email)))
    assert kept == {decided.email, sent.email, again.email, won.email}
    assert (found.undo_removed, found.undo_kept) == (2, 4)
    for lead in (decided, sent, again):
        session.refresh(lead)
    # What the file said twice is taken back from the leads that stay, too; what came from elsewhere is not.
    assert (decided.touches, sent.touches, again.touches) == (1, 1, 2)


def test_undo_looks_once_at_what_it_passes_over(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    found = queued(session, workspace, tmp_path, rows(12))
    work(session_factory, tmp_path)
    kept = list(session.scalars(sa.select(Lead.id).order_by(Lead.id)))[::2]
    session.execute(sa.update(Lead).where(Lead.id.in_(kept)).values(status="approved", decided_by="Rae"))
    session.commit()
    asked: list[str] = []

    def hear(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "OF leads SKIP LOCKED" in statement:
            asked.append(statement)

    engine = session.get_bind()
    sa.event.listen(engine, "before_cursor_execute", hear)
    try:
        undo(session, session_factory, found, batch=2)
    finally:
        sa.event.remove(engine, "before_cursor_execute", hear)
    assert (found.undo_removed, found.undo_kept) == (6, 6)
    assert ["leads.id >" in one for one in asked] == [False, True, True, True]


def test_undo_waits_for_a_run_in_hand(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    found = queued(session, workspace, tmp_path, rows(2))
    work(session_factory, tmp_path)
    from webapp.leads.claims import RUNS

    assert claim(session, RUNS, Holder(), limit=1)
    session.commit()
    imports.undo(session, fresh(session, found), by="Tess")
    session.commit()
    imports.process_undos(session_factory, Holder())
    assert fresh(session, found).state is ImportState.UNDO_QUEUED and count(session, Lead) == 1
    session.execute(sa.update(Run).values(status="success"))
    session.execute(sa.update(Import).values(due_at=sa.func.now()))
    session.commit()
    imports.process_undos(session_factory, Holder())
    assert fresh(session, found).state is ImportState.UNDONE and count(session, Lead) == 0


def test_after_a_day_undo_is_refused(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    found = queued(session, workspace, tmp_path, rows(2))
    with pytest.raises(Conflict):
        imports.undo(session, found, by="Tess")  # not over
    session.rollback()
    work(session_factory, tmp_path)
    fresh(session, found).finished_at = datetime.now(UTC) - timedelta(hours=24, minutes=1)
    session.commit()
    with pytest.raises(Conflict, match="24 hours"):
        imports.undo(session, found, by="Tess")


# Keeping


def test_old_imports_are_forgotten_with_their_files(
    session: Session, session_factory: Factory, workspace: Workspace, tmp_path: Path
) -> None:
    import os

    old, new = (queued(session, workspace, tmp_path, rows(2, first=n)) for n in (0, 10))
    busy = queued(session, workspace, tmp_path, rows(2, first=20))
    work(session_factory, tmp_path)
    session.rollback()
    month = datetime.now(UTC) - timedelta(days=31)
    session.execute(sa.update(Import).where(Import.id.in_([old.id, busy.id])).values(finished_at=month))
    session.execute(sa.update(Import).where(Import.id == busy.id).values(state=ImportState.UNDOING))
    session.commit()
    stray, fresh_stray = tmp_path / "stray.part", tmp_path / "fresh.part"
    for path in (stray, fresh_stray):
        path.write_bytes(b"x")
    os.utime(stray, (0, 0))
    files = {found.stored_as for found in (new, busy)}
    assert imports.forget_old(session, tmp_path, days=30) == 1
    assert set(session.scalars(sa.select(Import.id))) == {new.id, busy.id}
    assert {path.name for path in tmp_path.iterdir()} == {*files, "fresh.part"}
    assert count(session, Lead) == 6


def test_pages_of_imports(session: Session, workspace: Workspace, tmp_path: Path) -> None:
    made = [upload(session, workspace, tmp_path, rows(1)) for _ in range(5)]
    other = factories.make_workspace(session)
    upload(session, other, tmp_path, rows(1))
    seen, cursor = [], None
    while True:
        page, cursor = imports.page(session, workspace.id, cursor=cursor, limit=2)
        seen += [found.id for found in page]
        if cursor is None:
            break
    assert seen == [found.id for found in reversed(made)]
    for wrong in ("x", str(uuid.uuid4())):
        with pytest.raises(Invalid):
            imports.page(session, workspace.id, cursor=wrong)
    with pytest.raises(NotFound):
        imports.get(session, other.id, made[0].id)

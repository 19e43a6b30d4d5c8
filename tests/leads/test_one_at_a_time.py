"""What takes one delivery at a time gets one at a time, from all workers and destinations together."""

import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests import factories
from tests.fakes.sheets import SPREADSHEET, SheetsFake
from tests.leads.delivering import CIPHER, all_states, clients, decided_lead, drain, new_holder, planned
from webapp.leads import deliver, sending
from webapp.leads.claims import Holder
from webapp.leads.states import DestinationKind
from webapp.models import Delivery, Destination, Workspace


@pytest.fixture
def sheets() -> Iterator[SheetsFake]:
    with SheetsFake(tabs={"Leads": [], "Others": []}) as fake:
        yield fake


def _destination(session: Session, workspace: Workspace, fake: SheetsFake, tab: str = "Leads") -> Destination:
    row = Destination(
        workspace_id=workspace.id,
        kind=DestinationKind.SHEETS,
        name=f"Sheet {tab}",
        config={"spreadsheet": SPREADSHEET, "tab": tab},
        credentials=CIPHER.encrypt({"key": fake.key}),
    )
    session.add(row)
    session.commit()
    return row


def test_workers_and_destinations_take_turns_at_a_spreadsheet(
    session: Session, session_factory: sessionmaker[Session], workspace: Workspace, sheets: SheetsFake
) -> None:
    other = factories.make_workspace(session, "other")
    _destination(session, workspace, sheets)
    _destination(session, other, sheets)
    _destination(session, other, sheets, tab="Others")
    for place in (workspace, other):
        for _ in range(4):
            planned(session, place)
    sheets.latency = 0.01
    registry = clients(sheets_api_url=sheets.root)

    def work(holder: Holder) -> None:
        while True:
            drain(session_factory, registry=registry, holder=holder)
            with session_factory() as own:
                if all_states(own) == {"delivered"}:
                    return

    workers = [threading.Thread(target=work, args=(new_holder(session, f"w{n}"),)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert all_states(session) == {"delivered"}
    assert (len(sheets.records()), len(sheets.records("Others"))) == (8, 4)
    assert sheets.busiest == 1


def test_while_one_is_under_way_there_is_nothing_to_do_for_others(
    session: Session, session_factory: sessionmaker[Session], workspace: Workspace, sheets: SheetsFake
) -> None:
    row = _destination(session, workspace, sheets)
    lead = decided_lead(session, workspace)
    planned(session, workspace)
    deliver.plan(session, lead, due_in_seconds=0)
    session.commit()
    (held,) = sending.claim_due(session, Holder(), limit=9, lease=30, destination_id=row.id, alone=True)
    session.commit()
    assert not deliver.has_due(session) and sending.with_work(session) == {}
    with session_factory() as another, session_factory() as third:
        assert sending.claim_due(another, Holder(), limit=9, lease=30, destination_id=row.id, alone=True) == []
        # Whoever claims at the very same moment is told to come again.
        assert sending.claim_due(third, Holder(), limit=9, lease=30, destination_id=row.id, alone=True) == []
    # A worker that was lost holds it no longer than its lease.
    past = sa.func.now() - sa.text("interval '1 second'")
    session.execute(sa.update(Delivery).where(Delivery.id == held.id).values(lease_until=past))
    session.commit()
    assert deliver.has_due(session)


def test_two_destinations_of_a_spreadsheet_are_probed_one_after_the_other(
    session: Session, workspace: Workspace, sheets: SheetsFake
) -> None:
    _destination(session, workspace, sheets)
    _destination(session, workspace, sheets, tab="Others")
    planned(session, workspace)
    session.execute(sa.update(Destination).values(open_until=sa.func.now()))
    session.commit()

    def probed() -> int:
        claims, calls = sending.claim_probes(session, Holder(), limit=9, lease=30, hold=30)
        session.commit()
        assert len(claims) == calls
        return calls

    assert [probed(), probed()] == [1, 0]
    # The other one need not wait as if it had been probed.
    session.execute(sa.update(Delivery).where(Delivery.state == "sending").values(state="delivered"))
    session.commit()
    assert probed() == 1

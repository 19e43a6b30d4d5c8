"""Cursors: one spelling for lists that only go on and for lists whose pages can be turned back."""

from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.factories import make_lead
from webapp.leads import keyset, listings
from webapp.leads.errors import Invalid
from webapp.leads.run_filters import RunFilter
from webapp.models import Lead, Run, Workspace


def test_a_cursor_is_read_as_it_was_written(session: Session, workspace: Workspace) -> None:
    lead = make_lead(session, workspace)
    for back in (False, True):
        assert keyset.decode(keyset.encode(lead, back=back)) == (back, (lead.created_at, lead.id))
    naive = SimpleNamespace(created_at=lead.created_at.replace(tzinfo=None), id=lead.id)
    for wrong in ("", "nonsense", keyset.encode(naive), keyset.encode(lead)[:-4]):
        with pytest.raises(Invalid):
            keyset.decode(wrong)


def test_a_list_that_only_goes_on_refuses_to_go_back(session: Session, workspace: Workspace) -> None:
    for _ in range(3):
        make_lead(session, workspace)
    page = keyset.newest(session, sa.select(Lead), Lead, cursor=None, limit=2)
    assert page.next_cursor is not None
    assert len(keyset.newest(session, sa.select(Lead), Lead, cursor=page.next_cursor, limit=2).rows) == 1
    back = keyset.encode(page.rows[-1][0], back=True)
    with pytest.raises(Invalid):
        keyset.newest(session, sa.select(Lead), Lead, cursor=back, limit=2)
    newest_run = session.scalars(sa.select(Run).order_by(Run.created_at.desc()).limit(1)).one()
    cursor = keyset.encode(newest_run)
    older = listings.runs(session, workspace.id, RunFilter(), cursor=cursor)
    assert len(older.rows) == 2 and older.prev_cursor is not None
    before = listings.runs(session, workspace.id, RunFilter(), cursor=older.prev_cursor)
    assert [row.id for row in before.rows] == [newest_run.id]

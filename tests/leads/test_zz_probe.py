import uuid
import pytest
import sqlalchemy as sa
from webapp.models import Lead

def test_probe(session):
    from webapp.models.faults import is_database_away
    for f in (lambda: session.execute(sa.select(Lead.id).where(Lead.id.in_([uuid.uuid4() for _ in range(70000)]))),
              lambda: session.execute(sa.text("select 1 where :a = any(:b)"), {"a": "x"*(1<<20), "b": ["y"]})):
        try:
            f()
        except Exception as e:
            o = e.orig
            print("GOT", type(e), type(o), str(o)[:200], o.sqlstate, o.pgconn, o.pgconn and o.pgconn.status, e.connection_invalidated, is_database_away(e), o.__cause__, o.__traceback__ )
            import traceback; print(''.join(traceback.format_tb(o.__traceback__))[-1500:])
        session.rollback()

"""Import workers that are killed at any moment, and their helpers: whole chunks are taken in, none twice, none lost."""

import os
import random

import psutil
import pytest
import sqlalchemy as sa

from tests.factories import make_workspace
from tests.faults.processes import kill, wait_until
from tests.leads.importing import queued
from webapp.leads import imports
from webapp.leads.imports.chunks import CHUNK_ROWS
from webapp.leads.states import ImportState
from webapp.models import AuditEvent, Import, ImportProblem, Lead, Person, Run, Touch

pytestmark = [pytest.mark.fault, pytest.mark.slow]
ROWS = 12_000


def data() -> str:
    """Every tenth row is bad, every seventh repeats the one before the last."""
    lines = ["Name,E-mail,Message"]
    for n in range(ROWS):
        if n % 10 == 3:
            lines.append(f"Person {n},person{n}@,Hello")
        else:
            m = n - 2 if n % 7 == 0 and n > 2 and (n - 2) % 10 != 3 else n
            lines.append(f'Person {m},person{m}@example.com,"Please quote\n{m} seats"')
    return "\n".join(lines)


def state(session, found):
    session.rollback()
    session.refresh(found)
    return found


def number(session, model):
    return session.scalar(sa.select(sa.func.count()).select_from(model))


def somebody_is_left(group):
    """Of the process group that a worker began: its helpers are in it."""
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
        except ProcessLookupError:
            continue
    return False


def waits_for_a_lock(session):
    with session.get_bind().connect() as connection:
        return connection.scalar(sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))


def test_killed_at_chunks_and_inside_them_an_import_loses_and_repeats_nothing(session, processes, tmp_path):
    found = queued(session, make_workspace(session), tmp_path, data())
    rnd = random.Random(7)
    marks = sorted(rnd.sample(range(1, ROWS // CHUNK_ROWS - 1), 3))
    seen = []
    for mark in marks:  # as soon as so many chunks are there, which is somewhere in the next one
        worker = processes.worker("imports")
        assert wait_until(lambda mark=mark: state(session, found).rows_done >= mark * CHUNK_ROWS, 60)
        kill(worker)
        assert wait_until(lambda group=worker.pid: not somebody_is_left(group), 60)
        done = state(session, found).rows_done
        assert done % CHUNK_ROWS == 0
        assert found.created_count == number(session, Lead) == number(session, Run)
        assert found.touched_count == number(session, Touch)
        seen.append(done)
    assert seen == sorted(set(seen)) and seen[-1] < ROWS
    # In the middle of a chunk's transaction: somebody holds a person of it.
    session.execute(sa.text("LOCK TABLE people IN SHARE MODE"))
    worker = processes.worker("imports")
    assert wait_until(lambda: waits_for_a_lock(session), 60)
    kill(worker)
    session.rollback()
    assert state(session, found).state is ImportState.RUNNING

    processes.worker("imports")
    assert wait_until(lambda: state(session, found).state is ImportState.DONE, 120)
    bad = sum(n % 10 == 3 for n in range(ROWS))
    again = sum(n % 7 == 0 and n > 2 and (n - 2) % 10 != 3 and n % 10 != 3 for n in range(ROWS))
    assert (found.rows_done, found.failed_count, found.touched_count) == (ROWS, bad, again)
    assert found.created_count == number(session, Lead) == number(session, Run) == ROWS - bad - again
    assert number(session, Person) == found.created_count
    assert (number(session, Touch), number(session, ImportProblem)) == (again, bad)
    assert session.scalar(sa.select(sa.func.sum(Lead.touches))) == ROWS - bad
    events = dict(
        session.execute(sa.select(AuditEvent.event_type, sa.func.count()).group_by(AuditEvent.event_type)).all()
    )
    assert events == {
        "IMPORT_STARTED": 1,
        "IMPORT_FINISHED": 1,
        "LEAD_SIGNAL_CREATED": ROWS - bad - again,
        "LEAD_TOUCHED": again,
    }


def test_without_its_helper_a_worker_takes_the_rest_in_by_itself(session, processes, tmp_path):
    found = queued(session, make_workspace(session), tmp_path, data())
    worker = processes.worker("imports")
    assert wait_until(lambda: state(session, found).rows_done >= CHUNK_ROWS, 60)
    # What was prepared so far waits while somebody holds the table.
    session.execute(sa.text("LOCK TABLE people IN SHARE MODE"))
    with session.get_bind().connect() as other:
        assert wait_until(lambda: waits_for_a_lock(session), 60)
        (helper,) = psutil.Process(worker.pid).children()
        assert helper.cmdline()[0] == "leadops: worker imports-1: rows"
        done = other.scalar(sa.select(Import.rows_done))
    # One chunk is being written, one waits for that, one is held by the worker; the rest is still to be prepared.
    assert done + 3 * CHUNK_ROWS < ROWS
    helper.kill()
    session.rollback()
    assert wait_until(lambda: state(session, found).state is ImportState.DONE, 120)
    assert (found.rows_done, found.tries) == (ROWS, 0)
    assert found.failed_count == sum(n % 10 == 3 for n in range(ROWS))
    assert found.created_count == number(session, Lead) == number(session, Run)
    assert session.scalar(sa.select(sa.func.sum(Lead.touches))) == ROWS - found.failed_count
    assert psutil.Process(worker.pid).children() == []


def test_an_undo_goes_on_after_its_worker_was_killed(session, processes, tmp_path):
    found = queued(session, make_workspace(session), tmp_path, data())
    worker = processes.worker("imports")
    assert wait_until(lambda: state(session, found).state is ImportState.DONE, 120)
    imports.undo(session, found, by="Tess")
    session.commit()
    assert wait_until(lambda: state(session, found).undo_removed > 0, 60)
    kill(worker)
    left = number(session, Lead)
    assert state(session, found).undo_removed == found.created_count - left
    processes.worker("imports")
    assert wait_until(lambda: state(session, found).state is ImportState.UNDONE, 120)
    assert (found.undo_removed, found.undo_kept) == (found.created_count, 0)
    assert [number(session, model) for model in (Lead, Run, Touch, Person)] == [0, 0, 0, 0]
    assert number(session, Import) == 1

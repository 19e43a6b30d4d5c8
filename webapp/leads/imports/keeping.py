"""What the clock does about imports: records past their days go, with their files and errors; the leads stay."""

import time
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads.imports.files import remove, sweep
from webapp.leads.states import ImportState
from webapp.models.inbound import Import

#: A file that no import names so long after it was last written is left of an upload that broke off.
_STRAY_SECONDS = 6 * 3600
_BATCH = 100
_AT_WORK = (ImportState.QUEUED, ImportState.RUNNING, ImportState.UNDO_QUEUED, ImportState.UNDOING)


def forget_old(session: Session, folder: str | Path, *, days: int) -> int:
    """Delete imports that came more than ``days`` days ago and are at rest, and files that belong to none. Commits.
    Returns how many imports went."""
    forgotten = 0
    while True:
        rows = session.execute(
            sa.select(Import.id, Import.stored_as)
            .where(
                sa.func.coalesce(Import.finished_at, Import.created_at)
                < sa.func.now() - sa.func.make_interval(0, 0, 0, days),
                Import.state.not_in(_AT_WORK),
            )
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        ).all()
        session.execute(sa.delete(Import).where(Import.id.in_([row.id for row in rows])))
        session.commit()
        for row in rows:  # after the commit: a record without a file can be told, a file without a record is swept
            remove(folder, row.stored_as)
        forgotten += len(rows)
        if len(rows) < _BATCH:
            break
    named = session.scalars(sa.select(Import.stored_as).where(Import.stored_as.is_not(None)))
    sweep(folder, [name for name in named if name], older_than=time.time() - _STRAY_SECONDS)
    session.commit()
    return forgotten

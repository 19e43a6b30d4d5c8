"""An import from its upload to its undo, as people and programs steer it. The caller commits, then rings ``imports``.

    uploaded → queued → running → done | failed | cancelled → undo_queued → undoing → undone

An import that only tried (``dry_run``) can be started again, for real. Every change of state is made under the row's
lock, which a worker holds for as long as it writes a chunk.
"""

import csv
import io
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit
from webapp.leads.errors import Conflict, Invalid, NotFound, Problem, Transient
from webapp.leads.imports.columns import check_mapping, guess
from webapp.leads.imports.files import Stored
from webapp.leads.imports.layout import Layout
from webapp.leads.intake import text_problem
from webapp.leads.states import ImportState
from webapp.models.inbound import Import, ImportProblem

#: How long a finished import can be undone.
UNDO_HOURS = 24
MAX_SOURCE = 100
_ACTIVE = frozenset({ImportState.QUEUED, ImportState.RUNNING})
_ENDED = frozenset({ImportState.DONE, ImportState.FAILED, ImportState.CANCELLED})
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_PROBLEMS_AT_ONCE = 2_000
#: Most imports of a workspace that are not over: each may be as large as ``MAX_IMPORT_BYTES`` on disk.
MAX_UNFINISHED = 20


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is. ``share``: 0..1 of the file, or of the leads to take back; ``rate``: rows a second; ``left``:
    seconds, as far as can be told."""

    share: float
    rate: float | None
    left: float | None


def check_room(session: Session, workspace_id: uuid.UUID) -> None:
    """Transient with code ``rate_limited`` when :data:`MAX_UNFINISHED` imports of the workspace are not over."""
    waiting = sa.select(sa.func.count()).where(
        Import.workspace_id == workspace_id, Import.state.in_([ImportState.UPLOADED, *_ACTIVE])
    )
    if (session.scalar(waiting) or 0) >= MAX_UNFINISHED:
        raise Transient(
            f"{MAX_UNFINISHED} imports wait or run already. Wait until one is over, or discard one that is not started.",
            code="rate_limited",
            retry_after=60,
        )


def create(
    session: Session,
    workspace_id: uuid.UUID,
    stored: Stored,
    layout: Layout,
    *,
    filename: str,
    created_by: str,
    source: str = "import",
) -> Import:
    """Record a file that was taken in, with its columns mapped as their names suggest; :func:`start` sets it going.
    Transient when there is no room (:func:`check_room`)."""
    check_room(session, workspace_id)
    made = Import(
        workspace_id=workspace_id,
        filename=clean_filename(filename),
        stored_as=stored.name,
        size_bytes=stored.size,
        format=layout.format,
        encoding=layout.encoding,
        delimiter=layout.delimiter,
        has_header=layout.has_header,
        columns=list(layout.columns),
        mapping=guess(layout.columns),
        source=clean_source(source),
        state=ImportState.UPLOADED,
        created_by=created_by,
    )
    session.add(made)
    session.flush()
    return made


def relayout(session: Session, found: Import, layout: Layout) -> None:
    """Take over how a person says the file is to be read (:func:`inspect` with wishes); the columns are mapped anew.
    Conflict when it has been started."""
    _expect(_lock(session, found), {ImportState.UPLOADED}, "has been started already")
    found.format, found.encoding, found.delimiter = layout.format, layout.encoding, layout.delimiter
    found.has_header, found.columns, found.mapping = layout.has_header, list(layout.columns), guess(layout.columns)
    session.flush()


def start(
    session: Session,
    found: Import,
    *,
    by: str,
    mapping: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    source: str | None = None,
) -> None:
    """Queue it. ``mapping``: column → field (None: as it stands); ``dry_run``: look at every row and write no lead.
    Invalid for a mapping that makes no sense, Conflict when it has been started already."""
    _lock(session, found)
    if not (found.state is ImportState.DONE and found.dry_run):
        _expect(found, {ImportState.UPLOADED}, "has been started already")
    found.mapping = check_mapping(found.columns, found.mapping if mapping is None else mapping)
    if source is not None:
        found.source = clean_source(source)
    session.execute(sa.delete(ImportProblem).where(ImportProblem.import_id == found.id))
    found.dry_run = dry_run
    found.state = ImportState.QUEUED
    found.position = found.rows_done = found.created_count = found.touched_count = found.failed_count = 0
    found.rows_total = found.error = found.started_at = found.finished_at = None
    found.tries = 0
    found.due_at = sa.func.now()
    audit.record(session, found.workspace_id, "IMPORT_STARTED", actor=by, **told(found))
    session.flush()


def cancel(session: Session, found: Import, *, by: str) -> str | None:
    """Stop it where it is; what came in stays and can be undone. Conflict when it is over. Returns the name of its file
    when no row of it came in: nobody needs that any more, and the caller deletes it once this is committed."""
    _expect(_lock(session, found), {*_ACTIVE, ImportState.UPLOADED}, "is over already")
    found.state, found.finished_at, found.lease_until = ImportState.CANCELLED, sa.func.now(), None
    audit.record(session, found.workspace_id, "IMPORT_CANCELLED", actor=by, **told(found))
    needless = None
    if not found.rows_done:
        needless, found.stored_as = found.stored_as, None
    session.flush()
    return needless


def undo(session: Session, found: Import, *, by: str) -> None:
    """Queue taking its leads back. Conflict when it cannot be undone (see :func:`undo_problem`)."""
    _lock(session, found)
    if problem := undo_problem(found):
        raise Conflict(problem)
    found.state, found.undone_by, found.due_at = ImportState.UNDO_QUEUED, by, sa.func.now()
    found.undo_removed = found.undo_kept = found.tries = 0
    found.error = None
    session.flush()


def undo_problem(found: Import) -> str | None:
    """Why it cannot be undone, in words to show; None when it can."""
    if found.state in (ImportState.UNDO_QUEUED, ImportState.UNDOING, ImportState.UNDONE):
        return "This import has been undone already."
    if found.state not in _ENDED:
        return "This import is not over; cancel it first."
    if found.dry_run or not (found.created_count or found.touched_count):
        return "This import brought no leads in; there is nothing to undo."
    if found.state is ImportState.FAILED and found.undone_by:
        return None  # begun in time, and stopped by an error of ours
    if found.finished_at is None or datetime.now(UTC) - found.finished_at > timedelta(hours=UNDO_HOURS):
        return f"An import can be undone for {UNDO_HOURS} hours, and these are over."
    return None


def get(session: Session, workspace_id: uuid.UUID, import_id: uuid.UUID | str) -> Import:
    """NotFound when the workspace has no such import."""
    try:
        known = import_id if isinstance(import_id, uuid.UUID) else uuid.UUID(import_id)
    except ValueError:
        raise NotFound("There is no such import.") from None
    found = session.scalars(sa.select(Import).where(Import.workspace_id == workspace_id, Import.id == known)).first()
    if found is None:
        raise NotFound("There is no such import.")
    return found


def page(
    session: Session, workspace_id: uuid.UUID, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Import], str | None]:
    """(imports, newest first; the cursor of the next page or None). ``cursor``: the last page's. Invalid for another
    text."""
    query = sa.select(Import).where(Import.workspace_id == workspace_id)
    if cursor:
        try:
            last = get(session, workspace_id, cursor)
        except NotFound:
            reason = "is not a cursor of this list; ask for the first page"
            raise Invalid("The page asked for is not understood.", details=(Problem("cursor", reason),)) from None
        query = query.where(sa.tuple_(Import.created_at, Import.id) < (last.created_at, last.id))
    rows = list(session.scalars(query.order_by(Import.created_at.desc(), Import.id.desc()).limit(limit + 1)))
    return rows[:limit], str(rows[limit - 1].id) if len(rows) > limit else None


def progress(found: Import) -> Progress:
    """From the row alone; nothing is asked of the database."""
    if found.state in (ImportState.UNDO_QUEUED, ImportState.UNDOING, ImportState.UNDONE):
        total = found.created_count
        share = 1.0 if found.state is ImportState.UNDONE else (found.undo_removed + found.undo_kept) / max(total, 1)
        return Progress(min(share, 1.0), None, None)
    if found.started_at is None:
        return Progress(0.0, None, None)
    seconds = ((found.finished_at or datetime.now(UTC)) - found.started_at).total_seconds()
    share = 1.0 if found.state is ImportState.DONE else min(found.position / max(found.size_bytes, 1), 1.0)
    rate = found.rows_done / seconds if seconds > 0.05 and found.rows_done else None
    left = seconds / share * (1 - share) if share > 0 and found.state in _ACTIVE else None
    return Progress(share, rate, left)


def problems(session: Session, found: Import, *, limit: int | None = None) -> Iterator[ImportProblem]:
    """What is wrong with its rows, in the file's order; read in parts, so that there may be any number."""
    after, given = (0, ""), 0
    while limit is None or given < limit:
        rows = session.scalars(
            sa.select(ImportProblem)
            .where(
                ImportProblem.import_id == found.id,
                sa.tuple_(ImportProblem.row_number, ImportProblem.field) > after,
            )
            .order_by(ImportProblem.row_number, ImportProblem.field)
            .limit(_PROBLEMS_AT_ONCE if limit is None else min(limit - given, _PROBLEMS_AT_ONCE))
            .execution_options(populate_existing=True)
        ).all()
        if not rows:
            return
        yield from rows
        given += len(rows)
        after = (rows[-1].row_number, rows[-1].field)
        session.expunge_all() if limit is None else None


def problems_csv(session: Session, found: Import) -> Iterator[str]:
    """The errors file, piece by piece: row number, field, reason; safe to open in a spreadsheet. Who streams it gives it
    the session of the context that streams, not the request's, which is closed by then."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    buffer.write("\ufeff")  # tells Excel that it is UTF-8
    writer.writerow(("row number", "field", "reason"))
    for count, problem in enumerate(problems(session, found), start=1):
        writer.writerow((problem.row_number, _cell(problem.field), _cell(problem.reason)))
        if count % 500 == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _cell(text: str) -> str:
    """What begins like a formula gets an apostrophe in front."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def told(found: Import) -> dict[str, Any]:
    """What audit events say of an import."""
    return {
        "import_id": str(found.id),
        "filename": found.filename,
        "dry_run": found.dry_run,
        "rows": found.rows_done,
        "created": found.created_count,
        "touched": found.touched_count,
        "failed": found.failed_count,
    }


def clean_filename(name: str) -> str:
    """A file's name to show: no folders, nothing that cannot be stored or printed."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(character for character in last if character.isprintable()).strip()[:200]
    return shown.encode("utf-8", "replace").decode() or "unnamed"


def clean_source(source: str) -> str:
    """The source of rows that name none. Invalid when it cannot be one."""
    plain = source.strip()
    problem = text_problem(plain) or (
        None if 0 < len(plain) <= MAX_SOURCE else f"must have 1 to {MAX_SOURCE} characters"
    )
    if problem:
        raise Invalid("The source cannot be stored.", details=(Problem("source", problem),))
    return plain


def _lock(session: Session, found: Import) -> Import:
    session.refresh(found, with_for_update=True)
    return found


def _expect(found: Import, states: set[ImportState], otherwise: str) -> None:
    if found.state not in states:
        raise Conflict(f"This import {otherwise}.")

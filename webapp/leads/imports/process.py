"""Work imports: claim one, take its file in chunk by chunk, go on with the next when its turn is over.

A chunk is one transaction: its leads, the problems of its rows, and how far the file has been read, under the import's
row lock and with the fencing token. A worker killed at any moment has therefore taken in whole chunks only, and its
successor goes on behind the last one. While PostgreSQL writes a chunk (in a thread, which waits for the socket), the
next ones are prepared (``beside``); at most :data:`AHEAD` wait to be written, and behind one that could not be nothing
more is.

What goes wrong, and what then: a row → a problem of that row, also where PostgreSQL refuses it; broken JSON, or a file that is gone → the import
fails with what came before kept; PostgreSQL away → the drain breaks off, and a later one goes on; anything else → the
same, but after :data:`MAX_TRIES` claims that got no further the import fails.
"""

import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from webapp.leads import audit, callbacks, claims, intake_bulk, intake_sql
from webapp.leads.claims import IMPORTS, LEASE_SECONDS, UNDOS, Claim, Holder, SlotTaken
from webapp.leads.errors import Invalid, NotFound, Problem, Transient
from webapp.leads.imports import beside
from webapp.leads.imports.chunks import CHUNK_ROWS, INTERNAL, Chunk, Source
from webapp.leads.imports.columns import Mapper, Seal
from webapp.leads.imports.files import path_of
from webapp.leads.imports.preview import layout_of
from webapp.leads.imports.reading import Broken
from webapp.leads.imports.records import told
from webapp.leads.intake import Tenant
from webapp.leads.intake_bulk import Outcome, Taken
from webapp.leads.ports import Drained
from webapp.leads.states import ImportState
from webapp.models.account import Workspace
from webapp.models.base import interval
from webapp.models.faults import is_contention, is_database_away
from webapp.models.inbound import Import

log = logging.getLogger(__name__)

#: Chunks that may wait to be written, so that a slow commit does not stop the reading.
AHEAD = 2

#: Claims without a chunk written after which an import, or its undo, is given up.
MAX_TRIES = 5
STOPPED = "The import was stopped by an error of ours. Upload the file again; the rows that are here count as repeats."

SessionFactory = sessionmaker[Session]
TenantOf = Callable[[Workspace], Tenant]


@dataclass(frozen=True, slots=True)
class _Job:
    """A claimed import: the row as it was at the claim, and what its rows need."""

    claim: Claim
    workspace_id: uuid.UUID
    found: Import
    tenant: Tenant


class Lost(Exception):
    """The import is not this worker's any more: cancelled, or another one's after the lease ran out."""


def process(
    session_factory: SessionFactory,
    holder: Holder,
    *,
    folder: str | Path,
    seal: Seal,
    tenant_of: TenantOf,
    max_seconds: float = 5.0,
    alone_seconds: float = 0.0,
    chunk_rows: int = CHUNK_ROWS,
    helpers: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Drained:
    """Work due imports until none is left, ``max_seconds`` have passed or ``stop()`` says so; a chunk is never cut
    short. Imports take turns; as long as no other one nor an undo waits, a turn lasts up to ``alone_seconds``, since
    each end of one costs as much as a chunk. ``helpers``: processes that prepare rows beside this one. ``done`` counts
    rows. ``seal`` encrypts sensitive values; ``tenant_of`` tells what
    intake has to know of a workspace. Raises SlotTaken, and SQLAlchemy's and psycopg's errors when the database is
    away."""
    began = time.monotonic()
    done = 0

    def over() -> bool:
        took = time.monotonic() - began
        return stop() or (took >= max_seconds and (took >= alone_seconds or _somebody_waits(session_factory)))

    with ThreadPoolExecutor(1, thread_name_prefix="import") as writer:
        while True:  # once at least, so that any bound gets on
            job = _claim(session_factory, holder, tenant_of)
            if job is None:
                return Drained(done, False)
            run = _Run(session_factory, job, Path(folder), seal, chunk_rows, helpers, writer)
            if job.found.tries > MAX_TRIES:
                log.error("import %s is given up: %d claims got no further", job.claim.id, MAX_TRIES)
                run.give_up()
            else:
                done += run.work(over)
            if over():
                break
    with session_factory() as session:
        return Drained(done, claims.has_due(session, IMPORTS))


def _somebody_waits(session_factory: SessionFactory) -> bool:
    with session_factory() as session:
        return claims.has_due(session, IMPORTS) or claims.has_due(session, UNDOS)


def _claim(session_factory: SessionFactory, holder: Holder, tenant_of: TenantOf) -> _Job | None:
    with session_factory.begin() as session:
        if not claims.is_current(session, holder):
            raise SlotTaken(holder.slot)
        started = {"started_at": sa.func.coalesce(Import.started_at, sa.func.now()), "tries": Import.tries + 1}
        held = claims.claim(session, IMPORTS, holder, limit=1, also_set=started)
        if not held:
            return None
        found = session.get_one(Import, held[0].id, populate_existing=True)
        workspace = session.get_one(Workspace, found.workspace_id)
        return _Job(held[0], found.workspace_id, found, tenant_of(workspace))


class _Run:
    """One turn of one import. All but :meth:`_write` runs in the caller's thread."""

    def __init__(
        self,
        session_factory: SessionFactory,
        job: _Job,
        folder: Path,
        seal: Seal,
        chunk_rows: int,
        helpers: int,
        writer: ThreadPoolExecutor,
    ) -> None:
        self._session_factory, self._job, self._folder = session_factory, job, folder
        self._chunk_rows, self._helpers, self._writer = chunk_rows, helpers, writer
        self._pending: deque[Future[int]] = deque()
        self._broken = False  # a chunk could not be written; the writer's alone
        self._done = 0
        found = job.found
        with session_factory() as session:
            allowed = callbacks.places(session, job.workspace_id)
        self._mapper = Mapper(
            found.mapping,
            seal=seal,
            source=found.source,
            import_id=found.id,
            open_ended=found.format != "csv",
            columns=found.columns,
            callback_problem=partial(callbacks.problem_of, allowed=allowed),
        )

    def give_up(self) -> None:
        self._finish(ImportState.FAILED, STOPPED)

    def work(self, over: Callable[[], bool]) -> int:
        """Go on where the import stands until the file ends or ``over()``. Returns how many rows were taken in."""
        ended, failure = True, None
        try:
            try:
                ended = self._read(over)
            except (Broken, NotFound, Invalid) as error:
                failure = str(error)
            except OSError as error:
                failure = f"The file cannot be read: {error.strerror}."
            self._settle()
            if not ended:
                self._release()
            else:
                self._finish(ImportState.FAILED if failure else ImportState.DONE, failure)
        except Lost:
            log.info("import %s was cancelled, or is another worker's now", self._job.claim.id)
        except Transient as error:  # others kept taking the same leads in
            log.warning("import %s goes on later: %s", self._job.claim.id, error)
            self._release()
        return self._done

    def _read(self, over: Callable[[], bool]) -> bool:
        """Hand the file's chunks to the writer; False when ``over()`` came before its end."""
        found = self._job.found
        path = path_of(self._folder, found.stored_as)
        layout = layout_of(path, found)
        start = found.position or layout.begins_at
        source = Source(path, layout, start, found.rows_done + 1, self._mapper, self._job.tenant, self._chunk_rows)
        with closing(beside.chunks(source, self._helpers)) as chunks:
            for chunk in chunks:
                self._settle(AHEAD - 1)
                self._pending.append(self._writer.submit(self._write, chunk))
                if over():
                    return False
        if path.stat().st_size < found.size_bytes:
            raise Invalid(
                "The file is not whole any more. What it still held was taken in; upload it again for the rest."
            )
        return True

    def _settle(self, left: int = 0) -> None:
        """Wait until at most ``left`` chunks are still to be written."""
        while len(self._pending) > left:
            self._done += self._pending.popleft().result()

    # Writing

    def _write(self, chunk: Chunk) -> int:
        """One transaction; runs in the writer's thread. Lost when the import is not ours any more, and behind a chunk
        that could not be written."""
        if self._broken:
            raise Lost
        self._broken = True
        for attempt in range(3):
            try:
                with self._session_factory.begin() as session:
                    self._lock(session)
                    problems = list(chunk.problems)
                    taken = self._accept(session, chunk.good, problems)
                    self._save(session, chunk, taken, problems)
                self._broken = False
                return chunk.size
            except Exception as error:
                if is_database_away(error) or not is_contention(error) or attempt == 2:
                    raise
        return 0

    def _lock(self, session: Session) -> None:
        claim = self._job.claim
        held = (Import.id == claim.id, Import.attempt == claim.attempt, Import.state == ImportState.RUNNING)
        if session.scalar(sa.select(Import.id).where(*held).with_for_update()) is None:
            raise Lost

    def _accept(
        self, session: Session, good: list[tuple[int, intake_bulk.Row]], problems: list[tuple[int, Problem]]
    ) -> list[Taken | None]:
        """Take them in, or only look at what would become of them; what is none is added to ``problems``."""
        prepared = [row for _, row in good]
        if self._job.found.dry_run:
            taken: list[Taken | None] = [*intake_bulk.foresee(session, self._job.tenant, prepared)]
        else:
            taken = intake_bulk.accept_each(session, self._job.tenant, prepared, rank=intake_bulk.RANK)
        for (number, _), one in zip(good, taken, strict=True):
            if one is None:
                problems.append((number, Problem("row", INTERNAL)))
            elif one.outcome is Outcome.EXISTS:
                problems.append((number, Problem("lead_id", "a lead with this id is here already")))
        return taken

    def _save(
        self, session: Session, chunk: Chunk, taken: list[Taken | None], problems: list[tuple[int, Problem]]
    ) -> None:
        if problems:
            intake_sql.run(session, _PROBLEMS, {"import_id": self._job.claim.id, "rows": _problems_json(problems)})
        created = sum(one is not None and one.outcome is Outcome.CREATED for one in taken)
        touched = sum(one is not None and one.outcome is Outcome.TOUCHED for one in taken)
        session.execute(
            sa.update(Import)
            .where(Import.id == self._job.claim.id)
            .values(
                position=chunk.end,
                tries=0,
                rows_done=Import.rows_done + chunk.size,
                created_count=Import.created_count + created,
                touched_count=Import.touched_count + touched,
                failed_count=Import.failed_count + len({number for number, _ in problems}),
                lease_until=sa.func.now() + interval(LEASE_SECONDS),
            )
            .execution_options(synchronize_session=False)
        )

    # Ending

    def _release(self) -> None:
        """Its turn is over: anybody may go on with it, after the others that wait."""
        self._update({"lease_until": sa.func.now(), "due_at": sa.func.now(), "tries": 0})

    def _finish(self, state: ImportState, error: str | None = None) -> None:
        with self._session_factory.begin() as session:
            try:
                self._lock(session)
            except Lost:
                return
            found = session.get_one(Import, self._job.claim.id, populate_existing=True)
            found.state, found.error, found.rows_total = state, error, found.rows_done
            found.finished_at, found.lease_until = sa.func.now(), None
            audit.record(session, found.workspace_id, "IMPORT_FINISHED", **told(found), error=error)

    def _update(self, values: dict[str, Any]) -> None:
        claim = self._job.claim
        with self._session_factory.begin() as session:
            session.execute(
                sa.update(Import)
                .where(Import.id == claim.id, Import.attempt == claim.attempt, Import.state == ImportState.RUNNING)
                .values(values)
                .execution_options(synchronize_session=False)
            )


_PROBLEMS = """
INSERT INTO import_problems (import_id, row_number, field, reason)
SELECT %(import_id)s::uuid, row_number, field, reason
FROM jsonb_to_recordset(%(rows)s::jsonb) AS r(row_number int, field text, reason text)
ON CONFLICT DO NOTHING
"""


def _problems_json(problems: list[tuple[int, Problem]]) -> str:
    """Surrogates and NUL, which a column's name or a quoted value may hold, are shown as what they are not."""
    listed = [
        {"row_number": number, "field": _storable(problem.field), "reason": _storable(problem.reason)}
        for number, problem in problems
    ]
    return json.dumps(listed, ensure_ascii=False)


def _storable(text: str) -> str:
    return text[:500].encode("utf-8", "replace").decode().replace("\x00", "�")

"""Files of leads by API (docs/api.md §5): upload, progress, errors, cancel, undo."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal

from flask import Blueprint, Response, current_app, jsonify, request, stream_with_context, url_for
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, Json, StringConstraints

from jobs import queue
from webapp.api import auth, problems
from webapp.api.openapi import IDEMPOTENCY_KEY, REPLAYED, Answer, documented
from webapp.api.schemas import Count, Out
from webapp.api.triage import iso
from webapp.api.uploads import MULTIPART, Upload, upload
from webapp.api.v1 import idempotency_key
from webapp.extensions import db
from webapp.leads import answers, imports
from webapp.leads.imports.records import MAX_SOURCE
from webapp.leads.states import Door, ImportState, Scope
from webapp.models.inbound import Import
from webapp.security.keys import Principal

blueprint = Blueprint("v1_imports", __name__, url_prefix="/api/v1/imports")

CSV, NDJSON, JSON = "text/csv", "application/x-ndjson", "application/json"
_BY_ID = {"import_id": "The import's id."}


class ImportQuery(BaseModel):
    """How the file is to be read; what is not said is found out. Also as fields of a form."""

    model_config = ConfigDict(extra="ignore")

    filename: Annotated[str, Field(max_length=500, description="The file's name, as it is shown.")] = ""
    mapping: Annotated[
        Json[dict[str, str | None]] | None,
        Field(description='Column → field of a lead, as JSON: `{"E-Mail": "email"}`. Unset: by the columns\' names.'),
    ] = None
    source: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_SOURCE),
        Field(description="The source of rows that name none."),
    ] = "import"
    dry_run: Annotated[bool, Field(description="Look at every row and write no lead.")] = False
    format: Annotated[Literal["csv", "ndjson", "json"] | None, Field(description="Unset: by name and content.")] = None
    encoding: Annotated[str | None, Field(max_length=40, description="Such as `cp1252`.")] = None
    delimiter: Annotated[Literal[",", ";", "\t", "|"] | None, Field(description="What separates cells.")] = None
    header: Annotated[bool | None, Field(description="Does the first row name the columns?")] = None


class ImportOut(Out):
    """An import. Counts are rows; ``progress`` is 0..1 of the file, ``rate`` rows a second."""

    id: uuid.UUID
    filename: str
    size_bytes: Count
    format: Literal["csv", "ndjson", "json"]
    encoding: str | None
    delimiter: str | None
    columns: list[str]
    mapping: dict[str, str]
    source: str
    dry_run: bool
    state: ImportState
    progress: Annotated[float, Field(ge=0, le=1)]
    rate: float | None
    seconds_left: float | None
    rows_total: int | None
    rows_done: Count
    created: Count
    touched: Count
    failed: Count
    error: str | None
    errors_url: str
    created_by: str
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    undo_until: AwareDatetime | None
    undone_at: AwareDatetime | None
    undone_by: str | None
    undo_removed: Count
    undo_kept: Count


class ImportsOut(Out):
    imports: list[ImportOut]
    next_cursor: str | None


class ImportsQuery(BaseModel):
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(max_length=100)] = None


def import_view(found: Import) -> dict[str, Any]:
    """As :class:`ImportOut` says."""
    at = imports.progress(found)
    until = None
    if imports.undo_problem(found) is None and found.finished_at:
        until = iso(found.finished_at + timedelta(hours=imports.UNDO_HOURS))
    return {
        "id": str(found.id),
        "filename": found.filename,
        "size_bytes": found.size_bytes,
        "format": found.format,
        "encoding": found.encoding,
        "delimiter": found.delimiter,
        "columns": found.columns,
        "mapping": found.mapping,
        "source": found.source,
        "dry_run": found.dry_run,
        "state": found.state.value,
        "progress": round(at.share, 4),
        "rate": None if at.rate is None else round(at.rate, 1),
        "seconds_left": None if at.left is None else round(at.left, 1),
        "rows_total": found.rows_total,
        "rows_done": found.rows_done,
        "created": found.created_count,
        "touched": found.touched_count,
        "failed": found.failed_count,
        "error": found.error,
        "errors_url": url_for("v1_imports.errors", import_id=found.id),
        "created_by": found.created_by,
        "created_at": iso(found.created_at),
        "started_at": iso(found.started_at) if found.started_at else None,
        "finished_at": iso(found.finished_at) if found.finished_at else None,
        "undo_until": until,
        "undone_at": iso(found.undone_at) if found.undone_at else None,
        "undone_by": found.undone_by,
        "undo_removed": found.undo_removed,
        "undo_kept": found.undo_kept,
    }


def begin(principal: Principal, sent: Upload, layout: imports.Layout, asked: ImportQuery) -> Import:
    """Record the file and queue it. Flushes."""
    found = imports.create(
        db.session(),
        principal.workspace_id,
        sent.stored,
        layout,
        filename=asked.filename or sent.filename,
        created_by=f"{principal.name} (API)",
        source=asked.source,
    )
    imports.start(db.session(), found, by=f"{principal.name} (API)", mapping=asked.mapping, dry_run=asked.dry_run)
    db.session.refresh(found)
    return found


def accepted(body: str, import_id: str) -> Response:
    """202 with where to look."""
    response = Response(body, 202, mimetype=JSON)
    response.headers["Location"] = url_for("v1_imports.show", import_id=import_id)
    return response


@blueprint.post("")
@documented(
    "Upload a file of leads",
    tag="Imports",
    description=(
        "CSV, NDJSON or a JSON array of up to `MAX_IMPORT_BYTES`, as the raw body or in the field `file` of a form. "
        "The rows are taken in by a worker; look at `Location` for how far it is. Bad rows never stop the others."
    ),
    query=ImportQuery,
    bodies={CSV: str, NDJSON: str, JSON: list[Any], MULTIPART: Any, "application/octet-stream": str},
    headers=(IDEMPOTENCY_KEY,),
    answers={202: Answer(ImportOut, headers={"Location": "Where the import can be watched.", **REPLAYED})},
    errors=(409,),
)
@auth.needs(Scope.INGEST)
def create(principal: Principal) -> Response:
    if "Idempotency-Key" not in request.headers:  # an answer that was kept is given all the same
        imports.check_room(db.session(), principal.workspace_id)
    with upload() as sent:
        asked = problems.validated(ImportQuery, sent.fields | request.args.to_dict())
        said = asked.model_dump_json(exclude_none=True)
        key = idempotency_key(f"{sent.stored.digest} {said}")
        if key and (earlier := answers.claim(db.session(), principal.workspace, Door.IMPORT, key)):
            response = accepted(earlier, current_app.json.loads(earlier)["id"])
            response.headers["Idempotent-Replayed"] = "true"
            return response
        layout = imports.inspect(
            imports.path_of(auth.settings().imports_folder, sent.stored.name),
            filename=asked.filename or sent.filename,
            content_type=sent.content_type,
            format=asked.format,
            encoding=asked.encoding,
            delimiter=asked.delimiter,
            has_header=asked.header,
        )
        found = begin(principal, sent, layout, asked)
        body = current_app.json.dumps(import_view(found))
        if key:
            answers.keep(db.session(), principal.workspace, Door.IMPORT, key, body)
        sent.kept = True  # before the commit: a file without a record is swept, a record without a file is an error
        db.session.commit()
        queue.ring(queue.IMPORTS)
        return accepted(body, str(found.id))


@blueprint.get("")
@documented("Imports, newest first", tag="Imports", query=ImportsQuery, answers={200: ImportsOut})
@auth.needs(Scope.READ)
def listing(principal: Principal) -> Response:
    asked = problems.query(ImportsQuery)
    rows, cursor = imports.page(db.session(), principal.workspace_id, cursor=asked.cursor, limit=asked.limit)
    return jsonify(imports=[import_view(found) for found in rows], next_cursor=cursor)


@blueprint.get("/<uuid:import_id>")
@documented("How far an import is", tag="Imports", path=_BY_ID, answers={200: ImportOut}, errors=(404,))
@auth.needs(Scope.READ)
def show(principal: Principal, import_id: uuid.UUID) -> Response:
    return jsonify(import_view(imports.get(db.session(), principal.workspace_id, import_id)))


@blueprint.get("/<uuid:import_id>/errors")
@documented(
    "What is wrong with its rows",
    tag="Imports",
    description="CSV with row number, field and reason; safe to open in a spreadsheet.",
    path=_BY_ID,
    answers={200: Answer(str, media=CSV)},
    errors=(404,),
)
@auth.needs(Scope.READ)
def errors(principal: Principal, import_id: uuid.UUID) -> Response:
    found = imports.get(db.session(), principal.workspace_id, import_id)
    response = Response(stream_with_context(_errors(principal.workspace_id, found.id)), mimetype=CSV)
    response.headers["Content-Disposition"] = f'attachment; filename="import-errors-{found.id}.csv"'
    return response


def _errors(workspace_id: uuid.UUID, import_id: uuid.UUID) -> Iterator[str]:
    # With the session of the context that streams: the request's own is closed by then.
    yield from imports.problems_csv(db.session(), imports.get(db.session(), workspace_id, import_id))


@blueprint.post("/<uuid:import_id>/cancel")
@documented(
    "Stop an import",
    tag="Imports",
    description="What came in so far stays, and can be undone.",
    path=_BY_ID,
    answers={200: ImportOut},
    errors=(404, 409),
)
@auth.needs(Scope.INGEST)
def cancel(principal: Principal, import_id: uuid.UUID) -> Response:
    found = imports.get(db.session(), principal.workspace_id, import_id)
    needless = imports.cancel(db.session(), found, by=f"{principal.name} (API)")
    db.session.commit()
    imports.remove(auth.settings().imports_folder, needless)
    return jsonify(import_view(found))


@blueprint.post("/<uuid:import_id>/undo")
@documented(
    "Take an import back",
    tag="Imports",
    description=(
        "Removes the leads it brought in, within 24 hours of its end. Leads that somebody has decided, that were "
        "delivered or written again from elsewhere stay and are counted as kept."
    ),
    path=_BY_ID,
    answers={202: ImportOut},
    errors=(404, 409),
)
@auth.needs(Scope.ADMIN)
def undo(principal: Principal, import_id: uuid.UUID) -> Response:
    found = imports.get(db.session(), principal.workspace_id, import_id)
    imports.undo(db.session(), found, by=f"{principal.name} (API)")
    db.session.commit()
    queue.ring(queue.IMPORTS)
    return accepted(current_app.json.dumps(import_view(found)), str(found.id))

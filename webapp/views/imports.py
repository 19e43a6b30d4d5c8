"""Imports: upload a file of leads, say which column is what, watch it come in, take it back."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, current_app, request, stream_with_context
from flask_login import current_user
from werkzeug.exceptions import RequestEntityTooLarge

from jobs.queue import IMPORTS, ring
from webapp.extensions import csrf, db
from webapp.leads import imports, rulebook, suspicion
from webapp.leads.errors import Conflict, Invalid, LeadError, NotFound, Transient
from webapp.leads.imports import Preview, PreviewRow
from webapp.leads.states import ImportState, LeadStatus, Role
from webapp.leads.types import Verdict
from webapp.models.inbound import Import
from webapp.security.roles import requires
from webapp.views import helpers, words

bp = Blueprint("imports", __name__)

#: What a form's own fields may take beside the file.
_FORM_BYTES = 64 << 10
#: Problems shown on the page; the file to download has all of them.
SHOWN_PROBLEMS = 20
_UNDER_WAY = frozenset({ImportState.QUEUED, ImportState.RUNNING, ImportState.UNDO_QUEUED, ImportState.UNDOING})
_OVER = frozenset({ImportState.DONE, ImportState.FAILED, ImportState.CANCELLED, ImportState.UNDONE})
#: Encodings offered when the one that was found is wrong; any other that is found is offered as well.
ENCODINGS = {
    "utf-8": "Unicode (UTF-8)",
    "utf-16-le": "Unicode (UTF-16)",
    "cp1252": "Western European (Windows-1252)",
    "cp1250": "Central European (Windows-1250)",
    "cp1251": "Cyrillic (Windows-1251)",
    "cp1253": "Greek (Windows-1253)",
    "cp1254": "Turkish (Windows-1254)",
    "cp1258": "Vietnamese (Windows-1258)",
    "mac_roman": "Western European (Mac)",
    "gb18030": "Chinese, simplified (GB18030)",
    "big5": "Chinese, traditional (Big5)",
    "cp932": "Japanese (Shift JIS)",
    "cp949": "Korean (Windows-949)",
}
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar |"}
FORMATS = {"csv": "CSV", "ndjson": "NDJSON", "json": "JSON"}
GROUPS = {"lead": "The request", "person": "The person", "attribution": "Where they came from", "consent": "Consent"}


@bp.get("/imports")
@requires(Role.VIEWER)
def index() -> Any:
    found, following = imports.page(db.session(), helpers.here(), cursor=request.args.get("cursor"))
    return helpers.show(
        "pages/imports.html",
        "results",
        found=found,
        next_cursor=following,
        cursor=request.args.get("cursor"),
        progress=imports.progress,
        states=ImportState,
        under_way=any(one.state in _UNDER_WAY for one in found),
        formats=FORMATS,
    )


# Step 1: the file


@bp.get("/imports/new")
@requires(Role.MANAGER)
def new() -> Any:
    return _upload_page()


def _upload_page(problem: str = "", *, source: str = "", status: int = 200, retry_after: float | None = None) -> Any:
    limit = helpers.settings().max_import_bytes
    page = current_app.make_response(
        helpers.show(
            "pages/import_new.html", problem=problem, source=source, limit=limit, too_large=_too_large(), status=status
        )
    )
    if retry_after is not None:
        page.headers["Retry-After"] = str(round(retry_after))
    return page


@bp.post("/imports")
@csrf.exempt  # checked below: the token is in the body, which is read only once it is known who sends it
@requires(Role.MANAGER)
def upload() -> Any:
    """Take the file in. Werkzeug writes it to disk while it comes; it never is in memory as a whole."""
    try:
        imports.check_room(db.session(), helpers.here())
    except Transient as error:
        return _upload_page(error.message, status=429, retry_after=error.retry_after)
    request.max_content_length = helpers.settings().max_import_bytes + _FORM_BYTES
    try:
        with imports.disk_has_room():
            source = request.form.get("source", "").strip()
            file = request.files.get("file")
    except RequestEntityTooLarge:
        return _upload_page(_too_large(), status=413)
    except Transient as error:
        return _upload_page(_no_room(error), status=503, retry_after=error.retry_after)
    if current_app.config["WTF_CSRF_ENABLED"]:
        csrf.protect()
    if file is None or not file.filename:
        return _upload_page("Choose a file first.", source=source, status=422)
    folder, session = helpers.settings().imports_folder, db.session()
    stored = None
    try:
        with file.stream as parts:
            stored = imports.receive(imports.blocks(parts), folder, limit=helpers.settings().max_import_bytes)
        path = imports.path_of(folder, stored.name)
        layout = imports.inspect(path, filename=file.filename)  # what browsers say of its type is no help
        found = imports.create(
            session,
            helpers.here(),
            stored,
            layout,
            filename=file.filename,
            created_by=current_user.user.name,
            source=source or "import",
        )
        session.commit()
    except Invalid as error:
        session.rollback()
        imports.remove(folder, stored.name if stored else None)
        if error.code == "payload_too_large":
            return _upload_page(_too_large(), source=source, status=413)
        return _upload_page(_said(error), source=source, status=422)
    except Transient as error:
        session.rollback()
        imports.remove(folder, stored.name if stored else None)
        status = 429 if error.code == "rate_limited" else 503
        said = error.message if status == 429 else _no_room(error)
        return _upload_page(said, source=source, status=status, retry_after=error.retry_after)
    except BaseException:
        imports.remove(folder, stored.name if stored else None)
        raise
    return helpers.see("imports.columns", import_id=found.id)


def _no_room(error: Transient) -> str:
    return f"{error.message} Try again later, or ask the operator to make room."


def _too_large() -> str:
    limit = helpers.settings().max_import_bytes
    return f"The file is larger than {words.size(limit)}. Split it, or ask the operator to allow more."


def _said(error: LeadError) -> str:
    """The error with what it is about, where its message alone would leave one guessing."""
    about = [f"{problem.field} {problem.reason}" for problem in error.details if problem.field not in ("file", "row")]
    return words.full_stop(error.message) + (f" ({'; '.join(about)})" if about else "")


# Step 2: the columns


@dataclass(frozen=True, slots=True)
class Judged:
    """A row of the preview with the verdict it would get; both None when it would be no lead."""

    row: PreviewRow
    said: Verdict | None
    status: LeadStatus | None


@bp.get("/imports/<uuid:import_id>/columns")
@requires(Role.MANAGER)
def columns(import_id: uuid.UUID) -> Any:
    found = imports.get(db.session(), helpers.here(), import_id)
    return _columns_page(found, dict(found.mapping)) if _can_start(found) else _elsewhere(found)


@bp.post("/imports/<uuid:import_id>/columns")
@requires(Role.MANAGER)
def look(import_id: uuid.UUID) -> Any:
    """The preview under other choices; keeps nothing."""
    found = imports.get(db.session(), helpers.here(), import_id)
    if not _can_start(found):
        return _elsewhere(found)
    return _columns_page(found, _mapping_of(found, request.form), source=request.form.get("source"))


def _elsewhere(found: Import) -> Any:
    helpers.toast("Started already", found.filename)
    return helpers.see("imports.show", import_id=found.id)


def _can_start(found: Import) -> bool:
    return found.state is ImportState.UPLOADED or (found.state is ImportState.DONE and found.dry_run)


def _mapping_of(found: Import, given: Any) -> dict[str, str]:
    """Column → field, as the selects ``c0``, ``c1`` … say."""
    return {column: given.get(f"c{number}", "") for number, column in enumerate(found.columns)}


def _columns_page(
    found: Import,
    mapping: dict[str, str],
    *,
    source: str | None = None,
    problems: dict[str, str] | None = None,
    status: int = 200,
) -> Any:
    folder, shown, seen, problems = helpers.settings().imports_folder, None, None, dict(problems or {})
    try:
        # What stands in the columns is shown whatever they are chosen to be; any choice that makes sense will do.
        seen = imports.preview(folder, found, mapping={found.columns[0]: "message"}) if found.columns else None
        shown = imports.preview(folder, found, mapping=mapping)
    except NotFound as error:
        problems = {"": f"{error.message} Upload it again."}
    except Invalid as error:
        problems = {problem.field: problem.reason for problem in error.details} | problems
        problems = problems or {"": error.message}
    rows = [_judged(row) for row in shown.rows] if shown else []
    return helpers.show(
        "pages/import_columns.html",
        "preview",
        found=found,
        mapping=mapping,
        source=found.source if source is None else source,
        groups=[(label, [f for f in imports.FIELDS if f.group == group]) for group, label in GROUPS.items()],
        shown=shown,
        rows=rows,
        samples=_samples(found, seen),
        problems=problems,
        field=imports.FIELD,
        encodings=ENCODINGS if found.encoding in ENCODINGS else ENCODINGS | {found.encoding: found.encoding},
        delimiters=DELIMITERS,
        formats=FORMATS,
        status=status,
    )


def _judged(row: PreviewRow) -> Judged:
    if row.problems:
        return Judged(row, None, None)
    workspace, message = current_user.workspace, row.fields.get("message", "")
    said = suspicion.checked(rulebook.judge_of(db.session(), workspace.ruleset_id)(message), message)
    return Judged(row, said, suspicion.status_of(said, auto_from=workspace.auto_from, draft_from=workspace.draft_from))


def _samples(found: Import, seen: Preview | None) -> list[str]:
    """For each column the first values that stand in it."""
    if seen is None:
        return [""] * len(found.columns)
    return [
        " · ".join(list(dict.fromkeys(row.cells[at][:60] for row in seen.rows if row.cells[at]))[:3])
        for at in range(len(found.columns))
    ]


@bp.post("/imports/<uuid:import_id>/layout")
@requires(Role.MANAGER)
def layout(import_id: uuid.UUID) -> Any:
    """Read the file another way: encoding, separator, header."""
    session = db.session()
    found = imports.get(session, helpers.here(), import_id)
    form = request.form
    try:
        read = imports.inspect(
            imports.path_of(helpers.settings().imports_folder, found.stored_as),
            filename=found.filename,
            format=found.format,
            encoding=form.get("encoding") or None,
            delimiter=form.get("delimiter") or None if found.format == "csv" else None,
            has_header="has_header" in form if found.format == "csv" else None,
        )
        imports.relayout(session, found, read)
    except Invalid as error:
        session.rollback()
        return _columns_page(found, dict(found.mapping), problems={"": _said(error)}, status=422)
    session.commit()
    return helpers.see("imports.columns", import_id=import_id)


@bp.post("/imports/<uuid:import_id>/start")
@requires(Role.MANAGER)
def start(import_id: uuid.UUID) -> Any:
    session = db.session()
    found = imports.get(session, helpers.here(), import_id)
    form = request.form
    mapping = _mapping_of(found, form) if "c0" in form else dict(found.mapping)
    dry_run = "dry_run" in form
    try:
        imports.start(
            session,
            found,
            by=current_user.user.name,
            mapping=mapping,
            dry_run=dry_run,
            source=form.get("source", "").strip() or None,
        )
    except Conflict as error:
        session.rollback()
        helpers.toast("Not started", error.message)
        return helpers.see("imports.show", import_id=import_id)
    except Invalid as error:
        session.rollback()
        return _columns_page(
            found, mapping, source=form.get("source", ""), problems=helpers.problems_of(error), status=422
        )
    session.commit()
    ring(IMPORTS)
    helpers.toast("Trying it" if dry_run else "Importing", found.filename)
    return helpers.see("imports.show", import_id=import_id)


# One import


@bp.get("/imports/<uuid:import_id>")
@requires(Role.VIEWER)
def show(import_id: uuid.UUID) -> Any:
    session = db.session()
    found = imports.get(session, helpers.here(), import_id)
    return helpers.show(
        "pages/import.html",
        "state",
        found=found,
        progress=imports.progress(found),
        problems=list(imports.problems(session, found, limit=SHOWN_PROBLEMS)) if found.failed_count else [],
        cannot_undo=imports.undo_problem(found),
        undo_hours=imports.UNDO_HOURS,
        under_way=found.state in _UNDER_WAY,
        over=found.state in _OVER,
        can_start=_can_start(found),
        states=ImportState,
        field=imports.FIELD,
        formats=FORMATS,
    )


@bp.post("/imports/<uuid:import_id>/cancel")
@requires(Role.MANAGER)
def cancel(import_id: uuid.UUID) -> Any:
    session = db.session()
    found = imports.get(session, helpers.here(), import_id)
    try:
        needless = imports.cancel(session, found, by=current_user.user.name)
    except Conflict as error:
        session.rollback()
        helpers.toast("Not stopped", error.message)
    else:
        session.commit()
        imports.remove(helpers.settings().imports_folder, needless)
        helpers.toast("Stopped", "what came in before stays" if found.rows_done else found.filename)
    return helpers.see("imports.show", import_id=import_id)


@bp.get("/imports/<uuid:import_id>/errors.csv")
@requires(Role.VIEWER)
def errors(import_id: uuid.UUID) -> Response:
    found = imports.get(db.session(), helpers.here(), import_id)
    response = Response(stream_with_context(_problem_lines(found.workspace_id, import_id)), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="errors-{found.created_at:%Y%m%d-%H%M%S}.csv"'
    return response


def _problem_lines(workspace_id: uuid.UUID, import_id: uuid.UUID) -> Iterator[str]:
    # A session of its own: that of the view is closed when the view has returned, before the first line is asked for.
    session = db.session()
    yield from imports.problems_csv(session, imports.get(session, workspace_id, import_id))


@bp.get("/imports/<uuid:import_id>/undo")
@requires(Role.MANAGER)
def confirm_undo(import_id: uuid.UUID) -> Any:
    session = db.session()
    found = imports.get(session, helpers.here(), import_id)
    if problem := imports.undo_problem(found):
        helpers.toast("Not undone", problem)
        return helpers.see("imports.show", import_id=import_id)
    return helpers.show("pages/import_undo.html", found=found, outlook=imports.outlook(session, found))


@bp.post("/imports/<uuid:import_id>/undo")
@requires(Role.MANAGER)
def undo(import_id: uuid.UUID) -> Any:
    session = db.session()
    found = imports.get(session, helpers.here(), import_id)
    try:
        imports.undo(session, found, by=current_user.user.name)
    except Conflict as error:
        session.rollback()
        helpers.toast("Not undone", error.message)
    else:
        session.commit()
        ring(IMPORTS)
        helpers.toast("Undoing", found.filename)
    return helpers.see("imports.show", import_id=import_id)

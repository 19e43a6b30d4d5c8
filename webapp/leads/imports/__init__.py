"""Files of leads: taken in, looked at, mapped, worked by the queue ``imports``, undone.

    came in    files     receive(parts, folder, limit=) → Stored: streamed to disk, durable
               layout    inspect(path, filename=…) → Layout: format, encoding, separator, header, columns
    mapped     columns   FIELDS; guess(columns), check_mapping(columns, mapping); Mapper: a row → LeadIn | problems
               preview   preview(folder, import, mapping=) → the first 20 rows as they would come in
    steered    records   create → start → (cancel) → undo; get, page, progress, problems, problems_csv
    worked     process   process(…), process_undos(…): chunk by chunk, resumable, called by the queue's workers
               ├ beside  chunks prepared by processes of their own, in order
               ├ chunks  rows → chunks of prepared leads and problems
               ├ reading rows of a file from any row on, in constant memory (lines: bytes → text)
               ├ (webapp.leads.intake_bulk: a chunk of leads in one transaction)
               └ undoing what an import brought in, taken back batch by batch
               keeping   old records and files deleted by the clock

A page or a door does::

    stored = imports.receive(imports.blocks(upload.stream), settings.imports_folder, limit=settings.max_import_bytes)
    layout = imports.inspect(imports.path_of(folder, stored.name), filename=upload.filename)
    found = imports.create(session, workspace_id, stored, layout, filename=upload.filename, created_by=name)
    …                                                  # found.columns, found.mapping (guessed), imports.preview(…)
    imports.start(session, found, mapping={column: field}, dry_run=False, by=name)
    session.commit(); queue.ring("imports")

``found.state`` (ImportState), ``found.position / size_bytes``, counts (``rows_done``, ``created_count``,
``touched_count``, ``failed_count``) move on with each chunk; ``imports.progress(found)`` says share, rate and time left.
Errors are the domain's: Invalid (with details), Conflict, NotFound; their messages may be shown.
"""

from webapp.leads.imports.columns import FIELD, FIELDS, Field, Mapper, check_mapping, guess, guess_field
from webapp.leads.imports.files import Receiver, Stored, blocks, disk_has_room, path_of, receive, remove
from webapp.leads.imports.keeping import forget_old
from webapp.leads.imports.layout import DELIMITERS, FORMATS, Layout, inspect
from webapp.leads.imports.preview import Preview, PreviewRow, layout_of, preview
from webapp.leads.imports.process import process
from webapp.leads.imports.records import (
    UNDO_HOURS,
    Progress,
    cancel,
    check_room,
    create,
    get,
    page,
    problems,
    problems_csv,
    progress,
    relayout,
    start,
    undo,
    undo_problem,
)
from webapp.leads.imports.undoing import Outlook, outlook, process_undos

__all__ = [
    "DELIMITERS",
    "FIELD",
    "FIELDS",
    "FORMATS",
    "UNDO_HOURS",
    "Field",
    "Layout",
    "Mapper",
    "Outlook",
    "Preview",
    "PreviewRow",
    "Progress",
    "Receiver",
    "Stored",
    "blocks",
    "cancel",
    "check_mapping",
    "check_room",
    "create",
    "disk_has_room",
    "forget_old",
    "get",
    "guess",
    "guess_field",
    "inspect",
    "layout_of",
    "outlook",
    "page",
    "path_of",
    "preview",
    "problems",
    "problems_csv",
    "process",
    "process_undos",
    "progress",
    "receive",
    "relayout",
    "remove",
    "start",
    "undo",
    "undo_problem",
]

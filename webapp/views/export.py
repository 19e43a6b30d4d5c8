"""The current list as CSV, streamed, safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, stream_with_context

from webapp.extensions import db
from webapp.leads import queries
from webapp.leads.queries import LeadFilter
from webapp.leads.states import Role
from webapp.security.roles import requires
from webapp.views import helpers, words

bp = Blueprint("export", __name__)

COLUMNS = (
    "received", "name", "email", "phone", "company", "source", "language", "status", "intent", "priority",
    "next action", "confidence", "score", "qualified", "assignee", "decided by", "decided", "times asked", "message",
    "id",
)  # fmt: skip
#: A cell that starts so is run as a formula by spreadsheets; TAB and CR let the next character lead.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_BYTE_ORDER_MARK = "\ufeff"  # tells Excel that it is UTF-8


@bp.get("/queue/export.csv")
@requires(Role.VIEWER)
def leads() -> Response:
    wanted = helpers.parse_filter(helpers.filter_args())
    response = Response(stream_with_context(_lines(wanted)), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="leads-{datetime.now(UTC):%Y%m%d-%H%M%S}.csv"'
    return response


def _lines(wanted: LeadFilter) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    buffer.write(_BYTE_ORDER_MARK)
    writer.writerow(COLUMNS)
    for number, row in enumerate(queries.export(db.session(), helpers.here(), wanted)):
        writer.writerow([cell(value) for value in _values(row)])
        if number % 200 == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _values(row: Any) -> list[Any]:
    return [
        row.created_at, row.name or row.author_name, row.email, row.phone, row.company, row.source,
        words.LANGUAGE.get(row.lang, row.lang), words.word(row.status), words.word(row.intent), row.priority.value,
        words.word(row.next_action), f"{row.confidence:.2f}", row.score, {True: "yes", False: "no"}.get(row.qualified),
        row.assignee, row.decided_by, row.decided_at, row.touches, row.message, row.id,
    ]  # fmt: skip


def cell(value: Any) -> str:
    """A value as text that no spreadsheet runs: what begins like a formula gets an apostrophe in front."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds")
    text = str(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text

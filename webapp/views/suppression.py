"""Settings: the suppression list. Everyone sees it; managers change it."""

import csv
import io
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, request
from flask_login import current_user

from jobs.queue import ring
from webapp.extensions import db
from webapp.leads import suppression
from webapp.leads.errors import Invalid, Problem
from webapp.leads.states import Role, SuppressionKind, SuppressionMatch
from webapp.leads.suppression import Added, Line
from webapp.security.roles import requires
from webapp.views import helpers
from webapp.views.export import cell

bp = Blueprint("suppression", __name__)

PAGE = 100
MAX_FILE = 2_000_000
COLUMNS = ("value", "kind", "match", "reason", "expires_at", "added_by", "added_at", "hits")
FIELDS = ("lines", "kind", "match", "reason", "expires")


@bp.get("/settings/suppression")
@requires(Role.VIEWER)
def index() -> Any:
    return _page()


def _page(status: int = 200, **extra: Any) -> Any:
    session, here = db.session(), helpers.here()
    text = " ".join(request.args.get("q", "").split())[:200]
    kind = _kind(request.args.get("kind", ""))
    rows = suppression.listing(session, here, text=text, kind=kind, before=_place(), limit=PAGE + 1)
    more = rows[PAGE - 1].entry if len(rows) > PAGE else None
    shown: dict[str, Any] = {"given": {}, "problems": {}, "added": None}
    return helpers.show(
        "pages/suppression.html",
        rows=rows[:PAGE],
        total=suppression.count(session, here, text=text, kind=kind),
        q=text,
        kind=kind,
        next_place=f"{more.created_at.isoformat()}_{more.id}" if more else None,
        kinds=list(SuppressionKind),
        matches=list(SuppressionMatch),
        status=status,
        **(shown | extra),
    )


def _kind(value: str) -> SuppressionKind | None:
    return SuppressionKind(value) if value in set(SuppressionKind) else None


def _place() -> tuple[datetime, uuid.UUID] | None:
    moment, _, entry_id = request.args.get("after", "").replace(" ", "+").partition("_")
    try:
        found = datetime.fromisoformat(moment), uuid.UUID(entry_id)
    except ValueError:
        return None
    return found if found[0].tzinfo else None


@bp.post("/settings/suppression")
@requires(Role.MANAGER)
def add() -> Any:
    given = {name: request.form.get(name, "").strip() for name in FIELDS}
    try:
        expires_at = _day(given["expires"])
        match = SuppressionMatch(given["match"]) if given["match"] in set(SuppressionMatch) else None
        kind = _kind(given["kind"])
        values = [line for line in given["lines"].splitlines() if line.strip()]
        problems = [] if values else [Problem("lines", "must have an entry a line")]
        problems += [] if kind else [Problem("kind", "must be chosen")]
        if kind is None or problems:
            raise Invalid("Nothing was added.", details=tuple(problems))
        lines = [Line(value, kind, given["reason"] or None, expires_at, match) for value in values]
        added = _add(lines)
    except Invalid as error:
        db.session.rollback()
        return _page(422, given=given, problems=helpers.problems_of(error))
    return _told(added, given)


@bp.post("/settings/suppression/import")
@requires(Role.MANAGER)
def load() -> Any:
    """A CSV with the columns of the export."""
    try:
        file = request.files.get("file")
        raw = file.read(MAX_FILE + 1) if file else b""
        if not raw or len(raw) > MAX_FILE:
            raise Invalid("", details=(Problem("file", "must be chosen, and have at most 2 MB"),))
        added = _add(suppression.lines_of(_table(raw)))
    except Invalid as error:
        db.session.rollback()
        return _page(422, problems=helpers.problems_of(error))
    return _told(added, {})


def _table(raw: bytes) -> list[dict[str, str | None]]:
    try:
        reader = csv.DictReader(io.StringIO(raw.decode("utf-8-sig")), restval="")
        names = [str(name or "").strip().lower() for name in reader.fieldnames or ()]
        if "value" not in names:
            raise Invalid("", details=(Problem("file", "must have a first line of names with “value” among them"),))
        reader.fieldnames = names
        return [{name: _plain(text) for name, text in row.items() if name} for row in reader]
    except (UnicodeDecodeError, csv.Error):
        raise Invalid("", details=(Problem("file", "must be a CSV in UTF-8"),)) from None


def _plain(text: Any) -> str:
    """Without the apostrophe that the export puts before what looks like a formula, such as a phone number."""
    return str(text or "").strip().removeprefix("'")


def _add(lines: list[Line]) -> Added:
    region = str(current_user.workspace.settings.get("region") or helpers.settings().default_region)
    added = suppression.add(db.session(), helpers.here(), lines, region=region, actor=current_user.user.name)
    db.session.commit()
    if added.added:
        ring("imports")
    return added


def _told(added: Added, given: dict[str, str]) -> Any:
    """Lines that made no sense are shown to be mended, the others are on the list."""
    if added.problems:
        left = {"lines": "\n".join(text for _, text, _ in added.problems)} if given else {}
        return _page(422, given=given | left, added=added)
    known = f"; {added.known} were there already" if added.known else ""
    helpers.toast(f"{added.added} added", f"leads that are here are being compared{known}")
    return helpers.see("suppression.index")


def _day(text: str) -> datetime | None:
    """The end of a day, in UTC."""
    if not text:
        return None
    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid("", details=(Problem("expires", "must be a day such as 2026-12-31"),)) from None
    return day.replace(hour=23, minute=59, second=59, tzinfo=UTC)


@bp.post("/settings/suppression/<uuid:entry_id>/remove")
@requires(Role.MANAGER)
def remove(entry_id: uuid.UUID) -> Any:
    entry = suppression.remove(db.session(), helpers.here(), entry_id, actor=current_user.user.name)
    value = entry.value
    db.session.commit()
    ring("imports")
    helpers.toast("Taken off the list", f"{value}; the leads it held back are being let go")
    return helpers.see("suppression.index")


@bp.get("/settings/suppression/export.csv")
@requires(Role.VIEWER)
def export() -> Response:
    """All entries that hold, in a form that can be brought in again."""
    rows = suppression.listing(db.session(), helpers.here(), limit=suppression.MAX_ENTRIES)

    def lines() -> Iterator[str]:
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        for row in rows:
            one = row.entry
            ends = one.expires_at.isoformat() if one.expires_at else ""
            texts = [one.value, one.kind.value, one.match.value, one.reason or "", ends, one.added_by]
            writer.writerow([*map(cell, texts), one.created_at.isoformat(), row.hits])
            yield out.getvalue()
            out.seek(0)
            out.truncate()

    return Response(
        lines(),
        mimetype="text/csv",
        headers={"Content-Disposition": "attachment; filename=suppression.csv", "Cache-Control": "no-store"},
    )

"""The suppression list: own staff, competitors, tests and whoever else must not be treated as a lead.

A lead that an entry is about is kept, but is never new_auto, is asked of nobody and never delivered; it has a view of its
own. The list is applied at intake and in imports (from a copy that each process keeps for a few seconds), in every run
(from one that is current), and once more by a query right before a delivery. What changes later is compared with the leads
that are here by ``suppression_walk``.

Nothing here commits. Who changes the list rings for ``imports`` after the commit.
"""

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads import audit, intake_sql
from webapp.leads.errors import Conflict, Invalid, NotFound, Problem
from webapp.leads.intake_sql import Database
from webapp.leads.states import LeadStatus, SuppressionKind, SuppressionMatch
from webapp.leads.suppression_match import Contact, Entry, Matcher, keys_of, lowered, parsed
from webapp.models.base import new_id, scoped
from webapp.models.lead import Lead
from webapp.models.suppression import Suppression, SuppressionList

#: How old a process's copy of a list may be at intake, in seconds.
CACHE_SECONDS = 2.0
#: Entries of one workspace. Patterns are compared one by one, so there are few of them.
MAX_ENTRIES, MAX_PATTERNS = 50_000, 200
MAX_REASON = 500
#: Lines of one paste or file.
MAX_LINES = 10_000
#: Who asks for the run of a lead that has come off the list.
RELEASES = "the suppression list"

_NOBODY = Matcher()
_VERSION = "SELECT version FROM suppression_lists WHERE workspace_id = %(workspace_id)s"
_ENTRIES = """
SELECT id, kind, match, key, value, expires_at FROM suppressions
WHERE workspace_id = %(workspace_id)s AND removed_at IS NULL
"""


class Lists:
    """This process's copies of the lists. Not to be asked within a transaction that has changed one: what that takes
    back would be believed."""

    def __init__(self) -> None:
        self._known: dict[uuid.UUID, tuple[float, int, Matcher]] = {}

    def of(self, database: Database, workspace_id: uuid.UUID, *, max_age: float = CACHE_SECONDS) -> Matcher:
        """The workspace's list, no older than ``max_age`` seconds: then its version is asked for, and all of it only when
        that has changed."""
        checked, version, matcher = self._known.get(workspace_id, (-1e9, 0, _NOBODY))
        now = time.monotonic()
        if now - checked <= max_age:
            return matcher
        named = {"workspace_id": workspace_id}
        rows = intake_sql.run(database, _VERSION, named)
        current = rows[0][0] if rows else 0
        if current != version:
            matcher = Matcher.of(_entry(row) for row in intake_sql.run(database, _ENTRIES, named))
        self._known[workspace_id] = (now, current, matcher)
        return matcher

    def known(self, workspace_id: uuid.UUID) -> Matcher:
        """As last asked for."""
        return self._known.get(workspace_id, (0.0, 0, _NOBODY))[2]

    def clear(self) -> None:
        self._known.clear()


def _entry(row: Sequence[Any]) -> Entry:
    return Entry(row[0], SuppressionKind(row[1]), SuppressionMatch(row[2]), row[3], row[4], row[5])


LISTS = Lists()


def has_list(database: Database, workspace_id: uuid.UUID) -> bool:
    return bool(LISTS.of(database, workspace_id))


def hold_back(database: Database, workspace_id: uuid.UUID, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mark the rows of intake that the list is about; returns those."""
    matcher = LISTS.of(database, workspace_id)
    held = []
    for row in rows if matcher else ():
        email, name = row["email_normalized"] or row["email"], row["name"] or row["author_name"]
        entry = matcher.find(Contact(email, row["phone_e164"], name, row["company"], row["message"]))
        if entry is None:
            continue
        status = lowered(LeadStatus(row["status"]))
        event = json.loads(row["event"]) | {"status": status.value, "suppressed": entry.kind.value}
        row |= {"suppression_id": entry.id, "status": status.value, "event": json.dumps(event)}
        held.append(row)
    return held


def contact_of(lead: Lead) -> Contact:
    return Contact(
        lead.email_normalized or lead.email, lead.phone_e164, lead.name or lead.author_name, lead.company, lead.message
    )


#: What may be about some contacts. Arrays, so that it is one prepared statement for any number of them.
_ABOUT = sa.text(
    """
    WITH about AS (
        SELECT * FROM suppressions WHERE workspace_id = ANY(:workspaces) AND match = 'pattern' AND removed_at IS NULL
        UNION ALL
        SELECT s.* FROM suppressions AS s
        JOIN unnest(CAST(:matches AS text[]), CAST(:keys AS text[])) AS k (match, key)
        ON s.match = k.match AND s.key = k.key
        WHERE s.workspace_id = ANY(:workspaces) AND s.removed_at IS NULL
    )
    SELECT workspace_id, id, kind, match, key, value, expires_at FROM about
    """
)


def held_now(session: Session, leads: Iterable[Lead]) -> dict[uuid.UUID, Entry]:
    """By lead, the entry that is about it at this moment, asked of the database and no copy."""
    contacts = {lead.id: (lead.workspace_id, contact_of(lead)) for lead in leads}
    if not contacts:
        return {}
    keys = sorted({key for _, contact in contacts.values() for key in keys_of(contact)})
    given = {
        "workspaces": list({workspace_id for workspace_id, _ in contacts.values()}),
        "matches": [key.match.value for key in keys],
        "keys": [key.key for key in keys],
    }
    rows = session.execute(_ABOUT, given).all()
    matchers = {
        workspace_id: Matcher.of(_entry(row[1:]) for row in rows if row[0] == workspace_id)
        for workspace_id in {row[0] for row in rows}
    }
    found = {
        lead_id: matchers[workspace_id].find(contact)
        for lead_id, (workspace_id, contact) in contacts.items()
        if workspace_id in matchers
    }
    return {lead_id: entry for lead_id, entry in found.items() if entry is not None}


def entry_of(session: Session, lead: Lead) -> Suppression | None:
    """The entry that holds the lead back, for people."""
    if lead.suppression_id is None:
        return None
    query = scoped(Suppression, lead.workspace_id).where(Suppression.id == lead.suppression_id)
    found: Suppression | None = session.scalar(query)
    return found


# The list as managers see it


@dataclass(frozen=True, slots=True)
class Line:
    """One entry to be added. ``match`` None: told by its looks."""

    value: str
    kind: SuppressionKind
    reason: str | None = None
    expires_at: datetime | None = None
    match: SuppressionMatch | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """What came of adding. ``problems``: (number of the line from 1, its text, what is wrong)."""

    added: int
    known: int
    problems: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """An entry in the list. ``hits``: leads that it holds back now."""

    entry: Suppression
    hits: int


def add(session: Session, workspace_id: uuid.UUID, lines: Sequence[Line], *, region: str, actor: str) -> Added:
    """Put entries on the list; what is there already stays as it is, what makes no sense is told of and left out.
    Invalid when they are too many."""
    if len(lines) > MAX_LINES:
        raise Invalid("That is too much at once.", details=(Problem("lines", f"must be at most {MAX_LINES:,} lines"),))
    problems: list[tuple[int, str, str]] = []
    rows: dict[tuple[SuppressionMatch, str], dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        try:
            match, value, key = parsed(line.value, region=region, match=line.match)
            _check(line)
        except Invalid as error:
            problems.append((number, line.value[:80], error.details[0].reason))
            continue
        rows.setdefault(
            (match, key),
            {
                "id": new_id(), "workspace_id": workspace_id, "kind": line.kind, "match": match, "value": value,
                "key": key, "reason": (line.reason or "").strip() or None, "expires_at": line.expires_at,
                "added_by": actor,
            },
        )  # fmt: skip
    if not rows:
        return Added(0, 0, tuple(problems))
    _changing(session, workspace_id)
    new = insert(Suppression).on_conflict_do_nothing(
        index_elements=["workspace_id", "match", "key"], index_where=sa.text("removed_at IS NULL")
    )
    made = session.scalars(new.returning(Suppression.id), list(rows.values())).all()
    _check_size(session, workspace_id)
    if made:
        audit.record(
            session, workspace_id, "SUPPRESSION_ADDED", actor=actor, entries=len(made), **_example(session, made)
        )
    session.flush()
    return Added(len(made), len(rows) - len(made), tuple(problems))


def _example(session: Session, ids: Sequence[uuid.UUID]) -> dict[str, Any]:
    first = session.get_one(Suppression, ids[0])
    return {"value": first.value, "kind": first.kind.value, "reason": first.reason}


def _check(line: Line) -> None:
    if line.reason and (len(line.reason) > MAX_REASON or "\x00" in line.reason):
        raise Invalid("", details=(Problem("reason", f"has a reason of more than {MAX_REASON} characters"),))
    if line.expires_at is not None and line.expires_at <= datetime.now(UTC):
        raise Invalid("", details=(Problem("expires_at", "would have run out already"),))


def _check_size(session: Session, workspace_id: uuid.UUID) -> None:
    here = (Suppression.workspace_id == workspace_id, Suppression.removed_at.is_(None))
    patterns = sa.func.count().filter(Suppression.match == SuppressionMatch.PATTERN)
    total, of_words = session.execute(sa.select(sa.func.count(), patterns).where(*here)).one()
    if total > MAX_ENTRIES or of_words > MAX_PATTERNS:
        raise Invalid(
            f"A list holds at most {MAX_ENTRIES:,} entries, {MAX_PATTERNS} of them patterns. Nothing was added.",
            details=(Problem("lines", f"would make {total:,} entries, {of_words:,} of them patterns"),),
        )


def remove(session: Session, workspace_id: uuid.UUID, entry_id: uuid.UUID, *, actor: str) -> Suppression:
    """Take an entry off; what it holds back is let go in the background. NotFound; Conflict when somebody was quicker."""
    _changing(session, workspace_id)
    entry: Suppression | None = session.scalar(
        scoped(Suppression, workspace_id).where(Suppression.id == entry_id).with_for_update()
    )
    if entry is None:
        raise NotFound("There is no such entry on the list.")
    if entry.removed_at is not None:
        raise Conflict(f"{entry.removed_by or 'Its time'} has taken this entry off the list already.")
    entry.removed_at, entry.removed_by = datetime.now(UTC), actor
    audit.record(
        session, workspace_id, "SUPPRESSION_REMOVED", actor=actor, entries=1, value=entry.value, kind=entry.kind.value
    )
    session.flush()
    return entry


def run_out(session: Session) -> int:
    """Take off what has expired, in every workspace. Returns how many. The caller commits."""
    due = (Suppression.removed_at.is_(None), Suppression.expires_at <= sa.func.now())
    workspaces = session.scalars(sa.select(Suppression.workspace_id).where(*due).distinct()).all()
    gone = 0
    for workspace_id in sorted(workspaces):
        _changing(session, workspace_id)
        rows = session.scalars(
            sa.update(Suppression)
            .where(Suppression.workspace_id == workspace_id, *due)
            .values(removed_at=sa.func.now())
            .returning(Suppression.value)
            .execution_options(synchronize_session=False)
        ).all()
        gone += len(rows)
        if rows:
            audit.record(session, workspace_id, "SUPPRESSION_EXPIRED", entries=len(rows), value=rows[0])
    session.flush()
    return gone


def _changing(session: Session, workspace_id: uuid.UUID) -> None:
    """One change of a list at a time, and a new version of it."""
    new = insert(SuppressionList).values(workspace_id=workspace_id, version=1)
    session.execute(
        new.on_conflict_do_update(
            index_elements=["workspace_id"], set_={"version": SuppressionList.version + 1, "walk": None}
        )
    )


def listing(
    session: Session,
    workspace_id: uuid.UUID,
    *,
    text: str = "",
    kind: SuppressionKind | None = None,
    before: tuple[datetime, uuid.UUID] | None = None,
    limit: int = 100,
) -> list[Row]:
    """Entries that hold, newest first. ``text``: a part of the value or the reason; ``before``: the last one seen."""
    hits = (
        sa.select(sa.func.count())
        .where(Lead.workspace_id == workspace_id, Lead.suppression_id == Suppression.id)
        .scalar_subquery()
    )
    query = sa.select(Suppression, hits).where(*_wanted(workspace_id, text, kind))
    if before is not None:
        query = query.where(sa.tuple_(Suppression.created_at, Suppression.id) < sa.tuple_(*map(sa.literal, before)))
    query = query.order_by(Suppression.created_at.desc(), Suppression.id.desc()).limit(limit)
    return [Row(*row) for row in session.execute(query)]


def count(session: Session, workspace_id: uuid.UUID, *, text: str = "", kind: SuppressionKind | None = None) -> int:
    query = sa.select(sa.func.count()).select_from(Suppression).where(*_wanted(workspace_id, text, kind))
    return session.scalar(query) or 0


def _wanted(workspace_id: uuid.UUID, text: str, kind: SuppressionKind | None) -> list[Any]:
    found: list[Any] = [Suppression.workspace_id == workspace_id, Suppression.removed_at.is_(None)]
    if text:
        found.append(
            sa.or_(
                Suppression.value.icontains(text, autoescape=True), Suppression.reason.icontains(text, autoescape=True)
            )
        )
    if kind:
        found.append(Suppression.kind == kind)
    return found


def lines_of(table: Iterable[Mapping[str, str | None]]) -> list[Line]:
    """Lines of a CSV with the columns of the export (``value, kind, match, reason, expires_at``; all but the first may be
    missing). Invalid for words that are none of the closed ones."""
    found = []
    for number, row in enumerate(table, 1):
        given = {name: (row.get(name) or "").strip() for name in ("value", "kind", "match", "reason", "expires_at")}
        if not any(given.values()):
            continue
        try:
            moment = datetime.fromisoformat(given["expires_at"]) if given["expires_at"] else None
            found.append(
                Line(
                    given["value"],
                    SuppressionKind(given["kind"] or "other"),
                    given["reason"] or None,
                    moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC),
                    SuppressionMatch(given["match"]) if given["match"] else None,
                )
            )
        except ValueError:
            kinds, matches = ", ".join(SuppressionKind), ", ".join(SuppressionMatch)
            reason = f"line {number}: kind is one of {kinds}; match one of {matches}; expires_at a date"
            raise Invalid(
                "The file is not understood. Nothing was added.", details=(Problem("file", reason),)
            ) from None
    return found

"""Public web pages that an admin names: asked for, listed, fetched again, taken off the list. ``fetching`` does the work.

Nothing here commits or calls the outside; the caller commits, then rings ``fetches``.
"""

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import idna
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads import audit
from webapp.leads.errors import Invalid, NotFound, Problem
from webapp.leads.intake import text_problem
from webapp.leads.states import FetchKind, FetchState
from webapp.models.base import new_id, scoped
from webapp.models.inbound import Fetch
from webapp.models.lead import Lead

#: Addresses asked for at a time, and the longest one in characters.
MAX_URLS = 100
MAX_URL = 2_000
_PORTS = {"http": 80, "https": 443}
_HAS_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:(?!\d)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """``added``: pages now on the list; ``known``: those that were on it already and stay as they are."""

    added: int
    known: int


def ask(session: Session, workspace_id: uuid.UUID, addresses: str, *, actor: str) -> Asked:
    """Put the pages at ``addresses`` (one a line) on the list. Invalid names every line that is no address; then none
    is added."""
    lines = [line.strip() for line in addresses.splitlines() if line.strip()]
    if not lines:
        raise Invalid("no address given", details=(Problem("urls", "must hold at least one address, one a line"),))
    if len(lines) > MAX_URLS:
        reason = f"must hold at most {MAX_URLS} addresses at a time; these are {len(lines)}"
        raise Invalid("too many addresses", details=(Problem("urls", reason),))
    targets: dict[str, None] = {}
    problems: list[str] = []
    for line in lines:
        try:
            targets[normalized(line)] = None
        except ValueError as error:
            problems.append(f"“{line[:80]}” {error}")
    if problems:
        raise Invalid("some lines are no addresses", details=tuple(Problem("urls", problem) for problem in problems))
    added = session.scalars(
        insert(Fetch)
        .values(
            [
                {
                    "id": new_id(),
                    "workspace_id": workspace_id,
                    "kind": FetchKind.PAGE,
                    "target": target,
                    "payload": {},
                    "requested_by": actor,
                }
                for target in sorted(targets)
            ]
        )
        .on_conflict_do_nothing(index_elements=["workspace_id", "kind", "target"])
        .returning(Fetch.target)
    ).all()
    if added:
        audit.record(session, workspace_id, "WEB_PAGES_ADDED", actor=actor, pages=sorted(added))
    return Asked(len(added), len(targets) - len(added))


def normalized(address: str) -> str:
    """The address as it is stored: scheme (https when none is given) and host in lower case, the host in ASCII, no
    fragment, no default port. ValueError says in words what is wrong."""
    if len(address) > MAX_URL:
        raise ValueError(f"is longer than {MAX_URL} characters")
    if text_problem(address) or any(char.isspace() or not char.isprintable() for char in address):
        raise ValueError("must not hold spaces or control characters")
    if not _HAS_SCHEME.match(address):
        address = f"https://{address}"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is not a web address") from None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise ValueError("must begin with https:// or http://")
    if parts.username is not None:
        raise ValueError("must not hold a user name or password")
    if port == 0 or not host:
        raise ValueError("is not a web address")
    host = _ascii_host(host)
    where = host if port in (None, _PORTS[scheme]) else f"{host}:{port}"
    return urlunsplit((scheme, where, parts.path or "/", parts.query, ""))


def _ascii_host(host: str) -> str:
    if ":" in host:
        return f"[{host}]"
    try:
        name = idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        raise ValueError("has no host name that could exist") from None
    if "." not in name.rstrip(".") and name != "localhost":
        raise ValueError("is not a web address: its host has no dot")
    return name


def again(session: Session, workspace_id: uuid.UUID, fetch_id: uuid.UUID, *, actor: str) -> Fetch:
    """Have the page fetched once more, with all its tries. One that is waiting or under way stays as it is."""
    row = _page(session, workspace_id, fetch_id)
    if row.state in (FetchState.DONE, FetchState.DEAD):
        row.state, row.tries, row.last_error = FetchState.PENDING, 0, None
        row.due_at, row.finished_at, row.requested_by = sa.func.now(), None, actor
        session.flush()
    return row


def remove(session: Session, workspace_id: uuid.UUID, fetch_id: uuid.UUID, *, actor: str) -> str:
    """Take the page off the list; its leads stay. Returns its address."""
    row = _page(session, workspace_id, fetch_id)
    target = row.target
    session.delete(row)
    audit.record(session, workspace_id, "WEB_PAGE_REMOVED", actor=actor, page=target)
    return target


def _page(session: Session, workspace_id: uuid.UUID, fetch_id: uuid.UUID) -> Fetch:
    row = session.scalar(
        scoped(Fetch, workspace_id).where(Fetch.id == fetch_id, Fetch.kind == FetchKind.PAGE).with_for_update()
    )
    if row is None:
        raise NotFound("This page is not on the list any more.")
    found: Fetch = row
    return found


def leads_of(session: Session, workspace_id: uuid.UUID, rows: Iterable[Any]) -> dict[uuid.UUID, list[Any]]:
    """Page → its leads (id, name, company, email, phone), those that are still here."""
    wanted = {row.id: _ids(row.result) for row in rows}
    ids = {lead_id for found in wanted.values() for lead_id in found}
    if not ids:
        return {}
    columns = (Lead.id, Lead.shown_name.label("name"), Lead.author_name, Lead.company, Lead.email, Lead.phone)
    query = sa.select(*columns).where(Lead.workspace_id == workspace_id, Lead.id.in_(ids))
    known = {row.id: row for row in session.execute(query)}
    return {page: [known[one] for one in found if one in known] for page, found in wanted.items()}


def _ids(result: dict[str, Any] | None) -> list[uuid.UUID]:
    return [uuid.UUID(text) for text in (result or {}).get("lead_ids", ())]


def under_way(rows: Iterable[Any]) -> bool:
    """Is any of these pages still to be fetched?"""
    return any(row.state in (FetchState.PENDING, FetchState.FETCHING) for row in rows)

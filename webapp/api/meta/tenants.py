"""Whose each entry of one of Meta's bodies is (docs/api.md §4)."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from flask import request

from webapp.api.meta.proof import Caller
from webapp.api.meta.sources import Sources
from webapp.extensions import db
from webapp.leads.errors import Forbidden, Invalid, LeadError, Problem
from webapp.leads.intake import Tenant

#: The entries of a body that are somebody's as a whole, each with what it was sent to, the narrower name first.
Parts = list[tuple[Any, tuple[str, ...]]]
PagesOf = Callable[[Any], tuple[str, ...]]


#: Why an entry is kept beside those that are somebody's.
UNMAPPED = "its page is not mapped to a workspace"
FOREIGN = "its page is mapped to another workspace, and the app secret that signed it is not that one's"


@dataclass(frozen=True, slots=True)
class Stray:
    """An entry that no workspace of the body may take in, and why, in words for people."""

    reason: str
    entry: Any


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a body that belongs to one workspace, and what decided so (header|body|page|key)."""

    tenant: Tenant
    decided_by: str
    payload: dict[str, Any]
    #: Entries that are nobody's or another workspace's, beside some that are this one's.
    strays: list[Stray] = field(default_factory=list)


def shares(
    caller: Caller, payload: dict[str, Any], platform: str, pages_of: PagesOf, sources: Sources, *, by_change: bool
) -> list[Share]:
    """None for a named workspace that does not exist (a provider that were told so would only send it again). Invalid or
    Forbidden where the contract refuses. ``by_change``: the changes of one entry may be different workspaces'."""
    named, decided_by = _named_tenant(payload)
    parts = _parts(payload, pages_of, by_change=by_change)
    if caller.principal is None:
        return _signed(caller, payload, parts, _owners(parts, platform, sources), sources, named, decided_by)
    mine = caller.principal.workspace_id
    if named is None:
        owners = set(_owners(parts, platform, sources).values())
        if owners - {mine}:
            raise Forbidden("a page in this body belongs to another workspace")
        return [Share(caller.principal.workspace, "page" if owners else "key", payload)]
    if named == mine:
        return [Share(caller.principal.workspace, decided_by, payload)]
    if sources.tenant(db.session(), named) is not None:
        raise Forbidden("this key belongs to another workspace")
    return []


def _signed(
    caller: Caller,
    payload: dict[str, Any],
    parts: Parts,
    owners: dict[str, uuid.UUID],
    sources: Sources,
    named: uuid.UUID | None,
    decided_by: str,
) -> list[Share]:
    """Signed only: the header is not signed and the body's tenant is anybody's word, so a mapped page decides, entry
    by entry; header and body choose for unmapped pages alone.

    Anybody can map a page that is not theirs, so another workspace's page costs only its own entries: they are kept,
    where a person can see them, by the first workspace that has any business with this body."""
    mapped = set(owners.values())
    if named and mapped - {named}:
        raise Forbidden("tenant_id disagrees with the workspace of the page")
    mine: dict[uuid.UUID, list[Any]] = {}
    strays: list[Stray] = []
    for entry, pages in parts:
        owner = next((owners[page] for page in pages if page in owners), named)
        if owner is None:
            strays.append(Stray(UNMAPPED, entry))
        elif owner in mapped and owner not in caller.signed_for:
            strays.append(Stray(FOREIGN, entry))
        else:
            mine.setdefault(owner, []).append(entry)
    found: list[Share] = []
    for workspace_id, entries in mine.items():
        tenant = sources.tenant(db.session(), workspace_id)
        if tenant is None:
            if workspace_id in mapped:  # removed a moment ago, its pages with it
                strays += [Stray(UNMAPPED, entry) for entry in entries]
        elif workspace_id not in caller.signed_for:
            raise Forbidden("the signature does not speak for this workspace")
        else:
            share = payload | {"entry": entries} if isinstance(payload.get("entry"), list) else payload
            found.append(Share(tenant, "page" if workspace_id in mapped else decided_by, share))
    if strays and not found:
        raise _nobodys(strays)
    return [replace(found[0], strays=strays), *found[1:]] if strays else found


def _nobodys(strays: list[Stray]) -> LeadError:
    """Refused as a whole, so that the provider sends it again: by then somebody may have mapped the page."""
    if any(stray.reason == FOREIGN for stray in strays):
        return Forbidden("a page belongs to a workspace that this signature does not speak for")
    return Invalid(
        "whose lead is it? The page is not mapped to a workspace, and there is no tenant_id",
        code="missing_param",
        details=(Problem("tenant_id", "missing"),),
    )


def _parts(payload: dict[str, Any], pages_of: PagesOf, *, by_change: bool) -> Parts:
    given = payload.get("entry")
    if not isinstance(given, list):
        return [(payload, ())]
    entries = [alone for entry in given for alone in _alone(entry)] if by_change else given
    return [(entry, pages_of(entry)) for entry in entries]


def _alone(entry: Any) -> list[Any]:
    """An entry for each of its changes."""
    changes = entry.get("changes") if isinstance(entry, dict) else None
    if not isinstance(changes, list) or len(changes) < 2:
        return [entry]
    return [entry | {"changes": [change]} for change in changes]


def _owners(parts: Parts, platform: str, sources: Sources) -> dict[str, uuid.UUID]:
    """Page id → workspace, for the pages of the body that are mapped."""
    pages = {page for _, named in parts for page in named}
    return sources.owners(db.session(), platform, pages) if pages else {}


def _named_tenant(payload: dict[str, Any]) -> tuple[uuid.UUID | None, str]:
    raw, source = request.headers.get("X-Tenant-ID"), "header"
    if not raw:
        raw, source = payload.get("tenant_id"), "body"
    if raw is None or raw == "":
        return None, ""
    try:
        return uuid.UUID(str(raw)), source
    except ValueError:
        raise Invalid("tenant_id must be a UUID", details=(Problem("tenant_id", "must be a UUID"),)) from None

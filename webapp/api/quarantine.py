"""Quarantine over the API: what could not be digested, to inspect, fix, replay and discard (docs/api.md)."""

import json
import uuid
from typing import Annotated, Any

from flask import Blueprint, Response, current_app, jsonify
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from jobs import queue
from webapp.api import auth, dialects
from webapp.api.body import parse_json, raw_body, require_json_type
from webapp.api.openapi import documented
from webapp.api.problems import query, validated
from webapp.api.schemas import Out
from webapp.api.triage import iso
from webapp.extensions import db
from webapp.leads import listings, quarantine_replay
from webapp.leads.errors import Conflict, Invalid, NotFound
from webapp.leads.intake import Tenant
from webapp.leads.quarantine_replay import Replayed, Tools
from webapp.leads.states import Door, QuarantineState, Scope
from webapp.models.lead import Quarantined
from webapp.security.keys import Principal

blueprint = Blueprint("quarantine_api", __name__, url_prefix="/api/v1/quarantine")

_BY_ID = {"entry_id": "The entry's id."}


class EntryBrief(Out):
    """An entry without what it holds. ``dialect``: which reader refused it. ``times``: how often the very same came
    while it was held, the last time at ``last_at`` (null: once)."""

    id: uuid.UUID
    state: QuarantineState
    door: Door
    dialect: str
    source_id: uuid.UUID | None
    reason: str
    decided_by: str | None
    decided_at: AwareDatetime | None
    lead_ids: list[uuid.UUID]
    times: Annotated[int, Field(ge=1)]
    last_at: AwareDatetime | None
    created_at: AwareDatetime


class EntryOut(EntryBrief):
    """``raw``: as received, sensitive values encrypted; any JSON, or text that is none. ``fixed``: the same as somebody
    has mended it."""

    raw: Any
    fixed: Any


class EntriesPage(Out):
    entries: list[EntryBrief]
    next_cursor: str | None


class ReplayedOut(EntryOut):
    """``created``: leads that are new by this replay. ``fetching``: its answers are being fetched; a lead follows."""

    created: Annotated[int, Field(ge=0)]
    fetching: bool


class EntriesQuery(BaseModel):
    """Which entries, and how many."""

    state: QuarantineState | None = None
    dialect: Annotated[str, Field(max_length=40, description="facebook, whatsapp, leadgen or hook")] | None = None
    source_id: Annotated[uuid.UUID, Field(description="The inbound webhook it came by.")] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: str | None = None


class ReplayIn(BaseModel):
    """Body of a replay; all of it may be left out. ``fixed``: what to read instead of what was received."""

    model_config = ConfigDict(extra="forbid")

    fixed: dict[str, Any] | None = None


@blueprint.get("")
@documented("Quarantined entries, newest first", tag="Quarantine", query=EntriesQuery, answers={200: EntriesPage})
@auth.needs(Scope.ADMIN)
def listing(principal: Principal) -> Response:
    asked = query(EntriesQuery)
    found = listings.quarantined(
        db.session(),
        principal.workspace_id,
        state=asked.state,
        dialect=asked.dialect,
        source_id=asked.source_id,
        cursor=asked.cursor or None,
        limit=asked.limit,
    )
    return jsonify(entries=[_brief(row) for row in found.rows], next_cursor=found.next_cursor)


@blueprint.get("/<uuid:entry_id>")
@documented("One quarantined entry", tag="Quarantine", path=_BY_ID, answers={200: EntryOut}, errors=(404,))
@auth.needs(Scope.ADMIN)
def show(principal: Principal, entry_id: uuid.UUID) -> Response:
    return jsonify(_full(quarantine_replay.get(db.session(), principal.workspace_id, entry_id)))


@blueprint.post("/<uuid:entry_id>/replay")
@documented(
    "Read a quarantined entry again",
    tag="Quarantine",
    description="As it is, or as `fixed` says. 200 also when it still cannot be read: `state` is `held` then, and "
    "`reason` says why. A second replay answers what came of the first.",
    path=_BY_ID,
    body=ReplayIn,
    answers={200: ReplayedOut},
    errors=(404, 409),
)
@auth.needs(Scope.ADMIN)
def replay(principal: Principal, entry_id: uuid.UUID) -> Response:
    body = validated(ReplayIn, _body())
    text = json.dumps(body.fixed) if body.fixed is not None else None
    session = db.session()
    outcome = quarantine_replay.replay(
        session, principal.workspace_id, entry_id, tools(principal.workspace, f"{principal.name} (API)"), text=text
    )
    session.commit()
    ring(outcome)
    entry = quarantine_replay.get(session, principal.workspace_id, entry_id)
    return jsonify(_full(entry) | {"created": outcome.created, "fetching": outcome.fetching})


def _body() -> Any:
    """The parsed body; an absent one asks for nothing in particular."""
    raw = raw_body()
    if not raw.strip():
        return {}
    require_json_type()
    return parse_json(raw)


def tools(tenant: Tenant, actor: str) -> Tools:
    """What a replay needs, in this process."""
    return Tools(tenant, dialects.read, current_app.extensions["cipher"], actor)


def ring(outcome: Replayed) -> None:
    """Wake whoever goes on with it, once it is committed."""
    if outcome.created:
        queue.ring("runs")
    if outcome.fetching:
        queue.ring("fetches")


@blueprint.post("/<uuid:entry_id>/discard")
@documented("Discard a quarantined entry", tag="Quarantine", path=_BY_ID, answers={200: EntryOut}, errors=(404, 409))
@auth.needs(Scope.ADMIN)
def discard(principal: Principal, entry_id: uuid.UUID) -> Response:
    session = db.session()
    quarantine_replay.discard(session, principal.workspace_id, entry_id, actor=f"{principal.name} (API)")
    session.commit()
    return jsonify(_full(quarantine_replay.get(session, principal.workspace_id, entry_id)))


@blueprint.post("/<uuid:entry_id>/restore")
@documented(
    "Put a discarded entry back",
    tag="Quarantine",
    description="It waits again. One that is held stays as it is. 409 also when the same entry has come again since.",
    path=_BY_ID,
    answers={200: EntryOut},
    errors=(404, 409),
)
@auth.needs(Scope.ADMIN)
def restore(principal: Principal, entry_id: uuid.UUID) -> Response:
    session = db.session()
    quarantine_replay.restore(session, principal.workspace_id, entry_id, actor=f"{principal.name} (API)")
    session.commit()
    return jsonify(_full(quarantine_replay.get(session, principal.workspace_id, entry_id)))


def _brief(row: Any) -> dict[str, Any]:
    """A row of the list, or an entry itself, without what it holds."""
    return {
        "id": str(row.id),
        "state": row.state.value,
        "door": row.door.value,
        "dialect": row.dialect,
        "source_id": str(row.source_id) if row.source_id else None,
        "reason": row.reason,
        "decided_by": row.decided_by,
        "decided_at": iso(row.decided_at) if row.decided_at else None,
        "lead_ids": row.lead_ids,
        "times": row.times,
        "last_at": iso(row.last_at) if row.last_at else None,
        "created_at": iso(row.created_at),
    }


def _full(entry: Quarantined) -> dict[str, Any]:
    fixed = _value(entry.fixed) if entry.fixed is not None else None
    return _brief(entry) | {"raw": _value(entry.raw), "fixed": fixed}


def _value(text: str) -> Any:
    """The JSON that was kept; as text when it is none that could be answered (numbers without end)."""
    try:
        return json.loads(text, parse_constant=lambda name: f"[{name}]")
    except (ValueError, RecursionError):
        return text


def replay_many(workspace_id: uuid.UUID, ids: list[uuid.UUID], tenant: Tenant, actor: str) -> str:
    """Replay one by one, each a transaction of its own; what came of it, in words."""
    session = db.session()
    leads = already = held = fetching = 0
    for entry_id in ids:
        try:
            outcome = quarantine_replay.replay(session, workspace_id, entry_id, tools(tenant, actor))
        except (Conflict, NotFound, Invalid):
            session.rollback()
            held += 1
            continue
        session.commit()
        ring(outcome)
        leads += outcome.created
        already += len(outcome.lead_ids) - outcome.created
        fetching += outcome.fetching
        held += bool(outcome.held)
    said = [
        f"{n:,} {words}"
        for n, words in (
            (leads, "new lead" if leads == 1 else "new leads"),
            (already, "here already"),
            (fetching, "being fetched"),
            (held, "still held"),
        )
        if n
    ]
    return ", ".join(said) or "nothing was waiting"

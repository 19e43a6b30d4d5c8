"""Quarantine: what could not be read, with the reason, to look at, mend, replay or discard."""

import json
import re
import uuid
from contextlib import suppress
from typing import Any

from flask import Blueprint, request

from webapp.api import quarantine as replays
from webapp.extensions import db
from webapp.leads import listings, quarantine_replay, sources
from webapp.leads.errors import Conflict, Invalid, NotFound
from webapp.leads.states import QuarantineState, Role
from webapp.models.lead import Quarantined
from webapp.security.roles import requires
from webapp.views import helpers, words
from webapp.views.sources import current_tenant

bp = Blueprint("quarantine", __name__)

#: A name and a plain value in JSON that may have been cut off.
_PAIR = re.compile(r'"((?:[^"\\]|\\.){1,60})"\s*:\s*("(?:[^"\\]|\\.)*"?|-?\d[\d.]*|true|false)')
#: Names of what people say or are called.
_TELLING = re.compile(r"^(message|text|note|body|comments?|content|email|e-mail|name|full_?name|phone)$", re.IGNORECASE)
_EXCERPT = 140
#: A reason that begins with a name out of the JSON: one no word is written like, or of which such a thing is said.
_PATH = re.compile(r"\S*[._\[\]$\d]\S|\S+ (is missing or (no text|not a list)|is not text|is longer than \d+ char)")


@bp.get("/quarantine")
@requires(Role.MANAGER)
def index() -> Any:
    chosen = _chosen(request.args)
    session = db.session()
    found = listings.quarantined(
        session,
        helpers.here(),
        state=chosen["state"],
        dialect=chosen["dialect"],
        source_id=chosen["source_id"],
        cursor=request.args.get("cursor") or None,
    )
    return helpers.show(
        "pages/quarantine.html",
        "results",
        found=found,
        chosen=chosen,
        args=_args(chosen),
        states=list(QuarantineState),
        origins=origins(),
        excerpt=excerpt,
        heading=heading,
        most=helpers.settings().max_batch_size,
    )


def _chosen(given: Any) -> dict[str, Any]:
    """The filter as asked for; what is not understood asks for everything. Held is what a person comes for."""
    state, origin = given.get("state", QuarantineState.HELD.value), given.get("from", "")
    chosen: dict[str, Any] = {
        "state": QuarantineState(state) if state in list(QuarantineState) else None,
        "dialect": origin if origin in words.DIALECT else None,
        "source_id": None,
        "from": "",
    }
    with suppress(ValueError):
        chosen["source_id"] = None if chosen["dialect"] or not origin else uuid.UUID(origin)
    chosen["from"] = origin if chosen["dialect"] or chosen["source_id"] else ""
    return chosen


def _args(chosen: dict[str, Any]) -> dict[str, str]:
    args = {"state": chosen["state"].value if chosen["state"] else "all"}
    return args | ({"from": chosen["from"]} if chosen["from"] else {})


def origins() -> list[tuple[str, str]]:
    """(value, words) of where entries may have come from: providers, and each inbound webhook by name."""
    own = [(str(row.source.id), row.source.name) for row in sources.listing(db.session(), helpers.here())]
    return [(name, said) for name, said in words.DIALECT.items() if name != quarantine_replay.HOOK] + own


def excerpt(raw: str) -> str:
    """The first values of an entry, as ``name value · name value``; what a person said or is called comes first."""
    said: list[tuple[bool, str]] = []
    for name, value in _PAIR.findall(raw):
        text = value.strip('"')
        try:
            text = json.loads(f'"{text}"')
        except ValueError:  # cut off within an escape
            text = text.rpartition("\\")[0] or text
        if text and not text.startswith("enc:"):
            said.append((_TELLING.search(name) is None, f"{name} {text}"))
    said.sort(key=lambda one: one[0])  # stable: otherwise as sent
    line = " · ".join(text for _, text in said).encode("utf-8", "replace").decode()
    line = line or "nothing that can be shown in a line"
    return line if len(line) <= _EXCERPT else f"{line[:_EXCERPT]}…"


def heading(reason: str) -> str:
    """A reason at the beginning of a line. A path in the body stays as it is written: ``message.mid is missing``."""
    return reason if _PATH.match(reason) else reason[:1].upper() + reason[1:]


@bp.get("/quarantine/<uuid:entry_id>")
@requires(Role.MANAGER)
def show(entry_id: uuid.UUID) -> Any:
    return _page(quarantine_replay.get(db.session(), helpers.here(), entry_id))


def _page(entry: Quarantined, status: int = 200, *, typed: str | None = None, problem: str = "") -> Any:
    session = db.session()
    shown = quarantine_replay.pretty(entry.fixed or entry.raw)
    return helpers.show(
        "pages/quarantined.html",
        entry=entry,
        source=quarantine_replay.source_of(session, entry),
        leads=quarantine_replay.leads_of(session, entry),
        text=shown if typed is None else typed,
        received=quarantine_replay.pretty(entry.raw) if entry.fixed else None,
        problem=problem,
        states=QuarantineState,
        status=status,
    )


@bp.post("/quarantine/<uuid:entry_id>/replay")
@requires(Role.MANAGER)
def replay(entry_id: uuid.UUID) -> Any:
    """Read it again as typed. What is no JSON is refused and kept in the editor."""
    session, typed = db.session(), request.form.get("raw")
    try:
        outcome = quarantine_replay.replay(
            session,
            helpers.here(),
            entry_id,
            replays.tools(current_tenant(), helpers.actor().name),
            text=_changed(entry_id, typed),
        )
    except Invalid as error:
        session.rollback()
        entry = quarantine_replay.get(session, helpers.here(), entry_id)
        return _page(entry, 422, typed=typed, problem=helpers.problems_of(error).get("raw", error.message))
    session.commit()
    replays.ring(outcome)
    if outcome.held:
        helpers.toast("Still held", outcome.held)
    elif outcome.fetching:
        helpers.toast("Being fetched", "its answers become a lead when they are there")
    else:
        helpers.toast("Replayed", "a new lead" if outcome.created else "its lead was here already")
    return helpers.see("quarantine.show", entry_id=entry_id)


def _changed(entry_id: uuid.UUID, typed: str | None) -> str | None:
    """What was typed; None when it is what the page showed."""
    if typed is None:
        return None
    entry = quarantine_replay.get(db.session(), helpers.here(), entry_id)
    shown = quarantine_replay.pretty(entry.fixed or entry.raw)
    return None if typed.replace("\r\n", "\n").strip() == shown.strip() else typed


@bp.post("/quarantine/<uuid:entry_id>/<any(discard, restore):what>")
@requires(Role.MANAGER)
def settle(entry_id: uuid.UUID, what: str) -> Any:
    """Out of the way, or back again."""
    act = quarantine_replay.discard if what == "discard" else quarantine_replay.restore
    act(db.session(), helpers.here(), entry_id, actor=helpers.actor().name)
    db.session.commit()
    helpers.toast(*(("Discarded", "it can be put back here") if what == "discard" else ("Put back", "it waits again")))
    return helpers.see("quarantine.show", entry_id=entry_id)


@bp.post("/quarantine/bulk")
@requires(Role.MANAGER)
def bulk() -> Any:
    """All of the filter, the oldest first, at most as many as a batch may have."""
    chosen, do = _chosen(request.form), request.form.get("do", "")
    if do not in ("replay", "discard", "restore"):
        raise Invalid("Choose what to do with them.")
    state = QuarantineState.DISCARDED if do == "restore" else QuarantineState.HELD
    ids = quarantine_replay.matching(
        db.session(),
        helpers.here(),
        state=state,
        dialect=chosen["dialect"],
        source_id=chosen["source_id"],
        limit=helpers.settings().max_batch_size,
    )
    if do == "replay":
        helpers.toast("Replayed", replays.replay_many(helpers.here(), ids, current_tenant(), helpers.actor().name))
    else:
        n = _settle_all(ids, do)
        helpers.toast("Discarded" if do == "discard" else "Put back", f"{n:,} {'entry' if n == 1 else 'entries'}")
    return helpers.see("quarantine.index", **_args(chosen))


def _settle_all(ids: list[uuid.UUID], do: str) -> int:
    session, done = db.session(), 0
    act = quarantine_replay.discard if do == "discard" else quarantine_replay.restore
    for entry_id in ids:
        try:
            act(session, helpers.here(), entry_id, actor=helpers.actor().name)
        except (Conflict, NotFound):  # somebody else was quicker
            session.rollback()
            continue
        session.commit()
        done += 1
    return done

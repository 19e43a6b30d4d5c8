"""Settings: where leads go. One form serves every kind, as webapp.leads.kinds describes it."""

import uuid
from typing import Any

from flask import Blueprint, current_app, request
from flask_login import current_user

from jobs.queue import ring
from webapp.extensions import db
from webapp.leads import alerting, crm_pulls, destinations, fieldmap, kinds, outbox, trial
from webapp.leads.destinations import Wanted
from webapp.leads.errors import Conflict, Invalid, LeadError, NotFound
from webapp.leads.kinds.base import Kind, Unknown
from webapp.leads.ports import Unusable
from webapp.leads.states import DestinationKind, DestinationMode, Intent, Priority, Role, Trigger
from webapp.leads.triggers import DEFAULT_ON, LISTS
from webapp.models.work import Destination
from webapp.security.roles import requires
from webapp.views import delivery_health, helpers, words

bp = Blueprint("destinations", __name__)

#: A switch that is off sends nothing, so a form says that it has been on the page.
_HERE = "form"


@bp.get("/settings/destinations")
@requires(Role.ADMIN)
def index() -> Any:
    session = db.session()
    return helpers.show(
        "pages/destinations.html",
        found=destinations.listing(session, helpers.here()),
        waiting=destinations.waiting(session, helpers.here()),
        answered=delivery_health.answered(session, helpers.here()),
        environment=destinations.ENVIRONMENT,
        mode=DestinationMode,
        kinds=kinds.KINDS,
    )


@bp.get("/settings/destinations/new/<kind>")
@requires(Role.ADMIN)
def new(kind: str) -> Any:
    return _form(_kind(kind), None, _fresh(_kind(kind)))


@bp.post("/settings/destinations/new/<kind>")
@requires(Role.ADMIN)
def create(kind: str) -> Any:
    """A secret that was made for it is shown once, on the answer to this very request."""
    known, session = _kind(kind), db.session()
    if "preview" in request.form:
        return _form(known, None, _given(known))
    try:
        row, made = destinations.create(
            session,
            helpers.here(),
            known.kind,
            _wanted(known, own=False),
            cipher=current_app.extensions["cipher"],
            actor=current_user.user.name,
            mode=DestinationMode.SHADOW if request.form.get("mode") == DestinationMode.SHADOW else DestinationMode.LIVE,
        )
    except (Invalid, Conflict) as error:
        session.rollback()
        problems = helpers.problems_of(error) if isinstance(error, Invalid) else {"name": error.message}
        return _form(known, None, _given(known), problems=problems, status=422)
    session.commit()
    if made:
        return _form(known, row, _stored(known, row), made=made, status=201)
    helpers.toast("Added", f"{row.name}; send a test to see whether it works")
    return helpers.see("destinations.edit", destination_id=row.id)


@bp.get("/settings/destinations/<uuid:destination_id>")
@requires(Role.ADMIN)
def edit(destination_id: uuid.UUID) -> Any:
    return show_one(destination_id)


def show_one(destination_id: uuid.UUID, *, read_back: dict[str, Any] | None = None, status: int = 200) -> Any:
    """The page of one that is there. ``read_back``: what was sent for reading it back, and its problems."""
    row = destinations.find(db.session(), helpers.here(), destination_id)
    known = kinds.of(row.kind)
    return _form(known, row, _stored(known, row), read_back=read_back, status=status)


@bp.post("/settings/destinations/<uuid:destination_id>")
@requires(Role.ADMIN)
def save(destination_id: uuid.UUID) -> Any:
    session = db.session()
    row = destinations.find(session, helpers.here(), destination_id)
    known = kinds.of(row.kind)
    if "preview" in request.form:
        return _form(known, row, _given(known))
    try:
        row = destinations.change(
            session,
            helpers.here(),
            destination_id,
            _wanted(known, own=True),
            cipher=current_app.extensions["cipher"],
            actor=current_user.user.name,
        )
    except (Invalid, Conflict) as error:
        session.rollback()
        row = destinations.find(session, helpers.here(), destination_id)
        problems = helpers.problems_of(error) if isinstance(error, Invalid) else {"name": error.message}
        return _form(known, row, _given(known), problems=problems, status=422)
    name = row.name
    session.commit()
    ring("deliveries")
    helpers.toast("Saved", f"{name}; what waits goes out by these settings")
    return helpers.see("destinations.edit", destination_id=destination_id)


@bp.post("/settings/destinations/<uuid:destination_id>/<any(live, shadow, off):mode>")
@requires(Role.ADMIN)
def switch(destination_id: uuid.UUID, mode: str) -> Any:
    session = db.session()
    row = destinations.set_mode(
        session,
        helpers.here(),
        destination_id,
        DestinationMode(mode),
        actor=current_user.user.name,
        send_shadowed=request.form.get("shadowed") == "send",
    )
    if request.form.get("shadowed") == "discard":
        outbox.settle_recorded(session, row, send=False, actor=current_user.user.name)
    name = row.name
    session.commit()
    ring("deliveries")
    helpers.toast({"live": "Switched on", "shadow": "Only watching", "off": "Switched off"}[mode], name)
    return helpers.see("destinations.edit", destination_id=destination_id)


@bp.post("/settings/destinations/<uuid:destination_id>/recorded/<any(send, discard):what>")
@requires(Role.ADMIN)
def settle_recorded(destination_id: uuid.UUID, what: str) -> Any:
    """What was recorded while it only watched goes out, or is discarded."""
    session = db.session()
    row = destinations.find(session, helpers.here(), destination_id)
    settled = outbox.settle_recorded(session, row, send=what == "send", actor=current_user.user.name)
    session.commit()
    if what == "send":
        ring("deliveries")
    helpers.toast(
        "Queued" if what == "send" else "Discarded", f"{settled:,} that {'was' if settled == 1 else 'were'} recorded"
    )
    return helpers.see("destinations.edit", destination_id=destination_id)


@bp.post("/settings/destinations/<uuid:destination_id>/test")
@requires(Role.ADMIN)
def test(destination_id: uuid.UUID) -> Any:
    """A harmless call; what it found is kept beside the destination."""
    session = db.session()
    row = destinations.find(session, helpers.here(), destination_id)
    target, name = trial.target(row), row.name
    session.commit()  # nothing is held while the other side is asked
    try:
        said, problem = current_app.extensions["destination_clients"]().client_for(target).probe(), None
    except LeadError as error:
        said, problem = "", words.full_stop(error.message)
        if isinstance(error, Unusable):
            problem += f" {words.full_stop(error.remedy)}"
    destinations.tested(session, helpers.here(), destination_id, problem)
    session.commit()
    if problem is None:
        helpers.toast("It works", f"{name}: {said}")
    else:
        helpers.toast("It does not work", f"{name}: {problem} Nothing of a lead was sent.")
    return helpers.see("destinations.edit", destination_id=destination_id)


@bp.post("/settings/destinations/<uuid:destination_id>/secret")
@requires(Role.ADMIN)
def rotate(destination_id: uuid.UUID) -> Any:
    session = db.session()
    row, fresh = destinations.rotate_secret(
        session,
        helpers.here(),
        destination_id,
        cipher=current_app.extensions["cipher"],
        actor=current_user.user.name,
    )
    session.commit()
    if fresh is None:
        helpers.toast("The old secret is gone", f"{row.name}: posts carry one signature again")
        return helpers.see("destinations.edit", destination_id=destination_id)
    known = kinds.of(row.kind)
    return _form(known, row, _stored(known, row), made={"secret": fresh})


@bp.post("/settings/destinations/<uuid:destination_id>/remove")
@requires(Role.ADMIN)
def remove(destination_id: uuid.UUID) -> Any:
    session = db.session()
    name = destinations.remove(session, helpers.here(), destination_id, actor=current_user.user.name)
    session.commit()
    helpers.toast("Removed", name)
    return helpers.see("destinations.index")


def _kind(name: str) -> Kind:
    known = kinds.KINDS.get(DestinationKind(name)) if name in set(DestinationKind) else None
    if known is None or not known.in_browser:
        raise NotFound("There is no such kind of destination.")
    return known


def _fresh(known: Kind) -> dict[str, Any]:
    """What an empty form shows."""
    values = {field.name: field.default for field in known.fields if field.default is not None}
    return {"name": "", "values": values, "options": known.limits, "rules": dict(known.rules or {}), "mapping": {}}


def _stored(known: Kind, row: Destination) -> dict[str, Any]:
    """What the form of one that is there shows; secrets never."""
    return {
        "name": row.name,
        "values": row.config,
        "options": row.options,
        "rules": row.rules,
        "mapping": row.mapping,
    }


def _given(known: Kind) -> dict[str, Any]:
    """What was sent, to be shown again; secrets never."""
    wanted = _wanted(known, own=True)
    shown = {field.name: wanted.values[field.name] for field in known.fields if not field.secret}
    return {
        "name": wanted.name,
        "values": shown,
        "options": wanted.options,
        "rules": wanted.rules or {},
        "mapping": wanted.mapping or {},
    }


def _wanted(known: Kind, *, own: bool) -> Wanted:
    """``own``: rules and fields count even when they were left out, since the form was filled with them."""
    form = request.form
    complete = own or _HERE in form
    return Wanted(
        name=form.get("name", ""),
        values={field.name: form.get(field.name, "") for field in known.fields},
        options={name: form[name] for name in ("per_second", "per_minute", "when_uncertain", "alerts") if name in form},
        rules=_rules_given() if complete else None,
        mapping=_mapping_given() if complete else None,
    )


def _rules_given() -> dict[str, Any]:
    form = request.form
    rules: dict[str, Any] = {"on": form.getlist("on"), "min_score": form.get("min_score", "")}
    for name in LISTS:
        values = form.getlist(name)
        rules[name] = values if name in ("intent", "priority") else form.get(name, "")
    return rules | {"qualified_only": "qualified_only" in form}


def _mapping_given() -> dict[str, str]:
    form = request.form
    given = {name.removeprefix("map-"): text for name, text in form.items() if name.startswith("map-")}
    for name, text in zip(form.getlist("more-name"), form.getlist("more-value"), strict=False):
        if name.strip():
            given[name] = text
    return given


def _form(
    known: Kind,
    row: Destination | None,
    given: dict[str, Any],
    *,
    problems: dict[str, str] | None = None,
    made: dict[str, str] | None = None,
    read_back: dict[str, Any] | None = None,
    status: int = 200,
) -> Any:
    session = db.session()
    own = {field.name for field in known.mapping}
    mapping = fieldmap.complete(known.mapping, given["mapping"])
    return helpers.show(
        "pages/destination.html",
        kind=known,
        row=row,
        given=given,
        mapping=mapping,
        more=[(name, text) for name, text in mapping.items() if name not in own],
        problems=problems or {},
        made=made or {},
        limits=destinations.LIMITS,
        on_uncertain=destinations.ON_UNCERTAIN if known.unknown is not Unknown.ASKS else None,
        alerts=destinations.ALERTS if known.tells_alerts else None,
        triggers=list(Trigger),
        default_on=DEFAULT_ON,
        intents=list(Intent),
        priorities=list(Priority),
        sources=fieldmap.SOURCES,
        example=trial.example(session, helpers.here(), mapping, public_url=helpers.settings().public_url),
        waiting=destinations.waiting(session, helpers.here()).get(row.id, {}) if row else {},
        answered=row is not None and row.id in delivery_health.answered(session, helpers.here()),
        pull=crm_pulls.of(session, row) if row and crm_pulls.reads(row) else None,
        pulls_every=helpers.settings().crm_pull_seconds,
        read_back=read_back or {},
        told=alerting.unusable_told(session, row) if row and row.problem else None,
        environment=destinations.ENVIRONMENT,
        mode=DestinationMode,
        status=status,
    )

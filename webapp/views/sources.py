"""Settings: inbound webhooks, and the editor that says which value of a request is which field of a lead."""

import uuid
from typing import Any, cast

from flask import Blueprint, current_app, request
from flask_login import current_user

from webapp.api import quarantine as replays
from webapp.extensions import db
from webapp.leads import intake, mapping, quarantine_replay, rulebook, sources, suspicion
from webapp.leads.errors import Conflict, Invalid
from webapp.leads.presets import PRESETS, suggested
from webapp.leads.states import QuarantineState, Role, Verification
from webapp.models.inbound import InboundSource
from webapp.security.inbound import secret_problem
from webapp.security.roles import requires
from webapp.views import helpers, words
from webapp.views.tree import Node, showable, tree_of

bp = Blueprint("sources", __name__)

#: Label and hint of each field, in groups; the first is always open.
GROUPS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "",
        (
            ("message", "Message", "what the person wrote; * takes several values, a line each"),
            ("name", "Name", "first + last joins two values"),
            ("email", "E-mail", ""),
            ("phone", "Phone", ""),
            ("company", "Company", ""),
            ("budget", "Budget", "a number"),
            ("dedupe", "The sender’s own id", "the same id is the same lead, however often it is sent"),
        ),
    ),
    (
        "More about the person",
        (
            ("first_name", "First name", "used with the last name when there is no name"),
            ("last_name", "Last name", ""),
            ("job_title", "Job title", ""),
            ("country", "Country", ""),
            ("city", "City", ""),
            ("date_of_birth", "Date of birth", "stored encrypted"),
            ("consent", "Consent", "true, false or words"),
            ("consent_at", "Consent given at", "a time with its zone"),
            ("test", "Is a test", "what is true here is held, not taken in"),
        ),
    ),
    (
        "Where it came from",
        (
            ("utm_source", "utm_source", ""),
            ("utm_medium", "utm_medium", ""),
            ("utm_campaign", "utm_campaign", ""),
            ("utm_term", "utm_term", ""),
            ("utm_content", "utm_content", ""),
            ("gclid", "gclid", ""),
            ("fbclid", "fbclid", ""),
            ("landing_page", "Landing page", ""),
            ("referrer", "Referrer", ""),
        ),
    ),
)
#: A first request to send by hand.
CURL = """curl {address} \\
  -H 'Content-Type: application/json' \\
  -d '{{"name": "Ada Example", "email": "ada@example.com", "message": "Could you send me a quote for 50 seats?"}}'"""
LIMITS = ("limit_max", "limit_burst", "limit_day")


@bp.get("/settings/inbound")
@requires(Role.ADMIN)
def index() -> Any:
    return _list()


def _list(status: int = 200, **extra: Any) -> Any:
    shown: dict[str, Any] = {"given": {}, "problems": {}}
    return helpers.show(
        "pages/sources.html",
        rows=sources.listing(db.session(), helpers.here()),
        address=address,
        presets=PRESETS,
        status=status,
        **(shown | extra),
    )


def address(source: InboundSource) -> str | None:
    """Where to post; None when the token cannot be read any more."""
    try:
        token = current_app.extensions["cipher"].decrypt(source.token)
    except ValueError:
        return None
    base = helpers.settings().public_url or request.url_root
    return f"{base.rstrip('/')}/hooks/{token}"


@bp.post("/settings/inbound")
@requires(Role.ADMIN)
def create() -> Any:
    """A new address; with a preset, its mapping is there from the start."""
    session = db.session()
    given = {name: request.form.get(name, "").strip() for name in ("name", "preset")}
    actor = helpers.actor().name
    try:
        source = sources.create(
            session, helpers.here(), given["name"], cipher=current_app.extensions["cipher"], actor=actor
        )
    except (Invalid, Conflict) as error:
        session.rollback()
        problems = helpers.problems_of(error) if isinstance(error, Invalid) else {"name": "is taken already"}
        return _list(422, given=given, problems=problems)
    if preset := PRESETS.get(given["preset"]):
        sources.save_mapping(session, source, preset.mapping, actor=actor)
    source_id = source.id
    session.commit()
    return helpers.see("sources.show", source_id=source_id)


@bp.get("/settings/inbound/<uuid:source_id>")
@requires(Role.ADMIN)
def show(source_id: uuid.UUID) -> Any:
    """``?preset=``: its mapping in the editor, not yet saved."""
    source = _source(source_id)
    if helpers.is_htmx("first-request"):
        return _first_request(source)
    preset = PRESETS.get(request.args.get("preset", ""))
    return _page(source, preset.mapping if preset else source.mapping, unsaved=preset is not None)


def _first_request(source: InboundSource) -> Any:
    """What a page that waits for it gets: nothing, or that it has come. What is typed there is left alone."""
    if source.last_sample is None:
        return "", 204
    return helpers.show("components/first_request.html", source=source)


def _source(source_id: uuid.UUID, *, lock: bool = False) -> InboundSource:
    return sources.get(db.session(), helpers.here(), source_id, lock=lock)


def _page(source: InboundSource, given: dict[str, str], status: int = 200, **extra: Any) -> Any:
    sample = sources.sample(source)
    guessed = suggested(sample) if not source.mapping else None
    shown: dict[str, Any] = {"problems": {}, "proof": None, "limits": None, "unsaved": False}
    return helpers.show(
        "pages/source.html",
        source=source,
        address=address(source),
        curl=CURL.format(address=address(source)),
        groups=GROUPS,
        given=given,
        preview=preview(source, given),
        tree=_tree(sample),
        held=sources.held(db.session(), source),
        presets=PRESETS,
        guessed=guessed,
        proofs=list(Verification),
        status=status,
        **(shown | extra),
    )


def _tree(sample: Any) -> list[Node]:
    return tree_of(sample) if isinstance(sample, dict) else []


def preview(source: InboundSource, given: dict[str, str]) -> dict[str, Any]:
    """What ``given`` makes of the last sample: per field a value or a problem, and the lead with its verdict."""
    problems = {problem.field: problem.reason for problem in mapping.problems_of(given)}
    usable = {name: text for name, text in given.items() if name not in problems}
    sample = sources.sample(source)
    if sample is None:
        return {"values": {}, "notes": {}, "problems": problems, "lead": None, "sample": False, "refused": ""}
    cipher = current_app.extensions["cipher"]
    reading = mapping.read(
        usable,
        sample if mapping.size_problem(sample) else cipher.unseal(sample, cipher.tokens(sample)),
        source=source.name,
        source_id=source.id,
        seal=cipher.seal,
    )
    found: dict[str, Any] = {
        "values": {name: showable(text) for name, text in reading.values.items()},
        "notes": reading.notes,
        "problems": problems,
        "lead": reading.lead,
        "sample": True,
        "refused": reading.refused,
    }
    if reading.lead:
        workspace = current_user.workspace
        verdict = intake.judge(reading.lead, rulebook.compiled(db.session(), workspace.ruleset_id))
        status = suspicion.status_of(verdict, auto_from=workspace.auto_from, draft_from=workspace.draft_from)
        found |= {"verdict": verdict, "status": status}
    return found


def _given() -> dict[str, str]:
    """The mapping of the form, empty fields left out."""
    texts = {name: request.form.get(f"map-{name}", "").strip() for name in mapping.FIELDS}
    return {name: text for name, text in texts.items() if text}


@bp.post("/settings/inbound/<uuid:source_id>/preview")
@requires(Role.ADMIN)
def show_preview(source_id: uuid.UUID) -> Any:
    """For htmx the parts of the page that tell what the form yields; else the page, with what was typed."""
    source, given = _source(source_id), _given()
    if helpers.is_htmx():
        return helpers.show("pages/source_preview.html", groups=GROUPS, given=given, preview=preview(source, given))
    return _page(source, given, unsaved=given != source.mapping)


@bp.post("/settings/inbound/<uuid:source_id>/mapping")
@requires(Role.ADMIN)
def save(source_id: uuid.UUID) -> Any:
    source, given = _source(source_id, lock=True), _given()
    try:
        sources.save_mapping(db.session(), source, given, actor=helpers.actor().name)
    except Invalid as error:
        db.session.rollback()
        return _page(_source(source_id), given, 422, problems=helpers.problems_of(error), unsaved=True)
    waiting = sources.held(db.session(), source)
    db.session.commit()
    helpers.toast("Saved", f"{waiting} held requests can be replayed now" if waiting else "the next request is read so")
    return helpers.see("sources.show", source_id=source_id)


@bp.post("/settings/inbound/<uuid:source_id>/proof")
@requires(Role.ADMIN)
def save_proof(source_id: uuid.UUID) -> Any:
    """How requests prove themselves. An empty secret keeps the one that is there."""
    source = _source(source_id, lock=True)
    given = {name: request.form.get(name, "").strip() for name in ("verification", "secret", "header", "prefix")}
    how = helpers.chosen("verification", Verification) or Verification.NONE
    keeps = not given["secret"] and source.secret is not None and how is source.verification
    problems = {}
    if not keeps and (wrong := secret_problem(how, given["secret"])):
        problems["secret"] = wrong
    try:
        sources.save_proof(
            db.session(),
            source,
            how,
            secret=None if keeps else given["secret"],
            header=given["header"],
            prefix=given["prefix"],
            cipher=current_app.extensions["cipher"],
            actor=helpers.actor().name,
        )
    except Invalid as error:
        problems |= helpers.problems_of(error)
    if problems:
        db.session.rollback()
        source = _source(source_id)
        return _page(source, source.mapping, 422, problems=problems, proof=given)
    db.session.commit()
    helpers.toast("Saved", f"requests prove themselves by {words.word(how)}")
    return helpers.see("sources.show", source_id=source_id)


@bp.post("/settings/inbound/<uuid:source_id>/limits")
@requires(Role.ADMIN)
def save_limits(source_id: uuid.UUID) -> Any:
    """Its name and its limits; empty: the settings', 0: none."""
    source = _source(source_id, lock=True)
    given = {name: request.form.get(name, "").strip() for name in ("name", *LIMITS)}
    try:
        sources.save_limits(
            db.session(),
            source,
            {name: _whole(given[name]) for name in LIMITS},
            name=given["name"],
            actor=helpers.actor().name,
        )
    except (Invalid, Conflict) as error:
        db.session.rollback()
        problems = helpers.problems_of(error) if isinstance(error, Invalid) else {"name": "is taken already"}
        source = _source(source_id)
        return _page(source, source.mapping, 422, problems=problems, limits=given)
    db.session.commit()
    helpers.toast("Saved", given["name"])
    return helpers.see("sources.show", source_id=source_id)


def _whole(text: str) -> int | None:
    """A whole number, None for nothing, -1 for what is none."""
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1


@bp.post("/settings/inbound/<uuid:source_id>/rotate")
@requires(Role.ADMIN)
def rotate(source_id: uuid.UUID) -> Any:
    source = _source(source_id, lock=True)
    sources.rotate(db.session(), source, cipher=current_app.extensions["cipher"], actor=helpers.actor().name)
    db.session.commit()
    helpers.toast("New address", "the one before has stopped working")
    return helpers.see("sources.show", source_id=source_id)


@bp.post("/settings/inbound/<uuid:source_id>/<any(on, off):mode>")
@requires(Role.ADMIN)
def switch(source_id: uuid.UUID, mode: str) -> Any:
    source = _source(source_id, lock=True)
    name = source.name
    sources.switch(db.session(), source, on=mode == "on", actor=helpers.actor().name)
    db.session.commit()
    helpers.toast("Switched on" if mode == "on" else "Switched off", name)
    return helpers.see("sources.show", source_id=source_id)


@bp.post("/settings/inbound/<uuid:source_id>/delete")
@requires(Role.ADMIN)
def delete(source_id: uuid.UUID) -> Any:
    """Only with its name typed again: the address cannot be had back."""
    source = _source(source_id, lock=True)
    name = source.name
    if request.form.get("confirm", "").strip() != name:
        db.session.rollback()
        source = _source(source_id)
        return _page(source, source.mapping, 422, problems={"confirm": "must be the webhook’s name, as above"})
    sources.delete(db.session(), source, actor=helpers.actor().name)
    db.session.commit()
    helpers.toast("Deleted", name)
    return helpers.see("sources.index")


@bp.post("/settings/inbound/<uuid:source_id>/replay")
@requires(Role.ADMIN)
def replay(source_id: uuid.UUID) -> Any:
    """Read what waits in quarantine with the mapping as it is now."""
    source = _source(source_id)
    ids = quarantine_replay.matching(
        db.session(),
        helpers.here(),
        state=QuarantineState.HELD,
        dialect=quarantine_replay.HOOK,
        source_id=source.id,
        limit=helpers.settings().max_batch_size,
    )
    helpers.toast("Replayed", replays.replay_many(helpers.here(), ids, current_tenant(), helpers.actor().name))
    return helpers.see("sources.show", source_id=source_id)


def current_tenant() -> intake.Tenant:
    """What intake has to know of the workspace that the request works in."""
    return cast(intake.Tenant, current_app.extensions["keyring"].tenant(current_user.workspace))

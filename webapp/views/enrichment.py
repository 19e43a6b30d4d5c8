"""Settings: where facts about leads come from."""

import uuid
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, current_app, request
from flask_login import current_user

from webapp.extensions import db
from webapp.leads import enrichment, enrichment_settings, enrichment_store, fact_mapping, flags, knowledge
from webapp.leads.enrichment_settings import Given
from webapp.leads.errors import Conflict, Invalid
from webapp.leads.states import AnswerState, LookupSubject, Role
from webapp.models.enrichment import EnrichmentProvider
from webapp.security.roles import requires
from webapp.views import helpers
from webapp.views import knowledge as shown

bp = Blueprint("enrichment", __name__)


@bp.get("/settings/enrichment")
@requires(Role.ADMIN)
def index() -> Any:
    return _page()


def _page(status: int = 200, *, days: str | None = None, problems: dict[str, str] | None = None) -> Any:
    session = db.session()
    on, kept = enrichment_settings.built_in(current_user.workspace)
    found = enrichment_settings.providers(session, helpers.here())
    return helpers.show(
        "pages/enrichment.html",
        on=on,
        days=kept if days is None else days,
        problems=problems or {},
        providers=[(row, enrichment_store.own(row).key) for row in found],
        health=enrichment_settings.health(session, helpers.here()),
        presets=enrichment_settings.PRESETS,
        most=enrichment_settings.MAX_PROVIDERS,
        timeout=helpers.settings().enrichment_timeout,
        feature_on=flags.of(current_user.workspace.settings.get("flags")).enrichment,
        now=datetime.now(UTC),
        status=status,
    )


@bp.post("/settings/enrichment")
@requires(Role.ADMIN)
def save() -> Any:
    session = db.session()
    days = request.form.get("max_age_days", "").strip()
    on = {name: name in request.form for name in enrichment_store.BUILT_IN}
    try:
        enrichment_settings.save_built_in(session, helpers.here(), on, days, actor=current_user.user.name)
    except Invalid as error:
        session.rollback()
        return _page(422, days=days, problems=helpers.problems_of(error))
    session.commit()
    helpers.toast("Saved", "runs go by it from now on")
    return helpers.see("enrichment.index")


@bp.get("/settings/enrichment/new")
@requires(Role.ADMIN)
def new() -> Any:
    return _form(None, enrichment_settings.from_preset(request.args.get("preset", "")))


@bp.post("/settings/enrichment/new")
@requires(Role.ADMIN)
def create() -> Any:
    return _save(None)


@bp.get("/settings/enrichment/<uuid:provider_id>")
@requires(Role.ADMIN)
def edit(provider_id: uuid.UUID) -> Any:
    row = enrichment_settings.provider(db.session(), helpers.here(), provider_id)
    return _form(row, enrichment_settings.given_of(row))


@bp.post("/settings/enrichment/<uuid:provider_id>")
@requires(Role.ADMIN)
def change(provider_id: uuid.UUID) -> Any:
    return _save(enrichment_settings.provider(db.session(), helpers.here(), provider_id))


def _form(row: EnrichmentProvider | None, given: Given, status: int = 200, **extra: Any) -> Any:
    plain: dict[str, Any] = {"problems": {}, "tried": None, "asked": ""}
    return helpers.show(
        "pages/enrichment_service.html",
        row=row,
        given=given,
        facts=fact_mapping.FACTS,
        labels=shown.LABELS,
        subjects=LookupSubject,
        status=status,
        **(plain | extra),
    )


def _given() -> Given:
    form = request.form
    fields = ("name", "subject", "url", "auth", "auth_name", "trust")
    return Given(
        **{name: form.get(name, "").strip() for name in fields},
        auth_prefix=form.get("auth_prefix", ""),
        secret=form.get("secret", "").strip() or None,
        mapping={name: form.get(f"map-{name}", "") for name in fact_mapping.FACTS},
    )


def _save(row: EnrichmentProvider | None) -> Any:
    session, given = db.session(), _given()
    provider_id = row.id if row else None
    try:
        saved = enrichment_settings.save(
            session, helpers.here(), given, row, cipher=current_app.extensions["cipher"], actor=current_user.user.name
        )
    except (Invalid, Conflict) as error:
        session.rollback()
        problems = helpers.problems_of(error) if isinstance(error, Invalid) else {"name": f"– {error.message}"}
        row = enrichment_settings.provider(session, helpers.here(), provider_id) if provider_id else None
        return _form(row, given, 422, problems=problems)
    session.commit()
    helpers.toast("Saved", f"{saved.name} is asked from now on; try it below")
    return helpers.see("enrichment.edit", provider_id=saved.id)


@bp.post("/settings/enrichment/<uuid:provider_id>/try")
@requires(Role.ADMIN)
def attempt(provider_id: uuid.UUID) -> Any:
    """Ask the service, as it is saved, about a typed domain or address, and show what would be learned."""
    session = db.session()
    row = enrichment_settings.provider(session, helpers.here(), provider_id)
    asked = " ".join(request.form.get("asked", "").split()).lower()
    source, given = enrichment_store.own(row), enrichment_settings.given_of(row)
    wrong = subject_problem(asked, source.subject)
    if wrong:
        return _form(row, given, 422, asked=asked, problems={"asked": wrong})
    session.commit()  # no transaction is open while the other side is waited for
    answer = enrichment.look(source, asked, current_app.extensions["lookups"]())
    row = enrichment_settings.provider(session, helpers.here(), provider_id)
    tried = {
        "found": answer.state is AnswerState.FOUND,
        "failed": answer.state is AnswerState.FAILED,
        "note": answer.note,
        "groups": shown.groups(knowledge.by_name(answer.facts)),
    }
    return _form(row, given, asked=asked, tried=tried)


def subject_problem(asked: str, subject: LookupSubject) -> str | None:
    """Why ``asked`` is none that a service of ``subject`` could be asked about."""
    if len(asked) > 320 or not asked.isprintable():
        return "is too long"
    if subject is LookupSubject.EMAIL:
        local, _, domain = asked.rpartition("@")
        return None if local and "." in domain else "must be an e-mail address"
    return None if "." in asked and not set(asked) & set("/@ :?#") else "must be a domain, such as acme.com"


@bp.post("/settings/enrichment/<uuid:provider_id>/<any(on, off):mode>")
@requires(Role.ADMIN)
def switch(provider_id: uuid.UUID, mode: str) -> Any:
    session = db.session()
    row = enrichment_settings.switch(session, helpers.here(), provider_id, mode == "on", actor=current_user.user.name)
    session.commit()
    helpers.toast(f"Switched {mode}", row.name)
    return helpers.see("enrichment.index")


@bp.post("/settings/enrichment/<uuid:provider_id>/reset")
@requires(Role.ADMIN)
def reset(provider_id: uuid.UUID) -> Any:
    session = db.session()
    row = enrichment_settings.reset(session, helpers.here(), provider_id)
    session.commit()
    helpers.toast("Asked again", f"{row.name} is not left alone any more")
    return helpers.see("enrichment.index")


@bp.post("/settings/enrichment/<uuid:provider_id>/remove")
@requires(Role.ADMIN)
def remove(provider_id: uuid.UUID) -> Any:
    session = db.session()
    name = enrichment_settings.remove(session, helpers.here(), provider_id, actor=current_user.user.name)
    session.commit()
    helpers.toast("Removed", f"{name}; what it said of leads stays with them")
    return helpers.see("enrichment.index")

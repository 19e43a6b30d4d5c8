"""Settings: how leads are scored. Everyone sees it; managers change it, with a preview on a recent lead."""

from typing import Any

from flask import Blueprint, request
from flask_login import current_user

from webapp.extensions import db
from webapp.leads import industries, scoring, scoring_preview
from webapp.leads.errors import Invalid
from webapp.leads.stages.score import LARGE_BUDGET, SHIPPED, SIZES, Model
from webapp.leads.states import Role
from webapp.security.roles import requires
from webapp.views import helpers, waterfall

bp = Blueprint("scoring", __name__)


@bp.get("/settings/scoring")
@requires(Role.VIEWER)
def index() -> Any:
    return _page(_standing())


def _standing() -> Model:
    return scoring.model_from(current_user.workspace.settings.get("score"))


def _page(model: Model, status: int = 200, *, given: dict[str, Any] | None = None, **extra: Any) -> Any:
    """``model``: what the preview shows; ``given``: what the form shows, if that is not it."""
    workspace = current_user.workspace
    shown: dict[str, Any] = {"problems": {}, "unsaved": False}
    return helpers.show(
        "pages/scoring.html",
        "preview",
        model=model,
        standing=_standing(),
        given=given or _given(model),
        points=model.points(),
        industries=industries.NAMES,
        size_choices=[(size, size.replace("-", "–")) for size in SIZES],
        shipped=SHIPPED,
        large_budget=LARGE_BUDGET.get(workspace.currency, LARGE_BUDGET["USD"]),
        versions=scoring.versions(db.session(), workspace.id),
        sample=_sample(model),
        status=status,
        **(shown | extra),
    )


def _given(model: Model) -> dict[str, Any]:
    profile = model.profile
    return {
        **{f"weight_{name}": str(weight) for name, weight in model.weights.items()},
        **{f"fit_{name}": str(weight) for name, weight in profile.weights.items()},
        "industries": profile.industries,
        "sizes": profile.sizes,
        "countries": ", ".join(sorted(profile.countries)),
        "half_life": f"{model.half_life:g}",
        "large_budget": f"{model.large_budget:.0f}" if model.large_budget else "",
    }


def _form() -> dict[str, Any]:
    lists = {name: frozenset(request.form.getlist(name)) for name in ("industries", "sizes")}
    return {name: value.strip() for name, value in request.form.items()} | lists


def _sample(model: Model) -> dict[str, Any] | None:
    """What ``model`` makes of the latest lead that was scored, beside what stands."""
    found = scoring_preview.of_latest(db.session(), helpers.here(), model, currency=current_user.workspace.currency)
    if found is None:
        return None
    cut = current_user.workspace.qualified_from
    return {
        "lead": found.lead,
        "score": found.score,
        "chart": waterfall.of([part.as_json() for part in found.score.parts], qualified_from=cut),
        "qualified_from": cut,
    }


@bp.post("/settings/scoring")
@requires(Role.MANAGER)
def save() -> Any:
    """``preview`` in the form: show what it would make of a lead, and save nothing."""
    given = _form()
    try:
        model = scoring.parsed(given, industries=industries.NAMES)
    except Invalid as error:
        return _page(_standing(), 422, given=given, problems=helpers.problems_of(error))
    if "preview" in given:
        return _page(model, given=given, unsaved=True)
    saved = scoring.save(db.session(), helpers.here(), model, actor=current_user.user.name)
    db.session.commit()
    helpers.toast("Saved", f"version {saved.version}; new runs score by it")
    return helpers.see("scoring.index")


@bp.post("/settings/scoring/restore")
@requires(Role.MANAGER)
def restore() -> Any:
    """Take ``version`` (0: as shipped) over as a new one."""
    text = request.form.get("version", "")
    version = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else -1
    saved = scoring.restore(db.session(), helpers.here(), version, actor=current_user.user.name)
    db.session.commit()
    helpers.toast("Restored", f"it is version {saved.version} now; new runs score by it")
    return helpers.see("scoring.index")

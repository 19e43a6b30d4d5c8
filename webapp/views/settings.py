"""Settings: thresholds. Everyone sees what holds; managers change it."""

from typing import Any

from flask import Blueprint, request
from flask_login import current_user

from webapp.extensions import db
from webapp.leads import audit
from webapp.leads.states import Role
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("settings", __name__)


@bp.get("/settings")
@requires(Role.VIEWER)
def index() -> Any:
    workspace = current_user.workspace
    given = {
        "auto_from": f"{workspace.auto_from:.2f}",
        "draft_from": f"{workspace.draft_from:.2f}",
        "qualified_from": str(workspace.qualified_from),
    }
    return helpers.show("pages/settings.html", given=given, problems={}, undo=helpers.settings().undo_window_seconds)


@bp.post("/settings")
@requires(Role.MANAGER)
def save() -> Any:
    """New verdicts go by the new thresholds; those that were given keep their status until their next run."""
    given = {name: request.form.get(name, "").strip() for name in ("auto_from", "draft_from", "qualified_from")}
    values, problems = _thresholds(given)
    if problems:
        return helpers.show(
            "pages/settings.html",
            given=given,
            problems=problems,
            undo=helpers.settings().undo_window_seconds,
            status=422,
        )
    workspace = current_user.workspace
    before = {name: getattr(workspace, name) for name in values}
    if before != values:
        for name, value in values.items():
            setattr(workspace, name, value)
        audit.record(
            db.session(), workspace.id, "SETTINGS_CHANGED", actor=current_user.user.name, before=before, after=values
        )
        db.session.commit()
    helpers.toast("Saved", "new verdicts go by these thresholds")
    return helpers.see("settings.index")


def _thresholds(given: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """(values, problem per field)."""
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name in ("auto_from", "draft_from"):
        try:
            values[name] = float(given[name])
        except ValueError:
            values[name] = -1.0
        if not 0 < values[name] <= 1:  # also refuses NaN
            problems[name] = "must be a number above 0 and up to 1, such as 0.85"
    if (
        not given["qualified_from"].isascii()
        or not given["qualified_from"].isdigit()
        or int(given["qualified_from"]) > 100
    ):
        problems["qualified_from"] = "must be a whole number from 0 to 100"
    else:
        values["qualified_from"] = int(given["qualified_from"])
    if not problems and values["draft_from"] > values["auto_from"]:
        problems["draft_from"] = "must not be above the threshold for auto"
    return values, problems

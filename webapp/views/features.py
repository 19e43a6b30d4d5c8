"""Settings: features that can be switched off, with what each does and what switching costs."""

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, abort, request
from flask_login import current_user

from jobs.queue import ring
from webapp.extensions import db
from webapp.leads import flags, task_texts
from webapp.leads.flags import Flag
from webapp.leads.states import Role
from webapp.leads.task_texts import Preferences
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("features", __name__)


@dataclass(frozen=True, slots=True)
class Feature:
    """A flag in words."""

    name: str
    does: str
    without: str


FEATURES = {
    Flag.ENRICHMENT: Feature(
        "Enrichment",
        "Each run looks up what the address, the number and the company tell, and shows it beside the lead.",
        "Runs leave that stage out. Leads are judged and scored by their own words.",
    ),
    Flag.ML_SCORING: Feature(
        "Learned scoring",
        "Scores use what was learned from the outcomes of earlier leads.",
        "Scores come from the rules alone.",
    ),
    Flag.AUTO_ROUTING: Feature(
        "Automatic routing",
        "Each run gives the lead to a member who takes leads.",
        "New leads belong to nobody and wait in manual review. Who has one already keeps it.",
    ),
    Flag.WEBHOOKS: Feature(
        "Outgoing webhooks",
        "Decisions are announced to your webhooks, and urgent social leads to the n8n follow-up.",
        "None is planned. What waits already is held until you switch them on again; then you choose to send or "
        "discard it.",
    ),
    Flag.LLM_COPYWRITING: Feature(
        "Tasks written by the model",
        "The model writes follow-up tasks: it chooses steps from our list and sums the message up. What it says is "
        "checked to be the lead's own words; otherwise, and when it fails, the template is used.",
        "Follow-up tasks say what the template says, by intent and priority.",
    ),
}


@bp.get("/settings/features")
@requires(Role.ADMIN)
def index() -> Any:
    return _page()


def _page(problem: str = "", status: int = 200) -> Any:
    session, stored = db.session(), current_user.workspace.settings.get("flags") or {}
    rows = [
        {
            "flag": flag,
            "feature": feature,
            "on": flags.of(stored).on(flag),
            "default": flags.defaults().on(flag),
            "chosen": isinstance(stored.get(flag.value), bool),
            "held": flags.waiting_webhooks(session, helpers.here()) if flag is Flag.WEBHOOKS else 0,
        }
        for flag, feature in FEATURES.items()
    ]
    return helpers.show(
        "pages/features.html",
        rows=rows,
        problem=problem,
        prefers=Preferences.of(current_user.workspace.settings.get("copywriting")),
        has_model=helpers.settings().has_model,
        copywriting=Flag.LLM_COPYWRITING,
        status=status,
    )


@bp.post("/settings/copywriting")
@requires(Role.ADMIN)
def prefer() -> Any:
    """In which language tasks are written."""
    if request.form.get("language") not in task_texts.LANGUAGES:
        abort(404)
    task_texts.prefer(db.session(), helpers.here(), request.form["language"], actor=current_user.user.name)
    db.session.commit()
    helpers.toast("Saved", "new texts go by this")
    return helpers.see("features.index")


@bp.post("/settings/features/<name>")
@requires(Role.ADMIN)
def save(name: str) -> Any:
    """Switch a feature ``on`` or ``off``, or have it follow the ``default``. Webhooks that were held in the meantime
    are to be sent or discarded (``waiting``)."""
    if name not in list(Flag) or request.form.get("to") not in ("on", "off", "default"):
        abort(404)
    flag, session = Flag(name), db.session()
    wanted = {"on": True, "off": False, "default": None}[request.form["to"]]
    was = flags.of_workspace(session, helpers.here()).on(flag)
    flags.choose(session, helpers.here(), flag, wanted, actor=current_user.user.name)
    now_on = flags.of_workspace(session, helpers.here()).on(flag)
    detail = ""
    if flag is Flag.WEBHOOKS and now_on and not was:
        held, waiting = flags.waiting_webhooks(session, helpers.here()), request.form.get("waiting")
        if held and waiting not in ("send", "discard"):
            session.rollback()
            return _page(f"{held:,} webhooks wait. Choose whether they are sent or discarded.", 422)
        if held and waiting == "discard":
            discarded = flags.discard_webhooks(session, helpers.here(), actor=current_user.user.name)
            owed = held - discarded
            detail = f"{discarded:,} discarded" + (f"; {owed:,} that take back or change go out" if owed else "")
        elif held:
            detail = f"{held:,} go out now"
    session.commit()
    if flag is Flag.WEBHOOKS:
        ring("deliveries")
    helpers.toast(f"{FEATURES[flag].name}: {'on' if now_on else 'off'}", detail)
    return helpers.see("features.index")

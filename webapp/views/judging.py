"""Judging: which judges a workspace wants, what may leave the house for it, what it may cost and has cost."""

from typing import Any

from flask import Blueprint, request
from flask_login import current_user

from webapp.extensions import db
from webapp.leads import audit, judging_policy, llm_usage, workspaces
from webapp.leads.judging_policy import Mode, Policy, Preferences
from webapp.leads.states import Role
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("judging", __name__)

#: Days that the page tells of.
DAYS = 30
_MOST_TOKENS = 10_000_000_000
_MOST_USD = 1_000_000.0


@bp.get("/settings/judging")
@requires(Role.MANAGER)
def index() -> Any:
    stored = Preferences.of(current_user.workspace.settings.get("classify"))
    return _page(
        {
            "mode": stored.mode.value if stored.mode else "",
            "share_personal": "yes" if stored.share_personal else "",
            "daily_tokens": "" if stored.daily_tokens is None else str(stored.daily_tokens),
            "daily_usd": "" if stored.daily_usd is None else f"{stored.daily_usd:g}",
        },
        {},
    )


def _page(given: dict[str, str], problems: dict[str, str], *, status: int = 200) -> Any:
    session, workspace, found = db.session(), current_user.workspace, helpers.settings()
    stored = Preferences.of(workspace.settings.get("classify"))
    spent = llm_usage.spent_today(session, workspace.id)
    return helpers.show(
        "pages/judging.html", given=given, problems=problems, policy=_policy(), holds=_policy().of(stored), modes=list(Mode),
        model=found.openai_model if found.has_model else None, price=found.llm_prices.get(found.openai_model),
        stored=stored, spent=spent, over=spent.over(stored), days=llm_usage.by_day(session, workspace.id, days=DAYS),
        window=DAYS, status=status,
    )  # fmt: skip


def _policy() -> Policy:
    """The deployment's."""
    found = helpers.settings()
    return judging_policy.policy(found.classify_mode, use_model=found.lead_classify_use_llm, available=found.has_model)


@bp.post("/settings/judging")
@requires(Role.MANAGER)
def save() -> Any:
    """Holds for leads that come or run from now on."""
    names = ("mode", "share_personal", "daily_tokens", "daily_usd")
    given = {name: request.form.get(name, "").strip() for name in names}
    wanted, problems = _read(given)
    if problems:
        return _page(given, problems, status=422)
    session = db.session()
    workspace = workspaces.locked(session, helpers.here())
    before = Preferences.of(workspace.settings.get("classify"))
    if before != wanted:
        workspace.settings = workspace.settings | {"classify": wanted.as_json()}
        audit.record(
            session, workspace.id, "JUDGING_CHANGED", actor=current_user.user.name, before=before.as_json(),
            after=wanted.as_json(),
        )  # fmt: skip
    session.commit()
    helpers.toast("Saved", "leads that come from now on are judged so")
    return helpers.see("judging.index")


def _read(given: dict[str, str]) -> tuple[Preferences, dict[str, str]]:
    """(preferences, problem per field)."""
    problems: dict[str, str] = {}
    found = helpers.settings()
    if given["mode"] and given["mode"] not in list(Mode):
        problems["mode"] = "must be one of those"
    elif given["mode"] in (Mode.LLM, Mode.RULES_THEN_LLM) and not found.has_model:
        problems["mode"] = "needs a language model, and none is configured on this server"
    tokens = usd = None
    if given["daily_tokens"]:
        plain = given["daily_tokens"].replace(",", "").replace(" ", "")
        if not plain.isascii() or not plain.isdigit() or int(plain[:20]) > _MOST_TOKENS:
            problems["daily_tokens"] = "must be a whole number, such as 200000"
        else:
            tokens = int(plain)
    if given["daily_usd"]:
        try:
            usd = float(given["daily_usd"].removeprefix("$"))
        except ValueError:
            usd = -1.0
        if not 0 <= usd <= _MOST_USD:  # also refuses NaN
            problems["daily_usd"] = "must be an amount, such as 5 or 2.50"
        elif not found.has_price:
            problems["daily_usd"] = f"cannot be kept: no price is known for {found.openai_model} (LLM_PRICES)"
    if problems:
        return Preferences(), problems
    mode = Mode(given["mode"]) if given["mode"] else None
    return Preferences(mode, given["share_personal"] == "yes", tokens, usd), {}

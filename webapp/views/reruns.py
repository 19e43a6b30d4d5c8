"""Re-runs of many leads: how many and at what cost, how far it is, stopping it, what came of it."""

import uuid
from typing import Any

from flask import Blueprint, request
from flask_login import current_user
from werkzeug.datastructures import MultiDict

from jobs.queue import IMPORTS, ring
from webapp.extensions import db
from webapp.leads import reruns
from webapp.leads.errors import Conflict, Invalid
from webapp.leads.filters import LeadFilter
from webapp.leads.reruns import UNDER_WAY
from webapp.leads.run_filters import RunFilter
from webapp.leads.states import Intent, LeadStatus, RerunState, Role
from webapp.security.roles import requires
from webapp.views import helpers, queue, runs, words

bp = Blueprint("reruns", __name__)

#: What is listed: its parameter ``of``.
LEADS, RUNS = "leads", "runs"


@bp.get("/reruns")
@requires(Role.VIEWER)
def index() -> Any:
    session = db.session()
    found = reruns.page(session, helpers.here(), cursor=request.args.get("cursor"))
    rows = [row[0] for row in found.rows]
    return helpers.show(
        "pages/reruns.html",
        "results",
        rows=rows,
        progress={one.id: reruns.progress(session, one) for one in rows},
        chosen=chosen,
        next_cursor=found.next_cursor,
        cursor=request.args.get("cursor"),
        under_way=any(one.state in UNDER_WAY for one in rows),
    )


@bp.get("/reruns/new")
@requires(Role.MANAGER)
def new() -> Any:
    """What a re-run of everything that a list shows would mean."""
    return _confirm(_args(request.args))


def _args(given: Any) -> dict[str, str]:
    """``of`` and the filter of its list."""
    if given.get("of") == RUNS:
        return {"of": RUNS, **runs.filter_args(given)}
    return {"of": LEADS, **helpers.filter_args(given)}


def _lead_ids(args: dict[str, str]) -> list[uuid.UUID]:
    wanted: LeadFilter | RunFilter
    wanted = RunFilter.parse(args) if args["of"] == RUNS else helpers.parse_filter(MultiDict(args))
    return reruns.leads_of(db.session(), helpers.here(), wanted)


def _confirm(args: dict[str, str], *, said: str = "", status: int = 200) -> Any:
    session, count, problem = db.session(), 0, said
    try:
        count = len(_lead_ids(args))
    except Invalid as error:
        unknown = " and ".join(f"“{one.field}”" for one in error.details)
        problem = f"The address names something under {unknown} that is not known." if unknown else error.message
        status = 422
    cost = reruns.measured_cost(session, helpers.here())
    return helpers.show(
        "pages/rerun_new.html",
        args=args,
        count=count,
        problem=problem,
        cost=cost,
        asks_model=_asks_model(),
        chosen=chosen(args),
        back=_back(args),
        status=status,
    )


def _asks_model() -> bool:
    found = helpers.settings()
    return found.has_model and found.lead_classify_use_llm and found.classify_mode != "rules"


def _back(args: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The list that it was asked for from: (endpoint, its parameters)."""
    rest = {name: value for name, value in args.items() if name != "of"}
    return ("runs.index" if args.get("of") == RUNS else "queue.index"), rest


#: Names of parameters for people, where the plain name does not do.
_NAMES = {"q": "text", "since": "asked for since", "slower": "took more than (s)", "stage": "with less, or failed, in"}
_VIEWS = dict(queue.TABS + queue.MORE_TABS)
_KINDS: dict[str, Any] = {"status": LeadStatus, "intent": Intent}


def chosen(args: dict[str, str]) -> str:
    """A filter in words: ``Waiting, intent: price inquiry``."""
    _, rest = _back(args)
    of_runs = args.get("of") == RUNS
    view = None if of_runs else rest.pop("view", None if "status" in rest else "waiting")
    said = [_VIEWS.get(view, words.plain(view))] if view else []
    said += [f"{_NAMES.get(name, words.plain(name))}: {_value(name, value)}" for name, value in rest.items()]
    return words.capitalize_first(", ".join(said)) or "All"


def _value(name: str, value: str) -> str:
    if name == "source":
        return words.named(value, "SOURCE")
    if name not in _KINDS:
        return value if name == "q" else words.plain(value)
    return ", ".join(words.member(_KINDS[name], one) for one in value.split(","))


@bp.post("/reruns")
@requires(Role.MANAGER)
def create() -> Any:
    """Start it, if as many leads match as when it was looked at."""
    session, args = db.session(), _args(request.form)
    try:
        lead_ids = _lead_ids(args)
        expected = int(request.form.get("count", ""))
    except (Invalid, ValueError):
        return _confirm(args, said="Look at the number again, then start it.", status=422)
    if len(lead_ids) != expected:
        now = f"{len(lead_ids):,} lead{'s' if len(lead_ids) != 1 else ''}"
        return _confirm(
            args, said=f"The list has changed since you looked: {now} now. Nothing was started.", status=409
        )
    try:
        rerun = reruns.start(session, helpers.here(), lead_ids, chosen_by=args, requested_by=current_user.user.name)
    except Conflict as error:
        session.rollback()
        return _confirm(args, said=error.message, status=409)
    rerun_id = rerun.id
    session.commit()
    ring(IMPORTS)
    return helpers.see("reruns.show", rerun_id=rerun_id)


@bp.get("/reruns/<uuid:rerun_id>")
@requires(Role.VIEWER)
def show(rerun_id: uuid.UUID) -> Any:
    session = db.session()
    rerun = reruns.get(session, helpers.here(), rerun_id)
    return helpers.show(
        "pages/rerun.html",
        "state",
        rerun=rerun,
        progress=reruns.progress(session, rerun),
        under_way=rerun.state in UNDER_WAY,
        states=RerunState,
        chosen=chosen(rerun.filter),
        back=_back(rerun.filter),
    )


@bp.post("/reruns/<uuid:rerun_id>/cancel")
@requires(Role.MANAGER)
def cancel(rerun_id: uuid.UUID) -> Any:
    session = db.session()
    taken_back = reruns.cancel(session, helpers.here(), rerun_id, actor=current_user.user.name)
    session.commit()
    helpers.toast("Stopped", f"{taken_back:,} runs that had not begun were taken back" if taken_back else "")
    return helpers.see("reruns.show", rerun_id=rerun_id)

"""Runs: what went through the stages, how long it took, what went wrong."""

import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, request

from webapp.extensions import db
from webapp.leads import counts, history, listings, reruns, run_filters
from webapp.leads.errors import Invalid
from webapp.leads.run_filters import RunFilter
from webapp.leads.states import Role, RunStatus, RunTrigger
from webapp.models.work import Run
from webapp.security.roles import requires
from webapp.views import helpers, knowledge

bp = Blueprint("runs", __name__)

SINCE = (("1h", "the last hour"), ("24h", "the last day"), ("7d", "the last week"), ("30d", "the last month"))
SLOWER = (("1", "1 s"), ("5", "5 s"), ("10", "10 s"), ("30", "30 s"), ("60", "1 min"))
OPEN = frozenset({RunStatus.QUEUED, RunStatus.RUNNING})


@bp.get("/runs")
@requires(Role.VIEWER)
def index() -> Any:
    session, workspace_id, args = db.session(), helpers.here(), filter_args(request.args)
    shown: dict[str, Any] = {"problem": None, "found": listings.Listing([], None, None), "wanted": RunFilter()}
    try:
        wanted = RunFilter.parse(args)
        shown |= {
            "wanted": wanted,
            "found": listings.runs(session, workspace_id, wanted, cursor=request.args.get("cursor")),
            "count": counts.how_many(session, Run, run_filters.conditions(workspace_id, wanted)),
        }
    except Invalid as error:
        unknown = " and ".join(f"“{problem.field}”" for problem in error.details)
        shown["problem"] = f"The address names something under {unknown} that this page does not know."
    return helpers.show(
        "pages/runs.html",
        "results",
        args=args,
        qs=urlencode(args),
        under_way=reruns.under_way(session, workspace_id),
        progress=lambda rerun: reruns.progress(session, rerun),
        statuses=list(RunStatus),
        triggers=list(RunTrigger),
        stages=run_filters.STAGES,
        since=SINCE,
        slower=SLOWER,
        bars=bars,
        **shown,
    )


def filter_args(given: Any) -> dict[str, str]:
    """The filter as query parameters, empty ones left out."""
    return {name: given[name].strip() for name in run_filters.PARAMETERS if given.get(name, "").strip()}


def bars(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each stage's part of a bar of 100 units, in order: ``name, ms, x, width``."""
    known = [(str(stage["name"]), float(stage.get("ms") or 0)) for stage in stages]
    total, x, found = sum(ms for _, ms in known), 0.0, []
    for name, ms in known if total else ():
        width = 100 * ms / total
        found.append({"name": name, "ms": ms, "x": round(x, 2), "width": round(width, 2)})
        x += width
    return found


@bp.get("/runs/<uuid:run_id>")
@requires(Role.VIEWER)
def show(run_id: uuid.UUID) -> Any:
    run = history.run(db.session(), helpers.here(), run_id)
    return helpers.show(
        "pages/run.html",
        "state",
        run=run,
        open=run.status in OPEN,
        steps=steps(run),
        bars=bars(run.stages),
        facts_said=knowledge.said_pairs,
        now=datetime.now(UTC),
    )


def steps(run: Run) -> list[dict[str, Any]]:
    """The stages of a run that is not over: ``name``, and whether it is ``done``, ``now`` or ``next``. A quick run does
    not say where it is; then all are to come, or may be under way."""
    if run.status is RunStatus.QUEUED:
        return [{"name": name, "is": "next"} for name in run_filters.STAGES]
    if run.stage not in run_filters.STAGES:
        return [{"name": name, "is": "now" if place == 0 else "next"} for place, name in enumerate(run_filters.STAGES)]
    here = run_filters.STAGES.index(run.stage)
    words = {-1: "done", 0: "now", 1: "next"}
    return [{"name": n, "is": words[(p > here) - (p < here)]} for p, n in enumerate(run_filters.STAGES)]

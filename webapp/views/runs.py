"""Runs: what went through the stages, how long it took, what went wrong."""

import uuid
from typing import Any

from flask import Blueprint, request

from webapp.extensions import db
from webapp.leads import history, listings
from webapp.leads.states import Role, RunStatus
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("runs", __name__)

UNREPAIRED = "unrepaired"


@bp.get("/runs")
@requires(Role.VIEWER)
def index() -> Any:
    given = request.args.get("status", "")
    status = RunStatus(given) if given in list(RunStatus) else None
    found = listings.runs(
        db.session(), helpers.here(), status=status, open_only=given == UNREPAIRED, cursor=request.args.get("cursor")
    )
    return helpers.show("pages/runs.html", "results", found=found, wanted=given, statuses=list(RunStatus))


@bp.get("/runs/<uuid:run_id>")
@requires(Role.VIEWER)
def show(run_id: uuid.UUID) -> Any:
    return helpers.show("pages/run.html", run=history.run(db.session(), helpers.here(), run_id))

"""``/healthz`` (the process answers) and ``/readyz`` (it can do its work, and what is degraded)."""

import time

import sqlalchemy as sa
from flask import Blueprint, Response, jsonify

from jobs import queue
from webapp.api.openapi import Answer, documented
from webapp.api.schemas import Alive, Ready
from webapp.extensions import db

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@blueprint.get("/health")
@documented("The process answers", tag="Health", public=True, answers={200: Alive})
def alive() -> Response:
    return jsonify(status="ok")


@blueprint.get("/readyz")
@documented(
    "It can do its work",
    tag="Health",
    public=True,
    description="What it needs, checked now. Without Redis it is degraded and goes on; without PostgreSQL it answers 503.",
    answers={200: Ready, 503: Answer(Ready, "PostgreSQL is away.")},
)
def ready() -> Response:
    checks: dict[str, str] = {}
    started = time.perf_counter()
    try:
        db.session.execute(sa.text("SELECT version_num FROM alembic_version"))
        checks["postgresql"] = "ok"
    except sa.exc.SQLAlchemyError:
        db.session.rollback()
        checks["postgresql"] = "away"
    checks["redis"] = (
        "ok" if queue.answers() else "away: intake and review go on, background work catches up when it is back"
    )
    ok = checks["postgresql"] == "ok"
    degraded = [name for name, state in checks.items() if state != "ok"]
    response = jsonify(
        status="unavailable" if not ok else "degraded" if degraded else "ok",
        checks=checks,
        degraded=degraded,
        ms=round((time.perf_counter() - started) * 1000, 1),
    )
    if not ok:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return response

"""``GET /metrics`` for Prometheus: what the web processes counted, and the queues as PostgreSQL has them."""

import tomllib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, Flask, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from webapp import metrics
from webapp.api import auth
from webapp.api.openapi import Answer, documented
from webapp.errors import is_json_path
from webapp.extensions import db
from webapp.leads import alerts
from webapp.leads.states import DeliveryState, FetchState, ImportState, QuarantineState, RunStatus, Scope
from webapp.models.inbound import Fetch, Import
from webapp.models.lead import Quarantined
from webapp.models.scoring import ScoreFallback
from webapp.models.work import Delivery, Run

blueprint = Blueprint("metrics", __name__)

#: queue → (table, its state column, the states in which work waits for a worker or is being done). All have a partial
#: index on just these.
QUEUES: dict[str, tuple[Any, Any, tuple[Any, ...]]] = {
    "runs": (Run, Run.status, (RunStatus.QUEUED, RunStatus.RUNNING)),
    "deliveries": (Delivery, Delivery.state, (DeliveryState.PENDING, DeliveryState.SENDING)),
    "imports": (
        Import,
        Import.state,
        (ImportState.QUEUED, ImportState.RUNNING, ImportState.UNDO_QUEUED, ImportState.UNDOING),
    ),
    "fetches": (Fetch, Fetch.state, (FetchState.PENDING, FetchState.FETCHING)),
}
PAGES = "pages"
_WAITING = {RunStatus.QUEUED, DeliveryState.PENDING, ImportState.QUEUED, ImportState.UNDO_QUEUED, FetchState.PENDING}


@lru_cache(maxsize=1)
def version() -> str:
    """The product's version, from pyproject.toml."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def install(app: Flask) -> None:
    """Count every answer."""

    @app.after_request
    def count(response: Response) -> Response:
        rule = request.url_rule
        if request.endpoint != "static":
            door = PAGES if not is_json_path(request.path) else rule.rule if rule else "unknown"
            method = request.method if rule else "ANY"  # what no rule knows may be called anything
            metrics.figures().answered(method, door, response.status_code)
        return response


@blueprint.get("/metrics")
@documented(
    "Figures for Prometheus",
    tag="Health",
    scope=Scope.ADMIN,
    description="Requests of all web processes on this host, and the queues as PostgreSQL has them: those of the key's "
    "workspace, or of all workspaces with a platform key.",
    answers={200: Answer(str, "Prometheus text format.", media="text/plain")},
)
def scrape() -> Response:
    principal = auth.identify()
    everything = Scope.PLATFORM.value in principal.scopes
    if not everything:
        principal.require(Scope.ADMIN)
    registry = metrics.registry()
    registry.register(_Queues(None if everything else principal.workspace_id))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _Queues:
    """A collector of what PostgreSQL knows."""

    def __init__(self, workspace_id: Any) -> None:
        self._workspace_id = workspace_id

    def collect(self) -> Iterable[Metric]:
        depth = GaugeMetricFamily(
            "leadops_queue_depth", "Rows that wait for a worker or are in work.", labels=("queue", "state")
        )
        oldest = GaugeMetricFamily(
            "leadops_queue_oldest_due_seconds",
            "For how long the oldest row that is due has waited; 0 when none is.",
            labels=("queue",),
        )
        for queue, (model, state, open_states) in QUEUES.items():
            counts, age = self._queue(model, state, open_states)
            for one in open_states:
                depth.add_metric((queue, one.value), counts.get(one, 0))
            oldest.add_metric((queue,), age)
        yield depth
        yield oldest
        yield GaugeMetricFamily(
            "leadops_deliveries_stuck", "Deliveries that need a person (dead letters, uncertain ones).",
            value=self._count(Delivery, Delivery.state, (DeliveryState.DEAD, DeliveryState.UNCERTAIN)),
        )  # fmt: skip
        yield GaugeMetricFamily(
            "leadops_quarantine", "Webhook entries kept in quarantine.",
            value=self._count(Quarantined, Quarantined.state, (QuarantineState.HELD,)),
        )  # fmt: skip
        standing = GaugeMetricFamily(
            "leadops_alerts", "Alerts that stand: open ones and acknowledged ones.", labels=("kind",)
        )
        for kind, count in alerts.standing(db.session(), self._workspace_id).items():
            standing.add_metric((kind,), count)
        yield standing
        failed = CounterMetricFamily(
            "leadops_score_fallbacks", "Components of scores that could not be worked out.", labels=("component",)
        )
        for component, times in db.session.execute(self._fallbacks()):
            failed.add_metric((component,), int(times))
        yield failed
        built = GaugeMetricFamily("leadops_build_info", "What runs here.", labels=("version", "python"))
        built.add_metric((version(), metrics.python_version()), 1)
        yield built

    def _queue(self, model: Any, state: Any, states: tuple[Any, ...]) -> tuple[dict[Any, int], float]:
        """(state → rows, seconds that the oldest due row has waited)."""
        waited = sa.func.extract("epoch", sa.func.now() - sa.func.min(model.due_at))
        rows = db.session.execute(
            self._mine(sa.select(state, sa.func.count(), waited).group_by(state), model, state, states)
        ).all()
        ages = [float(age) for found, _, age in rows if found in _WAITING]  # a row in work waits no more
        return {found: count for found, count, _ in rows}, max([0.0, *ages])

    def _fallbacks(self) -> Any:
        query = sa.select(ScoreFallback.component, sa.func.sum(ScoreFallback.times)).group_by(ScoreFallback.component)
        mine = query if self._workspace_id is None else query.where(ScoreFallback.workspace_id == self._workspace_id)
        return mine.order_by(ScoreFallback.component)

    def _count(self, model: Any, state: Any, states: tuple[Any, ...]) -> int:
        return db.session.scalar(self._mine(sa.select(sa.func.count()).select_from(model), model, state, states)) or 0

    def _mine(self, query: Any, model: Any, state: Any, states: tuple[Any, ...]) -> Any:
        # The states as literals: a partial index is used only when the planner can prove its predicate.
        literals = [sa.literal(one, state.type, literal_execute=True) for one in states]
        query = query.where(state.in_(literals))
        return query if self._workspace_id is None else query.where(model.workspace_id == self._workspace_id)

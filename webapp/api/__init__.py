"""JSON doors (docs/api.md), one module per door. None of them knows sessions or CSRF tokens."""

from flask import Flask

from webapp.api import (
    audit,
    auth,
    batch,
    body,
    crm,
    crm_calls,
    docs,
    enrich,
    health,
    hooks,
    imports,
    metrics,
    onboarding,
    quarantine,
    signals,
    triage,
    v1,
    v1_outcomes,
    v1_reads,
    v1_stats,
)
from webapp.api.meta import doors as meta
from webapp.extensions import csrf


def register(app: Flask) -> None:
    """Open the doors."""
    auth.install(app)
    meta.install(app)
    enrich.install(app)
    app.after_request(auth.tell_budget)
    app.after_request(body.finish)
    metrics.install(app)
    first = (health, metrics, docs, enrich, triage, crm, crm_calls, signals, meta, hooks)
    for module in (*first, v1, v1_outcomes, batch, imports, v1_reads, v1_stats, quarantine, audit, onboarding):
        csrf.exempt(module.blueprint)
        app.register_blueprint(module.blueprint)

"""JSON doors (docs/api.md), one module per door. None of them knows sessions or CSRF tokens."""

from flask import Flask

from webapp.api import audit, auth, body, health, signals, triage, v1
from webapp.extensions import csrf


def register(app: Flask) -> None:
    """Open the doors."""
    auth.install(app)
    app.after_request(auth.tell_budget)
    app.after_request(body.finish)
    for module in (health, triage, signals, v1, audit):
        csrf.exempt(module.blueprint)
        app.register_blueprint(module.blueprint)

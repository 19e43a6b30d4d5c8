"""Browser pages: one module per page, each a permission, a form, one call of the domain, a redirect."""

from flask import Flask

from webapp.views import (
    auth,
    corrections,
    decisions,
    deliveries,
    destinations,
    export,
    helpers,
    keys,
    lead,
    members,
    queue,
    runs,
    settings,
)


def register(app: Flask) -> None:
    """Register the pages, and what their templates need."""
    helpers.install(app)
    for page in (auth, queue, export, lead, corrections, decisions, runs, deliveries, settings, members, keys, destinations):
        app.register_blueprint(page.bp)

"""Browser pages: one module per page, each a permission, a form, one call of the domain, a redirect."""

from flask import Flask

from webapp.views import (
    alerts,
    auth,
    corrections,
    decisions,
    deliveries,
    destinations,
    documentation,
    export,
    features,
    helpers,
    hours,
    imports,
    judging,
    keys,
    lead,
    members,
    people,
    quarantine,
    queue,
    reruns,
    routing,
    rules,
    runs,
    scoring,
    settings,
    social_pages,
    sources,
    suppression,
    task_texts,
    webpages,
)


def register(app: Flask) -> None:
    """Register the pages, and what their templates need."""
    helpers.install(app)
    for page in (
        auth,
        queue,
        export,
        lead,
        task_texts,
        corrections,
        people,
        decisions,
        runs,
        reruns,
        deliveries,
        settings,
        rules,
        judging,
        scoring,
        suppression,
        members,
        keys,
        documentation,
        destinations,
        features,
        imports,
        social_pages,
        webpages,
        sources,
        quarantine,
        alerts,
        routing,
        hours,
    ):
        app.register_blueprint(page.bp)

"""``/api/openapi.json`` and ``/api/docs``: the doors described, for programs and for people. Both are public."""

from typing import Any

from flask import Blueprint, Response, current_app, json, render_template

from webapp.api import auth, openapi
from webapp.api.metrics import version
from webapp.api.openapi import Answer, documented

blueprint = Blueprint("docs", __name__)

SWAGGER_UI = "vendor/swagger-ui@5.35.0"


def document() -> dict[str, Any]:
    """The OpenAPI document, made once: doors do not change while the process runs."""
    found: dict[str, Any] | None = current_app.extensions.get("openapi")
    if found is None:
        found = openapi.build(current_app, version=version(), server=auth.settings().public_url or "/")
        current_app.extensions["openapi"] = found
    return found


@blueprint.get("/api/openapi.json")
@documented("This document", tag="Documentation", public=True, answers={200: Answer(dict[str, Any], "OpenAPI 3.1.")})
def specification() -> Response:
    return Response(json.dumps(document(), ensure_ascii=False), content_type="application/json")


@blueprint.get("/api/docs")
@documented(
    "The doors, to read and to try", tag="Documentation", public=True,
    answers={200: Answer(str, "Swagger UI.", media="text/html")},
)  # fmt: skip
def page() -> str:
    return render_template("pages/apidocs.html", swagger=SWAGGER_UI)

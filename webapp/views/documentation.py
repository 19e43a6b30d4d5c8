"""``/docs``: where people look for the API's documentation."""

from flask import Blueprint, redirect, url_for
from werkzeug.wrappers import Response

bp = Blueprint("documentation", __name__)


@bp.get("/docs")
def index() -> Response:
    return redirect(url_for("docs.page"))

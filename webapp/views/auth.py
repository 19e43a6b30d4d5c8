"""Log in, log out, switch workspace."""

import uuid
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, abort, redirect, request, url_for
from flask_login import current_user, login_required

from webapp.extensions import db, limiter
from webapp.security import passwords, sessions
from webapp.views import helpers

bp = Blueprint("auth", __name__)


@bp.get("/")
def home() -> Any:
    return redirect(url_for("queue.index"))


@bp.get("/login")
def login() -> Any:
    if current_user.is_authenticated:
        return redirect(_next_page())
    return helpers.show("pages/login.html", email="", wrong=False, next_page=request.args.get("next", ""))


@bp.post("/login")
# Before the hash, which takes 0.1 s of a core.
@limiter.limit("20 per minute; 100 per hour", error_message="There were too many log-in attempts. Wait a minute.")
def log_in() -> Any:
    email, password = request.form.get("email", ""), request.form.get("password", "")
    user = sessions.find_user(email) if "\x00" not in email else None
    # One answer for a wrong password, an unknown address and a user without workspace: it tells nobody who exists.
    if not passwords.check_password(user.password_hash if user else None, password) or not sessions.log_in(user):
        return helpers.show(
            "pages/login.html", email=email, wrong=True, next_page=request.form.get("next", ""), status=401
        )
    db.session.commit()
    return redirect(_next_page())


@bp.post("/logout")
def log_out() -> Any:
    sessions.log_out()
    return helpers.see("auth.login")


@bp.post("/workspace")
@login_required  # type: ignore[untyped-decorator]
def switch_workspace() -> Any:
    try:
        chosen = sessions.choose_workspace(helpers.me(), uuid.UUID(request.form.get("workspace", "")))
    except ValueError:
        chosen = False
    if not chosen:
        abort(404)
    return helpers.see("queue.index")


def _next_page() -> str:
    """Where the visitor wanted to go, if that is a page of ours: no other host, no scheme."""
    wanted = request.values.get("next", "")
    parts = urlsplit(wanted)
    safe = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and not parts.netloc and "\\" not in wanted
    return wanted if safe else url_for("queue.index")

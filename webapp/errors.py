"""Domain error → HTTP, in one place: the JSON envelope for doors, a page that says what to do for people."""

import re
import uuid
from typing import Any

from flask import Flask, Response, current_app, g, jsonify, render_template, request
from flask_login import AnonymousUserMixin
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from webapp import logs
from webapp.extensions import db
from webapp.leads.errors import Conflict, Forbidden, Invalid, LeadError, NotFound, Permanent, Problem, Transient
from webapp.models.faults import is_contention, is_database_away

log = logs.get(__name__)

#: First path segments that belong to programs. Everything else is a page.
JSON_ROOTS = frozenset(
    {
        "api",
        "leads",
        "webhooks",
        "audit",
        "healthz",
        "readyz",
        "health",
        "enrich-lead",
        "onboarding",
        "sync-crm",
        "tasks",
        "hooks",
        "metrics",
    }
)
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")

CODES = {
    400: "invalid_param",
    401: "invalid_auth",
    403: "insufficient_scope",
    404: "not_found",
    405: "method_not_allowed",
    409: "version_conflict",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "invalid_param",
    429: "rate_limited",
    500: "internal",
    502: "upstream_failed",
    503: "unavailable",
}
STATUS_BY_TYPE: tuple[tuple[type[LeadError], int], ...] = (
    (Invalid, 400),
    (NotFound, 404),
    (Conflict, 409),
    (Forbidden, 403),
    (Transient, 503),
    (Permanent, 502),
)
STATUS_BY_CODE = {
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "invalid_auth": 401,
    "expired_key": 401,
    "rate_limited": 429,
    "insufficient_scope": 403,
}


class Unprocessable(Invalid):
    """Well-formed, but the contract of this door answers 422 rather than 400."""


def is_json_path(path: str) -> bool:
    return path.lstrip("/").partition("/")[0] in JSON_ROOTS


def is_json_door() -> bool:
    return is_json_path(request.path)


def told_path() -> str:
    """The path as a log may have it: the rule instead where a part of it is a secret, as in ``/hooks/<token>``."""
    rule = request.url_rule
    if rule is not None:
        return rule.rule if "token" in rule.arguments else request.path
    first = request.path.lstrip("/").partition("/")[0]
    return f"/{first}/…" if first == "hooks" else request.path  # an address that is none, but may hold one


def request_id() -> str:
    """The caller's own when it is a sane token, else a fresh one; the same for the whole request."""
    if "request_id" not in g:
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if _REQUEST_ID.match(given) else uuid.uuid4().hex
    return str(g.request_id)


def envelope(
    status: int,
    message: str,
    *,
    code: str | None = None,
    details: tuple[Problem, ...] = (),
    retry_after: float | None = None,
) -> Response:
    """The error envelope of every JSON door."""
    response = jsonify(
        error={
            "code": code or CODES.get(status, "internal"),
            "message": message,
            "details": [{"field": p.field, "reason": p.reason} for p in details],
            "request_id": request_id(),
        }
    )
    response.status_code = status
    if retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(retry_after)))
    return response


def status_of(error: LeadError) -> int:
    if isinstance(error, Unprocessable):
        return 422
    if error.code in STATUS_BY_CODE:
        return STATUS_BY_CODE[error.code]
    return next((status for kind, status in STATUS_BY_TYPE if isinstance(error, kind)), 500)


PAGES: dict[int, tuple[str, str]] = {
    400: ("That did not work", "The request could not be understood."),
    403: ("Not yours to open", "Your role does not allow this."),
    404: ("Nothing here", "This page does not exist, or it belongs to another workspace."),
    405: ("That did not work", "This address does not take that kind of request."),
    409: ("Something changed meanwhile", "What you acted on has changed since you opened it."),
    413: ("Too large", "What was sent is larger than this page takes."),
    429: ("Too many attempts", "There were too many attempts in a short time."),
    500: ("Something broke on our side", "The page could not be made because of an error of ours."),
    503: ("Short pause", "The database cannot be reached at the moment."),
}
NOTHING_CHANGED = "Nothing was changed, and no lead was lost."


def page(status: int, what: str | None = None, *, retry_after: float | None = None) -> Response:
    """An error page: what happened, what was kept, what to press."""
    if "_login_user" not in g:
        # Templates ask flask-login who is there, which asks the database; that may be what is away. These pages look
        # the same to everybody.
        g._login_user = AnonymousUserMixin()
    title, default = PAGES.get(status, PAGES[500])
    template = f"errors/{status if status in PAGES and status != 405 else 400}.html"
    body = render_template(
        template,
        title=title,
        what=what or default,
        kept=NOTHING_CHANGED,
        press=[("Try again", request.full_path if request.method == "GET" else (request.referrer or "/"))]
        if status in (429, 500, 503)
        else [("Go to the queue", "/")],
        request_id=request_id(),
    )
    response = Response(body, status, mimetype="text/html")
    if retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(retry_after)))
    return response


def answer(status: int, message: str | None, **kwargs: Any) -> Response:
    if is_json_door():
        return envelope(status, message or PAGES.get(status, PAGES[500])[1], **kwargs)
    return page(status, message, retry_after=kwargs.get("retry_after"))


def install(app: Flask) -> None:
    """Register the handlers and the request-id header."""

    @app.before_request
    def refuse_nul() -> Response | None:
        """PostgreSQL holds no NUL, so nothing is called so."""
        if "\x00" in request.path:
            return answer(404, None)
        if b"%00" in request.query_string:
            return answer(400, "A parameter holds a NUL character.")
        # Uploads are left alone: who sends one is asked before it is read (webapp.views.imports).
        if (
            request.mimetype == "application/x-www-form-urlencoded"
            and not is_json_door()
            and any("\x00" in text for pair in request.form.items(multi=True) for text in pair)
        ):
            return answer(400, "A field holds a NUL character.")
        return None

    @app.errorhandler(LeadError)
    def domain(error: LeadError) -> Response:
        db.session.rollback()
        status = status_of(error)
        retry = getattr(error, "retry_after", None) or (1 if status == 503 else None)
        return answer(status, error.message, code=error.code, details=error.details, retry_after=retry)

    @app.errorhandler(CSRFError)
    def forged(error: CSRFError) -> Response:
        return answer(400, "This form has expired, or did not come from this site. Open the page again and repeat it.")

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        if error.response is not None or (error.code or 500) < 400:  # redirects
            return error.get_response()  # type: ignore[return-value]
        status = error.code or 500
        spoken = error.description if error.description != type(error).description else None
        response = answer(status, spoken)
        for name, value in error.get_headers():
            if name in ("Allow", "Retry-After"):
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        try:
            db.session.rollback()
        except Exception:  # the connection itself is gone; the pool drops it
            db.session.remove()
        if is_database_away(error):
            if logs.say_database_away():
                log.warning("database away", path=told_path(), error=logs.in_a_line(error))
            return answer(
                503,
                "The database cannot be reached. Send it again, with the same Idempotency-Key if it had one.",
                retry_after=1,
            )
        if is_contention(error):
            return answer(503, "Others were changing the same thing. Nothing was done; send it again.", retry_after=1)
        log.error("unexpected error", path=told_path(), request_id=request_id(), exc_info=error)
        if current_app.testing and not current_app.config.get("ANSWER_ERRORS"):
            raise error
        return answer(500, None)

    @app.after_request
    def tell_request_id(response: Response) -> Response:
        response.headers["X-Request-ID"] = request_id()
        return response

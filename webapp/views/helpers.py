"""What all pages share: fragments for htmx, links that keep the filter, toasts, versioned assets."""

import hashlib
import time
import uuid
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from flask import (
    Flask,
    Response,
    current_app,
    flash,
    g,
    get_flashed_messages,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_login import current_user
from jinja2_fragments.flask import render_block
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response as AnyResponse

from webapp.config import Settings
from webapp.extensions import db, login_manager
from webapp.leads import members, queries
from webapp.leads.errors import Invalid, LeadError
from webapp.leads.members import Someone
from webapp.leads.queries import Glance, LeadFilter
from webapp.leads.review import Actor
from webapp.leads.states import Role
from webapp.views import events, times, words
from webapp.views.markdown import markdown

HTMX_VERSION = "4.0.1"
HTMX_CDN = f"https://cdn.jsdelivr.net/npm/htmx.org@{HTMX_VERSION}/dist/htmx.min.js"
HTMX_LOCAL = f"vendor/htmx@{HTMX_VERSION}/htmx.min.js"
HTMX_INTEGRITY = "sha384-Qp9rdC8H7EqOoX+nR0P3RPG2Noji+qdwJlGpfzwQJsfOpp3sGwIdSP9xO3+UlEhn"

#: Query parameters that make up a list's filter, in the order in which links carry them.
FILTERS = (
    "view", "status", "intent", "priority", "source", "assignee", "q", "person_id", "import_id",
    "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "landing_page", "referrer", "gclid",
    "fbclid", "consent", "consent_from", "consent_to", "sort", "suppressed",
)  # fmt: skip
YEAR = 365 * 24 * 3600
SOURCES_SECONDS = 30.0


def install(app: Flask) -> None:
    """Template globals and filters, the log-in redirect, caching of assets."""
    app.jinja_options = {**app.jinja_options, "trim_blocks": True, "lstrip_blocks": True}
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(
        word=words.word,
        pair=words.pair,
        said=words.status_of,
        plain=words.plain,
        capitalize_first=words.capitalize_first,
        named=words.named,
        effect=words.effect,
        full_stop=words.full_stop,
        ago=times.ago,
        moment=times.moment,
        duration=times.duration,
        said_pairs=words.said_pairs,
        scope_word=words.scope_word,
        intent_word=words.intent_word,
        sender=words.sender,
        sentence=words.sentence,
        size=words.size,
        stage_said=words.stage_said,
        markdown=markdown,
    )
    app.jinja_env.globals.update(
        asset=asset,
        assignees=assignees,
        event_words=events.event,
        glance=glance,
        htmx={"cdn": HTMX_CDN, "local": HTMX_LOCAL, "integrity": HTMX_INTEGRITY},
        is_htmx=is_htmx,
        lead_sources=lead_sources,
        lead_url=lead_url,
        may=may,
        now_utc=lambda: datetime.now(UTC),
        once=once,
        toasts=toasts,
        words=words,
        Role=Role,
    )
    app.extensions["lead_sources"] = {}
    login_manager.unauthorized_handler(_to_login)

    @app.after_request
    def vary(response: Response) -> Response:
        if request.endpoint == "static":
            if "v" in request.args or "/vendor/" in request.path:
                response.headers["Cache-Control"] = f"public, max-age={YEAR}, immutable"
        elif response.mimetype == "text/html":
            response.vary.update(("HX-Request", "HX-Target"))
        return response


def settings() -> Settings:
    found: Settings = current_app.extensions["settings"]
    return found


def me() -> uuid.UUID:
    found: uuid.UUID = current_user.user.id
    return found


def here() -> uuid.UUID:
    """The workspace that the request works in."""
    found: uuid.UUID = current_user.workspace_id
    return found


def actor() -> Actor:
    return Actor(name=current_user.user.name, user_id=current_user.user.id)


def may(role: Role) -> bool:
    """Whether whoever is logged in has at least ``role``; decides which controls are shown, never what is allowed."""
    return bool(current_user.is_authenticated and current_user.can(role))


def assignees() -> list[Someone]:
    """Who leads can be assigned to, read once a request, if the page asks."""
    if "assignees" not in g:
        g.assignees = members.members(db.session(), here())
    found: list[Someone] = g.assignees
    return found


def lead_sources() -> list[str]:
    """Sources that a filter suggests; for :data:`SOURCES_SECONDS` a new one is not among them, but can be typed."""
    known: dict[uuid.UUID, tuple[float, list[str]]] = current_app.extensions["lead_sources"]
    now = time.monotonic()
    found = known.get(here())
    if found is None or found[0] < now:
        found = known[here()] = (now + SOURCES_SECONDS, queries.sources(db.session(), here()))
    return found[1]


def glance() -> Glance:
    """The figures above the queue and in the rail, read once a request."""
    if "glance" not in g:
        g.glance = queries.glance(db.session(), here())
    found: Glance = g.glance
    return found


def once(macro: Any, *values: Any) -> Any:
    """What ``macro`` makes of these values and nothing else, made once a request: lists say the same again and again."""
    made: dict[Any, Any] = g.setdefault("made", {})
    key = (macro, *values)
    if key not in made:
        made[key] = macro(*values)
    return made[key]


def lead_url(lead_id: uuid.UUID) -> str:
    """As ``url_for`` says it; asked once a request, for lists."""
    if "lead_url" not in g:
        g.lead_url = url_for("lead.show", lead_id=_NOBODY).partition(str(_NOBODY))
    before, _, after = g.lead_url
    return f"{before}{lead_id}{after}"


_NOBODY = uuid.UUID(int=0)


def _to_login() -> AnyResponse:
    # An htmx request would swap the log-in page into a corner of this one: have the browser go there as a whole.
    if is_htmx():
        return Response(status=401, headers={"HX-Redirect": url_for("auth.login", next=_came_from())})
    return redirect(url_for("auth.login", next=request.full_path.rstrip("?") if request.method == "GET" else None))


def _came_from() -> str:
    path = request.headers.get("HX-Current-URL", "").split("://", 1)[-1]
    return "/" + path.partition("/")[2] if path else "/"


def is_htmx(target: str | None = None) -> bool:
    """Asked for by htmx as a fragment (for the element with id ``target``). Going back in history is not: it wants
    the whole page."""
    headers = request.headers
    if headers.get("HX-Request") != "true" or headers.get("HX-Request-Type") == "full":
        return False
    return target is None or headers.get("HX-Target", "").endswith(f"#{target}")


def show(template: str, *blocks: str, status: int = 200, **context: Any) -> Response:
    """The page; or, for htmx, its block named like the target of the request (else the first of ``blocks``)."""
    if blocks and is_htmx():
        wanted = request.headers.get("HX-Target", "").rpartition("#")[2]
        body = render_block(template, wanted if wanted in blocks else blocks[0], partial=True, **context)
    else:
        body = render_template(template, partial=False, **context)
    return make_response(body, status)


def see(endpoint: str, **values: Any) -> AnyResponse:
    """Redirect after a POST."""
    return redirect(url_for(endpoint, **values), 303)


def filter_args(source: Any = None) -> dict[str, str]:
    """The filter of the request as query parameters, empty ones left out."""
    given = request.args if source is None else source
    args = {name: ",".join(part for part in given.getlist(name) if part) for name in FILTERS}
    return {name: value for name, value in args.items() if value}


def parse_filter(args: Any) -> LeadFilter:
    """Invalid names what is not understood; the console's default view is what waits."""
    return LeadFilter.parse(MultiDict(args), me=me(), view="waiting")


def back_args() -> dict[str, str]:
    """The filter that a form carries along in its hidden field ``back``, so that it returns to the same list."""
    return filter_args(MultiDict(_pairs(request.form.get("back", ""))))


def _pairs(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query[:2_000])


def query_string(args: dict[str, str]) -> str:
    return urlencode(args)


def toast(text: str, detail: str = "", *, lead_id: uuid.UUID | None = None, until: datetime | None = None) -> None:
    """Say something on the next page. With ``until``, the decision on ``lead_id`` can be undone from it."""
    flash(
        {  # type: ignore[arg-type]
            "text": text,
            "detail": detail,
            "lead": str(lead_id) if lead_id else None,
            "until": until.isoformat() if until else None,
        },
        "toast",
    )


def toasts() -> list[dict[str, Any]]:
    """What there is to say, with the seconds that are left to undo."""
    found: list[dict[str, Any]] = []
    for said in get_flashed_messages(category_filter=["toast"]):
        left = 0
        if said["until"]:
            left = max(0, round((datetime.fromisoformat(said["until"]) - datetime.now(UTC)).total_seconds()))
        found.append({**said, "left": left})
    return found


def problems_of(error: LeadError) -> dict[str, str]:
    """field → what is wrong with it, for a form."""
    return {problem.field: problem.reason for problem in error.details} or {"": error.message}


def chosen(name: str, kind: Any) -> Any:
    """An enum member from the form; None when left empty. Invalid for what is none."""
    value = request.form.get(name, "").strip()
    try:
        return kind(value) if value else None
    except ValueError:
        raise Invalid("That choice does not exist. Open the page again and repeat it.") from None


def asset(path: str) -> str:
    """URL of a static file that changes with its content, so that browsers may keep it for a year."""
    return url_for("static", filename=path, v=_digest(str(current_app.static_folder), path))


@lru_cache(maxsize=64)
def _digest(folder: str, path: str) -> str:
    return hashlib.sha256((Path(folder) / path).read_bytes()).hexdigest()[:10]

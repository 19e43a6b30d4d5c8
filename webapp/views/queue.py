"""The queue: the list of leads with its filters, and beside it the lead that is open."""

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, g, request
from flask_login import current_user

from webapp.extensions import db
from webapp.leads import queries
from webapp.leads.errors import Invalid
from webapp.leads.queries import LeadFilter
from webapp.leads.states import Intent, Priority, RejectReason, Role
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("queue", __name__)

PAGE = 50
#: Always-visible tabs, and those behind "More".
TABS = (
    ("waiting", "Waiting"),
    ("escalate", "Escalate"),
    ("draft", "Draft"),
    ("auto", "Auto"),
    ("mine", "Mine"),
)
MORE_TABS = (
    ("overdue", "Overdue"),
    ("decided", "Decided"),
    ("approved", "Approved"),
    ("overridden", "Overridden"),
    ("rejected", "Rejected"),
    ("suppressed", "Suppressed"),
    ("manual", "Manual review"),
    ("backlog", "Waits for its team"),
    ("all", "Everything"),
)


SORTS = (("urgent", "most urgent"), ("due", "due first"), ("newest", "newest"), ("oldest", "oldest"))


@bp.get("/queue")
@requires(Role.VIEWER)
def index() -> Any:
    return helpers.show("pages/queue.html", "results", **context(), pane=None)


def context(args: dict[str, str] | None = None) -> dict[str, Any]:
    """All that the list side needs. A filter that is not understood shows as such above an empty list, not as a
    broken page."""
    args = helpers.filter_args() if args is None else args
    session, workspace_id = db.session(), helpers.here()
    shown: dict[str, Any] = {"problem": None, "args": args, "qs": helpers.query_string(args)}
    try:
        wanted = helpers.parse_filter(args)
        found = queries.page(session, workspace_id, wanted, cursor=request.args.get("cursor") or None, limit=PAGE)
    except Invalid as error:
        wanted, found = LeadFilter.parse({}, view="waiting"), queries.Page([], None, None)
        unknown = " and ".join(f"“{problem.field}”" for problem in error.details)
        shown["problem"] = f"The address names something under {unknown} that this page does not know."
    counts, g.glance = queries.counts_and_glance(session, workspace_id, wanted, me=helpers.me())
    return shown | {
        "wanted": wanted,
        "rows": found.rows,
        "next_cursor": found.next_cursor,
        "prev_cursor": found.prev_cursor,
        "counts": counts,
        "tabs": TABS,
        "more_tabs": MORE_TABS,
        "intents": list(Intent),
        "priorities": list(Priority),
        "reject_reasons": list(RejectReason),
        "asked_at": datetime.now(UTC),
        "sorts": SORTS,
        "me": current_user.user.id,
        "undo_seconds": helpers.settings().undo_window_seconds,
    }


@bp.get("/queue/news")
@requires(Role.VIEWER)
def news() -> Any:
    """How many leads of this list have come since it was shown. The list itself waits until the reader asks."""
    args = helpers.filter_args()
    try:
        since = datetime.fromisoformat(request.args.get("since", ""))
        wanted = helpers.parse_filter(args)
    except (ValueError, Invalid):
        since, wanted = None, None
    if since is None or since.tzinfo is None or wanted is None:
        return helpers.show("pages/news.html", n=0, qs="")
    n = queries.arrived_since(db.session(), helpers.here(), wanted, max(since, datetime.now(UTC) - timedelta(days=7)))
    return helpers.show("pages/news.html", n=n, qs=helpers.query_string(args))

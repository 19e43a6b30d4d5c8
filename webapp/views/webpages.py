"""Settings: public web pages that contacts are taken from."""

import uuid
from typing import Any

from flask import Blueprint, request
from flask_login import current_user

from jobs.queue import FETCHES, ring
from webapp.extensions import db
from webapp.leads import listings, webpages
from webapp.leads.errors import Invalid
from webapp.leads.states import FetchState, Role
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("webpages", __name__)


@bp.get("/settings/web-pages")
@requires(Role.ADMIN)
def index() -> Any:
    return _page()


def _page(status: int = 200, *, given: str = "", problems: tuple[str, ...] = ()) -> Any:
    session = db.session()
    found = listings.web_pages(session, helpers.here(), cursor=request.args.get("cursor"))
    return helpers.show(
        "pages/webpages.html",
        "list",
        found=found,
        leads=webpages.leads_of(session, helpers.here(), found.rows),
        under_way=webpages.under_way(found.rows),
        state=FetchState,
        most=webpages.MAX_URLS,
        given=given,
        problems=problems,
        cursor=request.args.get("cursor"),
        status=status,
    )


@bp.post("/settings/web-pages")
@requires(Role.ADMIN)
def add() -> Any:
    """Put the pages on the list; a worker fetches them in turn."""
    session = db.session()
    given = request.form.get("urls", "")
    try:
        asked = webpages.ask(session, helpers.here(), given, actor=current_user.user.name)
    except Invalid as error:
        session.rollback()
        return _page(422, given=given, problems=tuple(problem.reason for problem in error.details))
    session.commit()
    ring(FETCHES)
    said = f"{asked.known} on the list already; press “Fetch again” there" if asked.known else "they are being fetched"
    helpers.toast(f"{asked.added} page{'' if asked.added == 1 else 's'} added", said)
    return helpers.see("webpages.index")


@bp.post("/settings/web-pages/<uuid:fetch_id>/again")
@requires(Role.ADMIN)
def again(fetch_id: uuid.UUID) -> Any:
    session = db.session()
    target = webpages.again(session, helpers.here(), fetch_id, actor=current_user.user.name).target
    session.commit()
    ring(FETCHES)
    helpers.toast("Fetching again", target)
    return helpers.see("webpages.index")


@bp.post("/settings/web-pages/<uuid:fetch_id>/remove")
@requires(Role.ADMIN)
def remove(fetch_id: uuid.UUID) -> Any:
    session = db.session()
    target = webpages.remove(session, helpers.here(), fetch_id, actor=current_user.user.name)
    session.commit()
    helpers.toast("Taken off the list, its leads stay", target)
    return helpers.see("webpages.index")

"""Settings: where leads go."""

import uuid
from typing import Any

from flask import Blueprint, current_app, request
from flask_login import current_user

from jobs.queue import ring
from webapp.extensions import db
from webapp.leads import destinations
from webapp.leads.errors import Conflict, Invalid
from webapp.leads.states import DestinationMode, Role
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("destinations", __name__)


@bp.get("/settings/destinations")
@requires(Role.ADMIN)
def index() -> Any:
    return _page()


def _page(status: int = 200, **extra: Any) -> Any:
    session = db.session()
    shown: dict[str, Any] = {"given": {}, "problems": {}, "secret": None}
    return helpers.show(
        "pages/destinations.html",
        found=destinations.listing(session, helpers.here()),
        waiting=destinations.waiting(session, helpers.here()),
        environment=destinations.ENVIRONMENT,
        mode=DestinationMode,
        status=status,
        **(shown | extra),
    )


@bp.post("/settings/destinations")
@requires(Role.ADMIN)
def create() -> Any:
    """A signed outgoing webhook; its signing secret is shown once, on the answer to this very request."""
    session = db.session()
    given = {name: request.form.get(name, "").strip() for name in ("name", "url", "secret")}
    try:
        row, secret = destinations.create_webhook(
            session,
            helpers.here(),
            given["name"],
            given["url"],
            given["secret"] or None,
            cipher=current_app.extensions["cipher"],
            actor=current_user.user.name,
            only_qualified="only_qualified" in request.form,
        )
    except (Invalid, Conflict) as error:
        session.rollback()
        problems = helpers.problems_of(error) if isinstance(error, Invalid) else {"name": error.message}
        return _page(422, given=given | {"only_qualified": "only_qualified" in request.form}, problems=problems)
    created = {"name": row.name, "secret": secret}
    session.commit()
    return _page(201, secret=created)


@bp.post("/settings/destinations/<uuid:destination_id>/<any(on, off):mode>")
@requires(Role.ADMIN)
def switch(destination_id: uuid.UUID, mode: str) -> Any:
    session = db.session()
    wanted = DestinationMode.LIVE if mode == "on" else DestinationMode.OFF
    row = destinations.set_mode(session, helpers.here(), destination_id, wanted, actor=current_user.user.name)
    name = row.name
    session.commit()
    ring("deliveries")
    helpers.toast("Switched on" if mode == "on" else "Switched off", name)
    return helpers.see("destinations.index")

"""On a destination's page: reading back what became of its leads."""

import uuid
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, request
from flask_login import current_user

from jobs.queue import ring
from webapp.extensions import db
from webapp.leads import crm_pulls, destinations
from webapp.leads.errors import Invalid
from webapp.leads.states import Role
from webapp.security.roles import requires
from webapp.views import helpers
from webapp.views.destinations import show_one

bp = Blueprint("crm_pulls", __name__)


@bp.post("/settings/destinations/<uuid:destination_id>/read-back")
@requires(Role.ADMIN)
def save(destination_id: uuid.UUID) -> Any:
    session = db.session()
    won, lost = request.form.get("won_stages", ""), request.form.get("lost_stages", "")
    enabled = "enabled" in request.form
    try:
        crm_pulls.save(
            session,
            helpers.here(),
            destination_id,
            enabled=enabled,
            won=won,
            lost=lost,
            actor=current_user.user.name,
        )
    except Invalid as error:
        session.rollback()
        given = {"enabled": enabled, "won_stages": won, "lost_stages": lost}
        return show_one(destination_id, read_back=given | {"problems": helpers.problems_of(error)}, status=422)
    name = destinations.find(session, helpers.here(), destination_id).name
    session.commit()
    ring("fetches")
    helpers.toast("Saved", f"{name} is read by these settings" if enabled else f"{name} is not read back any more")
    return helpers.see("destinations.edit", destination_id=destination_id)


@bp.post("/settings/destinations/<uuid:destination_id>/read-back/now")
@requires(Role.ADMIN)
def now(destination_id: uuid.UUID) -> Any:
    session = db.session()
    left_alone_until = crm_pulls.now(session, helpers.here(), destination_id)
    session.commit()
    ring("fetches")
    if left_alone_until:
        minutes = max(1, round((left_alone_until - datetime.now(UTC)).total_seconds() / 60))
        helpers.toast("Asked for", f"it is left alone at the moment, and read in about {minutes} min")
    else:
        helpers.toast(
            "Asked for", "it is read as soon as a worker is free; what is new then shows here and on the leads"
        )
    return helpers.see("destinations.edit", destination_id=destination_id)

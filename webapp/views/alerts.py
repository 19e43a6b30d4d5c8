"""Alerts: what admins should see to, acknowledged and resolved by them."""

import uuid
from typing import Any

from flask import Blueprint, request

from webapp.extensions import db
from webapp.leads import alerts
from webapp.leads.states import AlertState, Role
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("alerts", __name__)

TABS = (("standing", "Standing"), ("resolved", "Resolved"))


@bp.get("/alerts")
@requires(Role.ADMIN)
def index() -> Any:
    view = "resolved" if request.args.get("view") == "resolved" else "standing"
    found = alerts.page(
        db.session(), helpers.here(), standing=view == "standing", cursor=request.args.get("cursor") or None
    )
    return helpers.show("pages/alerts.html", "results", found=found, view=view, tabs=TABS, states=AlertState)


@bp.post("/alerts/<uuid:alert_id>/acknowledge")
@requires(Role.ADMIN)
def acknowledge(alert_id: uuid.UUID) -> Any:
    """It stays listed, in the name of whoever pressed, and no longer counts in the rail."""
    alerts.acknowledge(db.session(), helpers.here(), alert_id, actor=helpers.actor().name)
    db.session.commit()
    helpers.toast("Acknowledged", "it stays here until it is resolved")
    return helpers.see("alerts.index")


@bp.post("/alerts/<uuid:alert_id>/resolve")
@requires(Role.ADMIN)
def resolve(alert_id: uuid.UUID) -> Any:
    """Should it happen again, a new alert is opened."""
    alerts.close(db.session(), helpers.here(), alert_id, actor=helpers.actor().name)
    db.session.commit()
    helpers.toast("Resolved", "should it happen again, a new alert opens")
    return helpers.see("alerts.index")

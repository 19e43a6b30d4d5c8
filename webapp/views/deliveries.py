"""Deliveries: what went out, what is on its way, what needs a person."""

import uuid
from typing import Any

from flask import Blueprint, request
from flask_login import current_user

from jobs.queue import ring
from webapp.extensions import db
from webapp.leads import deliver, flags, history, listings
from webapp.leads.states import DeliveryState, Role
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("deliveries", __name__)

STUCK = "stuck"


@bp.get("/deliveries")
@requires(Role.VIEWER)
def index() -> Any:
    given = request.args.get("state", "")
    destination = _uuid(request.args.get("destination", ""))
    found = listings.deliveries(
        db.session(),
        helpers.here(),
        state=DeliveryState(given) if given in list(DeliveryState) else None,
        stuck=given == STUCK,
        destination_id=destination,
        cursor=request.args.get("cursor"),
    )
    return helpers.show(
        "pages/deliveries.html",
        "results",
        found=found,
        state=given,
        destination=str(destination or ""),
        states=list(DeliveryState),
        destinations=listings.destinations(db.session(), helpers.here()),
        held=_held(),
    )


@bp.get("/deliveries/<uuid:delivery_id>")
@requires(Role.VIEWER)
def show(delivery_id: uuid.UUID) -> Any:
    delivery = history.delivery(db.session(), helpers.here(), delivery_id)
    return helpers.show(
        "pages/delivery.html",
        delivery=delivery,
        attempts=history.attempts_of(db.session(), delivery),
        states=DeliveryState,
    )


@bp.post("/deliveries/<uuid:delivery_id>/replay")
@requires(Role.MANAGER)
def replay(delivery_id: uuid.UUID) -> Any:
    session = db.session()
    deliver.replay(session, history.delivery(session, helpers.here(), delivery_id), actor=current_user.user.name)
    session.commit()
    ring("deliveries")
    helpers.toast("Queued again", "it goes out within seconds")
    return helpers.see("deliveries.show", delivery_id=delivery_id)


def _held() -> int:
    """How many webhooks are held because they are switched off."""
    if flags.of_workspace(db.session(), helpers.here()).webhooks:
        return 0
    return flags.waiting_webhooks(db.session(), helpers.here())


def _uuid(value: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(value) if value else None
    except ValueError:
        return None

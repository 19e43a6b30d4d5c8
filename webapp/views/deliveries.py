"""Deliveries: what went out, what is on its way, what needs a person."""

import uuid
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, request
from flask_login import current_user

from jobs.queue import ring
from webapp.extensions import db
from webapp.leads import (
    callbacks,
    counts,
    deliver,
    delivery_filters,
    delivery_waits,
    flags,
    history,
    listings,
    outbox,
    replays,
)
from webapp.leads.delivery_filters import DeliveryFilter
from webapp.leads.errors import Invalid
from webapp.leads.kinds import of as kind_of
from webapp.leads.kinds.base import Unknown
from webapp.leads.replays import STUCK
from webapp.leads.states import DeliveryState, DestinationKind, DestinationMode, Role
from webapp.models.work import Delivery
from webapp.security.roles import requires
from webapp.views import delivery_health, helpers, payloads, sent
from webapp.views.runs import SINCE

bp = Blueprint("deliveries", __name__)


@bp.get("/deliveries")
@requires(Role.VIEWER)
def index() -> Any:
    session, workspace_id = db.session(), helpers.here()
    args = given(delivery_filters.PARAMETERS)
    shown: dict[str, Any] = {"problem": None, "found": listings.Listing([], None, None), "wanted": DeliveryFilter()}
    try:
        wanted = DeliveryFilter.parse(args)
        where = delivery_filters.conditions(workspace_id, wanted)
        shown |= {
            "wanted": wanted,
            "found": listings.deliveries(session, workspace_id, where, cursor=request.args.get("cursor")),
            "count": counts.how_many(session, Delivery, where),
        }
    except Invalid as error:
        shown["problem"] = not_understood(error)
    return helpers.show(
        "pages/deliveries.html",
        "results",
        args=args,
        qs=urlencode(args),
        states=list(DeliveryState),
        actions=delivery_filters.ACTIONS,
        since=SINCE,
        destinations=listings.destinations(session, workspace_id),
        cards=[] if helpers.is_htmx() else delivery_health.cards(session, workspace_id),
        modes=DestinationMode,
        under_way=replays.under_way(session, workspace_id),
        held=_held(),
        **shown,
    )


def given(parameters: tuple[str, ...]) -> dict[str, str]:
    """The filter as query parameters, empty ones left out."""
    return {name: text for name in parameters if (text := request.args.get(name, "").strip())}


def not_understood(error: Invalid) -> str:
    unknown = " and ".join(f"“{problem.field}”" for problem in error.details)
    return f"The address names something under {unknown} that this page does not know."


@bp.get("/deliveries/<uuid:delivery_id>")
@requires(Role.VIEWER)
def show(delivery_id: uuid.UUID) -> Any:
    session = db.session()
    delivery = history.delivery(session, helpers.here(), delivery_id)
    return helpers.show(
        "pages/delivery.html",
        delivery=delivery,
        attempts=history.attempts_of(session, delivery),
        waits=delivery_waits.of(session, delivery),
        lines=sent.of(delivery),
        payload=payloads.rows(delivery.payload),
        answered=sent.answered,
        said_there=sent.said,
        states=DeliveryState,
        modes=DestinationMode,
        stuck=delivery.state in STUCK,
        address=_address(delivery),
        asks=kind_of(delivery.destination.kind).unknown is Unknown.ASKS,
    )


def _address(delivery: Delivery) -> str | None:
    """Of a callback, which goes where its lead says."""
    named = delivery.destination.kind is DestinationKind.CALLBACK and delivery.lead.callback_url
    return callbacks.shown(named) if named else None


@bp.post("/deliveries/<uuid:delivery_id>/replay")
@requires(Role.MANAGER)
def replay(delivery_id: uuid.UUID) -> Any:
    session = db.session()
    deliver.replay(session, history.delivery(session, helpers.here(), delivery_id), actor=current_user.user.name)
    session.commit()
    ring("deliveries")
    helpers.toast("Queued again", "it goes out within seconds")
    return helpers.see("deliveries.show", delivery_id=delivery_id)


@bp.get("/deliveries/<uuid:delivery_id>/edit")
@requires(Role.MANAGER)
def edit(delivery_id: uuid.UUID) -> Any:
    """What of it can be put right before it is sent again."""
    return _edit_form(delivery_id)


@bp.post("/deliveries/<uuid:delivery_id>/edit")
@requires(Role.MANAGER)
def save(delivery_id: uuid.UUID) -> Any:
    """Only what was changed is kept as put right; the rest still follows the lead."""
    session = db.session()
    delivery = history.delivery(session, helpers.here(), delivery_id)
    fields = replays.editable(session, delivery, public_url=helpers.settings().public_url)
    wanted = {
        field.name: text
        for field in fields
        if (text := request.form.get(f"to-{field.name}")) is not None
        and (field.edited or text.replace("\r\n", "\n").strip() != field.value.strip())
    }
    try:
        replays.edit(session, delivery, wanted, actor=current_user.user.name)
    except Invalid as error:
        session.rollback()
        return _edit_form(delivery_id, texts=wanted, problems=helpers.problems_of(error), status=422)
    session.commit()
    ring("deliveries")
    helpers.toast("Queued again", "with what you put right, for this delivery alone")
    return helpers.see("deliveries.show", delivery_id=delivery_id)


def _edit_form(
    delivery_id: uuid.UUID,
    *,
    texts: dict[str, str] | None = None,
    problems: dict[str, str] | None = None,
    status: int = 200,
) -> Any:
    session = db.session()
    delivery = history.delivery(session, helpers.here(), delivery_id)
    return helpers.show(
        "pages/delivery_edit.html",
        delivery=delivery,
        fields=replays.editable(session, delivery, public_url=helpers.settings().public_url),
        texts=texts or {},
        problems=problems or {},
        stuck=delivery.state in STUCK,
        status=status,
    )


@bp.get("/deliveries/<uuid:delivery_id>/let-go")
@requires(Role.MANAGER)
def confirm_let_go(delivery_id: uuid.UUID) -> Any:
    """What letting go of it means."""
    delivery = history.delivery(db.session(), helpers.here(), delivery_id)
    return helpers.show(
        "pages/delivery_let_go.html",
        delivery=delivery,
        may_be=delivery.state in (*STUCK, DeliveryState.PENDING),
        states=DeliveryState,
    )


@bp.post("/deliveries/<uuid:delivery_id>/let-go")
@requires(Role.MANAGER)
def let_go(delivery_id: uuid.UUID) -> Any:
    session = db.session()
    later = outbox.give_up(
        session, history.delivery(session, helpers.here(), delivery_id), actor=current_user.user.name
    )
    session.commit()
    helpers.toast("Let go", f"and {later} later {'step' if later == 1 else 'steps'} there" if later else "")
    return helpers.see("deliveries.show", delivery_id=delivery_id)


@bp.post("/deliveries/<uuid:delivery_id>/recorded/<any(send, discard):what>")
@requires(Role.MANAGER)
def settle_recorded(delivery_id: uuid.UUID, what: str) -> Any:
    """One that was only recorded goes out, or is discarded."""
    session = db.session()
    delivery = history.delivery(session, helpers.here(), delivery_id)
    outbox.settle_recorded(
        session, delivery.destination, send=what == "send", actor=current_user.user.name, delivery=delivery
    )
    session.commit()
    if what == "send":
        ring("deliveries")
    helpers.toast("Queued" if what == "send" else "Discarded")
    return helpers.see("deliveries.show", delivery_id=delivery_id)


def _held() -> int:
    """How many webhooks are held because they are switched off."""
    if flags.of_workspace(db.session(), helpers.here()).webhooks:
        return 0
    return flags.waiting_webhooks(db.session(), helpers.here())

"""Dead letters: what needs a person, and sending many of them again with a look at how far it is."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flask import Blueprint, request
from flask_login import current_user

from jobs.queue import ring
from webapp.extensions import db
from webapp.leads import counts, delivery_filters, listings, query_values, replays
from webapp.leads.errors import Conflict, Invalid, Problem
from webapp.leads.replays import UNDER_WAY, Choice
from webapp.leads.states import DeliveryState, ReplayState, Role
from webapp.models.work import Delivery, ReplayRequest
from webapp.security.roles import requires
from webapp.views import deliveries, helpers, times, words
from webapp.views.runs import SINCE

bp = Blueprint("dead_letters", __name__)

#: Query parameters that make up the filter.
PARAMETERS = ("destination", "action", "since", "error", "q")
#: As many as can be ticked on a page, and then some.
_MOST_TICKED = 500


@bp.get("/deliveries/dead")
@requires(Role.VIEWER)
def index() -> Any:
    session, workspace_id = db.session(), helpers.here()
    args = deliveries.given(PARAMETERS)
    shown: dict[str, Any] = {"problem": None, "found": listings.Listing([], None, None)}
    try:
        where = replace(_choice(args), uncertain=True).conditions(workspace_id)
        shown |= {
            "found": listings.deliveries(session, workspace_id, where, cursor=request.args.get("cursor")),
            "count": counts.how_many(session, Delivery, where),
        }
    except Invalid as error:
        shown["problem"] = deliveries.not_understood(error)
    return helpers.show(
        "pages/dead_letters.html",
        "results",
        args=args,
        actions=delivery_filters.ACTIONS,
        since=SINCE,
        destinations=listings.destinations(session, workspace_id),
        under_way=replays.under_way(session, workspace_id),
        recent=replays.recent(session, workspace_id),
        **shown,
    )


def _choice(args: dict[str, str], ids: Sequence[str] = ()) -> Choice:
    """Dead ones only. Invalid names what is not understood."""
    problems: list[Problem] = []
    ticked = [query_values.identifier(one, "ids", problems) for one in ids[:_MOST_TICKED]]
    choice = Choice(
        destination_id=query_values.identifier(args.get("destination", ""), "destination", problems),
        action=delivery_filters.action(args.get("action", ""), problems),
        since=query_values.since(args.get("since", ""), problems),
        error=query_values.text(args.get("error", "")) or None,
        text=query_values.text(args.get("q", "")) or None,
        ids=tuple(one for one in ticked if one is not None) if ids else None,
    )
    if problems:
        raise Invalid("some filters are not understood", details=tuple(problems))
    return choice


def _numbers(choice: Choice) -> tuple[int, int]:
    """How many are dead, and of how many nobody knows whether they arrived."""
    session, workspace_id = db.session(), helpers.here()
    dead = replays.count(session, workspace_id, choice)
    return dead, replays.count(session, workspace_id, replace(choice, uncertain=True)) - dead


@bp.get("/deliveries/replays/new")
@requires(Role.MANAGER)
def new() -> Any:
    """What sending these again would mean. ``only=ticked``: those of ``ids``."""
    return _confirm(deliveries.given(PARAMETERS), request.args.getlist("ids"), "only" in request.args)


def _confirm(args: dict[str, str], ids: list[str], only: bool, *, said: str = "", status: int = 200) -> Any:
    dead, unsure, chosen, problem = 0, 0, "", said
    if only and not ids:
        problem = "None was ticked. Go back and tick those that are to be sent again."
    else:
        try:
            choice = _choice(args, ids)
            (dead, unsure), chosen = _numbers(choice), said_of(choice)
        except Invalid as error:
            problem, status = deliveries.not_understood(error), 422
    return helpers.show(
        "pages/replay_new.html",
        args=args,
        ids=ids,
        dead=dead,
        unsure=unsure,
        chosen=chosen,
        problem=problem,
        status=status,
    )


@bp.post("/deliveries/replays")
@requires(Role.MANAGER)
def create() -> Any:
    """Start it, if as many match as when it was looked at."""
    session, form = db.session(), request.form
    args = {name: text for name in PARAMETERS if (text := form.get(name, "").strip())}
    ids = form.getlist("ids")
    try:
        choice = _choice(args, ids)
        seen = (int(form.get("dead", "")), int(form.get("unsure", "")))
    except (Invalid, ValueError):
        return _confirm(args, ids, False, said="Look at the number again, then start it.", status=422)
    if _numbers(choice) != seen:
        said = "The list has changed since you looked. Nothing was started; these are the numbers now."
        return _confirm(args, ids, False, said=said, status=409)
    try:
        choice = replace(choice, uncertain="uncertain" in form)
        asked = replays.ask(session, helpers.here(), choice, actor=current_user.user.name)
    except Conflict as error:
        session.rollback()
        return _confirm(args, ids, False, said=error.message, status=409)
    request_id = asked.id
    session.commit()
    ring("deliveries")
    return helpers.see("dead_letters.show", request_id=request_id)


@bp.get("/deliveries/replays/<uuid:request_id>")
@requires(Role.VIEWER)
def show(request_id: uuid.UUID) -> Any:
    asked = replays.find(db.session(), helpers.here(), request_id)
    return helpers.show(
        "pages/replay.html",
        "state",
        replay=asked,
        share=share(asked),
        under_way=asked.state in UNDER_WAY,
        states=ReplayState,
        chosen=said_of(Choice.from_json(asked.chosen)),
    )


def share(asked: ReplayRequest) -> float:
    """How far it is, 0..1."""
    return min(asked.done / asked.total, 1.0) if asked.total else 1.0


@bp.post("/deliveries/replays/<uuid:request_id>/cancel")
@requires(Role.MANAGER)
def cancel(request_id: uuid.UUID) -> Any:
    session = db.session()
    asked = replays.cancel(session, helpers.here(), request_id, actor=current_user.user.name)
    done, total = asked.done, asked.total
    session.commit()
    helpers.toast("Stopped", f"{done:,} of {total:,} were queued again before")
    return helpers.see("dead_letters.show", request_id=request_id)


def said_of(choice: Choice) -> str:
    """Which ones, in words."""
    said = []
    if choice.ids is not None:
        said.append(f"{len(choice.ids):,} that were ticked")
    if choice.destination_id is not None:
        names = dict(listings.destinations(db.session(), helpers.here()))
        said.append(f"to {names.get(choice.destination_id, 'a destination that is gone')}")
    if choice.action:
        said.append(words.effect(choice.action))
    if choice.since is not None:
        said.append(f"given up since {times.moment(choice.since)}")
    if choice.error:
        said.append(f"failed with “{choice.error}”")
    if choice.text:
        said.append(f"of leads with “{choice.text}”")
    if choice.uncertain:
        said.append(f"also {words.word(DeliveryState.UNCERTAIN)} ones")
    return ", ".join(said) or "all that were given up"

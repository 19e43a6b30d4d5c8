"""Settings: routing. Rules in their order, teams, what members can take, absences; and a trial of it all."""

import uuid
from collections.abc import Callable
from typing import Any

from flask import Blueprint, request
from flask_login import current_user

from webapp.extensions import db
from webapp.leads import hours, routing_setup, routing_trial
from webapp.leads.errors import Invalid
from webapp.leads.hours import Calendar
from webapp.leads.industries import NAMES as INDUSTRIES
from webapp.leads.stages.route import CONDITIONS
from webapp.leads.states import Intent, Priority, Role, TeamPolicy
from webapp.security.roles import requires
from webapp.views import helpers, words
from webapp.views.hours import calendar_from, choices, given_hours, shown

bp = Blueprint("routing", __name__)

#: What a value of a condition looks like.
HINTS = {
    "country": "Two letters each, such as VN, US.",
    "region": "States or provinces as enrichment writes them, such as California, Hồ Chí Minh.",
    "postcode": "How it begins, such as 70, SW1.",
    "language": "Such as vi, en.",
    "source": "As leads have it, such as google_ads, website_form.",
}
CHOICES: dict[str, list[tuple[str, str]]] = {
    "industry": list(INDUSTRIES.items()),
    "company_size": [(size, size) for size in routing_setup.SIZES],
    "priority": [words.pair(one) for one in Priority],
    "intent": [words.pair(one) for one in Intent],
}


@bp.get("/settings/routing")
@requires(Role.VIEWER)
def index() -> Any:
    return _index()


def _index(status: int = 200, **extra: Any) -> Any:
    session, here = db.session(), helpers.here()
    return helpers.show(
        "pages/routing.html",
        rules=routing_setup.rules(session, here),
        teams=routing_setup.teams(session, here),
        people=routing_setup.people(session, here),
        absences=routing_setup.absences(session, here),
        otherwise=(current_user.workspace.settings.get("route") or {}).get("otherwise", "everybody"),
        said=conditions_said,
        status=status,
        **({"given": {}, "problems": {}} | extra),
    )


def conditions_said(conditions: dict[str, list[str]]) -> str:
    """``country VN or TH · priority P0``."""
    told = []
    for name, values in conditions.items():
        named = dict(CHOICES.get(name, ())) | (words.LANGUAGE if name == "language" else {})
        named |= words.SOURCE if name == "source" else {}
        said = [value if name == "priority" else named.get(value, value) for value in values]
        shown_ = " or ".join(said[:5]) + (f" or {len(said) - 5} more" if len(said) > 5 else "")
        told.append(f"{CONDITIONS.get(name, name)} {'begins with ' if name == 'postcode' else ''}{shown_}")
    return " · ".join(told) or "every lead"


@bp.get("/settings/routing/rules/new")
@requires(Role.MANAGER)
def new_rule() -> Any:
    return _rule_page(None, {"name": [""], "active": ["1"]})


@bp.get("/settings/routing/rules/<uuid:rule_id>")
@requires(Role.MANAGER)
def rule(rule_id: uuid.UUID) -> Any:
    found = routing_setup.rule(db.session(), helpers.here(), rule_id)
    given = {"name": [found.name], "team": [str(found.team_id)], "active": ["1"] if found.active else []}
    return _rule_page(rule_id, given | found.conditions)


def _rule_page(rule_id: uuid.UUID | None, given: dict[str, list[str]], problems: Any = None, status: int = 200) -> Any:
    return helpers.show(
        "pages/routing_rule.html",
        rule_id=rule_id,
        given=given,
        problems=problems or {},
        teams=[team for team, _ in routing_setup.teams(db.session(), helpers.here())],
        conditions=CONDITIONS,
        choices=CHOICES,
        hints=HINTS,
        status=status,
    )


@bp.post("/settings/routing/rules/new")
@requires(Role.MANAGER)
def create_rule() -> Any:
    return _save_rule(None)


@bp.post("/settings/routing/rules/<uuid:rule_id>")
@requires(Role.MANAGER)
def save_rule(rule_id: uuid.UUID) -> Any:
    return _save_rule(rule_id)


def _save_rule(rule_id: uuid.UUID | None) -> Any:
    given = {name: request.form.getlist(name) for name in ("name", "team", "active", *CONDITIONS)}
    try:
        saved = routing_setup.save_rule(db.session(), helpers.here(), rule_id, given, actor=helpers.actor().name)
    except Invalid as error:
        return _rule_page(rule_id, given, helpers.problems_of(error), 422)
    name = saved.name
    db.session.commit()
    helpers.toast("Saved", f"{name}; it holds for leads routed from now on")
    return helpers.see("routing.index")


@bp.post("/settings/routing/rules/<uuid:rule_id>/move")
@requires(Role.MANAGER)
def move_rule(rule_id: uuid.UUID) -> Any:
    up = request.form.get("to") == "up"
    routing_setup.move_rule(db.session(), helpers.here(), rule_id, up=up, actor=helpers.actor().name)
    db.session.commit()
    return helpers.see("routing.index")


@bp.post("/settings/routing/rules/<uuid:rule_id>/delete")
@requires(Role.MANAGER)
def delete_rule(rule_id: uuid.UUID) -> Any:
    name = routing_setup.delete_rule(db.session(), helpers.here(), rule_id, actor=helpers.actor().name)
    db.session.commit()
    helpers.toast("Deleted", name)
    return helpers.see("routing.index")


@bp.post("/settings/routing/otherwise")
@requires(Role.MANAGER)
def otherwise() -> Any:
    """What happens to leads that no rule fits."""
    said = request.form.get("otherwise", "")
    routing_setup.set_otherwise(db.session(), helpers.here(), said, actor=helpers.actor().name)
    db.session.commit()
    helpers.toast("Saved", "")
    return helpers.see("routing.index")


@bp.get("/settings/routing/teams/new")
@requires(Role.MANAGER)
def new_team() -> Any:
    return _team_page(None, {"name": "", "policy": TeamPolicy.LEAST_LOADED.value, "weights": {}}, shown(None))


@bp.get("/settings/routing/teams/<uuid:team_id>")
@requires(Role.MANAGER)
def team(team_id: uuid.UUID) -> Any:
    session = db.session()
    found = routing_setup.team(session, helpers.here(), team_id)
    given = {"name": found.name, "policy": found.policy.value, "weights": routing_setup.weights_of(session, found)}
    return _team_page(team_id, given, shown(hours.read(found.hours) if found.hours else None))


def _team_page(
    team_id: uuid.UUID | None, team_: dict[str, Any], given: dict[str, Any], problems: Any = None, status: int = 200
) -> Any:
    return helpers.show(
        "pages/routing_team.html",
        team_id=team_id,
        team=team_,
        given=given,
        problems=problems or {},
        people=routing_setup.people(db.session(), helpers.here()),
        policies=list(TeamPolicy),
        status=status,
        **choices(given),
    )


@bp.post("/settings/routing/teams/new")
@requires(Role.MANAGER)
def create_team() -> Any:
    return _save_team(None)


@bp.post("/settings/routing/teams/<uuid:team_id>")
@requires(Role.MANAGER)
def save_team(team_id: uuid.UUID) -> Any:
    return _save_team(team_id)


def _save_team(team_id: uuid.UUID | None) -> Any:
    given, form = given_hours(), request.form
    weights = {one.id: _weight(one.id) for one in routing_setup.people(db.session(), helpers.here())}
    chosen = {user_id: weight for user_id, weight in weights.items() if str(user_id) in form.getlist("member")}
    team_ = {"name": form.get("name", "").strip(), "policy": form.get("policy", ""), "weights": chosen}
    calendar, problems = _own_hours(given)
    if not problems:
        problems = _tried(
            lambda: routing_setup.save_team(
                db.session(), helpers.here(), team_id, calendar=calendar, actor=helpers.actor().name, **team_
            )
        )
    if problems:
        return _team_page(team_id, team_, given, problems, 422)
    db.session.commit()
    helpers.toast("Saved", team_["name"])
    return helpers.see("routing.index")


def _weight(user_id: uuid.UUID) -> int:
    said = request.form.get(f"weight-{user_id}", "1").strip() or "1"
    return int(said) if said.isascii() and said.isdigit() and len(said) < 4 else 0


def _own_hours(given: dict[str, Any]) -> tuple[Calendar | None, dict[str, str]]:
    if not given["own"]:
        return None, {}
    try:
        return calendar_from(given), {}
    except Invalid as error:
        return None, helpers.problems_of(error)


def _tried(do: Callable[[], Any]) -> dict[str, str]:
    """What is wrong with the fields, if anything is."""
    try:
        do()
    except Invalid as error:
        return helpers.problems_of(error)
    return {}


@bp.post("/settings/routing/teams/<uuid:team_id>/delete")
@requires(Role.MANAGER)
def delete_team(team_id: uuid.UUID) -> Any:
    name = routing_setup.delete_team(db.session(), helpers.here(), team_id, actor=helpers.actor().name)
    db.session.commit()
    helpers.toast("Deleted", f"{name}; what waited for it waits for everybody")
    return helpers.see("routing.index")


@bp.get("/settings/routing/members/<uuid:user_id>")
@requires(Role.MANAGER)
def member(user_id: uuid.UUID) -> Any:
    found, name = routing_setup.member(db.session(), helpers.here(), user_id)
    capacity = "" if found.capacity is None else str(found.capacity)
    return _member_page(user_id, name, capacity, shown(hours.read(found.hours) if found.hours else None))


def _member_page(
    user_id: uuid.UUID, name: str, capacity: str, given: dict[str, Any], problems: Any = None, status: int = 200
) -> Any:
    away = [one for one, _ in routing_setup.absences(db.session(), helpers.here()) if one.user_id == user_id]
    return helpers.show(
        "pages/routing_member.html",
        user_id=user_id,
        name=name,
        capacity=capacity,
        given=given,
        problems=problems or {},
        absences=away,
        status=status,
        **choices(given),
    )


@bp.post("/settings/routing/members/<uuid:user_id>")
@requires(Role.MANAGER)
def save_member(user_id: uuid.UUID) -> Any:
    _, name = routing_setup.member(db.session(), helpers.here(), user_id)
    given, capacity = given_hours(), request.form.get("capacity", "").strip()
    calendar, problems = _own_hours(given)
    if not problems:
        problems = _tried(
            lambda: routing_setup.save_member(
                db.session(),
                helpers.here(),
                user_id,
                capacity=capacity,
                calendar=calendar,
                actor=helpers.actor().name,
            )
        )
    if problems:
        return _member_page(user_id, name, capacity, given, problems, 422)
    db.session.commit()
    helpers.toast("Saved", name)
    return helpers.see("routing.index")


@bp.post("/settings/routing/members/<uuid:user_id>/absences")
@requires(Role.MANAGER)
def add_absence(user_id: uuid.UUID) -> Any:
    found, name = routing_setup.member(db.session(), helpers.here(), user_id)
    told = {key: request.form.get(key, "").strip() for key in ("first_day", "last_day", "note")}
    problems = _tried(
        lambda: routing_setup.add_absence(
            db.session(),
            helpers.here(),
            user_id,
            first=told["first_day"],
            last=told["last_day"],
            note=told["note"],
            actor=helpers.actor().name,
        )
    )
    if problems:
        capacity = "" if found.capacity is None else str(found.capacity)
        given = shown(hours.read(found.hours) if found.hours else None) | told
        return _member_page(user_id, name, capacity, given, problems, 422)
    db.session.commit()
    helpers.toast("Saved", f"{name} gets no leads on those days")
    return helpers.see("routing.member", user_id=user_id)


@bp.post("/settings/routing/absences/<uuid:absence_id>/remove")
@requires(Role.MANAGER)
def remove_absence(absence_id: uuid.UUID) -> Any:
    routing_setup.remove_absence(db.session(), helpers.here(), absence_id, actor=helpers.actor().name)
    db.session.commit()
    helpers.toast("Removed", "")
    return helpers.see("routing.index")


@bp.get("/settings/routing/trial")
@requires(Role.MANAGER)
def trial() -> Any:
    """Who would get the newest leads, or one, and why. Nothing is stored."""
    said = request.args.get("lead", "").strip().rpartition("/")[2]
    problem, lead_id = "", None
    try:
        lead_id = uuid.UUID(said) if said else None
    except ValueError:
        problem = "That is no lead's address. Copy it from the address bar of the lead's page."
    newest = request.args.get("newest", "20")
    newest = newest if newest in ("10", "20", "50") else "20"
    found = [] if problem else routing_trial.of(db.session(), helpers.here(), lead_id=lead_id, newest=int(newest))
    if lead_id and not found:
        problem = "There is no such lead in this workspace."
    return helpers.show(
        "pages/routing_trial.html", "results", found=found, problem=problem, lead=said, newest=newest,
        status=422 if problem else 200,
    )  # fmt: skip

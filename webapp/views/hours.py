"""Settings: working hours, holidays and the times within which a first decision is due."""

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, request
from flask_login import current_user

from webapp.extensions import db
from webapp.leads import hours, sla
from webapp.leads.errors import Invalid
from webapp.leads.hours import ALWAYS, DAYS, Calendar
from webapp.leads.states import Priority, Role
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("hours", __name__)

#: Names of the days in their order.
DAY_WORDS = dict(zip(DAYS, ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"), strict=True))
#: Offered where nothing is set yet.
_OFFICE = dict.fromkeys(DAYS[:5], "09:00-17:00")
FIELDS = ("time_zone", "country", "subdivision", "days_off", "days_on", *DAYS)


@bp.get("/settings/hours")
@requires(Role.VIEWER)
def index() -> Any:
    workspace = current_user.workspace
    calendar = hours.read(workspace.settings["hours"]) if workspace.settings.get("hours") else ALWAYS
    targets = {one.value: in_words(minutes) for one, minutes in sla.of_settings(workspace.settings).minutes.items()}
    return _page(shown(calendar), targets, {})


def _page(given: dict[str, Any], targets: dict[str, str], problems: dict[str, str], status: int = 200) -> Any:
    return helpers.show(
        "pages/hours.html",
        given=given,
        targets=targets,
        problems=problems,
        priorities=list(Priority),
        status=status,
        **choices(given),
    )


def choices(given: dict[str, Any]) -> dict[str, Any]:
    """What the fields of a calendar choose from, and what its holidays are this year."""
    year = datetime.now(UTC).year
    holidays = []
    if given.get("country") in hours.countries():
        calendar = Calendar(country=given["country"])
        if given.get("subdivision") in hours.countries()[given["country"]]:
            calendar = Calendar(country=given["country"], subdivision=given["subdivision"])
        holidays = hours.public_holidays(calendar, year)
    return {
        "days": DAY_WORDS,
        "zones": hours.time_zones(),
        "countries": hours.countries(),
        "holidays": holidays,
        "year": year,
    }


def shown(calendar: Calendar | None) -> dict[str, Any]:
    """A calendar as its form shows it. None: no own hours."""
    stored = (calendar or ALWAYS).as_json()
    week = stored.pop("week")
    lines = {day: ", ".join(week[day]) for day in DAYS} if week else _OFFICE
    text = {"days_off": " ".join(stored.pop("days_off")), "days_on": " ".join(stored.pop("days_on"))}
    return stored | text | lines | {"always": week is None, "own": calendar is not None}


def given_hours() -> dict[str, Any]:
    """The fields of a calendar as the form has sent them."""
    given: dict[str, Any] = {name: request.form.get(name, "").strip() for name in FIELDS}
    return given | {"always": request.form.get("when") == "always", "own": bool(request.form.get("own"))}


def calendar_from(given: dict[str, Any]) -> Calendar:
    """Invalid names every field that is not understood."""
    week = None if given["always"] else {day: given[day] for day in DAYS}
    return hours.read({name: given[name] for name in FIELDS if name not in DAYS} | {"week": week})


@bp.post("/settings/hours")
@requires(Role.MANAGER)
def save() -> Any:
    """What waits is told its new time within seconds; what is decided keeps the time that it had."""
    given = given_hours()
    targets = {one.value: request.form.get(one.value, "").strip() for one in Priority}
    problems: dict[str, str] = {}
    calendar, minutes = ALWAYS, {}
    try:
        calendar = calendar_from(given)
    except Invalid as error:
        problems |= helpers.problems_of(error)
    try:
        minutes = sla.targets_from(targets)
    except Invalid as error:
        problems |= helpers.problems_of(error)
    if problems:
        return _page(given, targets, problems, 422)
    sla.save(db.session(), helpers.here(), calendar=calendar, targets=minutes, actor=helpers.actor().name)
    db.session.commit()
    helpers.toast("Saved", "what waits is told its new time within seconds")
    return helpers.see("hours.index")


def in_words(minutes: int | None) -> str:
    """``15 min``, ``4 h``; empty for none. What :func:`sla.minutes_of` reads."""
    if minutes is None:
        return ""
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"

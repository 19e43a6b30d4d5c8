"""Who may get leads now: a workspace's members, teams and rules as the route stage takes them, read from the database."""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import hours
from webapp.leads.hours import ALWAYS, Calendar
from webapp.leads.stages.route import Board
from webapp.leads.states import WAITING_STATUSES, Role
from webapp.leads.types import Member, RoutingRule, Seat, Team
from webapp.models import routing as tables
from webapp.models.account import Membership, User, Workspace
from webapp.models.lead import Lead

#: What happens to leads that no rule fits (``Workspace.settings["route"]["otherwise"]``).
EVERYBODY, MANUAL = "everybody", "manual"

_LOAD = (
    sa.select(sa.func.count())
    .where(
        Lead.assignee_id == Membership.user_id,
        Lead.workspace_id == Membership.workspace_id,
        Lead.status.in_(WAITING_STATUSES),
    )
    .correlate(Membership)
    .scalar_subquery()
)


@dataclass(frozen=True, slots=True)
class _Place:
    """What holds for a workspace as a whole at one moment."""

    now: datetime
    calendar: Calendar
    otherwise: bool


def load(
    session: Session, workspace_ids: Iterable[uuid.UUID], *, now: datetime | None = None
) -> dict[uuid.UUID, Board]:
    """A board for each workspace. A viewer cannot decide, so is nobody here. ``now``: whose hours are looked at."""
    ids = list(workspace_ids)
    now = now or datetime.now(UTC)
    places = {
        row.id: _Place(now, hours.read_text(row.hours) or ALWAYS, (row.otherwise or EVERYBODY) == EVERYBODY)
        for row in session.execute(
            sa.select(
                Workspace.id,
                sa.cast(Workspace.settings["hours"], sa.Text).label("hours"),
                Workspace.settings["route"]["otherwise"].astext.label("otherwise"),
            ).where(Workspace.id.in_(ids))
        )
    }
    members, calendars = _members(session, ids, places)
    teams = _teams(session, ids, places, calendars)
    rules = _rules(session, ids)
    return {
        one: Board(members[one], teams[one], rules[one], otherwise=place.otherwise) for one, place in places.items()
    }


Key = tuple[uuid.UUID, uuid.UUID]


def _members(
    session: Session, ids: Sequence[uuid.UUID], places: dict[uuid.UUID, _Place]
) -> tuple[dict[uuid.UUID, list[Member]], dict[Key, Calendar | None]]:
    """(the members of each workspace, the own calendar of each or None)."""
    absences = _absences(session, ids)
    members: dict[uuid.UUID, list[Member]] = defaultdict(list)
    calendars: dict[Key, Calendar | None] = {}
    rows = session.execute(
        sa.select(
            Membership.workspace_id, Membership.user_id, Membership.takes_leads, Membership.capacity, User.name, User.email,
            sa.cast(Membership.hours, sa.Text).label("hours"), _LOAD.label("open_leads"),
        )
        .join(User, User.id == Membership.user_id)
        .where(Membership.workspace_id.in_(ids), Membership.role != Role.VIEWER, User.active)
        .order_by(User.name, User.id)
    )  # fmt: skip
    for row in rows:
        place, key = places[row.workspace_id], (row.workspace_id, row.user_id)
        own = hours.read_text(row.hours)
        calendars[key] = own
        calendar = own or place.calendar
        today = place.now.astimezone(calendar.zone).date()
        absent = next((f"absent until {day(last)}" for first, last in absences[key] if first <= today <= last), "")
        members[row.workspace_id].append(
            Member(
                str(row.user_id), row.name, row.open_leads, row.capacity, row.email, row.takes_leads, absent,
                away(calendar, place.now),
            )
        )  # fmt: skip
    return members, calendars


def _absences(session: Session, ids: Sequence[uuid.UUID]) -> dict[Key, list[tuple[date, date]]]:
    """Those that may hold somewhere on earth today."""
    absence = tables.Absence
    found: dict[Key, list[tuple[date, date]]] = defaultdict(list)
    recent = absence.last_day >= sa.func.current_date() - 1
    for row in session.execute(
        sa.select(absence.workspace_id, absence.user_id, absence.first_day, absence.last_day)
        .where(absence.workspace_id.in_(ids), recent)
        .order_by(absence.last_day.desc())
    ):
        found[row.workspace_id, row.user_id].append((row.first_day, row.last_day))
    return found


def _teams(
    session: Session, ids: Sequence[uuid.UUID], places: dict[uuid.UUID, _Place], calendars: dict[Key, Calendar | None]
) -> dict[uuid.UUID, list[Team]]:
    team, seat = tables.Team, tables.TeamMember
    rows = session.execute(
        sa.select(
            team.workspace_id, team.id, team.name, team.policy, sa.cast(team.hours, sa.Text).label("hours"),
            seat.user_id, seat.weight, seat.last_given_at,
        )
        .outerjoin(seat, seat.team_id == team.id)
        .where(team.workspace_id.in_(ids))
        .order_by(team.name, seat.user_id)
    ).all()  # fmt: skip
    seats: dict[uuid.UUID, list[Seat]] = defaultdict(list)
    heads: dict[uuid.UUID, Any] = {}
    for row in rows:
        heads[row.id] = row
        key = (row.workspace_id, row.user_id)
        if row.user_id is None or key not in calendars:  # an empty team; a member who left or became a viewer
            continue
        place = places[row.workspace_id]
        calendar = calendars[key] or hours.read_text(row.hours) or place.calendar
        given = row.last_given_at.timestamp() if row.last_given_at else 0.0
        seats[row.id].append(Seat(str(row.user_id), row.weight, given, away(calendar, place.now)))
    found: dict[uuid.UUID, list[Team]] = defaultdict(list)
    for row in heads.values():
        found[row.workspace_id].append(Team(str(row.id), row.name, row.policy, tuple(seats[row.id])))
    return found


def _rules(session: Session, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[RoutingRule]]:
    rule = tables.RoutingRule
    found: dict[uuid.UUID, list[RoutingRule]] = defaultdict(list)
    query = sa.select(rule.workspace_id, rule.name, rule.conditions, rule.team_id)
    for row in session.execute(query.where(rule.workspace_id.in_(ids), rule.active).order_by(rule.position, rule.id)):
        conditions = {name: tuple(values) for name, values in row.conditions.items()}
        found[row.workspace_id].append(RoutingRule(row.name, conditions, str(row.team_id)))
    return found


def away(calendar: Calendar, now: datetime) -> str:
    """Why nobody with this calendar works now, and when they do; empty when they do now."""
    if hours.is_open(calendar, now):
        return ""
    opens = hours.next_open(calendar, now)
    if opens is None:
        return "outside working hours"
    local = opens.astimezone(calendar.zone)
    soon = (local.date() - now.astimezone(calendar.zone).date()).days < 7
    when = f"{local:%a %H:%M}" if soon else f"{day(local.date())}, {local:%H:%M}"
    return f"outside working hours, works again {when} ({calendar.time_zone.replace('_', ' ')})"


def day(value: date) -> str:
    """``3 Dec``."""
    return f"{value.day} {value:%b}"

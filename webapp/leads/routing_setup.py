"""How routing is set up: rules in their order, teams with their members, capacities, hours and absences of members.

Everything is of one workspace; another's ids are NotFound. The caller commits; workers go by it within a second.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pycountry
import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, workspaces
from webapp.leads.errors import Conflict, Invalid, NotFound, Problem
from webapp.leads.hours import Calendar
from webapp.leads.industries import NAMES as INDUSTRIES
from webapp.leads.stages.route import CONDITIONS
from webapp.leads.states import Intent, Priority, Role, TeamPolicy
from webapp.models.account import Membership, User
from webapp.models.lead import Lead
from webapp.models.routing import Absence, RoutingRule, Team, TeamMember

SIZES = ("1-10", "11-50", "51-200", "201-1000", "1001-5000", "5001+")
#: Conditions whose values are one of a few.
CLOSED: dict[str, frozenset[str]] = {
    "industry": frozenset(INDUSTRIES),
    "company_size": frozenset(SIZES),
    "priority": frozenset(Priority),
    "intent": frozenset(Intent),
}
MAX_VALUES, MAX_LENGTH = 200, 60
MAX_RULES, MAX_TEAMS = 200, 100


@dataclass(frozen=True, slots=True)
class Person:
    """A member as routing has them."""

    id: uuid.UUID
    name: str
    takes_leads: bool
    capacity: int | None
    hours: dict[str, Any] | None


def people(session: Session, workspace_id: uuid.UUID) -> list[Person]:
    """Members who may decide, by name."""
    rows = session.execute(
        sa.select(User.id, User.name, Membership.takes_leads, Membership.capacity, Membership.hours)
        .join(User, User.id == Membership.user_id)
        .where(Membership.workspace_id == workspace_id, Membership.role != Role.VIEWER, User.active)
        .order_by(User.name, User.id)
    )
    return [Person(*row) for row in rows]


def teams(session: Session, workspace_id: uuid.UUID) -> list[tuple[Team, list[tuple[str, int]]]]:
    """Each team with (name, weight) of its members."""
    found = session.scalars(sa.select(Team).where(Team.workspace_id == workspace_id).order_by(Team.name)).all()
    seats: dict[uuid.UUID, list[tuple[str, int]]] = {}
    rows = session.execute(
        sa.select(TeamMember.team_id, User.name, TeamMember.weight)
        .join(User, User.id == TeamMember.user_id)
        .where(TeamMember.workspace_id == workspace_id)
        .order_by(User.name)
    )
    for team_id, name, weight in rows:
        seats.setdefault(team_id, []).append((name, weight))
    return [(team, seats.get(team.id, [])) for team in found]


def weights_of(session: Session, team: Team) -> dict[uuid.UUID, int]:
    rows = session.execute(sa.select(TeamMember.user_id, TeamMember.weight).where(TeamMember.team_id == team.id))
    return {row[0]: row[1] for row in rows}


def rules(session: Session, workspace_id: uuid.UUID) -> list[tuple[RoutingRule, str]]:
    """(rule, its team's name), in their order."""
    rows = session.execute(
        sa.select(RoutingRule, Team.name)
        .join(Team, Team.id == RoutingRule.team_id)
        .where(RoutingRule.workspace_id == workspace_id)
        .order_by(RoutingRule.position, RoutingRule.id)
    )
    return [(row[0], row[1]) for row in rows]


def rule(session: Session, workspace_id: uuid.UUID, rule_id: uuid.UUID) -> RoutingRule:
    found: RoutingRule = _one(session, RoutingRule, workspace_id, rule_id, "rule")
    return found


def team(session: Session, workspace_id: uuid.UUID, team_id: uuid.UUID) -> Team:
    found: Team = _one(session, Team, workspace_id, team_id, "team")
    return found


def _one(session: Session, model: Any, workspace_id: uuid.UUID, row_id: uuid.UUID, what: str) -> Any:
    found = session.scalar(sa.select(model).where(model.workspace_id == workspace_id, model.id == row_id))
    if found is None:
        raise NotFound(f"There is no such {what}.")
    return found


def conditions_from(given: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], list[Problem]]:
    """From a form: values by commas or repeated; empty ones ask for nothing. What is not understood is named."""
    found: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for name in CONDITIONS:
        values = [part.strip() for said in given.get(name, ()) for part in said.split(",") if part.strip()]
        values = list(dict.fromkeys(_spelt(name, value) for value in values))
        unknown = [value for value in values if not _is_known(name, value)]
        if unknown:
            problems.append(Problem(name, f"does not know “{unknown[0][:MAX_LENGTH]}”"))
        elif len(values) > MAX_VALUES:
            problems.append(Problem(name, f"takes at most {MAX_VALUES} values"))
        elif values:
            found[name] = values
    return found, problems


def _spelt(name: str, value: str) -> str:
    if name in ("country", "priority"):
        return value.upper()
    return value.lower() if name in ("industry", "language", "intent") else value


def _is_known(name: str, value: str) -> bool:
    if name in CLOSED:
        return value in CLOSED[name]
    if name == "country":
        return pycountry.countries.get(alpha_2=value) is not None
    if name == "language":
        return value.isascii() and value.isalpha() and 2 <= len(value) <= 8
    return len(value) <= MAX_LENGTH


def save_rule(
    session: Session,
    workspace_id: uuid.UUID,
    rule_id: uuid.UUID | None,
    given: Mapping[str, Sequence[str]],
    *,
    actor: str,
) -> RoutingRule:
    """A new rule (``rule_id`` None), last in order, or another content of one. Invalid names every field."""
    found = rule(session, workspace_id, rule_id) if rule_id else None
    name = _text(given, "name")
    conditions, problems = conditions_from(given)
    if not 1 <= len(name) <= 80:
        problems.append(Problem("name", "must have 1 to 80 characters"))
    chosen = _team_of(session, workspace_id, _text(given, "team"))
    if chosen is None:
        problems.append(Problem("team", "must be one of the teams"))
    order = session.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.max(RoutingRule.position), 0)).where(
            RoutingRule.workspace_id == workspace_id
        )
    ).one()
    if found is None and order[0] >= MAX_RULES:
        problems.append(Problem("name", f"is one rule too many: there may be {MAX_RULES}"))
    if problems or chosen is None:
        raise Invalid("The rule is not complete.", details=tuple(problems))
    if found is None:
        found = RoutingRule(workspace_id=workspace_id, position=order[1] + 1)
        session.add(found)
    found.name, found.conditions, found.team_id = name, conditions, chosen.id
    found.active = bool(_text(given, "active"))
    details: dict[str, Any] = {"rule": name, "conditions": conditions, "team": chosen.name, "active": found.active}
    audit.record(session, workspace_id, "ROUTING_RULE_SAVED", actor=actor, **details)
    session.flush()
    return found


def move_rule(session: Session, workspace_id: uuid.UUID, rule_id: uuid.UUID, *, up: bool, actor: str) -> None:
    """One place up or down; beyond the ends nothing happens."""
    listed = session.scalars(
        sa.select(RoutingRule)
        .where(RoutingRule.workspace_id == workspace_id)
        .order_by(RoutingRule.position, RoutingRule.id)
        .with_for_update()
    ).all()
    ids = [one.id for one in listed]
    if rule_id not in ids:
        raise NotFound("There is no such rule.")
    ordered, here = list(listed), ids.index(rule_id)
    there = here - 1 if up else here + 1
    if not 0 <= there < len(ordered):
        return
    ordered[here], ordered[there] = ordered[there], ordered[here]
    for position, one in enumerate(ordered, 1):
        one.position = position
    audit.record(session, workspace_id, "ROUTING_RULE_MOVED", actor=actor, rule=listed[here].name, order=here + 1)
    session.flush()


def delete_rule(session: Session, workspace_id: uuid.UUID, rule_id: uuid.UUID, *, actor: str) -> str:
    found = rule(session, workspace_id, rule_id)
    session.delete(found)
    audit.record(session, workspace_id, "ROUTING_RULE_DELETED", actor=actor, rule=found.name)
    session.flush()
    return found.name


def save_team(
    session: Session,
    workspace_id: uuid.UUID,
    team_id: uuid.UUID | None,
    *,
    name: str,
    policy: str,
    weights: Mapping[uuid.UUID, int],
    calendar: Calendar | None,
    actor: str,
) -> Team:
    """A new team, or another content of one. ``weights``: its members with their shares; who stays keeps their turn.
    ``calendar`` None: the workspace's. Invalid names every field."""
    found = team(session, workspace_id, team_id) if team_id else None
    problems = []
    if not 1 <= len(name) <= 60:
        problems.append(Problem("name", "must have 1 to 60 characters"))
    taken = sa.select(Team.id).where(Team.workspace_id == workspace_id, Team.name == name)
    if session.scalar(taken.where(Team.id != found.id) if found else taken):
        problems.append(Problem("name", "is taken by another team"))
    if policy not in list(TeamPolicy):
        problems.append(Problem("policy", "must be one of the three"))
    if not set(weights) <= {one.id for one in people(session, workspace_id)}:
        problems.append(Problem("members", "must be members of the workspace"))
    if any(not 1 <= weight <= 100 for weight in weights.values()):
        problems.append(Problem("members", "have shares from 1 to 100"))
    count = session.scalar(sa.select(sa.func.count()).where(Team.workspace_id == workspace_id)) or 0
    if found is None and count >= MAX_TEAMS:
        problems.append(Problem("name", f"is one team too many: there may be {MAX_TEAMS}"))
    if problems:
        raise Invalid("The team is not complete.", details=tuple(problems))
    if found is None:
        found = Team(workspace_id=workspace_id, name=name)
        session.add(found)
    found.name, found.policy = name, TeamPolicy(policy)
    found.hours = calendar.as_json() if calendar else None
    session.flush()
    _seat(session, found, weights)
    audit.record(session, workspace_id, "TEAM_SAVED", actor=actor, team=name, policy=policy, members=len(weights))
    session.flush()
    return found


def _seat(session: Session, chosen: Team, weights: Mapping[uuid.UUID, int]) -> None:
    seats = {
        seat.user_id: seat for seat in session.scalars(sa.select(TeamMember).where(TeamMember.team_id == chosen.id))
    }
    for user_id, seat in seats.items():
        if user_id not in weights:
            session.delete(seat)
    for user_id, weight in weights.items():
        if user_id in seats:
            seats[user_id].weight = weight
        else:
            session.add(TeamMember(team_id=chosen.id, user_id=user_id, workspace_id=chosen.workspace_id, weight=weight))


def delete_team(session: Session, workspace_id: uuid.UUID, team_id: uuid.UUID, *, actor: str) -> str:
    """Conflict while a rule sends leads to it. What waits for it then waits for everybody."""
    found = team(session, workspace_id, team_id)
    named = session.scalars(sa.select(RoutingRule.name).where(RoutingRule.team_id == found.id)).all()
    if named:
        raise Conflict(f"The rule “{named[0]}” sends leads to this team. Change or delete the rule first.")
    session.execute(
        sa.update(Lead)
        .where(Lead.workspace_id == workspace_id, sa.text("leads.route_state IS NOT NULL"), Lead.team_id == found.id)
        .values(team_id=None)
        .execution_options(synchronize_session=False)
    )
    session.execute(sa.delete(TeamMember).where(TeamMember.team_id == found.id))
    session.delete(found)
    audit.record(session, workspace_id, "TEAM_DELETED", actor=actor, team=found.name)
    session.flush()
    return found.name


def save_member(
    session: Session,
    workspace_id: uuid.UUID,
    user_id: uuid.UUID,
    *,
    capacity: str,
    calendar: Calendar | None,
    actor: str,
) -> str:
    """How many open leads they take at most (empty: any number) and their own hours (None: their team's)."""
    membership, name = _member(session, workspace_id, user_id)
    if capacity and not (re.fullmatch(r"[0-9]{1,6}", capacity) and int(capacity) <= 100_000):
        raise Invalid("That is no capacity.", details=(Problem("capacity", "must be a whole number, or empty"),))
    membership.capacity = int(capacity) if capacity else None
    membership.hours = calendar.as_json() if calendar else None
    details: dict[str, Any] = {"member": name, "capacity": membership.capacity, "own_hours": calendar is not None}
    audit.record(session, workspace_id, "MEMBER_HOURS_CHANGED", actor=actor, **details)
    session.flush()
    return name


def member(session: Session, workspace_id: uuid.UUID, user_id: uuid.UUID) -> tuple[Membership, str]:
    """(the membership, the name) of somebody who may decide."""
    return _member(session, workspace_id, user_id)


def _member(session: Session, workspace_id: uuid.UUID, user_id: uuid.UUID) -> tuple[Membership, str]:
    row = session.execute(
        sa.select(Membership, User.name)
        .join(User, User.id == Membership.user_id)
        .where(Membership.workspace_id == workspace_id, Membership.user_id == user_id)
    ).one_or_none()
    if row is None:
        raise NotFound("There is no such member of this workspace.")
    return row[0], row[1]


def absences(session: Session, workspace_id: uuid.UUID) -> list[tuple[Absence, str]]:
    """(absence, who) that are not over yet, soonest first."""
    rows = session.execute(
        sa.select(Absence, User.name)
        .join(User, User.id == Absence.user_id)
        .where(Absence.workspace_id == workspace_id, Absence.last_day >= sa.func.current_date() - 1)
        .order_by(Absence.first_day, User.name)
    )
    return [(row[0], row[1]) for row in rows]


def add_absence(
    session: Session, workspace_id: uuid.UUID, user_id: uuid.UUID, *, first: str, last: str, note: str, actor: str
) -> None:
    """Days as ISO dates, both included. Invalid when they are none or stand the wrong way round."""
    _, name = _member(session, workspace_id, user_id)
    try:
        first_day, last_day = date.fromisoformat(first), date.fromisoformat(last or first)
    except ValueError:
        raise Invalid("Those are no days.", details=(Problem("first_day", "must be a date"),)) from None
    if last_day < first_day:
        raise Invalid(
            "The days stand the wrong way round.", details=(Problem("last_day", "must not be before the first"),)
        )
    session.add(
        Absence(
            workspace_id=workspace_id, user_id=user_id, first_day=first_day, last_day=last_day, note=note[:200] or None
        )
    )
    details: dict[str, Any] = {"member": name, "first_day": first_day.isoformat(), "last_day": last_day.isoformat()}
    audit.record(session, workspace_id, "ABSENCE_ADDED", actor=actor, **details)
    session.flush()


def remove_absence(session: Session, workspace_id: uuid.UUID, absence_id: uuid.UUID, *, actor: str) -> None:
    found = _one(session, Absence, workspace_id, absence_id, "absence")
    _, name = _member(session, workspace_id, found.user_id)
    session.delete(found)
    audit.record(session, workspace_id, "ABSENCE_REMOVED", actor=actor, member=name)
    session.flush()


def set_otherwise(session: Session, workspace_id: uuid.UUID, otherwise: str, *, actor: str) -> None:
    """What happens to leads that no rule fits: ``everybody`` or ``manual``."""
    if otherwise not in ("everybody", "manual"):
        raise Invalid("That choice does not exist.", details=(Problem("otherwise", "must be one of the two"),))
    workspace = workspaces.locked(session, workspace_id)
    before = workspace.settings.get("route") or {}
    if before.get("otherwise", "everybody") == otherwise:
        return
    workspace.settings = workspace.settings | {"route": before | {"otherwise": otherwise}}
    audit.record(session, workspace_id, "ROUTING_CHANGED", actor=actor, otherwise=otherwise)
    session.flush()


def _team_of(session: Session, workspace_id: uuid.UUID, said: str) -> Team | None:
    try:
        return team(session, workspace_id, uuid.UUID(said))
    except (ValueError, NotFound):
        return None


def _text(given: Mapping[str, Sequence[str]], name: str) -> str:
    values = given.get(name) or [""]
    return values[0].strip()

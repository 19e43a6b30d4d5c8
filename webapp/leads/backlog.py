"""Leads that wait for their team: given out, oldest first, once somebody works and has room. And what no longer needs an
alert.

The clock calls :func:`drain` every few seconds. Any number of clocks may: a workspace's leads are given out by one at a
time, who takes no lead that somebody else has locked.
"""

import random
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import alerts, assigning, audit, boards, flags, run_stages
from webapp.leads.stages import route
from webapp.leads.stages.route import Board
from webapp.leads.states import WAITING_STATUSES, RouteState
from webapp.leads.types import Assignment, Team
from webapp.models.lead import Lead
from webapp.models.routing import Alert

#: Leads given out in one transaction.
ROWS = 100
#: After so long without another one, a fallback of the score is over.
QUIET_HOURS = 1

#: Spelt as the partial indexes spell it.
_OPEN = "leads.status IN ('new_auto', 'new_draft', 'new_escalate') AND leads.suppression_id IS NULL"
_BACKLOG = sa.text(f"leads.route_state = 'backlog' AND {_OPEN} AND leads.assignee_id IS NULL")
_MANUAL = sa.text(f"leads.route_state = 'manual' AND {_OPEN}")


def drain(session: Session, *, stop: Callable[[], bool] = lambda: False) -> int:
    """Give out what can be given out, until ``stop()`` says so; returns how many leads. Commits as it goes."""
    teams = sa.select(Lead.workspace_id, Lead.team_id).where(_BACKLOG).distinct()
    waiting: dict[uuid.UUID, list[uuid.UUID | None]] = {}
    for workspace_id, team_id in session.execute(teams):
        waiting.setdefault(workspace_id, []).append(team_id)
    session.commit()
    # In no fixed order, so that one workspace's thousands do not take every turn.
    workspaces = random.sample(list(waiting.items()), len(waiting))
    return sum(_drain(session, workspace_id, found, stop) for workspace_id, found in workspaces)


def _drain(
    session: Session, workspace_id: uuid.UUID, team_ids: Sequence[uuid.UUID | None], stop: Callable[[], bool]
) -> int:
    done = 0
    for team_id in team_ids:
        while not stop():
            if not flags.of_workspace(session, workspace_id).auto_routing:
                break
            if not assigning.lock(session, [workspace_id], wait=False):
                break
            board = boards.load(session, [workspace_id])[workspace_id]
            given = _give_out(session, workspace_id, team_id, board)
            session.commit()
            done += given
            if given < ROWS:
                break
        session.rollback()
    return done


def _give_out(session: Session, workspace_id: uuid.UUID, team_id: uuid.UUID | None, board: Board) -> int:
    """At most :data:`ROWS` leads of a team's backlog, oldest first, as far as there is somebody to take them."""
    team = board.team(str(team_id) if team_id else None) or board.everybody
    if board.pick(team).seat is None and board.pick(team).later:
        return 0
    rows = session.execute(
        sa.select(Lead.id, Lead.status)
        .where(Lead.workspace_id == workspace_id, Lead.team_id.is_not_distinct_from(team_id), _BACKLOG)
        .order_by(Lead.created_at, Lead.id)
        .limit(ROWS)
        .with_for_update(skip_locked=True, key_share=True)
    ).all()
    given: list[tuple[uuid.UUID, Assignment]] = []
    for row in rows:
        team = board.team(team.id) or team  # as the turn before has left it
        found = route.within(board, team, _from(team), {}, waits=row.status in WAITING_STATUSES)
        if found.state is RouteState.BACKLOG:
            break
        given.append((row.id, found))
    _store(session, workspace_id, given)
    return len(given)


def _from(team: Team) -> str:
    return "waited in the backlog" if not team.id else f"waited for {team.name}"


def _store(session: Session, workspace_id: uuid.UUID, given: Sequence[tuple[uuid.UUID, Assignment]]) -> None:
    if not given:
        return
    table: Any = Lead.__table__
    rows = [
        {
            "b_id": lead_id,
            "b_assignee": uuid.UUID(found.user_id) if found.user_id else None,
            "b_reason": found.reason,
            "b_state": found.state.value if found.state else None,
            "b_route_reason": found.reason if found.state else None,
        }
        for lead_id, found in given
    ]
    session.connection().execute(
        sa.update(table)
        .where(table.c.id == sa.bindparam("b_id"))
        .values(
            assignee_id=sa.bindparam("b_assignee"),
            assignment_reason=sa.bindparam("b_reason"),
            route_state=sa.bindparam("b_state"),
            route_reason=sa.bindparam("b_route_reason"),
            updated_at=sa.func.now(),
        ),
        rows,
    )
    for lead_id, found in given:
        details: dict[str, Any] = {"assignee": found.name, "reason": found.reason, "evidence": dict(found.evidence)}
        audit.record(session, workspace_id, "LEAD_ROUTED", lead_id=lead_id, **details)
    assigning.took_turns(
        session,
        [(uuid.UUID(found.team_id), uuid.UUID(found.user_id)) for _, found in given if found.team_id and found.user_id],
    )
    session.flush()


def settle_alerts(session: Session) -> int:
    """Resolve the alerts whose trouble has passed: no lead waits for a person to assign it (any more), the score has not
    fallen back for a while. Returns how many. The caller commits."""
    failed = Lead.route_reason == run_stages.ROUTING_FAILED
    waits = {alerts.ROUTING_FAILED: failed, alerts.ROUTING_NOBODY: sa.not_(failed)}
    over = [
        sa.and_(Alert.kind == kind, ~sa.exists().where(Lead.workspace_id == Alert.workspace_id, _MANUAL, which))
        for kind, which in waits.items()
    ]
    quiet = Alert.last_at < sa.func.now() - sa.func.make_interval(0, 0, 0, 0, QUIET_HOURS)
    over.append(sa.and_(Alert.kind == alerts.SCORING_FALLBACK, quiet))
    found = session.execute(
        sa.select(Alert.workspace_id, Alert.kind, Alert.key)
        .where(sa.text("alerts.state IN ('open', 'acknowledged')"), sa.or_(*over))
        .order_by(Alert.kind, Alert.key)
    ).all()
    return sum(alerts.resolve(session, *row) for row in found)

"""Assignments that have to be exact though several workers route at once: whose turn it is, and who is full.

A worker's board may be a second old, which is good enough where the fewest open leads decide. For round robin and for
capacities the route stage is gone through once more when a run is settled, with a fresh board and under one lock per
workspace, which is held until the commit.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import boards, run_stages
from webapp.leads.run_stages import Outcome

#: Added to a workspace's id, so that nobody else's advisory lock is ours.
_LOCK = "route"


def lock(session: Session, workspace_ids: Iterable[uuid.UUID], *, wait: bool = True) -> bool:
    """Be the only one who gives out leads of these workspaces until the end of the transaction. False when somebody
    else is and ``wait`` is not. Leads and runs are locked before it, never after, unless by SKIP LOCKED."""
    for one in sorted(workspace_ids):
        key = sa.func.hashtextextended(f"{_LOCK} {one}", 0)
        if wait:
            session.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        elif not session.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(key))):
            return False
    return True


def confirm(session: Session, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The same outcomes; those whose assignment has to be exact routed anew."""
    workspaces = {one.item.workspace_id for one in outcomes if one.assignment.exact}
    if not workspaces:
        return list(outcomes)
    lock(session, workspaces)
    fresh = boards.load(session, workspaces)
    return [
        run_stages.routed_anew(one, fresh[one.item.workspace_id]) if one.assignment.exact else one for one in outcomes
    ]


def took_turns(session: Session, given: Sequence[tuple[uuid.UUID, uuid.UUID]]) -> None:
    """Note (team, user) of the leads that teams have given out, in their order: the next turn is somebody else's."""
    if not given:
        return
    last: dict[tuple[uuid.UUID, uuid.UUID], int] = defaultdict(int)
    for number, one in enumerate(given):
        last[one] = number
    session.connection().execute(
        sa.text(
            # Locked in one order, whoever else changes members.
            "WITH v AS MATERIALIZED (SELECT m.team_id, m.user_id, given.number FROM team_members AS m "
            "JOIN unnest(cast(:teams AS uuid[]), cast(:users AS uuid[]), cast(:numbers AS int[])) "
            "AS given(team_id, user_id, number) ON m.team_id = given.team_id AND m.user_id = given.user_id "
            "ORDER BY m.team_id, m.user_id FOR NO KEY UPDATE OF m) "
            "UPDATE team_members AS m SET last_given_at = statement_timestamp() + make_interval(secs => v.number * 1e-6) "
            "FROM v WHERE m.team_id = v.team_id AND m.user_id = v.user_id"
        ),
        {
            "teams": [str(team) for team, _ in last],
            "users": [str(user) for _, user in last],
            "numbers": list(last.values()),
        },
    )

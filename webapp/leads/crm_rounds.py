"""Rounds of follow-up tasks in a CRM: asking for one, joining the one under way, and how far it is. ``crm_tasks`` does
the work."""

import uuid
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads import claims, crm_sync
from webapp.leads.errors import NotFound
from webapp.leads.states import TaskRequestState
from webapp.models.base import new_id, scoped
from webapp.models.work import TaskRequest

OVER = frozenset({TaskRequestState.DONE, TaskRequestState.FAILED})


@dataclass(slots=True)
class Intended:
    """A task about to be made. ``ids``: see :class:`leads.ports.FollowUp`."""

    person_id: str
    lead_id: str
    customer: str
    ids: list[list[str]]
    member_id: str | None


@dataclass(slots=True)
class Progress:
    """How far a round is: at the first of ``destinations``, on the page after ``cursor`` of its members or open
    tasks, or past the person ``after``. ``members``: id → name; ``loads``: id → open tasks."""

    destinations: list[str]
    phase: str = "members"
    cursor: str | None = None
    members: dict[str, str] = field(default_factory=dict)
    loads: dict[str, int] = field(default_factory=dict)
    after: str = ""
    intended: list[Intended] = field(default_factory=list)

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "Progress":
        return cls(**(stored | {"intended": [Intended(**one) for one in stored.get("intended", ())]}))


def request(session: Session, workspace_id: uuid.UUID, *, requested_by: str) -> uuid.UUID:
    """Ask for a round, or join the one that is under way. Conflict without a CRM. The caller commits and rings for
    ``deliveries``."""
    destinations = [str(one.id) for one in crm_sync.crms(session, workspace_id)]
    wanted = (
        insert(TaskRequest)
        .values(
            id=new_id(),
            workspace_id=workspace_id,
            requested_by=requested_by,
            progress=asdict(Progress(destinations=destinations)),
        )
        .on_conflict_do_nothing(index_elements=[TaskRequest.workspace_id], index_where=_open())
        .returning(TaskRequest.id)
    )
    while True:
        made: uuid.UUID | None = session.scalar(wanted)
        found = made or session.scalar(
            sa.select(TaskRequest.id).where(TaskRequest.workspace_id == workspace_id, _open())
        )
        if found is not None:  # else it was finished between the two statements
            return found


def _open() -> sa.ColumnElement[bool]:
    return sa.text("state IN ('queued', 'running')")  # type: ignore[return-value]  # as the index spells it


def find(session: Session, workspace_id: uuid.UUID, request_id: uuid.UUID) -> TaskRequest:
    """A round as it stands now. NotFound."""
    found: TaskRequest | None = session.scalar(
        scoped(TaskRequest, workspace_id).where(TaskRequest.id == request_id).execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFound("There is no such round of follow-up tasks.")
    return found


def made(round_: TaskRequest) -> int:
    """How many tasks it has made."""
    return sum("task_id" in detail for detail in round_.details)


def has_due(session: Session) -> bool:
    return claims.has_due(session, claims.TASKS)

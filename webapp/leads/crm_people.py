"""Whom in a CRM a follow-up task may be made for."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from webapp.leads import crm_sync
from webapp.leads.outbox import PERSON, TASK, TASK_TARGET
from webapp.leads.ports import LeadSnapshot, remote_id_for
from webapp.leads.sending import snapshot
from webapp.leads.states import DeliveryState
from webapp.models.account import User
from webapp.models.lead import Lead, Person
from webapp.models.work import Delivery

#: People looked at in one step.
BATCH = 30
_ON_ITS_WAY = frozenset({DeliveryState.PENDING, DeliveryState.SENDING})


@dataclass(frozen=True, slots=True)
class Someone:
    """A person in the CRM who may be called. ``task_ids``: tasks that deliveries made for them; ``unmade``: the ids
    that a delivery would have used that was given up, so that asking for it again makes no second task."""

    person_id: str
    lead_id: uuid.UUID
    customer: str
    task_ids: tuple[str, ...]
    unmade: tuple[list[str], ...]


def people(session: Session, destination_id: uuid.UUID, after: str) -> tuple[list[Someone], str | None]:
    """The next people past ``after`` whom a task may be made for, and the last one looked at (None: nobody further).

    Left out: who is not to be contacted, whose leads may no longer be delivered, and whose lead has a task of its own
    on the way. The newest lead speaks for the person.
    """
    in_crm = [
        Delivery.destination_id == destination_id,
        Delivery.action == sa.literal(PERSON, literal_execute=True),
        Delivery.state == sa.literal(DeliveryState.DELIVERED, Delivery.state.type, literal_execute=True),
    ]
    ids: Sequence[str] = session.scalars(
        sa.select(Delivery.remote_id)
        .where(*in_crm, Delivery.remote_id > after)
        .distinct()
        .order_by(Delivery.remote_id)
        .limit(BATCH)
    ).all()  # type: ignore[assignment]  # a delivered person has an id
    if not ids:
        return [], None
    task, link = aliased(Delivery), aliased(Delivery)
    rows = session.execute(
        sa.select(
            Delivery.remote_id, Lead, Person, task.id, task.state, task.remote_id, link.id, sa.and_(*crm_sync.due())
        )
        .join(Lead, Lead.id == Delivery.lead_id)
        .outerjoin(Person, Person.id == Lead.person_id)
        .outerjoin(task, _of(task, TASK))
        .outerjoin(link, _of(link, TASK_TARGET))
        .where(*in_crm, Delivery.remote_id.in_(ids))
        .order_by(Delivery.remote_id, Lead.created_at.desc(), Lead.id)
    ).all()
    by_person: dict[str, list[Any]] = {}
    for row in rows:
        by_person.setdefault(str(row[0]), []).append(row)
    found = []
    for person_id, theirs in by_person.items():
        chosen = next((row for row in theirs if row[7]), None)
        if chosen is None or any(row[4] in _ON_ITS_WAY for row in theirs):
            continue
        given_up = [row for row in theirs if row[3] and row[4] is not DeliveryState.DELIVERED]
        found.append(
            Someone(
                person_id=person_id,
                lead_id=chosen[1].id,
                customer=snapshot(chosen[1], chosen[2], None).display_name,
                task_ids=tuple(row[5] for row in theirs if row[5]),
                unmade=tuple(
                    [remote_id_for(row[3], TASK), remote_id_for(row[6], TASK_TARGET)] for row in given_up[:1] if row[6]
                ),
            )
        )
    return found, ids[-1]


def _of(step: Any, action: str) -> sa.ColumnElement[bool]:
    """Another step of the same lead at the same destination."""
    return sa.and_(
        step.lead_id == Delivery.lead_id, step.destination_id == Delivery.destination_id, step.action == action
    )


def speaker(session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID) -> LeadSnapshot | None:
    """The lead that speaks for a person, as a CRM may see it; None when it is gone."""
    row = session.execute(
        sa.select(Lead, Person, User)
        .outerjoin(Person, Person.id == Lead.person_id)
        .outerjoin(User, User.id == Lead.assignee_id)
        .where(Lead.id == lead_id, Lead.workspace_id == workspace_id)
    ).first()
    return snapshot(row[0], row[1], row[2]) if row else None

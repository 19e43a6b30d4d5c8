"""Push to the CRM on request: what is due and not there yet is queued, brought forward or asked for again.

Sending stays the outbox's (webapp.leads.deliver): it alone knows retries, pauses and what has arrived. Here is who is
due, and afterwards where they stand. Nothing here commits.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute, Session

from webapp.leads import audit, outbox
from webapp.leads.errors import Conflict
from webapp.leads.outbox import DELIVERABLE_STATUSES, PERSON
from webapp.leads.states import (
    UNDELIVERABLE_INTENTS,
    DeliveryState,
    DestinationKind,
    DestinationMode,
    LeadStatus,
)
from webapp.models.base import interval, scoped
from webapp.models.lead import Decision, Lead, Person
from webapp.models.work import Delivery, Destination, SyncRequest

NO_EMAIL = "Email is required for CRM sync"
_SWITCHED_OFF = "the CRM destination is switched off"
_UNDER_WAY = (DeliveryState.PENDING, DeliveryState.SENDING)


@dataclass(frozen=True, slots=True)
class Started:
    """What a call set going. ``refused``: ``{lead_id, error}`` of those that cannot be sent as they are."""

    lead_ids: tuple[uuid.UUID, ...]
    refused: tuple[dict[str, str], ...]


@dataclass(slots=True)
class Standing:
    """Where the leads of a call stand; ``waiting``: how many are on their way. Rows as the contract has them."""

    synced: list[dict[str, str | None]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    waiting: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "total": len(self.synced) + len(self.failed) + self.waiting,
            "synced_count": len(self.synced),
            "failed_count": len(self.failed),
            "synced": self.synced,
            "failed": self.failed,
        }


def crms(session: Session, workspace_id: uuid.UUID) -> Sequence[Destination]:
    """The workspace's CRM destinations that are on. Conflict when there is none."""
    found = session.scalars(
        scoped(Destination, workspace_id)
        .where(Destination.kind == DestinationKind.TWENTY, Destination.mode == DestinationMode.LIVE)
        .order_by(Destination.name)
    ).all()
    if not found:
        raise Conflict("No CRM is set up for this workspace, or it is switched off. An admin does that in Settings.")
    return found


def due() -> list[sa.ColumnElement[bool]]:
    """Leads (joined to their person, if they have one) that may go out: :func:`outbox.blocked_because` as SQL."""
    return [
        Lead.status.in_(DELIVERABLE_STATUSES),
        sa.or_(Lead.status != LeadStatus.NEW_AUTO, Lead.settled_at.is_not(None)),
        Lead.intent.not_in(UNDELIVERABLE_INTENTS),
        sa.or_(Person.id.is_(None), ~Person.do_not_contact),
        Lead.suppression_id.is_(None),
    ]


def _among(column: InstrumentedAttribute[uuid.UUID], ids: Iterable[uuid.UUID]) -> sa.ColumnElement[bool]:
    """``column IN ids`` with one parameter for them all: a statement takes 65,535 at most, and a call may name more
    leads than that."""
    return column == sa.any_(sa.literal(list(ids), ARRAY(sa.Uuid)))


def _held(undo_seconds: int) -> sa.ColumnElement[bool]:
    """Its undo window runs: a decision can be taken back, or has just been, or nothing was tried before its time.

    At this statement, not when the transaction began: a call that waited for another one's lock would take what that
    one has queued in the meantime for due later."""
    window, moment = interval(undo_seconds), sa.func.statement_timestamp()
    decided = sa.exists().where(
        Decision.lead_id == Lead.id,
        sa.func.coalesce(Decision.undone_at + window, Decision.undo_until) > moment,
    )
    untried = sa.and_(Delivery.state == DeliveryState.PENDING, Delivery.attempt == 0, Delivery.due_at > moment)
    return sa.or_(decided, untried)


def start(session: Session, workspace_id: uuid.UUID, *, undo_seconds: int, actor: str) -> Started:
    """Set going whatever is due and not in the CRM, oldest first; Conflict without a CRM.

    Missing deliveries are queued, those that wait for a further try are due at once, dead ones get all their tries
    again (audited, in the name of ``actor``). A lead whose undo window runs is not due yet and is left alone. Calls
    of one workspace go one after another.
    """
    lock = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")
    session.execute(lock, {"key": f"sync-crm:{workspace_id}"})
    wanted: dict[uuid.UUID, list[Destination]] = {}
    refused: dict[uuid.UUID, dict[str, str]] = {}
    destinations = crms(session, workspace_id)
    for destination in destinations:
        for row in _not_there(session, workspace_id, destination, undo_seconds):
            if row.email:
                wanted.setdefault(row.id, []).append(destination)
            else:
                refused[row.id] = {"lead_id": row.external_id or str(row.id), "error": NO_EMAIL}
    if wanted:
        steps = (
            (lead_id, one.id, step)
            for lead_id in sorted(wanted)
            for one in wanted[lead_id]
            for step in outbox.crm_steps(one.config)
        )
        outbox.plan_steps(session, workspace_id, steps)
        _hurry(session, wanted, [one.id for one in destinations], actor=actor)
    return Started(tuple(wanted), tuple(refused.values()))


def _not_there(
    session: Session, workspace_id: uuid.UUID, destination: Destination, undo_seconds: int
) -> Iterable[sa.Row[Any]]:
    """(id, external_id, email) of the leads that are due at ``destination`` and whose person is not there."""
    person = sa.and_(Delivery.lead_id == Lead.id, Delivery.destination_id == destination.id, Delivery.action == PERSON)
    query = (
        sa.select(
            Lead.id, Lead.external_id, sa.func.coalesce(Lead.email_normalized, Lead.email, Person.email).label("email")
        )
        .outerjoin(Person, Person.id == Lead.person_id)
        .outerjoin(Delivery, person)
        .where(
            Lead.workspace_id == workspace_id,
            *due(),
            sa.or_(Delivery.id.is_(None), Delivery.state != DeliveryState.DELIVERED),
            ~sa.func.coalesce(_held(undo_seconds), False),
        )
        .order_by(Lead.created_at, Lead.id)
    )
    return session.execute(query.where(*_narrowed(destination.rules)))


def _narrowed(rules: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    """The filters of webapp.leads.triggers as SQL. On which occasion a lead goes there by itself is not asked: somebody
    has asked for all that are due."""
    columns = {
        "intent": Lead.intent,
        "priority": Lead.priority,
        "source": Lead.source,
        "country": Lead.attributes["country"].astext,
        "lang": Lead.lang,
    }
    conditions: list[sa.ColumnElement[bool]] = [
        sa.func.lower(sa.cast(column, sa.Text)).in_([value.lower() for value in rules[name]])
        for name, column in columns.items()
        if rules.get(name)
    ]
    if rules.get("qualified_only"):
        conditions.append(Lead.qualified.is_(True))
    if rules.get("min_score") is not None:
        conditions.append(Lead.score >= rules["min_score"])
    return conditions


def _hurry(session: Session, lead_ids: Iterable[uuid.UUID], destination_ids: list[uuid.UUID], *, actor: str) -> None:
    """Rows that a worker holds at this moment are passed over: they are being sent, and nobody waits for anybody."""
    mine = [_among(Delivery.lead_id, lead_ids), Delivery.destination_id.in_(destination_ids)]
    late = sa.and_(Delivery.state == DeliveryState.PENDING, Delivery.due_at > sa.func.statement_timestamp())
    given_up = Delivery.state.in_((DeliveryState.DEAD, DeliveryState.UNCERTAIN))

    def change(which: sa.ColumnElement[bool], **values: Any) -> sa.Result[Any]:
        free = sa.select(Delivery.id).where(*mine, which).with_for_update(skip_locked=True).scalar_subquery()
        return session.execute(
            sa.update(Delivery)
            .where(Delivery.id.in_(free))
            .values(due_at=sa.func.now(), updated_at=sa.func.now(), **values)
            .returning(Delivery.id, Delivery.workspace_id, Delivery.lead_id, Delivery.action)
            .execution_options(synchronize_session=False)
        )

    change(late)
    for row in change(given_up, state=DeliveryState.PENDING, tries=0, lease_until=None):
        audit.record(
            session,
            row.workspace_id,
            "DELIVERY_REPLAYED",
            actor=actor,
            lead_id=row.lead_id,
            delivery_id=str(row.id),
            action=row.action,
        )


def finished(session: Session, workspace_id: uuid.UUID, started: Started) -> Standing | None:
    """:func:`standing` once no lead is on its way any more; None before, for which the database only counts."""
    return None if waiting(session, workspace_id, started) else standing(session, workspace_id, started)


def waiting(session: Session, workspace_id: uuid.UUID, started: Started) -> int:
    """How many leads of a call are on their way: ``standing().waiting`` without reading them."""
    failed = sa.or_(
        Delivery.state.not_in((*_UNDER_WAY, DeliveryState.DELIVERED)),
        sa.and_(Delivery.state.in_(_UNDER_WAY), Destination.mode == DestinationMode.OFF),
    )
    under_way = (
        _of(workspace_id, started, Delivery.lead_id)
        .group_by(Delivery.lead_id)
        .having(sa.func.bool_or(Delivery.state.in_(_UNDER_WAY)), ~sa.func.bool_or(failed))
        .subquery()
    )
    return session.scalar(sa.select(sa.func.count()).select_from(under_way)) or 0


def _of(workspace_id: uuid.UUID, started: Started, *columns: Any) -> sa.Select[Any]:
    """Of the leads of a call, the deliveries that put their people into CRMs."""
    return (
        sa.select(*columns)
        .select_from(Delivery)
        .join(Destination, Destination.id == Delivery.destination_id)
        .where(
            Delivery.workspace_id == workspace_id,
            Delivery.action == PERSON,
            _among(Delivery.lead_id, started.lead_ids),
            Destination.kind == DestinationKind.TWENTY,
        )
    )


def standing(session: Session, workspace_id: uuid.UUID, started: Started) -> Standing:
    """Where the leads of a call stand now, in its order; with several CRMs a lead is synced when it is in all."""
    rows = session.execute(
        _of(
            workspace_id,
            started,
            Lead.id,
            Lead.external_id,
            Delivery.state,
            Delivery.remote_id,
            Delivery.last_error,
            Destination.mode,
        )
        .join(Lead, Lead.id == Delivery.lead_id)
        .order_by(Destination.name)
    ).all()
    by_lead: dict[uuid.UUID, list[Any]] = {}
    for row in rows:
        by_lead.setdefault(row.id, []).append(row)
    found = Standing(failed=[dict(one) for one in started.refused])
    for lead_id in started.lead_ids:
        theirs = by_lead.get(lead_id)
        if theirs is not None:  # else the lead is gone: an import was undone
            _add(found, theirs)
    return found


def _add(found: Standing, rows: Sequence[Any]) -> None:
    reference = rows[0].external_id or str(rows[0].id)
    failed = next((error for row in rows if (error := _failure(row))), None)
    if failed is not None:
        found.failed.append({"lead_id": reference, "error": failed})
    elif any(row.state in _UNDER_WAY for row in rows):
        found.waiting += 1
    else:
        found.synced.append({"lead_id": reference, "crm_person_id": rows[0].remote_id})


def _failure(row: Any) -> str | None:
    if row.state in _UNDER_WAY:
        return _SWITCHED_OFF if row.mode is DestinationMode.OFF else None
    return None if row.state is DeliveryState.DELIVERED else str(row.last_error or "was withdrawn")


def keep(session: Session, workspace_id: uuid.UUID, started: Started, *, requested_by: str) -> SyncRequest:
    """Remember a call whose leads are not all through yet, for its caller to come back to."""
    request = SyncRequest(
        workspace_id=workspace_id,
        lead_ids=list(started.lead_ids),
        refused=list(started.refused),
        requested_by=requested_by,
    )
    session.add(request)
    session.flush()
    return request


def kept(session: Session, workspace_id: uuid.UUID, request_id: uuid.UUID) -> Started | None:
    """What :func:`keep` remembered; None when there is no such call in the workspace."""
    request = session.scalar(scoped(SyncRequest, workspace_id).where(SyncRequest.id == request_id))
    return Started(tuple(request.lead_ids), tuple(request.refused)) if request else None

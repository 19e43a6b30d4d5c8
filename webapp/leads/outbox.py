"""The outbox: which effects a lead should have, written in the transaction that decides it.

One row per (lead, destination, action), UNIQUE in the database, so that deciding twice never sends twice: a row that
exists is kept, and only a cancelled one comes back to life. ``webapp.leads.deliver`` sends what is due.

Nothing here commits.
"""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, flags
from webapp.leads.errors import Conflict
from webapp.leads.states import (
    PRIORITY_VIEW,
    UNDELIVERABLE_INTENTS,
    DeliveryState,
    DestinationKind,
    DestinationMode,
    Door,
    Intent,
    LeadStatus,
)
from webapp.models.base import new_id
from webapp.models.lead import Lead, Person
from webapp.models.work import Delivery, Destination

PERSON, TASK, TASK_TARGET = "person", "task", "task_target"
FOLLOW_UP = "follow_up"

#: The event type, and so the action, of an outgoing webhook by the status that caused it.
EVENT_TYPES = {
    LeadStatus.NEW_AUTO: "lead.auto_approved",
    LeadStatus.APPROVED: "lead.approved",
    LeadStatus.OVERRIDDEN: "lead.overridden",
}
#: What may be delivered at all (taxonomy: qualified and deliverable).
DELIVERABLE_STATUSES = frozenset(EVENT_TYPES)

_LABELS = {PERSON: "person", TASK: "follow-up task", TASK_TARGET: "link between the two"}


class Effect(NamedTuple):
    """One action at a destination; ``step`` is its place in the lead's order there."""

    action: str
    step: int


SUPPRESSED = "the suppression list holds it back"


def blocked_because(lead: Lead, *, do_not_contact: bool, suppressed: bool | None = None) -> str | None:
    """Why this lead is not delivered, in words for people; None when it may be. taxonomy.md's default rule.
    ``suppressed``: what the suppression list says now; None: what it said last."""
    if lead.status not in DELIVERABLE_STATUSES:
        return f"its status is {lead.status.value}"
    if lead.status is LeadStatus.NEW_AUTO and lead.settled_at is None:
        return "its first run has not settled"
    held = lead.suppression_id is not None if suppressed is None else suppressed
    return _never_because(lead.intent, do_not_contact, held)


def _never_because(intent: Intent, do_not_contact: bool, suppressed: bool) -> str | None:
    if suppressed:
        return SUPPRESSED
    if intent in UNDELIVERABLE_INTENTS:
        return f"{intent.value} is never delivered"
    if do_not_contact:
        return "the person is marked do-not-contact"
    return None


def effects(kind: DestinationKind, config: dict[str, Any], lead: Lead) -> tuple[Effect, ...]:
    """What a decided lead has to bring about at one destination; empty when its trigger rule leaves the lead out."""
    if config.get("trigger") == "qualified" and not lead.qualified:
        return ()
    if kind is DestinationKind.TWENTY:
        return crm_steps()
    if kind is DestinationKind.WEBHOOK:
        event_type = EVENT_TYPES.get(lead.status)
        return (Effect(event_type, 0),) if event_type else ()
    return ()  # the n8n follow-up has its own rule: plan_follow_up


def crm_steps() -> tuple[Effect, ...]:
    """What makes a lead complete in a CRM."""
    return (Effect(PERSON, 0), Effect(TASK, 1), Effect(TASK_TARGET, 2))


def still_wanted(
    kind: DestinationKind, config: dict[str, Any], lead: Lead, action: str, *, do_not_contact: bool, suppressed: bool
) -> str | None:
    """Asked just before sending: None to go on, else why not. ``suppressed``: by the list as it is at this moment."""
    if suppressed:
        return SUPPRESSED
    if kind is DestinationKind.N8N:
        return "the lead was rejected" if lead.status is LeadStatus.REJECTED else None
    blocked = blocked_because(lead, do_not_contact=do_not_contact, suppressed=suppressed)
    if blocked is None and all(effect.action != action for effect in effects(kind, config, lead)):
        blocked = "it is no longer what the lead calls for"
    return blocked


def plan(session: Session, lead: Lead, *, decision_id: uuid.UUID | None = None, due_in_seconds: float) -> int:
    """Queue what ``lead`` calls for, due in ``due_in_seconds``. Returns the number of rows now waiting because of it.

    To be called after the new status is set. With ``decision_id`` rows that wait untried are held for the new undo
    window as well, and waiting rows that the decision makes pointless are cancelled.
    """
    if decision_id is not None:
        _cancel_pointless(session, lead)
    return plan_many(session, [lead], decision_id=decision_id, due_in_seconds=due_in_seconds)


def plan_many(
    session: Session, leads: Sequence[Lead], *, decision_id: uuid.UUID | None = None, due_in_seconds: float
) -> int:
    """:func:`plan` for a batch of leads in three statements."""
    candidates = [lead for lead in leads if blocked_because(lead, do_not_contact=False) is None]
    targets = _destinations(session, {lead.workspace_id for lead in candidates})
    if not targets:
        return 0
    silent = _do_not_contact(session, candidates)
    quiet = flags.without_webhooks(session, {lead.workspace_id for lead in candidates})
    rows = [
        _Row(lead.workspace_id, lead.id, target.id, *effect)
        for lead in candidates
        if lead.person_id not in silent
        for target in targets
        if target.workspace_id == lead.workspace_id
        and not (target.kind in flags.WEBHOOK_KINDS and lead.workspace_id in quiet)
        for effect in effects(target.kind, target.config, lead)
    ]
    return _insert(session, rows, decision_id=decision_id, due_in_seconds=due_in_seconds)


def plan_steps(session: Session, workspace_id: uuid.UUID, steps: Iterable[tuple[uuid.UUID, uuid.UUID, Effect]]) -> int:
    """Queue these (lead, destination, effect), due at once; for who has asked for each of the leads already."""
    rows = [_Row(workspace_id, lead_id, destination_id, *effect) for lead_id, destination_id, effect in steps]
    return _insert(session, rows, due_in_seconds=0)


def plan_follow_up(session: Session, lead: Lead) -> int:
    """Queue the n8n follow-up of a social lead of high priority, due at once; to be called when a first run settles.

    The operator's ``WEBHOOK_URL`` serves every workspace unless one has a follow-up destination of its own.
    """
    if lead.door is not Door.SOCIAL or PRIORITY_VIEW[lead.priority] != "high" or lead.suppression_id is not None:
        return 0
    if flags.without_webhooks(session, {lead.workspace_id}):
        return 0
    destination_id = session.scalar(
        sa.select(Destination.id)
        .where(
            Destination.kind == DestinationKind.N8N,
            Destination.mode == DestinationMode.LIVE,
            sa.or_(Destination.workspace_id == lead.workspace_id, Destination.managed_by == "environment"),
        )
        .order_by((Destination.workspace_id == lead.workspace_id).desc(), Destination.id)
        .limit(1)
    )
    if destination_id is None:
        return 0
    return _insert(session, [_Row(lead.workspace_id, lead.id, destination_id, FOLLOW_UP, 0)], due_in_seconds=0)


def cancel(session: Session, lead_id: uuid.UUID, *, reason: str, actor: str = audit.SYSTEM) -> int:
    """Cancel what still waits for ``lead_id``; what is being sent or was delivered stays. Returns how many."""
    return _cancel(session, Delivery.lead_id == lead_id, reason=reason, actor=actor)


def replay(session: Session, delivery: Delivery, *, actor: str) -> None:
    """Queue a dead or uncertain delivery again, with all its tries. Conflict when it is neither.

    One whose outcome is unknown is reconciled before it is sent again.
    """
    row = session.execute(
        sa.update(Delivery)
        .where(Delivery.id == delivery.id, Delivery.state.in_((DeliveryState.DEAD, DeliveryState.UNCERTAIN)))
        .values(
            state=DeliveryState.PENDING,
            tries=0,
            due_at=sa.func.now(),
            lease_until=None,
            updated_at=sa.func.now(),
        )
        .returning(Delivery.workspace_id, Delivery.lead_id, Delivery.action)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        raise Conflict("Only a dead or uncertain delivery can be sent again.")
    session.expire(delivery)
    audit.record(
        session,
        row.workspace_id,
        "DELIVERY_REPLAYED",
        actor=actor,
        lead_id=row.lead_id,
        delivery_id=str(delivery.id),
        action=row.action,
    )


def preview(session: Session, lead: Lead) -> list[str]:
    """What approving ``lead`` as it stands will send, one sentence per destination, for people."""
    silent = lead.person_id in _do_not_contact(session, [lead])
    never = _never_because(lead.intent, silent, lead.suppression_id is not None)
    if never is not None:
        return [f"Nothing will be sent: {never}."]
    targets = _destinations(session, {lead.workspace_id})
    if not targets:
        return ["Nothing will be sent: the workspace has no destination that is switched on."]
    sent = {
        (row.destination_id, row.action)
        for row in session.execute(
            sa.select(Delivery.destination_id, Delivery.action).where(
                Delivery.lead_id == lead.id, Delivery.state == DeliveryState.DELIVERED
            )
        )
    }
    quiet = bool(flags.without_webhooks(session, {lead.workspace_id}))
    return [
        f"{target.name}: nothing, {flags.OFF_BECAUSE[flags.Flag.WEBHOOKS]}."
        if quiet and target.kind in flags.WEBHOOK_KINDS
        else _sentence(target, lead, sent)
        for target in targets
    ]


def _sentence(target: Any, lead: Lead, sent: set[tuple[uuid.UUID, str]]) -> str:
    if target.config.get("trigger") == "qualified" and not lead.qualified:
        return f"{target.name}: nothing, only qualified leads go there."
    if target.kind is DestinationKind.WEBHOOK:
        return f"{target.name}: notice of the approval."
    steps = [effect.action for effect in effects(target.kind, target.config, lead)]
    open_steps = [_LABELS[step] for step in steps if (target.id, step) not in sent and step != TASK_TARGET]
    if not open_steps:
        return f"{target.name}: already sent."
    return f"{target.name}: {' and '.join(open_steps)}."


def _destinations(session: Session, workspace_ids: set[uuid.UUID]) -> Sequence[Any]:
    if not workspace_ids:
        return ()
    return session.execute(
        sa.select(Destination.id, Destination.workspace_id, Destination.kind, Destination.config, Destination.name)
        .where(
            Destination.workspace_id.in_(workspace_ids),
            Destination.mode == DestinationMode.LIVE,
            Destination.kind != DestinationKind.N8N,
        )
        .order_by(Destination.name)
    ).all()


def _do_not_contact(session: Session, leads: Iterable[Lead]) -> set[uuid.UUID | None]:
    ids = {lead.person_id for lead in leads if lead.person_id is not None}
    if not ids:
        return set()
    return set(session.scalars(sa.select(Person.id).where(Person.id.in_(ids), Person.do_not_contact)))


class _Row(NamedTuple):
    """A delivery to queue."""

    workspace_id: uuid.UUID
    lead_id: uuid.UUID
    destination_id: uuid.UUID
    action: str
    step: int


#: Arrays, so that it is one prepared statement for any number of rows. ``extend``: rows that wait and were never tried
#: take the new ``due_at`` as well.
_QUEUE = sa.text(
    """
    INSERT INTO deliveries (id, workspace_id, lead_id, destination_id, action, step, decision_id, due_at)
    SELECT r.*, CAST(:decision_id AS uuid), now() + make_interval(secs => CAST(:seconds AS float8))
    FROM unnest(
        CAST(:id AS uuid[]), CAST(:workspace_id AS uuid[]), CAST(:lead_id AS uuid[]),
        CAST(:destination_id AS uuid[]), CAST(:action AS text[]), CAST(:step AS smallint[])
    ) AS r
    ON CONFLICT (lead_id, destination_id, action) DO UPDATE SET
        state = 'pending', due_at = excluded.due_at, decision_id = excluded.decision_id, tries = 0,
        last_error = NULL, updated_at = now()
    WHERE deliveries.state = 'cancelled'
        OR (CAST(:extend AS bool) AND deliveries.state = 'pending' AND deliveries.tries = 0)
    RETURNING id
    """
)


def _insert(
    session: Session, rows: Iterable[_Row], *, decision_id: uuid.UUID | None = None, due_in_seconds: float
) -> int:
    unique = list(dict.fromkeys(rows))
    if not unique:
        return 0
    session.flush()  # a lead or decision that is new in this session must be there for the foreign keys
    columns: dict[str, Any] = {name: [getattr(row, name) for row in unique] for name in _Row._fields}
    given = {
        "id": [new_id() for _ in unique],
        "decision_id": decision_id,
        "seconds": float(due_in_seconds),
        "extend": decision_id is not None,
    }
    return len(session.execute(_QUEUE, columns | given).all())


def _cancel_pointless(session: Session, lead: Lead) -> None:
    """An override of what was to go out as auto-approved must not announce both."""
    pointless = [event for status, event in EVENT_TYPES.items() if status is not lead.status]
    _cancel(
        session,
        sa.and_(Delivery.lead_id == lead.id, Delivery.action.in_(pointless)),
        reason="another decision took its place",
        actor=audit.SYSTEM,
    )


def _cancel(session: Session, which: sa.ColumnElement[bool], *, reason: str, actor: str) -> int:
    rows = session.execute(
        sa.update(Delivery)
        .where(which, Delivery.state == DeliveryState.PENDING, Delivery.action != FOLLOW_UP)
        .values(state=DeliveryState.CANCELLED, last_error=reason, updated_at=sa.func.now())
        .returning(Delivery.id, Delivery.workspace_id, Delivery.lead_id)
        .execution_options(synchronize_session=False)
    ).all()
    if rows:
        audit.record(
            session,
            rows[0].workspace_id,
            "DELIVERY_CANCELLED",
            actor=actor,
            lead_id=rows[0].lead_id,
            deliveries=[str(row.id) for row in rows],
            reason=reason,
        )
    return len(rows)

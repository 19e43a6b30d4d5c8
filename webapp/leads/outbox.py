"""The outbox: which effects a lead should have, written in the transaction that decides it.

One row per (lead, destination, action), UNIQUE in the database, so that deciding twice never sends twice: a row that
exists is kept. A cancelled one comes back to life, one that was sent is changed there where the lead is another one now,
and one that was taken back there is brought back. ``webapp.leads.deliver`` sends what is due, ``webapp.leads.withdrawing``
takes back what should not have been.

Nothing here commits.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, flags, kinds, suspicion, triggers
from webapp.leads.errors import Conflict
from webapp.leads.kinds.base import Step, Unknown
from webapp.leads.kinds.callback import FAILED, PROCESSED, covers
from webapp.leads.kinds.n8n import FOLLOW_UP
from webapp.leads.kinds.twenty import PERSON, TASK, TASK_TARGET
from webapp.leads.kinds.webhook import EVENTS
from webapp.leads.states import (
    PRIORITY_VIEW,
    UNDELIVERABLE_INTENTS,
    DeliveryOperation,
    DeliveryState,
    DestinationKind,
    DestinationMode,
    Door,
    Intent,
    LeadStatus,
    Trigger,
)
from webapp.models.base import new_id
from webapp.models.lead import Lead, Person
from webapp.models.work import Delivery, Destination

__all__ = ["FOLLOW_UP", "PERSON", "TASK", "TASK_TARGET"]

#: What may be delivered at all (taxonomy: qualified and deliverable).
DELIVERABLE_STATUSES = frozenset({LeadStatus.NEW_AUTO, LeadStatus.APPROVED, LeadStatus.OVERRIDDEN})
_STATUS_EVENTS = {
    LeadStatus.NEW_AUTO: EVENTS[Trigger.NEW_AUTO],
    LeadStatus.APPROVED: EVENTS[Trigger.APPROVED],
    LeadStatus.OVERRIDDEN: EVENTS[Trigger.OVERRIDDEN],
}


SUPPRESSED = "the suppression list holds it back"
_TAKES_BACK = Delivery.operation == DeliveryOperation.WITHDRAW


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


def steps_at(kind: DestinationKind, config: Mapping[str, Any], rules: Mapping[str, Any], lead: Any) -> tuple[Step, ...]:
    """What a lead has to bring about at one destination; empty when its rules leave the lead out."""
    if kind not in kinds.KINDS or kind in kinds.OWN_RULES:
        return ()  # plan_follow_up, webapp.leads.callbacks
    return kinds.of(kind).steps_for(triggers.matched(rules, lead), config)


def crm_steps(config: Mapping[str, Any]) -> tuple[Step, ...]:
    """What makes a lead complete in a CRM."""
    return kinds.of(DestinationKind.TWENTY).steps_for(frozenset(Trigger), config)


def still_wanted(
    destination: Destination, lead: Lead, action: str, *, do_not_contact: bool, suppressed: bool
) -> str | None:
    """Asked just before sending: None to go on, else why not. ``suppressed``: by the list as it is at this moment."""
    kind = DestinationKind(destination.kind)
    if kind is DestinationKind.CALLBACK:  # whoever sent the lead is told, not the person
        still = covers(str(destination.config.get("url")), lead.callback_url or "")
        return None if still else "its address is not one of this destination's any more"
    step = next(
        (one for one in steps_at(kind, destination.config, destination.rules, lead) if one.action == action), None
    )
    if step is not None and _tells_rejection(step):
        return None
    if suppressed:
        return SUPPRESSED
    if kind is DestinationKind.N8N:
        if suspicion.awaits_a_person(lead.verdict, lead.status):
            return "a person has to look at it first"
        return "the lead was rejected" if lead.status is LeadStatus.REJECTED else None
    if do_not_contact:
        return "the person is marked do-not-contact"
    if step is not None:
        return None
    return (
        blocked_because(lead, do_not_contact=False, suppressed=suppressed) or "it is no longer what the lead calls for"
    )


def _tells_rejection(step: Step) -> bool:
    """It tells a program that the lead is off, and brings nobody into contact with anybody: so also of leads that are held
    back, whose receiver may have heard of them before."""
    return step.trigger is Trigger.REJECTED


def what_it_is(lead: Any) -> str:
    """As far as the other side is told when it changes: ``deliveries.sent_as``."""
    return f"{lead.intent.value} {lead.priority.value}"


def plan(session: Session, lead: Lead, *, decision_id: uuid.UUID | None = None, due_in_seconds: float) -> int:
    """Queue what ``lead`` calls for, due in ``due_in_seconds``. Returns the number of rows now waiting because of it.

    To be called after the new status is set. With ``decision_id`` rows that wait untried are held for the new undo
    window as well, and waiting rows that the decision makes pointless are cancelled.
    """
    keep_there(session, [lead])
    if decision_id is not None:
        _cancel_pointless(session, lead)
        if suspicion.suspected(lead.verdict):
            plan_follow_up(session, lead, due_in_seconds=due_in_seconds)
    return plan_many(session, [lead], decision_id=decision_id, due_in_seconds=due_in_seconds)


def plan_many(
    session: Session, leads: Sequence[Lead], *, decision_id: uuid.UUID | None = None, due_in_seconds: float
) -> int:
    """:func:`plan` for a batch of leads in three statements."""
    targets = _destinations(session, {lead.workspace_id for lead in leads})
    quiet = flags.without_webhooks(session, {lead.workspace_id for lead in leads}) if targets else set()
    due = {target.id: _due_at(target, due_in_seconds) for target in targets}
    rows = [
        _row(lead, target.id, step)._replace(due_at=due[target.id])
        for lead in leads
        for target in targets
        if target.workspace_id == lead.workspace_id
        and not (target.kind in flags.WEBHOOK_KINDS and lead.workspace_id in quiet)
        for step in steps_at(target.kind, target.config, target.rules, lead)
        if lead.suppression_id is None or _tells_rejection(step)
    ]
    if not rows:
        return 0
    silent = _do_not_contact(session, leads)
    held = {lead.id for lead in leads if lead.person_id in silent}
    rows = [row for row in rows if row.lead_id not in held or row.action == EVENTS[Trigger.REJECTED]]
    return _insert(session, rows, decision_id=decision_id, due_in_seconds=due_in_seconds)


def plan_steps(session: Session, workspace_id: uuid.UUID, steps: Iterable[tuple[uuid.UUID, uuid.UUID, Step]]) -> int:
    """Queue these (lead, destination, step), due at once; for who has asked for each of the leads already."""
    rows = [_Row(workspace_id, lead_id, there, step.action, step.step, False, None) for lead_id, there, step in steps]
    return _insert(session, rows, due_in_seconds=0)


def plan_follow_up(session: Session, lead: Lead, *, due_in_seconds: float = 0) -> int:
    """Queue the n8n follow-up of a social lead of high priority; to be called when a first run settles. One that is
    suspected of prompt injection waits for a person's decision.

    The operator's ``WEBHOOK_URL`` serves every workspace unless one has a follow-up destination of its own.
    """
    if lead.door is not Door.SOCIAL or PRIORITY_VIEW[lead.priority] != "high" or lead.suppression_id is not None:
        return 0
    if lead.status is LeadStatus.REJECTED or suspicion.awaits_a_person(lead.verdict, lead.status):
        return 0
    if flags.without_webhooks(session, {lead.workspace_id}):
        return 0
    destination_id = session.scalar(
        sa.select(Destination.id)
        .where(
            Destination.kind == DestinationKind.N8N,
            Destination.mode != DestinationMode.OFF,
            sa.or_(Destination.workspace_id == lead.workspace_id, Destination.managed_by == "environment"),
        )
        .order_by((Destination.workspace_id == lead.workspace_id).desc(), Destination.id)
        .limit(1)
    )
    if destination_id is None:
        return 0
    row = _Row(lead.workspace_id, lead.id, destination_id, FOLLOW_UP, 0, False, None)
    return _insert(session, [row], due_in_seconds=due_in_seconds)


def cancel(session: Session, lead_id: uuid.UUID, *, reason: str, actor: str = audit.SYSTEM) -> int:
    """Cancel what still waits for ``lead_id``; what is being sent, was delivered or is to be taken back stays. Returns how
    many."""
    return _cancel(session, sa.and_(Delivery.lead_id == lead_id, ~_TAKES_BACK), reason=reason, actor=actor)


def keep_there(session: Session, leads: Sequence[Lead]) -> int:
    """Call off the taking back of what destinations want again, now that these leads are what they are. Returns how
    many; what may have been taken back already is for :func:`plan_many` to bring back."""
    by_id = {lead.id: lead for lead in leads}
    waiting = session.execute(
        sa.select(Delivery.id, Delivery.lead_id, Destination.kind, Destination.config, Destination.rules)
        .join(Destination, Destination.id == Delivery.destination_id)
        .where(Delivery.lead_id.in_(by_id), Delivery.state == DeliveryState.PENDING, _TAKES_BACK)
    ).all()
    kept: dict[uuid.UUID, list[uuid.UUID]] = {}
    for row in waiting:
        if steps_at(row.kind, row.config, row.rules, by_id[row.lead_id]):
            kept.setdefault(row.lead_id, []).append(row.id)
    reason = "the lead is wanted there again"
    return sum(
        _cancel(session, sa.and_(Delivery.id.in_(ids), _TAKES_BACK), reason=reason, actor=audit.SYSTEM)
        for ids in kept.values()
    )


def replay(session: Session, delivery: Delivery, *, actor: str) -> None:
    """Queue a dead or uncertain delivery again, with all its tries. Conflict when it is neither.

    One whose outcome is unknown is reconciled before it is sent again, where the other side can be asked; where it
    cannot, this is the person who decides that it goes out again.
    """
    row = next(iter(send_again(session, [delivery.id])), None)
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


def give_up(session: Session, delivery: Delivery, *, actor: str) -> int:
    """A person lets go of a delivery that is stuck or waits: it is not tried again, and neither is what would have followed
    it there. A change to what is there already is left undone. Returns how many later steps were called off. Conflict
    when it is neither."""
    locked = session.scalars(
        sa.select(Delivery)
        .where(Delivery.id == delivery.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    if locked.state not in (DeliveryState.DEAD, DeliveryState.UNCERTAIN, DeliveryState.PENDING):
        raise Conflict("Only a delivery that waits or was given up can be let go of.")
    reason = f"let go of by {actor}"
    tried = locked.ambiguous or locked.state is DeliveryState.UNCERTAIN
    locked.state = before(locked.operation, tried=tried)
    locked.ambiguous = tried
    locked.last_error = reason if locked.operation is DeliveryOperation.SEND else None
    locked.updated_at = sa.func.now()
    audit.record(
        session,
        locked.workspace_id,
        "DELIVERY_LET_GO",
        actor=actor,
        lead_id=locked.lead_id,
        delivery_id=str(locked.id),
        action=locked.action,
    )
    session.flush()
    if locked.state is not DeliveryState.CANCELLED:
        return 0
    later = sa.and_(
        Delivery.lead_id == locked.lead_id,
        Delivery.destination_id == locked.destination_id,
        Delivery.step > locked.step,
        Delivery.operation == DeliveryOperation.SEND,
    )
    return _cancel(session, later, reason="what comes before it was let go of", actor=actor)


def settle_recorded(
    session: Session, destination: Destination, *, send: bool, actor: str, delivery: Delivery | None = None
) -> int:
    """What was only recorded for ``destination`` goes out now, or is discarded: one delivery, or all. Returns how many.
    Conflict for sending while it is not switched on, and for one that is not recorded only any more."""
    if send and destination.mode is not DestinationMode.LIVE:
        raise Conflict("Switch the destination on first; then what was recorded can go out.")
    values: dict[str, Any] = {"state": DeliveryState.PENDING, "due_at": sa.func.now()}
    if not send:
        values = {"state": DeliveryState.CANCELLED, "last_error": f"recorded only, and discarded by {actor}"}
    which = [Delivery.destination_id == destination.id, Delivery.state == DeliveryState.SHADOWED]
    if delivery is not None:
        which.append(Delivery.id == delivery.id)
    settled = session.execute(
        sa.update(Delivery)
        .where(*which)
        .values(**values, updated_at=sa.func.now())
        .returning(Delivery.id)
        .execution_options(synchronize_session=False)
    ).all()
    if delivery is not None:
        if not settled:
            raise Conflict("This delivery is no longer one that was only recorded.")
        session.expire(delivery)
    if settled:
        audit.record(
            session,
            destination.workspace_id,
            "SHADOWED_SENT" if send else "SHADOWED_DISCARDED",
            actor=actor,
            lead_id=delivery.lead_id if delivery is not None else None,
            destination=destination.name,
            deliveries=len(settled),
        )
    return len(settled)


def send_again(session: Session, delivery_ids: Sequence[uuid.UUID]) -> Sequence[Any]:
    """Queue those of these that are dead or uncertain, with all their tries. Returns ``(workspace_id, lead_id, action)``
    of each."""
    cannot_tell = [kind for kind, known in kinds.KINDS.items() if known.unknown is not Unknown.ASKS]
    told = sa.select(Destination.kind.in_(cannot_tell)).where(Destination.id == Delivery.destination_id)
    return session.execute(
        sa.update(Delivery)
        .where(Delivery.id.in_(delivery_ids), Delivery.state.in_((DeliveryState.DEAD, DeliveryState.UNCERTAIN)))
        .values(
            state=DeliveryState.PENDING,
            tries=0,
            ambiguous=sa.and_(Delivery.ambiguous, ~told.scalar_subquery()),
            due_at=sa.func.now(),
            lease_until=None,
            updated_at=sa.func.now(),
        )
        .returning(Delivery.workspace_id, Delivery.lead_id, Delivery.action)
        .execution_options(synchronize_session=False)
    ).all()


def preview(session: Session, lead: Lead) -> list[str]:
    """What approving ``lead`` as it stands will send, one sentence per destination, for people."""
    person = None if "person" in sa.inspect(lead).unloaded else lead.person
    silent = person.do_not_contact if person else lead.person_id in _do_not_contact(session, [lead])
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
    names = ("intent", "priority", "source", "lang", "score", "qualified", "attributes", "verdict")
    approved = SimpleNamespace(
        **{name: getattr(lead, name) for name in names}, status=LeadStatus.APPROVED, settled_at=lead.settled_at or True
    )
    steps = steps_at(target.kind, target.config, target.rules, approved)
    if not steps:
        if target.rules.get("qualified_only") and not lead.qualified:
            return f"{target.name}: nothing, only qualified leads go there."
        return f"{target.name}: nothing, its rules leave this lead out."
    shadow = " (recorded only)" if target.mode is DestinationMode.SHADOW else ""
    if target.kind is DestinationKind.WEBHOOK:
        return f"{target.name}: notice of the approval{shadow}."
    labels = [
        step.label for step in steps if (target.id, step.action) not in sent and not step.label.startswith("link")
    ]
    if not labels:
        return f"{target.name}: already sent."
    listed = " and ".join(labels) if len(labels) < 3 else f"{', '.join(labels[:-1])} and {labels[-1]}"
    return f"{target.name}: {listed}{shadow}."


def _destinations(session: Session, workspace_ids: set[uuid.UUID]) -> Sequence[Any]:
    if not workspace_ids:
        return ()
    return session.execute(
        sa.select(
            Destination.id,
            Destination.workspace_id,
            Destination.kind,
            Destination.config,
            Destination.rules,
            Destination.mode,
            Destination.name,
        )
        .where(
            Destination.workspace_id.in_(workspace_ids),
            Destination.mode != DestinationMode.OFF,
            Destination.kind.not_in(kinds.OWN_RULES),
        )
        .order_by(Destination.name)
    ).all()


def _do_not_contact(session: Session, leads: Iterable[Lead]) -> set[uuid.UUID | None]:
    ids = {lead.person_id for lead in leads if lead.person_id is not None}
    if not ids:
        return set()
    return set(session.scalars(sa.select(Person.id).where(Person.id.in_(ids), Person.do_not_contact)))


class _Row(NamedTuple):
    """A delivery to queue. ``updates``: one that was sent is changed there when ``sent_as`` is another now. ``due_at``: not
    when all of them are."""

    workspace_id: uuid.UUID
    lead_id: uuid.UUID
    destination_id: uuid.UUID
    action: str
    step: int
    updates: bool
    sent_as: str | None
    due_at: datetime | None = None


def _due_at(target: Any, seconds: float) -> datetime | None:
    """When a digest takes what is queued now: the very same moment for all that it takes."""
    digest = kinds.of(target.kind).digest(target.config) if target.kind in kinds.KINDS else None
    return digest.next(datetime.now(UTC) + timedelta(seconds=seconds)) if digest else None


def _row(lead: Lead, destination_id: uuid.UUID, step: Step) -> _Row:
    is_now = what_it_is(lead)
    return _Row(lead.workspace_id, lead.id, destination_id, step.action, step.step, step.updates, is_now)


#: Arrays, so that it is one prepared statement for any number of rows. ``extend``: rows that wait and were never tried
#: take the new ``due_at`` as well.
_QUEUE = sa.text(
    """
    WITH wanted AS (
        SELECT * FROM unnest(
            CAST(:id AS uuid[]), CAST(:workspace_id AS uuid[]), CAST(:lead_id AS uuid[]),
            CAST(:destination_id AS uuid[]), CAST(:action AS text[]), CAST(:step AS smallint[]),
            CAST(:updates AS bool[]), CAST(:sent_as AS text[]), CAST(:due_at AS timestamptz[])
        ) AS w (id, workspace_id, lead_id, destination_id, action, step, updates, sent_as, due_at)
    )
    INSERT INTO deliveries AS d
        (id, workspace_id, lead_id, destination_id, action, step, sent_as, decision_id, due_at)
    SELECT id, workspace_id, lead_id, destination_id, action, step, sent_as, CAST(:decision_id AS uuid),
        coalesce(due_at, now() + make_interval(secs => CAST(:seconds AS float8)))
    FROM wanted
    ON CONFLICT (lead_id, destination_id, action) DO UPDATE SET
        state = 'pending', due_at = excluded.due_at, decision_id = excluded.decision_id, tries = 0,
        last_error = NULL, updated_at = now(),
        operation = CASE d.state
            WHEN 'delivered' THEN 'update' WHEN 'withdrawn' THEN 'restore' WHEN 'pending' THEN d.operation
            ELSE 'send' END,
        revision = d.revision + CASE WHEN d.state IN ('delivered', 'withdrawn') THEN 1 ELSE 0 END
    WHERE d.state IN ('cancelled', 'shadowed', 'withdrawn')
        OR (CAST(:extend AS bool) AND d.state = 'pending' AND d.tries = 0)
        OR (
            d.state = 'delivered' AND d.sent_as <> excluded.sent_as
            AND EXISTS (SELECT FROM wanted AS w WHERE w.id = excluded.id AND w.updates)
        )
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
    pointless = [event for status, event in _STATUS_EVENTS.items() if status is not lead.status]
    _cancel(
        session,
        sa.and_(Delivery.lead_id == lead.id, Delivery.action.in_(pointless), ~_TAKES_BACK),
        reason="another decision took its place",
        actor=audit.SYSTEM,
    )


def before(operation: DeliveryOperation, *, tried: bool) -> DeliveryState:
    """Where a delivery stands when its operation is called off. ``tried``: it may have taken effect."""
    match operation:
        case DeliveryOperation.SEND:
            return DeliveryState.CANCELLED
        case DeliveryOperation.WITHDRAW if tried:
            return DeliveryState.WITHDRAWN
        case DeliveryOperation.RESTORE if not tried:
            return DeliveryState.WITHDRAWN
    return DeliveryState.DELIVERED


def _called_off() -> sa.ColumnElement[Any]:
    """:func:`before` as SQL."""
    tried = sa.or_(Delivery.tries > 0, Delivery.ambiguous)
    whens = [
        (sa.and_(Delivery.operation == operation, tried if was_tried else ~tried), before(operation, tried=was_tried))
        for operation in DeliveryOperation
        for was_tried in (False, True)
    ]
    return sa.case(*((condition, sa.literal(state.value)) for condition, state in whens))


#: What no decision on the lead calls off.
_NOT_CALLED_OFF = (FOLLOW_UP, PROCESSED, FAILED)


def _cancel(session: Session, which: sa.ColumnElement[bool], *, reason: str, actor: str) -> int:
    sending = Delivery.operation == DeliveryOperation.SEND
    rows = session.execute(
        sa.update(Delivery)
        .where(which, Delivery.state == DeliveryState.PENDING, Delivery.action.not_in(_NOT_CALLED_OFF))
        .values(
            state=_called_off(),
            last_error=sa.case((sending, sa.literal(reason)), else_=sa.null()),
            updated_at=sa.func.now(),
        )
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

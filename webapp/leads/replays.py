"""Dead letters asked for again: one, with fields put right, or many in the background with progress.

``deliver`` sends them; here is which ones, and that each is asked for once. Functions with a session flush, their caller
commits and rings; :func:`process` owns its short transactions.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, fieldmap, kinds, outbox, query_values, trial
from webapp.leads.claims import REPLAYS, Claim, Holder, claim, renew
from webapp.leads.draining import SessionFactory
from webapp.leads.errors import Conflict, Invalid, NotFound, Problem
from webapp.leads.fieldmap import MAX_VALUE
from webapp.leads.ports import Drained
from webapp.leads.states import DeliveryState, ReplayState
from webapp.models.base import scoped
from webapp.models.work import Delivery, Destination, ReplayRequest

STUCK = (DeliveryState.DEAD, DeliveryState.UNCERTAIN)
UNDER_WAY = (ReplayState.QUEUED, ReplayState.RUNNING)
#: Rows of one transaction.
_BATCH = 200
#: What of the lead itself can be put right for a delivery, besides the mapped fields; stored as ``lead.email`` and so on.
LEAD_FIELDS = ("name", "email", "phone", "company")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters. None: whatever it is. ``since``, ``until``: when they were given up. ``error``: a part of what
    went wrong; ``text``: words of their lead; ``ids``: these and no others. Uncertain ones may have arrived, so they are
    only taken when ``uncertain`` says so."""

    destination_id: uuid.UUID | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    error: str | None = None
    uncertain: bool = False
    text: str | None = None
    ids: tuple[uuid.UUID, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "destination_id": str(self.destination_id) if self.destination_id else None,
            "action": self.action,
            "since": self.since.isoformat() if self.since else None,
            "until": self.until.isoformat() if self.until else None,
            "error": self.error,
            "uncertain": self.uncertain,
            "text": self.text,
            "ids": [str(one) for one in self.ids] if self.ids is not None else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Choice":
        return cls(
            destination_id=uuid.UUID(data["destination_id"]) if data.get("destination_id") else None,
            action=data.get("action"),
            since=datetime.fromisoformat(data["since"]) if data.get("since") else None,
            until=datetime.fromisoformat(data["until"]) if data.get("until") else None,
            error=data.get("error"),
            uncertain=bool(data.get("uncertain")),
            text=data.get("text"),
            ids=tuple(uuid.UUID(one) for one in data["ids"]) if data.get("ids") is not None else None,
        )

    def conditions(self, workspace_id: uuid.UUID) -> list[sa.ColumnElement[bool]]:
        """Of deliveries; for the page that lists them as well."""
        found: list[sa.ColumnElement[bool]] = [
            Delivery.workspace_id == workspace_id,
            Delivery.state.in_(STUCK if self.uncertain else (DeliveryState.DEAD,)),
        ]
        if self.destination_id is not None:
            found.append(Delivery.destination_id == self.destination_id)
        if self.action is not None:
            found.append(Delivery.action == self.action)
        if self.since is not None:
            found.append(Delivery.updated_at >= self.since)
        if self.until is not None:
            found.append(Delivery.updated_at < self.until)
        if self.error:
            found.append(Delivery.last_error.icontains(self.error, autoescape=True))
        if self.text:
            found.append(query_values.of_leads(Delivery.lead_id, workspace_id, self.text))
        if self.ids is not None:
            found.append(Delivery.id.in_(self.ids))
        return found


def count(session: Session, workspace_id: uuid.UUID, choice: Choice) -> int:
    """How many would be sent again."""
    query = sa.select(sa.func.count()).select_from(Delivery).where(*choice.conditions(workspace_id))
    return session.scalar(query) or 0


def ask(session: Session, workspace_id: uuid.UUID, choice: Choice, *, actor: str) -> ReplayRequest:
    """Queue the replay of all of them. Conflict when there is none."""
    total = count(session, workspace_id, choice)
    if not total:
        raise Conflict("There is nothing to send again.")
    request = ReplayRequest(workspace_id=workspace_id, chosen=choice.as_json(), total=total, requested_by=actor)
    session.add(request)
    session.flush()
    audit.record(session, workspace_id, "REPLAY_ASKED", actor=actor, deliveries=total, request_id=str(request.id))
    return request


def find(session: Session, workspace_id: uuid.UUID, request_id: uuid.UUID) -> ReplayRequest:
    """With ``state``, ``total`` and ``done`` for a progress bar. NotFound outside the workspace."""
    request: ReplayRequest | None = session.scalar(
        scoped(ReplayRequest, workspace_id).where(ReplayRequest.id == request_id)
    )
    if request is None:
        raise NotFound("There is no such replay.")
    return request


def cancel(session: Session, workspace_id: uuid.UUID, request_id: uuid.UUID, *, actor: str) -> ReplayRequest:
    """Stop it: those it has not come to stay given up; those it has asked for again go out. Conflict when it is over."""
    stopped = session.scalar(
        sa.update(ReplayRequest)
        .where(
            ReplayRequest.id == request_id,
            ReplayRequest.workspace_id == workspace_id,
            ReplayRequest.state.in_(UNDER_WAY),
        )
        .values(state=ReplayState.CANCELLED, cancelled_by=actor, finished_at=sa.func.now(), lease_until=None)
        .returning(ReplayRequest.id)
        .execution_options(synchronize_session=False)
    )
    session.expire_all()
    request = find(session, workspace_id, request_id)
    if stopped is None:
        raise Conflict("This replay is over already.")
    audit.record(
        session, workspace_id, "REPLAY_CANCELLED", actor=actor, deliveries=request.done, request_id=str(request_id)
    )
    return request


def under_way(session: Session, workspace_id: uuid.UUID) -> Sequence[ReplayRequest]:
    """Those that are not over, oldest first."""
    query = scoped(ReplayRequest, workspace_id).where(ReplayRequest.state.in_(UNDER_WAY))
    return session.scalars(query.order_by(ReplayRequest.created_at)).all()


def recent(session: Session, workspace_id: uuid.UUID, *, limit: int = 5) -> Sequence[ReplayRequest]:
    """The last ones, newest first."""
    query = scoped(ReplayRequest, workspace_id).order_by(ReplayRequest.created_at.desc(), ReplayRequest.id.desc())
    return session.scalars(query.limit(limit)).all()


@dataclass(frozen=True, slots=True)
class Editable:
    """One thing that can be put right for a delivery. ``name``: for :func:`edit`; ``value``: what would go out now;
    ``edited``: a person has put it right before."""

    name: str
    label: str
    value: str
    edited: bool = False


def editable(session: Session, delivery: Delivery, *, public_url: str | None = None) -> list[Editable]:
    """What of the lead and which mapped fields of its destination can be put right, with what they hold."""
    destination = session.get_one(Destination, delivery.destination_id)
    known, edited = kinds.of(destination.kind), delivery.edited or {}
    mapping = fieldmap.complete(known.mapping, destination.mapping)
    shown = trial.example(session, delivery.workspace_id, mapping, lead_id=delivery.lead_id, public_url=public_url)
    labels = {field.name: field.label for field in known.mapping}
    found = [
        (f"lead.{name}", "E-mail" if name == "email" else name, getattr(shown.lead, name) if shown else None)
        for name in LEAD_FIELDS
    ]
    found += [(name, labels.get(name, name), shown.values.get(name) if shown else None) for name in mapping]
    return [Editable(name, label, edited.get(name, value or ""), name in edited) for name, label, value in found]


def edit(session: Session, delivery: Delivery, values: Mapping[str, str], *, actor: str) -> None:
    """Send a dead letter again with fields put right, for this delivery alone: the mapped fields of its destination, and
    ``lead.`` and one of :data:`LEAD_FIELDS`. Conflict when it is not stuck, Invalid for other fields."""
    destination = session.get_one(Destination, delivery.destination_id)
    known = kinds.of(destination.kind)
    allowed = {field.name for field in known.mapping} | set(destination.mapping)
    allowed |= {f"lead.{name}" for name in LEAD_FIELDS}
    problems = [Problem(name, "cannot be changed here") for name in values if name not in allowed]
    problems += [Problem(name, "is too long") for name, text in values.items() if len(text) > MAX_VALUE]
    if problems:
        raise Invalid("The delivery cannot be changed so.", details=tuple(problems))
    edited = {name: text.strip() for name, text in values.items()}
    outbox.replay(session, delivery, actor=actor)
    session.execute(
        sa.update(Delivery)
        .where(Delivery.id == delivery.id)
        .values(edited={**(delivery.edited or {}), **edited})
        .execution_options(synchronize_session=False)
    )
    audit.record(
        session,
        delivery.workspace_id,
        "DELIVERY_EDITED",
        actor=actor,
        lead_id=delivery.lead_id,
        delivery_id=str(delivery.id),
        fields=sorted(edited),
    )
    session.expire(delivery)


def process(
    session_factory: SessionFactory,
    holder: Holder,
    *,
    max_seconds: float,
    clock: Callable[[], float],
    stop: Callable[[], bool] = lambda: False,
) -> Drained:
    """Go on with replays that were asked for, a batch a transaction. ``done`` counts deliveries."""
    ends_at, done = clock() + max_seconds, 0
    while clock() < ends_at and not stop():
        with session_factory() as session:
            claims = claim(session, REPLAYS, holder, limit=1)
            session.commit()
        if not claims:
            return Drained(done, False)
        for found in _batches(session_factory, claims[0]):
            done += found
            if clock() >= ends_at or stop():
                _hand_back(session_factory, claims[0])
                return Drained(done, True)
    return Drained(done, True)


def _batches(session_factory: SessionFactory, token: Claim) -> Any:
    while True:
        with session_factory() as session:
            found = _batch(session, token)
            session.commit()
        if found is None:
            return
        yield found


def _batch(session: Session, token: Claim) -> int | None:
    """One batch of a replay that this worker holds; None when it is over, or somebody else's now."""
    held = sa.select(ReplayRequest).where(
        ReplayRequest.id == token.id,
        ReplayRequest.attempt == token.attempt,
        ReplayRequest.state == ReplayState.RUNNING,
    )
    request = session.scalar(held.with_for_update().execution_options(populate_existing=True))
    if request is None:
        return None
    choice = Choice.from_json(request.chosen)
    conditions = choice.conditions(request.workspace_id)
    # What is given up again meanwhile is not asked for twice.
    conditions.append(Delivery.updated_at <= request.created_at)
    if request.after_id is not None:
        conditions.append(Delivery.id > request.after_id)
    ids = session.scalars(
        sa.select(Delivery.id).where(*conditions).order_by(Delivery.id).limit(_BATCH).with_for_update()
    ).all()
    outbox.send_again(session, ids)
    request.done += len(ids)
    if len(ids) < _BATCH:
        request.state, request.finished_at, request.lease_until = ReplayState.DONE, sa.func.now(), None
        audit.record(
            session,
            request.workspace_id,
            "REPLAY_DONE",
            actor=request.requested_by,
            deliveries=request.done,
            request_id=str(request.id),
        )
    else:
        request.after_id = ids[-1]
        renew(session, REPLAYS, [token])
    session.flush()
    return len(ids) if ids else None


def _hand_back(session_factory: SessionFactory, token: Claim) -> None:
    with session_factory() as session:
        session.execute(
            sa.update(ReplayRequest)
            .where(
                ReplayRequest.id == token.id,
                ReplayRequest.attempt == token.attempt,
                ReplayRequest.state == ReplayState.RUNNING,
            )
            .values(state=ReplayState.QUEUED, lease_until=None, due_at=sa.func.now())
            .execution_options(synchronize_session=False)
        )
        session.commit()

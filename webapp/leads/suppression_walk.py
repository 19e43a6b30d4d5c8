"""After a list has changed: the leads that are here are compared with it anew, in the background.

What waits or would go out by itself is walked through newest first, as are decided leads of which something still waits to
be delivered, and whatever the list holds back already. One batch is one transaction under the list's lock, which keeps how
far the walk has come, so that any number of workers may walk and none does a batch twice. A change of the list meanwhile
begins the walk anew.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from webapp.leads import audit, outbox, run
from webapp.leads.filters import inline
from webapp.leads.ports import Drained
from webapp.leads.states import DECIDED_STATUSES, LeadStatus
from webapp.leads.suppression import LISTS, RELEASES, contact_of
from webapp.leads.suppression_match import Entry, Matcher, lowered
from webapp.models.base import scoped
from webapp.models.lead import Lead
from webapp.models.suppression import SuppressionList
from webapp.models.work import Delivery

BATCH = 500
#: Where the runs of what is let go stand among others: behind what comes in live.
RANK = 3
#: The parts of a walk in their order: the undecided by status, then what is decided and not out yet, then what is held.
_UNDECIDED = (LeadStatus.NEW_AUTO, LeadStatus.NEW_DRAFT, LeadStatus.NEW_ESCALATE)
_PARTS = (*(status.value for status in _UNDECIDED), "undelivered", "held")

SessionFactory = sessionmaker[Session]


@dataclass(frozen=True, slots=True)
class _Place:
    """How far a walk is: the part, and in it the last lead seen (newest first)."""

    part: str
    created_at: datetime | None = None
    lead_id: uuid.UUID | None = None

    @classmethod
    def of(cls, stored: dict[str, Any] | None) -> "_Place":
        if not stored:
            return cls(_PARTS[0])
        at = datetime.fromisoformat(stored["created_at"]) if stored["created_at"] else None
        return cls(stored["part"], at, uuid.UUID(stored["lead_id"]) if stored["lead_id"] else None)

    def as_json(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "created_at": self.created_at.isoformat() if self.created_at else None,
            "lead_id": str(self.lead_id) if self.lead_id else None,
        }

    def next_part(self) -> "_Place | None":
        rest = _PARTS[_PARTS.index(self.part) + 1 :]
        return _Place(rest[0]) if rest else None


def has_due(session: Session) -> bool:
    """Is there a list that the leads which are here have not been compared with?"""
    return bool(session.scalar(sa.select(sa.exists().where(_due()))))


def _due() -> sa.ColumnElement[bool]:
    return SuppressionList.checked_version < SuppressionList.version


def process(
    session_factory: SessionFactory,
    max_seconds: float = 5.0,
    *,
    hold_seconds: float = 0.0,
    stop: Callable[[], bool] = lambda: False,
) -> Drained:
    """Walk what is due until nothing is, ``max_seconds`` have passed or ``stop()`` says so. ``done``: leads compared.
    ``hold_seconds``: how long what is let go again waits before it is delivered."""
    until = time.monotonic() + max_seconds
    done = 0
    while not stop() and time.monotonic() < until:
        with session_factory.begin() as session:
            step = _step(session, hold_seconds)
        if step is None:
            break
        done += step
    with session_factory() as session:
        return Drained(done, has_due(session))


def _step(session: Session, hold_seconds: float) -> int | None:
    """One batch of one list; None when nothing is due or others have it in hand."""
    found = session.scalars(
        sa.select(SuppressionList)
        .where(_due())
        .order_by(SuppressionList.workspace_id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).first()
    if found is None:
        return None
    matcher = LISTS.of(session, found.workspace_id, max_age=0.0)
    place: _Place | None = _Place.of(found.walk)
    assert place is not None
    leads = _batch(session, found.workspace_id, place)
    _compare(session, leads, matcher, hold_seconds)
    if len(leads) == BATCH:
        place = _Place(place.part, leads[-1].created_at, leads[-1].id)
    else:
        place = place.next_part()
    found.walk = place.as_json() if place else None
    if place is None:
        found.checked_version = found.version
    return len(leads)


def _batch(session: Session, workspace_id: uuid.UUID, place: _Place) -> Sequence[Lead]:
    query = scoped(Lead, workspace_id).options(sa.orm.defer(Lead.search), sa.orm.defer(Lead.verdict))
    if place.part == "undelivered":
        waits = sa.exists().where(Delivery.lead_id == Lead.id, sa.text("deliveries.state = 'pending'"))
        query = query.where(Lead.status.in_(DECIDED_STATUSES), waits)
    elif place.part == "held":
        query = query.where(sa.text("leads.suppression_id IS NOT NULL"))
    else:
        query = query.where(inline(Lead.status, frozenset({LeadStatus(place.part)})))
    if place.created_at is not None:
        here = sa.tuple_(sa.literal(place.created_at, Lead.created_at.type), sa.literal(place.lead_id, Lead.id.type))
        query = query.where(sa.tuple_(Lead.created_at, Lead.id) < here)
    query = query.order_by(Lead.created_at.desc(), Lead.id.desc()).limit(BATCH)
    return session.scalars(query.execution_options(populate_existing=True)).all()


def _compare(session: Session, leads: Sequence[Lead], matcher: Matcher, hold_seconds: float) -> None:
    entries = {lead.id: matcher.find(contact_of(lead)) for lead in leads}
    changed = [lead.id for lead in leads if lead.suppression_id != _id(entries[lead.id])]
    if not changed:
        return
    # By id, as whoever settles runs locks them; and as they are then.
    locked = session.scalars(
        sa.select(Lead)
        .where(Lead.id.in_(changed))
        .order_by(Lead.id)
        .with_for_update(key_share=True, of=Lead)
        .execution_options(populate_existing=True)
    ).all()
    for lead in locked:
        entry = matcher.find(contact_of(lead))
        if lead.suppression_id == _id(entry):
            continue
        if entry:
            hold(session, lead, entry)
        else:
            _let_go(session, lead, hold_seconds)


def _id(entry: Entry | None) -> uuid.UUID | None:
    return entry.id if entry else None


def hold(session: Session, lead: Lead, entry: Entry) -> None:
    """``lead`` (locked) is on the list from now on: nothing of it goes out any more."""
    before = lead.status
    lead.suppression_id = entry.id
    lead.route_state = lead.route_reason = None  # nobody is looked for any more
    lead.updated_at = sa.func.now()
    if lead.status not in DECIDED_STATUSES:
        lead.status = lowered(lead.status)
        lead.version += before is not lead.status
    session.flush()
    outbox.cancel(session, lead.id, reason="the suppression list holds the lead back")
    audit.record(
        session, lead.workspace_id, "LEAD_SUPPRESSED", lead_id=lead.id, kind=entry.kind.value, value=entry.value,
        entry_id=str(entry.id), before=before.value, status=lead.status.value,
    )  # fmt: skip


def _let_go(session: Session, lead: Lead, hold_seconds: float) -> None:
    """No entry is about ``lead`` any more. What nobody has decided waits for a person, whatever the machine was sure of,
    and a run finds who that is; what a person has approved goes out as they wanted."""
    lead.suppression_id = None
    lead.updated_at = sa.func.now()
    session.flush()
    planned = 0
    if lead.status in (LeadStatus.APPROVED, LeadStatus.OVERRIDDEN):
        planned = outbox.plan(session, lead, due_in_seconds=hold_seconds)
    elif lead.status not in DECIDED_STATUSES and lead.assignee_id is None:
        run.request_rerun(session, lead, requested_by=RELEASES, rank=RANK)
    audit.record(
        session, lead.workspace_id, "LEAD_RELEASED", lead_id=lead.id, status=lead.status.value, deliveries=planned
    )

"""What became of leads, read back from their CRMs in small steps.

One worker claims a destination's row and goes through the phases: deals that have changed (by the CRM's cursor), deals
with people who have arrived there since, what was deleted, and a look at some of what was delivered whether it is still
there. Each step is one or a few calls outside any transaction; what they told and how far it is are saved in one
transaction, which only the holder of the claim can. So a killed worker, a pause that the CRM asks for or an outage costs
the step that was under way, and no report is made twice.
"""

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import claims, crm_pulls, deals
from webapp.leads.claims import Claim, Holder, backoff
from webapp.leads.deals import ACTIONS, Stages
from webapp.leads.deliver import DeliveryPolicy
from webapp.leads.draining import SessionFactory
from webapp.leads.errors import LeadError, Transient
from webapp.leads.kinds.twenty import COMPANY, PERSON
from webapp.leads.ports import Clients, CrmOutcomes, Deal, Drained, RecordKind, Refused, Throttled
from webapp.leads.sending import target_of
from webapp.leads.states import PullState
from webapp.models.base import interval
from webapp.models.crm import CrmPull
from webapp.models.work import Delivery, Destination

log = logging.getLogger(__name__)

#: Longer than the calls of one step may hang.
LEASE_SECONDS = 180.0
#: What changed so long before the last look is read again: a change is dated when it began, and seen when it is done.
OVERLAP = timedelta(minutes=5)
#: Records looked after in one step, and how many of those missing are asked for a second time.
BATCH, SECOND_LOOKS = 60, 10
#: A CRM that fails is left alone for so long at most, in seconds.
LONGEST = 3_600.0

#: Writes what a step has found; returns how many reports it made.
Writing = Callable[[Session, Destination], int]
#: What a key may be refused without the rest being of no use: its role may not read such records, or an older server
#: knows no such filter.
_NOT_OURS = frozenset({400, 403, 404})


@dataclass(slots=True)
class Progress:
    """How far a pull is. ``cursor``: the CRM's, within ``phase``. ``since``: from when on the phase reads; ``seen``: the
    last time that it came across. ``marks``: phase → where its next pull begins; ``after``: kind → the last id that was
    looked after. ``looked_at``, ``made``: deals and reports of this pull; ``began``: when it did. ``restarted``: the phase
    has begun again as its cursor was not known; ``refused``: phase → how the CRM refused to be read."""

    phase: str = "deals"
    cursor: str | None = None
    since: str | None = None
    seen: str | None = None
    marks: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    looked_at: int = 0
    made: int = 0
    began: str | None = None
    restarted: bool = False
    refused: dict[str, str] = field(default_factory=dict)


def process(
    session_factory: SessionFactory,
    holder: Holder,
    clients: Clients,
    *,
    every: float,
    policy: DeliveryPolicy,
    max_seconds: float = 5.0,
    stop: Callable[[], bool] = lambda: False,
) -> Drained:
    """Go on with what is due, for ``max_seconds``; a call under way is waited for. ``every``: seconds from the end of one
    pull to the next."""
    ends_at = time.monotonic() + max_seconds
    done = 0
    while time.monotonic() < ends_at and not stop():
        with session_factory() as session:
            found = claims.claim(
                session, claims.PULLS, holder, limit=1, where=crm_pulls.open_now(), seconds=LEASE_SECONDS
            )
            row = session.get_one(CrmPull, found[0].id, populate_existing=True) if found else None
            session.commit()
        if row is None:
            break
        _Pull(session_factory, clients, policy, every, found[0], row).work(
            lambda: time.monotonic() >= ends_at or stop()
        )
        done += 1
    with session_factory() as session:
        return Drained(done, crm_pulls.has_due(session))


class _Lost(Exception):
    """Another worker has it now, or its settings have changed."""


class _Pull:
    """One worker's turn at one destination."""

    def __init__(
        self,
        session_factory: SessionFactory,
        clients: Clients,
        policy: DeliveryPolicy,
        every: float,
        claim: Claim,
        row: CrmPull,
    ) -> None:
        self._session_factory = session_factory
        self._clients = clients
        self._policy = policy
        self._every = every
        self._claim = claim
        self._destination_id = row.destination_id
        self._stages = Stages(row.won_stages, row.lost_stages)
        self._tries = row.tries
        known = {one.name for one in fields(Progress)}
        self._progress = Progress(**{name: value for name, value in row.progress.items() if name in known})

    def work(self, is_time: Callable[[], bool]) -> None:
        """Steps until it is done or it is time. Whatever goes wrong stands in the row, but for the database's own
        errors."""
        self._is_time = is_time
        try:
            with self._session_factory() as session:
                target = target_of(session.get_one(Destination, self._destination_id))
            client = self._clients.client_for(target)
            if not isinstance(client, CrmOutcomes):
                return self._save(delay=LONGEST, error="nothing can be read back from it")
            while self._step(client):
                if is_time():
                    return self._save()
            self._finish()
        except _Lost:
            log.warning("reading back %s was taken over", self._destination_id)
        except Throttled as error:
            pause = min(error.retry_after or self._policy.throttle_delay, self._policy.max_pause)
            if error.exchange.http_status is None:  # it was not asked: deliveries use the rate budget up
                return self._save(delay=pause)
            self._fail(f"{error.message}: it asked for a pause", delay=pause, pause=pause)
        except Transient as error:
            self._tries += 1
            slower = max(error.retry_after or 0.0, backoff(self._tries, self._policy))
            self._fail(error.message, delay=min(slower, LONGEST))
        except LeadError as error:
            self._tries += 1
            self._fail(error.message, delay=min(self._every * 2 ** min(self._tries - 1, 10), LONGEST))
        except sa.exc.SQLAlchemyError:
            raise
        except Exception as error:  # a bug: it must not come back at once for ever
            log.exception("reading back %s failed", self._destination_id)
            self._fail(f"internal error: {type(error).__name__}", delay=LONGEST)
        return None

    def _fail(self, error: str, *, delay: float, pause: float | None = None) -> None:
        try:
            self._save(delay=delay, error=error, pause=pause)
        except _Lost:
            log.warning("reading back %s was taken over", self._destination_id)

    # Steps

    def _step(self, client: CrmOutcomes) -> bool:
        """One bounded bit of work, saved. False when the pull is over."""
        progress = self._progress
        progress.began = progress.began or _stamp(datetime.now(UTC))
        try:
            writing, more = _PHASES[progress.phase](self, client)
        except Refused as error:
            if progress.cursor is not None and error.exchange.http_status == 400:
                # The CRM may not know its own cursor any more: the phase begins again, once. Should that end here as
                # well, the next try begins anew, but is a failure's.
                again, progress.restarted, progress.cursor = not progress.restarted, not progress.restarted, None
                self._write(_nothing)
                if again:
                    return True
            if progress.phase == "deals" or error.exchange.http_status not in _NOT_OURS:
                raise
            progress.refused[progress.phase] = error.message
            progress.cursor = progress.seen = None
            writing, more = _nothing, False
        over = not more and not self._next_phase()
        self._write(writing)
        return not over

    def _next_phase(self) -> bool:
        progress = self._progress
        if progress.seen is not None:
            progress.marks[progress.phase] = progress.seen
        progress.cursor = progress.since = progress.seen = None
        progress.restarted = False
        names = list(_PHASES)
        rest = names[names.index(progress.phase) + 1 :]
        if not rest:
            return False
        progress.phase = rest[0]
        return True

    def _since(self) -> datetime | None:
        """From when on the phase reads, fixed while its cursor is in use."""
        progress = self._progress
        mark = progress.marks.get(progress.phase)
        if progress.cursor is None:
            progress.since = (datetime.fromisoformat(mark) - OVERLAP).isoformat() if mark else None
        progress.seen = progress.seen or mark
        return datetime.fromisoformat(progress.since) if progress.since else None

    def _came_across(self, times: Sequence[datetime]) -> None:
        """A time that is still to come does not count: nothing that changes before it would be news."""
        if times:
            latest = _stamp(min(max(times), datetime.now(UTC)))
            self._progress.seen = max(self._progress.seen or latest, latest)

    def _deals(self, client: CrmOutcomes) -> "_Step":
        found, self._progress.cursor = client.deal_page(self._progress.cursor, since=self._since())
        self._came_across([deal.updated_at for deal in found])
        self._progress.looked_at += len(found)
        return self._telling(found), self._progress.cursor is not None

    def _telling(self, found: Sequence[Deal]) -> Writing:
        return lambda session, destination: deals.tell(session, destination, found, self._stages)

    def _arrived(self, client: CrmOutcomes) -> "_Step":
        """Deals with those who were brought there after the deal was last looked at: since the last pull came to this
        phase, or since the first began to read deals."""
        progress = self._progress
        since = datetime.fromisoformat(progress.marks.get(progress.phase) or progress.began or "") - OVERLAP
        progress.seen = progress.seen or _stamp(datetime.now(UTC))
        with self._session_factory() as session:
            rows = _arrivals(session, self._destination_id, since, progress.after)
        if not rows:
            progress.after.pop("arrived", None)
            return _nothing, False
        found = client.deals_with(
            [row.remote_id for row in rows if row.action == PERSON],
            [row.remote_id for row in rows if row.action == COMPANY],
        )
        more = len(rows) == BATCH
        if more:
            progress.after["arrived"] = f"{rows[-1].delivered_at.isoformat()} {rows[-1].id}"
        else:
            progress.after.pop("arrived", None)
        return self._telling(found), more

    def _deleted(self, client: CrmOutcomes, kind: RecordKind) -> "_Step":
        found, self._progress.cursor = client.deleted_page(kind, self._progress.cursor, since=self._since())
        self._came_across(list(found.values()))
        more = self._progress.cursor is not None
        if kind == "deal":
            return (lambda session, destination: deals.forget(session, destination, found)), more
        return _marking(kind, found, ()), more

    def _back(self, client: CrmOutcomes, kind: RecordKind) -> "_Step":
        """The next of those known to be deleted, round and round: brought back?"""
        place = f"back {kind}"
        with self._session_factory() as session:
            ids = _deleted_before(session, self._destination_id, ACTIONS[kind], self._progress.after.get(place, ""))
        self._go_on_after(place, ids[-1] if len(ids) == BATCH else None)
        return _marking(kind, {}, sorted(client.present(kind, ids)) if ids else []), False

    def _check(self, client: CrmOutcomes, kind: RecordKind) -> "_Step":
        """The next records that were delivered, round and round: gone without a trace?"""
        with self._session_factory() as session:
            ids = _delivered(session, self._destination_id, ACTIONS[kind], self._progress.after.get(kind, ""))
        if not ids:
            self._go_on_after(kind, None)
            return _nothing, False
        here = client.present(kind, ids)
        last = ids[-1] if len(ids) == BATCH else None
        gone: dict[str, datetime] = {}
        asked = 0
        for before, one in zip(["", *ids], ids, strict=False):
            if one in here:
                continue
            if asked == SECOND_LOOKS or (asked and self._is_time()):
                last = before  # the rest in the next pull
                break
            asked += 1
            if client.is_gone(kind, one):
                gone[one] = datetime.now(UTC)
        self._go_on_after(kind, last)
        return _marking(kind, gone, ()), False

    def _go_on_after(self, place: str, last: str | None) -> None:
        """None: a round is over."""
        if last is None:
            self._progress.after.pop(place, None)
        else:
            self._progress.after[place] = last

    # Writing

    def _write(self, writing: Writing) -> None:
        """What a step has found and how far it is, in one transaction."""
        with self._session_factory() as session:
            self._hold(session)
            destination = session.get_one(Destination, self._destination_id)
            self._progress.made += writing(session, destination)
            session.execute(self._update(progress=asdict(self._progress), tries=0))
            session.commit()
        self._tries = 0

    def _finish(self) -> None:
        progress = self._progress
        fresh = Progress(marks=progress.marks, after=progress.after)
        with self._session_factory() as session:
            self._hold(session)
            session.execute(
                self._update(
                    state=PullState.QUEUED,
                    progress=asdict(fresh),
                    tries=0,
                    lease_until=None,
                    due_at=sa.func.now() + interval(self._every),
                    pulled_at=sa.func.now(),
                    deals_seen=progress.looked_at,
                    reports_made=progress.made,
                    reports_total=CrmPull.reports_total + progress.made,
                    hint=_hint(progress.refused),
                )
            )
            session.commit()

    def _save(self, *, delay: float = 0.0, error: str | None = None, pause: float | None = None) -> None:
        """Hand it back. How far it is stands in the row already."""
        failure = {"error": error[:500], "failed_at": sa.func.now()} if error else {}
        with self._session_factory() as session:
            self._hold(session)
            due = sa.func.now() + interval(delay)
            session.execute(
                self._update(state=PullState.QUEUED, tries=self._tries, lease_until=None, due_at=due, **failure)
            )
            if pause:  # the limit is the credential's, so deliveries keep to it as well
                until = sa.func.greatest(Destination.paused_until, sa.func.now() + interval(pause))
                here = sa.update(Destination).where(Destination.id == self._destination_id)
                session.execute(here.values(paused_until=until).execution_options(synchronize_session=False))
            session.commit()

    def _hold(self, session: Session) -> None:
        """Lock the row and push the lease out. _Lost when the claim is not ours any more."""
        if not claims.renew(session, claims.PULLS, [self._claim], seconds=LEASE_SECONDS):
            raise _Lost

    def _update(self, **values: Any) -> sa.Update:
        mine = sa.update(CrmPull).where(CrmPull.id == self._claim.id)
        return mine.values(**values).execution_options(synchronize_session=False)


#: What is to be written, and whether the phase goes on.
_Step = tuple[Writing, bool]
_PHASES: Mapping[str, Callable[[_Pull, CrmOutcomes], _Step]] = {
    "deals": _Pull._deals,
    "arrived": _Pull._arrived,
    "deleted people": lambda pull, client: pull._deleted(client, "person"),
    "deleted tasks": lambda pull, client: pull._deleted(client, "task"),
    "deleted deals": lambda pull, client: pull._deleted(client, "deal"),
    "back people": lambda pull, client: pull._back(client, "person"),
    "back tasks": lambda pull, client: pull._back(client, "task"),
    "check people": lambda pull, client: pull._check(client, "person"),
    "check tasks": lambda pull, client: pull._check(client, "task"),
}

#: Phase → what people do not get to know where it is refused.
_MISSED: Mapping[str, str] = {
    "arrived": "deals of people who were there before",
    "deleted people": "which people were deleted",
    "deleted tasks": "which tasks were deleted",
    "deleted deals": "which deals were deleted",
    "back people": "which people were brought back",
    "back tasks": "which tasks were brought back",
    "check people": "whether people are still there",
    "check tasks": "whether tasks are still there",
}


def _hint(refused: Mapping[str, str]) -> str | None:
    return "; ".join(f"{_MISSED[phase]} ({why})" for phase, why in refused.items() if phase in _MISSED)[:500] or None


def _stamp(at: datetime) -> str:
    """UTC in one form, so that texts compare as times do."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _nothing(session: Session, destination: Destination) -> int:
    return 0


def _marking(kind: RecordKind, gone: Mapping[str, datetime], back: Sequence[str]) -> Writing:
    def write(session: Session, destination: Destination) -> int:
        if gone:
            deals.mark_deleted(session, destination, kind, gone)
        if back:
            deals.mark_present(session, destination, kind, back)
        return 0

    return write


def _arrivals(session: Session, destination_id: uuid.UUID, since: datetime, after: Mapping[str, str]) -> Sequence[Any]:
    """The next people and companies that were delivered at ``since`` or later."""
    key = sa.tuple_(Delivery.delivered_at, Delivery.id)
    where = Delivery.delivered_at >= since
    if "arrived" in after:
        at, _, last = after["arrived"].rpartition(" ")
        where = key > sa.tuple_(sa.literal(datetime.fromisoformat(at)), sa.literal(uuid.UUID(last)))
    actions = [sa.literal(action, literal_execute=True) for action in (PERSON, COMPANY)]
    return session.execute(
        sa.select(Delivery.id, Delivery.action, Delivery.remote_id, Delivery.delivered_at)
        .where(
            Delivery.destination_id == destination_id,
            Delivery.action.in_(actions),
            Delivery.delivered_at.is_not(None),
            Delivery.remote_id.is_not(None),
            where,
        )
        .order_by(Delivery.delivered_at, Delivery.id)
        .limit(BATCH)
    ).all()


def _delivered(session: Session, destination_id: uuid.UUID, action: str, after: str) -> Sequence[str]:
    """The next ids of records past ``after``, but for those known to be deleted."""
    return _next_ids(session, after, *deals.there(destination_id, action), Delivery.deleted_there_at.is_(None))


def _deleted_before(session: Session, destination_id: uuid.UUID, action: str, after: str) -> Sequence[str]:
    """The next of those."""
    return _next_ids(session, after, *deals.there(destination_id, action), Delivery.deleted_there_at.is_not(None))


def _next_ids(session: Session, after: str, *where: sa.ColumnElement[bool]) -> Sequence[str]:
    ids = sa.select(Delivery.remote_id).where(*where, Delivery.remote_id > after).group_by(Delivery.remote_id)
    return [str(one) for one in session.scalars(ids.order_by(Delivery.remote_id).limit(BATCH))]

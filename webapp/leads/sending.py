"""Before a call: claim what is due and load what a client needs of it. ``deliver`` is the loop around it.

Every function runs in a short transaction of its caller's, and none of them calls the outside.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, defer, load_only

from webapp.leads import audit, cleansing, fieldmap, kinds, outbox, pacing, suppression, task_texts
from webapp.leads.claims import DELIVERIES, Claim, Holder, claim, claim_by, claiming
from webapp.leads.flags import released
from webapp.leads.ports import DeliveryRequest, LeadSnapshot, Target
from webapp.leads.states import DeliveryOperation, DeliveryState, DestinationKind, DestinationMode
from webapp.leads.types import Fact, best
from webapp.models.account import User
from webapp.models.base import any_of, interval
from webapp.models.lead import Lead, Person
from webapp.models.work import Delivery, DeliveryAttempt, Destination

#: Oldest first, and among equals (a bulk decision) lead by lead: one that was begun is finished before another is begun,
#: and a claim reads past what waits for the calls under way instead of past the later steps of every lead.
_ORDERED = replace(DELIVERIES, order=(Delivery.due_at, Delivery.lead_id, Delivery.step))


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed delivery, loaded and ready for a thread. ``check_first``: its outcome may already be there. ``cut_off``:
    its operation's, since a worker was lost with it."""

    claim: Claim
    workspace_id: uuid.UUID
    lead_id: uuid.UUID
    target: Target
    tries: int
    check_first: bool
    request: DeliveryRequest
    cut_off: bool = False


@cache
def _after_its_predecessors() -> sa.ColumnElement[bool]:
    """Steps of a lead at a destination go in order: the ones before must have been delivered. Taking back waits for
    nothing."""
    before = aliased(Delivery)
    waits = sa.exists().where(
        before.lead_id == Delivery.lead_id,
        before.destination_id == Delivery.destination_id,
        before.step < Delivery.step,
        before.state.not_in((DeliveryState.DELIVERED, DeliveryState.SHADOWED)),
    )
    return sa.or_(Delivery.operation == DeliveryOperation.WITHDRAW, ~waits)


@cache
def _usable() -> sa.ColumnElement[bool]:
    return _takes(Delivery.destination_id)


def _takes(destination_id: Any) -> sa.ColumnElement[bool]:
    """The destination may be called now."""
    return sa.exists().where(Destination.id == destination_id, _open(), _free())


#: Kinds of which some things take one delivery at a time.
_ALONE = {name: kind.one_at_a_time for name, kind in kinds.KINDS.items() if kind.one_at_a_time}


@cache
def _free() -> sa.ColumnElement[bool]:
    """Nothing is on its way to where one delivery at a time is taken, from this destination or another one."""
    other = aliased(Destination)
    flying = aliased(Delivery)
    return sa.and_(
        *(
            ~sa.exists().where(
                Destination.kind == kind,
                other.kind == kind,
                *(other.config[name].astext == Destination.config[name].astext for name in names),
                flying.destination_id == other.id,
                flying.state == DeliveryState.SENDING,
                flying.lease_until >= sa.func.now(),
            )
            for kind, names in _ALONE.items()
        )
    )


def _alone(session: Session, destination_id: uuid.UUID) -> bool:
    """Before a claim for one of :data:`_ALONE`: wins the right to claim until the transaction ends. False: another worker
    has it, which will have claimed by the time that it lets go."""
    kind, config = session.execute(
        sa.select(Destination.kind, Destination.config).where(Destination.id == destination_id)
    ).one()
    return _wins(session, " ".join([kind.value, *(str(config.get(name)) for name in _ALONE[kind])]))


def _wins(session: Session, name: str) -> bool:
    """The right to claim what ``name`` is for, until the transaction ends."""
    return bool(session.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(sa.func.hashtextextended(name, 0)))))


@cache
def _open() -> sa.ColumnElement[bool]:
    """The destination is on (or watches), has not asked for a pause, and its breaker is closed."""
    return sa.and_(
        Destination.mode != DestinationMode.OFF,
        sa.or_(Destination.paused_until.is_(None), Destination.paused_until <= sa.func.now()),
        Destination.open_until.is_(None),
    )


@cache
def _due() -> sa.ColumnElement[bool]:
    return sa.or_(
        sa.and_(Delivery.state == DeliveryState.PENDING, Delivery.due_at <= sa.func.now()),
        sa.and_(Delivery.state == DeliveryState.SENDING, Delivery.lease_until < sa.func.now()),
    )


@cache
def _half_open() -> sa.ColumnElement[bool]:
    """The breaker's time is over and something waits for the destination: it may be probed."""
    return sa.and_(
        Destination.mode != DestinationMode.OFF,
        sa.or_(Destination.paused_until.is_(None), Destination.paused_until <= sa.func.now()),
        Destination.open_until <= sa.func.now(),
        _free(),
        sa.exists().where(
            Delivery.destination_id == Destination.id, _due(), _after_its_predecessors(), released(), task_texts.ready()
        ),
    )


def has_due(session: Session) -> bool:
    """Can anything be sent now? Unlike ``claims.has_due`` it leaves out what waits for a pause, an open breaker or an
    earlier step, so that the clock does not ring in vain."""
    return bool(session.scalar(_asking_for_due()))


@cache
def _asking_for_due() -> sa.Select[bool]:
    ready = sa.exists().where(_due(), _usable(), _after_its_predecessors(), released(), task_texts.ready())
    probe = sa.exists().where(_half_open())
    return sa.select(sa.or_(ready, probe))


#: How far ahead the rate budget of a destination may be spent before nothing more is claimed for it, in seconds.
_AHEAD = 1.0


class Work(NamedTuple):
    """Of a destination: its ``failures`` in a row, whether it takes one delivery at a time (``alone``), whether it takes
    what is due together (``gathers``), and also once more what may have arrived (``again``)."""

    failures: int
    alone: bool
    gathers: bool
    again: bool


def gathers(kind: DestinationKind, config: Mapping[str, Any]) -> bool:
    """Are its deliveries sent together?"""
    known = kinds.KINDS.get(kind)
    return known is not None and known.digest(config) is not None


#: What says how a destination takes its deliveries.
_SET_UP = (Destination.id, Destination.kind, Destination.config, Destination.options, Destination.mode)


def _gathers(row: Any) -> tuple[bool, bool]:
    """``gathers`` and ``again`` of :class:`Work`. Where it is only watched, each is recorded by itself."""
    known = kinds.KINDS.get(row.kind)
    together = row.mode is not DestinationMode.SHADOW and gathers(row.kind, row.config)
    return together, known is not None and known.sends_again(row.options or {})


#: How many leads one digest holds; what is due besides goes in another one.
MOST_TOGETHER = 200


def with_work(session: Session) -> dict[uuid.UUID, Work]:
    """Destinations for which something may be sent now. One whose rate budget is spent for the next second is left out:
    threads that wait for it would be missing elsewhere."""
    return {
        row.id: Work(row.failures, row.kind in _ALONE, *_gathers(row))
        for row in session.execute(_asking_for_work())
        if pacing.wait_for(row.options, second=float(row.second_at), minute=float(row.minute_at)) <= _AHEAD
    }


@cache
def _asking_for_work() -> sa.Select[*tuple[Any, ...]]:
    ahead = [
        sa.func.coalesce(sa.extract("epoch", column - sa.func.now()), 0).label(column.key)
        for column in (Destination.second_at, Destination.minute_at)
    ]
    return sa.select(*_SET_UP, Destination.failures, *ahead).where(
        _open(),
        _free(),
        sa.exists().where(Delivery.destination_id == Destination.id, _due(), released(), task_texts.ready()),
    )


def claim_due(
    session: Session, holder: Holder, *, limit: int, lease: float, destination_id: uuid.UUID, alone: bool = False
) -> list[Claim]:
    """Up to ``limit`` sendable deliveries of a destination, oldest first. ``alone``: it takes one at a time."""
    if alone and not _alone(session, destination_id):
        return []
    most = 1 if alone else limit
    return claim_by(session, _claiming_due(), holder, limit=most, seconds=lease, there=destination_id)


@cache
def _claiming_due() -> sa.UpdateBase:
    here = sa.bindparam("there", type_=sa.Uuid())
    return claiming(_ORDERED, (*_sendable(here), _takes(here)))


def claim_for(
    session: Session, holder: Holder, work: Work, *, limit: int, lease: float, destination_id: uuid.UUID
) -> tuple[list[Claim], int]:
    """(sendable deliveries of a destination, the calls that they take, which are up to ``limit``)."""
    if work.gathers:
        where = (*_sendable(destination_id), _takes(destination_id))
        return _gathered(session, holder, destination_id, where, limit=limit, lease=lease, again=work.again)
    found = claim_due(session, holder, limit=limit, lease=lease, destination_id=destination_id, alone=work.alone)
    return found, len(found)


def _sendable(destination_id: uuid.UUID | sa.BindParameter[uuid.UUID]) -> tuple[sa.ColumnElement[bool], ...]:
    # What is under way was due before, so this leaves nothing out: it is where reading in the index's order ends.
    due = Delivery.due_at <= sa.func.now()
    here = Delivery.destination_id == destination_id
    return (here, due, _after_its_predecessors(), released(), task_texts.ready())


def _gathered(
    session: Session,
    holder: Holder,
    destination_id: uuid.UUID,
    where: Sequence[sa.ColumnElement[bool]],
    *,
    limit: int,
    lease: float,
    again: bool,
) -> tuple[list[Claim], int]:
    """What one digest holds, and others that a call of their own is for."""
    if not _wins(session, f"digest {destination_id}"):
        return [], 0  # two workers would have a part of it each
    sends = Delivery.operation == DeliveryOperation.SEND
    lost = _may_have_arrived()
    found: list[Claim] = []
    if again:
        found = _one_digest(session, holder, (*where, sends, lost), lease=lease, lost=True)
    if not found:
        found = _one_digest(session, holder, (*where, sends, ~lost), lease=lease)
    calls = min(len(found), 1)
    if limit > calls:
        alone = ~sends if again else sa.or_(~sends, lost)
        others = claim(session, _ORDERED, holder, limit=limit - calls, where=(*where, alone), seconds=lease)
        found, calls = found + others, calls + len(others)
    return found, calls


def _one_digest(
    session: Session,
    holder: Holder,
    where: Sequence[sa.ColumnElement[bool]],
    *,
    lease: float,
    lost: bool = False,
) -> list[Claim]:
    """What one message is to hold: what has got equally far. A digest that was ``lost`` is known by its deliveries being
    due at the very same moment, which is that of their claim, or of their next try."""
    oldest = sa.select(Delivery.due_at, Delivery.remote_id).where(_due(), *where).order_by(Delivery.due_at).limit(1)
    first = session.execute(oldest).first()
    if first is None:
        return []
    same = [Delivery.remote_id.is_not_distinct_from(first.remote_id)]
    if lost:
        same.append(Delivery.due_at == first.due_at)
    return claim(
        session,
        _ORDERED,
        holder,
        limit=MOST_TOGETHER,
        where=(*where, *same),
        also_set={"due_at": sa.func.now()},
        seconds=lease,
    )


def _may_have_arrived() -> sa.ColumnElement[bool]:
    """Before a claim, what :func:`load` finds after it (``Job.check_first``)."""
    told = sa.exists().where(DeliveryAttempt.delivery_id == Delivery.id, DeliveryAttempt.attempt == Delivery.attempt)
    return sa.or_(Delivery.ambiguous, sa.and_(Delivery.attempt > 0, ~told))


def claim_probes(session: Session, holder: Holder, *, limit: int, lease: float, hold: float) -> tuple[list[Claim], int]:
    """What one call is for, of each destination whose breaker may be probed; and how many calls that makes.

    Whoever pushes ``open_until`` out wins the probe, so all workers together make one call. Its success closes the
    breaker; a prober that dies leaves the breaker open for ``hold`` seconds more.
    """
    if not session.scalar(_ASKING_FOR_PROBES):
        return [], 0  # nearly always
    won = session.execute(_winning_probes(), {"most": limit, "hold": hold}).all()
    found: list[Claim] = []
    probes, left = 0, []
    for row in won:
        claims = _probe(session, holder, row, lease=lease)
        found += claims
        probes += min(len(claims), 1)
        if not claims:
            left.append(row.id)
    if left:  # something is on its way there; they need not wait as if they had been probed
        again = sa.update(Destination).where(Destination.id.in_(left)).values(open_until=sa.func.now())
        session.execute(again.execution_options(synchronize_session=False))
    return found, probes


#: Is there a breaker whose time is over?
_ASKING_FOR_PROBES = sa.select(sa.exists().where(Destination.open_until <= sa.func.now()))


@cache
def _winning_probes() -> sa.UpdateBase:
    half_open = sa.select(Destination.id).where(_half_open()).limit(sa.bindparam("most", type_=sa.Integer()))
    return (
        sa.update(Destination)
        .where(Destination.id.in_(half_open.with_for_update(skip_locked=True).scalar_subquery()))
        .values(open_until=sa.func.now() + interval(sa.bindparam("hold", type_=sa.Float())))
        .returning(*_SET_UP)
        .execution_options(synchronize_session=False)
    )


def _probe(session: Session, holder: Holder, row: Any, *, lease: float) -> list[Claim]:
    where = _sendable(row.id)
    together, again = _gathers(row)
    if together:
        return _gathered(session, holder, row.id, where, limit=1, lease=lease, again=again)[0]
    if row.kind in _ALONE:
        if not _alone(session, row.id):
            return []
        # Another destination of the same place may have been probed just now.
        where = (*where, sa.exists().where(Destination.id == Delivery.destination_id, _free()))
    return claim(session, _ORDERED, holder, limit=1, where=where, seconds=lease)


def load(
    session: Session, claims: Sequence[Claim], *, public_url: str | None = None
) -> tuple[list[Job], list[uuid.UUID]]:
    """(what the threads need of the claimed rows, those that are no longer wanted and were called off on the way).

    A claim before this one that left no attempt behind was cut off in the middle (its worker was killed): its call
    may have taken effect, so the row counts as ambiguous and says so in its attempts. ``public_url``: of the console,
    for links to the lead.
    """
    if not claims:
        return [], []
    tokens = {claim.id: claim for claim in claims}
    rows = session.execute(_loading(), {"ids": list(tokens)}).all()
    there = _there(session, [row[0] for row in rows])
    held = suppression.held_now(session, {row[1].id: row[1] for row in rows}.values())
    wanted: list[_Wanted] = []
    called_off: list[uuid.UUID] = []
    for delivery, lead, destination, person, assignee, was_told in rows:
        token = tokens[delivery.id]
        cut_off = token.attempt > 1 and not was_told
        if cut_off:
            _note_cut_off(session, delivery, token)
        silent = person is not None and person.do_not_contact
        place = there.get((lead.id, destination.id), _NOTHING)
        unwanted = _deleted_there(delivery, destination, place) or _unwanted(
            delivery, destination, lead, silent=silent, suppressed=lead.id in held
        )
        if unwanted is not None:
            _call_off(session, token, delivery, unwanted)
            called_off.append(delivery.id)
            continue
        shot = _put_right(snapshot(lead, person, assignee, public_url=public_url), delivery.edited or {})
        wanted.append(_Wanted(token, delivery, destination, shot, lead.callback_url, place, cut_off))
    texts = _texts(session, wanted)
    return [_job(one, texts.get(one.delivery.id)) for one in wanted], called_off


@cache
def _loading() -> sa.Select[*tuple[Any, ...]]:
    """What is known of the claimed rows. Their ids are an array, so that it is one statement for any number of them."""
    told = sa.exists().where(
        DeliveryAttempt.delivery_id == Delivery.id, DeliveryAttempt.attempt == Delivery.attempt - 1
    )
    whole = (Person.name, Person.email, Person.phone, Person.company, Person.do_not_contact)
    return (
        sa.select(Delivery, Lead, Destination, Person, User, told)
        .join(Lead, Lead.id == Delivery.lead_id)
        .join(Destination, Destination.id == Delivery.destination_id)
        .outerjoin(Person, Person.id == Lead.person_id)
        .outerjoin(User, User.id == Lead.assignee_id)
        .where(Delivery.id == any_of("ids"))
        .order_by(Delivery.due_at, Delivery.lead_id, Delivery.step)
        # Each column of each row costs; what is left out here is loaded by itself, should it be asked for after all.
        .options(defer(Delivery.payload), *map(defer, _NOT_SENT), load_only(*whole), load_only(User.name, User.email))
        .execution_options(populate_existing=True)
    )


#: Of a lead, what no destination is told and no rule of one looks at.
_NOT_SENT = (
    Lead.dedupe_key, Lead.content_hash, Lead.import_id, Lead.source_id, Lead.source_type, Lead.source_subtype,
    Lead.external_post_id, Lead.external_thread_id, Lead.external_message_id, Lead.score_parts, Lead.rescore_at,
    Lead.suppression_id, Lead.version, Lead.team_id, Lead.route_state, Lead.route_reason, Lead.sla_due_at, Lead.sla_since,
    Lead.assignment_reason, Lead.touches, Lead.last_contact_at, Lead.follow_up_at, Lead.updated_at,
)  # fmt: skip


class _There(NamedTuple):
    """Of a lead at a destination: ids there, by action, and when its person was deleted there."""

    remote: dict[str, str]
    person_deleted_at: datetime | None


_NOTHING = _There({}, None)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A claimed delivery that is to be made."""

    token: Claim
    delivery: Delivery
    destination: Destination
    lead: LeadSnapshot
    callback_url: str | None
    there: _There
    cut_off: bool


def _job(wanted: _Wanted, text: str | None) -> Job:
    """``text``: of a task."""
    delivery, lead = wanted.delivery, wanted.lead
    target = target_of(wanted.destination)
    fixed = {name: text for name, text in (delivery.edited or {}).items() if not name.startswith(_LEADS_OWN)}
    return Job(
        claim=wanted.token,
        workspace_id=delivery.workspace_id,
        lead_id=lead.lead_id,
        target=target,
        tries=delivery.tries,
        check_first=delivery.ambiguous or wanted.cut_off,
        cut_off=wanted.cut_off,
        request=DeliveryRequest(
            delivery_id=delivery.id,
            action=delivery.action,
            attempt=wanted.token.attempt,
            lead=lead if text is None else replace(lead, task_text=text),
            remote=wanted.there.remote,
            fields=fieldmap.filled(target.mapping, fieldmap.document(lead)) | fixed,
            operation=delivery.operation,
            revision=delivery.revision,
            address=wanted.callback_url if target.kind is DestinationKind.CALLBACK else None,
        ),
    )


def _texts(session: Session, wanted: Sequence[_Wanted]) -> dict[uuid.UUID, str]:
    """Delivery → the text that its task takes along, which is fixed now."""
    tasks = [one for one in wanted if one.delivery.action == outbox.TASK]
    changing = {one.lead.lead_id for one in tasks if one.delivery.operation is not DeliveryOperation.SEND}
    texts = task_texts.use(session, [one.lead for one in tasks], changing=changing)
    return {one.delivery.id: texts[one.lead.lead_id] for one in tasks}


#: Marks what a person put right in the lead itself rather than in a field there (webapp.leads.replays).
_LEADS_OWN = "lead."


def _put_right(shot: LeadSnapshot, edited: Mapping[str, str]) -> LeadSnapshot:
    own: dict[str, Any] = {
        name.removeprefix(_LEADS_OWN): text or None for name, text in edited.items() if name.startswith(_LEADS_OWN)
    }
    if "phone" in own:
        own["phone_e164"] = own["phone"] if str(own["phone"] or "").startswith("+") else None
    return replace(shot, **own) if own else shot


def _deleted_there(delivery: Delivery, destination: Destination, there: _There) -> str | None:
    """What somebody deleted on the other side is not made again, nor is anything made for a person who was."""
    if delivery.operation is DeliveryOperation.WITHDRAW:
        return None
    at = delivery.deleted_there_at
    what = "it"
    if at is None:
        at, what = there.person_deleted_at, "the person"
    return f"{what} was deleted in {destination.name} on {at:%-d %B %Y}" if at else None


def _unwanted(
    delivery: Delivery, destination: Destination, lead: Lead, *, silent: bool, suppressed: bool
) -> str | None:
    """Why the claimed call is not to be made after all."""
    if delivery.operation is not DeliveryOperation.SEND and destination.mode is DestinationMode.SHADOW:
        return "the destination only watches now"
    if delivery.operation is DeliveryOperation.WITHDRAW:
        here = (DestinationKind(destination.kind), destination.config, destination.rules, lead)
        return "the lead is wanted there again" if outbox.steps_at(*here) else None
    return outbox.still_wanted(destination, lead, delivery.action, do_not_contact=silent, suppressed=suppressed)


def _call_off(session: Session, token: Claim, delivery: Delivery, reason: str) -> None:
    """Cancel a row that was just claimed. Its token is given back, since no attempt was made under it: a gap in the
    attempts means a worker that was lost. Nobody but this transaction has seen the token."""
    session.execute(
        sa.update(Delivery)
        .where(Delivery.id == token.id, Delivery.attempt == token.attempt)
        .values(
            state=outbox.before(delivery.operation, tried=delivery.tries > 0 or delivery.ambiguous),
            attempt=token.attempt - 1,
            lease_until=None,
            last_error=reason,
            updated_at=sa.func.now(),
        )
        .execution_options(synchronize_session=False)
    )
    audit.record(
        session,
        delivery.workspace_id,
        "DELIVERY_CANCELLED",
        lead_id=delivery.lead_id,
        deliveries=[str(delivery.id)],
        reason=reason,
    )


def _note_cut_off(session: Session, delivery: Delivery, token: Claim) -> None:
    session.add(
        DeliveryAttempt(
            workspace_id=delivery.workspace_id,
            delivery_id=delivery.id,
            attempt=token.attempt - 1,
            outcome="uncertain",
            error="the worker stopped in the middle of it",
        )
    )
    # Stored as well as remembered: the next worker may be killed before it has reconciled.
    delivery.ambiguous = True


def _there(session: Session, deliveries: Sequence[Delivery]) -> dict[tuple[uuid.UUID, uuid.UUID], _There]:
    """By lead and destination, what its deliveries before these have left there."""
    later = [row for row in deliveries if row.step or row.revision or row.tries or row.remote_id]
    if not later:
        return {}
    found: dict[tuple[uuid.UUID, uuid.UUID], _There] = {}
    given = {"leads": [row.lead_id for row in later], "places": [row.destination_id for row in later]}
    for row in session.execute(_looking_there(), given):
        remote, deleted = found.get((row.lead_id, row.destination_id), _There({}, None))
        if row.remote_id is not None:
            remote[row.action] = row.remote_id
        if row.action == outbox.PERSON:
            deleted = row.deleted_there_at
        found[row.lead_id, row.destination_id] = _There(remote, deleted)
    return found


@cache
def _looking_there() -> sa.Select[*tuple[Any, ...]]:
    columns = (Delivery.lead_id, Delivery.destination_id, Delivery.action, Delivery.remote_id)
    return sa.select(*columns, Delivery.deleted_there_at).where(
        Delivery.lead_id == any_of("leads"),
        Delivery.destination_id == any_of("places"),
        sa.or_(Delivery.remote_id.is_not(None), Delivery.deleted_there_at.is_not(None)),
    )


def target_of(row: Destination) -> Target:
    """The destination as clients need it."""
    kind = kinds.KINDS.get(DestinationKind(row.kind))
    return Target(
        id=row.id,
        workspace_id=row.workspace_id,
        kind=DestinationKind(row.kind),
        name=row.name,
        config=row.config,
        credentials=row.credentials,
        managed_by=row.managed_by,
        mapping=fieldmap.complete(kind.mapping if kind else (), row.mapping or {}),
        options=row.options or {},
        sends_again=kind is not None and kind.sends_again(row.options or {}),
        shadow=row.mode is DestinationMode.SHADOW,
        problem=row.problem,
    )


def _as_shown(lead: Lead, part: str | None) -> str | None:
    """A part of a name, put in order when the whole is."""
    return (cleansing.clean_name(part) or part) if "name" in lead.cleaned else part


#: What field encryption marks sealed values with (webapp.security.fields).
_SEALED = "enc:"


def snapshot(
    lead: Lead, person: Person | None, assignee: User | None, *, public_url: str | None = None
) -> LeadSnapshot:
    """The lead as destinations may see it: no sensitive attribute, whatever was sent."""
    known = {
        key: value
        for key, value in lead.attributes.items()
        if isinstance(value, str) and value.strip() and not value.startswith(_SEALED)
    }
    return LeadSnapshot(
        lead_id=lead.id,
        workspace_id=lead.workspace_id,
        external_id=lead.external_id,
        name=lead.shown_name or (person.name if person else None),
        first_name=_as_shown(lead, known.get("first_name")),
        last_name=_as_shown(lead, known.get("last_name")),
        email=lead.email_normalized or lead.email or (person.email if person else None),
        phone=lead.phone,
        phone_e164=lead.phone_e164 or (person.phone if person else None),
        company=lead.company or (person.company if person else None),
        job_title=known.get("job_title"),
        city=known.get("city"),
        message=lead.message,
        lang=lead.lang,
        source=lead.source,
        budget=lead.budget,
        platform=lead.platform,
        author_name=lead.author_name,
        author_id=lead.author_id,
        status=lead.status,
        intent=lead.intent,
        priority=lead.priority,
        next_action=lead.next_action,
        confidence=lead.confidence,
        score=lead.score,
        qualified=lead.qualified,
        reasons=tuple(str(reason) for reason in lead.verdict.get("reasons", ())),
        attribution=lead.attribution,
        consent=lead.consent,
        consent_at=lead.consent_at,
        assignee_name=assignee.name if assignee else None,
        assignee_email=assignee.email if assignee else None,
        decided_by=lead.decided_by,
        created_at=lead.created_at,
        event_at=lead.decided_at or lead.settled_at or lead.created_at,
        settled_at=lead.settled_at,
        attributes=known,
        facts=_facts(lead),
        url=f"{public_url.rstrip('/')}/queue/{lead.id}" if public_url else None,
    )


def _facts(lead: Lead) -> dict[str, Any]:
    """Name → the value that is trusted most, of what a run has stored."""
    stored = lead.facts or ()
    found = (Fact(one["name"], one.get("value"), "", float(one.get("confidence") or 0)) for one in stored)
    return {name: fact.value for name, fact in best(found).items()}

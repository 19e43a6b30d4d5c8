"""How runs are loaded and settled: a handful of statements a batch, since one flush a row would cost most of
the time.

Settling takes its locks in one order (leads by id, then their runs), as ``request_rerun`` and reviewers do,
and in one transaction: fence, decide under the lock what stands, write leads, runs and audit events, plan
deliveries. Nothing here commits.
"""

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, aliased

from webapp.leads import (
    alerts,
    assigning,
    callbacks,
    flags,
    kinds,
    knowledge,
    outbox,
    scoring,
    sla,
    triggers,
    withdrawing,
)
from webapp.leads.claims import FROM_BATCHES, Claim
from webapp.leads.judging_policy import Mode, Policy, Preferences
from webapp.leads.lead_outcomes import RecordCache
from webapp.leads.run_rows import Settled, write
from webapp.leads.run_stages import ROUTING_FAILED, Item, Outcome, Rules, Standing
from webapp.leads.stages.route import MANUAL_REVIEW
from webapp.leads.states import (
    DECIDED_STATUSES,
    PRIORITY_VIEW,
    UNDELIVERABLE_INTENTS,
    DestinationKind,
    DestinationMode,
    Door,
    LeadStatus,
    RouteState,
    RunStatus,
    RunTrigger,
)
from webapp.leads.suppression import LISTS, RELEASES
from webapp.leads.suppression_match import Contact, lowered
from webapp.leads.types import LeadFacts, Verdict
from webapp.models.account import Workspace
from webapp.models.base import id_at, interval
from webapp.models.lead import Lead, Touch
from webapp.models.work import Destination, Run

#: Touches that a run looks at; whoever writes more often has been seen by then.
MAX_LATER = 50

_STANDING = (
    Lead.status,
    Lead.version,
    Lead.intent,
    Lead.priority,
    Lead.next_action,
    Lead.confidence,
    Lead.assignee_id,
    Lead.settled_at,
)
_FACTS = (
    Lead.message,
    Lead.name,
    Lead.email,
    Lead.email_normalized,
    Lead.phone,
    Lead.phone_e164,
    Lead.company,
    Lead.source,
    Lead.budget,
    Lead.touches,
    Lead.attributes,
    Lead.author_name,
)
_RULES = (
    Workspace.auto_from,
    Workspace.draft_from,
    Workspace.qualified_from,
    Workspace.currency,
    Workspace.settings["region"].astext.label("region"),
    Workspace.settings["flags"].label("flags"),
    sa.cast(Workspace.settings["hours"], sa.Text).label("hours"),
    sa.cast(Workspace.settings["sla"], sa.Text).label("targets"),
    Workspace.settings["score"].label("scoring"),
    Workspace.settings["classify"].label("judging"),
    Workspace.ruleset_id.label("ruleset_id"),
)
#: How leads of each source have ended.
_RECORDS = RecordCache()
_MAX_OTHERS = 10
_others = aliased(Lead)
# Other leads of the same person, as far as the score counts them.
_OTHER_LEADS = (
    sa.select(sa.func.count())
    .select_from(
        sa.select(sa.literal(1))
        .where(_others.person_id == Lead.person_id, _others.id != Lead.id)
        .limit(_MAX_OTHERS)
        .correlate(Lead)
        .subquery()
    )
    .scalar_subquery()
    .label("other_leads")
)
# What came later in other words. Nearly every lead has one touch, which is itself: then nothing is looked up.
_LATER = sa.case(
    (
        Lead.touches > 1,
        sa.func.array(
            sa.select(Touch.message)
            .where(Touch.lead_id == Lead.id, Touch.message != Lead.message)
            .order_by(Touch.created_at, Touch.id)
            .limit(MAX_LATER)
            .correlate(Lead)
            .scalar_subquery(),
            type_=ARRAY(sa.Text),
        ),
    ),
    else_=None,
).label("later")
_earlier = aliased(Lead)
#: The user who had the person's last lead.
LAST_OWNER = (
    sa.select(_earlier.assignee_id)
    .where(_earlier.person_id == Lead.person_id, _earlier.id != Lead.id, _earlier.assignee_id.is_not(None))
    .order_by(_earlier.created_at.desc())
    .limit(1)
    .correlate(Lead)
    .scalar_subquery()
    .label("last_owner")
)
_LOAD = (
    sa.select(
        Run.id.label("run_id"),
        Run.trigger,
        Run.model_required,
        Run.requested_by,
        Lead.id.label("lead_id"),
        Lead.workspace_id,
        Lead.verdict,
    )
    .add_columns(
        Lead.door,
        Lead.created_at,
        _LATER,
        Lead.last_contact_at,
        _OTHER_LEADS,
        LAST_OWNER,
        Lead.facts,
    )
    .add_columns(*_STANDING, *_FACTS, *_RULES)
    .join(Lead, Lead.id == Run.lead_id)
    .join(Workspace, Workspace.id == Lead.workspace_id)
)


_ALERTS = {
    alerts.ROUTING_NOBODY: (
        "Leads find nobody: {reason}. They are kept under Manual review, where they can be assigned by hand.",
        "/queue?view=manual",
    ),
    alerts.ROUTING_FAILED: (
        "Routing breaks with an error. The leads are kept under Manual review; a re-run tries again.",
        "/queue?view=manual",
    ),
    alerts.SCORING_FALLBACK: (
        "Scoring breaks with an error. Leads get a plain score by intent and urgency; a re-run tries again.",
        "/runs",
    ),
}


def load(session: Session, claims: Sequence[Claim]) -> list[sa.Row[Any]]:
    """One row per claimed run, with its lead and its workspace's rules; ``item_from`` reads it."""
    rows = list(session.execute(_LOAD.where(Run.id.in_([claim.id for claim in claims]))))
    here = {row.workspace_id for row in rows}
    _RECORDS.refresh(session, here)
    for workspace_id in here:
        LISTS.of(session, workspace_id, max_age=0.0)
    return rows


def needs_no_model(policy: Policy, *, spent: Iterable[uuid.UUID] = ()) -> sa.ColumnElement[bool]:
    """Runs that can be worked with the rules alone, as far as the verdict given at intake tells: their workspace
    takes it as sure or wants no model, or there is nothing to ask about. ``policy``: the deployment's; ``spent``:
    workspaces that have used up the day's budget."""
    mode = sa.func.coalesce(Workspace.settings["classify"]["mode"].astext, policy.mode.value)
    asks_when_unsure = sa.true() if policy.available else sa.false()
    sure = sa.case(
        (mode == Mode.LLM.value, sa.false()),
        (sa.and_(mode == Mode.RULES_THEN_LLM.value, asks_when_unsure), Lead.confidence >= Workspace.auto_from),
        else_=sa.true(),
    )
    nothing_to_ask = [Run.trigger == RunTrigger.TOUCH, Lead.status.in_(DECIDED_STATUSES), Lead.door == Door.WEB]
    rules_do = sa.or_(*nothing_to_ask, Workspace.id.in_(list(spent)), sure)
    return sa.exists().where(Lead.id == Run.lead_id, Workspace.id == Lead.workspace_id, rules_do)


def give_back(session: Session, claims: Sequence[Claim]) -> None:
    """End claims without a result: the runs are due again now."""
    held = sa.tuple_(Run.id, Run.attempt).in_([(claim.id, claim.attempt) for claim in claims])
    session.execute(
        sa.update(Run)
        .where(held, Run.status == RunStatus.RUNNING)
        .values(status=RunStatus.QUEUED, lease_until=None, due_at=sa.func.now())
        .execution_options(synchronize_session=False)
    )


def item_from(row: sa.Row[Any], attempt: int) -> Item:
    """Raises what a row that cannot be read raises: that is the run's failure, not its batch's."""
    contact = Contact(
        row.email_normalized or row.email, row.phone_e164, row.name or row.author_name, row.company, row.message
    )
    return Item(
        run_id=row.run_id,
        attempt=attempt,
        lead_id=row.lead_id,
        workspace_id=row.workspace_id,
        rules=Rules(
            row.auto_from,
            row.draft_from,
            row.qualified_from,
            row.currency,
            row.region or "",
            flags.of(row.flags),
            scoring.model_from(row.scoring),
            sla.read_text(row.hours, row.targets),
        ),
        facts=LeadFacts(
            str(row.lead_id),
            str(row.workspace_id),
            **{column.key: getattr(row, column.key) for column in _FACTS},
            wrote_at=row.last_contact_at,
            other_leads=row.other_leads,
            record=_RECORDS.of(row.workspace_id, row.source),
        ),
        standing=_standing(row),
        machine=Verdict.from_json(row.verdict),
        door=row.door,
        trigger=row.trigger,
        later=tuple(row.later or ()),
        model_required=row.model_required,
        created_at=row.created_at,
        last_owner=row.last_owner,
        ruleset_id=row.ruleset_id,
        judging=Preferences.of(row.judging),
        contact=contact,
        suppressed=LISTS.known(row.workspace_id).find(contact),
        known=knowledge.read(row.facts) if row.facts else (),
        released=row.requested_by == RELEASES,
    )


def _standing(row: Any) -> Standing:
    return Standing(
        row.status,
        row.version,
        row.intent,
        row.priority,
        row.next_action,
        row.confidence,
        row.assignee_id,
        row.settled_at is not None,
    )


def settle(session: Session, outcomes: Sequence[Outcome], *, hold_seconds: float = 0.0) -> int:
    """Write what the runs found. Returns how many were still held; the others' work is dropped. Deliveries that
    follow are held for ``hold_seconds``, so that a person can still step in."""
    leads = {
        row.id: _standing(row)
        for row in session.execute(
            sa.select(Lead.id, *_STANDING)
            .where(Lead.id.in_({outcome.item.lead_id for outcome in outcomes}))
            .order_by(Lead.id)
            .with_for_update(key_share=True)  # FOR NO KEY UPDATE: does not hold up who refers to the lead
        )
    }
    held = _held(session, outcomes)
    # As the lists are now, under the leads' locks: who puts somebody on one either finds what is settled here, or is seen.
    lists = {one: LISTS.of(session, one, max_age=0.0) for one in {outcome.item.workspace_id for outcome in outcomes}}
    settled: list[Settled] = []
    for outcome in assigning.confirm(session, [outcome for outcome in outcomes if outcome.item.run_id in held]):
        before = leads[outcome.item.lead_id]
        entry = lists[outcome.item.workspace_id].find(outcome.item.contact)
        after, reason = _after(before, outcome, suppressed=entry is not None)
        # For another run of the same lead in this batch.
        leads[outcome.item.lead_id] = replace(after, settled=True)
        settled.append(Settled(outcome, before, after, reason, entry))
    if settled:
        write(session, settled)
        assigning.took_turns(session, [turn for one in settled if (turn := one.turn)])
        _alert(session, settled)
        scored = [(outcome.item.workspace_id, outcome.score.parts) for outcome in (one.outcome for one in settled)]
        scoring.note_failures(session, [one for key, parts in scored for one in scoring.failures(key, parts)])
        _deliveries(session, settled, hold_seconds)
    return len(settled)


def _alert(session: Session, settled: Sequence[Settled]) -> None:
    """Tell admins of leads that nobody gets, and of scores by fallback; what a workspace has switched off is no
    trouble."""
    found: dict[tuple[str, uuid.UUID], list[str]] = {}
    for one in settled:
        item, assignment = one.outcome.item, one.outcome.assignment
        if one.routed and assignment.state is RouteState.MANUAL and item.rules.flags.auto_routing:
            broke = assignment.reason == ROUTING_FAILED
            kind = alerts.ROUTING_FAILED if broke else alerts.ROUTING_NOBODY
            found.setdefault((kind, item.workspace_id), []).append(assignment.reason)
        if any(stage["name"] == "score" for stage in one.outcome.degraded):
            found.setdefault((alerts.SCORING_FALLBACK, item.workspace_id), []).append("")
    for (kind, workspace_id), reasons in sorted(found.items()):
        message, link = _ALERTS[kind]
        said = message.format(reason=reasons[-1].removeprefix(f"{MANUAL_REVIEW}: "))
        alerts.raise_alert(session, workspace_id, kind, "", said, link, times=len(reasons))


def _held(session: Session, outcomes: Sequence[Outcome]) -> set[uuid.UUID]:
    """Lock the runs that are still ours by their fencing tokens."""
    tokens = [(outcome.item.run_id, outcome.item.attempt) for outcome in outcomes]
    return set(
        session.scalars(
            sa.select(Run.id)
            .where(sa.tuple_(Run.id, Run.attempt).in_(tokens), Run.status == RunStatus.RUNNING)
            .with_for_update()
        )
    )


def _after(before: Standing, outcome: Outcome, *, suppressed: bool) -> tuple[Standing, str | None]:
    """What stands after the run. A person's decision stays whatever the run found, also one made
    meanwhile."""
    assignee, reason = before.assignee_id, None
    if assignee is None:
        given = outcome.assignment.user_id
        assignee, reason = (uuid.UUID(given) if given else None), outcome.assignment.reason
    if before.decided:
        return replace(before, assignee_id=assignee), reason
    verdict, status = outcome.verdict, lowered(outcome.status) if suppressed else outcome.status
    found = (status, verdict.intent, verdict.priority)
    changed = found != (before.status, before.intent, before.priority)
    after = replace(
        before,
        status=status,
        intent=verdict.intent,
        priority=verdict.priority,
        next_action=verdict.next_action,
        confidence=verdict.confidence,
        version=before.version + changed,
        assignee_id=assignee,
    )
    return after, reason


def _deliveries(session: Session, settled: Sequence[Settled], hold_seconds: float) -> None:
    """A lead that the machine is sure of goes out once its first run has settled; one that is not so any
    more, not."""
    auto = LeadStatus.NEW_AUTO
    due, follow_ups, early, lowered_ids = [], [], [], []
    for one in settled:
        lead_id, before, after = one.outcome.item.lead_id, one.before, one.after
        goes_out = after.status is auto and after.intent not in UNDELIVERABLE_INTENTS
        if goes_out and (one.first or before != after):
            due.append(lead_id)
        elif before.status is auto and before.settled and not after.decided and before != after:
            outbox.cancel(session, lead_id, reason="the verdict was lowered")
            lowered_ids.append(lead_id)
        if not goes_out and (one.first or before != after):
            early.append(lead_id)
        if one.first and PRIORITY_VIEW[after.priority] == "high" and not one.suppressed:
            follow_ups.append(lead_id)
    if lowered_ids:
        withdrawing.after_lowering(session, lowered_ids)
    if not due and not follow_ups and not early:
        return
    # Most batches of a backlog share one answer to "is there a destination at all?", so ask that before
    # loading leads.
    live = Destination.mode != DestinationMode.OFF
    found = session.execute(sa.select(Destination.kind, Destination.rules).where(live).distinct()).all()
    here = {row.kind for row in found}
    # Also where nothing is set up for it any more, which the lead's history then tells.
    first = [one.outcome.item.lead_id for one in settled if one.first]
    callbacks.plan(session, _leads(session, first, Lead.callback_url.is_not(None)))
    if any(triggers.before_decision(row.rules) for row in found):
        due += early
    if here - kinds.OWN_RULES and due:
        outbox.plan_many(session, _leads(session, due), due_in_seconds=hold_seconds)
    if DestinationKind.N8N in here:
        for lead in _leads(session, follow_ups):
            outbox.plan_follow_up(session, lead)


def _leads(session: Session, lead_ids: Sequence[uuid.UUID], *only: sa.ColumnElement[bool]) -> Sequence[Lead]:
    """As written a moment ago, behind the session's back; ``only`` those."""
    found = sa.select(Lead).where(Lead.id.in_(lead_ids), *only).execution_options(populate_existing=True)
    return session.scalars(found).all()


#: Runs of single leads within a second from which on leads keep coming in, among so many of all that are new; and how old the
#: oldest that waits may be before runs are behind them.
_MANY, _LOOKED_AT, _BEHIND_SECONDS = 20, 1_000, 3.0


def is_behind(session: Session) -> bool:
    """Do single leads come in, many a second, and faster than they are run? The ids of runs tell when they were queued."""
    new = (
        sa.select(Run.rank).where(Run.id > id_at(time.time() - 1)).order_by(Run.id.desc()).limit(_LOOKED_AT).subquery()
    )
    single = sa.select(sa.func.count()).select_from(new).where(new.c.rank < FROM_BATCHES).scalar_subquery()
    late = sa.exists().where(
        Run.status == sa.literal(RunStatus.QUEUED, Run.status.type, literal_execute=True),  # else no partial index
        Run.rank.in_(range(FROM_BATCHES)),
        Run.due_at < sa.func.now() - interval(_BEHIND_SECONDS),
    )
    return bool(session.scalar(sa.select(sa.and_(single >= _MANY, late))))

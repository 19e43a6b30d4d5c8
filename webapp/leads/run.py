"""Run: pass leads through the stages and settle where they stand.

Rows are the truth (``webapp.leads.claims``): a batch of due runs is claimed and committed, worked with no
transaction open, and settled in a second short transaction in which every UPDATE names the fencing token. A
worker that was killed half-way has therefore settled nothing, and one that was given up for dead settles
nothing either.

Facts from outside (``leads.enrichment``) and a model's opinion (``leads.judging``) are asked for in threads while the
drain goes on with the runs that need neither (``leads.run_beside``); what a thread hears is settled like the rest.

What goes wrong, and what then: a stage fails → it degrades (``run_stages``); a whole run crashes → only that
run is tried again, after 2 s and 8 s, then FAILED with a plain reason; the worker dies → the run is done once
more by its successor. A run that takes its worker along is suspected after three claims, worked alone from
then on so that its neighbours get done, and given up after ``MAX_CLAIMS``.
"""

import logging
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from webapp.leads import audit, boards, callbacks, claims, rulebook, run_stages, run_store
from webapp.leads.claims import RUNS, Claim, Holder, SlotTaken
from webapp.leads.enrichment import NOTHING_OUTSIDE, Enriching
from webapp.leads.judging import RULES_ALONE, Judging
from webapp.leads.ports import Drained
from webapp.leads.run_asking import Answered
from webapp.leads.run_beside import Beside
from webapp.leads.run_progress import Progress
from webapp.leads.run_stages import Item, Outcome
from webapp.leads.stages import classify, route
from webapp.leads.states import LeadStatus, RunStatus, RunTrigger
from webapp.models.base import interval
from webapp.models.faults import is_database_away
from webapp.models.lead import Lead
from webapp.models.work import Run

log = logging.getLogger(__name__)

#: Rows of one claim: large enough to spread the cost of two commits, small enough to be done in a tenth of a
#: second.
BATCH = 64
#: Crashes of a run before it counts as failed.
MAX_ATTEMPTS = 3
#: Claims of a run whose workers never came back before it is given up.
MAX_CLAIMS = 12
#: Leases are renewed when a batch has been worked for so long.
RENEW_AFTER_SECONDS = claims.LEASE_SECONDS / 3
#: How old the members' loads may be while a backlog is drained; what this worker gives out is counted at
#: once.
LOADS_SECONDS = 1.0
#: How often the drain looks for further work while something is being asked.
TICK_SECONDS = 0.1
#: A drain that always has a question under way asks no further ones after this, so that it ends some day.
ASKING_SECONDS = 240.0

SessionFactory = sessionmaker[Session]


@dataclass(frozen=True, slots=True)
class _Crash:
    """A run that could not be worked or saved, with the reason in plain words."""

    run_id: uuid.UUID
    attempt: int
    reason: str
    hopeless: bool = False


def request_rerun(session: Session, lead: Lead, *, requested_by: str, rank: int = 0) -> Run:
    """Queue a run of ``lead``; one that waits already is brought forward instead. ``rank``: 0 where somebody is looking
    at it. The caller commits, then rings."""
    # Two people asking at once: the lead's lock makes the second find the first one's run.
    session.execute(sa.select(Lead.id).where(Lead.id == lead.id).with_for_update(key_share=True))
    waiting = sa.select(Run).where(Run.lead_id == lead.id, Run.status == RunStatus.QUEUED).order_by(Run.created_at)
    run = session.scalars(waiting.limit(1).with_for_update(skip_locked=True)).first()
    reused = run is not None
    if run is None:
        earlier = session.scalars(
            sa.select(Run.payload_json).where(Run.lead_id == lead.id).order_by(Run.created_at.desc()).limit(1)
        ).first()
        run = Run(
            workspace_id=lead.workspace_id,
            lead_id=lead.id,
            source=lead.source,
            trigger=RunTrigger.RERUN,
            payload_json=earlier or {},
            rank=rank,
        )
        session.add(run)
    run.requested_by = requested_by
    run.rank = min(run.rank, rank)
    run.due_at = sa.func.now()
    session.flush()
    audit.record(
        session,
        lead.workspace_id,
        "RUN_REQUESTED",
        actor=requested_by,
        lead_id=lead.id,
        run_id=str(run.id),
        already_queued=reused,
    )
    session.flush()
    return run


def process(
    session_factory: SessionFactory,
    holder: Holder,
    *,
    max_rows: int = 5_000,
    max_seconds: float = 5.0,
    batch: int = BATCH,
    default_region: str = "US",
    hold_seconds: float = 0.0,
    judge: classify.Judge | None = None,
    judges: Judging = RULES_ALONE,
    enriching: Enriching = NOTHING_OUTSIDE,
    stop: Callable[[], bool] = lambda: False,
    rest: Callable[[], object] = lambda: None,
) -> Drained:
    """Work due runs until none is left, a bound is reached or ``stop()`` says so; batches are never
    cut short, and between two of them ``rest()`` may take its time, unless something is being asked. ``judge``: instead of
    each workspace's own rules. ``hold_seconds``: how long what goes out by itself waits for a person to step in.
    ``judges``: the model besides the rules, and when it is asked; ``enriching``: the way to facts from outside. What is
    being asked is waited for beyond the bounds, except when ``stop()`` says so: those runs are given back.

    Raises SQLAlchemy's errors when the database is away. Claims then stay until the holder's slot is entered
    anew or their lease ends. Raises SlotTaken when another process has the holder's slot now.
    """
    drain = _Drain(session_factory, holder, judge, judges, enriching, default_region, hold_seconds)
    beside = drain.beside
    began = time.monotonic()
    done = 0
    while True:
        size = batch if beside else max(1, min(batch, max_rows - done))
        claimed, drained = drain.step(size)
        done += claimed
        if beside:
            if stop():
                drain.give_back()
                return Drained(done, True)
            beside.open = time.monotonic() - began < ASKING_SECONDS
            drain.listen(TICK_SECONDS if drained else 0)
            continue
        if drained and beside.open:
            return Drained(done, False)
        over = done >= max_rows or time.monotonic() - began >= max_seconds or stop()
        if not over:
            rest()
            over = stop()
        if over:
            with session_factory() as session:
                return Drained(done, claims.has_due(session, RUNS))


@dataclass(slots=True)
class _Drain:
    """One drain's state: what is injected, what is being asked beside it, and each workspace's board of members with the
    time it was read."""

    session_factory: SessionFactory
    holder: Holder
    judge: classify.Judge | None
    judges: Judging
    enriching: Enriching
    default_region: str
    hold_seconds: float
    boards: dict[uuid.UUID, tuple[float, route.Board]] = field(default_factory=dict)
    by_rules: dict[uuid.UUID | None, classify.Judge] = field(default_factory=dict)
    renewed: float = field(default_factory=time.monotonic)
    progress: Progress = field(default_factory=Progress)
    beside: Beside = field(init=False)

    def __post_init__(self) -> None:
        self.beside = Beside(self.judges, self.enriching)

    def step(self, size: int) -> tuple[int, bool]:
        """Claim and work one batch: how many runs were claimed, and whether nothing more is due."""
        with self.session_factory.begin() as session:
            if not claims.is_current(session, self.holder):
                raise SlotTaken(self.holder.slot)
            held, drained = self.beside.claim(session, self.holder, size)
            rows = run_store.load(session, held) if held else []
            self._refresh_boards(session, {row.workspace_id for row in rows})
            for ruleset_id in {row.ruleset_id for row in rows} - self.by_rules.keys():
                self.by_rules[ruleset_id] = rulebook.judge_of(session, ruleset_id)
            self.beside.gatherings.prepare(session, rows)
        if held:
            self._work(held, rows)
        self.progress.tell(self.session_factory, self.beside.at)
        return len(held), drained

    def _refresh_boards(self, session: Session, workspace_ids: set[uuid.UUID]) -> None:
        now = time.monotonic()
        stale = {key for key in workspace_ids if key not in self.boards or now - self.boards[key][0] > LOADS_SECONDS}
        if stale:
            for key, board in boards.load(session, stale).items():
                self.boards[key] = (now, board)

    def _work(self, held: Sequence[Claim], rows: Sequence[sa.Row[tuple[object, ...]]]) -> None:
        attempts = {claim.id: claim.attempt for claim in held}
        calm = [row for row in rows if attempts[row.run_id] <= MAX_ATTEMPTS]
        suspects = [row for row in rows if attempts[row.run_id] > MAX_ATTEMPTS]
        if calm:
            self._work_together(calm, attempts)
        # In no fixed order: whichever of them kills its worker must not do so before the same neighbours
        # every time.
        random.shuffle(suspects)
        for row in suspects:
            if attempts[row.run_id] > MAX_CLAIMS:
                reason = f"Its worker was lost {MAX_CLAIMS} times while working on it."
                self._crashed([_Crash(row.run_id, attempts[row.run_id], reason, hopeless=True)])
            else:
                self._work_together([row], attempts)

    def _work_together(self, rows: Sequence[sa.Row[tuple[object, ...]]], attempts: dict[uuid.UUID, int]) -> None:
        outcomes: list[Outcome] = []
        crashes: list[_Crash] = []
        renewed = time.monotonic()
        for row in rows:
            try:
                item = run_store.item_from(row, attempts[row.run_id])
                gathered = self.beside.take(item, self._judge(item))
                if gathered is not None:
                    outcomes.append(self._go_through(Answered(item, gathered)))
            except Exception as error:
                log.exception("run %s crashed", row.run_id)
                crashes.append(_Crash(row.run_id, attempts[row.run_id], plain(error)))
            if time.monotonic() - renewed > RENEW_AFTER_SECONDS:
                self._renew(attempts)
                renewed = time.monotonic()
        crashes += self._settle(outcomes)
        if crashes:
            self._crashed(crashes)

    def _go_through(self, one: Answered) -> Outcome:
        item = one.item
        return run_stages.go_through(
            item,
            self.boards[item.workspace_id][1],
            judge=self._judge(item),
            default_region=self.default_region,
            gathered=one.gathered,
            heard=one.heard,
            model_required=self.judges.policy.of(item.judging).required,
        )

    def _judge(self, item: Item) -> classify.Judge:
        return self.judge or self.by_rules[item.ruleset_id]

    def listen(self, seconds: float) -> None:
        """Wait so long for an answer, settle what has come, and keep the leases of the rest."""
        outcomes: list[Outcome] = []
        crashes: list[_Crash] = []
        for one in self.beside.heard(seconds):
            item, heard = one.item, one.heard
            try:
                self._refresh(item.workspace_id)
                required = item.model_required and self.judges.policy.of(item.judging).required
                if heard and heard.opinion is None and required:
                    reason = f"The model is required, and was not heard: {heard.error}"
                    crashes.append(_Crash(item.run_id, item.attempt, reason[:500], hopeless=True))
                else:
                    outcomes.append(self._go_through(one))
            except Exception as error:
                if is_database_away(error):
                    raise
                log.exception("run %s crashed", item.run_id)
                crashes.append(_Crash(item.run_id, item.attempt, plain(error)))
        self._keep_answers()
        crashes += self._settle(outcomes)
        if crashes:
            self._crashed(crashes)
        if self.beside and time.monotonic() - self.renewed > RENEW_AFTER_SECONDS:
            self._renew({claim.id: claim.attempt for claim in self.beside.held})
            self.renewed = time.monotonic()

    def _keep_answers(self) -> None:
        """For the leads that ask the same later. A failure here costs a question asked again, not a run."""
        if not self.beside.gatherings.unsaved:
            return
        try:
            with self.session_factory.begin() as session:
                self.beside.gatherings.save(session)
        except Exception as error:
            if is_database_away(error):
                raise
            log.exception("answers from outside could not be kept")

    def _refresh(self, workspace_id: uuid.UUID) -> None:
        """The members' loads have moved meanwhile."""
        with self.session_factory() as session:
            self._refresh_boards(session, {workspace_id})

    def give_back(self) -> None:
        """Leave what is still being asked about to the next worker."""
        with self.session_factory.begin() as session:
            self.beside.give_back(session)

    def _renew(self, attempts: dict[uuid.UUID, int]) -> None:
        with self.session_factory.begin() as session:
            claims.renew(session, RUNS, [Claim(run_id, attempt) for run_id, attempt in attempts.items()])

    def _settle(self, outcomes: Sequence[Outcome]) -> list[_Crash]:
        """Save all at once; when that fails, each by itself, so that only the culprit is left over."""
        if not outcomes:
            return []
        try:
            with self.session_factory.begin() as session:
                kept = run_store.settle(session, outcomes, hold_seconds=self.hold_seconds)
        except Exception as error:
            if is_database_away(error):
                raise
            if len(outcomes) > 1:
                log.warning("saving %d runs together failed, saving each by itself: %s", len(outcomes), plain(error))
                return [crash for outcome in outcomes for crash in self._settle([outcome])]
            log.exception("run %s could not be saved", outcomes[0].item.run_id)
            return [_Crash(outcomes[0].item.run_id, outcomes[0].item.attempt, plain(error))]
        if kept < len(outcomes):
            log.warning("dropped %d runs that another worker has taken over", len(outcomes) - kept)
        return []

    def _crashed(self, crashes: Sequence[_Crash]) -> None:
        for crash in crashes:
            with self.session_factory.begin() as session:
                _retry_or_fail(session, crash)


def fail(session: Session, claim: Claim, reason: str) -> None:
    """Log a claimed run as failed for good, with ``reason`` in plain words. The caller commits."""
    _retry_or_fail(session, _Crash(claim.id, claim.attempt, reason, hopeless=True))


def _retry_or_fail(session: Session, crash: _Crash) -> None:
    """Put the run back with a delay, or fail it visibly; a lead that would have gone out by itself then waits
    for a person, since nothing has looked at it properly."""
    failed = crash.hopeless or crash.attempt >= MAX_ATTEMPTS
    values = {
        Run.status: RunStatus.FAILED if failed else RunStatus.QUEUED,
        Run.error: crash.reason,
        Run.lease_until: None,
        Run.finished_at: sa.func.now() if failed else None,
        Run.due_at: sa.func.now() + interval(2 * 4 ** (crash.attempt - 1)),
    }
    lead_id = session.scalar(
        sa.update(Run)
        .where(Run.id == crash.run_id, Run.attempt == crash.attempt, Run.status == RunStatus.RUNNING)
        .values(values)
        .returning(Run.lead_id)
        .execution_options(synchronize_session=False)
    )
    if lead_id is None or not failed:
        return
    lead = session.get_one(Lead, lead_id, populate_existing=True)
    workspace_id = lead.workspace_id
    if lead.settled_at is None:
        callbacks.plan(session, [lead], failed=True)
    raised = session.scalar(
        sa.update(Lead)
        .where(Lead.id == lead_id, Lead.status == LeadStatus.NEW_AUTO, Lead.settled_at.is_(None))
        .values(status=LeadStatus.NEW_ESCALATE, version=Lead.version + 1, updated_at=sa.func.now())
        .returning(Lead.id)
        .execution_options(synchronize_session=False)
    )
    audit.record(
        session,
        workspace_id,
        "RUN_FAILED",
        lead_id=lead_id,
        run_id=str(crash.run_id),
        attempt=crash.attempt,
        error=crash.reason,
        escalated=raised is not None,
    )


def plain(error: Exception) -> str:
    """One line that a person can read and JSON can hold. A database error's parameters may be somebody's
    data, so only its first line is shown."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    lines = str(cause).replace("\0", "").splitlines()
    return f"The run crashed ({type(cause).__name__}: {lines[0] if lines else 'no message'})"[:500]

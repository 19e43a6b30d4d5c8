"""One lead through the stages: each recorded, each failure made good as the design says. No database here.

What a stage's failure costs: enrich → partial data; classify → intake's verdict, confidence capped (or the
rules' verdict, where only a model did not answer that is not required); score → fallback score; route →
manual review. A stage therefore never loses the lead, and the record says what was done instead.
"""

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from webapp.leads import industries, judging, knowledge, learning, suspicion
from webapp.leads.enrichment import NOTHING_ASKED, Gathered
from webapp.leads.flags import OFF_BECAUSE, SHIPPED, Flag, Flags
from webapp.leads.judging import Heard
from webapp.leads.judging_policy import NO_PREFERENCES, Preferences
from webapp.leads.sla import DEFAULT as DEFAULT_SLA
from webapp.leads.sla import Sla
from webapp.leads.stages import classify, route, score
from webapp.leads.states import (
    DECIDED_STATUSES,
    Door,
    Intent,
    LeadStatus,
    NextAction,
    Priority,
    RouteState,
    RunTrigger,
    StageStatus,
    status_for,
)
from webapp.leads.suppression_match import NOBODY, Contact, Entry, lowered
from webapp.leads.types import Assignment, Fact, LeadFacts, Score, Verdict, best
from webapp.leads.verdict import NO_WORDS

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Why nobody has a lead whose routing broke.
ROUTING_FAILED = f"{route.MANUAL_REVIEW}: routing failed"


@dataclass(frozen=True, slots=True)
class Rules:
    """A workspace's settings that a run depends on."""

    auto_from: float
    draft_from: float
    qualified_from: int
    currency: str
    region: str  # ISO 3166 country of numbers written without a country code; empty: the deployment's default
    flags: Flags = SHIPPED
    scoring: score.Model = score.SHIPPED
    sla: Sla = DEFAULT_SLA


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands for a lead: a machine's verdict, or a person's once one has decided."""

    status: LeadStatus
    version: int
    intent: Intent
    priority: Priority
    next_action: NextAction
    confidence: float
    assignee_id: uuid.UUID | None
    settled: bool

    @property
    def decided(self) -> bool:
        return self.status in DECIDED_STATUSES


@dataclass(frozen=True, slots=True)
class Item:
    """A claimed run with all that the stages need. ``attempt`` is the fencing token; ``later``: what the author wrote
    since in other words, oldest first; ``model_required``: who waits for the run wants a model's verdict or none."""

    run_id: uuid.UUID
    attempt: int
    lead_id: uuid.UUID
    workspace_id: uuid.UUID
    rules: Rules
    facts: LeadFacts
    standing: Standing
    machine: Verdict  # the machine's verdict so far (intake's, or the last run's)
    door: Door = Door.TRIAGE
    trigger: RunTrigger = RunTrigger.INTAKE
    later: tuple[str, ...] = ()
    model_required: bool = False
    created_at: datetime | None = None
    last_owner: uuid.UUID | None = None  # who had the person's last lead
    ruleset_id: uuid.UUID | None = None  # the workspace's own rules; None: the shipped ones
    judging: Preferences = NO_PREFERENCES
    contact: Contact = NOBODY  # by which the suppression list knows the lead
    suppressed: Entry | None = None
    known: tuple[Fact, ...] = ()  # what earlier runs have learned
    released: bool = False  # the run follows its coming off the suppression list: a person looks at it first


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the stages made of an item. ``status`` is what the machine would give, decided or not."""

    item: Item
    verdict: Verdict
    status: LeadStatus
    score: Score
    qualified: bool
    assignment: Assignment
    learned: tuple[Fact, ...]
    stages: tuple[dict[str, Any], ...]
    raised: bool = False  # something that the author wrote later outranks what the lead itself says

    @property
    def degraded(self) -> list[dict[str, Any]]:
        return [stage for stage in self.stages if stage["status"] == StageStatus.DEGRADED.value]


@dataclass(slots=True)
class _Recorder:
    """Runs stages and keeps their records: ``{name, status, input, output, evidence, error, started_at,
    ms}``."""

    run_id: uuid.UUID
    records: list[dict[str, Any]] = field(default_factory=list)

    def stage(self, name: str, given: dict[str, Any], work: Callable[[], T], otherwise: Callable[[], T]) -> T:
        started_at, start = datetime.now(UTC), time.perf_counter()
        status, error = StageStatus.OK, None
        try:
            value = work()
        except judging.NotHeard as problem:
            log.warning("run %s: no model was heard: %s", self.run_id, problem)
            status, error = StageStatus.DEGRADED, str(problem)[:500].replace("\0", "")
            value = otherwise()
        except Exception as problem:
            log.exception("stage %s of run %s failed; going on without it", name, self.run_id)
            status, error = (
                StageStatus.DEGRADED,
                f"{type(problem).__name__}: {problem}"[:500].replace("\0", ""),
            )
            value = otherwise()
        self.records.append(
            {
                "name": name,
                "status": status.value,
                "input": given,
                "output": None,
                "evidence": None,
                "error": error,
                "started_at": started_at.isoformat(),
                "ms": round((time.perf_counter() - start) * 1000, 3),
            }
        )
        return value

    def shows(self, output: Any, evidence: Any = None, *, status: StageStatus | None = None, error: str = "") -> None:
        self.records[-1].update(output=output, evidence=evidence)
        if status is not None and self.records[-1]["error"] is None:
            self.records[-1].update(status=status.value, error=error or None)

    def skips(self, flag: Flag, **output: Any) -> None:
        """The stage recorded last was left out, or done plainly, because ``flag`` is off."""
        self.shows(output | {"reason": OFF_BECAUSE[flag]}, self.records[-1]["evidence"], status=StageStatus.SKIPPED)

    def warns(self, problem: str) -> None:
        """The stage recorded last did its work with less than it should have had."""
        if self.records[-1]["error"] is None:
            self.records[-1].update(status=StageStatus.DEGRADED.value, error=problem[:500].replace("\0", ""))

    def took(self, ms: int) -> None:
        """Time that passed for the stage before it was recorded."""
        self.records[-1]["ms"] = round(self.records[-1]["ms"] + ms, 3)


def go_through(
    item: Item,
    board: route.Board,
    *,
    judge: classify.Judge,
    default_region: str,
    gathered: Gathered = NOTHING_ASKED,
    heard: Heard | None = None,
    model_required: bool = False,
    again: bool = False,
) -> Outcome:
    """Enrich → classify → score → route. ``board`` counts the assignment; raises only on a bug in this
    module. ``gathered``: what was heard from outside; ``heard``: what came of asking a model, if one was; ``model_required``: without its opinion the message
    counts as not classified, unless the budget for models is used up; ``again``: another run follows that asks the
    outside, and routes by what it hears."""
    recorder = _Recorder(item.run_id)
    facts, rules = item.facts, item.rules
    learned = _enrich(recorder, item, rules.region or default_region, gathered, heard)
    verdict, raised = _classify(recorder, item, judge, heard, model_required)
    status = status_for(verdict.confidence, auto_from=rules.auto_from, draft_from=rules.draft_from)
    if status is LeadStatus.NEW_AUTO and {judging.LATER, suspicion.INJECTION} & set(verdict.tags):
        status = LeadStatus.NEW_ESCALATE  # whatever the workspace's thresholds
    if status is LeadStatus.NEW_AUTO and item.door is Door.WEB:
        status = LeadStatus.NEW_DRAFT  # nobody asked for anything on a public page
    if item.suppressed or item.released:
        status = lowered(status)
    stands = _standing_verdict(item.standing, verdict)
    total, is_qualified = _score(recorder, facts, stands, learned, rules)
    if again and item.standing.assignee_id is None:
        assignment = recorder.stage("route", {"status": status.value}, _not_yet, _not_yet)
        recorder.shows({"reason": assignment.reason}, status=StageStatus.SKIPPED)
    else:
        assignment = _route(recorder, item, status, stands, learned, board)
    stages = tuple(recorder.records)
    return Outcome(item, verdict, status, total, is_qualified, assignment, learned, stages, raised)


def routed_anew(outcome: Outcome, board: route.Board) -> Outcome:
    """The outcome with its last stage gone through once more, on ``board``."""
    recorder = _Recorder(outcome.item.run_id)
    stands = _standing_verdict(outcome.item.standing, outcome.verdict)
    assignment = _route(recorder, outcome.item, outcome.status, stands, outcome.learned, board)
    return replace(outcome, assignment=assignment, stages=(*outcome.stages[:-1], *recorder.records))


def parts_json(total: Score) -> list[dict[str, Any]]:
    """``leads.score_parts``, and the evidence of the score stage."""
    return [part.as_json() for part in total.parts]


def _score(
    recorder: _Recorder, facts: LeadFacts, stands: Verdict, learned: tuple[Fact, ...], rules: Rules
) -> tuple[Score, bool]:
    """The score, and whether the lead is qualified by it. A component that fails costs only itself."""
    about = {"intent": stands.intent.value, "priority": stands.priority.value, "currency": rules.currency}
    model = rules.scoring if rules.flags.ml_scoring else score.unlearned(rules.scoring)
    total = recorder.stage(
        "score",
        about | {"version": model.version},
        lambda: score.score(facts, stands, learned, currency=rules.currency, model=model),
        lambda: score.fallback(stands, model),
    )
    is_qualified = score.qualified(total.total, stands.intent, qualified_from=rules.qualified_from)
    failed = [f"{part.name}: {part.failed}" for part in total.parts if part.failed]
    status = StageStatus.DEGRADED if failed else None
    shown = {"total": total.total, "qualified": is_qualified}
    recorder.shows(shown, parts_json(total), status=status, error="; ".join(failed)[:500])
    if not rules.flags.ml_scoring and not failed:
        recorder.skips(Flag.ML_SCORING, **shown)
    return total, is_qualified


def _standing_verdict(standing: Standing, machine: Verdict) -> Verdict:
    """Score and routing follow a person's decision where there is one."""
    if not standing.decided:
        return machine
    return machine._replace(
        intent=standing.intent,
        priority=standing.priority,
        next_action=standing.next_action,
        confidence=standing.confidence,
    )


def _enrich(
    recorder: _Recorder, item: Item, default_region: str, gathered: Gathered, heard: Heard | None
) -> tuple[Fact, ...]:
    if not item.rules.flags.enrichment:
        recorder.stage("enrich", {}, tuple, tuple)
        recorder.skips(Flag.ENRICHMENT)
        return _models_word(heard)
    facts, problems = item.facts, list[str]()
    learned = recorder.stage(
        "enrich",
        {"email": bool(facts.email), "phone": bool(facts.phone), "default_region": default_region},
        lambda: learning.learn(
            facts, default_region=default_region, language=item.machine.lang, gathered=gathered, known=item.known,
            more=_models_word(heard), problems=problems,
        ),
        lambda: gathered.facts,
    )  # fmt: skip
    recorder.shows(
        {name: fact.value for name, fact in best(learned).items()},
        {
            "facts": [
                {"name": fact.name, "provider": fact.provider, "confidence": fact.confidence, "note": fact.note}
                for fact in learned
            ],
            "asked": list(gathered.asked),
            "conflicts": knowledge.conflicts(learned),
        },
        status=None if learned else StageStatus.SKIPPED,
    )
    for name, reason in gathered.missing.items():
        problems.append(f"{name}: {reason}")
    if problems:
        recorder.warns("went on without " + "; ".join(problems))
    recorder.took(gathered.ms)
    return learned


def _models_word(heard: Heard | None) -> tuple[Fact, ...]:
    """The industry, as a model read it from the message."""
    if not (heard and heard.opinion and heard.opinion.industry):
        return ()
    said = heard.opinion.industry
    found = industries.of_words(said)
    note = f"the model says “{said[:60]}”"
    return (Fact("industry", found[0] if found else "other", heard.opinion.usage.model or "model", 0.5, note=note),)


def _classify(
    recorder: _Recorder, item: Item, judge: classify.Judge, heard: Heard | None, model_required: bool
) -> tuple[Verdict, bool]:
    """The verdict, and whether something that the author wrote later outranks the lead's own words."""
    by_rules: list[Verdict] = []

    def work() -> Verdict:
        # A repeat in other words is no reason to ask a model anew about the lead's own.
        keep = item.trigger is RunTrigger.TOUCH and item.machine.judge.startswith(judging.WITH_MODEL)
        keep = keep or item.machine.judge in NO_WORDS  # no words to judge
        own = item.machine if keep else classify.classify(item.facts, judge=judge)
        if heard and heard.opinion:
            return judging.combine(own, heard.opinion, prefer_model=model_required)
        if heard:
            by_rules.append(own)
            raise judging.NotHeard(heard.error or "no answer")
        return own

    def otherwise() -> Verdict:
        if not by_rules or (model_required and not (heard and heard.over_budget)):
            return classify.degraded(item.machine)
        said = by_rules[0]
        why = f"no model was heard ({heard.error}); the rules' verdict stands" if heard else ""
        return said._replace(reasons=(*said.reasons, why))

    verdict = recorder.stage("classify", {"characters": len(item.facts.message)}, work, otherwise)
    verdict = suspicion.checked(verdict, item.facts.message)
    if heard and heard.opinion and heard.opinion.suspicious:
        verdict = suspicion.distrusted(verdict)
    raised = judging.raised(verdict, item.later, judge=judge)
    said = (raised or verdict).as_json()
    evidence = said.pop("evidence")
    recorder.shows(said if heard is None else said | {"model": _usage(heard)}, evidence)
    if heard and heard.usage:
        recorder.took(heard.usage.ms)
    return raised or verdict, raised is not None


def _usage(heard: Heard) -> dict[str, Any]:
    """What the record says of asking: which model, what it said, tokens, cost (null: unknown) and time."""
    opinion, usage = heard.opinion, heard.usage
    said: dict[str, Any] = {"intent": opinion.intent.value, "confidence": opinion.confidence} if opinion else {}
    return said | (asdict(usage) if usage else {})


def _route(
    recorder: _Recorder, item: Item, status: LeadStatus, stands: Verdict, learned: tuple[Fact, ...], board: route.Board
) -> Assignment:
    has = item.standing.assignee_id
    status, intent = item.standing.status if item.standing.decided else status, stands.intent
    if has is None and item.suppressed:
        assignment = recorder.stage("route", {"status": status.value}, _for_nobody, _for_nobody)
        recorder.shows({"reason": assignment.reason}, status=StageStatus.SKIPPED)
        return assignment
    if has is None and not item.rules.flags.auto_routing:
        by_hand = _by_hand if route.needs_routing(status, intent) else _nobody
        assignment = recorder.stage("route", {"status": status.value, "intent": intent.value}, by_hand, by_hand)
        recorder.skips(Flag.AUTO_ROUTING)
        return assignment
    assignment = recorder.stage(
        "route",
        {"status": status.value, "intent": intent.value, "assignee": str(has) if has else None},
        lambda: route.route(
            item.facts,
            status,
            intent,
            board,
            assignee=str(has) if has else None,
            priority=stands.priority,
            language=stands.lang,
            learned=learned,
            last_owner=str(item.last_owner) if item.last_owner else None,
        ),
        lambda: Assignment(
            str(has) if has else None,
            "",
            ROUTING_FAILED,
            state=None if has else RouteState.MANUAL,
        ),
    )
    skipped = has is not None or assignment.reason == route.NOBODY_NEEDED
    shown = {"user_id": assignment.user_id, "name": assignment.name, "reason": assignment.reason}
    recorder.shows(shown, dict(assignment.evidence) or None, status=StageStatus.SKIPPED if skipped else None)
    return assignment


def _not_yet() -> Assignment:
    return Assignment(None, "", "routed once the sources outside have been asked")


def _for_nobody() -> Assignment:
    return Assignment(None, "", "the suppression list holds it back: nobody needs to act on it")


def _by_hand() -> Assignment:
    return Assignment(None, "", f"{route.MANUAL_REVIEW}: {OFF_BECAUSE[Flag.AUTO_ROUTING]}", state=RouteState.MANUAL)


def _nobody() -> Assignment:
    return Assignment(None, "", route.NOBODY_NEEDED)

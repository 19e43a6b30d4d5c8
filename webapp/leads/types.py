"""Frozen values that pass between the stages of a lead's way. No I/O, no ORM."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from webapp.leads.states import Intent, NextAction, Priority, RouteState, TeamPolicy


class Span(NamedTuple):
    """Evidence: ``message[start:end]`` (code points of the text as sent) and what it speaks for.

    ``kind``: ``intent`` | ``priority`` | ``negation``; ``cue``: the rule's phrase, as a person may read it.
    """

    start: int
    end: int
    kind: str
    label: str
    cue: str


class Verdict(NamedTuple):
    """What a judge says of one message. ``confidence`` is a probability (0..1)."""

    intent: Intent
    priority: Priority
    next_action: NextAction
    confidence: float
    evidence: tuple[Span, ...] = ()
    runner_up: Intent | None = None
    runner_up_confidence: float = 0.0
    lang: str = "en"
    tags: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    judge: str = "rules"
    ruleset: str = ""

    def as_json(self) -> dict[str, Any]:
        """The stored form (``leads.verdict``); ``from_json`` reads it back."""
        return {
            "intent": self.intent.value,
            "priority": self.priority.value,
            "next_action": self.next_action.value,
            "confidence": self.confidence,
            "evidence": [[s.start, s.end, s.kind, s.label, s.cue] for s in self.evidence],
            "runner_up": self.runner_up.value if self.runner_up else None,
            "runner_up_confidence": self.runner_up_confidence,
            "lang": self.lang,
            "tags": list(self.tags),
            "reasons": list(self.reasons),
            "judge": self.judge,
            "ruleset": self.ruleset,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Verdict":
        return cls(
            intent=Intent(data["intent"]),
            priority=Priority(data["priority"]),
            next_action=NextAction(data["next_action"]),
            confidence=float(data["confidence"]),
            evidence=tuple(Span(*span) for span in data.get("evidence", ())),
            runner_up=Intent(data["runner_up"]) if data.get("runner_up") else None,
            runner_up_confidence=float(data.get("runner_up_confidence") or 0.0),
            lang=data.get("lang", "en"),
            tags=tuple(data.get("tags", ())),
            reasons=tuple(data.get("reasons", ())),
            judge=data.get("judge", "rules"),
            ruleset=data.get("ruleset", ""),
        )


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing learned about a lead. ``provider`` says who said so; ``confidence`` 0..1; ``at`` when it was learned
    (ISO 8601), empty: just now."""

    name: str
    value: Any
    provider: str
    confidence: float
    note: str = ""
    at: str = ""


def best(facts: Iterable[Fact]) -> dict[str, Fact]:
    """By name, the fact that is to be trusted most; of equals the one that was learned first."""
    found: dict[str, Fact] = {}
    for fact in facts:
        if fact.name not in found or fact.confidence > found[fact.name].confidence:
            found[fact.name] = fact
    return found


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """How leads of one source ended, beside all leads of the workspace (``all_``); ``closed``: won and lost ones."""

    won: int = 0
    closed: int = 0
    all_won: int = 0
    all_closed: int = 0


@dataclass(frozen=True, slots=True)
class Decay:
    """How a part of the score fades: ``share`` (0..1) of its points when the person has just written, half of that after
    ``half_life`` days."""

    share: float
    half_life: float


@dataclass(frozen=True, slots=True)
class ScorePart:
    """One named component of the score; the total is always the sum of the parts.

    ``of``: the most that it can give. ``failed``: why it could not be worked out, in one line.
    """

    name: str
    points: int
    reason: str
    of: int = 0
    decay: Decay | None = None
    failed: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The stored form, one of ``leads.score_parts``; ``from_json`` reads it back."""
        said: dict[str, Any] = {"name": self.name, "points": self.points, "of": self.of, "reason": self.reason}
        if self.decay:
            said |= {"share": self.decay.share, "half_life": self.decay.half_life}
        return said | ({"failed": self.failed} if self.failed else {})

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ScorePart":
        decay = Decay(float(data["share"]), float(data["half_life"])) if data.get("half_life") else None
        points, of = int(data["points"]), int(data.get("of") or 0)  # scored before a part knew its most
        return cls(str(data["name"]), points, str(data["reason"]), of, decay, data.get("failed"))


@dataclass(frozen=True, slots=True)
class Score:
    parts: tuple[ScorePart, ...]

    @property
    def total(self) -> int:
        """0..100: the parts are scaled so that they sum to it."""
        return sum(part.points for part in self.parts)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the workspace as routing sees them. ``open_leads``: waiting leads assigned to them now, of at most
    ``capacity`` (None: any number). ``absent`` and ``away`` say in words why they get nothing today (``absent until
    3 Dec``) or nothing at this hour (``works again Mon 09:00``); empty when they are there."""

    user_id: str
    name: str
    open_leads: int
    capacity: int | None = None
    email: str = ""
    takes_leads: bool = True
    absent: str = ""
    away: str = ""


@dataclass(frozen=True, slots=True)
class Seat:
    """A member's place in a team. ``given_at``: when the team last gave them a lead, as seconds of one clock for all
    seats; ``away`` as :class:`Member` has it, by the hours that hold in this team."""

    user_id: str
    weight: int = 1
    given_at: float = 0.0
    away: str = ""


@dataclass(frozen=True, slots=True)
class Team:
    id: str
    name: str
    policy: TeamPolicy
    seats: tuple[Seat, ...]


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """Leads of which all conditions hold go to the team; of a condition's values any will do."""

    name: str
    conditions: Mapping[str, tuple[str, ...]]
    team_id: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who gets the lead and why. ``user_id`` None: nobody does, and if somebody should, ``state`` says what it waits
    for. ``exact``: whose turn it is or who is full decided, which must be seen to under a lock before it is stored.
    ``evidence``: ``{notes: [text], rules: [{name, matched, why}], candidates: [{user_id, name, chosen, why}]}``."""

    user_id: str | None
    name: str
    reason: str
    team_id: str | None = None
    state: RouteState | None = None
    exact: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeadFacts:
    """What the stages may know of a lead: its own words and what intake normalised."""

    lead_id: str
    workspace_id: str
    message: str
    name: str | None = None
    email: str | None = None
    email_normalized: str | None = None
    phone: str | None = None
    phone_e164: str | None = None
    company: str | None = None
    source: str = "unknown"
    budget: float | None = None
    touches: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)
    #: When the person last wrote (None: just now), other leads of theirs, and how leads of this source have ended.
    wrote_at: datetime | None = None
    other_leads: int = 0
    record: SourceRecord = SourceRecord()
    author_name: str | None = None  # as the platform has it

"""Score: how much is this lead worth somebody's time? 0..100, always the sum of named parts with their reasons.

Each component gives a share (0..1) of the most that it can give. Those are the workspace's weights, scaled to whole points
that sum to 100; a component without weight, or without anything to go by (company fit without a profile), is left out and
the others share its points. The shipped weights are chosen so that a plain price question with a business address reaches
the default cut of 60 and the same from a throw-away address does not.

A component that cannot be worked out gives nothing and says so; the others stand. Two of them decay with the time since
the person last wrote: a part carries what :func:`aged` needs to work it out anew later, from the part alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType

from webapp.leads import vocabulary
from webapp.leads.states import QUALIFIABLE_INTENTS, Intent, Priority
from webapp.leads.types import Decay, Fact, LeadFacts, Score, ScorePart, SourceRecord, Verdict, best

#: Components in the order in which they are shown, with their shipped weights.
SHIPPED_WEIGHTS: Mapping[str, int] = MappingProxyType(
    {
        "intent": 34,
        "urgency": 13,
        "budget": 9,
        "company_fit": 10,
        "contactability": 20,
        "completeness": 9,
        "source": 5,
        "engagement": 5,
        "freshness": 5,
    }
)
#: What a profile of the ideal company can name, and how much each counts.
SHIPPED_FIT: Mapping[str, int] = MappingProxyType({"industry": 50, "size": 30, "country": 20})
SIZES = ("1-10", "11-50", "51-200", "201-1000", "1001-5000", "5001+")
SHIPPED_HALF_LIFE = 7.0
#: Half-lives of the components that decay, in the workspace's half-life.
_DECAYING = {"freshness": 1.0, "engagement": 4.0}
#: Outcomes that the workspace's own rate is worth against a source's: with as many of its own, both count alike.
PRIOR = 20.0

_INTENT = {
    Intent.PURCHASE_INTENT: 1.0,
    Intent.INQUIRY_PRICE: 0.925,
    Intent.DEMO_REQUEST: 0.9,
    Intent.CONTACT_REQUEST: 0.85,
    Intent.PARTNERSHIP: 0.65,
    Intent.INQUIRY: 0.6,
    Intent.SUPPORT: 0.25,
    Intent.COMPLAINT: 0.25,
    Intent.UNKNOWN: 0.2,
    Intent.ENGAGEMENT: 0.1,
    Intent.THANKS: 0.05,
}
_URGENCY = {
    Priority.P0: (1.0, "asks for an answer now"),
    Priority.P1: (0.6, "due today"),
    Priority.P2: (0.27, "due this week"),
    Priority.P3: (0.0, "no hurry"),
}
#: From where on a budget counts as large, in the workspace's currency (about 10,000 US dollars each).
LARGE_BUDGET = {"USD": 10_000.0, "EUR": 10_000.0, "GBP": 8_000.0, "JPY": 1_500_000.0, "VND": 250_000_000.0}


@dataclass(frozen=True, slots=True)
class Profile:
    """A workspace's ideal company: what of each is wanted, nothing for no matter. ``weights``: how much each counts."""

    industries: frozenset[str] = frozenset()  # webapp.leads.industries
    sizes: frozenset[str] = frozenset()  # SIZES
    countries: frozenset[str] = frozenset()  # ISO 3166-1 alpha-2
    weights: Mapping[str, int] = field(default_factory=lambda: SHIPPED_FIT)

    def wanted(self) -> dict[str, frozenset[str]]:
        """The criteria that are set and count."""
        given = {"industry": self.industries, "size": self.sizes, "country": self.countries}
        return {name: wanted for name, wanted in given.items() if wanted and self.weights.get(name, 0) > 0}


@dataclass(frozen=True, slots=True)
class Model:
    """How a workspace scores. ``large_budget``: in its currency; None: :data:`LARGE_BUDGET`'s. ``half_life``: days after
    which freshness is worth half. ``version`` 0: as shipped."""

    weights: Mapping[str, int] = field(default_factory=lambda: SHIPPED_WEIGHTS)
    profile: Profile = field(default_factory=Profile)
    half_life: float = SHIPPED_HALF_LIFE
    large_budget: float | None = None
    version: int = 0

    def points(self) -> dict[str, int]:
        """The most that each component can give: the weights scaled to 100 by largest remainders; those that can give
        nothing are left out. Empty when nothing has a weight."""
        weights = {name: max(0, self.weights.get(name, 0)) for name in SHIPPED_WEIGHTS}
        if not self.profile.wanted():
            weights["company_fit"] = 0
        total = sum(weights.values())
        if not total:
            return {}
        points = {name: weight * 100 // total for name, weight in weights.items()}
        left = sorted(weights, key=lambda name: -(weights[name] * 100 % total))
        for name in left[: 100 - sum(points.values())]:
            points[name] += 1
        return {name: most for name, most in points.items() if most}


SHIPPED = Model()


def unlearned(model: Model) -> Model:
    """The same without the component that is learned from outcomes."""
    return replace(model, weights={**model.weights, "source": 0})


@dataclass(frozen=True, slots=True)
class _Given:
    facts: LeadFacts
    verdict: Verdict
    known: Mapping[str, object]
    model: Model
    currency: str


Share = tuple[float, str]


def score(
    facts: LeadFacts,
    verdict: Verdict,
    learned: Sequence[Fact],
    *,
    currency: str = "USD",
    model: Model = SHIPPED,
    now: datetime | None = None,
) -> Score:
    """The score of a lead under ``verdict`` with what enrichment learned (which may be nothing)."""
    known = {name: fact.value for name, fact in best(learned).items()}
    given = _Given(facts, verdict, known, model, currency)
    now = now or datetime.now(UTC)
    wrote_at = facts.wrote_at or now
    return Score(tuple(_part(name, most, given, wrote_at, now) for name, most in model.points().items()))


def fallback(verdict: Verdict, model: Model = SHIPPED) -> Score:
    """When scoring failed as a whole: intent and urgency alone, which need nothing but the verdict."""
    given = _Given(LeadFacts("", "", ""), verdict, {}, model, "")
    now = datetime.now(UTC)
    parts = (_part(name, most, given, now, now) for name, most in model.points().items() if name in _OF_VERDICT)
    return Score(tuple(replace(part, reason=f"{part.reason} (fallback score)") for part in parts))


def qualified(total: int, intent: Intent, *, qualified_from: int) -> bool:
    """Worth handing to sales: a score from the workspace's cut on, and an intent that can end in a sale."""
    return total >= qualified_from and intent in QUALIFIABLE_INTENTS


def _part(name: str, most: int, given: _Given, wrote_at: datetime, now: datetime) -> ScorePart:
    try:
        share, reason = _COMPONENTS[name](given)
        if not 0.0 <= share <= 1.0:  # NaN neither
            raise ValueError(f"a share of {share}")
        if name not in _DECAYING:
            return ScorePart(name, _rounded(most * share), reason, most)
        decay = Decay(share, given.model.half_life * _DECAYING[name])
        return aged(ScorePart(name, 0, reason, most, decay), (now - wrote_at).total_seconds() / 86_400)
    except Exception as problem:
        said = f"{type(problem).__name__}: {problem}"[:300].replace("\0", "")
        return ScorePart(name, 0, "could not be worked out and counts as nothing", most, failed=said)


def _rounded(points: float) -> int:
    return math.floor(points + 0.5)


def aged(part: ScorePart, days: float) -> ScorePart:
    """A part that decays, so many days after the person last wrote."""
    assert part.decay is not None
    return replace(part, points=_rounded(part.of * _left(part.decay, days)))


def _left(decay: Decay, days: float) -> float:
    return float(decay.share * 0.5 ** (max(days, 0.0) / decay.half_life))


def loses_a_point_after(parts: Sequence[ScorePart]) -> float | None:
    """Days after the person last wrote at which the next point is lost to age; None when none is left to lose."""
    found = [
        part.decay.half_life * math.log2(part.of * part.decay.share / (part.points - 0.5))
        for part in parts
        if part.decay is not None and part.points > 0
    ]
    return min(found, default=None)


# The components


def _intent(given: _Given) -> Share:
    named = vocabulary.INTENT[given.verdict.intent]
    return _INTENT.get(given.verdict.intent, 0.0), f"{named} ({given.verdict.confidence:.0%} sure)"


def _urgency(given: _Given) -> Share:
    share, why = _URGENCY[given.verdict.priority]
    return share, f"{given.verdict.priority.value}: {why}"


def _budget(given: _Given) -> Share:
    budget = given.facts.budget
    if not budget or not budget > 0:  # NaN is no budget either
        return 0.0, "none named"
    large = given.model.large_budget or LARGE_BUDGET.get(given.currency, LARGE_BUDGET["USD"])
    shown = f"{budget:,.0f} {given.currency}"
    if budget >= large:
        return 1.0, f"large: {shown}"
    return (0.7 if budget >= large / 10 else 0.4), f"named: {shown}"


def _company_fit(given: _Given) -> Share:
    profile, known = given.model.profile, given.known
    has = {"industry": known.get("industry"), "size": _size(known), "country": _country(known)}
    wanted = profile.wanted()
    fits = {name for name, values in wanted.items() if has[name] in values}
    said = [f"{name} {'fits' if name in fits else 'does not fit' if has[name] else 'unknown'}" for name in wanted]
    total = sum(profile.weights[name] for name in wanted)
    return sum(profile.weights[name] for name in fits) / total, ", ".join(said)


def _size(known: Mapping[str, object]) -> object:
    size, people = known.get("company_size"), known.get("company_employees")
    if size is None and isinstance(people, int) and people > 0:
        return next(
            (name for name, most in zip(SIZES, (10, 50, 200, 1_000, 5_000), strict=False) if people <= most), SIZES[-1]
        )
    return size


def _country(known: Mapping[str, object]) -> object:
    return known.get("country") or known.get("phone_region")


def _contactability(given: _Given) -> Share:
    found: list[tuple[float, str]] = []
    known = given.known
    if known.get("email_valid", bool(given.facts.email_normalized)):
        found.append(_email(known))
    if known.get("phone_valid", bool(given.facts.phone_e164)):
        found.append((0.4, "phone number"))
    if known.get("company_domain") and not known.get("email_disposable"):
        found.append((0.1, "business domain"))
    return sum(share for share, _ in found), ", ".join(name for _, name in found) or "no way to reach them"


def _email(known: Mapping[str, object]) -> Share:
    deliverable = known.get("email_deliverable")
    if deliverable == "undeliverable":
        return 0.0, "e-mail address that takes no mail"
    if known.get("email_mx") is False and deliverable != "deliverable":
        return 0.0, "e-mail domain that takes no mail"
    if known.get("email_disposable"):
        return 0.1, "throw-away address"
    if deliverable == "risky":
        return 0.25, "e-mail address that may not take mail"
    return 0.5, "e-mail address"


def _completeness(given: _Given) -> Share:
    facts = given.facts
    parts = {
        "name": 0.3 if facts.name else 0,
        "company": 0.3 if facts.company or given.known.get("company_domain") else 0,
        "a message of some length": 0.4 if len(facts.message.split()) >= 5 else 0,
    }
    has = [name for name, share in parts.items() if share]
    return min(1.0, sum(parts.values())), "has " + ", ".join(has) if has else "little given"


def _source(given: _Given) -> Share:
    """How often leads of this source are won, against all of the workspace's: a Beta prior around the workspace's rate
    (itself held to a prior of an even chance) that weighs :data:`PRIOR` outcomes. As good as all gives half."""
    if no := _worth_nothing(given):
        return no
    record = given.facts.record
    if not record.closed:
        return 0.5, "no outcomes of this source yet; counts as average"
    own, whole = rate(record), base_rate(record)
    shown = f"won {record.won:,} of {record.closed:,} outcomes of this source"
    compared = f"{record.all_won:,} of {record.all_closed:,} in all"
    return min(1.0, 0.5 * own / whole), f"{shown}, {compared}"


def base_rate(record: SourceRecord) -> float:
    """The workspace's rate of won leads, above 0 and below 1 however few there are."""
    return (record.all_won + 1) / (record.all_closed + 2)


def rate(record: SourceRecord) -> float:
    """The source's rate of won leads: the mean of its Beta posterior."""
    whole = base_rate(record)
    return (record.won + PRIOR * whole) / (record.closed + PRIOR)


def _engagement(given: _Given) -> Share:
    if no := _worth_nothing(given):
        return no
    again, others = max(0, given.facts.touches - 1), max(0, given.facts.other_leads)
    if not again and not others:
        return 0.0, "first contact"
    said = [f"asked {again + 1} times"] if again else []
    if others:
        said.append(f"{others} other request{'' if others == 1 else 's'}")
    if given.facts.wrote_at:
        said.append(f"last wrote on {_day(given.facts.wrote_at)}")
    return min(1.0, 0.4 * again + 0.4 * others), ", ".join(said)


def _freshness(given: _Given) -> Share:
    if no := _worth_nothing(given):
        return no
    half = f"half is gone after {given.model.half_life:g} day{'' if given.model.half_life == 1 else 's'}"
    wrote = f"last wrote on {_day(given.facts.wrote_at)}" if given.facts.wrote_at else "wrote just now"
    return 1.0, f"{wrote}; {half}"


def _day(moment: datetime) -> str:
    day = moment.astimezone(UTC)
    return f"{day.day} {day:%b %Y}"


def _worth_nothing(given: _Given) -> Share | None:
    """Spam is no better for being new, or from a good source."""
    if _INTENT.get(given.verdict.intent, 0.0) > 0:
        return None
    return 0.0, f"does not count for {vocabulary.INTENT[given.verdict.intent]}"


_COMPONENTS: Mapping[str, Callable[[_Given], Share]] = {
    "intent": _intent,
    "urgency": _urgency,
    "budget": _budget,
    "company_fit": _company_fit,
    "contactability": _contactability,
    "completeness": _completeness,
    "source": _source,
    "engagement": _engagement,
    "freshness": _freshness,
}
_OF_VERDICT = ("intent", "urgency")

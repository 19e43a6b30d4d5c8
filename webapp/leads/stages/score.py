"""Score: how much is this lead worth somebody's time? 0..100, always the sum of named parts with their
reasons.

The most that each part can give: intent 40, urgency 15, contactability 20, budget 10, completeness 10,
engagement 5. The numbers are the product's, chosen so that a plain price question with a business address
reaches the default cut of 60 and the same from a throw-away address does not.
"""

from collections.abc import Sequence

from webapp.leads.states import QUALIFIABLE_INTENTS, Intent, Priority
from webapp.leads.types import Fact, LeadFacts, Score, ScorePart, Verdict

_INTENT = {
    Intent.PURCHASE_INTENT: 40,
    Intent.INQUIRY_PRICE: 37,
    Intent.DEMO_REQUEST: 36,
    Intent.CONTACT_REQUEST: 34,
    Intent.PARTNERSHIP: 26,
    Intent.INQUIRY: 24,
    Intent.SUPPORT: 10,
    Intent.COMPLAINT: 10,
    Intent.UNKNOWN: 8,
    Intent.ENGAGEMENT: 4,
    Intent.THANKS: 2,
}
_URGENCY = {
    Priority.P0: (15, "asks for an answer now"),
    Priority.P1: (9, "due today"),
    Priority.P2: (4, "due this week"),
    Priority.P3: (0, "no hurry"),
}
#: From where on a budget counts as large, in the workspace's currency (about 10,000 US dollars each).
LARGE_BUDGET = {"USD": 10_000.0, "EUR": 10_000.0, "GBP": 8_000.0, "JPY": 1_500_000.0, "VND": 250_000_000.0}


def score(facts: LeadFacts, verdict: Verdict, learned: Sequence[Fact], *, currency: str = "USD") -> Score:
    """The score of a lead under ``verdict`` with what enrichment learned (which may be nothing)."""
    known = {fact.name: fact.value for fact in learned}
    points, why = _URGENCY[verdict.priority]
    return Score(
        (
            _intent(verdict),
            ScorePart("urgency", points, f"{verdict.priority.value}: {why}"),
            _contactability(facts, known),
            _budget(facts.budget, currency),
            _completeness(facts, known),
            _engagement(facts.touches),
        )
    )


def fallback(verdict: Verdict) -> Score:
    """When scoring failed: intent and urgency alone, which need nothing but the verdict."""
    points, why = _URGENCY[verdict.priority]
    return Score((_intent(verdict), ScorePart("urgency", points, f"{verdict.priority.value}: {why} (fallback score)")))


def qualified(total: int, intent: Intent, *, qualified_from: int) -> bool:
    """Worth handing to sales: a score from the workspace's cut on, and an intent that can end in a sale."""
    return total >= qualified_from and intent in QUALIFIABLE_INTENTS


def _intent(verdict: Verdict) -> ScorePart:
    words = verdict.intent.value.replace("_", " ")
    return ScorePart("intent", _INTENT.get(verdict.intent, 0), f"{words} ({verdict.confidence:.0%} sure)")


def _contactability(facts: LeadFacts, known: dict[str, object]) -> ScorePart:
    found: list[tuple[int, str]] = []
    if known.get("email_valid", bool(facts.email_normalized)):
        found.append((2, "throw-away address") if known.get("email_disposable") else (10, "e-mail address"))
    if known.get("phone_valid", bool(facts.phone_e164)):
        found.append((8, "phone number"))
    if known.get("company_domain"):
        found.append((2, "business domain"))
    why = ", ".join(name for _, name in found) or "no way to reach them"
    return ScorePart("contactability", sum(points for points, _ in found), why)


def _budget(budget: float | None, currency: str) -> ScorePart:
    if not budget or not budget > 0:  # NaN is no budget either
        return ScorePart("budget", 0, "none named")
    large = LARGE_BUDGET.get(currency, LARGE_BUDGET["USD"])
    shown = f"{budget:,.0f} {currency}"
    if budget >= large:
        return ScorePart("budget", 10, f"large: {shown}")
    return ScorePart("budget", 7 if budget >= large / 10 else 4, f"named: {shown}")


def _completeness(facts: LeadFacts, known: dict[str, object]) -> ScorePart:
    parts = {
        "name": 3 if facts.name else 0,
        "company": 3 if facts.company or known.get("company_domain") else 0,
        "a message of some length": 4 if len(facts.message.split()) >= 5 else 0,
    }
    given = [name for name, points in parts.items() if points]
    return ScorePart("completeness", sum(parts.values()), "has " + ", ".join(given) if given else "little given")


def _engagement(touches: int) -> ScorePart:
    if touches <= 1:
        return ScorePart("engagement", 0, "first contact")
    return ScorePart("engagement", min(5, 2 * (touches - 1)), f"asked {touches} times")

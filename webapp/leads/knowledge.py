"""What is known of a lead: the facts of its last run as they are stored (``leads.facts``) and read again.

Facts that contradict each other stay side by side, each with who said it; ``types.best`` says which one is used.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from webapp.leads.types import Fact

#: Facts kept of one lead. More is a provider's mistake.
MAX_FACTS = 200


def stored(facts: Sequence[Fact], *, now: datetime | None = None) -> list[dict[str, Any]] | None:
    """``leads.facts``: one object a fact, with the time at which it was learned. None when nothing was learned, so that
    a run that could not look leaves what an earlier one found."""
    if not facts:
        return None
    moment = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    return [
        {
            "name": fact.name,
            "value": fact.value,
            "provider": fact.provider,
            "confidence": round(fact.confidence, 3),
            "note": fact.note,
            "at": fact.at or moment,
        }
        for fact in _distinct(facts)
    ][:MAX_FACTS]


def read(rows: Iterable[Any]) -> tuple[Fact, ...]:
    """The facts behind ``leads.facts``; what cannot be read is left out."""
    found = []
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("name"), str):
            told = (row["name"], row.get("value"), str(row.get("provider") or ""), float(row.get("confidence") or 0))
            found.append(Fact(*told, note=str(row.get("note") or ""), at=str(row.get("at") or "")))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Known:
    """All that is said under one name: ``facts``, the most trusted first, and whether they contradict each other."""

    name: str
    facts: tuple[Fact, ...]

    @property
    def best(self) -> Fact:
        return self.facts[0]

    @property
    def others(self) -> tuple[Fact, ...]:
        """Those that say something else than the best, each value once."""
        kept: dict[str, Fact] = {}
        for fact in self.facts[1:]:
            if not _same(fact.value, self.best.value):
                kept.setdefault(repr(fact.value).casefold(), fact)
        return tuple(kept.values())

    @property
    def agreeing(self) -> tuple[Fact, ...]:
        """Those that say the same as the best, itself included."""
        return tuple(fact for fact in self.facts if _same(fact.value, self.best.value))


def by_name(facts: Iterable[Fact]) -> dict[str, Known]:
    """Each name with all that is said under it."""
    found: dict[str, list[Fact]] = {}
    for fact in facts:
        found.setdefault(fact.name, []).append(fact)
    # sorted() keeps the order of equals, so that the first of them is what types.best() takes.
    return {name: Known(name, tuple(sorted(said, key=lambda fact: -fact.confidence))) for name, said in found.items()}


def conflicts(facts: Iterable[Fact]) -> list[str]:
    """Names under which somebody says something else than the most trusted does."""
    return sorted(name for name, known in by_name(facts).items() if known.others)


def _same(one: Any, other: Any) -> bool:
    """Equal for a reader: letters' case and spaces apart."""
    if isinstance(one, str) and isinstance(other, str):
        return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()
    return bool(one == other)


def _distinct(facts: Iterable[Fact]) -> Iterator[Fact]:
    """Each provider's word on a value once; values may be lists, so they are told apart as text."""
    seen: set[tuple[str, str, str]] = set()
    for fact in facts:
        key = (fact.name, fact.provider, repr(fact.value))
        if key not in seen:
            seen.add(key)
            yield fact

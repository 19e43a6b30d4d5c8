"""How far the verdict is to be believed: its figures on messages whose right verdicts are known.

Pure counting. ``half`` is the split by which the rules are tuned on one half of a labelled set and checked on the other:
by a hash of the id, so that it stays the same when the set grows.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from webapp.leads.states import AUTO_FROM, Intent, NextAction, Priority
from webapp.leads.types import Verdict

#: Lower edges of the reliability table's rows.
EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, AUTO_FROM, 0.9, 0.95)
TUNE, CHECK = "tune", "check"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A message and the verdict that people gave it. ``priority`` and ``next_action`` None: not labelled."""

    id: str
    text: str
    intent: Intent
    priority: Priority | None = None
    next_action: NextAction | None = None
    lang: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    row: Labelled
    said: Verdict

    @property
    def right(self) -> bool:
        return self.said.intent is self.row.intent


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares 0..1; None where there is nothing to count. ``sure``: at ``AUTO_FROM`` and above."""

    messages: int
    accuracy: float | None
    sure_share: float | None
    sure_accuracy: float | None
    priority: float | None
    next_action: float | None


@dataclass(frozen=True, slots=True)
class Bin:
    """Verdicts with a confidence from ``low`` up to the next edge: what was promised and what was kept."""

    low: float
    messages: int
    promised: float
    kept: float


def half(id: str) -> str:
    """``tune`` or ``check``."""
    return CHECK if hashlib.sha256(id.encode()).digest()[0] % 2 else TUNE


def judged(rows: Iterable[Labelled], judge: Callable[[str], Verdict]) -> list[Judged]:
    return [Judged(row, judge(row.text)) for row in rows]


def figures(done: Sequence[Judged]) -> Figures:
    sure = [one for one in done if one.said.confidence >= AUTO_FROM]
    return Figures(
        messages=len(done),
        accuracy=_share([one.right for one in done]),
        sure_share=_share([one.said.confidence >= AUTO_FROM for one in done]),
        sure_accuracy=_share([one.right for one in sure]),
        priority=_share([one.said.priority is one.row.priority for one in done if one.row.priority]),
        next_action=_share([one.said.next_action is one.row.next_action for one in done if one.row.next_action]),
    )


def bins(done: Sequence[Judged], edges: Sequence[float] = EDGES) -> list[Bin]:
    """The reliability table, empty rows left out."""
    found = []
    for low, high in zip(edges, (*edges[1:], 2.0), strict=True):
        members = [one for one in done if low <= one.said.confidence < high]
        if members:
            promised = sum(one.said.confidence for one in members) / len(members)
            found.append(Bin(low, len(members), promised, sum(one.right for one in members) / len(members)))
    return found


def by_language(done: Sequence[Judged]) -> dict[str, list[Judged]]:
    """All, then English and Vietnamese apart (the latter with mixed messages), as labelled or else as recognised."""
    apart: dict[str, list[Judged]] = {"all": list(done), "en": [], "vi": []}
    for one in done:
        apart["en" if (one.row.lang or one.said.lang) == "en" else "vi"].append(one)
    return {name: members for name, members in apart.items() if members}


def recall(done: Sequence[Judged]) -> dict[Intent, tuple[int, int, int]]:
    """Per intent: messages that have it, verdicts that say it, and both."""
    true = Counter(one.row.intent for one in done)
    said = Counter(one.said.intent for one in done)
    both = Counter(one.row.intent for one in done if one.right)
    return {intent: (true[intent], said[intent], both[intent]) for intent in Intent if true[intent] or said[intent]}


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def report(done: Sequence[Judged]) -> str:
    """Everything above as Markdown tables, for a terminal and for docs/judging-quality.md."""
    apart = by_language(done)
    lines = [
        f"| messages | n | intent right | sure (≥ {AUTO_FROM}) | right when sure | priority right | next action right |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, members in apart.items():
        f = figures(members)
        counted = (f.accuracy, f.sure_share, f.sure_accuracy, f.priority, f.next_action)
        lines.append(f"| {name} | {f.messages} | " + " | ".join(map(_percent, counted)) + " |")
    for name, members in apart.items():
        lines += ["", f"| confidence ({name}) | n | promised | right |", "| --- | ---: | ---: | ---: |"]
        lines += [
            f"| from {one.low:.2f} | {one.messages} | {_percent(one.promised)} | {_percent(one.kept)} |"
            for one in bins(members)
        ]
    lines += ["", "| intent | n | said | recall | precision |", "| --- | ---: | ---: | ---: | ---: |"]
    for intent, (true, said, both) in recall(done).items():
        shares = (both / true if true else None, both / said if said else None)
        lines.append(f"| `{intent.value}` | {true} | {said} | " + " | ".join(map(_percent, shares)) + " |")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"

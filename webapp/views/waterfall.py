"""The score as a small waterfall: each part where the ones before it end, drawn on a scale of 0 to 100."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from webapp.views import words

#: Units of the drawing: left of the scale stand the names.
LABELS, SCALE, ROW = 92, 200, 16


@dataclass(frozen=True, slots=True)
class Bar:
    """One row. ``x`` to ``x + width``: the points it gave; ``rest``: how much wider it could have been."""

    name: str
    points: int
    y: int
    x: float
    width: float
    rest: float


@dataclass(frozen=True, slots=True)
class Waterfall:
    bars: tuple[Bar, ...]
    total: Bar
    cut: float  # where a lead begins to be qualified
    width: int
    height: int
    said: str  # for who does not see it


def of(parts: Sequence[dict[str, Any]] | None, *, qualified_from: int) -> Waterfall | None:
    """None without parts."""
    if not parts:
        return None
    bars, so_far = [], 0
    for number, part in enumerate(parts):
        name = words.named(str(part.get("name", "")), "SCORE_PART")
        points = int(part.get("points") or 0)
        rest = max(0, int(part.get("of") or points) - points)
        bars.append(Bar(name, points, number * ROW, _x(so_far), _wide(points), _wide(min(rest, 100 - so_far - points))))
        so_far += points
    height = (len(bars) + 1) * ROW
    said = "Parts of the score in order: " + ", ".join(f"{bar.name} {bar.points}" for bar in bars if bar.points)
    total = Bar("Total", so_far, len(bars) * ROW, _x(0), _wide(so_far), 0.0)
    return Waterfall(tuple(bars), total, _x(qualified_from), LABELS + SCALE + 30, height, f"{said}; {so_far} in all.")


def _x(points: float) -> float:
    return LABELS + _wide(points)


def _wide(points: float) -> float:
    return round(max(points, 0) * SCALE / 100, 1)

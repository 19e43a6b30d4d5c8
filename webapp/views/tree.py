"""Somebody's JSON as a tree whose leaves know the path by which a mapping finds them."""

from dataclasses import dataclass, field
from typing import Any

from webapp.leads.paths import quoted, step
from webapp.security.fields import is_sealed

#: Nodes shown; what is beyond is said to be left out.
MOST = 600
_LONGEST = 160
_DEEPEST = 12
#: What tells the elements of a list apart, the best first: a question and its answer stand in no fixed place.
_NAMES = ("column_id", "field.ref", "ref", "name", "key", "field_name", "question", "label", "type", "id")


@dataclass(slots=True)
class Node:
    """``path`` of a leaf; ``text`` None: a group with ``children``. ``left_out``: how many more there are."""

    key: str
    path: str = ""
    text: str | None = None
    children: list["Node"] = field(default_factory=list)
    left_out: int = 0


def tree_of(sample: dict[str, Any]) -> list[Node]:
    """The nodes below an object."""
    budget = [MOST]
    return _children(sample, "", budget, 1)


def _children(value: Any, path: str, budget: list[int], depth: int) -> list[Node]:
    if isinstance(value, dict):
        steps = [(str(key), step(str(key)), inner) for key, inner in value.items()]
    else:
        steps = [(label, part, inner) for (label, part), inner in zip(_steps(value), value, strict=True)]
    nodes = []
    for place, (label, part, inner) in enumerate(steps):
        if budget[0] <= 0 or depth > _DEEPEST:
            nodes.append(Node("", text="", left_out=len(steps) - place))
            break
        budget[0] -= 1
        here, label = showable(f"{path}{part}".removeprefix(".")), showable(label)
        if isinstance(inner, dict | list) and inner:
            nodes.append(Node(label, children=_children(inner, here, budget, depth + 1)))
        else:
            nodes.append(Node(label, here, _text(inner)))
    return nodes


def _steps(items: list[Any]) -> list[tuple[str, str]]:
    """(label, step) for each element of a list: by what names it, if its elements have something that does."""
    for name in _NAMES:
        found = [_at(item, name) for item in items]
        if all(isinstance(one, str) and 0 < len(one) <= 100 for one in found) and len(set(found)) == len(found):
            return [(str(one), f"[?@.{name}=={quoted(str(one))}]") for one in found]
    return [(str(place + 1), f"[{place}]") for place in range(len(items))]


def _at(item: Any, name: str) -> Any:
    for part in name.split("."):
        item = item.get(part) if isinstance(item, dict) else None
    return item


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        return "empty"
    if is_sealed(value):
        return "encrypted"
    text = str(value)
    return showable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def showable(text: str) -> str:
    """Lone surrogates, which no page can hold, as question marks."""
    return text.encode("utf-8", "replace").decode()

"""Twenty's filter grammar: ``field[cmp]:value``, dots for sub-fields, a comma for and, ``and(..) or(..) not(..)``."""

import fnmatch
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

Matcher = Callable[[dict[str, Any]], bool]

_LEAF = re.compile(r"^([A-Za-z][\w.]*)\[(\w+)\]:(.*)$", re.DOTALL)
_ORDER = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}


class BadFilter(ValueError):
    pass


def parse_filter(text: str) -> Matcher:
    """The predicate that ``text`` means. BadFilter when it means none."""
    parts = _split(text)
    if not parts:
        raise BadFilter(f"'filter' invalid for '{text}'")
    matchers = [_one(part) for part in parts]
    return lambda record: all(matches(record) for matches in matchers)


def _one(text: str) -> Matcher:
    for name in ("and", "or", "not"):
        if text.startswith(name + "(") and text.endswith(")"):
            inner = [_one(part) for part in _split(text[len(name) + 1 : -1])]
            if not inner:
                raise BadFilter(f"'filter' invalid for '{text}'")
            if name == "or":
                return lambda record: any(matches(record) for matches in inner)
            if name == "not":
                return lambda record: not all(matches(record) for matches in inner)
            return lambda record: all(matches(record) for matches in inner)
    return _leaf(text)


def _leaf(text: str) -> Matcher:
    match = _LEAF.match(text)
    if not match:
        raise BadFilter(f"'filter' invalid for '{text}'. eg: price[gte]:10")
    path, comparator, value = match[1], match[2], match[3]
    if comparator in ("in", "containsAny"):
        return _one_of(path, value, text)
    return lambda record: _compare(_value(record, path), comparator, value, text)


def _one_of(path: str, value: str, text: str) -> Matcher:
    if not (value.startswith("[") and value.endswith("]")):
        raise BadFilter(f"'filter' invalid for '{text}'")
    wanted = {_unquoted(item) for item in _split(value[1:-1])}

    def matches(record: dict[str, Any]) -> bool:
        found = _value(record, path)
        return any(str(item) in wanted for item in (found if isinstance(found, list) else [found]))

    return matches


def _compare(found: Any, comparator: str, value: str, text: str) -> bool:
    if comparator == "is":
        if value not in ("NULL", "NOT_NULL"):
            raise BadFilter(f"'filter' invalid for '{text}'")
        return (found is None) == (value == "NULL")
    value, shown = _unquoted(value), "" if found is None else str(found)
    match comparator:
        case "eq":
            return found is not None and shown == value
        case "neq":
            return shown != value
        case "startsWith":
            return shown.startswith(value)
        case "endsWith":
            return shown.endswith(value)
        case "like":
            return fnmatch.fnmatchcase(shown, value.replace("%", "*"))
        case "ilike":
            return fnmatch.fnmatchcase(shown.lower(), value.lower().replace("%", "*"))
    if comparator in _ORDER:
        return found is not None and _ORDER[comparator](*_comparable(shown, value))
    raise BadFilter(f"'filter' invalid for '{text}', unknown comparator '{comparator}'")


def _comparable(shown: str, value: str) -> tuple[Any, Any]:
    """Moments as moments, however they are written; everything else as text."""
    try:
        return datetime.fromisoformat(shown), datetime.fromisoformat(value)
    except ValueError:
        return shown, value


def _value(record: dict[str, Any], path: str) -> Any:
    found: Any = record
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _unquoted(value: str) -> str:
    value = value.strip()
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'" else value


def _split(text: str) -> list[str]:
    """At the commas outside quotes, brackets and parentheses."""
    parts, depth, quote, start = [], 0, "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part for part in (*parts, text[start:]) if part]

"""A comparison in words: what speaks for one person, then what speaks against it."""

from webapp.leads.lookalikes.records import Record
from webapp.leads.lookalikes.scoring import Comparison
from webapp.leads.lookalikes.similarity import distance
from webapp.leads.lookalikes.weights import Level

_COUNTED = {1: "one", 2: "two", 3: "three"}
_NAMES = {"first": "first name", "last": "surname"}
_WORDS: dict[str, dict[Level, str]] = {
    "phone": {
        Level.EXACT: "same phone",
        Level.CLOSE: "phone one digit off",
        Level.DIFFERENT: "another phone",
    },
    "email": {
        Level.EXACT: "same e-mail address",
        Level.CLOSE: "e-mail address spelt nearly alike",
        Level.SIMILAR: "e-mail addresses alike",
        Level.DIFFERENT: "another e-mail address",
    },
    "company": {
        Level.EXACT: "same company",
        Level.CLOSE: "company spelt nearly alike",
        Level.SIMILAR: "companies alike",
        Level.DIFFERENT: "another company",
    },
    "middle": {Level.DIFFERENT: "another middle name"},
    "city": {Level.EXACT: "same town", Level.CLOSE: "town spelt nearly alike", Level.DIFFERENT: "another town"},
    "postcode": {Level.EXACT: "same postal code"},
    "street": {Level.EXACT: "same street", Level.CLOSE: "street spelt nearly alike", Level.DIFFERENT: "another street"},
    "birth": {
        Level.EXACT: "same date of birth",
        Level.CLOSE: "date of birth nearly the same",
        Level.DIFFERENT: "another date of birth",
    },
}


def in_words(found: Comparison, a: Record, b: Record) -> list[str]:
    """``["same phone", "surname one letter off", "another e-mail address"]``."""
    said = _names(found, a, b)
    for field, words in _WORDS.items():
        if field in found.found and (text := words.get(found.found[field][0])):
            said.append((found.found[field][0], text))
    return [text for _, text in sorted(said, key=lambda pair: pair[0] is Level.DIFFERENT)]


def _names(found: Comparison, a: Record, b: Record) -> list[tuple[Level, str]]:
    levels = {field: found.found[field][0] for field in _NAMES if field in found.found}
    if ("first", "last") in found.swapped:
        return [(min(levels.values()), "first and last name the other way round")]
    if list(levels.values()) == [Level.EXACT, Level.EXACT]:
        return [(Level.EXACT, "same name")]
    said = []
    for field, level in levels.items():
        left, right = getattr(a, field), getattr(b, field)
        name = _NAMES[field] if left and right else "name"
        said.append((level, _name(name, level, left, right)))
    return said


def _name(name: str, level: Level, left: str, right: str) -> str:
    if level is Level.EXACT:
        return f"same {name}"
    if level is Level.DIFFERENT:
        return f"another {name}"
    if left and right and 1 in (len(left), len(right)):
        return f"{name} as an initial"
    slips = distance(left, right) if left and right else 0
    if slips in _COUNTED:
        return f"{name} {_COUNTED[slips]} letter{'s' if slips > 1 else ''} off"
    return f"{name}s alike"

"""Walks through a parsed pattern, to show that whatever it finds holds one of some words."""

import re
import re._constants as kinds  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Callable, Iterable, Sequence
from typing import Any

#: What is known at a place in a pattern: the characters that surely stand right before it, with an example of a way to there.
Ways = dict[str, str]
#: A place between a word and what is none, of which nothing else is known.
EDGE = "\0"
#: More characters than any word has.
LONGEST = 60


def without(
    pattern: re.Pattern[str], words: Iterable[str], is_one: Callable[[str], bool] = lambda known: False
) -> list[str]:
    """Examples of what ``pattern`` may find that holds none of ``words`` for certain, where any white space counts as one space:
    a shortest of each kind, with ``…`` for what is not known. Empty: there is nothing such.

    ``is_one`` tells of the characters that stand before a place whether they end in one more thing that counts as a word."""
    endings = tuple(words)
    assert all(word and word == " ".join(word.split()) and len(word) < LONGEST for word in endings)

    def ends(known: str) -> bool:
        return known.replace(EDGE, "").endswith(endings) or is_one(known)

    return sorted(_through(parser.parse(pattern.pattern, pattern.flags), {"": ""}, ends).values(), key=len)


def _through(nodes: Sequence[tuple[Any, Any]], ways: Ways, ends: Callable[[str], bool]) -> Ways:
    for kind, value in nodes:
        ways = _past(kind, value, ways, ends)
    return ways


def _past(kind: Any, value: Any, ways: Ways, ends: Callable[[str], bool]) -> Ways:
    """The ways to behind one node of a pattern, but for those on which a word was met."""
    if kind is kinds.LITERAL:
        return _followed(ways, [chr(value)], ends)
    if kind is kinds.AT and value is kinds.AT_BOUNDARY:
        return _followed(ways, [EDGE], ends)
    if kind in (kinds.AT, kinds.ASSERT, kinds.ASSERT_NOT):
        return ways
    if kind is kinds.IN and all(one is kinds.LITERAL or which is kinds.CATEGORY_SPACE for one, which in value):
        return _followed(ways, [" " if which is kinds.CATEGORY_SPACE else chr(which) for _, which in value], ends)
    if kind in (kinds.IN, kinds.ANY, kinds.NOT_LITERAL):
        return _forgotten(ways)
    if kind is kinds.BRANCH:
        return _joined(*(_through(one, ways, ends) for one in value[1]))
    if kind is kinds.SUBPATTERN:
        return _through(value[3], ways, ends)
    if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT):
        return _repeated(*value, ways, ends)
    raise NotImplementedError(kind)


def _repeated(least: int, most: int, body: Any, ways: Ways, ends: Callable[[str], bool]) -> Ways:
    for _ in range(least):
        ways = _through(body, ways, ends)
    if most == least:
        return ways
    once_more = _through(body, ways, ends)
    if most == least + 1 or list(body) == [(kinds.IN, [(kinds.CATEGORY, kinds.CATEGORY_SPACE)])]:
        return _joined(ways, once_more)
    return _joined(ways, once_more, _forgotten(once_more))


def _followed(ways: Ways, characters: list[str], ends: Callable[[str], bool]) -> Ways:
    found: Ways = {}
    for before, example in ways.items():
        for character in characters:
            if not character.isspace():
                known = (before + character)[-LONGEST:]
            else:
                known = before if before.endswith(" ") else (before + " ")[-LONGEST:]
            if not ends(known):
                found.setdefault(known, example + character.strip(EDGE))
    return found


def _forgotten(ways: Ways) -> Ways:
    return {"": min(ways.values(), key=len) + "…"} if ways else {}


def _joined(*several: Ways) -> Ways:
    found: Ways = {}
    for ways in several:
        for known, example in ways.items():
            found.setdefault(known, example)
    return found

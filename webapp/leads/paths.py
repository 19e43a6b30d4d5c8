"""Where a value stands in somebody's JSON: the small language in which a field of a lead is mapped.

An expression is ``alternative | alternative …``; the first that yields something counts. An alternative is
``term + term …``, joined by a space, missing terms left out. A term is a constant in double quotes or a JSONPath
(RFC 9535, the ``$`` may be left out): names, indexes, wildcards and filters that compare, such as
``form_response.answers[?@.field.ref=='email'].email``.

Expressions are an admin's, bodies are a stranger's, so that what costs more than one look at each value is refused:
descent (``..``), functions, regular expressions, slices, several selectors in one bracket, filters inside of filters.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jsonpath
from jsonpath import filter as filters
from jsonpath import segments, selectors
from jsonpath.exceptions import JSONPathError

MAX_EXPRESSION = 1_000
MAX_PATH = 500
MAX_SEGMENTS = 20
MAX_COMPARISONS = 40
_PLAIN_NAME = re.compile(r"[^\W\d][\w-]*")
_BARE_FILTER = re.compile(r"\[\?\s*(?=[^\W\d])(?!\w+\s*\()")
_SPACED = re.compile(r"[^\W\d]\w* +[^\W\d]\w*")
_COMPARISONS = frozenset({"==", "!=", "<", ">", "<=", ">=", "&&", "||"})
_LITERALS = (
    filters.BooleanLiteral, filters.StringLiteral, filters.IntegerLiteral, filters.FloatLiteral, filters.Nil,
)  # fmt: skip


class BadPath(ValueError):
    """Says in words what is wrong with an expression."""


class _Environment(jsonpath.JSONPathEnvironment):
    max_int_index = 1_000_000
    max_recursion_depth = 50

    def setup_function_extensions(self) -> None:
        """None: some of them run regular expressions."""


_ENVIRONMENT = _Environment(strict=False)


@dataclass(frozen=True, slots=True)
class Found:
    """What an expression yields. ``text`` None: nothing; ``container``: a path stopped at an object or a list."""

    text: str | None
    container: bool = False


@dataclass(frozen=True, slots=True)
class _Path:
    """``names``: of a path that leads from object to object by names, as nearly all do."""

    compiled: jsonpath.JSONPath
    names: tuple[str, ...] | None

    def values(self, body: Any) -> Iterator[Any]:
        """What it finds. Names are followed here, in an eighth of the library's time."""
        if self.names is None:
            yield from (match.obj for match in self.compiled.finditer(body))
            return
        for name in self.names:
            if not isinstance(body, dict) or name not in body:
                return
            body = body[name]
        yield body


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression; terms are constants (text) or paths."""

    alternatives: tuple[tuple[Any, ...], ...]

    def find(self, body: Any, *, every: bool = False) -> Found:
        """The first alternative that yields something. ``every``: all values a path finds, a line each, rather than
        its first."""
        container = False
        for terms in self.alternatives:
            parts: list[str] = []
            found_any = False
            for term in terms:
                if isinstance(term, str):
                    parts.append(term)
                    continue
                texts, stopped = _texts(term, body)
                container = container or stopped
                if texts:
                    found_any = True
                    parts.append("\n".join(texts) if every else texts[0])
            if parts and (found_any or all(isinstance(term, str) for term in terms)):
                return Found(" ".join(parts))
        return Found(None, container)

    def replace(self, body: Any, text: str) -> None:
        """Put ``text`` in place of everything that the expression's paths find."""
        for term in (term for terms in self.alternatives for term in terms if not isinstance(term, str)):
            for match in list(term.compiled.finditer(body)):
                if match.parent is not None:
                    match.parent.obj[match.parts[-1]] = text


def _texts(path: _Path, body: Any) -> tuple[list[str], bool]:
    texts, container = [], False
    for value in path.values(body):
        text = text_of(value)
        if text is None:
            container = container or isinstance(value, dict | list)
        elif text.strip():
            texts.append(text)
    return texts, container


def text_of(value: Any) -> str | None:
    """A value as text, a list of such with commas; None for an object, for null and for lists that hold either."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if isinstance(value, list):
        parts = [text_of(item) for item in value if not isinstance(item, list)]
        texts = [part for part in parts if part is not None]
        return ", ".join(texts) if texts and len(texts) == len(value) else None
    return None


@lru_cache(maxsize=4096)
def compiled(text: str) -> Expression:
    """The expression behind ``text``; BadPath when there is none."""
    if len(text) > MAX_EXPRESSION:
        raise BadPath(f"must have at most {MAX_EXPRESSION:,} characters")
    alternatives = []
    for alternative in _split(text, "|"):
        terms = tuple(_term(term.strip()) for term in _split(alternative, "+"))
        alternatives.append(terms)
    return Expression(tuple(alternatives))


def _split(text: str, mark: str) -> Iterator[str]:
    """``text`` cut at each ``mark`` that stands outside of quotes and brackets."""
    start = depth = 0
    quote = ""
    escaped = False
    for position, char in enumerate(text):
        if escaped:
            escaped = False
        elif quote:
            escaped = char == "\\"
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[(":
            depth += 1
        elif char in "])":
            depth -= 1
        elif char == mark and depth == 0:
            yield text[start:position]
            start = position + 1
    if quote:
        raise BadPath(f"has a quotation mark ({quote}) that is not closed")
    if depth:
        raise BadPath("has a bracket that is not closed" if depth > 0 else "has a closing bracket too many")
    yield text[start:]


def _term(text: str) -> Any:
    if not text:
        raise BadPath("has an empty part: between + and | stands a path or a text in double quotes")
    if text.startswith('"'):
        if len(text) < 2 or not text.endswith('"') or '"' in text[1:-1].replace('\\"', ""):
            raise BadPath("has a text in double quotes with something before or after it; join the two with +")
        return text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return _path(text)


def _path(text: str) -> _Path:
    if len(text) > MAX_PATH:
        raise BadPath(f"has a path of more than {MAX_PATH} characters")
    if "\x00" in text:
        raise BadPath("holds a NUL character")
    try:
        path = _compile(_rooted(text))
    except JSONPathError as error:
        hint = "; a name with spaces stands in brackets: ['First name']" if _SPACED.search(text) else ""
        raise BadPath(f"is not a path: {str(error).splitlines()[0][:120]}{hint}") from None
    except RecursionError:
        raise BadPath("is nested too deep") from None
    if not isinstance(path, jsonpath.JSONPath):
        raise BadPath("joins paths in a way that is not understood here")
    _check(path)
    chosen = [segment.selectors[0] for segment in path.segments]
    names = tuple(one.name for one in chosen if type(one) is selectors.NameSelector)
    return _Path(path, names if len(names) == len(chosen) else None)


def _compile(text: str) -> Any:
    """Also with the ``@.`` left out in a filter, as people write it; as written first, since a name may look so."""
    try:
        return _ENVIRONMENT.compile(text)
    except JSONPathError:
        mended = _BARE_FILTER.sub("[?@.", text)
        if mended == text:
            raise
        return _ENVIRONMENT.compile(mended)


def _rooted(text: str) -> str:
    """With the ``$`` that may be left out; with it every name is one, also ``in`` or ``_id``."""
    if text.startswith("$"):
        return text
    return f"${text}" if text.startswith("[") else f"$.{text}"


def _check(path: jsonpath.JSONPath) -> None:
    if not path.segments:
        raise BadPath("names the whole body; name one value in it")
    if len(path.segments) > MAX_SEGMENTS:
        raise BadPath(f"goes more than {MAX_SEGMENTS} levels deep")
    for segment in path.segments:
        if not isinstance(segment, segments.JSONPathChildSegment):
            raise BadPath("must name each level; “..” is not understood here")
        if len(segment.selectors) != 1:
            raise BadPath("must have one name, number, * or filter in a bracket")
        selector = segment.selectors[0]
        if isinstance(selector, selectors.Filter):
            if _check_filter(selector.expression.expression) > MAX_COMPARISONS:
                raise BadPath(f"has a filter with more than {MAX_COMPARISONS} comparisons")
        elif not isinstance(
            selector, selectors.NameSelector | selectors.IndexSelector | selectors.WildcardSelector
        ) or isinstance(selector, selectors.KeySelector):
            raise BadPath("may hold names, numbers, * and filters that compare; nothing else")


def _check_filter(expression: Any) -> int:
    """The number of its parts. BadPath for what is more than a comparison of values with values."""
    if isinstance(expression, filters.InfixExpression) and expression.operator in _COMPARISONS:
        return 1 + _check_filter(expression.left) + _check_filter(expression.right)
    if isinstance(expression, filters.PrefixExpression) and expression.operator == "!":
        return 1 + _check_filter(expression.right)
    if isinstance(expression, _LITERALS):
        return 0
    if isinstance(expression, filters.RelativeFilterQuery) and _is_singular(expression.path):
        return 0
    raise BadPath("has a filter that does more than compare, such as [?@.type=='email']")


def _is_singular(path: Any) -> bool:
    return len(path.segments) <= MAX_SEGMENTS and all(
        isinstance(segment, segments.JSONPathChildSegment)
        and len(segment.selectors) == 1
        and type(segment.selectors[0]) in (selectors.NameSelector, selectors.IndexSelector)
        for segment in path.segments
    )


def step(name: str) -> str:
    """A name as the next step of a path: ``.name``, quoted where it has to be."""
    if _PLAIN_NAME.fullmatch(name) and name.isascii():
        return f".{name}"
    return f"[{quoted(name)}]"


def quoted(text: str) -> str:
    """A text as the path language writes it, in single quotes."""
    inner = json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("'", "\\'")
    return f"'{inner}'"

"""Reading a JSON body: the limit is kept for chunked bodies too, and nothing that cannot be stored gets through."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from flask import Response, g, request
from pydantic_core import from_json

from webapp.leads.errors import Invalid, Problem
from webapp.leads.intake import text_problem

MIB = 1 << 20
#: NUL escaped or raw, an exponent, or digits enough to leave the range of a float.
_SUSPECT = re.compile(rb"\\u0000|\x00|\d[eE]|\d{300}")
#: What only a lenient parser lets through: half of a surrogate pair (an emoji is written as both halves), escaped or raw,
#: and numbers that are none.
_LENIENT = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
    rb"|\xed[\xa0-\xbf]|NaN|Infinity"
)
#: What is still read of a body that an answer did not wait for; the longest note fits in.
_LEFT_OVER = 1 << 17


def raw_body(limit: int = MIB) -> bytes:
    """The body's bytes. Invalid with code ``payload_too_large`` over ``limit`` bytes."""
    return b"".join(parts(limit))


def parts(limit: int) -> Iterator[bytes]:
    """The body piece by piece. Invalid with code ``payload_too_large`` over ``limit`` bytes, at once where its length is
    declared.

    Werkzeug's own limit is not enough: for a chunked body it stops reading at the limit and hands on what it has, as
    if that were all. So the server's stream is read here, up to one byte more than allowed.
    """
    declared = request.content_length
    if declared is not None and declared > limit:
        raise _too_large(limit)
    if declared is None and "chunked" not in request.headers.get("Transfer-Encoding", "").lower():
        return
    g.body_read = True
    stream = request.environ["wsgi.input"]
    wanted = limit + 1 if declared is None else declared
    while wanted > 0:
        part = stream.read(min(wanted, 1 << 16))
        if not part:
            break
        wanted -= len(part)
        if declared is None and wanted == 0:
            raise _too_large(limit)
        yield part
    if declared is not None and wanted > 0:
        raise Invalid("the body ended before its Content-Length", code="invalid_json")


def finish(response: Response) -> Response:
    """Read what an early answer (401, 429, 503) left of the body: the server would cut the connection over it, and the
    client's next request on it would fail without an answer."""
    declared = request.content_length
    if declared and declared <= _LEFT_OVER and not g.get("body_read"):
        with suppress(Exception):  # the client has gone
            request.stream.read()
    return response


def _too_large(limit: int) -> Invalid:
    return Invalid(f"the body is larger than {limit:,} bytes", code="payload_too_large")


def parse_json(body: bytes) -> Any:
    """The value. Invalid with code ``invalid_json`` for anything that is not JSON within reason: broken syntax or
    UTF-8, lone surrogates, NaN, numbers without end, nesting without end, NUL characters."""
    if not body.strip():
        raise Invalid("the body is empty; JSON is expected", code="invalid_json")
    try:
        value = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise Invalid(f"the body is not valid JSON: {error}", code="invalid_json") from None
    # Only what the raw bytes make possible is looked for: the walk costs more than the parsing.
    if _SUSPECT.search(body):
        check_storable(value)
    return value


def parse_leniently(body: bytes) -> Any:
    """Like :func:`parse_json` for providers' batches: what cannot be stored stays in the value, to be found by
    :func:`check_storable` entry by entry, so that it costs only the entry that holds it."""
    try:
        return json.loads(body)
    except RecursionError:
        raise Invalid("the body is nested too deep", code="invalid_json") from None
    except ValueError as error:  # also broken UTF-8 and integers without end
        raise Invalid(f"the body is not valid JSON: {str(error)[:200]}", code="invalid_json") from None


def is_sound(body: bytes) -> bool:
    """Surely holds nothing that :func:`check_storable` would find; spares providers' batches the walk."""
    return not (_SUSPECT.search(body) or _LENIENT.search(body))


def check_storable(value: Any, where: str = "") -> None:
    """Invalid for text with NUL characters or lone surrogates, and for numbers out of range, wherever they are."""
    try:
        _check(value, where)
    except RecursionError:
        raise Invalid("the body is nested too deep", code="invalid_json") from None


def _check(value: Any, where: str) -> None:
    if isinstance(value, str):
        if problem := text_problem(value):
            raise Invalid(
                "the body holds text that cannot be stored", code="invalid_json", details=(Problem(where, problem),)
            )
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, where)
            _check(item, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]")
    elif isinstance(value, int | float) and not -1e308 < value < 1e308:
        raise Invalid(
            "the body holds a number out of range",
            code="invalid_json",
            details=(Problem(where, "number out of range"),),
        )


def require_json_type() -> None:
    """Invalid with code ``unsupported_media_type`` when the Content-Type names something else than JSON."""
    kind = (request.mimetype or "").lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise Invalid(f"Content-Type must be application/json, not {kind[:80]}", code="unsupported_media_type")


def json_body(limit: int = MIB) -> Any:
    """The parsed body of a JSON door, checked for its content type too."""
    require_json_type()
    return parse_json(raw_body(limit))


def json_object(limit: int = MIB) -> dict[str, Any]:
    """Like :func:`json_body`, for doors that take an object only."""
    value = json_body(limit)
    if not isinstance(value, dict):
        raise Invalid("the body must be a JSON object", code="invalid_json")
    return value

"""JSON text, as PostgreSQL takes it: written by orjson, an eighth of the time of ``json``, for what a lead costs each time."""

import json
from typing import Any

import orjson


def dumps(value: Any) -> str:
    """``value`` as JSON text. Ids and moments may be in it; TypeError, ValueError or RecursionError for what is none."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # whole numbers beyond 64 bits, lone surrogates, hundreds of levels
        return json.dumps(value)

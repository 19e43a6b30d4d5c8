"""A payload as rows that people can read, without what proves who somebody is."""

from typing import Any

from webapp.leads.judging import masked

#: Parts of keys whose values are never shown.
_SECRET = ("secret", "token", "password", "authorization", "api_key", "apikey", "signature")
MOST_ROWS, LONGEST = 200, 500


def rows(payload: Any) -> list[tuple[str, str]]:
    """``(where, what)`` of every value in it: addresses and numbers masked, credentials hidden, long texts cut."""
    found: list[tuple[str, str]] = []
    _walk("", payload, found)
    if len(found) > MOST_ROWS:
        found = [*found[:MOST_ROWS], ("…", f"{len(found) - MOST_ROWS:,} more")]
    return found


def is_secret(key: str) -> bool:
    """Is the value under this name one that is never shown?"""
    return any(part in key.lower() for part in _SECRET)


def _walk(path: str, value: Any, found: list[tuple[str, str]]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if is_secret(str(key)):
                found.append((_under(path, key), "hidden"))
            else:
                _walk(_under(path, key), inner, found)
    elif isinstance(value, list):
        for number, inner in enumerate(value, start=1):
            _walk(_under(path, number), inner, found)
    elif value is not None and value != "":
        found.append((path, _said(value)))


def _under(path: str, key: Any) -> str:
    return f"{path} › {key}" if path else str(key)


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str):
        return str(value)
    text = masked(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"

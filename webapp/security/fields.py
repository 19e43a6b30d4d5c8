"""Field-level encryption of credentials and sensitive attributes (MultiFernet, rotatable).

It lies below the models: nothing here knows Flask or the database.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Sequence, Set
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

#: Attributes that are never stored in the clear, also where they stand inside a payload (design: what is stored).
SENSITIVE = re.compile(
    r"birth|(?<![a-z])dob(?![a-z])|salary|credit|income|(?<![a-z])ssn(?![a-z])|passport|national_id", re.IGNORECASE
)
_MARK = "enc:"
_CONTAINERS = (dict, list)


@lru_cache(maxsize=4096)  # payloads use the same few names over and over
def is_sensitive(name: str) -> bool:
    """Does :meth:`FieldCipher.seal` encrypt what stands under this name?"""
    return SENSITIVE.search(name) is not None


def is_sealed(value: Any) -> bool:
    """Is it what :meth:`FieldCipher.encrypt` makes?"""
    return isinstance(value, str) and value.startswith(_MARK)


def _is_plain(payload: dict[Any, Any]) -> bool:
    """Has nothing in it that is sensitive, or could hold something that is? The usual row of a file."""
    for key, value in payload.items():
        if isinstance(value, _CONTAINERS) or not isinstance(key, str) or is_sensitive(key):
            return False
    return True


def _copy(payload: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a JSON payload, however deep, with ``change`` made to each value under a sensitive name."""
    if isinstance(payload, dict) and _is_plain(payload):
        return payload.copy()
    made: list[Any] = [None]
    todo: list[tuple[Any, Any, Any]] = [(made, 0, payload)]  # container of the copy, key there, what to copy
    while todo:
        into, place, value = todo.pop()
        if isinstance(value, dict):
            into[place] = copy = dict.fromkeys(value)
            for key, inner in value.items():
                if inner is not None and isinstance(key, str) and is_sensitive(key):
                    copy[key] = change(inner)
                elif isinstance(inner, _CONTAINERS):
                    todo.append((copy, key, inner))
                else:
                    copy[key] = inner
        elif isinstance(value, list):
            into[place] = items = list(value)
            todo += [(items, n, inner) for n, inner in enumerate(value) if isinstance(inner, _CONTAINERS)]
        else:
            into[place] = value
    return made[0]


class FieldCipher:
    """Encrypts with the first key, decrypts with any. ValueError for a key that is not 32 url-safe base64 bytes."""

    def __init__(self, keys: Sequence[str]) -> None:
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
            self._fingerprints = hashlib.sha256(b"fingerprint:" + keys[0].encode()).digest()
        except (ValueError, TypeError) as error:
            raise ValueError("must be Fernet keys: 32 random bytes in url-safe base64, separated by commas") from error

    def encrypt(self, value: Any) -> str:
        """Any JSON value → ``enc:…``."""
        return _MARK + self._fernet.encrypt(json.dumps(value).encode()).decode()

    def decrypt(self, token: str) -> Any:
        """``enc:…`` → the value. ValueError when no key fits."""
        try:
            return json.loads(self._fernet.decrypt(token.removeprefix(_MARK).encode()))
        except InvalidToken as error:
            raise ValueError("no key of FIELD_ENCRYPTION_KEYS decrypts this value") from error

    def fingerprint(self, value: Any) -> str:
        """Hex by which the same JSON value is known again although each sealing of it differs; without the key it tells
        nothing, not even by guessing. RecursionError for a value that is nested too deep."""
        return hmac.new(self._fingerprints, json.dumps(value).encode(), hashlib.sha256).hexdigest()

    def seal(self, payload: Any, *, but: Set[str] = frozenset()) -> Any:
        """A copy of a JSON payload whose sensitive values are encrypted in place; the shape is kept, however deep.
        ``but``: what was sealed before (:meth:`tokens`) and stays as it is."""
        return _copy(payload, lambda value: value if isinstance(value, str) and value in but else self._hidden(value))

    def unseal(self, payload: Any, sealed: Set[str]) -> Any:
        """A copy in which what :meth:`seal` made is in the clear again: of the values that stand where it encrypts,
        those that are in ``sealed``. Whatever else looks like one is somebody's words and stays."""
        return _copy(
            payload, lambda value: self._opened(value) if isinstance(value, str) and value in sealed else value
        )

    def tokens(self, payload: Any) -> frozenset[str]:
        """What :meth:`seal` has made, in a payload that was sealed: all that looks like it and stands where it
        encrypts."""
        found: set[str] = set()

        def look(value: Any) -> Any:
            if is_sealed(value):
                found.add(value)
            return value

        _copy(payload, look)
        return frozenset(found)

    def _opened(self, token: str) -> Any:
        try:
            return self.decrypt(token)
        except ValueError:  # a key that is gone
            return token

    def _hidden(self, value: Any) -> str:
        try:
            return self.encrypt(value)
        except RecursionError:  # so deep is nothing that people wrote; in the clear it must not stay
            return self.encrypt("[nested too deep]")

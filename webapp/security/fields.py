"""Field-level encryption of credentials and sensitive attributes (MultiFernet, rotatable).

It lies below the models: nothing here knows Flask or the database.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

#: Attributes that are never stored in the clear, also where they stand inside a payload (design: what is stored).
SENSITIVE = re.compile(r"birth|\bdob\b|salary|credit|income|\bssn\b|passport|national_id", re.IGNORECASE)
_MARK = "enc:"


@lru_cache(maxsize=4096)  # payloads use the same few names over and over
def _is_sensitive(name: str) -> bool:
    return SENSITIVE.search(name) is not None


def is_sealed(value: Any) -> bool:
    """Is it what :meth:`FieldCipher.encrypt` makes?"""
    return isinstance(value, str) and value.startswith(_MARK)


class FieldCipher:
    """Encrypts with the first key, decrypts with any. ValueError for a key that is not 32 url-safe base64 bytes."""

    def __init__(self, keys: Sequence[str]) -> None:
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
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

    def seal(self, payload: Any) -> Any:
        """A copy of a JSON payload whose sensitive values are encrypted in place; the shape is kept."""
        if isinstance(payload, dict):
            return {
                key: self.encrypt(value)
                if value is not None and isinstance(key, str) and _is_sensitive(key)
                else self.seal(value)
                for key, value in payload.items()
            }
        if isinstance(payload, list):
            return [self.seal(item) for item in payload]
        return payload

"""Passwords: argon2id. A hash takes about 0.1 s on purpose, so callers limit attempts before they get here."""

import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_LENGTH = 10
_hasher = PasswordHasher()
#: Compared against when no such user exists, so that the answer takes as long.
_DECOY = _hasher.hash(secrets.token_urlsafe(16))


def hash_password(password: str) -> str:
    return _hasher.hash(password)


def check_password(stored: str | None, password: str) -> bool:
    """True when ``password`` is the one behind ``stored`` (None: no such user; takes as long, answers False)."""
    try:
        matched = _hasher.verify(stored or _DECOY, password)
    except (VerificationError, InvalidHashError):
        return False
    return matched and stored is not None

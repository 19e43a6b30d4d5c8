"""The two secrets of an embedded default: made once, kept 0600 in the data folder.

With a database of one's own they must come from the environment, since every host has to have the
same and a backup of the database is worthless without them.
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.fernet import Fernet

from embedded.errors import StartError

NAMES = ("SECRET_KEY", "FIELD_ENCRYPTION_KEYS")


def load_or_make(data_dir: Path) -> dict[str, str]:
    """Both secrets, from <data>/keys.json; the file appears whole or not at all."""
    path = data_dir / "keys.json"
    try:
        found = json.loads(path.read_text())
        return {name: str(found[name]) for name in NAMES}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError):
        raise StartError(
            f"{path} cannot be read as the secrets of this data folder; restore it from a backup."
        ) from None
    made = {"SECRET_KEY": secrets.token_urlsafe(48), "FIELD_ENCRYPTION_KEYS": Fernet.generate_key().decode()}
    partial = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(made, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    return made


def require(environ: Mapping[str, str]) -> None:
    """Refuse an own database without own secrets."""
    missing = [name for name in NAMES if not environ.get(name)]
    if missing:
        raise StartError(f"{' and '.join(missing)} must be set together with DATABASE_URL.")

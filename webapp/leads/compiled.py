"""The judge compiled to machine code, which is twice as fast: where that is, if there is any (docs/adr/0064).

``python -m embedded.compiling`` makes it of the very sources that would run otherwise. Its folder is named by their digest,
so code that was changed runs as plain Python until it is compiled anew, and never as it was before.
"""

import hashlib
import importlib.machinery
import importlib.util
import logging
import os
import sys
import sysconfig
from pathlib import Path

_log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".compiled"
#: What is compiled: what every word of a message goes through.
MODULES = (
    "explanation", "hearing", "language", "matching", "ruleset_trie", "textnorm", "verdict", "wordmodel", "words",
)  # fmt: skip
#: What that is compiled against: it has their types built in.
KNOWN = ("errors", "ruleset", "ruleset_packed", "states", "types")
#: Its sources, and what says how they are compiled.
FILES = (
    *(f"webapp/leads/{name}.py" for name in (*MODULES, *KNOWN, "compiled")),
    "script/embedded/compiling.py", "requirements-build.txt",
)  # fmt: skip


def digest(root: Path = ROOT) -> str:
    """Of ``FILES`` (one that is absent counts as empty), for this Python on this machine."""
    found = hashlib.sha256((sys.version + sysconfig.get_platform()).encode())
    for name in FILES:
        found.update((root / name).read_bytes() if (root / name).is_file() else b"")
    return found.hexdigest()[:16]


def folder() -> Path | None:
    """Where the compiled modules are. None: there are none of these sources, or ``LEADOPS_PLAIN`` is set."""
    if os.environ.get("LEADOPS_PLAIN") or not HOME.is_dir():
        return None
    found = HOME / digest()
    return found if found.is_dir() else None


def search_path(found: Path | None) -> list[str]:
    """What Python is to look through for them, before the sources. Nothing when they do not load here."""
    if found is None:
        return []
    for shared in found.glob("*__mypyc.*"):  # the code of all of them, which each asks for by its bare name
        name = shared.name.partition(".")[0]
        loader = importlib.machinery.ExtensionFileLoader(name, str(shared))
        spec = importlib.util.spec_from_file_location(name, shared, loader=loader)
        assert spec is not None
        try:
            sys.modules[name] = importlib.util.module_from_spec(spec)
            loader.exec_module(sys.modules[name])
        except ImportError as e:  # another machine's, cut short, or on a disk from which nothing may be run
            sys.modules.pop(name, None)
            _log.warning("the compiled judge does not load, so it runs as plain Python; delete %s: %s", found, e)
            return []
    return [str(found / "webapp" / "leads")]

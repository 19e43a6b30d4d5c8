"""Compile the judge for this machine: ``python -m embedded.compiling``. Takes half a minute, and a C compiler.

Where it cannot be done the console runs all the same, and judges at half the speed. Sources that do not compile are told of
once and not tried again until they change; what is lacking (a compiler, mypy) is asked for each time. Nothing is written
next to the sources.
"""

import argparse
import fcntl
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from webapp.leads import compiled

REQUIREMENTS = compiled.ROOT / "requirements-build.txt"
#: The server's start waits for it.
_INSTALL_SECONDS, _BUILD_SECONDS, _PROOF_SECONDS = 120, 600, 60
#: What was made before, of other sources or by other Pythons.
_KEPT = 2
#: Of the types of others it is enough to know the domain's own.
_CHECKED = """
[mypy]
strict = true
follow_imports = skip
ignore_missing_imports = true
disallow_subclassing_any = false
disallow_untyped_calls = false
warn_return_any = false
[mypy-webapp.leads.*]
follow_imports = silent
"""
#: Run as plain Python, with what was made put in front.
_PROOF = """
import pathlib, sys
import webapp.leads
webapp.leads.__path__[:0] = webapp.leads.compiled.search_path(pathlib.Path(sys.argv[1]))
from webapp.leads import verdict
assert not verdict.__file__.endswith(".py"), verdict.__file__
assert verdict.judge("How much is it for 40 seats?").intent == "inquiry_price"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile the judge for this machine.")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)  # the process that does it
    if build := parser.parse_args().build:
        _build(build)
        return
    wanted = compiled.HOME / compiled.digest()
    if _known(wanted):
        return
    if why := _lacking():
        _say(f"{why}, so the judge runs as plain Python, at half the speed.")
        return
    compiled.HOME.mkdir(exist_ok=True)
    with (compiled.HOME / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _known(wanted):  # else another process was faster
            _say("Compiling the judge (half a minute, the first time only) …")
            _make(wanted)


def _known(wanted: Path) -> bool:
    return wanted.is_dir() or _failed(wanted).exists()


def _failed(wanted: Path) -> Path:
    return wanted.with_suffix(".failed")


def _make(wanted: Path) -> None:
    """Compile, or write down why that failed. Of what was made before only the newest stays."""
    made = [one for one in compiled.HOME.iterdir() if one.name != ".lock"]
    for old in sorted(made, key=lambda one: one.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    if problem := _install():
        _say(f"mypy cannot be installed, so the judge runs as plain Python, at half the speed: {problem}")
        return
    with tempfile.TemporaryDirectory(dir=compiled.HOME) as work:
        if problem := _compile(Path(work), wanted):
            _failed(wanted).write_text(problem, encoding="utf-8")
            _say(f"It cannot be compiled here ({_failed(wanted)} says why): it runs as plain Python.")


def _lacking() -> str:
    """What compiling cannot do without, and is not here."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(compiler):
        return f"There is no C compiler ({compiler})"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's header files are not installed"
    return ""


def _install() -> str:
    """The mypy that is asked for, where there is none or another. Returns what went wrong, which may pass."""
    pinned = re.search(r"^mypy==(\S+)", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    try:
        if pinned and importlib.metadata.version("mypy") == pinned[1]:
            return ""
    except importlib.metadata.PackageNotFoundError:
        pass
    pip = ("-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input", "--retries=1")
    return _problem(*pip, "-r", str(REQUIREMENTS), seconds=_INSTALL_SECONDS)


def _compile(work: Path, wanted: Path) -> str:
    """Build in ``work``, try it, and put it where it is ``wanted``. Returns what went wrong."""
    problem = _problem("-m", "embedded.compiling", "--build", str(work), seconds=_BUILD_SECONDS)
    problem = problem or _problem("-c", _PROOF, str(work / "lib"), seconds=_PROOF_SECONDS)
    if not problem:
        (work / "lib").rename(wanted)
    return problem


def _problem(*arguments: str, seconds: int) -> str:
    """Of Python with these arguments: what it says when it fails."""
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=compiled.ROOT, env=os.environ | {"LEADOPS_PLAIN": "1"},
            capture_output=True, text=True, check=False, timeout=seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it took longer than {seconds} s"
    return (done.stdout + done.stderr or f"it ended with {done.returncode}") if done.returncode else ""


def _build(work: Path) -> None:
    from mypyc.build import mypycify
    from setuptools import setup

    rules = work / "mypy.ini"
    rules.write_text(_CHECKED, encoding="utf-8")
    sources = [f"webapp/leads/{name}.py" for name in compiled.MODULES]
    options = [f"--config-file={rules}", f"--cache-dir={work / 'cache'}"]
    # -O2 and not mypyc's -O3, whose larger code is a tenth slower: it does not stay in the cache.
    extensions = mypycify([*options, *sources], opt_level="2", debug_level="0", target_dir=str(work / "c"))
    places = ["--build-lib", str(work / "lib"), "--build-temp", str(work / "temp")]
    setup(name="judge", packages=[], ext_modules=extensions, script_args=["build_ext", *places])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""The judge as machine code: the same verdicts, never of sources that have changed, and the console without it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from webapp.leads import compiled
from webapp.leads.compiled import ROOT
from webapp.leads.types import Verdict
from webapp.leads.verdict import judge

MESSAGES = ROOT / "tests" / "data" / "leads.jsonl"
JUDGED = """
import json, sys
from webapp.leads import verdict
print(json.dumps(verdict.__file__))
for line in open(sys.argv[1], encoding="utf-8"):
    print(json.dumps([verdict.judge(json.loads(line)["message"]).as_json(), *map(str, verdict.fired(line))]))
"""


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("LEADOPS_PLAIN", "CC")}
    paths = os.pathsep.join((str(ROOT), str(ROOT / "script")))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=inherited | {"PYTHONPATH": paths} | environment,
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip


@pytest.mark.skipif(not (compiled.HOME / compiled.digest()).is_dir(), reason="nothing is compiled here")
def test_compiled_or_not_the_verdicts_are_the_same() -> None:
    code, *verdicts = run("-c", JUDGED, MESSAGES).stdout.splitlines()
    plain_code, *plain = run("-c", JUDGED, MESSAGES, LEADOPS_PLAIN="1").stdout.splitlines()
    assert not json.loads(code).endswith(".py") and json.loads(plain_code).endswith(".py")
    assert len(verdicts) > 100 and verdicts == plain


@pytest.mark.parametrize(
    "changed",
    ["webapp/leads/verdict.py", "webapp/leads/types.py", "script/embedded/compiling.py", "requirements-build.txt"],
)
def test_what_was_compiled_serves_no_other_sources_and_no_other_compiler(changed: str, tmp_path: Path) -> None:
    for name in compiled.FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert compiled.digest(tmp_path) == compiled.digest()
    with (tmp_path / changed).open("a", encoding="utf-8") as source:
        source.write("\n")
    assert compiled.digest(tmp_path) != compiled.digest()
    (tmp_path / changed).unlink()
    assert compiled.digest(tmp_path) != compiled.digest()


def test_what_does_not_load_is_passed_over_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "x__mypyc.so").write_bytes(b"no machine code")
    assert compiled.search_path(tmp_path) == []
    assert "x__mypyc" not in sys.modules
    assert "plain Python" in caplog.text


def test_a_verdict_has_all_its_fields() -> None:
    """It is not made by its constructor."""
    assert len(judge("x")) == len(Verdict._fields)


def test_all_that_the_compiled_modules_are_compiled_against_counts() -> None:
    """Their own imports of the domain, as far as they go."""
    known = {*compiled.MODULES, *compiled.KNOWN}
    for name in known:
        source = (ROOT / f"webapp/leads/{name}.py").read_text(encoding="utf-8")
        lines = [line for line in source.splitlines() if line.strip().startswith("from webapp.leads")]
        for line in lines:
            module, _, names = line.strip().removeprefix("from webapp.leads").partition(" import ")
            imported = {module.removeprefix(".")} if module else {one.strip() for one in names.split(",")}
            assert imported <= known, (name, line)


#: ``embedded.compiling``, with another place for what it makes.
COMPILING = """
import pathlib, sys
from webapp.leads import compiled
compiled.HOME = pathlib.Path(sys.argv.pop())
from embedded import compiling
{changed}
compiling.main()
"""
#: As ``_problem``: instead of the build a library that is none.
MADE = """
def made(*arguments, seconds):
    if "--build" in arguments:
        library = pathlib.Path(arguments[-1], "lib")
        library.mkdir()
        (library / "x__mypyc.so").touch()
        return ""
    return problem(*arguments, seconds=seconds)
problem, compiling._problem = compiling._problem, made
"""


def compiling(home: Path, changed: str = "", **environment: str) -> str:
    return run("-c", COMPILING.replace("{changed}", changed), home, **environment).stderr


def test_without_a_compiler_it_is_told_and_nothing_is_made(tmp_path: Path) -> None:
    told = compiling(tmp_path / "compiled", CC="no-such-compiler")
    assert "no C compiler (no-such-compiler)" in told and "plain Python" in told
    assert not (tmp_path / "compiled").exists()


def test_a_build_that_fails_is_told_and_not_tried_again_until_the_sources_change(tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho this compiler is broken >&2\nexit 1\n", encoding="utf-8")
    compiler.chmod(0o755)
    assert "cannot be compiled here" in compiling(tmp_path / "compiled", CC=str(compiler))
    (why,) = (tmp_path / "compiled").glob("*.failed")
    assert "this compiler is broken" in why.read_text(encoding="utf-8")
    assert compiling(tmp_path / "compiled", CC=str(compiler)) == ""


def test_mypy_that_cannot_be_installed_is_told_and_tried_again(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("mypy==0.0.0\n", encoding="utf-8")
    elsewhere = f"compiling.REQUIREMENTS = pathlib.Path({str(requirements)!r})"
    for _ in range(2):
        told = compiling(tmp_path / "compiled", elsewhere, PIP_NO_INDEX="1")
        assert "mypy cannot be installed" in told and "mypy==0.0.0" in told
        assert [one.name for one in (tmp_path / "compiled").iterdir()] == [".lock"]


def test_what_takes_too_long_is_given_up(tmp_path: Path) -> None:
    assert "cannot be compiled here" in compiling(tmp_path / "compiled", "compiling._BUILD_SECONDS = 0")
    (why,) = (tmp_path / "compiled").glob("*.failed")
    assert "longer than 0 s" in why.read_text(encoding="utf-8")


def test_what_was_made_is_tried_before_it_takes_its_place(tmp_path: Path) -> None:
    assert "cannot be compiled here" in compiling(tmp_path / "compiled", MADE)
    (why,) = (tmp_path / "compiled").glob("*.failed")
    assert "does not load" in why.read_text(encoding="utf-8")
    assert not [one for one in (tmp_path / "compiled").iterdir() if one.is_dir()]


def test_the_newest_of_what_was_made_for_others_stays(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "newer.failed", "old.failed", "older"]):
        made = tmp_path / name
        made.touch() if made.suffix else made.mkdir()
        os.utime(made, (1_000_000 - age, 1_000_000 - age))
    compiling(tmp_path, "compiling._BUILD_SECONDS = 0")
    assert {one.name for one in tmp_path.iterdir()} == {"new", "newer.failed", ".lock", f"{compiled.digest()}.failed"}

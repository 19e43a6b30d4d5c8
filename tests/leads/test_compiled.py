"""The judge as machine code: the same verdicts, never of sources that have changed, and the console without it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from webapp.leads import compiled

ROOT = compiled.SOURCES.parents[1]
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


@pytest.mark.parametrize("changed", ["verdict", "types"])
def test_what_was_compiled_serves_no_other_sources(changed: str, tmp_path: Path) -> None:
    for name in (*compiled.MODULES, *compiled.KNOWN, "compiled"):
        shutil.copy(compiled.SOURCES / f"{name}.py", tmp_path)
    assert compiled.digest(tmp_path) == compiled.digest()
    with (tmp_path / f"{changed}.py").open("a", encoding="utf-8") as source:
        source.write("\n")
    assert compiled.digest(tmp_path) != compiled.digest()


def test_all_that_the_compiled_modules_are_compiled_against_counts() -> None:
    """Their own imports of the domain, as far as they go."""
    known = {*compiled.MODULES, *compiled.KNOWN}
    for name in known:
        source = (compiled.SOURCES / f"{name}.py").read_text(encoding="utf-8")
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
compiling.main()
"""


def test_without_a_compiler_it_is_told_and_nothing_is_made(tmp_path: Path) -> None:
    told = run("-c", COMPILING, tmp_path / "compiled", CC="no-such-compiler").stderr
    assert "no C compiler (no-such-compiler)" in told and "plain Python" in told
    assert not (tmp_path / "compiled").exists()


def test_a_build_that_fails_is_told_and_not_tried_again_until_the_sources_change(tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho this compiler is broken >&2\nexit 1\n", encoding="utf-8")
    compiler.chmod(0o755)
    assert "cannot be compiled here" in run("-c", COMPILING, tmp_path / "compiled", CC=str(compiler)).stderr
    (why,) = (tmp_path / "compiled").glob("*.failed")
    assert "this compiler is broken" in why.read_text(encoding="utf-8")
    assert run("-c", COMPILING, tmp_path / "compiled", CC=str(compiler)).stderr == ""

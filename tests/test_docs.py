"""The documents say what is there: configuration, commands, links, doors."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from webapp.config import config_table
from webapp.errors import JSON_ROOTS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_configuration_table_is_the_settings() -> None:
    match = re.search(r"<!-- config-table:start -->\n(.*?)\n<!-- config-table:end -->", text_of("README.md"), re.DOTALL)
    assert match, "the README has lost its markers"
    assert match[1].strip() == config_table().strip(), "run config_table() and put its output between the markers"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/operations.md"])
def test_commands_exist_and_can_be_run(name: str) -> None:
    commands = set(re.findall(r"(?<![\w/.])((?:script/[a-z]+|\.ci/run)(?![\w/.]))", text_of(name)))
    commands -= {"script/embedded", "script/benchmark"}  # folders
    assert "script/flask" in commands
    for command in sorted(commands):
        assert os.access(ROOT / command, os.X_OK), f"{command} cannot be run"


def anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings: lower case, no punctuation, spaces as hyphens."""
    found = set()
    for heading in _HEADING.findall(_FENCE.sub("", path.read_text(encoding="utf-8"))):
        found.add(re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for link in _LINK.findall(_FENCE.sub("", text_of(name))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), f"{link} leaves the project"
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: {target.name} has no such heading"


def test_every_decision_is_listed_in_the_architecture() -> None:
    listed = set(_LINK.findall(text_of("docs/architecture.md")))
    decisions = [path.name for path in sorted(ROOT.glob("docs/adr/*.md"))]
    assert decisions
    assert [name for name in decisions if f"adr/{name}" not in listed] == []


def doors(app: Flask) -> Iterator[tuple[str, str]]:
    """(method, path) of every JSON door, paths as docs/api.md writes them."""
    for rule in app.url_map.iter_rules():
        if rule.rule.lstrip("/").partition("/")[0] not in JSON_ROOTS:
            continue
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, re.sub(r"<[^>]+>", "{id}", rule.rule)


def test_every_open_door_is_described(app: Flask) -> None:
    described = text_of("docs/api.md")
    missing = [f"{method} {path}" for method, path in doors(app) if f"`{method} {path}`" not in described]
    assert missing == []


def test_no_door_is_described_that_is_not_open(app: Flask) -> None:
    headings = re.findall(r"^### `([A-Z]+ \S+)`$", text_of("docs/api.md"), re.MULTILINE)
    assert headings
    assert set(headings) <= {f"{method} {path}" for method, path in doors(app)}

"""The compiled rules that are shipped beside their source."""

import json
from pathlib import Path

from webapp.leads import ruleset, ruleset_packed
from webapp.leads.ruleset_trie import Node


def nodes_of(*roots: Node) -> dict[int, Node]:
    found: dict[int, Node] = {}
    rest = list(roots)
    while rest:
        node = rest.pop()
        if id(node) not in found:
            found[id(node)] = node
            rest.extend(node.next.values())
    return found


def test_the_shipped_file_is_what_compiling_the_shipped_rules_gives() -> None:
    assert ruleset_packed.PATH.read_text(encoding="utf-8") == ruleset.pack(), "run script/flask pack-rules"


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    compiled = ruleset.load_ruleset(ruleset.default_data())
    roots = [compiled.english, compiled.marked, compiled.bare]
    path = tmp_path / "packed.json"
    path.write_text(ruleset_packed.dump(roots, "this"), encoding="utf-8")
    read = ruleset_packed.load("this", path)
    assert read == roots  # by value, to the last node
    assert len(nodes_of(*read)) == len(nodes_of(*roots)) < 20_000  # what goes on alike is one node there as well


def test_a_file_of_other_rules_or_none_is_not_used(tmp_path: Path) -> None:
    assert ruleset_packed.load("other") is None
    assert ruleset_packed.load("this", tmp_path / "missing.json") is None


def test_rules_that_were_changed_are_compiled(tmp_path: Path) -> None:
    data = ruleset.default_data()
    data["cues"].append({"intent": "spam", "lang": "en", "weight": 6, "phrases": ["zyzzyva bargain"]})
    source = tmp_path / "default.json"
    source.write_text(json.dumps(data), encoding="utf-8")
    changed = ruleset.shipped(source)
    assert "zyzzyva" in changed.english.next and "zyzzyva" not in ruleset.default_ruleset().english.next

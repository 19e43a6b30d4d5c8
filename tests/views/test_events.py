"""Every audit event that is written anywhere has words, and there are no words for what is never written."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from webapp.leads.states import DECIDED_STATUSES
from webapp.views.events import EVENTS, event

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"[A-Z]+(?:_[A-Z]+)+")


def constants(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def composed(node: ast.JoinedStr) -> Iterator[str]:
    """``f"LEAD_{status}"`` and ``f"DESTINATION_{'ON' if … else 'OFF'}"``."""
    prefix, value = node.values
    assert isinstance(prefix, ast.Constant)
    assert isinstance(value, ast.FormattedValue)
    if isinstance(value.value, ast.IfExp):
        ends = [*constants(value.value.body), *constants(value.value.orelse)]
    else:
        assert prefix.value == "LEAD_", ast.unparse(node)
        ends = [status.value.upper() for status in DECIDED_STATUSES]
    return (f"{prefix.value}{end}" for end in ends)


def from_tables(tree: ast.AST) -> Iterator[str]:
    for table in ast.walk(tree):
        if isinstance(table, ast.Dict):
            yield from (text for value in table.values for text in constants(value) if NAME.fullmatch(text))


def written_in(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("audit.record", "_record")):
            kind = node.args[2]
            if isinstance(kind, ast.JoinedStr):
                yield from composed(kind)
            elif isinstance(kind, ast.Constant):
                yield kind.value
            elif isinstance(kind, ast.IfExp):
                yield from constants(kind)
            elif isinstance(kind, ast.Name | ast.Subscript):
                # Chosen from a table, or handed through from calls that are collected themselves.
                yield from from_tables(tree)
            else:
                raise AssertionError(f"cannot tell which event this writes: {ast.unparse(node)}")
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "event_type" and isinstance(value, ast.Constant):
                    yield str(value.value)
    for text in constants(tree):
        if "INTO audit_events" in text:
            inserted = text[text.index("INTO audit_events") :]
            named = [name for name in re.findall(r"'(\w+)'", inserted) if NAME.fullmatch(name)]
            yield from named or from_tables(tree)  # or it is handed over as a parameter


def test_every_event_that_is_written_has_words_and_no_other() -> None:
    sources = [path for folder in ("webapp", "jobs") for path in (ROOT / folder).rglob("*.py")]
    written = {name for path in sources for name in written_in(path.read_text())}
    assert {"LEAD_SIGNAL_CREATED", "LEAD_TOUCHED", "LEAD_REJECTED", "STAGE_DEGRADED", "DELIVERY_DEAD", "DESTINATION_ON",
            "MEMBER_REMOVED"} <= written  # fmt: skip
    assert set(EVENTS) == written


def test_an_event_reads_as_a_sentence_with_or_without_its_details() -> None:
    for kind in EVENTS:
        said = event(kind, {})
        assert said and "_" not in said and "None" not in said
    assert event("DELIVERY_SENT", {"destination": "Twenty", "action": "person"}) == "Delivered (person) to Twenty"
    assert (
        event("DELIVERY_SENT", {"destination": "n8n follow-up", "action": "follow_up"}) == "Delivered to n8n follow-up"
    )
    assert event("LEAD_REJECTED", {"reject_reason": "other", "reason": "no"}) == "Rejected – “no”"
    assert event("LEAD_TOUCHED", {"consent": "no"}).endswith("; consent is now “no”")
    assert event("A_NEW_ONE", {}) == "A new one"

"""``script/flask classify``: messages in, verdicts out, without a database."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from webapp.cli_classify import classify
from webapp.leads.verdict import judge

ROOT = Path(__file__).parents[1]
MESSAGES = [
    {"id": "m1", "text": "chốt em váy hoa size M"},
    {"id": 2, "text": "How much is the Pro plan? We need it by Friday."},
    {"id": "m3", "text": ""},
    {"id": "m4", "text": "\ud800 how much is it?"},
]


def run(*arguments: str, given: str | bytes | None = None) -> Result:
    return CliRunner().invoke(classify, list(arguments), input=given)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_every_message_gets_a_verdict_in_its_place(tmp_path: Path) -> None:
    out = tmp_path / "verdicts.jsonl"
    result = run("--in", write(tmp_path / "messages.jsonl", MESSAGES), "--out", str(out))
    assert result.exit_code == 0, result.output
    verdicts = read(out)
    assert [one["id"] for one in verdicts] == ["m1", 2, "m3", "m4"]
    assert [one["intent"] for one in verdicts] == ["purchase_intent", "inquiry_price", "unknown", "inquiry_price"]
    assert (verdicts[1]["priority"], verdicts[1]["next_action"]) == ("P0", "call")
    assert set(verdicts[0]) == {"id", "intent", "priority", "next_action", "confidence", "status", "evidence"}
    for message, one in zip(MESSAGES, verdicts, strict=True):
        assert one["confidence"] == judge(str(message["text"])).confidence
        for span in one["evidence"]:
            assert str(message["text"])[span["start"] : span["end"]] == span["text"]
    assert verdicts[0]["evidence"][0]["text"].startswith("chốt")


def test_the_status_follows_the_thresholds(tmp_path: Path) -> None:
    source, out = write(tmp_path / "messages.jsonl", MESSAGES), tmp_path / "verdicts.jsonl"
    statuses = []
    for thresholds in (("0", "0"), ("1", "0"), ("1", "1")):
        run("--in", source, "--out", str(out), "--auto-from", thresholds[0], "--draft-from", thresholds[1])
        statuses.append(read(out)[1]["status"])
    assert statuses == ["new_auto", "new_draft", "new_escalate"]


def test_bad_lines_are_named_and_skipped(tmp_path: Path) -> None:
    good = json.dumps({"id": "a", "text": "giá bao nhiêu vậy shop"})
    lines = [
        "\ufeff" + good,
        "",
        "{",
        "[1]",
        '{"id": "b"}',
        '{"text": "x"}',
        '{"id": "c", "text": 7}',
        "[" * 100_000,
        good,
    ]
    out = tmp_path / "verdicts.jsonl"
    result = run("--in", "-", "--out", str(out), given="\n".join(lines).encode())
    assert result.exit_code == 1
    assert [one["id"] for one in read(out)] == ["a", "a"]
    for said in ("line 3: not JSON", "line 4: not a JSON object", "line 5: has no text", "line 6: has no id"):
        assert said in result.stderr
    assert "6 bad lines skipped" in result.stderr


@pytest.mark.parametrize(
    "arguments", [(), ("--in", "x"), ("--out", "x"), ("--in", "a", "--out", "b", "--evaluate", "c")]
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = run("--in", str(tmp_path / "none"), "--out", str(tmp_path / "out"))
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)


def test_the_input_is_not_overwritten(tmp_path: Path) -> None:
    source = write(tmp_path / "messages.jsonl", MESSAGES)
    assert run("--in", source, "--out", source).exit_code == 2
    assert read(tmp_path / "messages.jsonl")[0] == MESSAGES[0]


def test_labelled_messages_give_figures_by_language_and_half(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"{lang}{n}",
            "lang": lang,
            "text": text,
            "intent": "inquiry_price",
            "priority": "P1",
            "next_action": "email",
        }
        for n in range(10)
        for lang, text in (("en", "How much is it?"), ("vi", "giá bao nhiêu vậy shop"))
    ]
    rows[0]["intent"] = "spam"
    source = write(tmp_path / "labelled.jsonl", rows)
    said = run("--evaluate", source).stdout
    assert "| all | 20 | 95.0% |" in said
    assert "| vi | 10 | 100.0% |" in said
    assert "| `spam` | 1 | 0 | 0.0% | – |" in said
    halves = [run("--evaluate", source, "--half", half).stdout.splitlines()[2] for half in ("tune", "check")]
    assert sum(int(line.split("|")[2]) for line in halves) == 20


def test_the_script_needs_no_database_and_reads_from_where_one_stands(tmp_path: Path) -> None:
    write(tmp_path / "messages.jsonl", MESSAGES)
    env = {name: value for name, value in os.environ.items() if not name.endswith("_URL")}
    command = [str(ROOT / "script" / "flask"), "classify", "--in", "messages.jsonl", "--out", "verdicts.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / "verdicts.jsonl")) == len(MESSAGES)

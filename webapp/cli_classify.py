"""``flask classify``: verdicts on messages from a file, without a database, and how good they are."""

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import click

from webapp.leads import reliability, ruleset, ruleset_packed
from webapp.leads.reliability import CHECK, TUNE, Labelled
from webapp.leads.states import AUTO_FROM, DRAFT_FROM, Intent, NextAction, Priority, status_for
from webapp.leads.types import Verdict
from webapp.leads.verdict import judge

#: Longest line that is read, in bytes.
LONGEST_LINE = 4 << 20


class BadLine(ValueError):
    """A line that is no message; the text says why."""


@click.command("classify")
@click.option("--in", "source", help="Messages, one JSON object a line with id and text; - for standard input.")
@click.option("--out", help="Where the verdicts go, one JSON object a line, in the same order; - for standard output.")
@click.option("--evaluate", help="Labelled messages (also intent, priority, next_action): print how good verdicts are.")
@click.option("--half", type=click.Choice([TUNE, CHECK]), help="With --evaluate: only this half (by a hash of the id).")
@click.option("--auto-from", type=click.FloatRange(0, 1), default=AUTO_FROM, show_default=True)
@click.option("--draft-from", type=click.FloatRange(0, 1), default=DRAFT_FROM, show_default=True)
def classify(
    source: str | None, out: str | None, evaluate: str | None, half: str | None, auto_from: float, draft_from: float
) -> None:
    """The shipped verdict on each message of a file.

    A line that is no message is named on standard error and skipped; the command then ends with exit code 1.
    """
    if bool(evaluate) == bool(source) or bool(source) != bool(out):
        raise click.UsageError("give --in and --out, or --evaluate")
    if draft_from > auto_from:
        raise click.UsageError("--draft-from may not be above --auto-from")
    bad = _evaluate(evaluate, half) if evaluate else _judge(str(source), str(out), auto_from, draft_from)
    if bad:
        click.echo(f"{bad:,} bad lines skipped", err=True)
        raise SystemExit(1)


@click.command("pack-rules")
def pack_rules() -> None:
    """Write the shipped rules compiled, for quick starts; after each change of rulesets/default.json."""
    ruleset_packed.PATH.write_text(ruleset.pack(), encoding="utf-8")


def _judge(source: str, out: str, auto_from: float, draft_from: float) -> int:
    lines = Lines(source)
    if out != "-" and source != "-" and Path(out).resolve() == Path(source).resolve():
        raise click.UsageError("--out is the same file as --in")
    try:
        with nullcontext(sys.stdout) if out == "-" else open(out, "w", encoding="utf-8", newline="\n") as file:
            for row in lines:
                text = _text(row)
                said = judge(text)
                status = status_for(said.confidence, auto_from=auto_from, draft_from=draft_from)
                verdict = {
                    "id": row["id"], "intent": said.intent.value, "priority": said.priority.value,
                    "next_action": said.next_action.value, "confidence": said.confidence, "status": status.value,
                    "evidence": evidence(text, said),
                }  # fmt: skip
                # A lone surrogate ("\ud800" is legal JSON) has no UTF-8; escaped it comes out as it came in.
                line = json.dumps(verdict, ensure_ascii=False)
                file.write((line if line.isprintable() else json.dumps(verdict)) + "\n")
    except BrokenPipeError:
        raise SystemExit(1) from None
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error.strerror}") from None
    return lines.bad


def evidence(text: str, said: Verdict) -> list[dict[str, Any]]:
    """The verdict's spans; ``start`` and ``end`` are code points of ``text``."""
    return [
        {"start": s.start, "end": s.end, "text": text[s.start : s.end], "kind": s.kind, "label": s.label}
        for s in said.evidence
    ]


def _evaluate(source: str, half: str | None) -> int:
    lines = Lines(source, labelled=True)
    rows = [labelled(row) for row in lines]
    if half:
        rows = [row for row in rows if reliability.half(row.id) == half]
    if not rows:
        raise click.ClickException(f"{source} holds no labelled messages" + (f" of the {half} half" if half else ""))
    click.echo(reliability.report(reliability.judged(rows, judge)))
    return lines.bad


class Lines:
    """The good lines of a file as objects; ``bad`` counts the others, each named on standard error."""

    def __init__(self, source: str, *, labelled: bool = False) -> None:
        self.source, self.bad = source, 0
        self._labelled = labelled

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            with nullcontext(sys.stdin.buffer) if self.source == "-" else open(self.source, "rb") as file:
                for number, line in enumerate(_bounded(file), start=1):
                    if number == 1:
                        line = line.removeprefix(b"\xef\xbb\xbf")
                    if not line.strip():
                        continue
                    try:
                        row = _row(line)
                        if self._labelled:
                            labelled(row)
                    except BadLine as bad:
                        self.bad += 1
                        click.echo(f"line {number}: {bad}", err=True)
                    else:
                        yield row
        except OSError as error:
            raise click.ClickException(f"{self.source} cannot be read: {error.strerror}") from None


def _bounded(file: IO[bytes]) -> Iterator[bytes]:
    """Lines; of one that is too long only its beginning, which is then no whole object."""
    while line := file.readline(LONGEST_LINE):
        yield line
        while not line.endswith(b"\n") and (line := file.readline(LONGEST_LINE)):
            pass


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise BadLine("not JSON, or too long" if len(line) >= LONGEST_LINE else "not JSON") from None
    if not isinstance(row, dict):
        raise BadLine("not a JSON object")
    if not isinstance(row.get("id"), str | int) or isinstance(row["id"], bool):
        raise BadLine("has no id")
    if not isinstance(_text(row), str):
        raise BadLine("has no text")
    return row


def _text(row: dict[str, Any]) -> Any:
    return row["text"] if "text" in row else row.get("message")


def labelled(row: dict[str, Any]) -> Labelled:
    """BadLine when the labels are missing or none of the taxonomy's."""
    try:
        return Labelled(
            id=str(row["id"]),
            text=_text(row),
            intent=Intent(row["intent"]),
            priority=Priority(row["priority"]) if row.get("priority") else None,
            next_action=NextAction(row["next_action"]) if row.get("next_action") else None,
            lang=str(row.get("lang") or ""),
        )
    except (KeyError, ValueError) as error:
        raise BadLine(f"has no label of the taxonomy ({error})") from None


if __name__ == "__main__":
    classify(args=sys.argv[1:], prog_name="flask classify")

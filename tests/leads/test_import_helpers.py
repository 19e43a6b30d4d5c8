"""Chunks that processes prepare beside the worker: the same ones, in the same order, and nothing is left behind."""

import json
import multiprocessing
import os
import signal
import uuid
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.leads.importing import as_sent
from tests.waiting import until
from webapp.leads.imports import beside, inspect
from webapp.leads.imports.chunks import Chunk, Source
from webapp.leads.imports.columns import Mapper, guess
from webapp.leads.imports.reading import Broken
from webapp.leads.intake import Tenant

IMPORT = uuid.uuid4()
TENANT = Tenant(uuid.uuid4(), "Acme", 0.9, 0.5, "US")


def csv_file(folder: Path, rows: int) -> Path:
    """Larger than what is prepared without help; every tenth row is bad, and words stretch over two lines."""
    path = folder / "leads.csv"
    lines = ["Name,E-mail,Message"]
    for n in range(rows):
        address = f"person{n}@" if n % 10 == 3 else f"person{n}@example.com"
        lines.append(f'Person {n},{address},"Please quote\n{n} seats {"for the whole team " * 40}"')
    path.write_text("\n".join(lines))
    assert path.stat().st_size > 3 * beside.WORTH_HELP
    return path


def json_file(folder: Path, rows: int) -> Path:
    """Which breaks off in the middle of a row."""
    path = folder / "leads.json"
    whole = [{"name": f"Person {n}", "email": f"person{n}@example.com", "message": "Hello " * 90} for n in range(rows)]
    path.write_text(json.dumps(whole)[:-200])
    assert path.stat().st_size > beside.WORTH_HELP
    return path


def source(path: Path, **more: Any) -> Source:
    layout = inspect(path)
    mapper = Mapper(guess(layout.columns), seal=as_sent, import_id=IMPORT, columns=layout.columns)
    return Source(path, layout, layout.begins_at, 1, mapper, TENANT, **{"chunk_rows": 100} | more)


def told(chunk: Chunk) -> Any:
    """All of it but the ids and moments, which differ each time."""
    rows = []
    for number, row in chunk.good:
        text = json.loads(row.text)
        assert text["import_id"] == str(IMPORT) and text["id"] == str(uuid.UUID(row.id))
        ids = {"id", "event_id", "run_id", "sla_due_at"}
        rows.append(
            (
                number,
                row._replace(id="", person_new_id="", text=""),
                {name: value for name, value in text.items() if name not in ids},
            )
        )
    return chunk.first, chunk.end, chunk.size, chunk.problems, rows


def all_of(chunks: Any, found: list[Any]) -> None:
    for chunk in chunks:
        found.append(told(chunk))


@pytest.mark.parametrize("helpers", [1, 2, 3])
def test_they_prepare_the_same_chunks_in_the_same_order(tmp_path: Path, helpers: int) -> None:
    given = source(csv_file(tmp_path, 1_234))
    alone: list[Any] = []
    all_of(given.chunks(), alone)
    assert [one[2] for one in alone] == [100] * 12 + [34]
    assert sum(len(one[3]) for one in alone) == 124 and alone[5][0] == 501
    helped: list[Any] = []
    all_of(beside.chunks(given, helpers), helped)
    assert helped == alone
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("helpers", [1, 2])
def test_they_go_on_where_an_import_stands(tmp_path: Path, helpers: int) -> None:
    given = source(csv_file(tmp_path, 2_000))
    first = next(given.chunks())
    left: list[Any] = []
    all_of(beside.chunks(given.behind(first), helpers), left)
    assert (left[0][0], left[0][4][0][0], left[-1][1]) == (101, 101, given.path.stat().st_size)
    assert sum(one[2] for one in left) == 1_900


@pytest.mark.parametrize("helpers", [1, 2, 3])
def test_what_comes_before_broken_json_is_prepared(tmp_path: Path, helpers: int) -> None:
    given = source(json_file(tmp_path, 1_050))
    found: list[Any] = []
    with pytest.raises(Broken, match="The JSON is broken or ends in the middle"):
        all_of(beside.chunks(given, helpers), found)
    assert [one[2] for one in found] == [100] * 10 + [49]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("helpers", "sent", "patience", "ended"),
    [(1, signal.SIGKILL, beside.PATIENCE_SECONDS, -9), (2, signal.SIGKILL, beside.PATIENCE_SECONDS, -9),
     (1, signal.SIGSTOP, 0.2, None)],
    ids=["killed", "one of two killed", "stands still"],
)  # fmt: skip
def test_without_one_that_is_gone_the_worker_goes_on_by_itself(
    tmp_path: Path,
    helpers: int,
    sent: signal.Signals,
    patience: float,
    ended: int | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = source(csv_file(tmp_path, 3_000))
    alone: list[Any] = []
    all_of(given.chunks(), alone)
    chunks = beside.chunks(given, helpers)
    helped = [told(next(chunks))]
    children = multiprocessing.active_children()
    assert len(children) == helpers and children[-1].pid
    os.kill(children[-1].pid, sent)
    monkeypatch.setattr(beside, "PATIENCE_SECONDS", patience)
    all_of(chunks, helped)
    assert helped == alone
    assert f"a process that prepares rows is gone (exit code {ended})" in caplog.text
    assert not multiprocessing.active_children()


def test_where_none_can_be_started_the_worker_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = source(csv_file(tmp_path, 3_000))
    tried = []

    def fork() -> int:
        tried.append(True)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(beside, "_without_until", 0.0)
    for _ in range(2):  # and does not try at every turn
        found: list[Any] = []
        all_of(beside.chunks(given, 2), found)
        assert sum(one[2] for one in found) == 3_000
    assert len(tried) == 1
    assert "no process to prepare rows could be started" in caplog.text


def test_an_error_of_ours_in_one_is_logged_and_the_worker_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given = source(csv_file(tmp_path, 1_000))
    prepare = Source.chunks

    def breaks(self: Source, turn: int = 0, turns: int = 1) -> Any:
        if os.getpid() != here:
            raise ZeroDivisionError
        return prepare(self, turn, turns)

    here = os.getpid()
    monkeypatch.setattr(Source, "chunks", breaks)
    found: list[Any] = []
    all_of(beside.chunks(given, 1), found)
    assert sum(one[2] for one in found) == 1_000
    assert "Process ForkProcess" not in capfd.readouterr().err


def test_a_reader_that_has_enough_leaves_no_process_behind(tmp_path: Path) -> None:
    with closing(beside.chunks(source(csv_file(tmp_path, 3_000)), 2)) as chunks:
        next(chunks)
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()


def test_one_whose_worker_is_gone_ends(tmp_path: Path) -> None:
    """It holds no end of the pipe that it writes to but its own, nor of the others'."""
    given = source(csv_file(tmp_path, 3_000))
    started = [beside._Helper(given, turn, 2) for turn in range(2)]
    for helper in started:
        helper._reader.close()  # what the end of a process does
    until(lambda: not multiprocessing.active_children())


def test_a_file_that_cannot_be_opened_is_said_as_without_help(tmp_path: Path) -> None:
    given = source(csv_file(tmp_path, 1_000))
    gone = replace(given, path=tmp_path / "gone.csv")
    for helpers in (0, 1):
        with pytest.raises(FileNotFoundError):
            next(beside.chunks(gone, helpers))


def test_small_files_are_not_worth_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class TooMany(Exception):
        pass

    def too_many(*_: Any) -> None:
        raise TooMany

    monkeypatch.setattr(beside, "_Helper", too_many)
    path = tmp_path / "leads.csv"
    path.write_text("Name,Message\n" + "Ana,Hello\n" * 250)
    found: list[Any] = []
    all_of(beside.chunks(source(path), 2), found)
    assert [one[2] for one in found] == [100, 100, 50]

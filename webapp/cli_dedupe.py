"""``flask dedupe``: look-alikes in a table of people, without a database."""

import csv
import io
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from webapp.leads.errors import Invalid
from webapp.leads.imports import layout
from webapp.leads.lookalikes import columns, pairs, records
from webapp.leads.lookalikes.records import Record

_CELL_LIMIT = 10 << 20
#: ``rec-12-org`` and ``rec-12-dup-3`` are one person (FEBRL).
_FEBRL_ID = re.compile(r"(rec-\d+)-(?:org|dup-\d+)")


@dataclass(slots=True)
class Table:
    """What is compared. ``truth``: per row, whose it is, when that is known."""

    ids: list[str] = field(default_factory=list)
    people: list[Record] = field(default_factory=list)
    truth: list[str] | None = None


@click.group("dedupe", help="Look-alikes: records of one person in a table.")
def dedupe() -> None:
    pass


@dedupe.command("evaluate")
@click.option("--csv", "source", required=True, type=click.Path(path_type=Path), help="Table of people, with a header.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where to write id_a,id_b,score.")
@click.option("--truth", help="Column that is the same in all rows of one person: prints how well they were found.")
def evaluate(source: Path, out: Path, truth: str | None) -> None:
    """Write the pairs of rows held to be the same person.

    Columns are told by their names: id, first and last name or name, company, street number, address lines, city,
    postcode, state, country, date of birth, e-mail, phone, as far as they are there. Others are not looked at.
    """
    began = time.monotonic()
    table = read(source, truth=truth)
    found = pairs.same_people(table.people)
    _write(out, table.ids, found)
    click.echo(
        f"{len(table.ids):,} rows, {len(found):,} pairs held to be the same, in {time.monotonic() - began:.1f} s: {out}"
    )
    if table.truth is not None:
        click.echo(told(quality(table.truth, found)))


def read(path: Path, *, truth: str | None = None) -> Table:
    """The table in a file. ClickException, in one line, when it cannot be read or has no usable columns."""
    try:
        found = layout.inspect(path, filename=path.name, format=layout.CSV, has_header=True)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}") from None
    except Invalid as error:
        raise click.ClickException(f"{path}: {error.message}") from None
    positions = columns.guess(found.columns)
    if "id" not in positions:
        raise click.ClickException(f"{path} has no column 'id' (it has: {', '.join(found.columns[:20])})")
    if not columns.comparable(positions):
        raise click.ClickException(f"{path} has no column with names, e-mail addresses or phone numbers")
    return _table(path, found, positions, _position(found.columns, truth, path))


def _position(names: Sequence[str], wanted: str | None, path: Path) -> int | None:
    if wanted is None:
        return None
    for position, name in enumerate(names):
        if columns.plain(name) == columns.plain(wanted):
            return position
    raise click.ClickException(f"{path} has no column '{wanted}'")


def _table(path: Path, found: layout.Layout, positions: dict[str, int], truth: int | None) -> Table:
    table, seen, known = Table(), set(), []
    id_at = positions.pop("id")
    for number, row in _rows(path, found):
        one = row[id_at].strip() if id_at < len(row) else ""
        if not one:
            raise click.ClickException(f"{path}, row {number}: the id is empty")
        if one in seen:
            raise click.ClickException(f"{path}, row {number}: the id '{one[:60]}' is there twice")
        seen.add(one)
        table.ids.append(one)
        table.people.append(
            records.from_fields({name: row[at] if at < len(row) else None for name, at in positions.items()})
        )
        if truth is not None:
            known.append((row[truth].strip() if truth < len(row) else "") or f"\0{number}")
    if not table.ids:
        raise click.ClickException(f"{path} holds no rows")
    table.truth = known if truth is not None else _truth_of_ids(table.ids)
    return table


def _rows(path: Path, found: layout.Layout) -> Iterator[tuple[int, list[str]]]:
    """(row number from 1, cells) of rows that are not blank."""
    limit = csv.field_size_limit(_CELL_LIMIT)
    number = 0
    try:
        with path.open("rb") as file:
            file.seek(found.begins_at)
            text = io.TextIOWrapper(file, encoding=found.encoding, errors="replace", newline="")
            lines = (line.replace("\0", "") for line in text)
            reader = csv.reader(lines, delimiter=found.delimiter or ",", skipinitialspace=True)
            for number, row in enumerate(reader, start=1):
                if any(cell.strip() for cell in row):
                    yield number, row
    except csv.Error as error:
        raise click.ClickException(f"{path}, after row {number}: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _truth_of_ids(ids: Sequence[str]) -> list[str] | None:
    """Whose each row is, if the ids tell."""
    matches = [_FEBRL_ID.fullmatch(one) for one in ids]
    return [match[1] for match in matches if match] if all(matches) else None


def _write(out: Path, ids: Sequence[str], found: Sequence[pairs.Pair]) -> None:
    try:
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["id_a", "id_b", "score"])
            writer.writerows((ids[pair.a], ids[pair.b], f"{pair.score:.4f}") for pair in found)
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Quality:
    """Of pairs. ``true``: how many there are, ``found``: how many were held the same, ``right``: how many are both."""

    true: int
    found: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.true if self.true else 1.0

    @property
    def f1(self) -> float:
        return 2 * self.right / (self.true + self.found) if self.true + self.found else 1.0


def quality(truth: Sequence[str], found: Sequence[pairs.Pair]) -> Quality:
    """All pairs of one person's rows are true, two duplicates of one original included."""
    true = sum(rows * (rows - 1) // 2 for rows in Counter(truth).values())
    right = sum(truth[pair.a] == truth[pair.b] for pair in found)
    return Quality(true, len(found), right)


def told(measured: Quality) -> str:
    return (
        f"precision {measured.precision:.4f}, recall {measured.recall:.4f}, F1 {measured.f1:.4f} "
        f"({measured.true:,} true pairs)"
    )


if __name__ == "__main__":
    dedupe(args=sys.argv[1:], prog_name="flask dedupe")

"""How well duplicates are found in a set made for measuring it (tests/data/README.md): never below these figures."""

from pathlib import Path

import pytest

from tests.test_cli_dedupe import FEBRL3
from webapp import cli_dedupe
from webapp.leads.lookalikes import pairs
from webapp.leads.lookalikes.records import Record


@pytest.fixture(scope="module")
def febrl3() -> cli_dedupe.Table:
    return cli_dedupe.read(FEBRL3)


def measured(table: cli_dedupe.Table, *without: str, only: slice = slice(None)) -> cli_dedupe.Quality:
    assert table.truth is not None
    people = [
        Record(**{name: "" if name in without else getattr(person, name) for name in Record.__slots__})
        for person in table.people[only]
    ]
    return cli_dedupe.quality(table.truth[only], pairs.same_people(people))


def test_all_pairs_of_febrl3(febrl3: cli_dedupe.Table) -> None:
    found = measured(febrl3)
    assert found.true == 6_538
    assert found.precision >= 0.98 and found.f1 >= 0.95  # promised
    assert found.precision >= 0.995 and found.f1 >= 0.99  # reached


def test_a_smaller_part_of_it(febrl3: cli_dedupe.Table) -> None:
    found = measured(febrl3, only=slice(0, 2_000))
    assert found.precision >= 0.99 and found.f1 >= 0.97


@pytest.mark.parametrize(
    ("without", "least_recall"),
    [
        (("birth",), 0.80),
        (("street", "extra", "number"), 0.95),
        (("first",), 0.93),
        (("street", "extra", "number", "city", "postcode", "state"), 0.78),
        (("city", "state", "extra"), 0.93),
    ],
)
def test_columns_that_are_not_there_cost_recall_and_not_precision(
    febrl3: cli_dedupe.Table, without: tuple[str, ...], least_recall: float
) -> None:
    found = measured(febrl3, *without)
    assert found.precision >= 0.99 and found.recall >= least_recall


def test_the_social_security_number_is_not_looked_at(febrl3: cli_dedupe.Table, tmp_path: Path) -> None:
    text = FEBRL3.read_text()
    header, _, rows = text.partition("\n")
    stripped = "\n".join([header, *(line.rsplit(",", 1)[0] + "," for line in rows.splitlines())])
    path = tmp_path / "stripped.csv"
    path.write_text(stripped)
    assert cli_dedupe.read(path).people == febrl3.people

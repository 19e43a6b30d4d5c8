"""``script/flask dedupe evaluate``: any table of people in, pairs of ids out."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flask import Flask

from webapp.cli_dedupe import dedupe
from webapp.leads.lookalikes import columns

FEBRL3 = Path(__file__).parent / "data" / "febrl3.csv"

PEOPLE = [
    ("7", "Ruth", "Adeyemi", "ruth.adeyemi@mail.example", "+44 7700 900123", "Leeds"),
    ("8", "Simon", "Quilliam", "squilliam@mail.example", "07700 900456", "Bath"),
    ("9", "Rutth", "Adeyemi", "ruth.adeyemi@mail.example", "07700 900 123", "Leeds"),
    ("10", "Đặng", "Hà", "ha.dang@mail.example", "0912 243 292", "Huế"),
]


def evaluate(path: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(dedupe, ["evaluate", "--csv", str(path), "--out", str(out), *more])


def write(
    path: Path, header: str, rows: list[tuple[str, ...]] = PEOPLE, *, mark: str = ",", encoding: str = "utf-8"
) -> Path:
    path.write_bytes("\r\n".join([header, *(mark.join(row) for row in rows)]).encode(encoding))
    return path


def pairs_in(out: Path) -> list[tuple[str, str]]:
    with out.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        assert next(reader) == ["id_a", "id_b", "score"]
        rows = list(reader)
    assert all(0.75 <= float(score) <= 1 for _, _, score in rows)
    return [(a, b) for a, b, _ in rows]


def test_pairs_are_written_by_the_ids_as_given(tmp_path: Path) -> None:
    path = write(tmp_path / "people.csv", "id,first_name,last_name,email,phone,city")
    result = evaluate(path, tmp_path / "out.csv")
    assert result.exit_code == 0, result.output
    assert pairs_in(tmp_path / "out.csv") == [("7", "9")]
    assert "4 rows, 1 pairs" in result.output


@pytest.mark.parametrize(
    ("header", "mark", "encoding"),
    [
        ("rec_id, given_name, surname, E-Mail, Mobile, Suburb", ",", "utf-8"),
        ("ID;Given Name;Family Name;EMAIL ADDRESS;Telephone;Town", ";", "utf-8-sig"),
        ("id\tFirstName\tLastName\tmail\tphoneNumber\tcity", "\t", "utf-16"),
        ("Id|forename|LNAME|email|tel|locality", "|", "utf-8"),
    ],
)
def test_columns_go_by_many_names_and_files_by_many_forms(
    tmp_path: Path, header: str, mark: str, encoding: str
) -> None:
    path = write(tmp_path / "people.csv", header, mark=mark, encoding=encoding)
    result = evaluate(path, tmp_path / "out.csv")
    assert result.exit_code == 0, result.output
    assert pairs_in(tmp_path / "out.csv") == [("7", "9")]


def test_a_windows_code_page_is_read(tmp_path: Path) -> None:
    rows = [("1", "Jürgen Müßig", "Köln"), ("2", "Jürgen Müßig", "Köln"), ("3", "Zoë Brontë", "Düren")]
    path = write(tmp_path / "people.csv", "id,name,ort", rows, encoding="cp1252")
    result = evaluate(path, tmp_path / "out.csv")
    assert result.exit_code == 0 and pairs_in(tmp_path / "out.csv") == [("1", "2")]


def test_febrl3_as_it_is_distributed_with_its_quality_told(tmp_path: Path) -> None:
    result = evaluate(FEBRL3, tmp_path / "out.csv")
    assert result.exit_code == 0
    assert "precision" in result.output and "6,538 true pairs" in result.output
    found = pairs_in(tmp_path / "out.csv")
    right = sum(a.split("-")[1] == b.split("-")[1] for a, b in found)
    assert right / len(found) >= 0.98 and 2 * right / (len(found) + 6_538) >= 0.95


def test_a_column_that_knows_the_truth_measures_the_rest(tmp_path: Path) -> None:
    rows = [(*row, person) for row, person in zip(PEOPLE, ("a", "b", "a", ""), strict=True)]
    path = write(tmp_path / "people.csv", "id,first,last,email,phone,city,Who Is It", rows)
    result = evaluate(path, tmp_path / "out.csv", "--truth", "who_is_it")
    assert "precision 1.0000, recall 1.0000, F1 1.0000 (1 true pairs)" in result.output
    wrong = evaluate(path, tmp_path / "out.csv", "--truth", "nothing")
    assert wrong.exit_code == 1 and wrong.output.strip().endswith("has no column 'nothing'")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "The file is empty"),
        (b"   \r\n \r\n", "The file is empty"),
        (b"id,name\r\n", "holds no rows"),
        (b"name,email\r\nAna,a@b.example\r\n", "has no column 'id' (it has: name, email)"),
        (b"id,colour\r\n1,red\r\n", "has no column with names"),
        (b"id,name\r\n1,Ana\r\n1,Bea\r\n", "row 2: the id '1' is there twice"),
        (b"id,name\r\n1,Ana\r\n ,Bea\r\n", "row 2: the id is empty"),
        (b"PK\x03\x04rest", "is an Excel workbook"),
        (b"\x00\x01\x02\x03" * 400, "is not text"),
        (b'id,name\r\n1,"' + b"x" * (11 << 20) + b'"\r\n', "field larger than"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    result = evaluate(path, tmp_path / "out.csv")
    assert result.exit_code == 1 and said in result.output
    assert result.output.startswith("Error: ") and len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out.csv").exists()


def test_missing_files_and_folders(tmp_path: Path) -> None:
    result = evaluate(tmp_path / "none.csv", tmp_path / "out.csv")
    assert result.exit_code == 1 and "cannot be read: No such file" in result.output
    path = write(tmp_path / "people.csv", "id,first,last,email,phone,city")
    result = evaluate(path, tmp_path / "none" / "out.csv")
    assert result.exit_code == 1 and "cannot be written" in result.output


def test_short_and_long_rows_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("id,name,email\n1,Ruth Adeyemi\n2,Ruth Adeyemi,ruth@mail.example,more,and more\n3\n")
    result = evaluate(path, tmp_path / "out.csv")
    assert result.exit_code == 0 and result.output.startswith("3 rows")


def test_script_flask_needs_no_server_and_reads_from_where_the_caller_stands(tmp_path: Path) -> None:
    write(tmp_path / "people.csv", "id,first_name,last_name,email,phone,city")
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(root / "script"), "LEADOPS_DATA_DIR": str(tmp_path / "data")}
    command = [
        sys.executable,
        "-m",
        "embedded.flask_cli",
        "dedupe",
        "evaluate",
        "--csv",
        "people.csv",
        "--out",
        "out.csv",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert pairs_in(tmp_path / "out.csv") == [("7", "9")]
    assert not (tmp_path / "data").exists()


def test_it_is_a_command_of_the_app_as_well(app: Flask, tmp_path: Path) -> None:
    path = write(tmp_path / "people.csv", "id,first_name,last_name,email,phone,city")
    arguments = ["dedupe", "evaluate", "--csv", str(path), "--out", str(tmp_path / "out.csv")]
    result = app.test_cli_runner().invoke(args=arguments)
    assert result.exit_code == 0 and pairs_in(tmp_path / "out.csv") == [("7", "9")]


def test_every_spelling_is_written_as_it_is_compared_and_names_one_field() -> None:
    spellings = [name for names in columns.SPELLINGS.values() for name in names]
    assert all(columns.plain(name) == name for name in spellings)
    assert len(set(spellings)) == len(spellings)

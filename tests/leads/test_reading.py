"""Files as they come: encodings, separators, headers, quotes, broken rows; and going on behind any row."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webapp.leads import imports
from webapp.leads.errors import Invalid
from webapp.leads.imports import lines, reading
from webapp.leads.imports.layout import Layout
from webapp.leads.imports.reading import Broken, Row, rows


def read(folder: Path, data: bytes, filename: str = "x.csv", **wishes: Any) -> tuple[Layout, list[Row]]:
    path = folder / "file"
    path.write_bytes(data)
    layout = imports.inspect(path, filename=filename, **wishes)
    with path.open("rb") as file:
        found = list(rows(file, layout, layout.begins_at))
        for n, row in enumerate(found):  # the same rows when one begins behind any of them
            assert list(rows(file, layout, row.end)) == found[n + 1 :], n
    return layout, found


def values(found: list[Row]) -> list[Any]:
    return [
        list(row.values.values()) if row.values is not None else row.problem.field
        for row in found
        if row.values is not None or row.problem
    ]


TABLE = "Name;Ort;Nachricht\nJürgen Müller;Köln;Bitte ein Angebot für 5 Stück, schöne Grüße\nZoë;Gräfelfing;Größe 4 € oder „5“?\n"


@pytest.mark.parametrize(
    ("encoding", "mark", "found"),
    [
        ("utf-8", b"", "utf-8"),
        ("utf-8", b"\xef\xbb\xbf", "utf-8"),
        ("utf-16-le", b"\xff\xfe", "utf-16-le"),
        ("utf-16-be", b"\xfe\xff", "utf-16-be"),
        ("utf-16-le", b"", "utf-16-le"),
        ("utf-32-le", b"\xff\xfe\x00\x00", "utf-32-le"),
        ("cp1252", b"", "cp1252"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, mark: bytes, found: str, newline: str) -> None:
    layout, got = read(tmp_path, mark + TABLE.replace("\n", newline).encode(encoding))
    assert (layout.encoding, layout.delimiter, layout.columns) == (found, ";", ("Name", "Ort", "Nachricht"))
    assert values(got) == [line.split(";") for line in TABLE.splitlines()[1:]]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "Имя;Сообщение\n" + "Иван Петров;Пришлите, пожалуйста, цены на товары\nМария;Когда будет доставка в Москву?\n" * 5),
        ("cp1250", "Jméno;Zpráva\nJiří Novák;Prosím pošlete mi nabídku, děkuji\n"),
        ("cp1250", "Imię;Wiadomość\n" + "Łukasz Żółty;Proszę o wycenę pięćdziesięciu krzeseł, dziękuję\n" * 5),
        ("cp1258", "Tên;Tin nhắn\nNguyễn Văn Bảo;Cho tôi báo giá, sản phẩm này còn hàng không ạ?\n"),
        ("cp1252", "Nome;Messaggio\nNiccolò;Perché no? Così però è più caro, sì\n"),
        ("cp1254", "Ad;Mesaj\nAyşe Yıldız;Merhaba, fiyat teklifi alabilir miyim? Teşekkürler\n"),
        ("cp1252", "Nombre;Mensaje\n" + "José Muñoz;Quisiera información sobre envío a España, señora\n" * 30),
        ("cp1252", "Nom;Message\nHélène Lefèvre;Bonjour, je voudrais un devis s'il vous plaît, où ça\n"),
        ("shift_jis", "名前,メッセージ\n" + "山田太郎,見積もりをお願いします\n佐藤花子,価格を教えてください\n" * 5),
    ],
)  # fmt: skip
def test_other_code_pages_are_told_by_their_text(tmp_path: Path, encoding: str, text: str) -> None:
    if encoding == "cp1258":  # vowels with their tone mark behind
        text = "".join(_windows_vietnamese(character) for character in text)
    _, got = read(tmp_path, text.encode(encoding))
    mark = ";" if ";" in text else ","
    assert values(got) == [line.split(mark) for line in text.splitlines()[1:]]


def _windows_vietnamese(character: str) -> str:
    import unicodedata

    tones = "\u0300\u0301\u0303\u0309\u0323"
    parts = unicodedata.normalize("NFD", character)
    tone = "".join(mark for mark in parts if mark in tones)
    return unicodedata.normalize("NFC", "".join(mark for mark in parts if mark not in tones)) + tone


def test_the_first_accent_may_come_late(tmp_path: Path) -> None:
    plain = "".join(f"Person {n},p{n}@example.com,Hello\n" for n in range(20_000))
    for encoding in ("cp1252", "utf-8"):
        layout, got = read_once(tmp_path, f"name,email,message\n{plain}Zoë,z@example.com,Grüße\n".encode(encoding))
        assert layout.encoding == encoding and got[-1].values == {
            "name": "Zoë", "email": "z@example.com", "message": "Grüße",
        }  # fmt: skip


def read_once(folder: Path, data: bytes, **wishes: Any) -> tuple[Layout, list[Row]]:
    path = folder / "file"
    path.write_bytes(data)
    layout = imports.inspect(path, **({"filename": "x.csv"} | wishes))
    with path.open("rb") as file:
        return layout, list(rows(file, layout, layout.begins_at))


def test_bytes_that_are_none_of_the_encoding_are_their_row_s_problem(tmp_path: Path) -> None:
    good = "Zoë,z@example.com\n".encode() * 30
    layout, got = read(tmp_path, b"name,email\n" + good + b"Bad \xff\xfe,b@example.com\n" + good)
    assert layout.encoding == "utf-8" and len(got) == 61
    assert got[30].values is None and got[30].problem and got[30].problem.field == "name"
    assert sum(row.values is None for row in got) == 1


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_separators(tmp_path: Path, mark: str) -> None:
    data = f'name{mark}message\nAda{mark}"one{mark} two; three, four\nfive"\nBob{mark}x\n'.encode()
    layout, got = read(tmp_path, data)
    assert layout.delimiter == mark
    assert values(got) == [["Ada", f"one{mark} two; three, four\nfive"], ["Bob", "x"]]


def test_headers_without_names_and_twice(tmp_path: Path) -> None:
    layout, _ = read(tmp_path, b"email,,email, email ,\na@example.com,1,2,3,4\n")
    assert layout.columns == ("email", "column 2", "email (2)", "email (3)", "column 5")


def test_no_header(tmp_path: Path) -> None:
    layout, got = read(tmp_path, b"Ada,ada@example.com,Hello\nBob,bob@example.com,Hi\n")
    assert (layout.has_header, layout.columns) == (False, ("column 1", "column 2", "column 3")) and len(got) == 2
    layout, got = read(tmp_path, b"x1,y1\nx2,y2\n", has_header=False)
    assert len(got) == 2
    layout, got = read(tmp_path, b"x1,y1\nx2,y2\n", has_header=True)
    assert (layout.columns, len(got)) == (("x1", "y1"), 1)


def test_rows_that_do_not_fit(tmp_path: Path) -> None:
    _, got = read(tmp_path, b"a,b,c\n1,2,3\n1,2\n1,2,3,4\n1,2,3,,\n\n,,\n \n4,5,6")
    assert values(got) == [["1", "2", "3"], "row", "row", ["1", "2", "3"], ["4", "5", "6"]]
    assert got[1].problem and got[1].problem.reason == "has 2 cells where there are 3 columns"


def test_a_quote_that_is_never_closed_costs_its_line(tmp_path: Path) -> None:
    _, got = read(tmp_path, b'a,b\n1,2\n3,"4\n5,6\n7,8\n')
    assert values(got) == [["1", "2"], "row", ["5", "6"], ["7", "8"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
@pytest.mark.parametrize(
    "closing",
    [
        'a510@x.com,please call,"Acme, Inc"',  # fits, with text behind the closing quote
        'a510@x.com,please call,and more,"',  # does not fit
        "a510@x.com,please call,Acme",  # nothing closes it
        'a510@x.com,please call,"Acme\nand Sons"',
    ],
)
def test_a_stray_quote_costs_its_line_and_no_row_behind_it(tmp_path: Path, closing: str, encoding: str) -> None:
    table = [f"a{n}@x.com,message {n},Company {n}" for n in range(1, 1_001)]
    table[9], table[509] = 'a10@x.com,"urgent: call me', closing
    path = tmp_path / "file"
    path.write_bytes(("email,message,company\n" + "\n".join(table) + "\n").encode(encoding))
    layout = imports.inspect(path, filename="x.csv", encoding=encoding)
    with path.open("rb") as file:
        found = list(rows(file, layout, layout.begins_at))
        assert list(rows(file, layout, found[9].end)) == found[10:]
    assert len(found) == 1_000
    assert found[9].problem and found[9].problem.reason == "opens a quote that is never closed"
    bad = [n for n, row in enumerate(found, start=1) if row.values is None]
    assert bad == ([10, 510] if closing.endswith('more,"') else [10])
    if "Acme" in closing:
        assert found[509].values and str(found[509].values["company"]).startswith("Acme")


def test_many_stray_quotes_cost_a_row_each(tmp_path: Path) -> None:
    table = [f"a{n}@x.com,message {n},Company {n}" for n in range(1, 6_001)]
    for n in range(9, 6_000, 1_000):
        table[n] = f'a{n + 1}@x.com,"Smith, please call,Company'
    _, found = read_once(tmp_path, ("email,message,company\n" + "\n".join(table) + "\n").encode())
    assert len(found) == 6_000
    assert [n for n, row in enumerate(found) if row.values is None] == list(range(9, 6_000, 1_000))


def test_text_behind_a_closing_quote_is_read_on_one_line_alone(tmp_path: Path) -> None:
    data = 'a,b,c\n1,"Big" deal,2\n"x" , "y",3\n4,"Big" deal,"open\n5,"two\nlines",6\n7,8,"9'
    _, got = read(tmp_path, data.encode())
    assert values(got) == [
        ["1", "Big deal", "2"], ["x ", ' "y"', "3"], "row", ["5", "two\nlines", "6"], "row",
    ]  # fmt: skip


def test_bytes_that_are_none_of_the_encoding_hide_no_rows_behind_a_stray_quote(tmp_path: Path) -> None:
    data = "é@x.com,b\n".encode() * 9 + b'1,"\xff\n2,3\n4,5\n6,"7"\n'
    _, got = read(tmp_path, b"a,b\n" + data, encoding="utf-8")
    assert values(got)[9:] == ["row", ["2", "3"], ["4", "5"], ["6", "7"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;\r"])
def test_excel_says_its_separator_in_the_first_line(tmp_path: Path, line: str, encoding: str) -> None:
    mark = b"\xff\xfe" if encoding != "utf-8" else b""
    text = f"{line}\nemail;a,b,c\nx@example.com;1,2,3\n"
    layout, got = read(tmp_path, mark + text.encode(encoding))
    assert (layout.delimiter, layout.columns) == (";", ("email", "a,b,c"))
    assert values(got) == [["x@example.com", "1,2,3"]]
    again = imports.inspect(tmp_path / "file", delimiter=layout.delimiter, encoding=layout.encoding, has_header=True)
    assert again == layout
    with pytest.raises(Invalid, match="empty"):
        read(tmp_path, mark + line.encode(encoding))


@pytest.mark.parametrize("written", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-8"])
@pytest.mark.parametrize("mark", [True, False])
def test_names_of_encodings_that_leave_the_order_of_bytes_open(tmp_path: Path, written: str, mark: bool) -> None:
    said = {"utf-8": "utf-8-sig"}.get(written, written[:6])
    layout, got = read(tmp_path, ("\ufeff" * mark + TABLE).encode(written), encoding=said)
    assert (layout.encoding, layout.columns) == (written, ("Name", "Ort", "Nachricht")) and len(got) == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_a_huge_cell_is_refused_and_the_next_row_read(tmp_path: Path, encoding: str) -> None:
    huge = "x" * (reading.MAX_CELL + 1)
    broken_up = "\n".join(["y" * 1000] * (reading.MAX_CELL // 1000 + 1))
    text = f'a,b\n1,2\n3,{huge}\n4,"{huge}"\n5,"{broken_up}"\n6,7\n8,"{broken_up}\n9,10\n'
    mark = b"\xff\xfe" if encoding != "utf-8" else b""
    layout, got = read_once(tmp_path, mark + text.encode(encoding))
    # Over several lines it is told from a stray quote by nothing, so that it costs its lines, and no row behind them.
    assert [one for one in values(got) if one != "row"] == [["1", "2"], ["6", "7"], ["9", "10"]]
    assert [got[n].problem.reason[:30] for n in (1, 2, 3) if got[n].problem] == [  # type: ignore[union-attr]
        "has a cell of more than 10,000", "has a cell of more than 10,000", "opens a quote that is never cl",
    ]  # fmt: skip
    with (tmp_path / "file").open("rb") as file:
        assert next(iter(rows(file, layout, got[2].end))).problem == got[3].problem


def test_a_line_longer_than_memory_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 1_000)
    long = "x" * 5_000
    _, got = read(tmp_path, f'a,b\n1,2\n3,{long}\n4,"{long}\n\n{long}"\n5,6\n'.encode())
    assert values(got) == [["1", "2"], "row", "row", ["5", "6"]]
    _, got = read(tmp_path, f'{{"a": 1}}\n{{"a": "{long}"}}\n{{"a": 2}}\n'.encode(), "x.ndjson")
    assert values(got) == [[1], "row", [2]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf \r\n\r\n", "empty"),
        (b"PK\x03\x04" + bytes(100), "Excel workbook"),
        (b"\xd0\xcf\x11\xe0", "old Excel"),
        (b"%PDF-1.7", "PDF"),
        (bytes(range(1, 9)) * 100, "not text"),
        (b"," * 600 + b"x\n", "columns"),
    ],
)
def test_what_is_no_table_is_said(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(Invalid, match=said):
        imports.inspect(path, filename="x.csv")


def test_wishes_are_checked_and_believed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes("a,b;c\né,1;2\n".encode("cp437"))
    layout = imports.inspect(path, encoding="cp437", delimiter=";")
    assert (layout.columns, layout.encoding) == (("a,b", "c"), "cp437")
    with pytest.raises(Invalid) as refused:
        imports.inspect(path, encoding="rot13", delimiter="x", format="xlsx")
    assert [problem.field for problem in refused.value.details] == ["format", "encoding", "delimiter"]
    for odd in ("utf-7", "idna", "cp037", "unicode_escape", "hex", "no such"):
        with pytest.raises(Invalid):
            imports.inspect(path, encoding=odd)


def test_ndjson(tmp_path: Path) -> None:
    data = (
        '{"a": "ü\\n"}\r\n\n{"a": \n[1]\n"x"\n{"a": 1e999, "b": NaN, "c": -Infinity, "d": 1}\n'
        + '{"a":' * 5_000
        + "\n"
        + '{"z": 9}'
    )
    layout, got = read(tmp_path, data.encode(), "x.jsonl")
    assert (layout.format, layout.columns) == ("ndjson", ("a", "b", "c", "d", "z"))
    assert values(got) == [["ü\n"], "row", "row", "row", ["1e999", "NaN", "-Infinity", 1], "row", [9]]


def test_a_json_array(tmp_path: Path) -> None:
    objects = [{"a": n, "b": {"c": ["]", "}", '"', "ü🙂"]}} for n in range(300)]
    for indent in (None, 2):
        data = b"\xef\xbb\xbf" + json.dumps(objects, ensure_ascii=False, indent=indent).encode()
        layout, got = read(tmp_path, data, "x.json")
        assert (layout.format, layout.columns) == ("json", ("a", "b"))
        assert [row.values for row in got] == objects
    _, got = read(tmp_path, b' [ 1, {"a": 1} ,null,"x",[2],3.5 ] ', "x.json")
    assert values(got) == ["row", [1], "row", "row", "row", "row"]
    assert read(tmp_path, b"[]", "x.json")[1] == []


@pytest.mark.parametrize(
    "tail", [b"", b",", b', {"a"', b', {"a" 1}]', b" {}]", b', {"a": "\xff"}]', b", " + b"[" * 100_000]
)
def test_a_broken_array_ends_there(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b'[{"a": 1}, {"a": 2}' + tail)
    layout = imports.inspect(path, format="json")
    found = []
    with path.open("rb") as file, pytest.raises(Broken):  # noqa: PT012  rows come until then
        for row in rows(file, layout, layout.begins_at):
            found.append(row.values)
    assert found == [{"a": 1}, {"a": 2}]


_characters = st.characters(codec="utf-8", exclude_categories=["Cc"], include_characters="\n\t")
_cells = st.lists(st.text(_characters, max_size=8), min_size=3, max_size=3)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(table=st.lists(_cells, max_size=8), encoding=st.sampled_from(["utf-8", "utf-16-le", "utf-32-be"]))
def test_what_was_written_is_read(tmp_path: Path, table: list[list[str]], encoding: str) -> None:
    import csv
    import io

    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerow(["email", "name", "message"])
    writer.writerows(table)
    _, got = read(tmp_path, buffer.getvalue().encode(encoding), encoding=encoding, delimiter=",", has_header=True)
    assert values(got) == [row for row in table if any(cell.strip() for cell in row)]

"""Amounts of money as people write them."""

import random
from typing import Any

import pytest

from webapp.leads import amounts


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("25000", 25_000), ("0", 0), ("12,500", 12_500), ("12.500 USD", 12_500), ("$12,500", 12_500),
        ("1,234.50", 1_234.5), ("1.234,50 €", 1_234.5), ("1'234.5", 1_234.5), ("1’234", 1_234), ("1 234 567", 1_234_567),
        ("1\u202f234,50", 1_234.5), ("1.234.567", 1_234_567), ("1,234,567.89", 1_234_567.89), ("12,34,567", 1_234_567),
        ("12,5", 12.5), ("1.5", 1.5), ("1.2345", 1.2345), ("0.125", 0.125), ("0,125", 0.125), (".5 million", 5e5),
        ("1234.500", 1_234.5), ("1e5", 1e5), ("5e-05", 5e-5),
    ],
)  # fmt: skip
def test_digits_and_separators(text: str, amount: float) -> None:
    assert amounts.read(text) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("20k", 20_000), ("$20K", 20_000), ("20 thousand", 20_000), ("1.5m", 1.5e6), ("3 million", 3e6), ("2bn", 2e9),
        ("2 billion dollars", 2e9), ("1,5 triệu", 1.5e6), ("1.500 triệu", 1.5e9), ("20 nghìn", 20_000),
        ("20 ngàn đồng", 20_000), ("15tr", 15e6), ("2 tỷ", 2e9), ("2 TỈ", 2e9), ("1tr5", 1.5e6), ("5 trăm triệu", 5e8),
        ("2 tỷ 300 triệu", 2.3e9), ("1 million 500 thousand", 1.5e6), ("20k€", 20_000), ("20kusd/month", 20_000),
        ("2 hundred thousand", 2e5), ("50 trie\u0323\u0302u", 5e7), ("5 lakh", 5e5),
    ],
)  # fmt: skip
def test_magnitudes(text: str, amount: float) -> None:
    assert amounts.read(text) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("2026: 5k", 5_000), ("2 3k", 3_000), ("3 people, $500", 500), ("500 USD for 3 people", 500), ("US$ 900 or so, 2x", 900),
        ("VND 5.000.000", 5e6), ("500.000đ", 5e5), ("Rs. 700 in 2026", 700), ("Q3: 5000", 5_000), ("B2B 5000", 5_000),
        ("5000 by 2026-11-20", 5_000), ("5000 on 11/20/2026", 5_000), ("10% of 5000", 5_000), ("at 10:30, 5000", 5_000),
        ("5000/month", 5_000), ("5000+", 5_000), ("~5000.", 5_000), ("budget - 5000", 5_000), ("$500 (500 dollars)", 500),
        ("3 people 500", 500), ("How much for 20 licences?", None), ("20 seats", None), ("5000 or less", 5_000), ("1, 2", None), ("$500 now, $900 then", None), ("5\n000", None), ("call 0912 345 678", None),
    ],
)  # fmt: skip
def test_of_several_the_one_that_is_money_by_its_looks(text: str, amount: float | None) -> None:
    assert amounts.read(text) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("10k-20k", 10_000), ("10-20k", 10_000), ("5000-10k", 5_000), ("$10,000 – $20,000", 10_000), ("1 to 2 million", 1e6),
        ("10 đến 20 triệu", 1e7), ("between 10k and 20k", 10_000), ("10k and 20k", None), ("10.000 - 20.000 USD", 10_000),
        ("5k - 3 people", 5_000), ("1-2", 1),
    ],
)  # fmt: skip
def test_of_a_range_the_lower_end(text: str, amount: float | None) -> None:
    assert amounts.read(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "", "a lot", "-3", "- 3", "$-3", "-$3", "budget: -3k", "∞", "NaN", "inf", "1e400", "1e999", "0x10", "1_000", "٣",
        "½ million", "x²", "5th", "3x", "1.2.3", "31.12.2026", "1,2,3", "1 234,567.50", "10%", "10^6", "9" * 40, "9" * 400,
        "9" * 501, "5k" + " " * 500, "\x00", "\ud800",
    ],
)  # fmt: skip
def test_what_is_no_amount_is_none(text: str) -> None:
    assert amounts.read(text) is None


@pytest.mark.parametrize(
    ("value", "amount"),
    [(5, 5.0), (999.125, 999.125), (0, 0.0), (-3, None), (1e300, None), (10**400, None), (float("nan"), None), (True, None),
     (None, None), ([5], None), ({"a": 5}, None), ("5k", 5_000)],
)  # fmt: skip
def test_of_a_json_value(value: Any, amount: float | None) -> None:
    assert amounts.of(value) == amount


def test_no_text_makes_it_raise_or_run_wild() -> None:
    pieces = [
        "1",
        "0",
        "000",
        " ",
        ",",
        ".",
        "'",
        "-",
        "k",
        "tr",
        "tỷ",
        "$",
        "us$",
        "đ",
        "usd",
        "to",
        "between ",
        " and ",
        "%",
    ]
    pieces += ["/", ":", "e", "\n", "\u00a0", "²", "x", "(", "1e9"]
    chosen = random.Random(7)
    for _ in range(3_000):
        text = "".join(chosen.choices(pieces, k=chosen.randint(1, 40)))
        assert (amount := amounts.read(text)) is None or 0 <= amount <= amounts.MAX_AMOUNT, text
    for piece in pieces:
        amounts.read((piece * 500)[: amounts.MAX_TEXT])

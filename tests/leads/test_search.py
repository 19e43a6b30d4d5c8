"""What a lead is found by. That it is found: test_queries.py, and the doors' own tests."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.leads.search import search_tokens, tsquery
from webapp.leads.textnorm import fold_search


@given(st.text(max_size=40) | st.text("aZ09_-.@+' \t\n\x1cđế٣²", max_size=40))
def test_tokens_are_the_folded_letters_and_figures(text: str) -> None:
    """Whichever way they are cut out."""
    assert search_tokens(text) == list(dict.fromkeys(re.findall(r"[^\W_]+", fold_search(text))))


@pytest.mark.parametrize(
    ("phone", "found"),
    [
        ("+84 912-345-678", ["84912345678", "4912345678", "912345678", "12345678"]),
        ("(415) 98", ["41598"]),
        ("call ٠١ 5٣5", ["55"]),
        ("none \ud800", []),
        ("9" * 70, ["9" * 64, "9" * 63, "9" * 62, "9" * 61]),
        (None, []),
    ],
)
def test_a_phone_is_found_with_and_without_its_country_code(phone: str | None, found: list[str]) -> None:
    assert search_tokens(phone=phone) == found


def test_what_is_looked_for_is_cut_out_the_same_way() -> None:
    assert tsquery("Ana@Acme.example Đặt_hàng") == "'ana':* & 'acme':* & 'example':* & 'dat':* & 'hang':*"
    assert tsquery("👍 …") is None

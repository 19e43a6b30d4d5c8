"""Normalisation: the forms compare as they should and offsets lead back to the text as sent."""

import re
import unicodedata

import pytest

from webapp.leads.textnorm import _UNSEEN, compose, fold, fold_search, normalize_message, tone_key


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_fold_strips_case_and_diacritics_and_maps_back(form: str) -> None:
    text = unicodedata.normalize(form, "Đặt hàng GẤP")
    folded = fold(text)
    assert folded.text == "dat hang gap"
    at = folded.text.index("gap")
    start, end = folded.origin(at, at + 3)
    assert unicodedata.normalize("NFC", text[start:end]) == "GẤP"


@pytest.mark.parametrize("text", ["", "plain ASCII", "Straße İ", "ế", "́x", "👍🏽 ok"])
def test_offset_maps_cover_every_character(text: str) -> None:
    for mapped in (fold(text), compose(text)):
        for i in range(len(mapped.text)):
            start, end = mapped.origin(i, i + 1)
            assert 0 <= start < end <= len(text)


def test_compose_keeps_diacritics_and_joins_decomposed_letters() -> None:
    assert compose(unicodedata.normalize("NFD", "Giá")).text == "giá"


def test_search_ignores_case_and_diacritics() -> None:
    assert fold_search("ĐẶT HÀNG") == fold_search("dat hang") == fold_search(unicodedata.normalize("NFD", "đặt hàng"))


def test_same_message_in_another_spelling_of_white_space_case_and_unicode() -> None:
    same = {normalize_message(t) for t in ("Báo giá ", "  BÁO\n\tGIÁ", unicodedata.normalize("NFD", "báo giá"),
                                           "báo\u200b giá", "báo\u00a0giá\x00")}  # fmt: skip
    assert same == {"báo giá"}


def test_other_diacritics_or_words_are_another_message() -> None:
    assert normalize_message("bán xe") != normalize_message("bạn xe")
    assert normalize_message("2 cái") != normalize_message("3 cái")


def test_tone_key_knows_both_places_of_the_mark_but_not_other_tones() -> None:
    assert tone_key("hủy") == tone_key("huỷ")
    assert tone_key("giá") != tone_key("già")
    assert tone_key("bán") != tone_key("ban")


def test_search_leaves_out_the_marks_of_all_planes() -> None:
    assert fold_search("Đặt\U0001e944 \U000101fdhàng\u20d0") == "dat hang"


@pytest.mark.parametrize("beside", ["a{}b", "Đá {} z", "👍{}"])
def test_search_folds_every_character_the_same_among_whatever_else(beside: str) -> None:
    """The short ways for text that is ASCII without its marks, and for text of the first plane, leave out no more."""
    for code in (
        *range(0x3100),
        *range(0xA000, 0xABFF),
        *range(0xD7B0, 0xD900),
        *range(0xF900, 0x10000),
        *range(0x1D100, 0x1D300),
    ):
        text = beside.format(chr(code))
        apart = unicodedata.normalize("NFD", text.casefold())
        kept = "".join(char for char in apart if not unicodedata.combining(char))
        assert fold_search(text) == kept.replace("đ", "d"), hex(code)


def test_nothing_unseen_is_printable() -> None:
    """So text that can be printed needs no looking for it."""
    unseen = re.findall(_UNSEEN.pattern.removesuffix("+"), "".join(map(chr, range(0x10000))))
    assert len(unseen) > 50 and not any(char.isprintable() for char in unseen)

"""Tokens of a message: what is a word, where a sentence begins, and where each stands in the text."""

import sys

import pytest

from webapp.leads import words
from webapp.leads.ruleset import default_ruleset
from webapp.leads.verdict import judge
from webapp.leads.wordmodel import WordModel
from webapp.leads.words import Lexicon, read


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", "^ <end>"),
        ("how much", "^ how much <end>"),
        ("how much?", "^ how much ? <end>"),
        ("ok…", "^ ok . <end>"),
        ("no, thanks", "^ no , thanks <end>"),
        ("hi. a demo! now", "^ hi . ^ a demo ! ^ now <end>"),
        ("hi\n\na demo;\n", "^ hi ^ a demo <end>"),
        ("hi. , (a demo", "^ hi . , ( ^ a demo <end>"),
        ('"hi" - a  demo/call', "^ hi a demo call <end>"),
        ("don’t, 1.500 or 3pm", "^ don't , # or # <end>"),
        ("soooo giáaaa 👍", "^ so giá <emoji> <end>".replace("giá", "gia\u0301")),
        ("www.a.vn me@a.vn +84 912 345 678 now", "^ <url> <email> <phone> now <end>"),
        ("order 123456789 or 12345678", "^ order <phone> or # <end>"),
    ],
)
def test_keys(text: str, keys: str) -> None:
    assert " ".join(keys_of(text, Lexicon())) == keys


@pytest.mark.parametrize(
    "text",
    ['"hi" - a  demo/call\n(now), ', "- see www.a.vn. and me@a.vn, now", "  giá 12tr… ok?  ", "a;b\n.c", "-", ""],
)
def test_each_token_stands_where_it_is_said_to_stand(text: str) -> None:
    said = read(text, Lexicon())
    assert len(said.places) == len(said.tokens)
    for word, place in zip(said.tokens, said.places, strict=True):
        assert text[place : place + len(word.text)] == word.text
    assert sorted(said.places) == list(said.places)


def test_what_is_remembered_is_bounded_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_MOST", 5)
    lexicon = Lexicon()
    text = "can i have 12 of these at 3pm, or " + "x" * 50
    for _ in range(3):
        assert keys_of(text, lexicon) == keys_of(text, Lexicon())
        assert len(lexicon.known) <= 5
    assert max(map(len, lexicon.known)) <= 40


def test_addresses_and_numbers_of_telephones_are_not_remembered() -> None:
    lexicon = Lexicon()
    text = "hi jane@acme.example or acme.example, https://a.b/c +84-912-345-678 123456789012345678 12.345.678"
    for _ in range(2):
        assert keys_of(text, lexicon) == keys_of(text, Lexicon())
    assert set(lexicon.known) == {"hi", "or", "12.345.678"}


def test_a_piece_of_many_words_is_not_remembered() -> None:
    lexicon = Lexicon()
    marks = "!?.,;:()%$" * 4
    for text in (marks, f"how much {marks[::-1]}", "a,b,c"):
        assert keys_of(text, lexicon) == keys_of(text, Lexicon())
    assert set(lexicon.known) == {"how", "much"}


@pytest.mark.parametrize(
    "text",
    ["!?.,;:()%$" * 4, "how much?!?!?!?!?!?", "(price),(demo),(quote),please", "soooo " + "x" * 50 + ", hủy/huỷ"],
)
def test_a_verdict_is_the_same_of_what_is_remembered_of_what_is_not_and_of_what_never_is(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lexicon = _model().lexicon
    lexicon.known.clear()
    first = judge(text)
    assert judge(text) == first
    monkeypatch.setattr(words, "_FEW", 1_000)
    monkeypatch.setattr(words, "_LONGEST", 1_000)
    try:
        assert [judge(text), judge(text)] == [first, first]
        assert set(text.split(" ")) <= set(lexicon.known)
    finally:
        lexicon.known.clear()
    monkeypatch.setattr(words, "_LONGEST", -1)
    assert judge(text) == first
    assert not lexicon.known


def test_no_word_of_a_message_is_interned() -> None:
    sent, fresh = ("".join(["qzv", end]) for end in ("xkw", "xkw"))  # a literal would be interned itself
    assert keys_of(sent, _model().lexicon)[1] == sent
    assert sys.intern(fresh) is fresh  # and not the one that is remembered


def keys_of(text: str, lexicon: Lexicon) -> list[str]:
    return [word.key for word in read(text, lexicon).tokens]


def _model() -> WordModel:
    model = default_ruleset().model
    assert model is not None
    return model

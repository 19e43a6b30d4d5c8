"""Paths, what a mapping makes of an entry, and what it refuses."""

import uuid
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webapp.leads import mapping, paths
from webapp.leads.errors import Invalid
from webapp.leads.paths import BadPath, compiled
from webapp.leads.presets import PRESETS
from webapp.leads.states import Verification
from webapp.views.tree import MOST, Node, tree_of

BODY: dict[str, Any] = {
    "form": {"answers": [{"field": {"ref": "email"}, "email": "a@b.example"}, {"field": {"ref": "n"}, "text": "hi"},
                         {"field": {"ref": "m"}, "text": "ho"}]},
    "first": "Ada", "last": "Lovelace", "First name": "Grace", "it's \"x\"\n": "odd", "in": "word", "_id": "i1", "null": 0,
    "flag": True, "off": False, "none": None, "number": 5.0, "half": 0.5, "list": ["a", 2, True], "mixed": ["a", {"b": 1}],
    "empty": "  ", "a+b|c": "mark", "ă": "diacritic", "[?A": "looks like a filter",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("first", "Ada"), ("$.first", "Ada"), ("$['first']", "Ada"), ("['First name']", "Grace"), ("['[?A']", "looks like a filter"),
        ("form.answers[0].email", "a@b.example"), ("form.answers[-1].text", "ho"), ("form.answers[9].text", None),
        ("form.answers[?@.field.ref=='email'].email", "a@b.example"),
        ("form.answers[?field.ref=='email'].email", "a@b.example"),
        ("form.answers[?@.field.ref=='n' || @.field.ref=='m'].text", "hi"),
        ("form.answers[?@.field.ref!='n' && @.text].text", "ho"), ("form.answers[?!@.email].text", "hi"),
        ("form.answers[*].text", "hi"), ("first + last", "Ada Lovelace"), ("first + nothing + last", "Ada Lovelace"),
        ("nothing + neither", None), ("nothing | last", "Lovelace"), ("nothing | empty | first + last", "Ada Lovelace"),
        ('"VN"', "VN"), ('"a | b + c"', "a | b + c"), ('first + "of" + last', "Ada of Lovelace"),
        ('nothing + "alone"', None), (r'"say \"hi\""', 'say "hi"'),
        ("flag", "true"), ("off", "false"), ("none", None), ("number", "5"), ("half", "0.5"), ("null", "0"),
        ("list", "a, 2, true"), ("mixed", None), ("form", None), ("empty", None), ("in", "word"), ("_id", "i1"),
        ("['a+b|c']", "mark"), ("ă", "diacritic"), (paths.step("it's \"x\"\n"), "odd"),
    ],
)  # fmt: skip
def test_what_an_expression_finds(text: str, found: str | None) -> None:
    assert compiled(text).find(BODY).text == found


def test_every_value_a_line_each_and_groups_are_told_from_nothing() -> None:
    assert compiled("form.answers[*].text").find(BODY, every=True).text == "hi\nho"
    assert compiled("form").find(BODY).container and compiled("mixed").find(BODY).container
    assert not compiled("nothing").find(BODY).container


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty part"), ("first +", "empty part"), ("| first", "empty part"), ("$", "whole body"),
        ("form..text", "each level"), ("$..*", "each level"), ("form.answers[1:2]", "nothing else"),
        ("form.answers[0,1]", "one name"), ("form['a','b']", "one name"), ("form.~a", "nothing else"),
        ("a[?match(@.b, '(a+)+$')]", "not a path"), ("a[?search(@.b, 'x')]", "not a path"),
        ("a[?count(@.*)>1]", "not a path"), ("a[?length(@.b)>1]", "not a path"), ("a[?@.b =~ /(a+)+$/]", "compare"),
        ("a[?@..b]", "compare"), ("a[?@.b==$.c]", "compare"), ("a[?@[?@.b==1]]", "compare"), ("a[?@.* == 1]", ""),
        ("a[?@.b in ['x']]", "compare"), ("a[?#=='x']", "compare"), ("a & b", "not understood"),
        ("a[?" + "||".join(["@.b=='x'"] * 50) + "]", "500"), ("a[?" + "||".join(["@.b"] * 60) + "]", "comparisons"),
        (".a" * 30, ""), ("a" + ".a" * 30, "levels"), ("a.b.", "not a path"), ("First name", "['First name']"),
        ("first'", "quotation mark"), ("a[0", "not closed"), ("a]", "too many"), ('"x" y', "before or after"),
        ("a[" * 2_000, "1,000"), ("(" * 900, "not closed"), ("a[99999999999999999999]", "not a path"),
        ("a\x00b", "NUL"), ("__import__('os').system('id')", ""), ("a[(@.length-1)]", ""), ("a[?(@.b.__class__)]; x", ""),
    ],
)  # fmt: skip
def test_what_is_no_expression_says_why(text: str, why: str) -> None:
    with pytest.raises(BadPath) as caught:
        compiled(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="ab.[]?@$'\"*|+&!=<>()~^#_0,:- \\\n\x00đ", max_size=60))
def test_whatever_is_typed_is_compiled_or_refused(text: str) -> None:
    with suppress(BadPath):
        compiled(text).find(BODY, every=True)


names = st.text(min_size=1, max_size=12).filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


def leaves(nodes: list[Node]) -> list[Node]:
    return [leaf for node in nodes for leaf in ([node] if node.text is not None else leaves(node.children))]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.dictionaries(names, values, min_size=1, max_size=4))
def test_every_leaf_of_the_tree_leads_to_its_value(body: dict[str, Any]) -> None:
    for leaf in leaves(tree_of(body)):
        if "\x00" in leaf.path:
            continue
        found = list(compiled(leaf.path).alternatives[0][0].values(body))
        assert len(found) == 1 or "[?" in leaf.path, leaf.path
        value = found[0]
        assert leaf.text == ("nothing" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool)
                             else "empty" if value in ([], {}) and not isinstance(value, str) else str(value))  # fmt: skip


def test_a_list_of_answers_is_shown_by_what_names_them() -> None:
    google = {
        "user_column_data": [{"column_id": "EMAIL", "string_value": "x"}, {"column_id": "IT'S", "string_value": "y"}]
    }
    (node,) = tree_of(google)
    assert [child.key for child in node.children] == ["EMAIL", "IT'S"]
    last = node.children[1].children[1]
    assert last.path == r"user_column_data[?@.column_id=='IT\'S'].string_value"
    assert compiled(last.path).find(google).text == "y"
    (plain,) = tree_of({"a": [{"name": "x"}, {"name": "x"}]})
    assert [child.key for child in plain.children] == ["1", "2"]


def test_a_tree_ends_somewhere() -> None:
    shown = tree_of({"a": list(range(2 * MOST))})
    assert len(shown[0].children) <= MOST + 1 and shown[0].children[-1].left_out > 0
    deep: Any = 1
    for _ in range(300):
        deep = {"a": deep}
    assert "left_out=1" in repr(tree_of(deep))


# ---- mappings -------------------------------------------------------------------------------------------------------


def seal(value: Any) -> Any:
    return value


def read(stored: dict[str, str], entry: Any, **more: Any) -> mapping.Reading:
    return mapping.read(stored, entry, source="Form", source_id=uuid.UUID(int=7), seal=seal, **more)


def test_fields_find_their_way_into_the_lead() -> None:
    stored = {"message": "m", "first_name": "f", "last_name": "l", "email": "e", "budget": "b", "consent": "c",
              "consent_at": "at", "job_title": "j", "utm_source": "u", "dedupe": "id"}  # fmt: skip
    reading = read(stored, {"m": " Price? ", "f": "Ada", "l": "L", "e": " a@b.example ", "b": "1,000.50", "c": True,
                            "at": "2026-11-20T09:00:00+07:00", "j": "CTO", "u": "x", "id": 5})  # fmt: skip
    lead = reading.lead
    assert lead is not None and reading.notes == {}
    assert (lead.message, lead.name, lead.email, lead.budget, lead.consent) == (
        " Price? ", "Ada L", "a@b.example", 1000.5, "yes")  # fmt: skip
    assert lead.consent_at is not None and lead.consent_at.isoformat() == "2026-11-20T02:00:00+00:00"
    assert lead.attributes == {"first_name": "Ada", "last_name": "L", "job_title": "CTO"}
    assert lead.attribution == {"utm_source": "x"} and lead.source == "Form"
    assert reading.key is not None and reading.key.value == f"{uuid.UUID(int=7)}:5"


def test_what_does_not_fit_is_left_out_with_a_note() -> None:
    stored = {
        "message": "m",
        "email": "e",
        "budget": "b",
        "consent_at": "at",
        "referrer": "r",
        "name": "g",
        "phone": "no",
    }
    reading = read(stored, {"m": "hi", "e": "nope", "b": "much", "at": "today", "r": "x" * 2_001, "g": {"first": "A"}})
    assert reading.lead is not None
    assert set(reading.notes) == {"email", "budget", "consent_at", "referrer", "name", "phone"}
    assert "one level deeper" in reading.notes["name"] and reading.notes["phone"] == "finds nothing here"
    assert reading.lead.budget is None and reading.lead.attribution == {}


@pytest.mark.parametrize("text", ["-1", "NaN", "inf", "1e400", "1_000", "٣", "0x10", "", "20 licences"])
def test_a_budget_is_an_amount(text: str) -> None:
    reading = read({"message": "m", "budget": "b"}, {"m": "hi", "b": text})
    assert reading.lead is not None and reading.lead.budget is None
    assert "budget" in reading.notes


@pytest.mark.parametrize(
    ("text", "amount"), [("20k", 20_000), ("$12,500", 12_500), ("1,5 triệu", 1.5e6), ("0.125", 0.125), (12500, 12_500)]
)
def test_a_budget_as_people_write_it(text: Any, amount: float) -> None:
    reading = read({"message": "m", "budget": "b"}, {"m": "hi", "b": text})
    assert reading.lead is not None and reading.lead.budget == amount
    assert reading.notes == {}


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ([], "not a JSON object"), ("x", "not a JSON object"), ({}, "neither"), ({"m": "   "}, "neither"),
        ({"e": "nope"}, "e-mail"), ({"m": "x" * 20_001}, "20,000"), ({"p": "1" * 501}, "500"),
        ({"m": "hi", "t": True}, "test"), ({"m": "hi", "t": "yes"}, "test"), ({"m": "a\x00b"}, "NUL"),
        ({"m": "\ud800"}, "surrogate"), ({"m": "hi", "x": [0] * 1_001}, "1,000"),
        ({"m": "hi", "x": [[0] * 900] * 20}, "10,000"),
    ],
)  # fmt: skip
def test_what_is_no_lead_says_why(entry: Any, why: str) -> None:
    reading = read({"message": "m", "email": "e", "phone": "p", "test": "t"}, entry)
    assert reading.lead is None and why in reading.refused


def test_keys_are_short_storable_and_of_the_words_not_of_the_body() -> None:
    stored = {"message": "m", "dedupe": "id"}
    first = read(stored, {"m": "hi", "id": "a", "attempt": 1}).key
    again = read(stored, {"m": "hi", "id": "a", "attempt": 2}).key
    other = read(stored, {"m": "ho", "id": "a"}).key
    assert first == again and first is not None and other is not None
    assert first.value == other.value and first.request_hash != other.request_hash
    for odd in ("x" * 5_000, "a\x00b", "\ud800"):
        key = read(stored, {"m": "hi", "id": odd}).key
        assert key is not None and len(key.value) < 120 and key.value.isprintable()
    assert read(stored, {"m": "hi"}).key is None
    named = read(stored, {"m": "hi"}, request_id="msg_1").key
    assert named is not None and named.value.endswith(":msg_1")
    own = read(stored, {"m": "hi", "id": "mine"}, request_id="msg_1").key
    assert own is not None and own.value.endswith(":mine")


def test_a_mapping_is_checked_as_a_whole() -> None:
    assert mapping.checked({"email": " e ", "name": "", "message": "m"}) == {"message": "m", "email": "e"}
    assert mapping.checked({}) == {}
    with pytest.raises(Invalid) as caught:
        mapping.checked({"email": "a..b", "phone": "p[", "salary": "x"})
    assert {problem.field for problem in caught.value.details} == {"email", "phone", "salary"}
    with pytest.raises(Invalid) as caught:
        mapping.checked({"name": "n"})
    assert caught.value.details[0].field == "message"


def test_every_preset_is_a_good_mapping() -> None:
    for preset in PRESETS.values():
        assert mapping.checked(preset.mapping) == {
            name: preset.mapping[name] for name in mapping.FIELDS if name in preset.mapping
        }
        assert isinstance(preset.verification, Verification) and preset.title


@pytest.mark.parametrize(
    "body",
    [
        {"a": {"b": 1}},
        {"a": {"b": None}},
        {"a": {}},
        {"a": None},
        {"a": [{"b": 1}]},
        {"a": "b"},
        {},
        [],
        ["a"],
        "a",
        None,
    ],
)
@pytest.mark.parametrize("path", ["a.b", "a", "['a']['b']"])
def test_names_are_followed_as_the_library_follows_them(path: str, body: Any) -> None:
    term = compiled(path).alternatives[0][0]
    assert term.names is not None
    assert list(term.values(body)) == [match.obj for match in term.compiled.finditer(body)]

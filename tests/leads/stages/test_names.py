import pytest

from webapp.leads.stages.names import name_facts


def parts(name, **kwargs):
    found = {fact.name: fact.value for fact in name_facts(name, **kwargs)}
    return found.get("honorific", ""), found.get("first_name", ""), found.get("last_name", "")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Nguyễn Thị Lan", ("", "Lan", "Nguyễn")),
        ("Chị Nguyễn Thị Lan", ("Chị", "Lan", "Nguyễn")),
        ("Anh Trần Minh", ("Anh", "Minh", "Trần")),
        ("chị Lan", ("Chị", "Lan", "")),
        ("Jane Doe", ("", "Jane", "Doe")),
        ("Smith, John", ("", "John", "Smith")),
        ("Mr. Smith", ("Mr", "", "Smith")),
        ("Dr. Jane van der Berg Jr.", ("Dr", "Jane", "van der Berg")),
        ("Jean-Luc O'Neil", ("", "Jean-Luc", "O'Neil")),
        ("Lan", ("", "Lan", "")),
    ],
)
def test_names_are_read_in_their_own_order(name, found):
    assert parts(name) == found


def test_an_unmarked_family_name_counts_where_something_else_is_vietnamese():
    assert parts("Nguyen Van An", vietnamese=True) == ("", "An", "Nguyen")
    assert parts("Lan Nguyen", vietnamese=True) == ("", "Lan", "Nguyen")
    assert parts("Le Roy") == ("", "Le", "Roy")


@pytest.mark.parametrize(
    "name", [None, "", "  ", "ada@acme.de", "Acme GmbH", "Công ty ABC", "x" * 200, "a1b2", "<b>", "anh"]
)
def test_what_is_no_persons_name_is_not_taken_apart(name):
    assert name_facts(name) == ()

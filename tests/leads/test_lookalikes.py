"""Who is held to be one person, and who is not, in a set with a hundred others around them."""

import random

import pytest

from webapp.leads.lookalikes import pairs, records
from webapp.leads.lookalikes.blocking import candidate_pairs
from webapp.leads.lookalikes.records import Record
from webapp.leads.lookalikes.similarity import COMPARE
from webapp.leads.lookalikes.weights import WEIGHTS, Level

FIRST = [
    "ana",
    "bruno",
    "carla",
    "dmitri",
    "elena",
    "felix",
    "greta",
    "hugo",
    "irene",
    "jonas",
    "karin",
    "luis",
    "maria",
    "nils",
    "olga",
    "pavel",
    "rosa",
    "stefan",
]
LAST = [
    "alvarez",
    "brandt",
    "castillo",
    "dvorak",
    "eriksen",
    "ferrari",
    "grimaldi",
    "hansson",
    "ivanov",
    "jensen",
    "keller",
    "lindgren",
    "moreau",
]
TOWNS = [("Leeds", "LS1 4AP"), ("York", "YO1 7HH"), ("Hull", "HU1 2AA"), ("Bath", "BA1 1LN"), ("Truro", "TR1 2LL")]
HOME = {"street_number": "12", "address": "Wallaby Place", "city": "Cleveland", "postcode": "2119"}

Fields = dict[str, str]


def crowd(size: int = 120) -> list[Fields]:
    """People who have nothing to do with each other, the same at every run."""
    pick = random.Random(4)
    people = []
    for number in range(size):
        first, last = pick.choice(FIRST), pick.choice(LAST)
        town, postcode = pick.choice(TOWNS)
        people.append({
            "first": first, "last": last, "city": town, "postcode": postcode,
            "street_number": str(pick.randint(1, 90)), "address": f"{pick.choice(LAST)} {pick.choice(['Road', 'Lane'])}",
            "date_of_birth": f"{pick.randint(1940, 2004)}{pick.randint(1, 12):02}{pick.randint(1, 28):02}",
            "email": f"{first}.{last}{number}@mail.example", "phone": f"0{pick.randint(100000000, 999999999)}",
        })  # fmt: skip
    return people


def same(*people: Fields) -> set[tuple[int, int]]:
    """Positions of the pairs among ``people`` that are held to be one person; nobody of the crowd may be."""
    others = crowd()
    found = pairs.same_people([records.from_fields(person) for person in (*people, *others)])
    assert all(pair.b < len(people) for pair in found), "strangers are held to be one person"
    return {(pair.a, pair.b) for pair in found}


PERSON: Fields = {
    "first": "Thomas", "last": "Pettigrove", "date_of_birth": "19560409", "email": "tpettigrove@mail.example",
    "phone": "0412345678", **HOME,
}  # fmt: skip


def changed(**over: str) -> Fields:
    return PERSON | over


def without(*names: str, of: Fields = PERSON) -> Fields:
    return {name: value for name, value in of.items() if name not in names}


@pytest.mark.parametrize(
    "other",
    [
        changed(first="Tomas", last="Petigrove"),
        changed(first="Pettigrove", last="Thomas"),
        changed(date_of_birth="19560904"),  # day and month
        changed(date_of_birth="19560490"),  # two digits
        changed(date_of_birth="1956-04-09"),
        changed(phone="+61 412 345 687"),  # country code, two digits
        changed(address="Delmar", address_2="Wallaby Place"),
        changed(street_number="", address="12 Wallaby Pl."),
        changed(street_number="7", address="Kent Street", city="Perth", postcode="6000"),  # moved
        changed(email="tom.p@work.example", phone="0299999999"),
        without("date_of_birth", "phone"),
        without("street_number", "address", "city", "postcode", "date_of_birth"),
        changed(first="THOMAS", last="PETTI GROVE"),
        changed(first="T"),
    ],
)
def test_one_person_with_errors_is_found(other: Fields) -> None:
    assert same(PERSON, other) == {(0, 1)}


FAMILY: Fields = {"last": "Pettigrove", **HOME}


@pytest.mark.parametrize(
    ("one", "two"),
    [
        pytest.param(FAMILY | {"first": "Ruth"}, FAMILY | {"first": "Simon"}, id="couple"),
        pytest.param(
            FAMILY | {"first": "Ruth", "phone": "0731234567", "date_of_birth": "19700101"},
            FAMILY | {"first": "Simon", "phone": "0731234567", "date_of_birth": "19680517"},
            id="couple with one phone",
        ),
        pytest.param(
            FAMILY | {"first": "Ruth", "email": "pettigroves@mail.example", "phone": "0731234567"},
            FAMILY | {"first": "Simon", "email": "pettigroves@mail.example", "phone": "0731234567"},
            id="couple with one mailbox",
        ),
        pytest.param(
            FAMILY | {"first": "Ruth", "date_of_birth": "20010203"},
            FAMILY | {"first": "Simon", "date_of_birth": "20010203"},
            id="twins",
        ),
        pytest.param(
            FAMILY | {"first": "Simon", "date_of_birth": "20010203"},
            FAMILY | {"first": "Simon", "date_of_birth": "19680517"},
            id="father and son",
        ),
        pytest.param(
            {"first": "Ruth", "last": "Adeyemi", "company": "Hollowrise Ltd", "phone": "0207000000",
             "email": "ruth.adeyemi@hollowrise.example", "address": "Kent Street", "city": "London", "postcode": "N1"},
            {"first": "Simon", "last": "Quilliam", "company": "Hollowrise", "phone": "0207000000",
             "email": "simon.quilliam@hollowrise.example", "address": "Kent Street", "city": "London", "postcode": "N1"},
            id="colleagues",
        ),
        pytest.param(
            {"name": "Maria Keller", "email": "maria.keller@mail.example", "phone": "0311111111", "city": "Leeds"},
            {"name": "Maria Keller", "email": "mkeller@post.example", "phone": "0322222222", "city": "Bath"},
            id="namesakes",
        ),
        pytest.param(
            {"name": "Nguyễn Văn An", "email": "an.1@mail.example", "phone": "0911450214", "city": "Huế"},
            {"name": "Nguyễn Thị Hà", "email": "ha.nguyen@mail.example", "phone": "0912243292", "city": "Huế"},
            id="one family name",
        ),
        pytest.param({"name": "Xaviera Quimby"}, {"name": "Simon Quimby"}, id="names alone"),
        pytest.param(
            {"name": "John Smith", "city": "Hull", "address": "3 Keller Road"},
            {"name": "John Smith", "city": "York", "address": "8 Brandt Lane"},
            id="a name at two places",
        ),
    ],
)  # fmt: skip
def test_people_who_are_alike_for_another_reason_stay_apart(one: Fields, two: Fields) -> None:
    assert same(one, two) == set()


def test_namesakes_are_one_when_phone_mail_or_birthday_says_so() -> None:
    one = {"name": "Maria Keller", "email": "maria.keller@mail.example", "phone": "0311111111", "city": "Leeds"}
    for alike in (
        {"name": "Maria Keller", "email": "mkeller@post.example", "phone": "0311111111"},
        {"name": "Maria Keller", "email": "maria.keller@mail.example"},
        {"name": "Keller Maria", "email": "maria.kellre@mail.example", "city": "Leeds"},
    ):
        assert same(one, alike) == {(0, 1)}
    dated = one | {"date_of_birth": "19800304"}
    assert same(dated, {"name": "Maria Keller", "date_of_birth": "19800304", "city": "Leeds"}) == {(0, 1)}


def test_vietnamese_names_are_one_with_and_without_diacritics_and_in_either_order() -> None:
    one = {"name": "Đặng Thị Hồng Hà", "phone": "0912 243 292"}
    assert same(one, {"name": "dang ha", "phone": "+84 912243292"}) == {(0, 1)}
    assert records.split_name("Nguyễn Văn An") == ("an", "van", "nguyen")
    assert records.split_name("An Nguyen") == ("an", "", "nguyen")
    assert records.split_name("Mai Smith") == ("mai", "", "smith")
    assert records.split_name("Smith, John Paul") == ("john", "paul", "smith")


def test_one_person_may_have_several_duplicates_and_two_bad_copies_meet_through_a_good_one() -> None:
    copies = (
        PERSON,
        changed(first="Tomas", email="", phone=""),
        changed(last="Petigrove", date_of_birth="", street_number="7"),
        changed(email="other@mail.example", city="Clevland"),
    )
    assert same(*copies) == {(a, b) for a in range(4) for b in range(a + 1, 4)}


def test_missing_fields_count_neither_for_nor_against() -> None:
    scorer = pairs.Scorer(pairs.Statistics([records.from_fields(person) for person in crowd()]))
    name_and_mail = {"name": "Thomas Pettigrove", "email": "tp@mail.example"}
    full = scorer.compare(
        records.from_fields(name_and_mail), records.from_fields(name_and_mail | {"phone": "0411111111"})
    )
    bare = scorer.compare(records.from_fields(name_and_mail), records.from_fields(name_and_mail))
    assert full.bits == bare.bits and "phone" not in full.found


def test_a_rare_name_says_more_than_a_common_one() -> None:
    people = [records.from_fields(p) for p in (*crowd(), *({"last": "Smith", "first": f"x{n}"} for n in range(60)))]
    scorer = pairs.Scorer(pairs.Statistics(people))

    def agreement(name: str) -> float:
        record = Record(last=name)
        return scorer.compare(record, record).found["last"][1]

    assert agreement("pantazopoulos") > agreement("smith") + 3


@pytest.mark.parametrize(
    ("field", "a", "b", "level"),
    [
        ("birth", "19560409", "19560904", Level.CLOSE),
        ("birth", "19560409", "19560408", Level.CLOSE),
        ("birth", "19560409", "19570409", Level.CLOSE),
        ("birth", "19560409", "19830409", Level.SIMILAR),
        ("birth", "19560409", "19701231", Level.DIFFERENT),
        ("email", "an.1@mail.example", "an.2@mail.example", Level.SIMILAR),
        ("email", "anna.berg@mail.example", "anna.breg@mail.example", Level.CLOSE),
        ("email", "anna.berg@mail.example", "anna.berg@post.example", Level.SIMILAR),
        ("email", "anna.berg@mail.example", "otto.kahn@mail.example", Level.DIFFERENT),
        ("phone", "412345678", "412345687", Level.CLOSE),
        ("phone", "412345678", "498765432", Level.DIFFERENT),
        ("postcode", "2119", "2191", Level.CLOSE),
        ("first", "t", "thomas", Level.SIMILAR),
        ("last", "mccarthy", "mccarty", Level.CLOSE),
        ("state", "nsw", "nws", Level.DIFFERENT),
    ],
)
def test_levels_of_agreement(field: str, a: str, b: str, level: Level) -> None:
    assert COMPARE[field](a, b) is level
    assert COMPARE[field](b, a) is level


def test_the_table_of_weights_holds_shares() -> None:
    for field, shares in WEIGHTS.items():
        assert sum(shares.m) == pytest.approx(1.0, abs=1e-3), field
        assert sum(shares.u) == pytest.approx(1.0, abs=1e-3), field


@pytest.mark.parametrize(
    ("text", "digits"),
    [("1980-03-04", "19800304"), ("04/03/1980", "19800304"), ("12/31/1980", "19801231"), ("19800304", "19800304"),
     ("04031980", "19800304"), ("1980-03-04T00:00:00Z", "19800304"), ("March 1980", ""), ("", "")],
)  # fmt: skip
def test_dates_of_birth_in_many_forms(text: str, digits: str) -> None:
    assert records.birth_date(text) == digits


def test_blocking_stays_cheap_when_everybody_has_the_same_name_and_town() -> None:
    people = [Record(first="minh", last="nguyen", city="hanoi", phone=f"91{n:07}") for n in range(8_000)]
    compared = sum(1 for _ in candidate_pairs(people))
    assert compared < 40 * len(people)

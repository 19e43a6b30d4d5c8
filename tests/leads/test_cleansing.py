"""What cleansing finds, and what it leaves alone."""

import pytest

from webapp.leads.cleansing import clean_name, region_by_name, region_of, suggest_email
from webapp.leads.dedupe import folded_email


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("ANA PEREZ", "Ana Perez"),
        ("  ana   perez ", "Ana Perez"),
        ("o'neil mcdonald", "O'Neil McDonald"),
        ("JUAN DE LA CRUZ", "Juan de la Cruz"),
        ("ludwig van beethoven", "Ludwig van Beethoven"),
        ("NGUYỄN VĂN AN", "Nguyễn Văn An"),
        ("đỗ hải yến", "Đỗ Hải Yến"),
        ("anne-marie smith", "Anne-Marie Smith"),
        ("Ana  Perez", "Ana Perez"),
        ("Nguye\u0302\u0303n", "Nguy\u1ec5n"),  # NFD as sent: composed
    ],
)
def test_a_name_is_put_in_order(sent: str, shown: str) -> None:
    assert clean_name(sent) == shown


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "",
        "Ana Perez",
        "TJ",
        "x",
        "van der Berg, Ana",
        "McKenna LaRue",
        "Nguyễn Văn An",
        "ana@acme.example",
        "张伟",
        "A" * 200,
    ],
)
def test_a_name_that_is_in_order_or_no_name_is_left_alone(sent: str | None) -> None:
    assert clean_name(sent) is None


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("ana@gmial.com", "ana@gmail.com"),
        ("ana@gmai.com", "ana@gmail.com"),
        ("Ana@Gmail.con", "ana@gmail.com"),
        ("ana@yaho.com", "ana@yahoo.com"),
        ("ana@hotmial.com", "ana@hotmail.com"),
        ("ana@outlok.com", "ana@outlook.com"),
        ("ana@acme.con", "ana@acme.com"),
        ("ana@yahoo.com.v", "ana@yahoo.com.vn"),
    ],
)
def test_a_slip_in_an_address_is_suggested(sent: str, meant: str) -> None:
    assert suggest_email(sent) == meant


@pytest.mark.parametrize(
    "sent",
    [None, "", "ana@gmail.com", "ana@ymail.com", "ana@mail.com", "ana@gmx.com", "ana@acme.com", "ana@acme.co", "ana",
     "@gmial.com", "ana@gmail.de", "ana@hotmail.it"],
)  # fmt: skip
def test_an_address_that_may_well_be_meant_is_left_alone(sent: str | None) -> None:
    assert suggest_email(sent) is None


@pytest.mark.parametrize(
    ("phone", "attributes", "email", "lang", "region", "why"),
    [
        ("0912 345 678", {"country": "Vietnam"}, None, "en", "VN", "country"),
        ("0912 345 678", {"country_code": "vn"}, None, "en", "VN", "country"),
        ("020 7946 0958", {}, "ana@acme.co.uk", "en", "GB", "email"),
        ("0912.243.292", {}, None, "vi", "VN", "language"),
        ("(202) 555-0143", {}, None, "vi", "US", "default"),  # no number of Vietnam
        ("(202) 555-0143", {}, "ana@acme.io", "en", "US", "default"),  # .io is no country here
        ("+84 912 345 678", {"country": "US"}, None, "en", "US", "default"),  # says its country itself
        ("0912 345 678", {"country": "Atlantis"}, None, "en", "US", "default"),
        (None, {"country": "VN"}, None, "vi", "US", "default"),
    ],
)
def test_a_number_without_country_code_is_read_by_what_the_lead_says(
    phone: str | None, attributes: dict[str, str], email: str | None, lang: str, region: str, why: str
) -> None:
    assert region_of(phone, attributes, email, lang, default="US") == (region, why)


def test_countries_by_any_usual_name() -> None:
    assert [region_by_name(name) for name in ("VN", "vnm", "Viet Nam", "Germany", "xx", "", "Wherever")] == [
        "VN", "VN", "VN", "DE", None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "folded"),
    [
        ("a.na+shop@gmail.com", "ana@gmail.com"),
        ("ana@googlemail.com", "ana@gmail.com"),
        ("ana+x@outlook.com", "ana@outlook.com"),
        ("a.na@outlook.com", "a.na@outlook.com"),  # dots count there
        ("ana+x@acme.com", "ana+x@acme.com"),  # who knows what acme does
        ("+ana@gmail.com", "+ana@gmail.com"),
        ("+ana+x@outlook.com", "+ana@outlook.com"),
    ],
)
def test_an_address_is_folded_as_its_provider_reads_it(address: str, folded: str) -> None:
    assert folded_email(address) == folded

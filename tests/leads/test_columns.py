"""Columns become fields, rows become leads or problems."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.leads.importing import as_sent
from webapp.api.v1 import LeadV1
from webapp.leads.errors import Invalid, Problem
from webapp.leads.imports.columns import FIELDS, Mapper, check_mapping, guess, guess_field
from webapp.leads.imports.reading import Row
from webapp.leads.intake import LeadIn


@pytest.mark.parametrize(
    ("names", "field"),
    [
        ("email Email EMAIL e-mail mail email_address E-Mail-Adresse|Địa chỉ email|Correo electrónico|Courriel", "email"),
        ("phone Phone PHONE mobile tel phone_number SĐT Telefon Handynummer Téléfono Zalo|Số điện thoại|Điện thoại", "phone"),
        ("name full_name Fullname|Họ tên|Họ và tên|Tên khách hàng|Vollständiger Name|Contact name", "name"),
        ("first_name Vorname Prénom Nombre|First Name", "first_name"),
        ("last_name Nachname Surname Apellidos|Họ", "last_name"),
        ("message note text comments body Nachricht Mensaje|Nội dung|Tin nhắn|Ghi chú", "message"),
        ("company company_name organization Firma Empresa|Công ty|Tên công ty", "company"),
        ("budget|Ngân sách|Deal value", "budget"),
        ("source Source SOURCE origin channel Quelle|Nguồn|Lead source", "source"),
        ("lead_id LeadID external_id Kundennummer", "lead_id"),
        ("country Land País|Quốc gia", "country"),
        ("utm_source utm-source utmSource|UTM Source", "utm_source"),
        ("date_of_birth DOB Geburtsdatum|Ngày sinh", "date_of_birth"),
    ],
)  # fmt: skip
def test_names_in_many_spellings(names: str, field: str) -> None:
    spellings = [one for part in names.split("|") for one in (part.split() if part == names.split("|")[0] else [part])]
    assert {one: guess_field(one) for one in spellings if one != "Vollständiger Name"} == {
        one: field for one in spellings if one != "Vollständiger Name"
    }


def test_every_field_of_the_api_is_a_field_here_and_guesses_itself() -> None:
    known = {known.name for known in FIELDS}
    assert set(LeadV1.model_fields) <= known
    assert {name: guess_field(name) for name in known} == {name: name for name in known}


def test_each_field_once() -> None:
    assert guess(["E-mail", "Mail", "Colour", "Name"]) == {"E-mail": "email", "Name": "name"}


def test_a_mapping_is_checked() -> None:
    columns = ["a", "b", "c"]
    assert check_mapping(columns, {"a": "email", "b": "", "c": None}) == {"a": "email"}
    for mapping, fields in (
        ({"a": "email", "b": "email"}, ["b"]),
        ({"x": "email", "a": "phone"}, ["x"]),
        ({"a": "colour", "b": "email"}, ["a"]),
        ({"a": "name"}, ["mapping"]),
        ({}, ["mapping"]),
    ):
        with pytest.raises(Invalid) as refused:
            check_mapping(columns, mapping)
        assert [problem.field for problem in refused.value.details] == fields


def made(values: dict[str, Any], **more: Any) -> LeadIn | tuple[Problem, ...]:
    return Mapper(guess(list(values)), seal=as_sent, **more).lead(Row(values, 0))


def lead(**values: Any) -> LeadIn:
    found = made({"email": "a@example.com"} | values)
    assert isinstance(found, LeadIn), found
    return found


def fields(values: dict[str, Any]) -> list[str]:
    found = made(values)
    assert isinstance(found, tuple)
    return [problem.field for problem in found]


def test_a_row_becomes_a_lead() -> None:
    found = lead(
        first_name=" Ada ", last_name="Ex", phone="123", message=" hi \n", colour="red", city="Huế", utm_source="g",
        consent="Ja", consent_at="2026-03-31T10:00:00+02:00", lead_id="7", landing_page="https://x.example",
    )  # fmt: skip
    assert (found.name, found.message, found.external_id, found.consent) == ("Ada Ex", " hi \n", "7", "yes")
    assert found.consent_at == datetime(2026, 3, 31, 8, tzinfo=UTC)
    assert found.attributes == {"first_name": "Ada", "last_name": "Ex", "city": "Huế"}
    assert found.attribution == {"utm_source": "g", "landing_page": "https://x.example"}
    assert found.payload["colour"] == "red" and found.payload["first_name"] == " Ada "


def test_a_row_needs_a_message_an_email_or_a_phone() -> None:
    assert fields({"name": "Ada", "message": " ", "email": "", "phone": " "}) == ["row"]
    for one in ({"message": "hi"}, {"email": "a@example.com"}, {"phone": "12"}):
        assert isinstance(made(one), LeadIn)


def test_all_problems_of_a_row_at_once() -> None:
    assert fields(
        {"email": "x@", "budget": "much", "name": "n" * 501, "consent_at": "soon", "lead_id": "i" * 129, "x": "a\x00"}
    ) == ["name", "lead_id", "email", "budget", "consent_at", "x"]
    assert fields({"email": ["a"], "message": "m" * 20_001}) == ["email", "message", "row"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("25000", 25_000), ("1,234.50", 1_234.5), ("1.234,50 €", 1_234.5), ("$1,234", 1_234), ("12,5", 12.5), ("1.5", 1.5),
        ("1 234 567", 1_234_567), ("1.234.567", 1_234_567), ("1'234.5", 1_234.5), ("VND 5.000.000", 5_000_000), ("0", 0),
        ("-5", None), ("much", None), ("1e999", None), ("10k-20k", 10_000), ("20 thousand", 20_000),
        ("0.125", 0.125), ("3 people 500", 500.0), ("1,5 triệu", 1.5e6), ("NaN", None), ("9" * 40, None),
    ],
)  # fmt: skip
def test_amounts(text: str, number: float | None) -> None:
    if number is None:
        assert fields({"email": "a@example.com", "budget": text}) == ["budget"]
    else:
        assert lead(budget=text).budget == number


def test_values_of_json() -> None:
    assert lead(phone="12", budget=999.125).budget == 999.125  # unlike the text, which may be European
    assert fields({"phone": "12", "budget": 10**400}) == ["budget"]
    found = lead(phone=84912345678, budget=5, consent=True, company=None, extra={"a": [1]})
    assert (found.phone, found.budget, found.consent, found.company) == ("84912345678", 5.0, "yes", None)
    assert found.payload["extra"] == {"a": [1]}


def test_names_that_come_later_are_guessed_when_the_file_has_no_header() -> None:
    mapper = Mapper({"email": "email"}, seal=as_sent, open_ended=True)
    found = mapper.lead(Row({"email": "a@example.com", "Nachricht": "hallo", "mail": "b@example.com"}, 0))
    assert isinstance(found, LeadIn) and (found.message, found.email) == ("hallo", "a@example.com")


def test_a_column_that_was_left_out_is_not_guessed_again() -> None:
    columns = ("email", "phone", "note")
    mapper = Mapper({"email": "email"}, seal=as_sent, open_ended=True, columns=columns)
    found = mapper.lead(Row({"email": "a@example.com", "phone": "123", "note": "secret", "company": "Acme"}, 0))
    assert isinstance(found, LeadIn)
    assert (found.phone, found.message, found.company) == (None, "", "Acme")

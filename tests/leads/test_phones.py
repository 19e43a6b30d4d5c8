"""Plain numbers are read as ``phonenumbers`` reads them, in every region."""

import random

import phonenumbers
import pytest
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from webapp.leads import dedupe, phones

_KINDS = (PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE, PhoneNumberType.TOLL_FREE)
_FORMATS = (PhoneNumberFormat.E164, PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.NATIONAL)


def by_the_library(phone: str, region: str) -> phonenumbers.PhoneNumber | None:
    try:
        number = phonenumbers.parse(phone, region)
    except phonenumbers.NumberParseException:
        return None
    return number if phonenumbers.is_possible_number(number) else None


def written(number: phonenumbers.PhoneNumber, rnd: random.Random) -> list[str]:
    """A number, others that are nearly it, and how people write them."""
    digits = list(str(number.national_number))
    digits[rnd.randrange(len(digits))] = str(rnd.randrange(10))
    near, code = "".join(digits), number.country_code
    return [phonenumbers.format_number(number, form) for form in _FORMATS] + [
        f"+{code}{near}", f"+{code} (0){near}", f"(+{code}) {near[:3]}-{near[3:]}", f"({near[:3]}) {near[3:]}", f"0{near}",
        near, near[:-1], f"{near}7", f"{code}{near}", f"00{code}{near}", f"1{near}", f"011{code}{near}", f"8{near}", f"0{near[1:]}", f"+{code}0{near[1:]}", f"+{code}0{near}",
    ]  # fmt: skip


def test_every_regions_numbers_are_read_as_the_library_reads_them() -> None:
    rnd = random.Random(7)
    read = 0
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for kind in _KINDS:
            number = phonenumbers.example_number_for_type(region, kind)
            for phone in written(number, rnd) if number else ():
                for taken_from in (region, rnd.choice(("US", "CA", "VN", "GB", "JE", "IT", "AR", "BR"))):
                    found = phones.plain(phone, taken_from)
                    if found is None:
                        continue  # the library is asked
                    read += 1
                    expected = by_the_library(phone, taken_from)
                    assert expected is not None, (phone, taken_from)
                    assert phonenumbers.format_number(expected, PhoneNumberFormat.E164) == f"+{found[0]}{found[1]}"
                    assert dedupe.parsed_phone(phone, taken_from) == expected
    assert read > 5_000


@pytest.mark.parametrize(
    ("phone", "region", "found"),
    [
        ("+1 (415) 555-2671", "VN", ("1", "4155552671")),
        ("0912 345 678", "VN", ("84", "912345678")),
        ("(020) 7946-0018", "GB", ("44", "2079460018")),
        ("0912345678 ext 5", "VN", None),
        ("+39 06 69812345", "IT", ("39", "0669812345")),  # the zero belongs to the number
        ("0966496171", "US", ("1", "0966496171")),  # where it cannot, the library keeps it as well
        ("+390069812345", "IT", None),
        ("0084912345678", "VN", None),
        ("84912345678", "VN", None),
        ("+84\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669", "VN", None),
        ("12345", "VN", None),
        ("0912345678", "nowhere", None),
    ],
)
def test_what_is_not_plain_is_left_to_the_library(phone: str, region: str, found: tuple[str, str] | None) -> None:
    assert phones.plain(phone, region) == found

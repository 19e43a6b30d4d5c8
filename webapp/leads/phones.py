"""Phone numbers written plainly, read without the detours that ``phonenumbers`` takes for all others.

That library is the judge of every number; it takes a hundred microseconds for each, most of them to find out that there
is no extension, no letter and no foreign digit. :func:`plain` reads by the library's own numbering plans what has none
of that, and leaves whatever is not plain to the library: tests/leads/test_phones.py compares the two in all regions.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import phonenumbers

_PLAIN = re.compile(r"\(?\+?[0-9][0-9 ().-]{4,30}[0-9]")
_NO_DIGITS = str.maketrans("", "", " ().-+")
#: Country calling codes have up to so many digits.
_LONGEST_CODE = 3


@dataclass(frozen=True, slots=True)
class _Plan:
    """How numbers of a region are written. ``abroad``, ``prefix``: what is dialled before one of another country, and
    before one of this; ``number``: what is left then; ``rewrites``: the prefix is not just left out."""

    code: str
    lengths: frozenset[int]
    abroad: re.Pattern[str] | None
    prefix: re.Pattern[str] | None
    number: re.Pattern[str]
    rewrites: bool


def plain(phone: str, region: str) -> tuple[str, str] | None:
    """(country calling code, national number), digits, of a possible number; a zero that it begins with belongs to it.
    None: ask ``phonenumbers``, which may find one all the same. ``region``: where a number without country code is from."""
    if not _PLAIN.fullmatch(phone):
        return None
    digits = phone.translate(_NO_DIGITS)
    if "+" in phone:
        plan = _of_international(digits)
        if plan is None:
            return None
        national = digits[len(plan.code) :]
    else:
        plan, national = _plan(region), digits
        if plan is None or national.startswith(plan.code) or (plan.abroad and plan.abroad.match(national)):
            return None
    if plan.prefix and (dialled := plan.prefix.match(national)):
        if plan.rewrites:
            return None
        without = national[dialled.end() :]
        if plan.number.fullmatch(without) or not plan.number.fullmatch(national):
            national = without
    if len(national) not in plan.lengths or national.startswith("00"):
        return None
    return plan.code, national


def _of_international(digits: str) -> _Plan | None:
    for size in range(1, _LONGEST_CODE + 1):
        plan = _plan_of_code(digits[:size])
        if plan:
            return plan
    return None


@cache
def _plan_of_code(code: str) -> _Plan | None:
    """The plan of the main one of the regions that share this code."""
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(code)) if not code.startswith("0") else None
    return _plan(regions[0]) if regions else None


@cache
def _plan(region: str) -> _Plan | None:
    if region not in phonenumbers.SUPPORTED_REGIONS:
        return None
    metadata_of: Callable[[str], Any] = phonenumbers.PhoneMetadata.metadata_for_region
    found = metadata_of(region)
    lengths = set(found.general_desc.possible_length)
    main = phonenumbers.region_code_for_country_code(found.country_code)
    if main != region:  # by which the library tells whether a number is possible
        lengths &= set(metadata_of(main).general_desc.possible_length)
    prefix = found.national_prefix_for_parsing
    return _Plan(
        code=str(found.country_code),
        lengths=frozenset(lengths),
        abroad=re.compile(found.international_prefix) if found.international_prefix else None,
        prefix=re.compile(prefix) if prefix else None,
        number=re.compile(found.general_desc.national_number_pattern),
        rewrites=bool(found.national_prefix_transform_rule),
    )

"""JSON text for PostgreSQL: what orjson writes, and what it refuses."""

import json
import math
import uuid
from datetime import UTC, date, datetime

import pytest

from webapp.leads import jsontext


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True]}, {"n": 10**40}, {"half": "\ud800"}, "Đặt hàng", {}])
def test_it_says_what_json_says(value: object) -> None:
    assert json.loads(jsontext.dumps(value)) == value


def test_what_is_nested_too_deep_for_the_quick_way_is_written_all_the_same() -> None:
    value: list[object] = []
    for _ in range(400):
        value = [value]
    assert json.loads(jsontext.dumps(value)) == value


def test_ids_and_moments_may_be_in_it() -> None:
    one, at = uuid.uuid4(), datetime(2026, 3, 31, 9, tzinfo=UTC)
    assert json.loads(jsontext.dumps([one, at])) == [str(one), at.isoformat()]


@pytest.mark.parametrize("refused", [10**40, "\ud800"])
def test_ids_and_moments_are_written_alike_beside_what_orjson_refuses(refused: object) -> None:
    values = [uuid.uuid4(), datetime(2026, 3, 31, 9, 0, 0, 5, tzinfo=UTC), date(2026, 3, 31)]
    assert json.loads(jsontext.dumps([*values, refused])) == [*json.loads(jsontext.dumps(values)), refused]


@pytest.mark.parametrize("beside", [1, 10**40])
def test_what_is_no_json_is_refused(beside: int) -> None:
    with pytest.raises(TypeError):
        jsontext.dumps([{1, 2}, beside])


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_null_and_refused_beside_what_orjson_refuses(number: float) -> None:
    assert jsontext.dumps({"n": number}) == '{"n":null}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        jsontext.dumps({"n": number, "big": 10**40})

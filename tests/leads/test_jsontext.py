"""JSON text for PostgreSQL: what orjson writes, and what it refuses."""

import json
import uuid
from datetime import UTC, datetime

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

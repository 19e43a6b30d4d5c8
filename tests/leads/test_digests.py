"""When a digest is due."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from webapp.leads.digests import Digest


@pytest.mark.parametrize(
    ("digest", "at", "due"),
    [
        (Digest(minutes=30), "2026-11-20T09:14:02", "2026-11-20T09:30:00"),
        (Digest(minutes=30), "2026-11-20T09:30:00", "2026-11-20T09:30:00"),
        (Digest(minutes=30), "2026-11-20T09:30:00.000001", "2026-11-20T10:00:00"),
        (Digest(hour=8), "2026-11-20T07:59:00", "2026-11-20T08:00:00"),
        (Digest(hour=8), "2026-11-20T08:00:01", "2026-11-21T08:00:00"),
        (Digest(hour=8, zone=ZoneInfo("Asia/Ho_Chi_Minh")), "2026-11-20T09:14:02", "2026-11-21T01:00:00"),
        (Digest(hour=8, zone=ZoneInfo("Europe/Berlin")), "2026-03-28T08:00:00", "2026-03-29T06:00:00"),
        (Digest(hour=2, zone=ZoneInfo("Europe/Berlin")), "2026-03-28T02:00:00", "2026-03-29T01:00:00"),
    ],
)
def test_a_digest_is_due_at_the_next_instant(digest: Digest, at: str, due: str) -> None:
    found = digest.next(datetime.fromisoformat(at).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(due).replace(tzinfo=UTC)

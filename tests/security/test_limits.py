"""Limits: windows, bursts, days, what a key may have of its own, and counting without Redis."""

import re
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
import sqlalchemy as sa
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from webapp.leads.errors import Invalid
from webapp.leads.states import Role, Scope
from webapp.models import ApiKey, Workspace
from webapp.security import keys
from webapp.security.ratelimit import DAY, Budget, Limits, RateLimiter

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
AWAY = "redis://127.0.0.1:1/0"


def taken(limiter: RateLimiter, owner: uuid.UUID, limits: Limits = Limits()) -> Budget:  # noqa: B008
    budget = limiter.take(owner, limits)
    assert budget is not None
    return budget


def test_a_window_is_followed_by_a_fresh_one() -> None:
    limiter, owner = RateLimiter(2, 60, AWAY), uuid.uuid4()
    with time_machine.travel(NOON, tick=False) as clock:
        assert [taken(limiter, owner).allowed for _ in range(3)] == [True, True, False]
        assert taken(limiter, owner).reset == NOON.timestamp() + 60
        clock.shift(60)
        assert taken(limiter, owner) == Budget(2, 1, int(NOON.timestamp()) + 120, True)


def test_a_burst_is_refused_and_refills_by_the_second() -> None:
    limiter, owner = RateLimiter(1_000, 3_600, AWAY, burst=4), uuid.uuid4()
    with time_machine.travel(NOON, tick=False) as clock:
        assert [taken(limiter, owner).allowed for _ in range(5)] == [True] * 4 + [False]
        refused = taken(limiter, owner)
        assert (refused.limit, refused.remaining, refused.reset) == (4, 0, NOON.timestamp() + 1)
        clock.shift(0.5)
        assert [taken(limiter, owner).allowed for _ in range(3)] == [True, True, False]
        clock.shift(10)  # no more than a burst is saved up
        assert [taken(limiter, owner).allowed for _ in range(5)] == [True] * 4 + [False]
        # What was refused was not counted in the window: 10 were let through.
        assert taken(limiter, owner, Limits(burst=0)).remaining == 1_000 - 11


def test_a_day_has_its_quota_and_ends_at_midnight() -> None:
    limiter, owner = RateLimiter(2, 60, AWAY, per_day=3), uuid.uuid4()
    with time_machine.travel(NOON, tick=False) as clock:
        assert [taken(limiter, owner).allowed for _ in range(3)] == [True, True, False]
        clock.shift(60)
        assert taken(limiter, owner).allowed
        refused = taken(limiter, owner)
        midnight = datetime(2026, 11, 21, tzinfo=UTC).timestamp()
        assert refused == Budget(3, 0, int(midnight), False)
        clock.move_to(datetime(2026, 11, 21, 0, 0, 1, tzinfo=UTC))
        assert taken(limiter, owner).allowed


def test_an_owner_has_limits_of_its_own() -> None:
    limiter = RateLimiter(10, 3_600, AWAY, burst=5, per_day=100)
    one, other = uuid.uuid4(), uuid.uuid4()
    assert [taken(limiter, one, Limits(max=1)).allowed for _ in range(2)] == [True, False]
    assert taken(limiter, other).allowed  # nor does one owner's use count for another
    assert taken(limiter, other, Limits(max=0, burst=0)).limit == 100
    assert limiter.take(other, Limits(0, 0, 0)) is None


def test_headers_describe_the_window_that_leaves_least() -> None:
    limiter, owner = RateLimiter(5, 3_600, AWAY, per_day=4), uuid.uuid4()
    with time_machine.travel(NOON, tick=False):
        assert taken(limiter, owner).headers() == {
            "X-RateLimit-Limit": "4",
            "X-RateLimit-Remaining": "3",
            "X-RateLimit-Reset": str(int(NOON.timestamp()) + DAY // 2),
        }


def test_days_are_counted_together_and_survive_a_restart(redis_url: str) -> None:
    owner, client = uuid.uuid4(), redis.Redis.from_url(redis_url)
    before = RateLimiter(10_000, 60, redis_url, per_day=5)
    for _ in range(4):
        before.take(owner)
    before.exchange(client)
    after = RateLimiter(10_000, 60, redis_url, per_day=5)
    assert taken(after, owner).remaining == 4  # it cannot know yet
    after.exchange(client)
    assert not taken(after, owner).allowed
    client.close()


def test_without_redis_it_counts_for_itself_and_says_so(redis_url: str) -> None:
    said: list[bool] = []
    limiter, owner = RateLimiter(3, 3_600, AWAY, on_state=said.append), uuid.uuid4()
    assert taken(limiter, owner).allowed and not limiter.degraded
    away, back = redis.Redis.from_url(AWAY), redis.Redis.from_url(redis_url)
    limiter.attempt(away)
    assert limiter.degraded
    assert [taken(limiter, owner).allowed for _ in range(3)] == [True, True, False]
    limiter.attempt(back)
    assert not limiter.degraded and said == [True, False]
    assert back.get(next(back.scan_iter(f"leadops:limit:{owner}:*"))) == b"3"  # what was counted meanwhile is not lost
    away.close()
    back.close()


def test_an_idle_limiter_notices_that_redis_is_back(redis_url: str) -> None:
    limiter = RateLimiter(3, 3_600, AWAY)
    limiter.degraded = True
    client = redis.Redis.from_url(redis_url)
    limiter.attempt(client)
    assert not limiter.degraded
    client.close()


def answers(client: FlaskClient, secret: str, count: int) -> list[Any]:
    return [client.get("/leads/", headers={"X-API-Key": secret}) for _ in range(count)]


def made(session: Session, workspace: Workspace, **over: Any) -> str:
    secret = keys.create_key(session, workspace_id=workspace.id, name="limited", scopes={Scope.READ}, **over)[1]
    session.commit()
    return secret


def test_a_key_is_held_to_its_own_limits(client: FlaskClient, session: Session, workspace: Workspace) -> None:
    found = answers(client, made(session, workspace, limits=Limits(max=2)), 3)
    assert [answer.status_code for answer in found] == [200, 200, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in found] == ["1", "0", "0"]
    by_day = answers(client, made(session, workspace, limits=Limits(day=1)), 2)[1]
    assert by_day.status_code == 429 and by_day.headers["X-RateLimit-Limit"] == "1"
    wait = DAY - time.time() % DAY
    assert abs(int(by_day.headers["Retry-After"]) - wait) < 30


def test_a_key_without_limits_is_told_of_none(client: FlaskClient, session: Session, workspace: Workspace) -> None:
    for over in ({"rate_limited": False, "limits": Limits(max=1)}, {"limits": Limits(0, 0, 0)}):
        found = answers(client, made(session, workspace, **over), 3)
        assert [answer.status_code for answer in found] == [200, 200, 200]
        assert "X-RateLimit-Limit" not in found[-1].headers


def test_a_refused_request_still_says_where_it_stands(
    app: Flask, client: FlaskClient, session: Session, workspace: Workspace
) -> None:
    """Every answer of a limited door: errors too."""
    secret = made(session, workspace)
    unknown = client.get(f"/leads/{uuid.uuid4()}", headers={"X-API-Key": secret})
    forbidden = client.post("/leads/", headers={"X-API-Key": secret}, json={"note": "x"})
    assert (unknown.status_code, forbidden.status_code) == (404, 403)
    assert int(unknown.headers["X-RateLimit-Remaining"]) == int(forbidden.headers["X-RateLimit-Remaining"]) + 1


@pytest.mark.parametrize(
    "over",
    [
        {"limits": Limits(max=-1)},
        {"limits": Limits(day=keys.MOST + 1)},
        {"expires_at": datetime.now(UTC) - timedelta(seconds=1)},
    ],
)
def test_nonsense_is_refused_when_a_key_is_made(session: Session, workspace: Workspace, over: Any) -> None:
    with pytest.raises(Invalid):
        keys.create_key(session, workspace_id=workspace.id, name="x", scopes={Scope.READ}, **over)


# In the browser and on the command line


def key_named(session: Session, name: str) -> ApiKey:
    session.rollback()
    return session.scalars(sa.select(ApiKey).where(ApiKey.name == name)).one()


def test_limits_and_expiry_are_set_in_the_browser(client: FlaskClient, session: Session, login: Any) -> None:
    login(client, Role.ADMIN)
    day = (datetime.now(UTC) + timedelta(days=30)).date()
    form = {"name": "form", "scopes": ["ingest"], "limit_max": "500", "limit_burst": "20", "limit_day": "0"}
    created = client.post("/settings/keys", data=form | {"expires": day.isoformat()})
    assert created.status_code == 201
    key = key_named(session, "form")
    assert (key.limit_max, key.limit_burst, key.limit_day) == (500, 20, 0)
    assert key.expires_at == datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    page = client.get("/settings/keys").text
    assert "500 an hour, 20 a second" in page
    assert key.expires_at.isoformat() in page
    client.post("/settings/keys", data={"name": "usual", "scopes": ["read"]})
    usual = key_named(session, "usual")
    assert (usual.limit_max, usual.limit_burst, usual.limit_day, usual.expires_at) == (None, None, None, None)
    assert "10,000 an hour" in client.get("/settings/keys").text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limit_max", "-1"),
        ("limit_burst", "many"),
        ("limit_day", "1.5"),
        ("limit_day", "99999999999"),
        ("limit_max", "٣"),
        ("expires", "2020-01-01"),
        ("expires", "tomorrow"),
        ("expires", "9999-12-31"),
    ],
)
def test_the_browser_says_what_does_not_fit(
    client: FlaskClient, session: Session, login: Any, field: str, value: str
) -> None:
    login(client, Role.ADMIN)
    refused = client.post("/settings/keys", data={"name": "form", "scopes": ["ingest"], field: value})
    assert refused.status_code == 422
    assert re.search(rf'id="f-{field}"[^>]*aria-invalid="true"', refused.text, re.DOTALL)
    assert f'value="{value}"' in refused.text  # what was typed is still there
    assert session.scalar(sa.select(sa.func.count()).select_from(ApiKey)) == 0


def test_an_expired_key_is_shown_as_such(
    client: FlaskClient, session: Session, login: Any, workspace: Workspace
) -> None:
    login(client, Role.ADMIN)
    made(session, workspace)
    session.execute(sa.update(ApiKey).values(expires_at=datetime.now(UTC) - timedelta(days=1)))
    session.commit()
    page = client.get("/settings/keys").text
    assert "expired" in page and "works</span>" not in page


def test_limits_and_expiry_are_set_on_the_command_line(app: Flask, session: Session, workspace: Workspace) -> None:
    run = app.test_cli_runner().invoke
    made_by_hand = ["create-key", "--name", "cli", "--scopes", "read"]
    found = run(
        args=[*made_by_hand, "--limit-max", "7", "--limit-burst", "0", "--limit-day", "90", "--expires", "2099-01-31"]
    )
    assert found.exit_code == 0, found.output
    key = key_named(session, "cli")
    assert (key.limit_max, key.limit_burst, key.limit_day) == (7, 0, 90)
    assert key.expires_at == datetime(2099, 1, 31, tzinfo=UTC)
    assert run(args=[*made_by_hand, "--limit-max", "-1"]).exit_code != 0
    past = run(args=[*made_by_hand, "--expires", "2020-01-31"])
    assert past.exit_code == 1 and "expired already" in past.output


def test_an_array_counts_as_many_as_it_has_entries() -> None:
    limiter, owner = RateLimiter(10, 3_600, AWAY, burst=5), uuid.uuid4()
    with time_machine.travel(NOON, tick=False) as clock:
        assert taken(limiter, owner).allowed
        assert limiter.take(owner, count=4, paid=1) == Budget(5, 1, int(NOON.timestamp()) + 1, True)
        refused = limiter.take(owner, count=3, paid=1)
        assert refused == Budget(5, 1, int(NOON.timestamp()) + 1, False)  # nothing was counted, and when it will pass
        clock.shift(1)
        assert taken(limiter, owner).allowed
        assert limiter.take(owner, count=5, paid=1) == Budget(5, 0, int(NOON.timestamp()) + 2, True)
        clock.shift(10)
        refused = limiter.take(owner, count=2)  # 9 of 10 are used: the window is in the way, not the burst
        assert refused is not None and not refused.allowed
        assert (refused.limit, refused.remaining, refused.reset) == (10, 1, NOON.timestamp() + 3_600)


def test_one_of_more_entries_than_a_limit_passes_when_all_of_it_is_left_and_is_owed() -> None:
    limiter, owner = RateLimiter(100, 3_600, AWAY, burst=5), uuid.uuid4()
    with time_machine.travel(NOON, tick=False) as clock:
        assert taken(limiter, owner).allowed
        assert limiter.take(owner, count=30, paid=1) == Budget(5, 0, int(NOON.timestamp()) + 1, True)
        refused = taken(limiter, owner)
        assert (refused.allowed, refused.reset) == (False, NOON.timestamp() + 6)
        clock.shift(5)
        assert not taken(limiter, owner).allowed
        clock.shift(1)
        assert taken(limiter, owner).allowed
    limiter = RateLimiter(3, 60, AWAY)
    with time_machine.travel(NOON, tick=False) as clock:
        assert taken(limiter, owner).allowed and taken(limiter, owner).allowed
        big = limiter.take(owner, count=8, paid=1)
        assert big is not None and not big.allowed  # one was used before
        clock.shift(60)
        assert taken(limiter, owner).allowed
        big = limiter.take(owner, count=8, paid=1)
        assert big is not None and (big.allowed, big.remaining) == (True, 0)
        assert not taken(limiter, owner).allowed

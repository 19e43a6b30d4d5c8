"""API keys and their limits."""

import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
import redis
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests import factories
from webapp.leads.states import Scope
from webapp.models import ApiKey, Workspace
from webapp.security import keys
from webapp.security.ratelimit import RateLimiter


def read(client: FlaskClient, key: str) -> int:
    return client.get("/leads/", headers={"X-API-Key": key}).status_code


def test_a_revoked_key_stops_working_when_the_cache_has_passed(
    client: FlaskClient, session: Session, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = factories.make_key(session, workspace)
    assert read(client, key) == 200
    session.execute(sa.update(ApiKey).values(revoked_at=sa.func.now()))
    session.commit()
    assert read(client, key) == 200  # remembered for two seconds
    later = time.monotonic() + keys.CACHE_SECONDS + 0.1
    monkeypatch.setattr(keys.time, "monotonic", lambda: later)
    assert read(client, key) == 401


def test_an_expired_key_says_so(client: FlaskClient, session: Session, workspace: Workspace) -> None:
    key = factories.make_key(session, workspace)
    session.execute(sa.update(ApiKey).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    session.commit()
    answer = client.get("/leads/", headers={"X-API-Key": key})
    assert (answer.status_code, answer.json["error"]["code"]) == (401, "expired_key")


def test_last_use_is_kept(client: FlaskClient, session: Session, workspace: Workspace) -> None:
    read(client, factories.make_key(session, workspace))
    assert session.scalar(sa.select(ApiKey.last_used_at)) is not None


def test_a_platform_key_reads_no_leads(client: FlaskClient, session: Session) -> None:
    secret = keys.create_key(session, workspace_id=None, name="platform", scopes={Scope.PLATFORM})[1]
    session.commit()
    assert read(client, secret) == 403


def test_every_answer_of_a_limited_key_says_where_it_stands(
    app: Flask,
    client: FlaskClient,
    session: Session,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    redis_url: str,
) -> None:
    monkeypatch.setitem(app.extensions, "ratelimiter", RateLimiter(3, 3600, redis_url))
    key = factories.make_key(session, workspace, rate_limited=True)
    answers = [client.get("/leads/", headers={"X-API-Key": key}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert all(answer.headers["X-RateLimit-Limit"] == "3" for answer in answers)
    last = answers[-1]
    assert last.json["error"]["code"] == "rate_limited" and 1 <= int(last.headers["Retry-After"]) <= 3600
    assert int(last.headers["X-RateLimit-Reset"]) > time.time()
    unlimited = client.get("/leads/", headers={"X-API-Key": factories.make_key(session, workspace)})
    assert "X-RateLimit-Limit" not in unlimited.headers


def test_processes_count_together_and_alone_when_redis_is_away(redis_url: str) -> None:
    here, there = RateLimiter(10, 3600, redis_url), RateLimiter(10, 3600, redis_url)
    key = uuid.uuid4()
    client = redis.Redis.from_url(redis_url)
    for _ in range(6):
        here.take(key)
    for _ in range(3):
        there.take(key)
    for limiter in (here, there, here):
        limiter.exchange(client)
    assert (here.take(key).remaining, there.take(key).remaining) == (0, 0)
    assert not here.take(key).allowed
    client.close()
    alone = RateLimiter(2, 3600, "redis://127.0.0.1:1/0")
    assert [alone.take(key).allowed for _ in range(3)] == [True, True, False]

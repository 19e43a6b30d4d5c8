"""Guessing passwords is slowed down, also while Redis is away."""

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import environment
from webapp import create_app
from webapp.config import load_settings
from webapp.extensions import limiter
from webapp.models import db


@pytest.fixture
def _limiter_as_before(client: FlaskClient) -> Iterator[None]:
    """There is one limiter, and it goes with the app that was made last: give it back."""
    before = dict(vars(limiter))
    yield
    vars(limiter).clear()
    vars(limiter).update(before)


@pytest.mark.usefixtures("_limiter_as_before")
@pytest.mark.parametrize("redis_is", ["there", "away"])
def test_too_many_attempts_are_refused_before_the_hash(
    redis_is: str, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter, "enabled", True)
    url = redis_url if redis_is == "there" else "redis://127.0.0.1:1/0"
    app = create_app(load_settings(environment(database_url, url)))
    app.config.update(WTF_CSRF_ENABLED=False)
    _forget_attempts(app, redis_is)
    guesser = app.test_client()
    statuses = [
        guesser.post("/login", data={"email": "a@example.com", "password": f"guess {n}"}).status_code for n in range(21)
    ]
    _forget_attempts(app, redis_is)  # a real server on this Redis, in another test, would go on counting
    assert statuses == [401] * 20 + [429]
    with app.app_context():
        db.engine.dispose()
    app.extensions["autocommit"].dispose()


def _forget_attempts(app: Flask, redis_is: str) -> None:
    with app.app_context():
        if redis_is == "there":
            limiter.reset()

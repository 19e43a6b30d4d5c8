"""The one place that gives outside things to the domain: settings, sessions, and clients for its ports.

Made lazily and once per process, so that a stock ``rq worker`` with nothing but the URLs in its environment
can run ``jobs.tasks``; made anew in a forked child, since a connection must not be shared with one's parent.
"""

import os
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from webapp.clients.registry import Registry
from webapp.config import ConfigError, Settings, load_settings
from webapp.engine import make_engine
from webapp.leads.deliver import DeliveryPolicy
from webapp.leads.ports import Clients
from webapp.security.fields import FieldCipher


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The environment's settings. ConfigError in one line when a URL is missing or anything is nonsense."""
    found = load_settings()
    for name, url in (("DATABASE_URL", found.database_url), ("REDIS_URL", found.redis_url)):
        if not url.get_secret_value():
            raise ConfigError(f"{name} is not set")
    return found


@lru_cache(maxsize=1)
def _engine() -> sa.Engine:
    # A drain works serially on one connection; the network-bound ones save from their threads.
    return make_engine(settings())


def session_factory() -> sessionmaker[Session]:
    """Sessions on ``DATABASE_URL`` without a Flask app."""
    return sessionmaker(_engine(), expire_on_commit=False)


@lru_cache(maxsize=1)
def clients() -> Clients:
    """The clients of all destinations, with the credentials' keys."""
    keys = [key.get_secret_value() for key in settings().field_encryption_keys]
    return Registry(settings(), FieldCipher(keys).decrypt)


def delivery_policy() -> DeliveryPolicy:
    return DeliveryPolicy(max_tries=settings().max_retries, retry_delay=settings().retry_delay)


def redis_url() -> str:
    return settings().redis_url.get_secret_value()


def _after_fork() -> None:
    if _engine.cache_info().currsize:
        _engine().dispose(close=False)
    _engine.cache_clear()


os.register_at_fork(after_in_child=_after_fork)

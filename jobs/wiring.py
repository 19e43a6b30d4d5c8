"""The one place that gives outside things to the domain: settings, sessions, and clients for its ports.

Made lazily and once per process, so that a stock ``rq worker`` with nothing but the URLs in its environment
can run ``jobs.tasks``; made anew in a forked child, since a connection must not be shared with one's parent.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from webapp.clients import guard
from webapp.clients.graph import GraphClient
from webapp.clients.lookups import Lookups
from webapp.clients.registry import Registry
from webapp.config import ConfigError, Settings, load_settings
from webapp.engine import make_engine
from webapp.leads import flags, judging, llm_usage
from webapp.leads.copywriting import Writing
from webapp.leads.deliver import DeliveryPolicy
from webapp.leads.enrichment import Enriching
from webapp.leads.fetching import FetchPolicy
from webapp.leads.intake import Tenant
from webapp.leads.judging import Judging
from webapp.leads.pacing import LookupPacer, Pacer
from webapp.leads.ports import Clients, Fetcher, Model, Target
from webapp.leads.social_pages import StoredTokens
from webapp.leads.states import FetchKind
from webapp.models.account import Workspace
from webapp.security import keys
from webapp.security.fields import FieldCipher

#: Seconds that a round of follow-up tasks waits for its turn before it makes way for others and comes again.
_LOOKUP_PATIENCE = 10.0


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The environment's settings. ConfigError in one line when a URL is missing or anything is nonsense."""
    found = load_settings()
    for name, url in (("DATABASE_URL", found.database_url), ("REDIS_URL", found.redis_url)):
        if not url.get_secret_value():
            raise ConfigError(f"{name} is not set")
    flags.use_defaults(found)
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
    # A session factory made at each use: this outlives a fork, the engine does not.
    return clients_of(settings(), Pacer(lambda: session_factory()()).wait)


@lru_cache(maxsize=1)
def lookup_clients() -> Clients:
    """The same for asking what is there (rounds of follow-up tasks): of the rate budget they get what deliveries leave."""
    return clients_of(settings(), LookupPacer(lambda: session_factory()(), longest=_LOOKUP_PATIENCE).wait)


def clients_of(found: Settings, pace: Callable[[Target], None] = lambda target: None) -> Clients:
    """The same with other settings and, for a page's single call, without the rate budget."""
    cipher = FieldCipher([key.get_secret_value() for key in found.field_encryption_keys])
    return Registry(found, cipher.decrypt, pace)


@lru_cache(maxsize=1)
def judges() -> Judging:
    """The model besides the rules, as the settings have it; its client is loaded only where one is configured."""
    found = settings()
    policy = judging.policy(found.classify_mode, use_model=found.lead_classify_use_llm, available=found.has_model)
    if policy.locked or not found.has_model:
        return Judging(policy)
    seconds = found.lead_classify_llm_timeout_seconds
    record = llm_usage.recorder(lambda: session_factory()())
    return Judging(policy, chat_model(found), patience=seconds + 5, record=record)


def chat_model(found: Settings) -> Model:
    """The client of the language model that the settings name."""
    from webapp.clients.llm import ChatModel  # openai takes most of a second to load

    key = found.openai_api_key
    return ChatModel(
        model=found.openai_model,
        api_key=key.get_secret_value() if key else "none",  # servers without keys want some word all the same
        base_url=found.openai_base_url,
        timeout=found.lead_classify_llm_timeout_seconds,
        prices=found.llm_prices,
    )


@lru_cache(maxsize=1)
def writing() -> Writing:
    """The model that writes follow-up tasks, where one is configured."""
    found = settings()
    if not (found.has_model and found.lead_classify_use_llm):
        return Writing()
    from webapp.clients.copywriter import ChatCopywriter  # openai takes most of a second to load

    key = found.openai_api_key
    seconds = found.lead_classify_llm_timeout_seconds
    writer = ChatCopywriter(
        model=found.openai_model,
        api_key=key.get_secret_value() if key else "none",  # servers without keys want some word all the same
        base_url=found.openai_base_url,
        timeout=seconds,
        prices=found.llm_prices,
    )
    return Writing(writer, patience=seconds + 5)


@lru_cache(maxsize=1)
def enriching() -> Enriching:
    """The way to facts from outside."""
    found = settings()
    # Who would wait for longer than a lead does is told that it is busy.
    pace = LookupPacer(lambda: session_factory()(), longest=found.enrichment_timeout).wait
    return Enriching(lookups(found, pace), timeout=found.enrichment_timeout)


def lookups(found: Settings, pace: Callable[[Target], None] = lambda target: None) -> Lookups:
    """Also for the settings page, which tries services out."""
    cipher = FieldCipher([key.get_secret_value() for key in found.field_encryption_keys])
    return Lookups(
        Registry(found, cipher.decrypt, pace), cipher.decrypt, seconds=found.enrichment_timeout, allow=guard.networks(found.outbound_allow_cidrs),
        contact_url=found.public_url,
    )  # fmt: skip


@lru_cache(maxsize=1)
def seal() -> Callable[[Any], Any]:
    """Encrypts the sensitive values of a payload in a copy of it."""
    return FieldCipher([key.get_secret_value() for key in settings().field_encryption_keys]).seal


def tenant_of(workspace: Workspace) -> Tenant:
    """What intake has to know of a workspace, with the limits of the settings."""
    found = settings()
    return keys.tenant_of(
        workspace,
        default_region=found.default_region,
        duplicate_days=found.duplicate_days,
        idempotency_days=found.idempotency_days,
    )


def delivery_policy() -> DeliveryPolicy:
    found = settings()
    return DeliveryPolicy(max_tries=found.max_retries, retry_delay=found.retry_delay, public_url=found.public_url)


@lru_cache(maxsize=1)
def fetchers() -> dict[FetchKind, Fetcher]:
    """What fetches each kind of target."""
    # Imported here: what reads pages weighs 40 MB, and the other workers have no use for it.
    from webapp.clients.pages import PageFetcher

    allow = guard.networks(settings().outbound_allow_cidrs)
    return {
        FetchKind.PAGE: PageFetcher(allow=allow, contact_url=settings().public_url),
        FetchKind.LEADGEN: _leadgen_fetcher(settings()),
    }


def _leadgen_fetcher(found: Settings) -> Fetcher:
    from webapp.clients.leadgen import LeadgenFetcher

    cipher = FieldCipher([key.get_secret_value() for key in found.field_encryption_keys])
    default_token = found.meta_access_token.get_secret_value() if found.meta_access_token else None
    # A session factory made at each use: this outlives a fork, the engine does not.
    tokens = StoredTokens(lambda: session_factory()(), cipher.decrypt, default_token)
    return LeadgenFetcher(graph(found, timeout=found.delivery_timeout), tokens, cipher.seal)


def graph(found: Settings, *, timeout: float) -> GraphClient:
    """Meta's Graph API; also for the settings page, which tests tokens. ``timeout`` in seconds."""
    return GraphClient(found.meta_graph_url, found.meta_graph_version, timeout=timeout)


def fetch_policy() -> FetchPolicy:
    found = settings()
    return FetchPolicy(
        max_tries=found.max_retries,
        retry_delay=found.retry_delay,
        default_region=found.default_region,
        duplicate_days=found.duplicate_days,
        idempotency_days=found.idempotency_days,
    )


def redis_url() -> str:
    return settings().redis_url.get_secret_value()


def _after_fork() -> None:
    if _engine.cache_info().currsize:
        _engine().dispose(close=False)
    _engine.cache_clear()
    judges.cache_clear()  # its connections are the parent's
    writing.cache_clear()
    enriching.cache_clear()


os.register_at_fork(after_in_child=_after_fork)

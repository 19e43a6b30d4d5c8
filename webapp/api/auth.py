"""Who calls a JSON door, and whether they may: keys, scopes, limits."""

import time
import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Flask, current_app, g, request

from webapp import metrics
from webapp.config import Settings
from webapp.extensions import db
from webapp.leads.errors import Forbidden, Invalid, LeadError, Problem, Transient
from webapp.leads.states import Scope
from webapp.security.keys import KeyRing, Principal
from webapp.security.ratelimit import Budget, Limits, RateLimiter


def settings() -> Settings:
    return current_app.extensions["settings"]  # type: ignore[no-any-return]


def install(app: Flask) -> None:
    """One key ring and one limiter per process."""
    config: Settings = app.extensions["settings"]
    app.extensions["keyring"] = KeyRing(
        default_region=config.default_region,
        duplicate_days=config.duplicate_days,
        idempotency_days=config.idempotency_days,
    )
    app.extensions["ratelimiter"] = RateLimiter(
        config.rate_limit_max,
        config.rate_limit_window,
        config.redis_url.get_secret_value(),
        burst=config.rate_limit_burst,
        per_day=config.rate_limit_per_day,
        on_state=metrics.limiter_degraded,
    )


def presented_key() -> str | None:
    """``X-API-Key``, else ``Authorization: Bearer``."""
    if key := request.headers.get("X-API-Key"):
        return key.strip()
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" and value.strip() else None


def identify() -> Principal:
    """The caller. LeadError (401) without a good key, Transient (429) over its limit."""
    presented = presented_key()
    if not presented:
        raise LeadError("an API key is needed: X-API-Key or Authorization: Bearer", code="invalid_auth")
    principal: Principal = current_app.extensions["keyring"].identify(db.session, presented)
    if principal.rate_limited:
        limit(principal.key_id, principal.limits)
    return principal


def limit(owner: uuid.UUID, limits: Limits, *, count: int = 1, paid: int = 0) -> None:
    """Count a request of ``owner`` (a key, an inbound source) as ``count``, of which ``paid`` were counted before.
    Transient (429) when it is too many; the answer says where the owner stands either way."""
    limiter: RateLimiter = current_app.extensions["ratelimiter"]
    budget = limiter.take(owner, limits, count=count, paid=paid)
    g.budget = budget
    if budget and not budget.allowed:
        wait = max(1, budget.reset - int(time.time()))
        over = f"over the limit of {budget.limit:,} requests"
        over += f", of which this one counts as {count:,}" if count > 1 else ""
        raise Transient(over, code="rate_limited", retry_after=wait)


def needs(scope: Scope) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A door that takes a key with ``scope``; the principal is the view's first argument."""

    def wrap(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            principal = identify()
            principal.require(scope)
            return view(principal, *args, **kwargs)

        guarded.required_scope = scope  # type: ignore[attr-defined]
        return guarded

    return wrap


def tell_budget(response: Any) -> Any:
    """Every answer of a limited door says where the caller stands."""
    budget: Budget | None = g.get("budget")
    if budget:
        response.headers.update(budget.headers())
    return response


def tenant_param(principal: Principal, value: str | None) -> None:
    """``tenant_id`` of a reading call: absent, or the key's own. Invalid when malformed, Forbidden when another's."""
    if value is None:
        return
    try:
        asked = uuid.UUID(value)
    except ValueError:
        raise Invalid("tenant_id must be a UUID", details=(Problem("tenant_id", "must be a UUID"),)) from None
    if asked != principal.workspace_id:
        raise Forbidden("this key belongs to another workspace")


def int_param(name: str, default: int, low: int, high: int) -> int:
    """An integer of the query string within bounds. Invalid otherwise."""
    raw = request.args.get(name)
    if raw is None:
        return default
    try:
        number = int(raw) if raw.isascii() and len(raw) < 10 else low - 1
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise Invalid(
            f"{name} must be a whole number from {low} to {high}", details=(Problem(name, f"must be {low}..{high}"),)
        )
    return number


def uuid_param(name: str) -> uuid.UUID | None:
    """A UUID of the query string, or None when absent. Invalid when malformed."""
    raw = request.args.get(name)
    if not raw:
        return None
    try:
        return uuid.UUID(raw)
    except ValueError:
        raise Invalid(f"{name} must be a UUID", details=(Problem(name, "must be a UUID"),)) from None

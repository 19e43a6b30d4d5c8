"""Settings: API keys."""

import uuid
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from flask import Blueprint, request
from flask_login import current_user

from webapp.extensions import db
from webapp.leads import audit
from webapp.leads.errors import NotFound
from webapp.leads.states import Role, Scope
from webapp.models.account import ApiKey
from webapp.models.base import scoped
from webapp.security.keys import MOST, create_key
from webapp.security.ratelimit import Limits
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("keys", __name__)

SCOPES = [scope for scope in Scope if scope is not Scope.PLATFORM]
LIMITS = ("limit_max", "limit_burst", "limit_day")


@bp.get("/settings/keys")
@requires(Role.ADMIN)
def index() -> Any:
    return _page()


def _page(status: int = 200, **extra: Any) -> Any:
    keys = db.session.scalars(
        scoped(ApiKey, helpers.here()).order_by(ApiKey.revoked_at.is_not(None), ApiKey.created_at.desc())
    ).all()
    shown: dict[str, Any] = {"given": {}, "chosen": [Scope.INGEST], "problems": {}, "secret": None}
    return helpers.show(
        "pages/keys.html",
        keys=keys,
        scopes=SCOPES,
        now=datetime.now(UTC),
        usual=_usual(),
        per=_per(),
        limits_of=limits_of,
        status=status,
        **(shown | extra),
    )


def _usual() -> Limits:
    settings = helpers.settings()
    return Limits(settings.rate_limit_max, settings.rate_limit_burst, settings.rate_limit_per_day)


def _per() -> str:
    """The window of the limits, in words."""
    window = helpers.settings().rate_limit_window
    return {60: "a minute", 3_600: "an hour", 86_400: "a day"}.get(window, f"in {window:,} seconds")


def limits_of(key: ApiKey) -> str:
    """What holds for a key, in words: ``10,000 an hour, 50 a second``."""
    if not key.rate_limited:
        return "none"
    usual = _usual()
    said = [
        (usual.max if key.limit_max is None else key.limit_max, _per()),
        (usual.burst if key.limit_burst is None else key.limit_burst, "a second"),
        (usual.day if key.limit_day is None else key.limit_day, "a day"),
    ]
    return ", ".join(f"{number:,} {words}" for number, words in said if number) or "none"


@bp.post("/settings/keys")
@requires(Role.ADMIN)
def create() -> Any:
    """A new key; its secret is shown once, on the answer to this very request, and stored only as a hash."""
    name = request.form.get("name", "").strip()
    chosen = [scope for scope in SCOPES if scope.value in request.form.getlist("scopes")]
    given = {field: request.form.get(field, "").strip() for field in ("name", *LIMITS, "expires")}
    limits, problems = _limits(given)
    expires_at = _expiry(given["expires"], problems)
    if not 1 <= len(name) <= 80:
        problems["name"] = "must have 1 to 80 characters"
    if not chosen:
        problems["scopes"] = "choose at least one"
    if problems:
        return _page(422, given=given, chosen=chosen, problems=problems)
    session = db.session()
    key, secret = create_key(
        session, workspace_id=helpers.here(), name=name, scopes=set(chosen), limits=limits, expires_at=expires_at
    )
    audit.record(
        session,
        helpers.here(),
        "KEY_CREATED",
        actor=current_user.user.name,
        key=name,
        scopes=[s.value for s in chosen],
        limits=limits_of(key),
        expires_at=expires_at.isoformat() if expires_at else None,
    )
    created = {"name": key.name, "secret": secret}
    session.commit()
    return _page(201, secret=created)


def _limits(given: dict[str, str]) -> tuple[Limits, dict[str, str]]:
    """(limits, problem per field). Left empty: as for all keys."""
    problems: dict[str, str] = {}
    values: list[int | None] = []
    for field in LIMITS:
        text = given[field]
        good = text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MOST
        if text and not good:
            problems[field] = f"must be a whole number from 0 to {MOST:,}, or be left empty"
        values.append(int(text) if text and good else None)
    return Limits(*values), problems


def _expiry(text: str, problems: dict[str, str]) -> datetime | None:
    """The end of the day (UTC) that is given; a problem when it is none, or has passed."""
    if not text:
        return None
    try:
        ends = datetime.combine(date.fromisoformat(text) + timedelta(days=1), time(), UTC)
    except (ValueError, OverflowError):
        problems["expires"] = "must be a date, such as 2027-03-31, or be left empty"
        return None
    if ends <= datetime.now(UTC):
        problems["expires"] = "has passed; choose today or later"
    return ends


@bp.post("/settings/keys/<uuid:key_id>/revoke")
@requires(Role.ADMIN)
def revoke(key_id: uuid.UUID) -> Any:
    session = db.session()
    key = session.scalar(scoped(ApiKey, helpers.here()).where(ApiKey.id == key_id).with_for_update())
    if key is None:
        raise NotFound("There is no such key in this workspace.")
    if key.revoked_at is None:
        key.revoked_at = datetime.now(UTC)
        audit.record(session, helpers.here(), "KEY_REVOKED", actor=current_user.user.name, key=key.name)
    name = key.name
    session.commit()
    helpers.toast("Revoked", f"{name}; it stops working within seconds")
    return helpers.see("keys.index")

"""Settings: API keys."""

import uuid
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, request
from flask_login import current_user

from webapp.extensions import db
from webapp.leads import audit
from webapp.leads.errors import NotFound
from webapp.leads.states import Role, Scope
from webapp.models.account import ApiKey
from webapp.models.base import scoped
from webapp.security.keys import create_key
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("keys", __name__)

SCOPES = [scope for scope in Scope if scope is not Scope.PLATFORM]


@bp.get("/settings/keys")
@requires(Role.ADMIN)
def index() -> Any:
    return _page()


def _page(status: int = 200, **extra: Any) -> Any:
    keys = db.session.scalars(
        scoped(ApiKey, helpers.here()).order_by(ApiKey.revoked_at.is_not(None), ApiKey.created_at.desc())
    ).all()
    shown: dict[str, Any] = {"given": {}, "chosen": [Scope.INGEST], "problems": {}, "secret": None}
    return helpers.show("pages/keys.html", keys=keys, scopes=SCOPES, status=status, **(shown | extra))


@bp.post("/settings/keys")
@requires(Role.ADMIN)
def create() -> Any:
    """A new key; its secret is shown once, on the answer to this very request, and stored only as a hash."""
    name = request.form.get("name", "").strip()
    chosen = [scope for scope in SCOPES if scope.value in request.form.getlist("scopes")]
    problems = {}
    if not 1 <= len(name) <= 80:
        problems["name"] = "must have 1 to 80 characters"
    if not chosen:
        problems["scopes"] = "choose at least one"
    if problems:
        return _page(422, given={"name": name}, chosen=chosen, problems=problems)
    session = db.session()
    key, secret = create_key(session, workspace_id=helpers.here(), name=name, scopes=set(chosen))
    audit.record(
        session, helpers.here(), "KEY_CREATED", actor=current_user.user.name, key=name, scopes=[s.value for s in chosen]
    )
    created = {"name": key.name, "secret": secret}
    session.commit()
    return _page(201, secret=created)


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

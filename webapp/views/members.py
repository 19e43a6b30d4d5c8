"""Settings: members, their roles, and who takes leads."""

import secrets
import uuid
from typing import Any

from flask import Blueprint, request

from webapp.extensions import db
from webapp.leads import members
from webapp.leads.states import Role
from webapp.security.passwords import hash_password
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("members", __name__)


@bp.get("/settings/members")
@requires(Role.ADMIN)
def index() -> Any:
    return _page()


def _page(status: int = 200, **extra: Any) -> Any:
    found = members.memberships(db.session(), helpers.here())
    shown: dict[str, Any] = {"given": {}, "problems": {}, "created": None}
    return helpers.show(
        "pages/members.html", members=found, roles=list(Role), status=status, me=helpers.me(), **(shown | extra)
    )


@bp.post("/settings/members")
@requires(Role.ADMIN)
def create() -> Any:
    """Add a person. A new one gets a password, shown once on the answer to this very request and stored nowhere in
    the clear; someone who has an account already keeps theirs."""
    given = {name: request.form.get(name, "").strip() for name in ("name", "email", "role")}
    if problems := _problems(given):
        return _page(422, given=given, problems=problems)
    session, address = db.session(), given["email"].lower()
    user = members.user_by_address(session, address)
    password = None
    if user is None:
        password = secrets.token_urlsafe(12)
        user = members.new_user(session, address, name=given["name"], password_hash=hash_password(password))
    elif members.is_member(session, helpers.here(), user):
        return _page(422, given=given, problems={"email": "is a member already"})
    members.add(session, helpers.here(), user, Role(given["role"]), actor=helpers.actor().name)
    session.commit()
    return _page(201, created={"name": user.name, "email": user.email, "password": password})


def _problems(given: dict[str, str]) -> dict[str, str]:
    problems = {}
    if not members.usable(given["email"]):
        problems["email"] = "must be an e-mail address"
    if not 1 <= len(given["name"]) <= 120:
        problems["name"] = "must have 1 to 120 characters"
    if given["role"] not in list(Role):
        problems["role"] = "must be one of the four roles"
    return problems


@bp.post("/settings/members/<uuid:user_id>")
@requires(Role.ADMIN)
def change(user_id: uuid.UUID) -> Any:
    """Another role, or whether routing may give them leads."""
    user = members.change(
        db.session(),
        helpers.here(),
        user_id,
        role=helpers.chosen("role", Role),
        takes_leads="takes_leads" in request.form,
        actor=helpers.actor().name,
    )
    db.session.commit()
    helpers.toast("Saved", user.name)
    return helpers.see("members.index")


@bp.post("/settings/members/<uuid:user_id>/remove")
@requires(Role.ADMIN)
def remove(user_id: uuid.UUID) -> Any:
    """End the membership."""
    user = members.remove(db.session(), helpers.here(), user_id, actor=helpers.actor().name)
    db.session.commit()
    helpers.toast("Removed", user.name)
    return helpers.see("members.index")

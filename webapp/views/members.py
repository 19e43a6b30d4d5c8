"""Settings: members, their roles, and who takes leads."""

import secrets
import uuid
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, request
from flask_login import current_user
from sqlalchemy.orm import Session, joinedload

from webapp.extensions import db
from webapp.leads import audit
from webapp.leads.errors import Conflict, NotFound
from webapp.leads.states import Role
from webapp.models.account import Membership, User
from webapp.security.passwords import hash_password
from webapp.security.roles import requires
from webapp.views import helpers, reads

bp = Blueprint("members", __name__)


@bp.get("/settings/members")
@requires(Role.ADMIN)
def index() -> Any:
    return _page()


def _page(status: int = 200, **extra: Any) -> Any:
    members = reads.memberships(db.session(), helpers.here())
    shown: dict[str, Any] = {"given": {}, "problems": {}, "created": None}
    return helpers.show(
        "pages/members.html", members=members, roles=list(Role), status=status, me=helpers.me(), **(shown | extra)
    )


@bp.post("/settings/members")
@requires(Role.ADMIN)
def create() -> Any:
    """Add a person. A new one gets a password, shown once on the answer to this very request and stored nowhere in
    the clear; someone who has an account already keeps theirs."""
    given = {name: request.form.get(name, "").strip() for name in ("name", "email", "role")}
    if problems := _problems(given):
        return _page(422, given=given, problems=problems)
    session, email = db.session(), given["email"].lower()
    user = session.scalar(sa.select(User).where(User.email == email))
    password = None
    if user is None:
        password = secrets.token_urlsafe(12)
        user = User(email=email, name=given["name"], password_hash=hash_password(password))
        session.add(user)
        session.flush()
    elif session.get(Membership, (helpers.here(), user.id)):
        return _page(422, given=given, problems={"email": "is a member already"})
    role = Role(given["role"])
    session.add(
        Membership(
            workspace_id=helpers.here(), user_id=user.id, role=role, takes_leads=role in (Role.REVIEWER, Role.MANAGER)
        )
    )
    _record(session, "MEMBER_ADDED", user, role=role.value)
    session.commit()
    return _page(201, created={"name": user.name, "email": user.email, "password": password})


def _problems(given: dict[str, str]) -> dict[str, str]:
    problems = {}
    local, _, domain = given["email"].partition("@")
    if not local or not domain or any(c.isspace() for c in given["email"]) or len(given["email"]) > 320:
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
    session = db.session()
    membership = _membership(session, user_id)
    role = helpers.chosen("role", Role) or membership.role
    takes_leads = "takes_leads" in request.form
    if membership.role is Role.ADMIN and role is not Role.ADMIN:
        _keep_an_admin(session, user_id)
    membership.role, membership.takes_leads = role, takes_leads
    _record(session, "MEMBER_CHANGED", membership.user, role=role.value, takes_leads=takes_leads)
    session.commit()
    helpers.toast("Saved", membership.user.name)
    return helpers.see("members.index")


@bp.post("/settings/members/<uuid:user_id>/remove")
@requires(Role.ADMIN)
def remove(user_id: uuid.UUID) -> Any:
    """End the membership. What they decided stays, in their name; their leads stay assigned until someone moves them."""
    session = db.session()
    membership = _membership(session, user_id)
    if membership.role is Role.ADMIN:
        _keep_an_admin(session, user_id)
    user = membership.user
    session.delete(membership)
    _record(session, "MEMBER_REMOVED", user)
    session.commit()
    helpers.toast("Removed", user.name)
    return helpers.see("members.index")


def _membership(session: Session, user_id: uuid.UUID) -> Membership:
    found: Membership | None = session.scalar(
        sa.select(Membership)
        .where(Membership.workspace_id == helpers.here(), Membership.user_id == user_id)
        .options(joinedload(Membership.user))
    )
    if found is None:
        raise NotFound("There is no such member of this workspace.")
    return found


def _keep_an_admin(session: Session, leaving: uuid.UUID) -> None:
    """Conflict when nobody else could administer the workspace. The rows are locked, so that two admins who remove
    each other at the same moment do not both succeed."""
    admins = session.scalars(
        sa.select(Membership.user_id)
        .where(Membership.workspace_id == helpers.here(), Membership.role == Role.ADMIN)
        .order_by(Membership.user_id)
        .with_for_update()
    ).all()
    if not [user_id for user_id in admins if user_id != leaving]:
        raise Conflict("This is the only admin. Make someone else an admin first.")


def _record(session: Session, event: str, user: User, **details: Any) -> None:
    audit.record(session, helpers.here(), event, actor=current_user.user.name, member=user.name, **details)

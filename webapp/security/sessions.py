"""Who is logged in, in which workspace, with which role: read anew from the database at every request."""

import uuid
from datetime import UTC, datetime

import sqlalchemy as sa
from flask import Flask, Request, Response, request
from flask import session as cookie
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from flask_login import UserMixin, login_user, logout_user
from sqlalchemy.orm import contains_eager

from webapp.errors import is_json_path
from webapp.extensions import db, login_manager
from webapp.leads.states import Role
from webapp.models.account import Membership, User, Workspace


class PageSessions(SecureCookieSessionInterface):
    """Sessions are for pages. JSON doors ignore the cookie, so they do not pay for reading or writing one.

    The whole session is in the cookie, so an answer that brings the cookie again takes back what another answer has
    changed since its request began: a toast that was said or shown, a log-out. Only an answer that changes the session
    brings it, and the day's first whole page, which keeps somebody who comes back within the lifetime logged in.
    """

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        return self.session_class() if is_json_path(request.path) else super().open_session(app, request)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if is_json_path(request.path):
            return
        today = datetime.now(UTC).date().isoformat()
        if session.permanent and session.get("day") != today and _is_whole_page(request):
            session["day"] = today
        super().save_session(app, session, response)


def _is_whole_page(request: Request) -> bool:
    return request.method == "GET" and request.endpoint != "static" and "HX-Request" not in request.headers


class SessionUser(UserMixin):  # type: ignore[misc]
    """flask-login's ``current_user``: a user in one workspace. ``memberships``: all of theirs, by workspace name."""

    def __init__(self, membership: Membership, memberships: list[Membership]) -> None:
        self.memberships = memberships
        self.user: User = membership.user
        self.workspace: Workspace = membership.workspace
        self.workspace_id: uuid.UUID = membership.workspace_id
        self.role: Role = membership.role

    def get_id(self) -> str:
        # The epoch makes every older session worthless once it grows (password changed, access withdrawn).
        return f"{self.user.id}:{self.user.session_epoch}"

    def can(self, role: Role) -> bool:
        return self.role.includes(role)


#: Asked at every request, and so put together once.
_MEMBERSHIPS = (
    sa.select(Membership)
    .join(Membership.workspace)
    .join(Membership.user)
    .where(Membership.user_id == sa.bindparam("user_id"), User.active)
    .options(contains_eager(Membership.user), contains_eager(Membership.workspace))
    .order_by(Workspace.name)
)


def memberships_of(user_id: uuid.UUID) -> list[Membership]:
    """The user's memberships, by workspace name; read anew."""
    return list(db.session.scalars(_MEMBERSHIPS, {"user_id": user_id}))


@login_manager.user_loader  # type: ignore[untyped-decorator]
def load(identity: str) -> SessionUser | None:
    user_id, _, epoch = identity.partition(":")
    try:
        memberships = memberships_of(uuid.UUID(user_id))
    except ValueError:
        return None
    if not memberships or str(memberships[0].user.session_epoch) != epoch:
        return None
    chosen = cookie.get("workspace")
    return SessionUser(next((m for m in memberships if str(m.workspace_id) == chosen), memberships[0]), memberships)


def find_user(email: str) -> User | None:
    return db.session.scalar(sa.select(User).where(User.email == email.strip().lower(), User.active))


def log_in(user: User) -> SessionUser | None:
    """Start a session; None when the user belongs to no workspace. The cookie's old content is dropped first, so
    that nobody can hand a victim a session of theirs."""
    memberships = memberships_of(user.id)
    if not memberships:
        return None
    cookie.clear()
    cookie.permanent = True
    user.last_login_at = datetime.now(UTC)
    session_user = SessionUser(memberships[0], memberships)
    login_user(session_user)
    return session_user


def log_out() -> None:
    logout_user()
    cookie.clear()


def choose_workspace(user_id: uuid.UUID, workspace_id: uuid.UUID) -> bool:
    """Switch to another of the user's workspaces; False when it isn't one of theirs."""
    if not any(m.workspace_id == workspace_id for m in memberships_of(user_id)):
        return False
    cookie["workspace"] = str(workspace_id)
    return True

"""Members of a workspace: who they are, what they may, and that one of them can always administer it."""

import uuid
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, joinedload

from webapp.leads import audit
from webapp.leads.errors import Conflict, NotFound
from webapp.leads.states import WAITING_STATUSES, Role
from webapp.models.account import Membership, User
from webapp.models.lead import Lead

#: Routing gives leads to these unless someone says otherwise.
TAKE_LEADS = frozenset({Role.REVIEWER, Role.MANAGER})


@dataclass(frozen=True, slots=True)
class Someone:
    """A member of the workspace."""

    id: uuid.UUID
    name: str


def members(session: Session, workspace_id: uuid.UUID) -> list[Someone]:
    """Who leads can be assigned to."""
    return [Someone(*row) for row in session.execute(_MEMBERS, {"here": workspace_id})]


#: Asked by every page that shows leads, and so put together once.
_MEMBERS = (
    sa.select(User.id, User.name)
    .join(Membership, Membership.user_id == User.id)
    .where(Membership.workspace_id == sa.bindparam("here"), User.active)
    .order_by(User.name)
)


def memberships(session: Session, workspace_id: uuid.UUID) -> list[tuple[Membership, int]]:
    """Members with how many waiting leads each has, by name."""
    waiting = aliased(Lead)
    load = (
        sa.select(sa.func.count())
        .where(
            waiting.assignee_id == Membership.user_id,
            waiting.workspace_id == workspace_id,
            waiting.status.in_(WAITING_STATUSES),
        )
        .correlate(Membership)
        .scalar_subquery()
    )
    query = (
        sa.select(Membership, load)
        .join(Membership.user)
        .where(Membership.workspace_id == workspace_id)
        .options(joinedload(Membership.user))
        .order_by(User.name)
    )
    return [(row[0], row[1]) for row in session.execute(query)]


def usable(address: str) -> bool:
    """Whether someone could log in with it. ``admin@localhost`` and the like are allowed, since an internal tool may
    well be used where addresses have no public domain."""
    local, _, domain = address.partition("@")
    return bool(local and domain) and not any(c.isspace() for c in address) and len(address) <= 320


def user_by_address(session: Session, address: str) -> User | None:
    found: User | None = session.scalar(sa.select(User).where(User.email == address))
    return found


def new_user(session: Session, address: str, *, name: str, password_hash: str) -> User:
    """Someone who is a member of nothing yet."""
    user = User(email=address, name=name, password_hash=password_hash)
    session.add(user)
    session.flush()
    return user


def is_member(session: Session, workspace_id: uuid.UUID, user: User) -> bool:
    return session.get(Membership, (workspace_id, user.id)) is not None


def grant(session: Session, workspace_id: uuid.UUID, user: User, role: Role) -> None:
    """Make ``user`` a member with ``role``; a member gets the role and keeps the rest."""
    membership = session.get(Membership, (workspace_id, user.id))
    if membership is None:
        takes_leads = role in TAKE_LEADS
        session.add(Membership(workspace_id=workspace_id, user_id=user.id, role=role, takes_leads=takes_leads))
    else:
        membership.role = role
    session.flush()


def add(session: Session, workspace_id: uuid.UUID, user: User, role: Role, *, actor: str) -> None:
    """As :func:`grant`, and told in the audit trail."""
    grant(session, workspace_id, user, role)
    _record(session, workspace_id, "MEMBER_ADDED", user, actor, role=role.value)


def change(
    session: Session, workspace_id: uuid.UUID, user_id: uuid.UUID, *, role: Role | None, takes_leads: bool, actor: str
) -> User:
    """Another role (None keeps it), or whether routing may give them leads. NotFound; Conflict for the last admin."""
    membership = _membership(session, workspace_id, user_id)
    role = role or membership.role
    if membership.role is Role.ADMIN and role is not Role.ADMIN:
        _keep_an_admin(session, workspace_id, user_id)
    membership.role, membership.takes_leads = role, takes_leads
    _record(session, workspace_id, "MEMBER_CHANGED", membership.user, actor, role=role.value, takes_leads=takes_leads)
    return membership.user


def remove(session: Session, workspace_id: uuid.UUID, user_id: uuid.UUID, *, actor: str) -> User:
    """End the membership. What they decided stays, in their name; their leads stay assigned until someone moves them.
    NotFound; Conflict for the last admin."""
    membership = _membership(session, workspace_id, user_id)
    if membership.role is Role.ADMIN:
        _keep_an_admin(session, workspace_id, user_id)
    user = membership.user
    session.delete(membership)
    _record(session, workspace_id, "MEMBER_REMOVED", user, actor)
    return user


def _membership(session: Session, workspace_id: uuid.UUID, user_id: uuid.UUID) -> Membership:
    found: Membership | None = session.scalar(
        sa.select(Membership)
        .where(Membership.workspace_id == workspace_id, Membership.user_id == user_id)
        .options(joinedload(Membership.user))
    )
    if found is None:
        raise NotFound("There is no such member of this workspace.")
    return found


def _keep_an_admin(session: Session, workspace_id: uuid.UUID, leaving: uuid.UUID) -> None:
    """Conflict when nobody else could administer the workspace. The rows are locked, so that two admins who remove
    each other at the same moment do not both succeed."""
    admins = session.scalars(
        sa.select(Membership.user_id)
        .where(Membership.workspace_id == workspace_id, Membership.role == Role.ADMIN)
        .order_by(Membership.user_id)
        .with_for_update()
    ).all()
    if not [user_id for user_id in admins if user_id != leaving]:
        raise Conflict("This is the only admin. Make someone else an admin first.")


def _record(session: Session, workspace_id: uuid.UUID, event: str, user: User, actor: str, **details: Any) -> None:
    audit.record(session, workspace_id, event, actor=actor, member=user.name, **details)

"""Makes rows for tests through the product's own code where it has some, so that they are as real ones are."""

import itertools
import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import intake
from webapp.leads.states import Door, Role, Scope
from webapp.models import Lead, Membership, User, Workspace
from webapp.security.keys import create_key, tenant_of
from webapp.security.passwords import hash_password

PASSWORD = "correct horse battery"
_HASH = hash_password(PASSWORD)  # once: a hash takes 0.1 s
_numbers = itertools.count(1)

ALL_SCOPES = {Scope.INGEST, Scope.READ, Scope.REVIEW, Scope.ADMIN}


def make_workspace(session: Session, name: str | None = None, **over: Any) -> Workspace:
    workspace = Workspace(name=name or f"workspace {next(_numbers)}", **over)
    session.add(workspace)
    session.commit()
    return workspace


def make_user(
    session: Session, workspace: Workspace, *, role: Role = Role.REVIEWER, takes_leads: bool = False, **over: Any
) -> User:
    number = next(_numbers)
    values = {"email": f"user{number}@example.com", "name": f"User {number}", "password_hash": _HASH} | over
    user = User(**values)
    session.add(user)
    session.flush()
    session.add(Membership(workspace_id=workspace.id, user_id=user.id, role=role, takes_leads=takes_leads))
    session.commit()
    return user


def make_key(
    session: Session, workspace: Workspace, *, scopes: set[Scope] | None = None, rate_limited: bool = False
) -> str:
    """The secret of a new key."""
    secret = create_key(
        session, workspace_id=workspace.id, name="test key", scopes=scopes or ALL_SCOPES, rate_limited=rate_limited
    )[1]
    session.commit()
    return secret


def make_lead(
    session: Session, workspace: Workspace, message: str = "Cho tôi báo giá gói Enterprise", **over: Any
) -> Lead:
    """A lead taken in as a door would, with its queued run. Fields that intake decides itself (``status``,
    ``intent``, ``assignee_id`` …) are set on the row afterwards."""
    number = next(_numbers)
    taken = {"name": f"Person {number}", "email": f"person{number}@example.com", "source": "website_form"}
    later = {}
    for name, value in over.items():
        if name in intake.LeadIn.__dataclass_fields__:
            taken[name] = value
        else:
            later[name] = value
    door = taken.pop("door", Door.TRIAGE)
    if sa.inspect(workspace).detached:  # it was read by another session
        workspace = session.get_one(Workspace, workspace.id)
    tenant = tenant_of(workspace, default_region="US", duplicate_days=30, idempotency_days=30)
    received = intake.accept(
        session,
        tenant,
        intake.LeadIn(door=door, message=message, payload={"note": message}, **taken),
        key=intake.Key(str(uuid.uuid4()), "hash"),
    )
    if later:
        session.execute(sa.update(Lead).where(Lead.id == received.lead_id).values(**later))
    session.commit()
    lead = session.get_one(Lead, received.lead_id, populate_existing=True)
    session.commit()
    return lead

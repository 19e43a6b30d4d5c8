"""Workspaces: one by each name."""

import uuid

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads import audit
from webapp.models.account import Workspace
from webapp.models.base import new_id


def ensure(session: Session, name: str, *, industry: str | None = None, actor: str) -> tuple[uuid.UUID, bool]:
    """(id, made) of the workspace ``name``; of many callers at once one makes it. An existing one keeps its industry.
    The caller commits."""
    made = session.scalar(
        insert(Workspace)
        .values(id=new_id(), name=name, industry=industry)
        .on_conflict_do_nothing(index_elements=[Workspace.name])
        .returning(Workspace.id)
    )
    if made is not None:
        audit.record(session, made, "WORKSPACE_CREATED", actor=actor, name=name, industry=industry)
        return made, True
    # A statement of its own sees what the one that was quicker has committed.
    return session.scalars(sa.select(Workspace.id).where(Workspace.name == name)).one(), False

"""Workspaces: one by each name."""

import uuid

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads import audit
from webapp.models.account import Workspace
from webapp.models.base import new_id


def locked(session: Session, workspace_id: uuid.UUID) -> Workspace:
    """The workspace as it is now, held until the transaction ends. Several parts keep their settings in one document,
    and a page has usually read it before: whoever changes a part of it takes it from here, or undoes another's change."""
    found = sa.select(Workspace).where(Workspace.id == workspace_id).with_for_update(key_share=True)
    return session.scalars(found.execution_options(populate_existing=True)).one()


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

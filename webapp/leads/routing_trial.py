"""Routing on trial: who would get these leads now, and why. Nothing is stored, nobody is given anything."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import boards, knowledge
from webapp.leads.run_store import LAST_OWNER
from webapp.leads.stages import route
from webapp.leads.states import Intent, LeadStatus, Priority
from webapp.leads.types import Assignment, LeadFacts
from webapp.models.account import User
from webapp.models.lead import Lead

MAX_LEADS = 50


@dataclass(frozen=True, slots=True)
class Trial:
    """A lead as a list names it, who has it now, and what routing would make of it if nobody had it."""

    id: uuid.UUID
    created_at: datetime
    name: str | None
    author_name: str | None
    company: str | None
    email: str | None
    phone: str | None
    status: LeadStatus
    intent: Intent
    priority: Priority
    has_it: str | None
    assignment: Assignment


def of(session: Session, workspace_id: uuid.UUID, *, lead_id: uuid.UUID | None = None, newest: int = 20) -> list[Trial]:
    """Of one lead, or of the newest so many. Each is routed as if it were the only one: loads are not counted on."""
    named = (
        Lead.id, Lead.created_at, Lead.shown_name.label("name"), Lead.author_name, Lead.company, Lead.email, Lead.phone,
        Lead.status, Lead.intent, Lead.priority, User.name.label("has_it"),
    )  # fmt: skip
    query = (
        sa.select(*named, Lead.message, Lead.source, Lead.lang, Lead.facts, LAST_OWNER)
        .outerjoin(User, User.id == Lead.assignee_id)
        .where(Lead.workspace_id == workspace_id)
        .order_by(Lead.created_at.desc(), Lead.id.desc())
    )
    query = query.where(Lead.id == lead_id) if lead_id else query.limit(min(newest, MAX_LEADS))
    rows: Sequence[Any] = session.execute(query).all()
    board = boards.load(session, [workspace_id])[workspace_id]
    names = [one.name for one in fields(Trial) if one.name != "assignment"]
    return [
        Trial(assignment=_routed(row, workspace_id, board), **{name: getattr(row, name) for name in names})
        for row in rows
    ]


def _routed(row: Any, workspace_id: uuid.UUID, board: route.Board) -> Assignment:
    return route.route(
        LeadFacts(str(row.id), str(workspace_id), row.message, source=row.source),
        row.status,
        row.intent,
        board.copy(),
        assignee=None,
        priority=row.priority,
        language=row.lang,
        learned=knowledge.read(row.facts or ()),
        last_owner=str(row.last_owner) if row.last_owner else None,
    )

"""Trying rules out before leads are judged by them: one message in the open, and what a draft would change."""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import suspicion, verdict
from webapp.leads.ruleset import Ruleset
from webapp.leads.states import Intent, LeadStatus, Priority
from webapp.leads.types import Verdict
from webapp.leads.verdict import Fired
from webapp.models.account import Workspace
from webapp.models.lead import Lead

#: Leads that a draft can be tried on at once: a second or so.
MOST_LEADS = 2_000
#: Leads named one by one.
MOST_EXAMPLES = 50


@dataclass(frozen=True, slots=True)
class Tried:
    """A message judged, and the rules that fired."""

    verdict: Verdict
    status: LeadStatus
    fired: tuple[Fired, ...]


def judged(message: str, rules: Ruleset | None, workspace: Workspace) -> tuple[Verdict, LeadStatus]:
    """As intake judges it in ``workspace``."""
    said = suspicion.checked(verdict.judge(message, rules=rules), message)
    return said, suspicion.status_of(said, auto_from=workspace.auto_from, draft_from=workspace.draft_from)


def tried(message: str, rules: Ruleset | None, workspace: Workspace) -> Tried:
    """One message in the open."""
    said, status = judged(message, rules, workspace)
    return Tried(said, status, verdict.fired(message, rules=rules))


@dataclass(frozen=True, slots=True)
class Example:
    """A lead that would be judged otherwise."""

    lead_id: uuid.UUID
    message: str
    before: Verdict
    after: Verdict
    status_before: LeadStatus
    status_after: LeadStatus


@dataclass(slots=True)
class Effect:
    """What would change for the last leads if they came now. ``moves``: (intent, intent) and how many."""

    leads: int = 0
    intents: int = 0
    priorities: int = 0
    statuses: int = 0
    confidences: int = 0
    moves: Counter[tuple[Intent, Intent]] = field(default_factory=Counter)
    priority_moves: Counter[tuple[Priority, Priority]] = field(default_factory=Counter)
    status_moves: Counter[tuple[LeadStatus, LeadStatus]] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)


def effect(
    session: Session, workspace: Workspace, before: Ruleset | None, after: Ruleset | None, *, leads: int
) -> Effect:
    """Judge the workspace's last ``leads`` messages by both rules, as intake would now; nothing is stored."""
    rows = session.execute(
        sa.select(Lead.id, Lead.message)
        .where(Lead.workspace_id == workspace.id)
        .order_by(Lead.created_at.desc(), Lead.id.desc())
        .limit(min(leads, MOST_LEADS))
    ).all()
    found = Effect(leads=len(rows))
    for row in rows:
        old, status_old = judged(row.message, before, workspace)
        new, status_new = judged(row.message, after, workspace)
        if (old.intent, old.priority, status_old, old.confidence) == (
            new.intent,
            new.priority,
            status_new,
            new.confidence,
        ):
            continue
        found.intents += old.intent is not new.intent
        found.priorities += old.priority is not new.priority
        found.statuses += status_old is not status_new
        found.confidences += old.confidence != new.confidence
        if old.intent is not new.intent:
            found.moves[old.intent, new.intent] += 1
        if old.priority is not new.priority:
            found.priority_moves[old.priority, new.priority] += 1
        if status_old is not status_new:
            found.status_moves[status_old, status_new] += 1
        if len(found.examples) < MOST_EXAMPLES and (old.intent, old.priority, status_old) != (
            new.intent,
            new.priority,
            status_new,
        ):
            found.examples.append(Example(row.id, row.message, old, new, status_old, status_new))
    return found


def recent(session: Session, workspace_id: uuid.UUID, *, most: int = 10) -> Sequence[sa.Row[uuid.UUID, str]]:
    """The last leads with words, to try rules on."""
    return session.execute(
        sa.select(Lead.id, Lead.message)
        .where(Lead.workspace_id == workspace_id, Lead.message != "")
        .order_by(Lead.created_at.desc(), Lead.id.desc())
        .limit(most)
    ).all()

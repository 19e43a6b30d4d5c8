"""The text of a lead's follow-up task: wanted, shown before it goes out, edited, and fixed once it goes.

One row for a lead that has one; without a row the template is what it will say. ``copywriting`` asks the model about those
that are wanted. A text that has begun to go out (``used_at``) never changes again, so that a retry sends the same.
"""

import uuid
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from webapp.leads import audit, flags, judging_policy, kinds, task_template, workspaces
from webapp.leads.errors import Conflict, Invalid, Problem
from webapp.leads.flags import Flag
from webapp.leads.outbox import TASK
from webapp.leads.ports import LeadSnapshot
from webapp.leads.states import (
    UNDELIVERABLE_INTENTS,
    DeliveryState,
    DestinationMode,
    LeadStatus,
    TextAuthor,
    TextState,
)
from webapp.models.account import Workspace
from webapp.models.base import any_of, new_id
from webapp.models.lead import Lead
from webapp.models.work import Delivery, Destination, TaskText

#: A delivery waits so long for its text; then the template has to do.
PATIENCE = timedelta(minutes=2)
OPEN = (TextState.WANTED, TextState.WRITING)
#: Destinations to which a follow-up task goes.
_WITH_TASKS = tuple(kind for kind, known in kinds.KINDS.items() if known.step_of(TASK) is not None)
LANGUAGES = ("auto", task_template.EN, task_template.VI)


@dataclass(frozen=True, slots=True)
class Preferences:
    """``Workspace.settings["copywriting"]``. ``language``: of the texts, ``auto`` for the lead's own; ``unmasked``: the
    model may see addresses, numbers and names, as the workspace has it for judging."""

    language: str = "auto"
    unmasked: bool = False

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None, *, judging: Any = None) -> "Preferences":
        """What makes no sense there counts as not chosen."""
        language = (stored or {}).get("language")
        unmasked = judging_policy.Preferences.of(judging).share_personal
        return cls(language if language in LANGUAGES else "auto", unmasked)


def prefer(session: Session, workspace_id: uuid.UUID, language: str, *, actor: str) -> None:
    """Set the language of a workspace's texts. The caller commits."""
    workspace = workspaces.locked(session, workspace_id)
    after = {"language": language}
    workspace.settings = workspace.settings | {"copywriting": after}
    audit.record(session, workspace_id, "COPYWRITING_CHANGED", actor=actor, after=after)
    session.flush()


def basis() -> sa.ColumnElement[str]:
    """Fingerprint of what a text of the lead is written from, for statements that have ``Lead`` in them."""
    of = (Lead.intent, Lead.priority, Lead.next_action, Lead.name, Lead.email, Lead.phone, Lead.company, Lead.budget)
    return sa.func.md5(sa.func.concat_ws("|", *of, Lead.message))


def concerns(session: Session, lead: Lead) -> bool:
    """Does a follow-up task go out for the lead, or would one when it is approved?"""
    if session.scalar(sa.select(sa.exists().where(Delivery.lead_id == lead.id, Delivery.action == TASK))):
        return True
    if lead.intent in UNDELIVERABLE_INTENTS or lead.status is LeadStatus.REJECTED:
        return False
    there = [Destination.workspace_id == lead.workspace_id, Destination.kind.in_(_WITH_TASKS)]
    return bool(session.scalar(sa.select(sa.exists().where(*there, Destination.mode != DestinationMode.OFF))))


# Wanting


def want_for_deliveries(session: Session) -> int:
    """Want texts for tasks that wait to go out, where a model is to write them. Returns how many. The caller commits."""
    where = [
        sa.exists().where(Delivery.lead_id == Lead.id, Delivery.action == TASK, Delivery.state == DeliveryState.PENDING)
    ]
    return _want(session, where)


def want(session: Session, workspace_id: uuid.UUID, lead_ids: Sequence[uuid.UUID]) -> int:
    """Want texts of these leads, where a model is to write them. Returns how many. The caller commits."""
    return _want(session, [Lead.id.in_(lead_ids), Lead.workspace_id == workspace_id]) if lead_ids else 0


def _want(session: Session, where: Sequence[sa.ColumnElement[bool]]) -> int:
    """A text that stands is wanted anew only when the lead has changed; not when a person wrote it, or it has begun to
    go out."""
    stands = sa.exists().where(
        TaskText.lead_id == Lead.id,
        sa.or_(
            TaskText.basis == basis(),
            TaskText.used_at.is_not(None),
            TaskText.author == TextAuthor.PERSON,
            TaskText.state.in_(OPEN),
        ),
    )
    leads = (
        sa.select(sa.func.gen_random_uuid(), Lead.workspace_id, Lead.id, basis(), sa.literal(TextState.WANTED.value))
        .join(Workspace, Workspace.id == Lead.workspace_id)
        .where(*where, Lead.intent.not_in(UNDELIVERABLE_INTENTS), flags.is_on(Flag.LLM_COPYWRITING), ~stands)
    )
    columns = ["id", "workspace_id", "lead_id", "basis", "state"]
    new = insert(TaskText).from_select(columns, leads, include_defaults=False)
    wanted = new.on_conflict_do_update(
        index_elements=[TaskText.lead_id],
        set_={
            "state": TextState.WANTED, "basis": new.excluded.basis, "body": None, "author": None, "note": None,
            "model": None, "created_at": sa.func.now(), "due_at": sa.func.now(), "written_at": None,
        },
        where=sa.and_(
            TaskText.used_at.is_(None), TaskText.author != TextAuthor.PERSON, TaskText.state == TextState.WRITTEN
        ),
    )  # fmt: skip
    return len(session.execute(wanted.returning(TaskText.id)).all())


# Seeing and editing


@dataclass(frozen=True, slots=True)
class Preview:
    """What a lead's task will say, or has said (``used``). ``author`` None: it is being written, and ``body`` is what
    goes out should that take too long. ``changed``: the lead is another one since a person wrote it."""

    body: str
    author: TextAuthor | None
    note: str | None = None
    model: str | None = None
    edited_by: str | None = None
    used: bool = False
    changed: bool = False


def preview(session: Session, lead: Lead, snapshot: LeadSnapshot) -> Preview:
    row, now = _row(session, lead.id)
    if row is not None and row.state is TextState.WRITTEN and _stands(row, now):
        assert row.body is not None
        return Preview(
            row.body, row.author, row.note, row.model, row.edited_by, row.used_at is not None, row.basis != now
        )
    author = None if row is not None and row.state in OPEN else TextAuthor.TEMPLATE
    return Preview(_template(session, snapshot), author)


def _row(session: Session, lead_id: uuid.UUID, *, lock: bool = False) -> tuple[TaskText | None, str]:
    """(the lead's text, the lead's fingerprint now)."""
    query = sa.select(TaskText).where(TaskText.lead_id == lead_id).execution_options(populate_existing=True)
    now = session.scalars(sa.select(basis()).where(Lead.id == lead_id)).one()
    return session.scalar(query.with_for_update() if lock else query), now


def _stands(row: TaskText, now: str, *, changing: bool = False) -> bool:
    return row.basis == now or row.author is TextAuthor.PERSON or (row.used_at is not None and not changing)


def _template(session: Session, snapshot: LeadSnapshot) -> str:
    stored = session.scalar(sa.select(Workspace.settings["copywriting"]).where(Workspace.id == snapshot.workspace_id))
    return _rendered(snapshot, stored)


def _rendered(snapshot: LeadSnapshot, preferences: Any) -> str:
    """By the template. ``preferences``: as they are stored."""
    return task_template.render(snapshot, task_template.language_of(snapshot, Preferences.of(preferences).language))


def edit(session: Session, lead: Lead, body: str, *, actor: str) -> None:
    """Have the task say ``body``. Invalid when that is nothing or too long; Conflict when it has begun to go out. The
    caller commits."""
    body = body.replace("\r\n", "\n").replace("\x00", "").strip()
    if not 1 <= len(body) <= task_template.MAX_BODY:
        reason = f"must have 1 to {task_template.MAX_BODY:,} characters"
        raise Invalid("The text cannot be saved.", details=(Problem("body", reason),))
    row, now = _row(session, lead.id, lock=True)
    _refuse_used(row)
    if row is None:
        row = TaskText(workspace_id=lead.workspace_id, lead_id=lead.id, attempt=0)
        session.add(row)
    # The token of whoever may be writing it does not fit any more.
    row.attempt, row.state, row.lease_until = row.attempt + 1, TextState.WRITTEN, None
    row.body, row.author, row.basis, row.edited_by = body, TextAuthor.PERSON, now, actor
    row.note, row.model, row.written_at = None, None, sa.func.now()
    audit.record(session, lead.workspace_id, "TASK_TEXT_EDITED", actor=actor, lead_id=lead.id)
    session.flush()


def discard(session: Session, lead: Lead, *, actor: str) -> None:
    """Forget the text that stands: the template, or what the model writes anew, takes its place. Conflict when it has
    begun to go out. The caller commits."""
    row, _ = _row(session, lead.id, lock=True)
    _refuse_used(row)
    if row is not None:
        session.delete(row)
        audit.record(session, lead.workspace_id, "TASK_TEXT_DISCARDED", actor=actor, lead_id=lead.id)
        session.flush()
    want(session, lead.workspace_id, [lead.id])


def _refuse_used(row: TaskText | None) -> None:
    if row is not None and row.used_at is not None:
        raise Conflict("The task has begun to go out, so its text stays. Change it in the CRM.")


# Going out


@cache
def ready() -> sa.ColumnElement[bool]:
    """Deliveries that do not wait for a text: all but tasks whose text is being written."""
    written = sa.exists().where(
        TaskText.lead_id == Delivery.lead_id,
        TaskText.state.in_(OPEN),
        TaskText.created_at > sa.func.now() - PATIENCE,
    )
    return sa.or_(Delivery.action != TASK, ~written)


def use(
    session: Session, snapshots: Sequence[LeadSnapshot], *, changing: Set[uuid.UUID] = frozenset()
) -> dict[uuid.UUID, str]:
    """Lead → the text with which its task goes out now, fixed from here on: what stands, else the template. In the
    transaction that claims the deliveries, once. ``changing``: leads whose tasks are there and are to say what the lead is
    now, so that the text that one went out with only stands where it still fits, or is a person's."""
    leads = {snapshot.lead_id: snapshot for snapshot in snapshots}
    if not leads:
        return {}
    ids = {"ids": list(leads)}
    texts: dict[uuid.UUID, str] = {}
    new: list[tuple[uuid.UUID, str, str]] = []
    begun: list[uuid.UUID] = []
    for lead_id, now, copywriting, row in session.execute(_fixing(), ids):
        if row is not None and row.state is TextState.WRITTEN and _stands(row, now, changing=lead_id in changing):
            assert row.body is not None
            texts[lead_id] = row.body
            if row.used_at is None:
                begun.append(row.id)
        else:
            texts[lead_id] = _rendered(leads[lead_id], copywriting)
            new.append((lead_id, now, texts[lead_id]))
    if begun:
        used = sa.update(TaskText).where(TaskText.id.in_(begun)).values(used_at=sa.func.now())
        session.execute(used.execution_options(synchronize_session=False))
    _fix_templates(session, leads, new)
    return texts


@cache
def _fixing() -> sa.Select[*tuple[Any, ...]]:
    """Of leads: id, fingerprint, what is preferred there, and the text there is, locked. By lead, so that two workers cannot
    deadlock."""
    texts = sa.select(TaskText).where(TaskText.lead_id == any_of("ids")).order_by(TaskText.lead_id)
    locked = aliased(TaskText, texts.with_for_update().cte("locked"))
    return (
        sa.select(Lead.id, basis(), Workspace.settings["copywriting"], locked)
        .join(Workspace, Workspace.id == Lead.workspace_id)
        .outerjoin(locked, locked.lead_id == Lead.id)
        .where(Lead.id == any_of("ids"))
        .order_by(Lead.id)
        .execution_options(populate_existing=True)
    )


#: Arrays, so that it is one statement for any number of texts.
_FIX = sa.text(
    """
    INSERT INTO task_texts (id, workspace_id, lead_id, state, body, author, basis, written_at, used_at)
    SELECT f.id, f.workspace_id, f.lead_id, 'written', f.body, 'template', f.basis, now(), now()
    FROM unnest(
        CAST(:id AS uuid[]), CAST(:workspace_id AS uuid[]), CAST(:lead_id AS uuid[]), CAST(:body AS text[]),
        CAST(:basis AS text[])
    ) AS f (id, workspace_id, lead_id, body, basis)
    ON CONFLICT (lead_id) DO UPDATE SET
        state = 'written', body = excluded.body, author = 'template', basis = excluded.basis, model = NULL,
        note = 'its text was not ready in time', written_at = now(), used_at = now(), lease_until = NULL,
        attempt = task_texts.attempt + 1
    """
)


def _fix_templates(
    session: Session, leads: Mapping[uuid.UUID, LeadSnapshot], new: Sequence[tuple[uuid.UUID, str, str]]
) -> None:
    """Store the template's texts (lead, fingerprint, text). The token of whoever may be writing one does not fit any
    more."""
    if not new:
        return
    given = {
        "id": [new_id() for _ in new],
        "workspace_id": [leads[lead_id].workspace_id for lead_id, _, _ in new],
        "lead_id": [lead_id for lead_id, _, _ in new],
        "basis": [now for _, now, _ in new],
        "body": [body for _, _, body in new],
    }
    session.execute(_FIX, given)

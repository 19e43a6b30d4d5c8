"""The versions of a workspace's rules: the draft, activation, the way back, and what its leads are judged by.

A version holds changes to the shipped rules (``ruleset_changes``). A numbered version never changes, so its compiled
form is kept by its id and a process need not ask whether it still holds: it asks only which version is active.
"""

import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, ruleset_changes, verdict
from webapp.leads.errors import Conflict, Invalid, NotFound
from webapp.leads.ruleset import Ruleset, default_ruleset
from webapp.leads.ruleset_changes import Change, Key
from webapp.leads.stages.classify import Judge
from webapp.models.account import Workspace
from webapp.models.judging import RulesetVersion

log = logging.getLogger(__name__)

#: Compiled versions that a process keeps, those used last; each takes up to some megabytes.
_KEPT = 64
_compiled: OrderedDict[uuid.UUID, Ruleset] = OrderedDict()
_lock = threading.Lock()


def compiled(session: Session, ruleset_id: uuid.UUID | None) -> Ruleset | None:
    """The version, ready to judge by; None for the shipped rules as they are. Compiled once in a process."""
    if ruleset_id is None:
        return None
    with _lock:
        if ruleset_id in _compiled:
            _compiled.move_to_end(ruleset_id)
            return _compiled[ruleset_id]
    row = session.execute(
        sa.select(RulesetVersion.changes, RulesetVersion.number).where(RulesetVersion.id == ruleset_id)
    ).one()
    ruleset, problems = ruleset_changes.compile_changes(ruleset_changes.read(row.changes), str(row.number))
    if problems:
        log.warning("%d changes of ruleset %s have no effect with the shipped rules of now", len(problems), ruleset_id)
    with _lock:
        _compiled[ruleset_id] = ruleset
        while len(_compiled) > _KEPT:
            _compiled.popitem(last=False)
    return ruleset


def judge_by(rules: Ruleset | None) -> Judge:
    """The judge that goes by ``rules`` (None: the shipped ones)."""
    return verdict.judge if rules is None else partial(verdict.judge, rules=rules)


def judge_of(session: Session, ruleset_id: uuid.UUID | None) -> Judge:
    """The judge that goes by a version."""
    return judge_by(compiled(session, ruleset_id))


def compiled_draft(draft: RulesetVersion) -> Ruleset:
    """The draft as it stands, compiled for this once."""
    return ruleset_changes.compile_changes(ruleset_changes.read(draft.changes), "draft")[0]


def active(session: Session, workspace_id: uuid.UUID) -> RulesetVersion | None:
    """None: the shipped rules as they are."""
    return session.scalars(_of(workspace_id).where(RulesetVersion.active)).one_or_none()


def draft(session: Session, workspace_id: uuid.UUID) -> RulesetVersion | None:
    return session.scalars(_of(workspace_id).where(RulesetVersion.number.is_(None))).one_or_none()


def versions(session: Session, workspace_id: uuid.UUID, *, most: int = 50) -> Sequence[RulesetVersion]:
    """The numbered ones, newest first."""
    numbered = _of(workspace_id).where(RulesetVersion.number.is_not(None))
    return session.scalars(numbered.order_by(RulesetVersion.number.desc()).limit(most)).all()


def change(session: Session, workspace_id: uuid.UUID, changes: Sequence[Change], *, actor: str) -> RulesetVersion:
    """Put changes into the draft, beginning one from the active version where there is none. A change replaces the
    one of the same phrase. Invalid names what is wrong, and then nothing is changed."""
    _lock_workspace(session, workspace_id)
    found = _open_draft(session, workspace_id, actor)
    merged = {one.key: one for one in ruleset_changes.read(found.changes)} | {one.key: one for one in changes}
    if problems := ruleset_changes.problems_of(list(merged.values())):
        raise Invalid("The draft would not be valid.", details=tuple(problems))
    _store(session, found, list(merged.values()), actor)
    return found


def restore(session: Session, workspace_id: uuid.UUID, key: Key, *, actor: str) -> None:
    """Take one change out of the draft: an added phrase goes, a shipped one is again as it is shipped."""
    _lock_workspace(session, workspace_id)
    found = _open_draft(session, workspace_id, actor)
    left = [one for one in ruleset_changes.read(found.changes) if one.key != key]
    _store(session, found, left, actor)


def discard(session: Session, workspace_id: uuid.UUID, *, actor: str) -> None:
    """Throw the draft away."""
    _lock_workspace(session, workspace_id)
    found = draft(session, workspace_id)
    if found is None:
        raise NotFound("There is no draft.")
    audit.record(session, workspace_id, "RULES_DISCARDED", actor=actor, changes=len(found.changes))
    session.delete(found)
    session.flush()


def activate(session: Session, workspace_id: uuid.UUID, *, revision: int, note: str, actor: str) -> RulesetVersion:
    """The draft becomes the next version, and what leads are judged by from now on. Conflict when it is not the draft
    that was looked at any more (``revision``); Invalid when it is not valid with the shipped rules of now."""
    _lock_workspace(session, workspace_id)
    found = draft(session, workspace_id)
    if found is None:
        raise NotFound("There is no draft.")
    if found.revision != revision:
        raise Conflict(f"The draft was changed by {found.updated_by} meanwhile. Look at it again, then activate it.")
    if problems := ruleset_changes.problems_of(ruleset_changes.read(found.changes)):
        raise Invalid("The draft is not valid.", details=tuple(problems))
    last = session.scalar(sa.select(sa.func.max(RulesetVersion.number)).where(_mine(workspace_id))) or 0
    before = _deactivate(session, workspace_id)
    found.number, found.active, found.note = last + 1, True, note.strip()[:500]
    found.base = default_ruleset().version
    found.activated_by, found.activated_at = actor, sa.func.now()
    session.flush()
    audit.record(
        session, workspace_id, "RULES_ACTIVATED", actor=actor, version=found.number, before=before,
        changes=len(found.changes), note=found.note,
    )  # fmt: skip
    session.flush()
    return found


def go_back(session: Session, workspace_id: uuid.UUID, ruleset_id: uuid.UUID | None, *, actor: str) -> None:
    """Judge by an earlier version again (None: by the shipped rules as they are). A draft is left alone."""
    _lock_workspace(session, workspace_id)
    target = None
    if ruleset_id is not None:
        wanted = _of(workspace_id).where(RulesetVersion.id == ruleset_id, RulesetVersion.number.is_not(None))
        target = session.scalars(wanted).one_or_none()
        if target is None:
            raise NotFound("There is no such version.")
        if target.active:
            return
    before = _deactivate(session, workspace_id)
    if target is None and before is None:
        return
    if target is not None:
        target.active = True
        session.flush()
    audit.record(
        session, workspace_id, "RULES_ROLLED_BACK", actor=actor, version=target.number if target else None,
        before=before,
    )  # fmt: skip
    session.flush()


def difference(before: Sequence[Change], after: Sequence[Change]) -> list[tuple[Change | None, Change | None]]:
    """What two versions say differently, (before, after) by phrase; None: as shipped, or not there."""
    old, new = ({one.key: one for one in side} for side in (before, after))
    keys = dict.fromkeys([*old, *new])
    return [(old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def _of(workspace_id: uuid.UUID) -> sa.Select[RulesetVersion]:
    return sa.select(RulesetVersion).where(_mine(workspace_id))


def _mine(workspace_id: uuid.UUID) -> sa.ColumnElement[bool]:
    return RulesetVersion.workspace_id == workspace_id


def _lock_workspace(session: Session, workspace_id: uuid.UUID) -> None:
    """One change of the rules at a time. Not the row that leads' foreign keys look at: those need no update of it."""
    session.execute(sa.select(Workspace.id).where(Workspace.id == workspace_id).with_for_update(key_share=True))


def _open_draft(session: Session, workspace_id: uuid.UUID, actor: str) -> RulesetVersion:
    found = draft(session, workspace_id)
    if found is None:
        now = active(session, workspace_id)
        found = RulesetVersion(
            workspace_id=workspace_id, changes=list(now.changes) if now else [], base=default_ruleset().version,
            created_by=actor, updated_by=actor,
        )  # fmt: skip
        session.add(found)
        session.flush()
        session.refresh(found)
    return found


def _store(session: Session, found: RulesetVersion, changes: Sequence[Change], actor: str) -> None:
    found.changes = [one.as_json() for one in changes]
    found.revision += 1
    found.updated_by, found.updated_at = actor, sa.func.now()
    session.flush()


def _deactivate(session: Session, workspace_id: uuid.UUID) -> int | None:
    """The number of the version that was active."""
    now = active(session, workspace_id)
    if now is None:
        return None
    now.active = False
    session.flush()
    return now.number

"""Write the texts of follow-up tasks that are wanted: ask a model outside any transaction, check what it says, store it.

Whatever goes wrong (slow, an error, a refusal, nonsense, something that the lead never said) ends in the template, with
the reason. A message that talks to the machine is never put to it.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from webapp.leads import (
    audit,
    claims,
    judging,
    judging_policy,
    llm_usage,
    sending,
    suspicion,
    task_check,
    task_template,
    task_texts,
)
from webapp.leads.claims import TEXTS, Claim, Holder, SlotTaken
from webapp.leads.ports import Brief, Copywriter, Drained, LeadSnapshot, ModelFailed, Usage
from webapp.leads.states import TextAuthor, TextState
from webapp.leads.task_texts import Preferences
from webapp.models.account import User, Workspace
from webapp.models.base import interval
from webapp.models.lead import Lead, Person
from webapp.models.work import TaskText

log = logging.getLogger(__name__)

#: Questions under way at once.
THREADS = 8
#: After so many failures in a row the model is left alone for a while: the template is there at once.
FAILURES = 3
LEFT_ALONE_SECONDS = 60.0


@dataclass(slots=True)
class Writing:
    """A process's model and what it has come to. ``patience``: seconds after which an answer is not waited for,
    whatever the client makes of its own time limit."""

    writer: Copywriter | None = None
    patience: float = 60.0
    failures: int = 0
    left_alone_until: float = field(default=float("-inf"))

    def failed(self) -> None:
        self.failures += 1
        if self.failures >= FAILURES:
            self.failures, self.left_alone_until = 0, time.monotonic() + LEFT_ALONE_SECONDS

    @property
    def unavailable(self) -> str | None:
        """Why it is not asked at all, in words."""
        if self.writer is None:
            return "no model is configured"
        return "the model failed just before and is left alone" if time.monotonic() < self.left_alone_until else None


TEMPLATES = Writing()


@dataclass(frozen=True, slots=True)
class Written:
    """A text and how it came about."""

    body: str
    author: TextAuthor
    note: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """``spent``: why no model is asked today any more, in words."""

    claim: Claim
    lead: LeadSnapshot
    preferences: Preferences
    spent: str | None = None


def process(
    session_factory: sessionmaker[Session],
    holder: Holder,
    writing: Writing,
    *,
    max_seconds: float = 5.0,
    stop: Callable[[], bool] = lambda: False,
) -> Drained:
    """Write wanted texts until none is left or a bound is reached; questions under way are waited for. Raises
    SlotTaken."""
    until = time.monotonic() + max_seconds
    done = 0
    while not stop() and time.monotonic() < until:
        with session_factory.begin() as session:
            if not claims.is_current(session, holder):
                raise SlotTaken(holder.slot)
            task_texts.want_for_deliveries(session)
            jobs = _load(session, claims.claim(session, TEXTS, holder, limit=THREADS, seconds=writing.patience + 30))
        if not jobs:
            break
        for job, written in _write(jobs, writing):
            with session_factory.begin() as session:
                done += _save(session, job, written)
    with session_factory() as session:
        return Drained(done, claims.has_due(session, TEXTS))


def _load(session: Session, held: Sequence[Claim]) -> list[_Job]:
    tokens = {claim.id: claim for claim in held}
    if not tokens:
        return []
    rows = session.execute(
        sa.select(TaskText.id, Lead, Person, User)
        .join(Lead, Lead.id == TaskText.lead_id)
        .outerjoin(Person, Person.id == Lead.person_id)
        .outerjoin(User, User.id == Lead.assignee_id)
        .where(TaskText.id.in_(tokens))
        .execution_options(populate_existing=True)
    ).all()
    known = {workspace_id: _known(session, workspace_id) for workspace_id in {row[1].workspace_id for row in rows}}
    return [_Job(tokens[row[0]], sending.snapshot(row[1], row[2], row[3]), *known[row[1].workspace_id]) for row in rows]


def _known(session: Session, workspace_id: uuid.UUID) -> tuple[Preferences, str | None]:
    """(a workspace's preferences, why no model is asked for it today any more)."""
    kept = (Workspace.settings["copywriting"], Workspace.settings["classify"])
    stored, judged = session.execute(sa.select(*kept).where(Workspace.id == workspace_id)).one()
    spent = llm_usage.over_budget(session, workspace_id, judging_policy.Preferences.of(judged))
    return Preferences.of(stored, judging=judged), spent


def _write(jobs: Sequence[_Job], writing: Writing) -> list[tuple[_Job, Written]]:
    """Ask for all at once, each in a thread of its own; not a pool's, since the other side may never answer."""
    flying: dict[Future[Written], _Job] = {}
    until = time.monotonic() + writing.patience
    for job in jobs:
        future: Future[Written] = Future()
        answer = lambda future=future, job=job: future.set_result(write(job.lead, job.preferences, writing, job.spent))  # noqa: E731
        threading.Thread(target=answer, name=f"write {job.claim.id}", daemon=True).start()
        flying[future] = job
    found: list[tuple[_Job, Written]] = []
    while flying:
        done, _ = wait(flying, timeout=max(until - time.monotonic(), 0), return_when=FIRST_COMPLETED)
        if not done:
            writing.failed()
            note = f"the model gave no answer within {writing.patience:g} s"
            found += [(job, _by_template(job.lead, job.preferences, note)) for job in flying.values()]
            break
        found += [(flying.pop(future), future.result()) for future in done]
    return found


def _save(session: Session, job: _Job, written: Written) -> int:
    """1 when the text was still this worker's to write."""
    usage = written.usage
    held = session.scalar(
        sa.update(TaskText)
        .where(TaskText.id == job.claim.id, TaskText.attempt == job.claim.attempt, TaskText.state == TextState.WRITING)
        .values(
            state=TextState.WRITTEN,
            body=written.body,
            author=written.author,
            note=written.note,
            model=usage.model if usage and written.author is TextAuthor.MODEL else None,
            written_at=sa.func.now(),
            lease_until=None,
        )
        .returning(TaskText.id)
        .execution_options(synchronize_session=False)
    )
    if held is None:
        return 0
    _told(session, job.lead, written)
    return 1


def _told(session: Session, lead: LeadSnapshot, written: Written) -> None:
    usage = written.usage
    if usage is not None:
        llm_usage.record(
            session, lead.workspace_id, usage, purpose="copywriting", lead_id=lead.lead_id, error=written.note
        )
    audit.record(
        session, lead.workspace_id, "TASK_TEXT_WRITTEN", lead_id=lead.lead_id, author=written.author.value,
        note=written.note, model=usage.model if usage else None,
    )  # fmt: skip


def write(lead: LeadSnapshot, preferences: Preferences, writing: Writing, spent: str | None = None) -> Written:
    """The text of a lead's task, by the model if it may be, else by the template; never raises. ``spent``: why it may
    not be today any more. Outside any transaction."""
    why = writing.unavailable or spent
    if why is None and suspicion.gives_orders(lead.message):
        why = "part of the message addresses the machine, so the model was not asked"
    if why is None and not any(character.isalnum() for character in lead.message):
        why = "there are no words to write about"
    if why is not None or writing.writer is None:
        return _by_template(lead, preferences, why)
    message = lead.message[: judging.LONGEST_ASKED]
    if not preferences.unmasked:
        message = judging.masked(message, (lead.name, lead.author_name), (lead.company,))
    language = task_template.language_of(lead, preferences.language)
    try:
        said = writing.writer.suggest(Brief(message, lead.intent, lead.priority, language))
    except ModelFailed as failed:
        writing.failed()
        return _by_template(lead, preferences, failed.message[:300], failed.usage)
    except Exception as error:  # a bug of a client is no reason to hold up a task, and its text may hold anything
        log.error("asking for a task's text failed: %s", type(error).__name__)
        writing.failed()
        return _by_template(lead, preferences, f"internal error: {type(error).__name__}")
    writing.failures = 0
    problem = task_check.problem_of(said, lead, message)
    if problem is not None:
        return _by_template(lead, preferences, f"the model {problem}", said.usage)
    steps, points = task_check.usable(said)
    summary = task_check.unmasked(said.summary, lead)
    body = task_template.render(lead, language, steps=steps, summary=summary, points=points)
    return Written(body, TextAuthor.MODEL, usage=said.usage)


def _by_template(lead: LeadSnapshot, preferences: Preferences, note: str | None, usage: Usage | None = None) -> Written:
    language = task_template.language_of(lead, preferences.language)
    return Written(task_template.render(lead, language), TextAuthor.TEMPLATE, note, usage)


def text_for(session_factory: Callable[[], Any], lead: LeadSnapshot, writing: Writing) -> str:
    """The text of a lead's task for who cannot wait for a worker: what stands, else written now, and stored. Outside any
    transaction."""
    with session_factory() as session:
        task_texts.want(session, lead.workspace_id, [lead.lead_id])
        row = session.execute(
            sa.select(TaskText.id, TaskText.attempt, TaskText.state).where(TaskText.lead_id == lead.lead_id)
        ).first()
        claim = None
        if row is not None and row.state is TextState.WANTED:
            claim = _take(session, row.id, row.attempt)
        preferences, spent = _known(session, lead.workspace_id)
        session.commit()
    if claim is not None:
        (written,) = _write([_Job(claim, lead, preferences, spent)], writing)
        with session_factory() as session:
            _save(session, *written)
            session.commit()
    with session_factory() as session:
        body = task_texts.use(session, [lead])[lead.lead_id]
        session.commit()
    return body


def _take(session: Session, text_id: uuid.UUID, attempt: int) -> Claim | None:
    """Write this one now, whoever would have."""
    lease = interval(120.0)
    taken = session.scalar(
        sa.update(TaskText)
        .where(TaskText.id == text_id, TaskText.attempt == attempt, TaskText.state == TextState.WANTED)
        .values(
            state=TextState.WRITING, attempt=TaskText.attempt + 1, lease_until=sa.func.now() + lease, slot=None,
            incarnation=None,
        )
        .returning(TaskText.attempt)
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    return Claim(text_id, taken) if taken is not None else None

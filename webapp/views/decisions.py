"""Decisions on one lead and on many: approve, override, reject, undo."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, request
from sqlalchemy.orm import Session

from jobs.queue import ring
from webapp.extensions import db
from webapp.leads import history, queries, review
from webapp.leads.errors import Conflict, Invalid, LeadError, NotFound
from webapp.leads.states import DecisionAction, Intent, Priority, RejectReason, Role
from webapp.models.lead import Decision
from webapp.security.roles import requires
from webapp.views import helpers, queue, words
from webapp.views.lead import user_from

bp = Blueprint("decisions", __name__)

#: The same person deciding the same within so many seconds clicked twice.
DOUBLE_CLICK = timedelta(seconds=30)


@bp.get("/queue/<uuid:lead_id>/<any(override, reject):kind>")
@requires(Role.REVIEWER)
def form(lead_id: uuid.UUID, kind: str) -> Any:
    """The form to override or reject: a page of its own, or in a dialog on the lead's."""
    return _form(lead_id, kind, helpers.filter_args())


def _form(lead_id: uuid.UUID, kind: str, args: dict[str, str], *, problems: dict[str, str] | None = None) -> Any:
    lead = history.lead(db.session(), helpers.here(), lead_id)
    return helpers.show(
        "pages/decide.html",
        "form",
        lead=lead,
        kind=kind,
        qs=helpers.query_string(args),
        args=args,
        given=request.form,
        problems=problems or {},
        intents=list(Intent),
        priorities=list(Priority),
        reject_reasons=list(RejectReason),
        status=422 if problems else 200,
    )


@bp.post("/queue/<uuid:lead_id>/approve")
@requires(Role.REVIEWER)
def approve(lead_id: uuid.UUID) -> Any:
    return _decide(lead_id, DecisionAction.APPROVE)


@bp.post("/queue/<uuid:lead_id>/override")
@requires(Role.REVIEWER)
def override(lead_id: uuid.UUID) -> Any:
    return _decide(lead_id, DecisionAction.OVERRIDE)


@bp.post("/queue/<uuid:lead_id>/reject")
@requires(Role.REVIEWER)
def reject(lead_id: uuid.UUID) -> Any:
    return _decide(lead_id, DecisionAction.REJECT)


def _decide(lead_id: uuid.UUID, action: DecisionAction) -> Any:
    session, args = db.session(), helpers.back_args()
    version = _version(request.form.get("version", ""))
    try:
        following = queries.neighbour(session, helpers.here(), helpers.parse_filter(args), lead_id)
        decision = review.decide(
            session,
            helpers.here(),
            lead_id,
            action=action,
            version=version,
            actor=helpers.actor(),
            undo_seconds=helpers.settings().undo_window_seconds,
            intent=helpers.chosen("intent", Intent) if action is DecisionAction.OVERRIDE else None,
            priority=helpers.chosen("priority", Priority) if action is DecisionAction.OVERRIDE else None,
            reject_reason=helpers.chosen("reject_reason", RejectReason) if action is DecisionAction.REJECT else None,
            reason=request.form.get("reason", "").strip() or None,
        )
    except Invalid as error:
        session.rollback()
        if action is DecisionAction.APPROVE:
            raise
        return _form(lead_id, action.value, args, problems=helpers.problems_of(error))
    except Conflict as error:
        session.rollback()
        if _clicked_twice(session, lead_id, action, version):
            return helpers.see("lead.show", lead_id=lead_id, **args)
        return _stale(lead_id, error, args)
    lead = history.lead(session, helpers.here(), lead_id)
    name, undo_until = words.sender(lead), decision.undo_until
    session.commit()
    ring("deliveries")
    helpers.toast(words.DONE[action], name, lead_id=lead_id, until=undo_until)
    return helpers.see("lead.show", lead_id=following or lead_id, **args)


def _version(given: str) -> int:
    if not given.isdigit() or len(given) > 9:
        raise Invalid("This form is not complete. Open the lead again and repeat it.")
    return int(given)


def _clicked_twice(session: Session, lead_id: uuid.UUID, action: DecisionAction, version: int) -> bool:
    """The form came a second time, and what it asked for is what stands: nothing to complain about."""
    lead = history.lead(session, helpers.here(), lead_id)
    last = history.last_decision(session, lead)
    return bool(
        last
        and last.user_id == helpers.me()
        and last.action is action
        and lead.version == version + 1
        and datetime.now(UTC) - last.created_at < DOUBLE_CLICK
    )


def _stale(lead_id: uuid.UUID, error: Conflict, args: dict[str, str]) -> Any:
    """409: who did what meanwhile, and a button to the lead as it stands now."""
    return helpers.show(
        "pages/conflict.html",
        "conflict",
        lead=history.lead(db.session(), helpers.here(), lead_id),
        what=error.message,
        args=args,
        status=409,
    )


@bp.post("/queue/<uuid:lead_id>/undo")
@requires(Role.REVIEWER)
def undo(lead_id: uuid.UUID) -> Any:
    session, args = db.session(), helpers.back_args()
    try:
        lead = review.undo(
            session, helpers.here(), lead_id, actor=helpers.actor(), hold_seconds=helpers.settings().undo_window_seconds
        )
        name = words.sender(lead)
        session.commit()
    except Conflict as error:
        session.rollback()
        return _stale(lead_id, error, args)
    ring("deliveries")
    helpers.toast("Taken back", name, lead_id=lead_id)
    return helpers.see("lead.show", lead_id=lead_id, **args)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one of many. ``row`` None: there is no such lead here."""

    lead_id: uuid.UUID
    ok: bool
    text: str
    row: queries.LeadRow | None = None
    undo_until: datetime | None = None


@bp.post("/queue/bulk")
@requires(Role.REVIEWER)
def bulk() -> Any:
    """The same for each selected lead, each on its own: one that fails holds up no other."""
    session, args = db.session(), helpers.back_args()
    chosen = _selected()
    act = request.form.get("action", "")
    if not chosen or act not in ("approve", "reject", "assign", "undo"):
        raise Invalid("Nothing was selected, or nothing to do with it.")
    if act == "reject" and helpers.chosen("reject_reason", RejectReason) is None:
        raise Invalid("Choose why the selected leads are rejected.")
    results = [_one(session, act, lead_id, version) for lead_id, version in sorted(chosen.items())]
    session.commit()
    ring("deliveries")
    rows = {row.id: row for row in queries.rows_by_id(session, helpers.here(), list(chosen))}
    results = [Result(r.lead_id, r.ok, r.text, rows.get(r.lead_id), r.undo_until) for r in results]
    around = queue.context(args) if helpers.is_htmx() else {"args": args, "qs": helpers.query_string(args)}
    until = [result.undo_until for result in results if result.undo_until]
    return helpers.show(
        "pages/bulk.html", "results", **around, results=results, act=act, touched=list(rows.values()),
        done=sum(result.ok for result in results), undo_until=min(until) if until else None,
    )  # fmt: skip


def _selected() -> dict[uuid.UUID, int]:
    """lead → version as it was shown, from ``lead=id:version`` fields."""
    chosen = {}
    for value in request.form.getlist("lead"):
        lead_id, _, version = value.partition(":")
        try:
            chosen[uuid.UUID(lead_id)] = _version(version)
        except ValueError:
            raise Invalid("This form is not complete. Open the list again and repeat it.") from None
    most = helpers.settings().max_batch_size
    if len(chosen) > most:
        raise Invalid(f"At most {most:,} leads at a time.")
    return chosen


def _one(session: Session, act: str, lead_id: uuid.UUID, version: int) -> Result:
    until = None
    try:
        with session.begin_nested():
            if act == "assign":
                review.assign(
                    session, helpers.here(), lead_id,
                    user_id=user_from(request.form.get("assignee", "")), actor=helpers.actor(),
                )  # fmt: skip
                said = "assigned"
            elif act == "undo":
                review.undo(
                    session,
                    helpers.here(),
                    lead_id,
                    actor=helpers.actor(),
                    hold_seconds=helpers.settings().undo_window_seconds,
                )
                said = "taken back"
            else:
                until = _decide_one(session, act, lead_id, version).undo_until
                said = words.DONE[DecisionAction(act)].lower()
    except NotFound:
        return Result(lead_id, False, "There is no such lead in this workspace.")
    except (Conflict, Invalid) as error:
        return Result(lead_id, False, _in_words(error))
    return Result(lead_id, True, said, undo_until=until)


def _decide_one(session: Session, act: str, lead_id: uuid.UUID, version: int) -> Decision:
    action = DecisionAction(act)
    return review.decide(
        session,
        helpers.here(),
        lead_id,
        action=action,
        version=version,
        actor=helpers.actor(),
        undo_seconds=helpers.settings().undo_window_seconds,
        reject_reason=helpers.chosen("reject_reason", RejectReason) if action is DecisionAction.REJECT else None,
        reason=request.form.get("reason", "").strip() or None,
    )


def _in_words(error: LeadError) -> str:
    reasons = "; ".join(problem.reason for problem in error.details)
    return reasons if isinstance(error, Invalid) and reasons else error.message

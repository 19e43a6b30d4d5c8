"""One lead: what was said, what the machine made of it and why, what has happened, what can be done."""

import uuid
from collections.abc import Sequence
from typing import Any

from flask import Blueprint, request
from flask_login import current_user
from sqlalchemy.orm import Session

from jobs.queue import ring
from webapp.extensions import db
from webapp.leads import deliver, history, lead_outcomes, review, run, suppression
from webapp.leads.states import DECIDED_STATUSES, WAITING_STATUSES, DecisionAction, Role, RunStatus
from webapp.leads.types import Verdict
from webapp.models.lead import Lead
from webapp.security.roles import requires
from webapp.views import (
    corrections,
    evidence,
    facts,
    helpers,
    judgement,
    knowledge,
    people,
    queue,
    routed,
    task_texts,
    waterfall,
)

bp = Blueprint("lead", __name__)


@bp.get("/queue/<uuid:lead_id>")
@requires(Role.VIEWER)
def show(lead_id: uuid.UUID) -> Any:
    return page(lead_id)


def page(lead_id: uuid.UUID, *, args: dict[str, str] | None = None, status: int = 200, **extra: Any) -> Any:
    """The lead beside its list; for htmx the lead alone, with the rows and counts that toasts speak of."""
    args = helpers.filter_args() if args is None else args
    present = _present(db.session(), lead_id)
    shown = pane(db.session(), history.lead(db.session(), helpers.here(), lead_id), present) | extra
    response = _beside(shown, args, status)
    db.session.commit()  # a text that the model is to write, since somebody has looked
    return response


def _present(session: Session, lead_id: uuid.UUID) -> Sequence[review.Present]:
    """Who has the lead open; reviewers claim it softly by opening it. Committed before anything of the lead is read: the
    heartbeat holds its row, which a decision or a run would wait for, and what is read before a commit is read again."""
    if not helpers.may(Role.REVIEWER):
        return review.who_is_here(session, lead_id)
    present = review.be_present(session, helpers.here(), lead_id, helpers.me())
    session.commit()
    return present


def _beside(shown: dict[str, Any], args: dict[str, str], status: int) -> Any:
    if not helpers.is_htmx("pane"):
        return helpers.show("pages/queue.html", **queue.context(args), pane=shown, status=status)
    said = helpers.toasts()
    touched = [uuid.UUID(one["lead"]) for one in said if one["lead"]]
    around: dict[str, Any] = {"args": args, "qs": helpers.query_string(args), "touched": [], "said": said}
    if touched:
        around |= queue.context(args) | {
            "touched": queue.queries.rows_by_id(db.session(), helpers.here(), touched),
        }
    return helpers.show("pages/queue.html", "pane", pane=shown, status=status, **around)


def pane(session: Session, lead: Lead, present: Sequence[review.Present]) -> dict[str, Any]:
    """Everything that the lead's side of the page shows. ``present``: who has it open."""
    verdict = stored_verdict(lead)
    runs, events = history.runs_of(session, lead), history.events_of(session, lead)
    decision = history.last_decision(session, lead) if lead.status in DECIDED_STATUSES else None
    window = helpers.settings().undo_window_seconds
    preview = deliver.preview(session, lead)
    known = knowledge.of(lead)
    return {
        "lead": lead,
        "verdict": verdict,
        "pieces": evidence.pieces(lead.message, verdict),
        "why": evidence.why(lead.message, verdict) if verdict else None,
        "judgement": judgement.of(verdict, lead.message) if verdict else None,
        "facts": facts.of(lead, runs),
        "known": known,
        "conflicts": knowledge.conflicts(known),
        "corrections": corrections.of(lead),
        "sent": facts.sent(lead),
        "runs": runs,
        "pending": bool(runs) and runs[0].status in (RunStatus.QUEUED, RunStatus.RUNNING),
        "decided": lead.status in DECIDED_STATUSES,
        "decision": decision,
        "differs": bool(verdict and decision and (verdict.intent, verdict.priority) != (lead.intent, lead.priority)),
        "deliveries": history.deliveries_of(session, lead),
        "preview": preview,
        "sends": not all(
            line.startswith("Nothing") or ": nothing, " in line or line.endswith("already sent.") for line in preview
        ),
        "task": task_texts.section(session, lead),
        "events": events,
        "routed": routed.of(runs, events, helpers.me()),
        "touches": history.touches_of(session, lead),
        "duplicates": people.of(session, lead),
        "others": history.others_of(session, lead),
        "waiting": WAITING_STATUSES,
        "present": present,
        "me": helpers.me(),
        "workspace": current_user.workspace,
        "waterfall": waterfall.of(lead.score_parts, qualified_from=current_user.workspace.qualified_from),
        "outcomes": lead_outcomes.history(session, lead.workspace_id, lead.id),
        "suppression": suppression.entry_of(session, lead),
        "score_total": sum(part.get("points", 0) for part in lead.score_parts or ()),
        "undo_seconds": window,
        "action": DecisionAction,
    }


def stored_verdict(lead: Lead) -> Verdict | None:
    """None when what is stored cannot be read: the page then says so instead of breaking."""
    try:
        return Verdict.from_json(lead.verdict)
    except (KeyError, TypeError, ValueError):
        return None


@bp.post("/queue/<uuid:lead_id>/here")
@requires(Role.REVIEWER)
def heartbeat(lead_id: uuid.UUID) -> Any:
    """Tell that the page is still open; answers who else has it."""
    present = _present(db.session(), lead_id)
    return helpers.show("pages/here.html", present=present, me=helpers.me())


@bp.post("/queue/<uuid:lead_id>/leave")
@requires(Role.REVIEWER)
def leave(lead_id: uuid.UUID) -> Any:
    lead = history.lead(db.session(), helpers.here(), lead_id)
    review.leave(db.session(), lead.id, helpers.me())
    db.session.commit()
    return "", 204


@bp.post("/queue/<uuid:lead_id>/rerun")
@requires(Role.REVIEWER)
def rerun(lead_id: uuid.UUID) -> Any:
    session = db.session()
    run.request_rerun(session, history.lead(session, helpers.here(), lead_id), requested_by=current_user.user.name)
    session.commit()
    ring("runs")
    helpers.toast("Run queued", "its result shows here by itself")
    return helpers.see("lead.show", lead_id=lead_id, **helpers.back_args())


@bp.post("/queue/<uuid:lead_id>/assign")
@requires(Role.REVIEWER)
def assign(lead_id: uuid.UUID) -> Any:
    given = request.form.get("assignee", "")
    lead = review.assign(db.session(), helpers.here(), lead_id, user_id=user_from(given), actor=helpers.actor())
    db.session.commit()
    name = next((m.name for m in helpers.assignees() if m.id == lead.assignee_id), "nobody")
    helpers.toast("Assigned", f"to {name}", lead_id=lead_id)
    return helpers.see("lead.show", lead_id=lead_id, **helpers.back_args())


def user_from(given: str) -> uuid.UUID | None:
    """The member that a form names; empty is nobody. An id that is none names no member either."""
    if not given:
        return None
    if given == "me":
        return helpers.me()
    try:
        return uuid.UUID(given)
    except ValueError:
        return uuid.UUID(int=0)

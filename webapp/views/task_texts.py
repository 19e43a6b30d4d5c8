"""The text of a lead's follow-up task: seen before it goes out, edited, written anew."""

import uuid
from typing import Any

from flask import Blueprint, request
from flask_login import current_user
from sqlalchemy.orm import Session

from jobs.queue import FETCHES, ring
from webapp.extensions import db
from webapp.leads import flags, history, sending, task_template, task_texts
from webapp.leads.errors import Conflict, Invalid
from webapp.leads.flags import Flag
from webapp.leads.states import Role, TextAuthor
from webapp.models.lead import Lead
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("task_texts", __name__)


def section(session: Session, lead: Lead, **extra: Any) -> dict[str, Any] | None:
    """What the lead's page shows of it; None when no task goes out. A reviewer who looks has it written, where the model
    is to; the caller commits."""
    if not task_texts.concerns(session, lead):
        return None
    if helpers.may(Role.REVIEWER):
        task_texts.want(session, lead.workspace_id, [lead.id])
    snapshot = sending.snapshot(lead, lead.person, lead.assignee)
    return {
        "said": task_texts.preview(session, lead, snapshot),
        "author": TextAuthor,
        "by_model": flags.of_workspace(session, lead.workspace_id).on(Flag.LLM_COPYWRITING),
        "longest": task_template.MAX_BODY,
        **extra,
    }


def _page(lead_id: uuid.UUID, *, status: int = 200, **extra: Any) -> Any:
    session = db.session()
    lead = history.lead(session, helpers.here(), lead_id)
    shown = section(session, lead, **extra)
    session.commit()
    return helpers.show("pages/task_text.html", "task_text", lead=lead, task=shown, status=status)


@bp.get("/queue/<uuid:lead_id>/task-text")
@requires(Role.VIEWER)
def show(lead_id: uuid.UUID) -> Any:
    return _page(lead_id)


@bp.post("/queue/<uuid:lead_id>/task-text")
@requires(Role.REVIEWER)
def edit(lead_id: uuid.UUID) -> Any:
    session = db.session()
    lead, body = history.lead(session, helpers.here(), lead_id), request.form.get("body", "")
    try:
        task_texts.edit(session, lead, body, actor=current_user.user.name)
        session.commit()
    except Invalid as error:
        session.rollback()
        return _page(lead_id, status=422, problem=helpers.problems_of(error)["body"], given=body)
    except Conflict as error:
        session.rollback()
        return _page(lead_id, status=409, gone=error.message, given=body)
    return _done(lead_id, "Text saved", "the task will say this")


@bp.post("/queue/<uuid:lead_id>/task-text/anew")
@requires(Role.REVIEWER)
def anew(lead_id: uuid.UUID) -> Any:
    """Drop the text that stands; the model writes it anew, or the template takes its place."""
    session = db.session()
    try:
        task_texts.discard(session, history.lead(session, helpers.here(), lead_id), actor=current_user.user.name)
        session.commit()
    except Conflict as error:
        session.rollback()
        return _page(lead_id, status=409, gone=error.message)
    ring(FETCHES)
    return _done(lead_id, "Text dropped", "")


def _done(lead_id: uuid.UUID, text: str, detail: str) -> Any:
    if helpers.is_htmx("task-text"):
        return _page(lead_id)
    helpers.toast(text, detail)
    return helpers.see("lead.show", lead_id=lead_id, **helpers.back_args())

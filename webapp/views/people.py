"""People who may be one: merge them, say that they are not, take a merge back."""

import uuid
from typing import Any, NamedTuple

from flask import Blueprint
from sqlalchemy.orm import Session

from webapp.extensions import db
from webapp.leads import history, merging
from webapp.leads.errors import Conflict
from webapp.leads.lookalikes.weights import SAME_FROM
from webapp.leads.states import Role
from webapp.models.lead import Lead
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("people", __name__)


class Duplicates(NamedTuple):
    """What the lead's page tells of people: who may be the same, and who was merged."""

    look_alikes: list[merging.LookAlike]
    merges: list[merging.Merged]


def of(session: Session, lead: Lead) -> Duplicates:
    return Duplicates(merging.look_alikes(session, lead), merging.merges(session, lead))


def likeness(score: float) -> str:
    """How alike, in a word."""
    return (
        "Very likely the same" if score >= 0.95 else "Probably the same" if score >= SAME_FROM else "Possibly the same"
    )


@bp.app_template_filter("likeness")
def _likeness(score: float) -> str:
    return likeness(score)


@bp.post("/queue/<uuid:lead_id>/duplicates/<uuid:suggestion_id>/merge")
@requires(Role.REVIEWER)
def merge(lead_id: uuid.UUID, suggestion_id: uuid.UUID) -> Any:
    session, args = db.session(), helpers.back_args()
    try:
        done = merging.merge_suggested(session, helpers.here(), lead_id, suggestion_id, actor=helpers.actor())
        moved = len(done.lead_ids)
        session.commit()
    except Conflict as error:
        session.rollback()
        return _stale(lead_id, error, args)
    helpers.toast("Merged", f"{moved} lead{'' if moved == 1 else 's'} moved to this person; it can be undone here")
    return helpers.see("lead.show", lead_id=lead_id, **args)


@bp.post("/queue/<uuid:lead_id>/duplicates/<uuid:suggestion_id>/dismiss")
@requires(Role.REVIEWER)
def dismiss(lead_id: uuid.UUID, suggestion_id: uuid.UUID) -> Any:
    session, args = db.session(), helpers.back_args()
    try:
        merging.dismiss(session, helpers.here(), lead_id, suggestion_id, actor=helpers.actor())
        session.commit()
    except Conflict as error:
        session.rollback()
        return _stale(lead_id, error, args)
    helpers.toast("Not the same", "these two are not suggested again")
    return helpers.see("lead.show", lead_id=lead_id, **args)


@bp.post("/queue/<uuid:lead_id>/merges/<uuid:merge_id>/undo")
@requires(Role.REVIEWER)
def undo(lead_id: uuid.UUID, merge_id: uuid.UUID) -> Any:
    session, args = db.session(), helpers.back_args()
    history.lead(session, helpers.here(), lead_id)
    try:
        merging.undo(session, helpers.here(), merge_id, actor=helpers.actor())
        session.commit()
    except Conflict as error:
        session.rollback()
        return _stale(lead_id, error, args)
    helpers.toast("Merge undone", "the leads are back with the person whom they came from")
    return helpers.see("lead.show", lead_id=lead_id, **args)


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

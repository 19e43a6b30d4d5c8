"""Calls that drive the CRM: ``/sync-crm`` and ``/tasks/auto-assign`` (docs/api.md). Workers do the work; the callers
wait for it a while, as long as there is a place to wait in."""

import time
import uuid
from collections.abc import Callable
from typing import Literal, TypeVar

from flask import Blueprint, Response, current_app, jsonify, url_for

from jobs import queue
from webapp.api import auth
from webapp.api.openapi import Answer, documented
from webapp.api.schemas import Count, Out
from webapp.api.waiting import Turns
from webapp.extensions import db
from webapp.leads import crm_rounds, crm_sync
from webapp.leads.crm_sync import Standing, Started
from webapp.leads.errors import NotFound, Permanent, Transient
from webapp.leads.states import Scope, TaskRequestState
from webapp.models.work import TaskRequest
from webapp.security.keys import Principal

blueprint = Blueprint("crm_calls", __name__)

T = TypeVar("T")

_FIRST_LOOK, _LAST_LOOK = 0.05, 0.25


class Synced(Out):
    lead_id: str
    crm_person_id: str | None


class NotSynced(Out):
    lead_id: str
    error: str


class SyncOut(Out):
    """``total`` is ``synced_count`` plus ``failed_count``."""

    total: Count
    synced_count: Count
    failed_count: Count
    synced: list[Synced]
    failed: list[NotSynced]


class SyncRunning(SyncOut):
    """What is through so far; the ``waiting_count`` others are in ``total`` too. Ask ``status_url`` again."""

    id: uuid.UUID
    state: Literal["running"]
    status_url: str
    waiting_count: Count


class TaskMade(Out):
    """``assigned_to``: the member's name; null when the CRM has no members to read."""

    task_id: str
    customer: str
    assigned_to: str | None


class TaskNotMade(Out):
    customer: str
    error: str


class TasksOut(Out):
    tasks_created: Count
    tasks_failed: Count
    details: list[TaskMade | TaskNotMade]


class TasksRunning(TasksOut):
    """What is done so far. Ask ``status_url`` again."""

    id: uuid.UUID
    state: Literal["queued", "running"]
    status_url: str


@blueprint.post("/sync-crm")
@documented(
    "Push what is due to the CRM",
    tag="CRM",
    description="Every lead that may go out (auto-approved and settled, approved or overridden) and is not in the CRM. "
    "The answer waits for them up to SYNC_WAIT_SECONDS; beyond that it is 202 with where to ask again.",
    answers={
        200: SyncOut,
        202: Answer(SyncRunning, "Not all are through yet.", headers={"Location": "Where to ask again."}),
    },
    errors=(409,),
)
@auth.needs(Scope.REVIEW)
def sync(principal: Principal) -> Response:
    actor = f"{principal.name} (API)"
    session = db.session()
    undo_seconds = auth.settings().undo_window_seconds
    started = crm_sync.start(session, principal.workspace_id, undo_seconds=undo_seconds, actor=actor)
    session.commit()
    if started.lead_ids:
        queue.ring("deliveries")
    done = _wait_for(lambda: _finished(principal, started))
    if done is not None:
        return jsonify(done.as_json())
    request = crm_sync.keep(session, principal.workspace_id, started, requested_by=actor)
    session.commit()
    return _still_running(request.id, crm_sync.standing(session, principal.workspace_id, started))


def _finished(principal: Principal, started: Started) -> Standing | None:
    return crm_sync.finished(db.session(), principal.workspace_id, started)


def _still_running(request_id: uuid.UUID, found: Standing) -> Response:
    url = url_for("crm_calls.sync_status", request_id=request_id)
    response = jsonify(
        {"id": str(request_id), "state": "running", "status_url": url, "waiting_count": found.waiting} | found.as_json()
    )
    response.status_code = 202
    response.headers["Location"] = url
    return response


@blueprint.get("/sync-crm/<uuid:request_id>")
@documented(
    "How a push to the CRM stands",
    tag="CRM",
    path={"request_id": "The `id` of the 202."},
    answers={200: SyncOut, 202: Answer(SyncRunning, "Not all are through yet.", headers={"Location": "This address."})},
    errors=(404,),
)
@auth.needs(Scope.READ)
def sync_status(principal: Principal, request_id: uuid.UUID) -> Response:
    started = crm_sync.kept(db.session(), principal.workspace_id, request_id)
    if started is None:
        raise NotFound("There is no such push to the CRM.")
    found = crm_sync.standing(db.session(), principal.workspace_id, started)
    return _still_running(request_id, found) if found.waiting else jsonify(found.as_json())


@blueprint.post("/tasks/auto-assign")
@documented(
    "Give everybody in the CRM a follow-up task",
    tag="CRM",
    description="Each synced person without an open follow-up task gets one, assigned to the member with the fewest "
    "open tasks. The answer waits up to SYNC_WAIT_SECONDS; beyond that it is 202 with where to ask again. Calls "
    "meanwhile join the one that is under way.",
    answers={
        200: TasksOut,
        202: Answer(TasksRunning, "Not done yet.", headers={"Location": "Where to ask again."}),
    },
    errors=(409, 502),
)
@auth.needs(Scope.REVIEW)
def auto_assign(principal: Principal) -> Response:
    session = db.session()
    request_id = crm_rounds.request(session, principal.workspace_id, requested_by=f"{principal.name} (API)")
    session.commit()
    queue.ring("deliveries")
    _wait_for(lambda: _over(principal, request_id))
    return _task_answer(crm_rounds.find(session, principal.workspace_id, request_id))


def _over(principal: Principal, request_id: uuid.UUID) -> bool | None:
    return crm_rounds.find(db.session(), principal.workspace_id, request_id).state in crm_rounds.OVER or None


def _task_answer(request: TaskRequest) -> Response:
    if request.state is TaskRequestState.FAILED:
        made = crm_rounds.made(request)
        kept = f" {made} tasks were made before; call again for the others." if made else ""
        raise Permanent(f"The CRM did not answer as it should: {request.error}.{kept}")
    said = {
        "tasks_created": crm_rounds.made(request),
        "tasks_failed": len(request.details) - crm_rounds.made(request),
        "details": request.details,
    }
    if request.state is TaskRequestState.DONE:
        return jsonify(said)
    url = url_for("crm_calls.task_status", request_id=request.id)
    response = jsonify({"id": str(request.id), "state": request.state.value, "status_url": url} | said)
    response.status_code = 202
    response.headers["Location"] = url
    return response


@blueprint.get("/tasks/auto-assign/<uuid:request_id>")
@documented(
    "How a round of follow-up tasks stands",
    tag="CRM",
    path={"request_id": "The `id` of the 202."},
    answers={200: TasksOut, 202: Answer(TasksRunning, "Not done yet.", headers={"Location": "This address."})},
    errors=(404, 502),
)
@auth.needs(Scope.READ)
def task_status(principal: Principal, request_id: uuid.UUID) -> Response:
    return _task_answer(crm_rounds.find(db.session(), principal.workspace_id, request_id))


def _wait_for(look: Callable[[], T | None]) -> T | None:
    """The first thing that ``look`` finds within SYNC_WAIT_SECONDS; None when nothing is there by then. Without a
    free place to wait in, of which there are ``waiting.MOST_OPTIONAL`` for all such calls, it looks once. No
    transaction is open between two looks."""
    found = _look(look)
    turns: Turns = current_app.extensions["turns"]
    if found is None:
        try:
            with turns.place(optional=True), turns.lent():
                found = _keep_looking(look, time.monotonic() + auth.settings().sync_wait_seconds)
        except Transient:
            return None  # all places are taken: the answer says where to ask again
    return found


def _keep_looking(look: Callable[[], T | None], ends_at: float) -> T | None:
    pause, found = _FIRST_LOOK, None
    while found is None and time.monotonic() + pause < ends_at:
        time.sleep(pause)
        found = _look(look)
        pause = min(pause * 1.5, _LAST_LOOK)
    return found


def _look(look: Callable[[], T | None]) -> T | None:
    found = look()
    db.session.rollback()  # gives the connection back
    return found

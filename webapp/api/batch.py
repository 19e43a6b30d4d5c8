"""``POST /api/v1/leads/batch``: many leads in one request (docs/api.md §5)."""

import json
import uuid
from functools import partial
from itertools import islice
from typing import Any, Literal

from flask import Blueprint, Response, current_app, request

from jobs import queue
from webapp.api import auth
from webapp.api.imports import CSV, JSON, NDJSON, ImportOut, ImportQuery, accepted, begin, import_view
from webapp.api.openapi import IDEMPOTENCY_KEY, REPLAYED, Answer, documented
from webapp.api.schemas import Count, Out, ProblemOut
from webapp.api.uploads import Upload, upload
from webapp.api.v1 import idempotency_key
from webapp.extensions import db
from webapp.leads import answers, callbacks, imports, intake_bulk
from webapp.leads.claims import FROM_BATCHES
from webapp.leads.errors import Invalid, Problem
from webapp.leads.imports.chunks import INTERNAL, prepare
from webapp.leads.imports.reading import Broken, Row, rows
from webapp.leads.intake_bulk import Outcome
from webapp.leads.states import Door, Scope
from webapp.security.keys import Principal

blueprint = Blueprint("v1_batch", __name__, url_prefix="/api/v1")

#: Bytes of a body beyond which it becomes an import, however few its rows are.
INLINE_BYTES = 8 << 20
_FORMATS = {
    JSON: "json", CSV: "csv", NDJSON: "ndjson", "application/ndjson": "ndjson", "application/jsonl": "ndjson",
    "text/tab-separated-values": "csv",
}  # fmt: skip


class BatchResult(Out):
    """What became of one row: ``index`` counts from 0. ``id``: the lead that was made, touched or is here already.
    ``failed``: by an error of ours; the row may be sent again as it is."""

    index: Count
    status: Literal["created", "touched", "exists", "invalid", "failed"]
    id: uuid.UUID | None
    problems: list[ProblemOut]


class BatchOut(Out):
    """The results in the order of the rows, and how many there are of each kind."""

    results: list[BatchResult]
    created: Count
    touched: Count
    exists: Count
    invalid: Count
    failed: Count


@blueprint.post("/leads/batch")
@documented(
    "Send many leads",
    tag="Leads",
    description=(
        "A JSON array, NDJSON or CSV. Up to `MAX_BATCH_SIZE` rows are answered at once: 200 when every row was taken "
        "in, else 207. Larger bodies become an import: 202, and `Location` tells how far it is. A bad row never stops "
        "the others. Fields are those of `POST /api/v1/leads`, and those of an import; they may be called otherwise."
    ),
    body=list[dict[str, Any]],
    bodies={CSV: str, NDJSON: str},
    headers=(IDEMPOTENCY_KEY,),
    answers={
        200: Answer(BatchOut, "Every row was taken in.", headers=REPLAYED),
        207: Answer(BatchOut, "Some rows were not taken in.", headers=REPLAYED),
        202: Answer(ImportOut, "Too many for one answer.", headers={"Location": "Where to look.", **REPLAYED}),
    },
    errors=(409,),
)
@auth.needs(Scope.INGEST)
def create(principal: Principal) -> Response:
    wanted = _format()
    with upload() as sent:
        if not sent.stored.size:
            raise Invalid("the body is empty; leads are expected", code="invalid_json")
        key = idempotency_key(f"{sent.stored.digest} {wanted}")
        if key and (earlier := answers.claim(db.session(), principal.workspace, Door.IMPORT, key)):
            return _replayed(earlier)
        response = _answer(principal, sent, wanted)
        if key and _keeps(response):
            answers.keep(db.session(), principal.workspace, Door.IMPORT, key, response.get_data(as_text=True))
        elif key:
            answers.release(db.session(), principal.workspace, Door.IMPORT, key)
        db.session.commit()
        queue.ring(queue.IMPORTS if response.status_code == 202 else queue.RUNS)
        return response


def _keeps(response: Response) -> bool:
    """Not where a row failed by our own error, which would otherwise be its answer for as long as keys are kept."""
    return response.status_code == 202 or not response.get_json()["failed"]


def _format() -> str:
    """By the Content-Type; JSON without one."""
    kind = (request.mimetype or JSON).lower()
    if kind not in _FORMATS:
        raise Invalid(
            f"Content-Type must be application/json, application/x-ndjson or text/csv, not {kind[:80]}",
            code="unsupported_media_type",
        )
    return _FORMATS[kind]


def _answer(principal: Principal, sent: Upload, wanted: str) -> Response:
    settings = auth.settings()
    path = imports.path_of(settings.imports_folder, sent.stored.name)
    layout = imports.inspect(path, format=wanted)
    most = settings.max_batch_size
    if sent.stored.size <= INLINE_BYTES:
        with path.open("rb") as file:
            try:
                found = list(islice(rows(file, layout, layout.begins_at), most + 1))
            except Broken as error:
                raise Invalid(str(error), code="invalid_json") from None
        if len(found) <= most:
            return _inline(principal, layout, found)
    asked = ImportQuery(filename=f"batch.{layout.format}", source="unknown")
    started = begin(principal, sent, layout, asked)
    sent.kept = True
    return accepted(current_app.json.dumps(import_view(started)), str(started.id))


def _inline(principal: Principal, layout: imports.Layout, found: list[Row]) -> Response:
    allowed = callbacks.places(db.session(), principal.workspace_id)
    mapper = imports.Mapper(
        imports.guess(layout.columns),
        seal=current_app.extensions["cipher"].seal,
        door=Door.V1,
        source="unknown",
        open_ended=layout.format != "csv",
        callback_problem=partial(callbacks.problem_of, allowed=allowed),
    )
    results: list[dict[str, Any]] = [
        {"index": index, "status": "invalid", "id": None, "problems": []} for index in range(len(found))
    ]
    good, problems = prepare(mapper, principal.workspace, found)
    for index, problem in problems:
        if problem.reason == INTERNAL:
            results[index]["status"] = "failed"
        results[index]["problems"] += _told((problem,))
    taken = intake_bulk.accept_each(db.session(), principal.workspace, [row for _, row in good], rank=FROM_BATCHES)
    for (index, _), one in zip(good, taken, strict=True):
        if one is None:
            results[index] |= _FAILED
            continue
        results[index] |= {"status": one.outcome.value, "id": str(one.lead_id)}
        if one.outcome is Outcome.EXISTS:
            results[index]["problems"] = _told((Problem("lead_id", "a lead with this id is here already"),))
    return _results(results)


_FAILED = {"status": "failed", "problems": [{"field": "row", "reason": INTERNAL}]}


def _told(problems: tuple[Problem, ...]) -> list[dict[str, str]]:
    return [
        {"field": problem.field.encode("utf-8", "replace").decode(), "reason": problem.reason} for problem in problems
    ]


def _results(results: list[dict[str, Any]]) -> Response:
    counts = {
        status: sum(one["status"] == status for one in results)
        for status in ("created", "touched", "exists", "invalid", "failed")
    }
    body = current_app.json.dumps({"results": results, **counts})
    not_taken_in = counts["exists"] or counts["invalid"] or counts["failed"]
    return Response(body, 207 if not_taken_in else 200, mimetype=JSON)


def _replayed(earlier: str) -> Response:
    found = json.loads(earlier)
    if "results" in found:
        status = 207 if found["exists"] or found["invalid"] else 200
        response = Response(earlier, status, mimetype=JSON)
    else:
        response = accepted(earlier, found["id"])
    response.headers["Idempotent-Replayed"] = "true"
    return response

"""Every documented operation called with what its description allows and with what it does not: no 5xx, and each answer
has a status, a type, a body and headers that the description names."""

import re
from collections import Counter
from typing import Any

import pytest
import schemathesis
import sqlalchemy as sa
from flask import Flask
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, StopReason, events, from_schema
from sqlalchemy.orm import Session

from tests import factories
from webapp.leads import sources
from webapp.leads.quarantine import Bad, quarantine
from webapp.leads.states import DestinationKind, Door, ImportState, Scope
from webapp.models import Delivery, Destination, Import, ImportProblem, Run, SyncRequest, Workspace
from webapp.security.keys import create_key

#: Checked with every answer.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "missing_required_header",
    "unsupported_method",
)
EXAMPLES = 40  # drawn at random per operation, besides those of the boundaries


def config(headers: dict[str, str], platform: str) -> SchemathesisConfig:
    """``platform``: the key of the one door that takes no workspace's."""
    return SchemathesisConfig.from_dict(
        {
            "seed": 20261120,
            "headers": headers,
            "operations": [{"include-path": "/onboarding", "headers": {"X-API-Key": platform}}],
            "workers": 1,
            "suppress-health-check": ["all"],
            "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none", "no-shrink": True},
            "phases": {"stateful": {"enabled": False}},
            "checks": {"enabled": False} | {name: {"enabled": True} for name in CHECKS},
        }
    )


def known_ids(app: Flask, session: Session, workspace: Workspace) -> dict[str, str]:
    """Part of a path → something in the workspace that it may name."""
    lead = factories.make_lead(session, workspace)
    hook = Destination(workspace_id=workspace.id, kind=DestinationKind.WEBHOOK, name="hook")
    held = quarantine(session, workspace.id, Door.SOCIAL, "facebook", Bad("comment_id is missing", {"message": "hi"}))
    taken = Import(
        workspace_id=workspace.id, filename="a.csv", format="csv", state=ImportState.DONE, created_by="Ana",
        created_count=1, rows_done=2, rows_total=2, failed_count=1,
    )  # fmt: skip
    sync = SyncRequest(workspace_id=workspace.id, lead_ids=[lead.id], requested_by="Ana")
    session.add_all([hook, taken, sync])
    session.flush()
    sent = Delivery(workspace_id=workspace.id, lead_id=lead.id, destination_id=hook.id, action="lead.approved")
    session.add_all([sent, ImportProblem(import_id=taken.id, row_number=2, field="email", reason="is no address")])
    source = sources.create(session, workspace.id, "Form", cipher=app.extensions["cipher"], actor="Ana")
    sources.save_mapping(session, source, {"message": "message", "email": "email"}, actor="Ana")
    session.flush()
    run = session.scalars(sa.select(Run.id).where(Run.lead_id == lead.id)).one()
    found = {
        "lead_id": lead.id, "run_id": run, "delivery_id": sent.id, "import_id": taken.id, "request_id": sync.id,
        "entry_id": held.id, "token": app.extensions["cipher"].decrypt(source.token),
    }  # fmt: skip
    session.commit()
    return {name: str(value) for name, value in found.items()}


@pytest.mark.slow
def test_every_answer_is_as_described(
    app: Flask, session: Session, workspace: Workspace, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "ANSWER_ERRORS", True)  # a 500 rather than the exception
    platform = create_key(session, workspace_id=None, name="platform", scopes={Scope.PLATFORM})[1]
    known = known_ids(app, session, workspace)
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", app, config=config(headers, platform))
    assert {name for path in schema.raw_schema["paths"] for name in re.findall("{(.+?)}", path)} == set(known)

    @schema.hook
    def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        """Half of the paths name something that exists."""
        for name in set(known) & set(path_parameters or {}):
            if len(str(path_parameters[name])) % 2:
                path_parameters[name] = known[name]
        return path_parameters

    calls: Counter[str] = Counter()
    wrong: list[str] = []
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError):
            wrong.append(f"{event.label}: {event.value!r}")
        elif isinstance(event, events.FatalError):
            raise event.exception
        elif isinstance(event, events.ScenarioFinished):
            calls[event.recorder.label] += len(event.recorder.interactions)
            wrong += failures(event.recorder)
        elif isinstance(event, events.EngineFinished):
            assert event.stop_reason is StopReason.COMPLETED
    assert not wrong, f"{len(wrong)} answers are not as described, such as:\n\n" + "\n\n".join(wrong[:12])
    described = [f"{method.upper()} {path}" for path, item in schema.raw_schema["paths"].items() for method in item]
    described.remove("GET /api/openapi.json")  # read above
    assert [operation for operation in described if not calls[operation]] == []


def failures(recorder: Any) -> list[str]:
    """What the checks found, with the request that it was found by."""
    found = []
    for nodes in recorder.checks.values():
        for node in nodes:
            if node.status == Status.FAILURE:
                failure = node.failure_info.failure
                found.append(f"{recorder.label}: {failure.title}: {failure.message}\n{node.failure_info.code_sample}")
    return found

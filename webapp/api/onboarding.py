"""``POST /onboarding``: a workspace by its name, for the operator's own programs (docs/api.md, Workspaces)."""

import uuid
from typing import Annotated

from flask import Blueprint, Response, jsonify
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from webapp.api import auth
from webapp.api.body import json_object
from webapp.api.openapi import Answer, documented
from webapp.api.problems import validated
from webapp.api.schemas import Out
from webapp.extensions import db
from webapp.leads import workspaces
from webapp.leads.states import Scope
from webapp.security.keys import Principal

blueprint = Blueprint("onboarding", __name__)


def _trimmed(value: str) -> str:
    value = value.strip()
    if not value or not value.isprintable():
        raise ValueError("must be printable text that is not blank")
    return value


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_trimmed)]


class WorkspaceIn(BaseModel):
    """Body of ``POST /onboarding``. Space around the name does not count; its case does."""

    model_config = ConfigDict(strict=True, extra="ignore")

    name: Name
    industry: Name | None = None


class WorkspaceOut(Out):
    tenant_id: uuid.UUID
    name: str


@blueprint.post("/onboarding")
@documented(
    "Make a workspace",
    tag="Workspaces",
    description="By a platform key. A name that is there already answers 200 with the same id.",
    body=WorkspaceIn,
    answers={201: WorkspaceOut, 200: Answer(WorkspaceOut, "It is there already.")},
)
@auth.needs(Scope.PLATFORM)
def create(principal: Principal) -> Response:
    body = validated(WorkspaceIn, json_object())
    workspace_id, made = workspaces.ensure(
        db.session(), body.name, industry=body.industry, actor=f"{principal.name} (API)"
    )
    db.session.commit()
    response = jsonify(tenant_id=str(workspace_id), name=body.name)
    response.status_code = 201 if made else 200
    return response

"""The OpenAPI document: valid, complete, and made from what the doors really use."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema_rs
import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import BaseModel

from webapp.api import openapi
from webapp.leads.states import Scope

DOCUMENTED_STATUSES = set(openapi.ERRORS)


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/api/openapi.json")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    found: dict[str, Any] = answer.json
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def test_every_door_is_documented(app: Flask, document: dict[str, Any]) -> None:
    missing = [f"{method} {rule.rule}" for method, rule, said in openapi.doors(app) if said is None]
    assert missing == []
    doors = {
        f"{method.lower()} {re.sub(r'<(?:[^:<>]+:)?', '{', rule.rule).replace('>', '}')}"
        for method, rule, _ in openapi.doors(app)
    }
    assert doors == {f"{method} {path}" for method, path, _ in operations(document)}
    assert {"get /healthz", "post /webhooks/facebook", "post /leads/", "get /api/openapi.json"} <= doors


def test_the_document_is_consistent(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0" and document["info"]["version"]
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for ref in re.findall(r"'\$ref': '([^']+)'", str(document)):
        assert ref.rpartition("/")[2] in document["components"]["schemas"], ref
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    for method, path, operation in operations(document):
        placeholders = set(re.findall(r"{([^}]+)}", path))
        assert placeholders == {p["name"] for p in operation["parameters"] if p["in"] == "path"}, path
        assert operation["summary"], f"{method} {path} says nothing"
        assert any(status.startswith("2") for status in operation["responses"])
        for requirement in operation["security"]:
            assert set(requirement) <= set(document["components"]["securitySchemes"])


def test_every_error_is_the_envelope(document: dict[str, Any]) -> None:
    envelope = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorOut"}}}
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) >= 400 and path != "/readyz":
                assert answer["content"] == envelope, f"{method} {path} {status}"
            assert "X-Request-ID" in answer["headers"]
            assert ("Retry-After" in answer["headers"]) == (status in ("429", "503") and path != "/readyz")


def test_scopes_are_those_that_the_doors_ask_for(app: Flask, document: dict[str, Any]) -> None:
    asked = 0
    for method, rule, said in openapi.doors(app):
        scope = getattr(app.view_functions[rule.endpoint], "required_scope", None)
        if said is None or scope is None:
            continue
        asked += 1
        security = document["paths"][openapi._path(rule)][method.lower()]["security"]
        assert {"apiKey": [scope.value]} in security and {"bearer": [scope.value]} in security
        assert not said.public and said.scope is None
    assert asked > 5
    assert document["paths"]["/healthz"]["get"]["security"] == [{}]
    assert {"metaSignature": []} in document["paths"]["/webhooks/facebook"]["post"]["security"]


def validators(view: Callable[..., Any]) -> set[Any]:
    """The models that a view, or what it calls in its module, gives to ``validated`` or ``query``."""
    module = inspect.getmodule(inspect.unwrap(view))
    found: set[Any] = set()
    seen: set[Any] = set()

    def walk(function: Any) -> None:
        if function in seen:
            return
        seen.add(function)
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if called in ("validated", "query") and node.args and isinstance(node.args[0], ast.Name):
                found.add(getattr(module, node.args[0].id, None))
            inner = getattr(module, called or "", None)
            if inspect.isfunction(inner) and inspect.getmodule(inner) is module:
                walk(inspect.unwrap(inner))

    walk(inspect.unwrap(view))
    return found


def test_the_declared_models_are_those_that_validate(app: Flask) -> None:
    checked = 0
    for method, rule, said in openapi.doors(app):
        if said is None:
            continue
        used = validators(app.view_functions[rule.endpoint])
        if inspect.isclass(said.body) and issubclass(said.body, BaseModel):
            assert said.body in used, f"{method} {rule.rule} declares {said.body.__name__} and validates with {used}"
            checked += 1
        bodies = {model for model in used if model is not said.query}
        if method != "GET" and bodies:
            assert bodies == {said.body}, f"{method} {rule.rule} validates with {bodies}"
    assert checked >= 3


def test_a_door_that_says_nothing_of_its_credential_is_refused(app: Flask) -> None:
    bare = Flask("bare")

    @bare.get("/api/bare")
    @openapi.documented("Bare", tag="x", answers={200: None})
    def view() -> str:
        return ""

    with pytest.raises(ValueError, match="/api/bare"):
        openapi.build(bare, version="1", server="/")


def test_what_is_declared_comes_out() -> None:
    class Asked(BaseModel):
        limit: int = 5
        word: str | None = None

    class Given(BaseModel):
        name: str

    app = Flask("declared")

    @app.post("/api/things/<uuid:thing_id>")
    @openapi.documented(
        "Change a thing", tag="Things", body=Given, query=Asked, scope=Scope.REVIEW, errors=(404,),
        answers={201: openapi.Answer(Given, "Changed.", headers={"Location": "Where."}), 204: None},
        headers=(openapi.IDEMPOTENCY_KEY,), path={"thing_id": "Which."},
    )  # fmt: skip
    def view(thing_id: Any) -> str:
        """What it does,
        in two lines."""
        return ""

    made = openapi.build(app, version="1", server="/")["paths"]["/api/things/{thing_id}"]["post"]
    assert made["description"] == "What it does, in two lines."
    assert set(made["responses"]) == {"201", "204", "400", "401", "403", "404", "413", "415", "429", "503"}
    parameters = {parameter["name"]: parameter for parameter in made["parameters"]}
    assert parameters["thing_id"]["schema"] == {"type": "string", "format": "uuid"}
    assert parameters["limit"]["schema"] == {"type": "integer", "default": 5}
    assert parameters["word"]["schema"] == {"type": "string"} and not parameters["word"]["required"]
    assert parameters["Idempotency-Key"]["in"] == "header"
    assert made["requestBody"]["content"] == {"application/json": {"schema": {"$ref": "#/components/schemas/Given"}}}
    assert "Location" in made["responses"]["201"]["headers"] and "content" not in made["responses"]["204"]


def test_the_pages_are_public(client: FlaskClient) -> None:
    assert client.get("/docs").location == "/api/docs"
    page = client.get("/api/docs")
    assert page.status_code == 200 and page.mimetype == "text/html"
    assert "<script>" not in page.text and "style=" not in page.text
    for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
        with client.get(asset) as found:
            assert found.status_code == 200, asset
    assert {"swagger-ui-bundle.js", "swagger-ui.css", "apidocs.js"} <= {
        asset.partition("?")[0].rpartition("/")[2] for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
    }

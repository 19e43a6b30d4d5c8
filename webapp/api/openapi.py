"""The OpenAPI 3.1 document, made from what the doors declare about themselves.

A door says beside ``@auth.needs`` what it takes and answers, in pydantic models::

    @blueprint.post("/things/<uuid:thing_id>")
    @documented("Change a thing", body=ThingIn, answers={200: ThingOut}, errors=(404, 409), tag="Things")
    @auth.needs(Scope.REVIEW)
    def change(principal: Principal, thing_id: uuid.UUID) -> Response:
        body = validated(ThingIn, json_object())

The model it declares is the one it validates with (tests/api/test_openapi.py looks). What all doors share (the error
envelope, ``X-Request-ID``, credentials, limits, the statuses that any door may answer) is added here.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flask import Flask
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from werkzeug.routing import Rule

from webapp.api.schemas import ErrorOut
from webapp.errors import is_json_path
from webapp.leads.states import Scope

View = TypeVar("View", bound=Callable[..., Any])
JSON = "application/json"
REF = "#/components/schemas/{model}"

#: Ways to prove oneself besides a key, as a door names them in ``proofs``.
PROOFS: dict[str, dict[str, Any]] = {
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same key as `Authorization: Bearer`."},
    "metaSignature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Hub-Signature-256",
        "description": "`sha256=` and the HMAC-SHA256 of the raw body with the app secret, in hex.",
    },
}
ERRORS = {
    400: "The request is not understood, or a value does not fit.",
    401: "No key, or one that is unknown, revoked or expired; no valid signature.",
    403: "The key lacks the scope, or belongs to another workspace.",
    404: "There is no such thing in the key's workspace.",
    409: "It conflicts with what is there.",
    413: "The body is too large.",
    415: "The Content-Type is not one that this door takes.",
    422: "A value does not fit.",
    429: "Over the limit; see Retry-After.",
    502: "A service that the answer needs has failed.",
    503: "Cannot be done at the moment; nothing was stored. Send it again after Retry-After.",
}
_WAITS = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Header:
    """A request header. ``schema`` is JSON Schema."""

    name: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    required: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is more than a JSON body. ``model``: any type pydantic knows, None for no schema. ``headers``:
    name → what it says."""

    model: Any = None
    text: str = ""
    media: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Documentation:
    """What a door says about itself; see :func:`documented`."""

    summary: str
    answers: Mapping[int, Answer]
    tag: str
    description: str
    body: Any
    bodies: Mapping[str, Any]
    query: type[BaseModel] | None
    headers: tuple[Header, ...]
    errors: frozenset[int]
    path: Mapping[str, str]
    scope: Scope | None
    proofs: tuple[str, ...]
    public: bool


IDEMPOTENCY_KEY = Header(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    text="Any token of your own: the same key with the same body is answered from the first answer.",
)
REPLAYED = {"Idempotent-Replayed": "`true` when this is the first answer again."}


def documented(
    summary: str,
    *,
    answers: Mapping[int, Any],
    tag: str,
    body: Any = None,
    bodies: Mapping[str, Any] | None = None,
    query: type[BaseModel] | None = None,
    headers: tuple[Header, ...] = (),
    errors: tuple[int, ...] = (),
    path: Mapping[str, str] | None = None,
    description: str | None = None,
    scope: Scope | None = None,
    proofs: tuple[str, ...] = (),
    public: bool = False,
) -> Callable[[View], View]:
    """Declare a door.

    ``answers``: status → a pydantic model or other type, or an :class:`Answer`. ``body``: the model of a JSON body;
    ``bodies``: media type → type, for further kinds of body. ``query``: a model whose fields are the query parameters
    (:func:`webapp.api.problems.query` validates with it). ``errors``: statuses with the error envelope besides those
    that are added by themselves (400; 401, 403, 429 and 503 behind a key; 413 and 415 with a body). ``path``: what
    the parts of the path mean. ``description``: the view's docstring if left out. ``scope``: only for a door without
    ``@auth.needs`` that looks at keys itself; ``proofs``: other :data:`PROOFS` that do instead of a key;
    ``public``: nothing is needed.
    """

    def wrap(view: View) -> View:
        view.documentation = Documentation(  # type: ignore[attr-defined]
            summary=summary,
            answers={status: said if isinstance(said, Answer) else Answer(said) for status, said in answers.items()},
            tag=tag,
            description=description if description is not None else inspect.getdoc(view) or "",
            body=body,
            bodies=bodies or {},
            query=query,
            headers=headers,
            errors=frozenset(errors),
            path=path or {},
            scope=scope,
            proofs=proofs,
            public=public,
        )
        return view

    return wrap


def doors(app: Flask) -> Iterator[tuple[str, Rule, Documentation | None]]:
    """(method, rule, what it says about itself) of every JSON door."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if not is_json_path(rule.rule):
            continue
        said: Documentation | None = getattr(app.view_functions[rule.endpoint], "documentation", None)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, rule, said


def scope_of(app: Flask, rule: Rule, said: Documentation) -> Scope | None:
    """The scope that a key needs here. ValueError when the door says neither that nor that it needs none."""
    scope: Scope | None = said.scope or getattr(app.view_functions[rule.endpoint], "required_scope", None)
    if scope is None and not said.public and not said.proofs:
        raise ValueError(f"{rule.rule} says neither what it needs nor that it is public")
    return scope


def build(app: Flask, *, version: str, server: str) -> dict[str, Any]:
    """The document, for the doors that declare themselves."""
    declared = [(method, rule, said) for method, rule, said in doors(app) if said is not None]
    schemas = _Schemas([said for _, _, said in declared])
    paths: dict[str, dict[str, Any]] = {}
    used: set[str] = set()
    for method, rule, said in declared:
        operation = _operation(said, rule, scope_of(app, rule, said), schemas)
        name = f"{method.lower()}_{rule.endpoint.replace('.', '_')}"
        while name in used:
            name += "_alias"
        used.add(name)
        paths.setdefault(_path(rule), {})[method.lower()] = {"operationId": name, **operation}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lead Ops Console",
            "version": version,
            "description": "Leads in, verdicts out. All times are ISO 8601 in UTC, all ids are UUIDs unless said "
            "otherwise. Every error is the same envelope (`ErrorOut`).",
        },
        "servers": [{"url": server}],
        "tags": [{"name": name} for name in sorted({said.tag for _, _, said in declared})],
        "paths": paths,
        "components": {"schemas": schemas.definitions, "securitySchemes": PROOFS},
    }


class _Schemas:
    """JSON Schemas of all types that are mentioned, with shared definitions."""

    def __init__(self, said: list[Documentation]) -> None:
        wanted: dict[tuple[str, JsonSchemaMode], TypeAdapter[Any]] = {}
        self._names: dict[tuple[int, JsonSchemaMode], str] = {}
        self._keep: list[Any] = []  # id() names a type only while it lives

        def want(kind: Any, mode: JsonSchemaMode) -> None:
            if kind is None or (id(kind), mode) in self._names:
                return
            self._keep.append(kind)
            name = self._names[(id(kind), mode)] = f"{len(self._names)}"
            wanted[(name, mode)] = TypeAdapter(kind)

        want(ErrorOut, "serialization")
        for one in said:
            for kind in (one.body, one.query, *one.bodies.values()):
                want(kind, "validation")
            for answer in one.answers.values():
                want(answer.model, "serialization")
        found, shared = TypeAdapter.json_schemas(
            [(name, mode, adapter) for (name, mode), adapter in wanted.items()], ref_template=REF
        )
        self._found = {name: schema for (name, _), schema in found.items()}
        self.definitions: dict[str, Any] = shared.get("$defs", {})

    def of(self, kind: Any, mode: JsonSchemaMode) -> dict[str, Any]:
        return self._found[self._names[(id(kind), mode)]]

    def properties(self, model: type[BaseModel]) -> tuple[dict[str, Any], list[str]]:
        """(field → schema, required fields) of a model."""
        schema = self.of(model, "validation")
        if "$ref" in schema:
            schema = self.definitions[schema["$ref"].rpartition("/")[2]]
        return schema.get("properties", {}), schema.get("required", [])


def _path(rule: Rule) -> str:
    return re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule)


def _operation(said: Documentation, rule: Rule, scope: Scope | None, schemas: _Schemas) -> dict[str, Any]:
    keyed = scope is not None
    statuses = said.errors | {400, 503} | ({401} if keyed or said.proofs else set()) | ({403, 429} if keyed else set())
    has_body = said.body is not None or bool(said.bodies)
    if has_body:
        statuses |= {413, 415}
    operation: dict[str, Any] = {
        "summary": said.summary,
        **_text(" ".join(said.description.split())),
        "tags": [said.tag],
        "parameters": _parameters(said, rule, schemas),
        "responses": {str(status): _answer(answer, keyed, schemas) for status, answer in sorted(said.answers.items())}
        | {str(status): _error(status, keyed, schemas) for status in sorted(statuses - set(said.answers))},
        "security": _security(said, scope),
    }
    if has_body:
        kinds = ({JSON: said.body} if said.body is not None else {}) | dict(said.bodies)
        operation["requestBody"] = {
            "required": True,
            "content": {media: {"schema": schemas.of(kind, "validation")} for media, kind in kinds.items()},
        }
    return operation


def _security(said: Documentation, scope: Scope | None) -> list[dict[str, list[str]]]:
    keys = [{"apiKey": [scope.value]}, {"bearer": [scope.value]}] if scope else []
    others: list[dict[str, list[str]]] = [{name: []} for name in said.proofs]
    return [*keys, *others] or [{}]


def _parameters(said: Documentation, rule: Rule, schemas: _Schemas) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in sorted(rule.arguments):
        kind = type(rule._converters[name]).__name__
        schema: dict[str, Any] = {"type": "string", "minLength": 1}
        if kind == "UUIDConverter":
            schema = {"type": "string", "format": "uuid"}
        elif kind == "IntegerConverter":
            schema = {"type": "integer", "minimum": 0}
        found.append({"name": name, "in": "path", "required": True, "schema": schema, **_text(said.path.get(name))})
    if said.query is not None:
        properties, required = schemas.properties(said.query)
        for name, schema in properties.items():
            shape = {key: value for key, value in schema.items() if key not in ("title", "description")}
            found.append(
                {"name": name, "in": "query", "required": name in required, "schema": _without_null(shape)}
                | _text(schema.get("description"))
            )
    for header in said.headers:
        found.append(
            {"name": header.name, "in": "header", "required": header.required, "schema": dict(header.schema)}
            | _text(header.text)
        )
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is absent rather than null."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and value is None)}
    if len(kinds) == 1:
        return {**kinds[0], **rest}
    return {"anyOf": kinds, **rest} if kinds else rest


def _text(text: str | None) -> dict[str, str]:
    return {"description": text} if text else {}


def _headers(more: Mapping[str, str], keyed: bool, status: int) -> dict[str, Any]:
    number = {"type": "integer", "minimum": 0}
    found: dict[str, Any] = {
        "X-Request-ID": {"required": True, "schema": {"type": "string"}, "description": "Names the request in the log."}
    }
    if keyed:
        for name, text in (
            ("Limit", "Requests that the tightest window allows."),
            ("Remaining", "Of those, how many are left."),
            ("Reset", "When that window ends, in unix seconds."),
        ):
            found[f"X-RateLimit-{name}"] = {"schema": number, "description": f"{text} Absent without a limit."}
    if status in _WAITS:
        found["Retry-After"] = {"required": True, "schema": number, "description": "Seconds to wait."}
    return found | {name: {"schema": {"type": "string"}, "description": text} for name, text in more.items()}


def _answer(answer: Answer, keyed: bool, schemas: _Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {"description": answer.text or "Done.", "headers": _headers(answer.headers, keyed, 0)}
    if answer.model is not None:
        content["content"] = {answer.media: {"schema": schemas.of(answer.model, "serialization")}}
    return content


def _error(status: int, keyed: bool, schemas: _Schemas) -> dict[str, Any]:
    return {
        "description": ERRORS[status],
        "headers": _headers({}, keyed and status not in (401, 503), status),
        "content": {JSON: {"schema": schemas.of(ErrorOut, "serialization")}},
    }

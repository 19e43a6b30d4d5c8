"""A stand-in of an OpenAI-compatible chat completions API that answers in the JSON shape it is asked for."""

import argparse
import json
import re
import time
from collections.abc import Callable
from typing import Any

from tests.fakes.server import FakeServer, Request, Response, main

TOKEN = "llm-test-token"

Answer = Callable[[list[dict[str, Any]], dict[str, Any] | None], Any]

#: Enough of an opinion for a demo; tests give their own ``answer``.
_HINTS = (
    ("unsubscribe", r"unsubscribe|remove me|delete my data"),
    ("complaint", r"broken|refund|terrible|lỗi|complain"),
    ("inquiry_price", r"price|pricing|quote|cost|giá"),
    ("demo_request", r"demo|trial|dùng thử"),
    ("purchase_intent", r"\bbuy\b|order|mua"),
    ("contact_request", r"call me|contact|tư vấn"),
    ("inquiry", r"\?"),
)


class LlmFake(FakeServer):
    """``answer(messages, schema)`` gives the content (an object or a string); ``refusal`` and ``finish_reason`` stand
    in the choice as they are."""

    base_path = "/v1"

    def __init__(
        self, *, token: str | None = TOKEN, model: str = "fake-model", answer: Answer | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.token, self.model = token, model
        self.answer: Answer = answer or plausible
        self.refusal: str | None = None
        self.finish_reason = "stop"

    def state(self) -> Any:
        return {"calls": len(self.requests)}

    def error(self, status: int) -> Response:
        known = {
            401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
            404: ("The model does not exist.", "invalid_request_error", "model_not_found"),
            429: ("Rate limit reached.", "requests", "rate_limit_exceeded"),
        }
        message, kind, code = known.get(status, ("The server had an error.", "server_error", None))
        return Response(status, {"error": {"message": message, "type": kind, "param": None, "code": code}})

    def handle(self, request: Request) -> Response:
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            return self.error(401)
        if request.method == "GET" and request.path == "/models":
            return Response(200, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        if request.method != "POST" or request.path != "/chat/completions":
            return self.error(404)
        body = request.json
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
            return self.error(400)
        content = self.answer(body["messages"], _schema(body))
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        message = {"role": "assistant", "content": None if self.refusal else text, "refusal": self.refusal}
        sizes = sum(len(str(m.get("content", ""))) for m in body["messages"]) // 4, len(text) // 4
        return Response(
            200,
            {
                "id": f"chatcmpl-{len(self.requests)}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": body.get("model", self.model),
                "choices": [{"index": 0, "message": message, "finish_reason": self.finish_reason}],
                "usage": {
                    "prompt_tokens": sizes[0],
                    "completion_tokens": sizes[1],
                    "total_tokens": sum(sizes),
                },
            },
        )


def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
    asked = body.get("response_format") or {}
    if asked.get("type") == "json_schema":
        return asked["json_schema"].get("schema") or {}
    return {} if asked.get("type") == "json_object" else None


def plausible(messages: list[dict[str, Any]], schema: dict[str, Any] | None) -> Any:
    """Something that satisfies the schema, and an intent that fits the last message a little."""
    text = str(messages[-1].get("content", "")) if messages else ""
    if schema is None:
        return "Thank you for your message. We will get back to you today."
    intent = next((name for name, cue in _HINTS if re.search(cue, text, re.IGNORECASE)), "unknown")
    return _fill(schema, schema.get("$defs", {}), {"intent": intent, "confidence": 0.82})


def _fill(schema: dict[str, Any], defs: dict[str, Any], wanted: dict[str, Any], name: str = "") -> Any:
    if "$ref" in schema:
        schema = defs[schema["$ref"].rsplit("/", 1)[-1]]
    if "anyOf" in schema:
        return _fill(schema["anyOf"][0], defs, wanted, name)
    if "enum" in schema:
        return wanted[name] if wanted.get(name) in schema["enum"] else schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        return {key: _fill(inner, defs, wanted, key) for key, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return []
    if name in wanted and kind in ("string", "number"):
        return wanted[name]
    return {"string": name, "number": 0.5, "integer": 50, "boolean": True, "null": None}.get(str(kind))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--token", default=TOKEN)


def _make(arguments: argparse.Namespace) -> LlmFake:
    return LlmFake(port=arguments.port, latency=arguments.latency, token=arguments.token)


if __name__ == "__main__":
    main(_make, _arguments)

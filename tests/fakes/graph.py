"""A stand-in of Meta's Graph API: lead forms' answers, pages, tokens that may do this and not that.

``fail_next`` also takes Graph's own error codes as kinds: ``190`` (token), ``10`` and ``200`` (permission), ``4``,
``17``, ``32``, ``613``, ``80005`` (rate), ``1``, ``2`` (transient), ``100`` (no such thing).
"""

import argparse
import re
from dataclasses import dataclass
from typing import Any

from tests.fakes.server import FakeServer, Request, Response, main

TOKEN = "EAAfake0page0access0token0of0tests"
#: Graph code → (HTTP status, type, message), as the service words them.
CODES: dict[int, tuple[int, str, str]] = {
    1: (500, "OAuthException", "An unknown error occurred"),
    2: (503, "OAuthException", "Service temporarily unavailable"),
    4: (403, "OAuthException", "(#4) Application request limit reached"),
    10: (403, "OAuthException", "(#10) This endpoint requires the 'leads_retrieval' permission"),
    17: (400, "OAuthException", "(#17) User request limit reached"),
    32: (403, "OAuthException", "(#32) Page request limit reached"),
    100: (400, "GraphMethodException", "Unsupported get request. Object with ID does not exist"),
    190: (401, "OAuthException", "Error validating access token: Session has expired"),
    200: (403, "OAuthException", "(#200) Requires leads_retrieval permission to manage the object"),
    613: (400, "OAuthException", "(#613) Calls to this api have exceeded the rate limit."),
    2500: (400, "OAuthException", "Unknown path components"),
    80005: (400, "OAuthException", "(#80005) There have been too many leads api calls to this Page account."),
}
_PATH = re.compile(r"/v\d+\.\d+/([A-Za-z0-9_-]+)")


@dataclass
class Token:
    """What an access token opens. ``expires_at``: unix seconds, 0 for never."""

    pages: tuple[str, ...]
    scopes: tuple[str, ...] = ("leads_retrieval", "pages_show_list")
    expires_at: int = 0
    valid: bool = True
    asks_about_itself: bool = True


class GraphFake(FakeServer):
    """``leads``: leadgen id → (page id, the answer in full); ``tokens``: token → what it opens."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokens: dict[str, Token] = {}
        self.leads: dict[str, tuple[str, dict[str, Any]]] = {}

    def fill_in(self, leadgen_id: str, page_id: str, **answers: Any) -> None:
        """Somebody fills in a form of the page. A list is several choices."""
        data = [{"name": name, "values": said if isinstance(said, list) else [said]} for name, said in answers.items()]
        self.leads[leadgen_id] = (
            page_id,
            {
                "id": leadgen_id,
                "created_time": "2018-02-28T08:49:14+0000",
                "ad_id": "6042",
                "form_id": "77",
                "field_data": data,
            },
        )

    def state(self) -> Any:
        return {leadgen_id: answer for leadgen_id, (_, answer) in self.leads.items()}

    def forget(self) -> None:
        self.leads.clear()

    def error(self, status: int) -> Response:
        """By Graph's code; else by status, for what has no words in its body (a proxy's answer)."""
        if status not in CODES:
            return Response(status, text="<html>error</html>", headers={"Content-Type": "text/html"})
        answered, kind, message = CODES[status]
        words = {"message": message, "type": kind, "code": status, "fbtrace_id": "AbCdEf"}
        if status == 190:
            words |= {"error_subcode": 463}
        return Response(answered, {"error": words | ({"is_transient": True} if status in (1, 2) else {})})

    def handle(self, request: Request) -> Response:
        found = _PATH.fullmatch(request.path)
        if request.method != "GET" or not found:
            return self.error(2500)
        given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.query.get("access_token")
        token = self.tokens.get(given or "")
        if token is None or not token.valid:
            return self.error(190)
        if found[1] == "debug_token":
            return self._about(request.query.get("input_token", ""), token)
        fields = [name for name in request.query.get("fields", "id").split(",") if name]
        if found[1] in self.leads:
            return self._lead(found[1], token, fields)
        if found[1] not in token.pages:
            return self.error(100)
        return Response(200, {"id": found[1]} | ({"name": f"Page {found[1]}"} if "name" in fields else {}))

    def _lead(self, leadgen_id: str, token: Token, fields: list[str]) -> Response:
        page_id, answer = self.leads[leadgen_id]
        if page_id not in token.pages:
            return self.error(100)
        if "leads_retrieval" not in token.scopes:
            return self.error(10)
        return Response(200, {name: answer[name] for name in ["id", *fields] if name in answer})

    def _about(self, asked: str, token: Token) -> Response:
        about = self.tokens.get(asked)
        if not token.asks_about_itself:
            return self.error(100)
        if about is None:
            return Response(200, {"data": {"is_valid": False, "scopes": []}})
        data = {"is_valid": about.valid, "expires_at": about.expires_at, "scopes": list(about.scopes), "type": "PAGE"}
        return Response(200, {"data": data})


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--page", default="PAGE", help="page that the test token opens")


def _make(arguments: argparse.Namespace) -> GraphFake:
    fake = GraphFake(port=arguments.port, latency=arguments.latency)
    fake.tokens[TOKEN] = Token((arguments.page,))
    return fake


if __name__ == "__main__":
    main(_make, _arguments)

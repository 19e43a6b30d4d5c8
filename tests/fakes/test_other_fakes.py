"""Slack's and the LLM's stand-ins, and all of them as programs of their own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
import requests
from pydantic import BaseModel

from tests.fakes import llm, slack
from tests.fakes.llm import LlmFake
from tests.fakes.server import FakeServer, Request, Response
from tests.fakes.slack import SlackFake

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def slack_fake() -> Iterator[SlackFake]:
    with SlackFake(channels={"C0LEADS": True, "C0OTHER": False}) as fake:
        yield fake


def _post(fake: SlackFake, token: str = slack.TOKEN, **body: Any) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    return dict(requests.post(f"{fake.api_url}chat.postMessage", json=body, headers=headers).json())


def test_slack_takes_a_message_and_finds_it_again_by_its_metadata(slack_fake: SlackFake) -> None:
    metadata = {"event_type": "lead_alert", "event_payload": {"key": "k1"}}
    sent = _post(slack_fake, channel="C0LEADS", text="Hi", metadata=metadata)
    assert sent["ok"]
    history = requests.get(
        f"{slack_fake.api_url}conversations.history",
        params={"channel": "C0LEADS", "oldest": "0", "include_all_metadata": "true"},
        headers={"Authorization": f"Bearer {slack.TOKEN}"},
    ).json()
    assert [(m["ts"], m["metadata"]) for m in history["messages"]] == [(sent["ts"], metadata)]


@pytest.mark.parametrize(
    ("over", "error"),
    [
        ({"token": "xoxb-wrong"}, "invalid_auth"),
        ({"channel": "C0NONE"}, "channel_not_found"),
        ({"channel": "C0OTHER"}, "not_in_channel"),
        ({"text": ""}, "no_text"),
        ({"text": "x" * 40_001}, "msg_too_long"),
    ],
)
def test_slack_refuses_with_200(slack_fake: SlackFake, over: dict[str, Any], error: str) -> None:
    assert _post(slack_fake, **{"channel": "C0LEADS", "text": "Hi", **over}) == {"ok": False, "error": error}


def test_slack_s_incoming_webhook_answers_in_text(slack_fake: SlackFake) -> None:
    assert requests.post(slack_fake.webhook_url, json={"text": "Hi"}).text == "ok"
    refused = requests.post(slack_fake.webhook_url, json={})
    assert (refused.status_code, refused.text) == (400, "no_text")
    slack_fake.fail_next(kind="429", retry_after="3")
    assert requests.post(slack_fake.webhook_url, json={"text": "Hi"}).headers["Retry-After"] == "3"


class Judgement(BaseModel):
    intent: Literal["inquiry_price", "support", "unknown"]
    confidence: float
    reason: str | None


def _openai(fake: LlmFake, token: str = llm.TOKEN) -> openai.OpenAI:
    return openai.OpenAI(base_url=fake.url, api_key=token, max_retries=0, timeout=5)


def _judge(client: openai.OpenAI) -> Any:
    messages: Any = [{"role": "user", "content": "What does it cost?"}]
    return client.chat.completions.parse(model="fake-model", messages=messages, response_format=Judgement)


def test_the_llm_answers_in_the_shape_it_is_asked_for() -> None:
    with LlmFake() as fake, _openai(fake) as client:
        judgement = _judge(client).choices[0].message.parsed
        assert (judgement.intent, judgement.confidence) == ("inquiry_price", 0.82)
        fake.answer = lambda messages, schema: {"intent": "support", "confidence": 1, "reason": None}
        assert _judge(client).choices[0].message.parsed.intent == "support"


def test_the_llm_s_errors_are_typed() -> None:
    with LlmFake() as fake, _openai(fake, "wrong") as stranger, _openai(fake) as client:
        with pytest.raises(openai.AuthenticationError):
            _judge(stranger)
        fake.fail_next(kind="429")
        with pytest.raises(openai.RateLimitError):
            _judge(client)
        fake.refusal = "I cannot help with that."
        assert _judge(client).choices[0].message.parsed is None


@pytest.mark.parametrize("name", ["twenty", "hubspot", "salesforce", "slack", "llm", "webhook_receiver"])
def test_each_runs_by_hand_and_prints_its_url(name: str) -> None:
    command = [sys.executable, "-m", f"tests.fakes.{name}", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            root = "/".join(url.split("/")[:3])
            assert requests.get(f"{root}/__state").status_code == 200
        finally:
            process.terminate()


class _Batches(FakeServer):
    """Takes a list, and answers for each of its items."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Any] = []

    def handle(self, request: Request) -> Response:
        self.taken += request.json
        return Response(200, {"results": request.json, "errors": []})

    def partial(self, request: Request) -> Response:
        first, *others = request.json
        self.taken.append(first)
        return Response(207, {"results": [first], "errors": others})


def test_a_service_that_knows_partial_failures_has_them_on_demand() -> None:
    with _Batches() as fake:
        requests.post(f"{fake.url}/__faults", json={"match": "POST /batch", "kind": "partial"}).raise_for_status()
        answers = [requests.post(f"{fake.url}/batch", json=["a", "b"]) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [207, 200]
        assert answers[0].json() == {"results": ["a"], "errors": ["b"]}
        assert fake.taken == ["a", "a", "b"]


def test_a_service_without_partial_failures_refuses_the_fault(slack_fake: SlackFake) -> None:
    with pytest.raises(ValueError, match="knows no partial failure"):
        slack_fake.fail_next(kind="partial")
    assert requests.post(f"{slack_fake.root}/__faults", json={"kind": "partial"}).status_code == 400

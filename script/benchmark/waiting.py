"""The queue page beside fifty callers of ``/enrich-lead`` whose model never answers in time."""

import contextlib
import http.client
import itertools
import json
import statistics
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmark.intake import count
from benchmark.pages import Browser, p95
from benchmark.seed import seed
from benchmark.stack import Stack
from tests.fakes.llm import TOKEN, LlmFake

CALLERS = 50
LEADS = 10_000
PAGES = 150
#: The rules are not sure of it, so the model is asked.
UNSURE = "We have been looking at a few options for our clinic"


def measure(stack: Stack) -> dict[str, Any]:
    """Milliseconds of ``GET /queue``, alone and beside the callers, and what these were answered."""
    if (missing := LEADS - count(stack.database_url, "SELECT count(*) FROM leads")) > 0:
        seed(stack, missing)
    with LlmFake(latency=300.0) as llm:
        model = {"OPENAI_BASE_URL": llm.url, "OPENAI_API_KEY": TOKEN, "LEAD_CLASSIFY_LLM_TIMEOUT_SECONDS": "20"}
        made = replace(stack, env=stack.env | model | {"NO_PROXY": "127.0.0.1"})
        with made.web(), made.workers():
            browser = Browser(made)
            alone = [browser.timed("/queue")[0] for _ in range(PAGES)]
            with _callers(made) as answers:
                beside = [browser.timed("/queue")[0] for _ in range(PAGES)]
    return {
        "callers": CALLERS, "asked": len(llm.calls()), "answers": dict(sorted(answers.items())),
        "alone_p95_ms": p95(alone), "p50_ms": round(statistics.median(beside), 1), "p95_ms": p95(beside),
    }  # fmt: skip


@contextlib.contextmanager
def _callers(stack: Stack) -> Iterator[dict[int, int]]:
    """Fifty of them at it, each on its own connection, coming again when it is told to; yields once all have been
    answered or wait: how many answers of each status there were."""
    answers: dict[int, int] = {}
    stopping, numbers, lock = threading.Event(), itertools.count(), threading.Lock()
    began = threading.Barrier(CALLERS + 1)

    def call() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
        headers = {"X-API-Key": stack.api_key, "Content-Type": "application/json"}
        began.wait()
        while not stopping.is_set():
            body = json.dumps({"email": f"waiting{next(numbers)}@example.com", "message": UNSURE})
            try:
                connection.request("POST", "/enrich-lead", body, headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                if stopping.is_set():  # the server has ended while it waited
                    return
                raise
            with lock:
                answers[answer.status] = answers.get(answer.status, 0) + 1
            stopping.wait(float(answer.headers.get("Retry-After") or 0))
        connection.close()

    threads = [threading.Thread(target=call, daemon=True) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    began.wait()
    stopping.wait(1.0)
    try:
        yield answers
    finally:
        stopping.set()

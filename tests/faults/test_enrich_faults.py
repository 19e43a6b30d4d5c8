"""``POST /enrich-lead`` on real processes: a model that hangs or fails, holders and workers that are killed."""

import http.client
import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from tests.fakes.llm import TOKEN, LlmFake
from tests.faults.stack import Answer, Stack
from tests.waiting import until
from webapp.leads.states import RunStatus
from webapp.models import IdempotencyKey, Lead, Run

pytestmark = [pytest.mark.fault, pytest.mark.slow]

SURE = "Cho tôi báo giá gói Enterprise"
UNSURE = "We have been looking at a few options for our clinic"
#: Time enough for whatever a test does meanwhile.
PATIENT = {"LEAD_CLASSIFY_LLM_TIMEOUT_SECONDS": "60", "PROCESSING_TIMEOUT": "90"}
#: The worker gives up first, then its caller is answered by the rules.
HASTY = {"LEAD_CLASSIFY_LLM_TIMEOUT_SECONDS": "3", "PROCESSING_TIMEOUT": "30"}


class ModelStack(Stack):
    """With a model; ``mode`` and time limits are those of the processes started next."""

    def __init__(self, llm: LlmFake) -> None:
        super().__init__()
        self.llm = llm
        self.more: dict[str, str] = {}

    def _launch(self, part: str) -> subprocess.Popen[bytes]:
        more = {
            "OPENAI_BASE_URL": self.llm.url, "OPENAI_API_KEY": TOKEN, "WEB_THREADS": "4", "NO_PROXY": "127.0.0.1",
            **self.more,
        }  # fmt: skip
        if part == "web":
            return self.processes.start("-m", "embedded.web", **more)
        if part == "clock":
            return self.processes.clock()
        return self.processes.start("-m", "jobs.worker", part, WORKER_SLOT=f"{part}-1", **more)

    def enrich(self, number: int | str, message: str = UNSURE) -> Answer:
        """A request on a connection of its own, however long it takes."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
            body = json.dumps({"email": f"caller{number}@example.com", "message": message})
            headers = {"X-API-Key": self.key, "Content-Type": "application/json"}
            connection.request("POST", "/enrich-lead", body, headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, response.read().decode(), 0.0, found)

    def all_of(self, model: Any) -> list[Any]:
        with self.session() as session:
            return list(session.scalars(sa.select(model).order_by(model.created_at)))

    @contextmanager
    def thinking(self) -> Iterator[threading.Event]:
        """The model answers nobody until the event is set."""
        released, answer = threading.Event(), self.llm.answer

        def slowly(messages: Any, schema: Any) -> Any:
            released.wait(120)
            return answer(messages, schema)

        self.llm.answer = slowly
        try:
            yield released
        finally:
            released.set()
            self.llm.answer = answer

    def asked(self) -> int:
        return len(self.llm.calls("POST /chat"))


@pytest.fixture(scope="module")
def _stack() -> Iterator[ModelStack]:
    with LlmFake() as llm, ModelStack(llm) as made:
        yield made


@pytest.fixture
def stack(_stack: ModelStack) -> Iterator[ModelStack]:
    _stack.more = {}
    _stack.start("clock")
    yield _stack
    _stack.kill("web", "runs")
    with _stack.llm.lock:
        _stack.llm.faults.clear()
        _stack.llm.requests.clear()
    _stack.clear()


def test_the_key_of_a_killed_web_process_is_taken_over(stack: ModelStack) -> None:
    stack.more = HASTY
    stack.start("web", "runs")
    stack.llm.fail_next(kind="hang", seconds=60)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stack.enrich, 1)
        until(lambda: stack.asked() == 1, seconds=90)
        (key,) = stack.all_of(IdempotencyKey)
        assert key.lease_until is not None and key.response is None
        held = stack.enrich(1)
        assert (held.status, held.headers["retry-after"]) == (409, "5")
        stack.kill("web")
        assert isinstance(waiting.exception(30), OSError)
    stack.start("web")
    answers: list[Answer] = []

    def answered() -> bool:
        answers.append(stack.enrich(1))
        return answers[-1].status == 200

    until(answered, seconds=90)
    assert {answer.status for answer in answers[:-1]} <= {409}
    assert "idempotent-replayed" not in answers[-1].headers
    assert stack.enrich(1).headers["idempotent-replayed"] == "true"
    assert stack.asked() == stack.count() == stack.count(of=Run) == 1
    assert stack.all_of(Lead)[0].touches == 1


def test_a_killed_worker_costs_the_caller_nothing_but_time(stack: ModelStack) -> None:
    stack.start("web", "runs")
    stack.llm.fail_next(kind="hang", seconds=60)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stack.enrich, 1)
        until(lambda: stack.asked() == 1, seconds=90)
        stack.kill("runs")
        stack.start("runs")
        answer = waiting.result(30)
    assert answer.status == 200, answer.text
    (done,) = stack.all_of(Run)
    assert (done.status, done.stages[1]["status"], done.attempt) == (RunStatus.SUCCESS, "ok", 2)
    assert stack.asked() == 2


def test_fifty_slow_callers_do_not_starve_the_pages(stack: ModelStack) -> None:
    stack.more = PATIENT
    stack.start("web", "runs")
    reviewer = stack.visitor()
    assert reviewer.log_in(stack.reviewer().email).status == 302
    with stack.thinking() as released, ThreadPoolExecutor(50) as pool:
        callers: list[Future[Answer]] = [pool.submit(stack.enrich, number) for number in range(50)]
        # All but those who wait are turned away at once: there are four places in each of two processes.
        until(lambda: sum(one.done() for one in callers) >= 42 and stack.asked() >= 4, seconds=60)
        pages = [reviewer.ask("GET", "/queue") for _ in range(40)]
        waiting = [one for one in callers if not one.done()]
        assert 4 <= len(waiting) <= 8  # still, after forty pages
        with stack.session() as session:
            old = "xact_start < clock_timestamp() - interval '2 s' AND datname = current_database()"
            query = f"SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND {old}"
            assert session.scalar(sa.text(query)) == 0  # nobody waits in a transaction
        # Nor are calls that need no model held up.
        assert stack.enrich("sure", SURE).status == 200
        released.set()
        answers = [one.result(60) for one in callers]
    assert {page.status for page in pages} == {200}
    assert sorted({answer.status for answer in answers}) == [200, 503]
    refused = [answer for answer in answers if answer.status == 503]
    assert len(refused) == 50 - len(waiting)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert stack.count() == len(waiting) + 1  # what was turned away has left nothing
    until(stack.runs_done)


def test_runs_that_need_no_model_pass_those_that_do(stack: ModelStack) -> None:
    stack.more = PATIENT
    stack.start("web", "runs")
    visitor = stack.visitor()
    with stack.thinking() as released:
        for number in range(20):
            assert visitor.post_lead(stack.key, note=UNSURE, email=f"unsure{number}@example.com").status == 201
        until(lambda: stack.asked() == 8, seconds=90)
        for number in range(20):
            assert visitor.post_lead(stack.key, note=SURE, email=f"sure{number}@example.com").status == 201
        sure = [Lead.message == SURE, Lead.settled_at.is_not(None)]
        until(lambda: stack.count(*sure) == 20, seconds=90)
        assert stack.asked() == 8  # all threads wait
        assert stack.count(Lead.message == UNSURE, Lead.settled_at.is_not(None)) == 0
        released.set()
        until(stack.runs_done, seconds=60)
    assert stack.asked() == 20


def test_a_required_model_that_fails_is_502_until_it_works_again(stack: ModelStack) -> None:
    stack.more = {"CLASSIFY_MODE": "llm"}
    stack.start("web", "runs")
    stack.llm.fail_next(kind="500")
    answer = stack.enrich(1)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_failed")
    (failed,) = stack.all_of(Run)
    assert failed.status is RunStatus.FAILED and "500" in failed.error
    assert stack.all_of(IdempotencyKey) == []
    good = stack.enrich(1)
    assert good.status == 200, good.text
    assert stack.enrich(1).text == good.text
    assert stack.count() == 1 and stack.asked() == 2


def test_without_a_worker_a_required_model_is_502(stack: ModelStack) -> None:
    stack.more = {"CLASSIFY_MODE": "llm", "PROCESSING_TIMEOUT": "1"}
    stack.start("web")
    answer = stack.enrich(1)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_failed")
    (failed,) = stack.all_of(Run)
    assert failed.status is RunStatus.FAILED and "no answer within 1 s" in failed.error
    assert stack.all_of(IdempotencyKey) == []


def test_while_postgresql_is_away_it_is_503_and_nothing_is_stuck_afterwards(stack: ModelStack) -> None:
    stack.start("web", "runs")
    try:
        with stack.thinking(), ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(stack.enrich, 1)
            until(lambda: stack.asked() == 1, seconds=90)
            stack.postgres.stop()
            assert waiting.result(30).status == 503
            away = stack.enrich(2, SURE)
            assert (away.status, away.json["error"]["code"]) == (503, "unavailable")
    finally:
        stack.postgres.start()
    until(lambda: stack.enrich(1).status == 200, seconds=90)
    assert stack.count() == 1

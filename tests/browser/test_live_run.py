"""A run that waits for a slow model, followed on its page: a real worker, a real web server, a real browser."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, expect
from sqlalchemy.orm import Session

from tests.browser.conftest import CDN, DESK, PATIENCE_MS, PHONE, log_in
from tests.conftest import environment
from tests.factories import make_lead, make_user
from tests.fakes.llm import TOKEN, LlmFake, plausible
from tests.faults.processes import Processes
from tests.ops.support import free_port
from tests.waiting import until
from webapp.leads.states import Role, RunStatus
from webapp.models import Run, Workspace

pytestmark = [pytest.mark.browser, pytest.mark.fault]


class SlowModel:
    """Answers once it is let."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.fake = LlmFake(answer=self._answer)

    def _answer(self, messages: list[dict[str, Any]], schema: dict[str, Any] | None) -> Any:
        self.may.wait(60)
        return plausible(messages, schema)

    @property
    def asked(self) -> int:
        return len(self.fake.calls("POST /chat/completions"))


@pytest.fixture
def model() -> Iterator[SlowModel]:
    slow = SlowModel()
    with slow.fake:
        yield slow
        slow.may.set()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def processes(database_url: str, redis_url: str, model: SlowModel, port: int) -> Iterator[Processes]:
    asked = {"OPENAI_BASE_URL": model.fake.url, "OPENAI_API_KEY": TOKEN, "CLASSIFY_MODE": "llm"}
    alone = {"ENABLE_ENRICHMENT": "off", "LEAD_CLASSIFY_LLM_TIMEOUT_SECONDS": "60", "WEB_WORKERS": "1"}
    started = Processes(environment(database_url, redis_url, PORT=str(port), **asked, **alone))
    yield started
    started.kill_all()


@pytest.fixture
def web(processes: Processes, port: int) -> str:
    """The console's address, once it answers."""
    url = f"http://127.0.0.1:{port}"
    processes.start("-m", "embedded.web", PYTHONPATH="script:.")
    until(lambda: _ready(url), seconds=60)
    return url


def _ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/readyz", timeout=2).ok
    except requests.ConnectionError:
        return False


@pytest.fixture
def page(browser: Browser, web: str, session: Session, workspace: Workspace) -> Iterator[Page]:
    user = make_user(session, workspace, role=Role.REVIEWER)
    context = browser.new_context(viewport=DESK)
    context.set_default_timeout(PATIENCE_MS)
    context.route(CDN, lambda route: route.abort())
    opened = context.new_page()
    log_in(opened, web, user)
    yield opened
    context.close()


def test_its_stages_are_followed_until_it_is_done(
    session: Session, workspace: Workspace, model: SlowModel, processes: Processes, web: str, page: Page
) -> None:
    make_lead(session, workspace, message="Could you tell me about the thing with the seats?")
    session.commit()
    run_id = session.scalar(sa.select(Run.id))
    page.goto(f"{web}/runs/{run_id}")
    page.evaluate("window.sameDocument = true")
    stages = page.locator("#state ol.stages > li")
    expect(stages).to_have_count(4)
    expect(stages.filter(has_text="to come")).to_have_count(4)
    expect(page.locator("#state")).to_contain_text("It begins as soon as a worker is free")

    processes.worker()
    expect(stages.nth(1)).to_contain_text("under way", timeout=60_000)
    expect(stages.nth(0)).to_contain_text("done")
    expect(stages.nth(1)).to_contain_text("so far")
    expect(stages.filter(has_text="to come")).to_have_count(2)
    until(lambda: model.asked == 1)
    assert _status(session) is RunStatus.RUNNING
    before = stages.nth(1).inner_text()
    expect(stages.nth(1)).not_to_have_text(before)  # the time it takes grows
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    model.may.set()
    expect(page.locator("#state details.run")).to_have_count(4)
    expect(page.locator("#state h1 .st")).to_contain_text("done")
    expect(page.locator("#state [hx-trigger]")).to_have_count(0)  # and asks no more
    assert page.evaluate("window.sameDocument") is True
    assert _status(session) is RunStatus.SUCCESS
    assert model.asked == 1


def _status(session: Session) -> RunStatus | None:
    session.rollback()
    return session.scalar(sa.select(Run.status))

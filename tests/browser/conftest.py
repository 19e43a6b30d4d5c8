"""A real server and a real browser. Skipped, loudly, only where no Chromium can be had; never in CI."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright
from sqlalchemy.orm import Session
from werkzeug.serving import make_server

from tests.factories import PASSWORD, make_user
from webapp.leads.states import Role
from webapp.models import User, Workspace

PATIENCE_MS = 30_000  # a busy machine takes longer than Playwright's 5 s for the larger pages
expect.set_options(timeout=PATIENCE_MS)

CDN = "https://cdn.jsdelivr.net/**"
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


def log_in(page: Page, url: str, user: User) -> None:
    """By the form of the console at ``url``, as a person does."""
    page.goto(f"{url}/login")
    page.fill("#email", user.email)
    page.fill("#password", PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/queue")


def chromium_path() -> str | None:
    """The installed browser; None lets Playwright use one of its own."""
    named = os.environ.get("CHROMIUM")
    return named or next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where a browser goes on before a file has come, the server of these tests leaves it to be closed by itself."""
    left_open = r"ignore:Exception ignored in. <_io.FileIO name='.*/static/:pytest.PytestUnraisableExceptionWarning"
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings(left_open))


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    path = chromium_path()
    if path is None and not os.path.exists(playwright.chromium.executable_path):
        message = "NO CHROMIUM: browser tests did not run. Install chromium, or `playwright install chromium`."
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    opened = playwright.chromium.launch(
        executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    )
    yield opened
    opened.close()


@pytest.fixture
def live_server(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The app behind a threaded server on a free port, with CSRF protection on, as for people."""
    monkeypatch.setitem(app.config, "WTF_CSRF_ENABLED", True)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.daemon_threads = False  # closing waits for requests under way: the next test empties the tables
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class Console:
    """A browser window of somebody who is logged in; collects what the page complains of."""

    def __init__(self, page: Page, base: str) -> None:
        self.page, self.base = page, base
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)

    def open(self, path: str) -> Page:
        """Go there, and wait until htmx has taken over."""
        self.page.goto(self.base + path)
        self.page.locator("html[data-htmx]").wait_for()
        self.page.locator("[data-htmx-powered]").first.wait_for(state="attached")
        return self.page


@pytest.fixture
def contexts(browser: Browser, live_server: str) -> Iterator[Callable[..., BrowserContext]]:
    """Windows, which are closed before the server is."""
    opened: list[BrowserContext] = []

    def new(**kwargs: Any) -> BrowserContext:
        opened.append(browser.new_context(**kwargs))
        opened[-1].set_default_timeout(PATIENCE_MS)
        return opened[-1]

    yield new
    for context in opened:
        context.close()


@pytest.fixture
def console(
    contexts: Callable[..., BrowserContext], live_server: str, session: Session, workspace: Workspace
) -> Callable[..., Console]:
    """``console(role, viewport, …)``: a new window, logged in. The CDN is away unless ``cdn`` says what it does."""

    def do(
        role: Role = Role.REVIEWER,
        viewport: dict[str, int] = DESK,
        *,
        name: str = "Ana Torres",
        cdn: Any = None,
        **kwargs: Any,
    ) -> Console:
        user = make_user(session, workspace, role=role, name=name)
        context = contexts(viewport=viewport, **kwargs)
        context.route(CDN, cdn or (lambda route: route.abort()))
        page = context.new_page()
        log_in(page, live_server, user)
        return Console(page, live_server)

    return do

"""The API documentation in a real browser: it renders, a door can be tried, and the security policy is kept."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.conftest import DESK, PHONE

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_the_documentation_renders_and_a_door_can_be_tried(
    contexts: Callable[..., BrowserContext], live_server: str, headers: dict[str, str], viewport: Any
) -> None:
    page = contexts(viewport=viewport).new_page()
    complaints: list[str] = []
    elsewhere: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on(
        "request", lambda asked: None if asked.url.startswith((live_server, "data:")) else elsewhere.append(asked.url)
    )
    page.goto(f"{live_server}/docs")
    page.wait_for_url("**/api/docs")
    expect(page.get_by_role("heading", name="Lead Ops Console")).to_be_visible()
    expect(page.locator(".opblock").first).to_be_visible()
    documented = page.locator(".opblock").count()
    served = page.request.get(f"{live_server}/api/openapi.json").json()
    assert documented == sum(len(item) for item in served["paths"].values())

    page.get_by_role("button", name="Authorize").first.click()
    page.locator("input[aria-label='auth-api_key-value'], #api_key_value").first.fill(headers["X-API-Key"])
    page.locator(".auth-btn-wrapper .authorize").first.click()
    page.locator(".auth-btn-wrapper .btn-done").first.click()
    listing = page.locator("#operations-Signals-get_signals_listing")
    listing.locator(".opblock-summary").click()
    listing.get_by_role("button", name="Try it out").click()
    listing.get_by_role("button", name="Execute").click()
    expect(listing.locator(".live-responses-table tbody .response-col_status")).to_contain_text("200")
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/apidocs-{viewport['width']}.png")
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=f"{folder}/apidocs-{viewport['width']}-top.png")
    assert complaints == [] and elsewhere == []
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, "the page scrolls sideways"

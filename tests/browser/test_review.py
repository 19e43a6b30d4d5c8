"""A reviewer's work in a real browser, by keyboard and by thumb."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from sqlalchemy.orm import Session

from tests.browser.conftest import PHONE
from tests.factories import make_lead
from webapp.leads.states import LeadStatus, Priority, Role
from webapp.models import Workspace
from webapp.views import helpers

LOCAL = Path(__file__).parents[2] / "static" / helpers.HTMX_LOCAL


@pytest.fixture
def leads(session: Session, workspace: Workspace) -> list[Any]:
    """Three that wait, in the order of the list."""
    return [
        make_lead(session, workspace, f"{word} urgent pricing please", name=f"{word} Person",
                  status=LeadStatus.NEW_DRAFT, priority=Priority(f"P{n}"))
        for n, word in enumerate(("First", "Second", "Third"))
    ]  # fmt: skip


def fresh(session: Session, lead: Any) -> Any:
    session.expire_all()
    session.refresh(lead)
    status = lead.status
    session.commit()
    return status


def test_the_keyboard_alone_approves_undoes_and_overrides(console: Any, session: Session, leads: list[Any]) -> None:
    window = console()
    page = window.open("/queue")
    page.keyboard.press("j")
    expect(page.locator("#lead-name")).to_have_text("First Person")
    expect(page).to_have_url(re.compile(f"/queue/{leads[0].id}"))
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("a")  # at once: waits for the lead that k asked for
    expect(page.locator("#toasts")).to_contain_text("Approved")
    expect(page.locator("#toasts")).to_contain_text("First Person")
    expect(page.locator("#lead-name")).to_have_text("Second Person")
    expect(page.locator(f"#lead-{leads[0].id}")).to_contain_text("approved")
    expect(page.locator("#tabs [aria-current]")).to_contain_text("Waiting 2")
    assert fresh(session, leads[0]) is LeadStatus.APPROVED

    page.keyboard.press("u")
    expect(page.locator("#toasts")).to_contain_text("Taken back")
    assert fresh(session, leads[0]) is LeadStatus.NEW_DRAFT
    expect(page.locator("#lead-name")).to_have_text("First Person")

    page.keyboard.press("o")
    expect(page.locator("#dialog")).to_be_visible()
    page.locator("#d-intent").select_option("complaint")
    page.get_by_label("Why, for those who come after").fill("jk a o typed in a field do nothing else")
    page.locator("#dialog").get_by_role("button", name="Override").click()
    expect(page.locator("#dialog")).not_to_be_visible()
    expect(page.locator("#toasts")).to_contain_text("Overridden")
    assert fresh(session, leads[0]) is LeadStatus.OVERRIDDEN
    assert window.complaints == [] or all("ERR_FAILED" in text for text in window.complaints)


def test_rejecting_without_a_reason_is_explained_in_the_dialog(
    console: Any, session: Session, leads: list[Any]
) -> None:
    page = console().open(f"/queue/{leads[0].id}")
    page.keyboard.press("e")
    dialog = page.locator("#dialog")
    dialog.get_by_role("button", name="Reject").click()
    expect(dialog).to_contain_text("A rejection needs one of")
    dialog.get_by_label("Spam").check()
    dialog.get_by_role("button", name="Reject").click()
    expect(page.locator("#toasts")).to_contain_text("Rejected")
    assert fresh(session, leads[0]) is LeadStatus.REJECTED


def test_escape_closes_and_keys_rest_while_typing(console: Any, session: Session, leads: list[Any]) -> None:
    page = console().open(f"/queue/{leads[0].id}")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).not_to_be_visible()
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("area")
    expect(page.locator("#q")).to_have_value("area")
    assert fresh(session, leads[0]) is LeadStatus.NEW_DRAFT
    expect(page.locator("#results")).to_contain_text("No lead matches")
    page.keyboard.press("Escape")
    expect(page.locator("#q")).not_to_be_focused()


def test_selected_leads_are_approved_together_with_a_result_each(
    console: Any, session: Session, leads: list[Any]
) -> None:
    page = console().open("/queue")
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.locator(f"#lead-{leads[1].id} input").check()
    expect(page.locator("#n-selected")).to_have_text("2 selected")
    page.locator("#bulk").get_by_role("button", name="Approve").click()
    expect(page.locator("#pane")).to_contain_text("2 of 2 done")
    expect(page.locator(f"#lead-{leads[1].id}")).to_contain_text("approved")
    page.keyboard.press("u")
    expect(page.locator("#pane")).to_contain_text("taken back")
    assert fresh(session, leads[1]) is LeadStatus.NEW_DRAFT


def test_a_stale_click_says_who_was_quicker(console: Any, session: Session, leads: list[Any]) -> None:
    ana, max_ = console(name="Ana Torres"), console(name="Max Weber")
    ana.open(f"/queue/{leads[0].id}")
    max_.open(f"/queue/{leads[0].id}").keyboard.press("a")
    expect(max_.page.locator("#toasts")).to_contain_text("Approved")
    ana.page.keyboard.press("a")
    expect(ana.page.locator("#pane")).to_contain_text("Max Weber approved this lead")
    ana.page.get_by_role("link", name="Load the current state").click()
    expect(ana.page.locator("#lead-name")).to_have_text("First Person")
    expect(ana.page.locator("#pane")).to_contain_text("Approved by Max Weber")


def test_going_back_returns_to_the_page_before(console: Any, leads: list[Any]) -> None:
    page = console().open("/queue")
    page.get_by_role("link", name="Second Person").click()
    expect(page.locator("#lead-name")).to_have_text("Second Person")
    page.get_by_role("link", name="First Person").click()
    expect(page.locator("#lead-name")).to_have_text("First Person")
    page.go_back()
    expect(page.locator("#lead-name")).to_have_text("Second Person")
    expect(page.locator(".rows .row")).to_have_count(3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_list_then_the_lead_and_never_scrolls_sideways(
    console: Any, session: Session, workspace: Workspace, leads: list[Any], scheme: str
) -> None:
    long = make_lead(
        session, workspace, "price " * 800 + "x" * 500, name="N" * 120, status=LeadStatus.NEW_DRAFT, company="C" * 200
    )
    window = console(Role.ADMIN, PHONE, color_scheme=scheme)
    for path in ("/queue", f"/queue/{long.id}", "/runs", "/deliveries", "/settings", "/settings/members", "/settings/keys",
                 "/settings/destinations", f"/queue/{long.id}/reject", "/nowhere"):  # fmt: skip
        window.page.goto(window.base + path)
        wide = window.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, path
    page = window.open("/queue")
    expect(page.locator("#pane")).not_to_be_visible()
    page.get_by_role("link", name="First Person").click()
    expect(page.locator("#lead-name")).to_be_visible()
    expect(page.locator(".list")).not_to_be_visible()
    approve = page.get_by_role("button", name="Approve")
    box = approve.bounding_box()
    assert box and box["y"] > 700 and box["height"] >= 44
    approve.click()
    expect(page.locator("#toasts")).to_contain_text("Approved")


def test_a_silent_cdn_holds_up_nothing_and_the_local_copy_takes_over(console: Any, leads: list[Any]) -> None:
    started: dict[str, float] = {}
    window = console(cdn=lambda route: started.setdefault("asked", time.monotonic()))  # never answered
    began = time.monotonic()
    window.page.goto(f"{window.base}/queue")  # waits for the page's load event
    assert time.monotonic() - began < 4
    window.page.locator("html[data-htmx=local]").wait_for()
    window.page.keyboard.press("j")
    expect(window.page.locator("#lead-name")).to_have_text("First Person")
    assert "asked" in started


def test_the_cdn_is_used_when_it_answers_with_the_right_bytes(console: Any, leads: list[Any]) -> None:
    cors = {"Access-Control-Allow-Origin": "*"}
    good = console(cdn=lambda route: route.fulfill(path=LOCAL, content_type="text/javascript", headers=cors))
    good.open("/queue").locator("html[data-htmx=cdn]").wait_for()
    good.page.keyboard.press("j")
    expect(good.page.locator("#lead-name")).to_have_text("First Person")


def test_altered_bytes_from_the_cdn_are_not_run(console: Any, leads: list[Any]) -> None:
    cors = {"Access-Control-Allow-Origin": "*"}
    evil = "document.documentElement.dataset.owned = 1"
    window = console(cdn=lambda route: route.fulfill(body=evil, content_type="text/javascript", headers=cors))
    window.open("/queue").locator("html[data-htmx=local]").wait_for()
    assert window.page.locator("html[data-owned]").count() == 0


def test_everything_works_without_javascript(console: Any, session: Session, leads: list[Any]) -> None:
    page = console(java_script_enabled=False).page
    page.get_by_role("link", name="First Person").click()
    # Each click loads a page; until its style sheet is there, the bulk buttons that it hides can be seen as well.
    page.wait_for_load_state()
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("#toasts")).to_contain_text("Approved")
    page.wait_for_load_state()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#toasts")).to_contain_text("Taken back")
    page.wait_for_load_state()
    page.get_by_role("button", name="Reject").click()
    page.get_by_label("No budget").check()
    page.wait_for_load_state()
    page.get_by_role("button", name="Reject").click()
    expect(page.locator("#toasts")).to_contain_text("Rejected")
    assert fresh(session, leads[0]) is LeadStatus.REJECTED


def test_hostile_text_runs_nothing(console: Any, session: Session, workspace: Workspace) -> None:
    lead = make_lead(
        session, workspace, "<script>document.title='owned'</script> urgent price <img src=x onerror=alert(1)>",
        name="<img src=x onerror=\"document.title='owned'\">", status=LeadStatus.NEW_DRAFT,
    )  # fmt: skip
    window = console()
    dialogs: list[str] = []
    window.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    page = window.open("/queue")
    page.keyboard.press("j")
    expect(page.locator(".message")).to_contain_text("<script>document.title='owned'</script>")
    assert "owned" not in page.title().replace(lead.name, "") and dialogs == []


def test_the_windows_of_two_reviewers_know_of_each_other(console: Any, leads: list[Any]) -> None:
    ana, max_ = console(name="Ana Torres"), console(name="Max Weber")
    ana.open(f"/queue/{leads[0].id}")
    expect(ana.page.locator("#here")).to_contain_text("yours")
    expect(max_.open(f"/queue/{leads[0].id}").locator("#here")).to_contain_text("Ana Torres has it open")
    ana.page.get_by_role("link", name="Second Person").click()
    expect(ana.page.locator("#lead-name")).to_have_text("Second Person")
    max_.page.wait_for_timeout(300)
    expect(max_.open(f"/queue/{leads[0].id}").locator("#here")).not_to_contain_text("Ana")


def test_new_leads_wait_in_a_pill_and_no_figure_contradicts_the_list(
    console: Any, session: Session, workspace: Workspace, leads: list[Any]
) -> None:
    window = console()
    window.page.clock.install()
    page = window.open("/queue")
    make_lead(session, workspace, "just arrived", name="Late Comer", status=LeadStatus.NEW_DRAFT)
    page.clock.run_for(16_000)
    expect(page.locator(".new")).to_have_text("1 new")
    expect(page.locator(".rows .row")).to_have_count(3)
    page.locator(".new").click()
    expect(page.locator(".rows .row")).to_have_count(4)
    for figure in ("#tabs [aria-current]", "#glance", "#n-queue"):
        expect(page.locator(figure)).to_contain_text("4")

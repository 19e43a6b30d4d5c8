"""Many leads re-run, in a real browser: from the list to the result without a reload, and stopped half-way."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect
from sqlalchemy.orm import Session, sessionmaker

from tests.browser.conftest import PHONE
from tests.factories import make_lead
from webapp.leads import rerun_work, run
from webapp.leads.claims import Holder
from webapp.leads.states import Role
from webapp.models import Rerun, Run, Workspace

pytestmark = pytest.mark.browser


@pytest.fixture
def worked(session: Session, session_factory: sessionmaker[Session]) -> Callable[..., None]:
    """Work as the workers do: ``runs`` runs, then a look at the re-run."""

    def do(runs: int = 0) -> None:
        if runs:
            run.process(session_factory, Holder(), max_rows=runs, batch=runs)
        session.execute(sa.update(Rerun).values(due_at=sa.func.now()))
        session.commit()
        rerun_work.process(session_factory, Holder())

    return do


@pytest.fixture
def leads(session: Session, session_factory: sessionmaker[Session], workspace: Workspace) -> None:
    for n in range(20):
        make_lead(session, workspace, source="zalo" if n < 10 else "web")
    run.process(session_factory, Holder())


def test_a_filtered_set_is_run_again_and_followed(
    console: Any, session: Session, leads: None, worked: Callable[..., None]
) -> None:
    window = console(Role.MANAGER)
    page = window.open("/runs")
    expect(page.locator("#results .above")).to_contain_text("20 runs")
    page.get_by_label("Source").fill("zalo")
    page.get_by_label("Source").blur()
    expect(page.locator("#results .above")).to_contain_text("10 runs")  # without a reload
    page.get_by_role("link", name="Re-run these leads").click()
    page.get_by_role("button", name="Re-run 10 leads").click()

    page.wait_for_url(re.compile(r"/reruns/[0-9a-f-]+$"))
    page.locator("html[data-htmx]").wait_for()
    state = page.locator("#state")
    expect(state).to_contain_text("begins as soon as a worker is free")
    worked()
    expect(state).to_contain_text("10 waiting")  # without a reload
    bar = state.get_by_role("progressbar")
    expect(bar).to_have_attribute("value", "0.000")
    worked(4)
    expect(bar).to_have_attribute("value", "0.400")
    worked(6)
    expect(state.locator(".st")).to_contain_text("done")
    expect(bar).to_have_count(0)
    expect(state).to_contain_text("No verdict has changed")
    session.rollback()
    assert session.scalar(sa.select(sa.func.count()).select_from(Run)) == 30
    assert [said for said in window.complaints if "ERR_FAILED" not in said] == []  # the CDN is away


def test_it_is_stopped_half_way_on_a_phone_without_javascript(
    console: Any, session: Session, leads: None, worked: Callable[..., None]
) -> None:
    window = console(Role.MANAGER, PHONE, java_script_enabled=False)
    page = window.page
    page.goto(f"{window.base}/reruns/new?of=runs&source=zalo")
    page.get_by_role("button", name="Re-run 10 leads").click()
    worked()
    worked(4)
    page.reload()
    expect(page.locator("#state")).to_contain_text("40 %")
    width = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]
    page.get_by_role("button", name="Stop it").click()
    expect(page.locator("#state")).to_contain_text("6 leads were left as they are")
    session.rollback()
    assert session.scalar(sa.select(sa.func.count()).select_from(Run)) == 24

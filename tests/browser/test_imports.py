"""A file's way in, in a real browser: upload, columns, progress without a reload, undo."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from playwright.sync_api import expect
from sqlalchemy.orm import Session, sessionmaker

from tests.browser.conftest import PHONE
from webapp.leads import imports
from webapp.leads.claims import Holder
from webapp.leads.states import Role
from webapp.models import Lead
from webapp.security.keys import tenant_of

pytestmark = pytest.mark.browser


@pytest.fixture
def folder(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settings = app.extensions["settings"].model_copy(update={"imports_dir": str(tmp_path / "imports")})
    monkeypatch.setitem(app.extensions, "settings", settings)
    return tmp_path / "imports"


@pytest.fixture
def worked(app: Flask, session_factory: sessionmaker[Session], folder: Path) -> Callable[[], None]:
    """Work the queue as its worker does."""

    def do() -> None:
        imports.process(
            session_factory,
            Holder(),
            folder=folder,
            seal=app.extensions["cipher"].seal,
            tenant_of=lambda w: tenant_of(w, default_region="US", duplicate_days=30, idempotency_days=30),
        )
        imports.process_undos(session_factory, Holder())

    return do


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "fair.csv"
    rows = "".join(f"Person {n},person{n}@acme.example,Please send a quote for {n} seats\n" for n in range(30))
    path.write_text(f"Who,E-mail,Notes\n{rows}Nobody,no address,Hello\n")
    return path


def test_a_file_comes_in_and_goes_again(
    console: Any, session: Session, table: Path, worked: Callable[[], None]
) -> None:
    window = console(Role.MANAGER)
    page = window.page
    page.goto(f"{window.base}/imports")
    page.locator("html[data-htmx]").wait_for()
    page.get_by_role("link", name="Import a file").first.click()
    page.set_input_files("#f-file", str(table))
    page.get_by_role("button", name="Upload").click()

    page.wait_for_url("**/columns")
    page.locator("html[data-htmx]").wait_for()
    preview = page.locator("#preview")
    expect(preview).to_contain_text("20 rows shown")
    expect(preview).to_contain_text("price inquiry")
    expect(preview).not_to_contain_text("Person 7")
    page.get_by_label("Who", exact=True).select_option("name")
    expect(preview).to_contain_text("Person 7")  # without a reload
    page.get_by_role("button", name="Start").click()

    page.wait_for_url(re.compile(r"/imports/[0-9a-f-]+$"))
    state = page.locator("#state")
    expect(state).to_contain_text("begins as soon as a worker is free")
    worked()
    expect(state.locator(".st")).to_contain_text("done")  # without a reload
    expect(state.get_by_role("progressbar")).to_have_count(0)
    expect(state).to_contain_text("E-mail")
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download all as CSV").click()
    assert Path(downloading.value.path()).read_text("utf-8-sig").splitlines()[1].startswith("31,email,")

    page.get_by_role("link", name="Undo this import").click()
    page.get_by_role("button", name="Undo: delete 30 leads").click()
    expect(state).to_contain_text("undo waits")
    worked()
    expect(state).to_contain_text("30 leads are gone")
    session.rollback()
    assert session.scalar(sa.select(sa.func.count()).select_from(Lead)) == 0
    assert [said for said in window.complaints if "ERR_FAILED" not in said] == []  # the CDN is away


def test_a_file_that_is_too_large_is_not_sent(
    app: Flask, console: Any, table: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = app.extensions["settings"].model_copy(update={"max_import_bytes": 1_024})
    monkeypatch.setitem(app.extensions, "settings", settings)
    window = console(Role.MANAGER)
    page = window.page
    page.goto(f"{window.base}/imports/new")
    page.locator("html[data-htmx]").wait_for()
    page.set_input_files("#f-file", str(table))
    assert "larger than 1.0 kB" in page.locator("#f-file").evaluate("input => input.validationMessage")
    page.get_by_role("button", name="Upload").click()
    expect(page).to_have_url(f"{window.base}/imports/new")


def test_without_javascript_it_works_as_well(
    console: Any, session: Session, table: Path, worked: Callable[[], None]
) -> None:
    window = console(Role.MANAGER, PHONE, java_script_enabled=False)
    page = window.page
    page.goto(f"{window.base}/imports/new")
    page.set_input_files("#f-file", str(table))
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/columns")
    page.get_by_label("Who", exact=True).select_option("company")
    page.get_by_role("button", name="Show the rows").click()
    expect(page.locator("#preview")).to_contain_text("Person 7")
    expect(page.get_by_label("Who", exact=True)).to_have_value("company")  # what was chosen stays
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#state")).to_contain_text("Load the page again")
    worked()
    page.reload()
    expect(page.locator("#state .st")).to_contain_text("done")
    session.rollback()
    assert set(session.scalars(sa.select(Lead.company))) == {f"Person {n}" for n in range(30)}
    width = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]

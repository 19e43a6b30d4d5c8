"""The mapping editor and the quarantine editor in a browser: with a mouse, and without JavaScript."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import expect
from sqlalchemy.orm import Session

from tests.api import hook_bodies as bodies
from webapp.leads import sources
from webapp.leads.quarantine import Bad, quarantine
from webapp.leads.states import Door, Role
from webapp.models import Workspace
from webapp.models.inbound import InboundSource

pytestmark = pytest.mark.browser


@pytest.fixture
def source(app: Flask, client: FlaskClient, session: Session, workspace: Workspace) -> InboundSource:
    """An unmapped inbound webhook to which Google has posted once."""
    cipher = app.extensions["cipher"]
    made = sources.create(session, workspace.id, "Form", cipher=cipher, actor="Ada")
    session.commit()
    assert client.post("/hooks/" + cipher.decrypt(made.token), json=bodies.GOOGLE).status_code == 202
    return made


def test_a_click_on_a_value_fills_the_field_and_the_preview_follows(
    console: Callable[..., Any], source: InboundSource
) -> None:
    window = console(Role.ADMIN)
    page = window.open(f"/settings/inbound/{source.id}")
    page.get_by_label("E-mail").click()
    page.get_by_role("button", name="string_value hanh@congty.example").click()
    expect(page.get_by_label("E-mail")).to_have_value("user_column_data[?@.column_id=='EMAIL'].string_value")
    expect(page.locator("#y-email")).to_have_text("hanh@congty.example")
    expect(page.locator("#outcome")).to_contain_text("The lead that the last request makes")
    # A path is joined to what ends in a +.
    page.get_by_label("Name", exact=True).first.fill('"Frau" +')
    page.get_by_role("button", name="string_value Nguyễn Hạnh").click()
    expect(page.locator("#y-name")).to_have_text("Frau Nguyễn Hạnh")
    page.get_by_label("Phone").fill("a..b")
    expect(page.locator("#y-phone")).to_contain_text("must name each level")
    expect(page.get_by_label("Phone")).to_be_focused()  # nothing moved under the typist
    page.get_by_label("Phone").fill("")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".toast")).to_contain_text("1 held requests can be replayed now")
    page.get_by_role("button", name="Replay it").click()
    expect(page.locator(".toast")).to_contain_text("1 new lead")


def test_all_of_it_works_without_javascript(console: Callable[..., Any], source: InboundSource) -> None:
    window = console(Role.ADMIN, java_script_enabled=False)
    page = window.page
    page.goto(f"{window.base}/settings/inbound/{source.id}")
    page.get_by_role("link", name="Use its mapping").click()
    expect(page.locator("#y-name")).to_have_text("Nguyễn Hạnh")
    page.get_by_label("Company").fill("user_column_data[")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#y-company")).to_contain_text("not closed")
    expect(page.get_by_label("Company")).to_have_value("user_column_data[")
    page.get_by_label("Company").fill("")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("button", name="Replay it").click()
    expect(page.locator(".toast")).to_contain_text("1 new lead")


def test_an_entry_is_mended_in_the_editor(console: Callable[..., Any], session: Session, workspace: Workspace) -> None:
    raw = {"message": "Giá bao nhiêu?", "sender_name": "Hạnh", "sender_id": "u1"}
    entry = quarantine(session, workspace.id, Door.SOCIAL, "facebook", Bad("comment_id is missing or no text", raw))
    session.commit()
    window = console(Role.MANAGER)
    page = window.page
    page.get_by_role("link", name="1 in quarantine").click()
    page.get_by_role("link", name="Comment_id is missing").click()
    editor = page.get_by_label("What was received")
    editor.fill('{"message": "Giá bao nhiêu?",\n "comment_id": }')
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("alert")).to_contain_text("line 2, column 16")
    expect(editor).to_have_value('{"message": "Giá bao nhiêu?",\n "comment_id": }')
    editor.fill(json.dumps(raw | {"comment_id": "c1"}, indent=2))
    page.get_by_role("button", name="Replay").dblclick()
    expect(page.locator(".notice")).to_contain_text("Replayed by Ana Torres")
    page.get_by_role("link", name="Hạnh").click()
    expect(page.locator("#pane")).to_contain_text("Giá bao nhiêu?")
    assert session.get_one(type(entry), entry.id, populate_existing=True).lead_ids

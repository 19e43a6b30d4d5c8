"""The cookie of a session: an answer that comes late takes nothing back."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from webapp.leads.states import Role

FRAGMENT = {"HX-Request": "true", "HX-Request-Type": "partial"}
TOAST = "new texts go by this"


@pytest.fixture
def reader(client: FlaskClient, login: Callable[..., Any]) -> FlaskClient:
    login(client, Role.REVIEWER)
    client.get("/queue")
    return client


def test_a_log_out_is_not_taken_back_by_an_answer_that_was_under_way(reader: FlaskClient) -> None:
    before = reader.get_cookie("leadops")
    assert before is not None
    reader.post("/logout")
    after = reader.get_cookie("leadops")
    reader.set_cookie("leadops", before.value)  # as the polling request had it when it was sent
    late = reader.get("/queue", headers=FRAGMENT)
    assert late.status_code == 200 and "Set-Cookie" not in late.headers
    assert after is None


@pytest.mark.parametrize("path", ["/queue", "/runs", "/login", "/static/app.css"])
def test_what_changes_nothing_brings_no_cookie(reader: FlaskClient, path: str) -> None:
    with reader.get(path) as answer:
        assert "Set-Cookie" not in answer.headers


def test_a_toast_is_said_once(reader: FlaskClient, login: Callable[..., Any]) -> None:
    admin = reader.application.test_client()
    login(admin, Role.ADMIN)
    admin.post("/settings/copywriting", data={"language": "en"})
    saying = admin.get_cookie("leadops")
    assert saying is not None
    assert TOAST in admin.get("/settings/features").text
    # A request that was sent before that page came has the cookie of then; its answer does not bring it back.
    late = reader.application.test_client()
    late.set_cookie("leadops", saying.value)
    assert "Set-Cookie" not in late.get("/queue", headers=FRAGMENT).headers
    assert TOAST not in admin.get("/settings/features").text


def test_the_first_whole_page_of_a_day_begins_the_fourteen_days_anew(reader: FlaskClient) -> None:
    with reader.session_transaction("/queue", headers=FRAGMENT) as cookie:
        cookie["day"] = "2001-01-01"
    assert "Set-Cookie" not in reader.get("/queue", headers=FRAGMENT).headers
    with reader.get("/static/app.css") as file:
        assert "Set-Cookie" not in file.headers
    assert "Expires=" in reader.get("/queue").headers["Set-Cookie"]
    assert "Set-Cookie" not in reader.get("/queue").headers

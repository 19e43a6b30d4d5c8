"""What tests of pages share."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from webapp.leads.states import Role


@pytest.fixture
def reviewer(client: FlaskClient, login: Callable[..., Any]) -> Any:
    """Ana, logged in to ``client``."""
    return login(client, Role.REVIEWER, name="Ana Torres")


def fragment(target: str) -> dict[str, str]:
    """Headers of an htmx request for the element with this id."""
    return {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": f"div#{target}"}


def version_in(html: str) -> str:
    found = re.search(r'name="version"\s+value="(\d+)"', html)
    assert found, "no form with a version"
    return found[1]

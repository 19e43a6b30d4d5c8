"""Values of query parameters that filters of lists share. What is not understood is added to ``problems`` and narrows
nothing."""

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from webapp.leads.errors import Problem
from webapp.leads.search import tsquery
from webapp.models.lead import Lead

_AGO = re.compile(r"^(\d{1,4})([hd])$")
_MAX_TEXT = 200


def member(kind: Any, value: str, name: str, problems: list[Problem]) -> Any:
    """A member of the enum ``kind`` by its value."""
    try:
        return kind(value) if value else None
    except ValueError:
        problems.append(Problem(name, f"must be one of {', '.join(one.value for one in kind)}"))
        return None


def since(value: str, problems: list[Problem]) -> datetime | None:
    """``12h``, ``7d`` (ago) or a date, of UTC where it does not say."""
    if not value:
        return None
    ago = _AGO.match(value)
    try:
        if ago:
            return datetime.now(UTC) - timedelta(hours=int(ago[1]) * (24 if ago[2] == "d" else 1))
        found = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        problems.append(Problem("since", "must be like 12h, 7d, or a date such as 2026-11-20"))
        return None


def is_id(value: str) -> bool:
    try:
        return bool(uuid.UUID(value))
    except ValueError:
        return False


def identifier(value: str, name: str, problems: list[Problem]) -> uuid.UUID | None:
    if not value:
        return None
    if not is_id(value):
        problems.append(Problem(name, "must be an id"))
        return None
    return uuid.UUID(value)


def text(value: str) -> str:
    """Words to look for, on one line."""
    return " ".join(value.replace("\x00", " ").split())[:_MAX_TEXT]


def of_leads(lead_id: Any, workspace_id: uuid.UUID, words: str) -> sa.ColumnElement[bool]:
    """Rows whose column ``lead_id`` names a lead in which ``words`` are found."""
    query = tsquery(words)
    if not query:
        return sa.false()
    matching = sa.func.to_tsquery("simple", query)
    some = sa.select(Lead.id).where(Lead.workspace_id == workspace_id)
    found: sa.ColumnElement[bool] = lead_id.in_(some.where(Lead.search.op("@@")(matching)))
    return found

"""Which deliveries: the filter of their list, read from query parameters, and what it means in SQL."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from webapp.leads import kinds, query_values
from webapp.leads.counts import stuck
from webapp.leads.errors import Invalid, Problem
from webapp.leads.states import DeliveryState
from webapp.models.work import Delivery

#: Instead of a state: dead and uncertain ones.
STUCK = "stuck"
#: What a delivery may bring about, of every kind of destination.
ACTIONS = tuple(dict.fromkeys(step.action for kind in kinds.KINDS.values() for step in kind.steps))
#: Query parameters that make up the filter.
PARAMETERS = ("state", "destination", "action", "since", "q", "lead")


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries; None narrows nothing. ``stuck``: those that need a person; ``since``: queued at or after;
    ``text``: found in their lead."""

    state: DeliveryState | None = None
    stuck: bool = False
    destination_id: uuid.UUID | None = None
    action: str | None = None
    since: datetime | None = None
    text: str = ""
    lead_id: uuid.UUID | None = None

    @property
    def narrowed(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> "DeliveryFilter":
        """From query parameters (:data:`PARAMETERS`). Invalid names every parameter that is not understood."""
        said = {name: str(given.get(name) or "").strip() for name in PARAMETERS}
        problems: list[Problem] = []
        text, lead_id = query_values.text(said["q"]), said["lead"]
        if not lead_id and query_values.is_id(text):
            text, lead_id = "", text
        found = cls(
            state=query_values.member(DeliveryState, said["state"], "state", problems)
            if said["state"] != STUCK
            else None,
            stuck=said["state"] == STUCK,
            destination_id=query_values.identifier(said["destination"], "destination", problems),
            action=action(said["action"], problems),
            since=query_values.since(said["since"], problems),
            text=text,
            lead_id=query_values.identifier(lead_id, "lead", problems),
        )
        if problems:
            raise Invalid("some filters are not understood", details=tuple(problems))
        return found


def action(value: str, problems: list[Problem]) -> str | None:
    """One of :data:`ACTIONS`; None when empty."""
    if value and value not in ACTIONS:
        problems.append(Problem("action", "is nothing that is delivered"))
        return None
    return value or None


def conditions(workspace_id: uuid.UUID, wanted: DeliveryFilter) -> list[Any]:
    """For statements on ``deliveries``."""
    found = stuck(workspace_id) if wanted.stuck else [Delivery.workspace_id == workspace_id]
    if wanted.state:
        found.append(Delivery.state == sa.literal(wanted.state, Delivery.state.type, literal_execute=True))
    if wanted.destination_id:
        found.append(Delivery.destination_id == wanted.destination_id)
    if wanted.action:
        found.append(Delivery.action == wanted.action)
    if wanted.since:
        found.append(Delivery.created_at >= wanted.since)
    if wanted.lead_id:
        found.append(Delivery.lead_id == wanted.lead_id)
    if wanted.text:
        found.append(query_values.of_leads(Delivery.lead_id, workspace_id, wanted.text))
    return found

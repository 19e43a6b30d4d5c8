"""Callbacks: who sends a lead may name an address that its result is posted to, once, when its first run is over.

Where such addresses may be is for the workspace's admins to say, one destination of the kind ``callback`` for each host:
its breaker, rate budget and secret are that host's alone. Nothing here commits.
"""

import uuid
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, kinds, outbox
from webapp.leads.kinds.callback import FAILED, PROCESSED, address_problem, covers
from webapp.leads.states import DestinationKind
from webapp.models.lead import Lead
from webapp.models.work import Destination


class Place(NamedTuple):
    """Where callbacks may go."""

    destination_id: uuid.UUID
    url: str


def places(session: Session, workspace_id: uuid.UUID) -> list[Place]:
    """The workspace's, also those that are off: what goes there waits. The longest address first, as it says more."""
    rows = session.execute(
        sa.select(Destination.id, Destination.config["url"].astext)
        .where(Destination.workspace_id == workspace_id, Destination.kind == DestinationKind.CALLBACK)
        .order_by(Destination.id)
    )
    return sorted((Place(row[0], row[1] or "") for row in rows), key=lambda place: -len(place.url))


def problem_of(url: str, allowed: Sequence[Place]) -> str | None:
    """Why a lead with this address is refused, or None."""
    if wrong := address_problem(url):
        return wrong
    if _place_of(url, allowed) is not None:
        return None
    host = urlsplit(url).netloc
    return f"no callbacks are set up for {host}: an admin adds it under Settings → Destinations → Callback"


def plan(session: Session, leads: Sequence[Lead], *, failed: bool = False) -> int:
    """Queue the callbacks of ``leads`` whose first run is done, or was given up (``failed``). Returns how many."""
    action = FAILED if failed else PROCESSED
    step = kinds.of(DestinationKind.CALLBACK).step_of(action)
    assert step is not None
    queued = 0
    for workspace_id in sorted({lead.workspace_id for lead in leads if lead.callback_url}, key=str):
        allowed = places(session, workspace_id)
        wanted = []
        for lead in leads:
            if lead.workspace_id != workspace_id or not lead.callback_url:
                continue
            place = _place_of(lead.callback_url, allowed)
            if place is not None:
                wanted.append((lead.id, place.destination_id, step))
            else:  # its destination was removed or moved since the lead came
                audit.record(
                    session, workspace_id, "CALLBACK_REFUSED", lead_id=lead.id, address=shown(lead.callback_url)
                )
        queued += outbox.plan_steps(session, workspace_id, wanted)
    return queued


def shown(url: str) -> str:
    """An address as people may see it: its query may hold a credential."""
    return url.partition("?")[0]


def _place_of(url: str, allowed: Sequence[Place]) -> Place | None:
    return next((place for place in allowed if place.url and covers(place.url, url)), None)

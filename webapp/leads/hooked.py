"""One entry at an inbound webhook: read by the webhook's mapping, and taken in as a lead or kept in quarantine.

The door and a replay from quarantine both come here, so that they can not differ.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from webapp.leads import intake, mapping
from webapp.leads.errors import Conflict, Invalid
from webapp.leads.intake_sql import Database

Seal = Callable[[Any], Any]
NO_MAPPING = "no mapping yet: nobody has said which value is the e-mail, which the message"


@dataclass(frozen=True, slots=True)
class Origin:
    """What reading an entry has to know of its inbound webhook."""

    id: uuid.UUID
    name: str
    mapping: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """``lead_id`` with ``created`` False: the lead was here already. ``held``: why there is none."""

    lead_id: uuid.UUID | None = None
    created: bool = False
    held: str = ""


def take_in(
    database: Database, tenant: intake.Tenant, origin: Origin, entry: Any, *, seal: Seal, request_id: str | None = None
) -> Outcome:  # fmt: skip
    """The entry's lead, or why there is none. With an engine each lead is a transaction of its own."""
    if not origin.mapping:
        return Outcome(held=NO_MAPPING)
    reading = mapping.read(
        origin.mapping, entry, source=origin.name, source_id=origin.id, seal=seal, request_id=request_id
    )
    if reading.lead is None:
        return Outcome(held=reading.refused)
    try:
        received = intake.accept(database, tenant, reading.lead, key=reading.key)
    except Conflict:
        return Outcome(held="its id came before with other words; is the path of the sender’s own id really unique?")
    except Invalid as error:
        return Outcome(held="; ".join(f"{p.field} {p.reason}" for p in error.details) or error.message)
    return Outcome(received.lead_id, received.created)

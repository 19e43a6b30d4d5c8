"""Outgoing webhooks as Standard Webhooks has them."""

import base64
import secrets

from webapp.leads.kinds.base import Field, Guarantee, Kind, Step, Unknown, signing_secret_problem
from webapp.leads.states import DestinationKind, Trigger

#: The event type, and so the action, by what made the destination want the lead.
EVENTS = {
    Trigger.NEW_AUTO: "lead.auto_approved",
    Trigger.APPROVED: "lead.approved",
    Trigger.OVERRIDDEN: "lead.overridden",
    Trigger.PRIORITY_HIGH: "lead.high_priority",
    Trigger.QUALIFIED: "lead.qualified",
    Trigger.COLD: "lead.cold",
    Trigger.REJECTED: "lead.rejected",
}
#: Sent in place of them when one is taken back later.
WITHDRAWN = "lead.withdrawn"


def new_secret() -> str:
    """A Standard Webhooks signing secret of 32 random bytes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


#: Of whoever signs; made where it is left empty.
SECRET = Field(
    "secret",
    "Signing secret",
    secret=True,
    help="whsec_…; leave it empty to have one made.",
    required=False,
    check=signing_secret_problem,
    made=new_secret,
)

KIND = Kind(
    kind=DestinationKind.WEBHOOK,
    label="Webhook",
    about="Each event is posted there as JSON, signed as Standard Webhooks has it.",
    fields=(
        Field("url", "Address", "url", "https://…", receives_secret=False),  # it signs, and is not sent
        SECRET,
    ),
    steps=tuple(
        Step(event, 0, "notice", trigger=trigger, updates=True, withdraws=trigger is not Trigger.REJECTED)
        for trigger, event in EVENTS.items()
    ),
    unknown=Unknown.REPEATS,
    guarantees=(
        Guarantee(
            "event",
            "at least once",
            "a receiver cannot be asked; it deduplicates by webhook-id, which is the same on every attempt",
        ),
    ),
    open_fields=True,
)

"""The n8n follow-up of ``WEBHOOK_URL``."""

from webapp.leads.kinds.base import Field, Guarantee, Kind, Step, Unknown
from webapp.leads.states import DestinationKind

FOLLOW_UP = "follow_up"

KIND = Kind(
    kind=DestinationKind.N8N,
    label="n8n follow-up",
    about="Social leads of high priority, as soon as they are judged, in the form that follow-up workflows expect.",
    fields=(Field("url", "Address of the workflow", "url", "Whoever knows it can start the workflow.", secret=True),),
    steps=(Step(FOLLOW_UP, 0, "follow-up"),),
    unknown=Unknown.REPEATS,
    guarantees=(
        Guarantee("post", "at least once", "a workflow cannot be asked; it can tell by the header Idempotency-Key"),
    ),
    testable=False,
    own_rules="social leads of high priority, as soon as they are judged",
    where=lambda config: str(config.get("url") or "kept secret"),
)

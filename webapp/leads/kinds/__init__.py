"""The kinds of destinations that can be made, by their enum. A new one: a module here, and a line in ``_ALL``."""

from webapp.leads.kinds import hubspot, n8n, sheets, slack, twenty, webhook
from webapp.leads.kinds.base import Kind
from webapp.leads.states import DestinationKind

_ALL: tuple[Kind, ...] = (twenty.KIND, hubspot.KIND, slack.BOT, slack.INCOMING, webhook.KIND, n8n.KIND, sheets.KIND)

KINDS: dict[DestinationKind, Kind] = {kind.kind: kind for kind in _ALL}


def of(kind: DestinationKind) -> Kind:
    """KeyError for a kind that is only reserved."""
    return KINDS[DestinationKind(kind)]

"""The kinds of destinations that can be made, by their enum. A new one: a module here, and a line in ``_ALL``."""

from webapp.leads.kinds import callback, hubspot, mail, n8n, salesforce, sheets, slack, twenty, webhook
from webapp.leads.kinds.base import Kind
from webapp.leads.states import DestinationKind

_ALL: tuple[Kind, ...] = (
    twenty.KIND,
    hubspot.KIND,
    salesforce.KIND,
    slack.BOT,
    slack.INCOMING,
    mail.KIND,
    sheets.KIND,
    webhook.KIND,
    callback.KIND,
    n8n.KIND,
)

KINDS: dict[DestinationKind, Kind] = {kind.kind: kind for kind in _ALL}


#: Those that choose their leads themselves, whatever a destination's rules say.
OWN_RULES = frozenset(kind.kind for kind in _ALL if kind.own_rules)


def of(kind: DestinationKind) -> Kind:
    """KeyError for a kind that is only reserved."""
    return KINDS[DestinationKind(kind)]

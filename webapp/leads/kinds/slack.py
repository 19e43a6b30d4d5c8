"""Slack: a bot, whose messages can be found again and changed; an incoming webhook, which tells nothing."""

import re

from webapp.leads.kinds.base import Field, Guarantee, Kind, Step, Unknown, message_mapping
from webapp.leads.states import DestinationKind

MESSAGE = "message"

_TEXT = message_mapping("First line")

#: taxonomy: Slack and Sheets are for qualified leads.
_RULES = {"qualified_only": True}


def _channel_problem(text: str) -> str | None:
    """A name is not enough: Slack finds a channel's history by its id alone."""
    return None if re.fullmatch(r"[CGD][A-Z0-9]{5,20}", text) else "must be the channel's id, such as C0123ABCD"


BOT = Kind(
    kind=DestinationKind.SLACK,
    label="Slack",
    about="A message in a channel for each lead. When the lead is taken back later, the message says so.",
    fields=(
        Field(
            "channel",
            "Channel",
            help="Its id, such as C0123ABCD: at the end of the channel's details. The bot has to be a member of it.",
            check=_channel_problem,
        ),
        Field(
            "token",
            "Bot token",
            secret=True,
            help="xoxb-…, with chat:write and channels:history (groups:history for a private channel)",
        ),
    ),
    steps=(Step(MESSAGE, 0, "message", updates=True, withdraws=True),),
    unknown=Unknown.ASKS,
    guarantees=(
        Guarantee(
            "message of a bot",
            "at most one message, as far as the channel's history can be read",
            "each carries the delivery's id as metadata, which is looked for before it is sent again",
        ),
    ),
    mapping=_TEXT,
    open_fields=True,
    rules=_RULES,
    per_second=1,
    tells_alerts=True,
    where=lambda config: str(config.get("channel") or ""),
)

INCOMING = Kind(
    kind=DestinationKind.SLACK_WEBHOOK,
    label="Slack incoming webhook",
    about="A message for each lead, without a bot. Simple to set up; a message cannot be found or changed again.",
    fields=(
        Field(
            "url",
            "Address of the webhook",
            "url",
            "https://hooks.slack.com/services/…; it is a credential.",
            secret=True,
        ),
    ),
    steps=(Step(MESSAGE, 0, "message"),),
    unknown=Unknown.STOPS,
    guarantees=(
        Guarantee(
            "message of an incoming webhook",
            "at most once, and uncertain when the answer is lost",
            "Slack gives no id and cannot be asked; the setting “send again” makes it at least once",
        ),
    ),
    mapping=_TEXT,
    open_fields=True,
    rules=_RULES,
    per_second=1,
    tells_alerts=True,
    where=lambda config: "hooks.slack.com",
)

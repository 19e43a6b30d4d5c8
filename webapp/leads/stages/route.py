"""Route: who gets the lead? The member with the fewest open waiting leads; chance decides between equals.

A lead that already has somebody keeps them. A lead that nobody needs to look at and that goes nowhere (spam,
thanks) is given to nobody. Where nobody takes leads it stays in the manual-review queue, with the reason.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from random import choice

from webapp.leads.states import UNDELIVERABLE_INTENTS, WAITING_STATUSES, Intent, LeadStatus
from webapp.leads.types import Assignment, LeadFacts, Member

Choose = Callable[[Sequence[Member]], Member]

NOBODY_NEEDED = "nobody needs to act on it"
MANUAL_REVIEW = "manual review"


class Board:
    """A workspace's members with their loads, counted on as leads are given out within a batch."""

    def __init__(self, members: Iterable[Member], *, choose: Choose = choice) -> None:
        self._members = {member.user_id: member for member in members}
        self._choose = choose

    def least_loaded(self) -> Member | None:
        """None when nobody takes leads."""
        if not self._members:
            return None
        fewest = min(member.open_leads for member in self._members.values())
        return self._choose([member for member in self._members.values() if member.open_leads == fewest])

    def give(self, user_id: str) -> None:
        member = self._members[user_id]
        self._members[user_id] = replace(member, open_leads=member.open_leads + 1)


def needs_routing(status: LeadStatus, intent: Intent) -> bool:
    """Does a person have to look at it, or is it on its way to a destination?"""
    return status in WAITING_STATUSES or (status is not LeadStatus.REJECTED and intent not in UNDELIVERABLE_INTENTS)


def route(facts: LeadFacts, status: LeadStatus, intent: Intent, board: Board, *, assignee: str | None) -> Assignment:
    """Who gets the lead. ``assignee``: the user who has it already, who keeps it."""
    if assignee is not None:
        return Assignment(assignee, "", "already theirs")
    if not needs_routing(status, intent):
        return Assignment(None, "", NOBODY_NEEDED)
    member = board.least_loaded()
    if member is None:
        return Assignment(None, "", f"{MANUAL_REVIEW}: no member of the workspace takes leads")
    if status in WAITING_STATUSES:
        board.give(member.user_id)
    count = "no open lead" if member.open_leads == 0 else f"{member.open_leads} open"
    return Assignment(member.user_id, member.name, f"fewest waiting leads ({count})")

import random

import pytest

from webapp.leads.stages import route
from webapp.leads.states import Intent, LeadStatus
from webapp.leads.types import LeadFacts, Member

LEAD = LeadFacts("1", "2", "hello")


def first(members):
    return members[0]


def board(*loads):
    members = [Member(f"u{i}", f"User {i}", load) for i, load in enumerate(loads)]
    return route.Board(members, choose=first)


def give(on, status=LeadStatus.NEW_DRAFT, intent=Intent.INQUIRY_PRICE, assignee=None):
    return route.route(LEAD, status, intent, on, assignee=assignee)


def test_the_member_with_the_fewest_waiting_leads_gets_it():
    given = give(board(3, 1, 2))
    assert given.user_id == "u1"
    assert "1 open" in given.reason


def test_what_is_given_out_counts_at_once():
    on = board(0, 0, 1)
    assert [give(on).user_id for _ in range(5)] == ["u0", "u1", "u0", "u1", "u2"]


def test_chance_decides_between_equals():
    chance = random.Random(1)
    members = [Member(f"u{i}", "", 4) for i in range(3)]
    got = {give(route.Board(members, choose=chance.choice)).user_id for _ in range(40)}
    assert got == {"u0", "u1", "u2"}


def test_an_auto_lead_waits_for_nobody_and_weighs_nothing():
    on = board(0, 1)
    assert give(on, LeadStatus.NEW_AUTO).user_id == "u0"
    assert give(on, LeadStatus.NEW_AUTO).user_id == "u0"


def test_who_has_it_keeps_it():
    given = give(board(9, 0), assignee="u0")
    assert (given.user_id, given.reason) == ("u0", "already theirs")


@pytest.mark.parametrize(
    ("status", "intent"),
    [
        (LeadStatus.NEW_AUTO, Intent.SPAM),
        (LeadStatus.NEW_AUTO, Intent.THANKS),
        (LeadStatus.REJECTED, Intent.INQUIRY_PRICE),
        (LeadStatus.APPROVED, Intent.JOB),
    ],
)
def test_what_nobody_has_to_look_at_is_given_to_nobody(status, intent):
    given = give(board(0), status, intent)
    assert (given.user_id, given.reason) == (None, route.NOBODY_NEEDED)


def test_unsure_spam_still_needs_a_person():
    assert give(board(0), LeadStatus.NEW_ESCALATE, Intent.SPAM).user_id == "u0"


def test_without_members_it_waits_in_manual_review_and_says_why():
    given = give(board())
    assert given.user_id is None
    assert given.reason.startswith(route.MANUAL_REVIEW)

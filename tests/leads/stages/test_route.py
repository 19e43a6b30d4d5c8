"""Who gets a lead, in order: whoever has it, the CRM's owner, the last owner, the first rule's team, everybody."""

import random

import pytest

from webapp.leads.stages import route
from webapp.leads.states import Intent, LeadStatus, Priority, RouteState, TeamPolicy
from webapp.leads.types import Fact, LeadFacts, Member, RoutingRule, Seat, Team

LEAD = LeadFacts("1", "2", "hello", source="google_ads")
AWAY = "outside working hours, works again Mon 09:00 (UTC)"


def first(seats):
    return seats[0]


def board(*loads, **over):
    members = [Member(f"u{i}", f"User {i}", load, email=f"u{i}@x.example") for i, load in enumerate(loads)]
    return route.Board(members, **{"choose": first} | over)


def team(*seats, policy=TeamPolicy.LEAST_LOADED, id="t", name="North"):
    return Team(id, name, policy, tuple(one if isinstance(one, Seat) else Seat(one) for one in seats))


def with_team(on, one, **over):
    """The board with a team that every lead goes to."""
    rules = [RoutingRule("All", {}, one.id)]
    return route.Board(on.members.values(), [one], rules, choose=first, **over)


def give(on, status=LeadStatus.NEW_DRAFT, intent=Intent.INQUIRY_PRICE, assignee=None, **over):
    return route.route(LEAD, status, intent, on, assignee=assignee, **over)


def facts(**known):
    return [Fact(name, value, "test", 0.9) for name, value in known.items()]


def why(given):
    return {one["name"]: one["why"] for one in given.evidence["candidates"]}


class TestEverybody:
    def test_the_member_with_the_fewest_waiting_leads_gets_it(self):
        given = give(board(3, 1, 2))
        assert given.user_id == "u1" and "1 open" in given.reason and not given.exact
        assert why(given) == {
            "User 1": "fewest open leads (1 open)",
            "User 0": "3 open, more",
            "User 2": "2 open, more",
        }

    def test_what_is_given_out_counts_at_once(self):
        on = board(0, 0, 1)
        assert [give(on).user_id for _ in range(5)] == ["u0", "u1", "u0", "u1", "u2"]

    def test_chance_decides_between_equals_and_says_so(self):
        chance = random.Random(1)
        members = [Member(f"u{i}", f"User {i}", 4) for i in range(3)]
        got = {give(route.Board(members, choose=chance.choice)).user_id for _ in range(40)}
        assert got == {"u0", "u1", "u2"}
        assert "chance decided" in why(give(board(4, 4)))["User 1"]

    def test_an_auto_lead_waits_for_nobody_and_weighs_nothing(self):
        on = board(0, 1)
        assert give(on, LeadStatus.NEW_AUTO).user_id == "u0"
        assert give(on, LeadStatus.NEW_AUTO).user_id == "u0"

    def test_who_has_it_keeps_it(self):
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
    def test_what_nobody_has_to_look_at_is_given_to_nobody(self, status, intent):
        given = give(board(0), status, intent)
        assert (given.user_id, given.reason, given.state) == (None, route.NOBODY_NEEDED, None)

    def test_unsure_spam_still_needs_a_person(self):
        assert give(board(0), LeadStatus.NEW_ESCALATE, Intent.SPAM).user_id == "u0"

    def test_without_members_it_waits_in_manual_review_and_says_why(self):
        given = give(board())
        assert (given.user_id, given.state) == (None, RouteState.MANUAL)
        assert given.reason == "manual review: no member of the workspace takes leads"

    def test_members_who_take_no_leads_are_no_candidates(self):
        on = route.Board([Member("u0", "A", 0, takes_leads=False), Member("u1", "B", 9)])
        given = give(on)
        assert given.user_id == "u1" and why(given) == {"B": "fewest open leads (9 open)"}


class TestPolicies:
    def test_round_robin_takes_turns_whatever_the_loads(self):
        on = with_team(board(9, 0, 0), team(Seat("u0", given_at=5), Seat("u1", given_at=9), Seat("u2", given_at=7),
                                            policy=TeamPolicy.ROUND_ROBIN))  # fmt: skip
        given = [give(on) for _ in range(5)]
        assert [one.user_id for one in given] == ["u0", "u2", "u1", "u0", "u2"]
        assert given[0].exact and given[0].reason == "rule “All”: next in turn" and given[0].team_id == "t"
        assert why(given[0])["User 1"] == "had a turn since; comes later"

    def test_weights_are_shares(self):
        on = with_team(board(0, 0), team(Seat("u0", weight=3), Seat("u1"), policy=TeamPolicy.WEIGHTED),
                       chance=random.Random(4))  # fmt: skip
        got = [give(on).user_id for _ in range(400)]
        assert 250 < got.count("u0") < 350

    def test_full_members_are_passed_over(self):
        on = with_team(route.Board([Member("u0", "A", 4, capacity=5), Member("u1", "B", 20)]), team("u0", "u1"))
        given = [give(on) for _ in range(2)]
        assert [one.user_id for one in given] == ["u0", "u1"] and given[0].exact
        assert why(given[1])["A"] == "is full (5 of 5 open)"

    def test_who_is_away_is_passed_over_with_the_reason(self):
        members = [Member("u0", "A", 0, absent="absent until 3 Dec"), Member("u1", "B", 0), Member("u2", "C", 7)]
        given = give(with_team(route.Board(members), team("u0", Seat("u1", away=AWAY), "u2")))
        assert given.user_id == "u2" and why(given) == {
            "A": "absent until 3 Dec", "B": AWAY, "C": "the only one there with room",
        }  # fmt: skip

    def test_when_nobody_is_there_it_waits_for_the_team(self):
        given = give(with_team(board(0, 0), team(Seat("u0", away=AWAY), Seat("u1", away=AWAY))))
        assert (given.user_id, given.state, given.team_id) == (None, RouteState.BACKLOG, "t")
        assert given.reason == f"waits for North: {AWAY}"

    def test_a_team_that_takes_no_leads_is_manual_review(self):
        on = with_team(route.Board([Member("u0", "A", 0, takes_leads=False)]), team("u0"))
        assert give(on).reason == "manual review: nobody in North takes leads"
        assert give(with_team(board(0), team())).state is RouteState.MANUAL


class TestOwners:
    def test_the_owner_in_the_crm_keeps_the_contact_whatever_their_load_and_hours(self):
        on = route.Board([Member("u0", "A", 99, capacity=1, email="A@x.example", away=AWAY), Member("u1", "B", 0)])
        given = give(on, learned=facts(crm_owner="a@X.example"), last_owner="u1")
        assert (given.user_id, given.reason) == ("u0", "owns this contact in the CRM")

    def test_but_not_when_absent_or_no_member(self):
        on = route.Board([Member("u0", "A", 0, email="a@x.example", absent="absent until 3 Dec"), Member("u1", "B", 9)])
        given = give(on, learned=facts(crm_owner="a@x.example"))
        assert given.user_id == "u1" and "absent until 3 Dec" in given.evidence["notes"][0]
        given = give(on, learned=facts(crm_owner="gone@x.example"))
        assert given.evidence["notes"] == ["in the CRM the contact belongs to gone@x.example, who is no member here"]

    def test_the_person_goes_to_who_had_their_last_lead(self):
        given = give(board(0, 8), last_owner="u1")
        assert (given.user_id, given.reason) == ("u1", "had this person’s last lead")

    @pytest.mark.parametrize(
        ("over", "said"),
        [
            ({"away": AWAY}, f"is {AWAY}"), ({"absent": "absent until 3 Dec"}, "is absent until 3 Dec"),
            ({"capacity": 0}, "is full (0 of 0 open)"), ({"takes_leads": False}, "takes no leads"),
        ],
    )  # fmt: skip
    def test_unless_they_are_not_there_or_full(self, over, said):
        given = give(route.Board([Member("u0", "A", 0, **over), Member("u1", "B", 5)]), last_owner="u0")
        assert given.user_id == "u1" and given.evidence["notes"] == [f"A had this person’s last lead, but {said}"]

    def test_or_gone(self):
        assert "no member any more" in give(board(0), last_owner="u9").evidence["notes"][0]


class TestRules:
    def rules(self, *pairs, otherwise=True):
        rules = [RoutingRule(name, conditions, f"t{n}") for n, (name, conditions) in enumerate(pairs)]
        teams = [team(f"u{n}", id=f"t{n}", name=f"Team {n}") for n in range(len(pairs))]
        return route.Board(board(5, 5, 5).members.values(), teams, rules, otherwise=otherwise, choose=first)

    @pytest.mark.parametrize(
        ("conditions", "fits"),
        [
            ({"country": ("VN", "TH")}, True), ({"country": ("US",)}, False),
            ({"region": ("ho chi minh",)}, True), ({"region": ("Hanoi",)}, False),
            ({"postcode": ("70",)}, True), ({"postcode": ("7 0-0",)}, True), ({"postcode": ("71",)}, False),
            ({"industry": ("healthcare",)}, True), ({"company_size": ("11-50",)}, False),
            ({"language": ("vi",)}, True), ({"language": ("en",)}, False),
            ({"priority": ("P0", "P1")}, True), ({"priority": ("P3",)}, False),
            ({"intent": ("inquiry_price",)}, True), ({"source": ("google_ads",)}, True),
            ({"country": ("VN",), "priority": ("P3",)}, False), ({}, True), ({"unheard_of": ("x",)}, False),
        ],
    )  # fmt: skip
    def test_all_conditions_have_to_hold(self, conditions, fits):
        known = facts(country="VN", state="Hồ Chí Minh", postal_code="700-000", industry="healthcare")
        given = give(self.rules(("One", conditions)), priority=Priority.P0, language="vi", learned=known)
        assert (given.team_id == "t0") is fits
        assert given.evidence["rules"][0]["matched"] is fits

    def test_the_first_that_fits_counts_and_the_others_say_why_not(self):
        on = self.rules(
            ("US", {"country": ("US",)}), ("Big", {"company_size": ("5001+",)}), ("VN", {"country": ("VN",)})
        )
        given = give(on, learned=facts(country="VN"))
        assert given.user_id == "u2" and given.reason.startswith("rule “VN”: ")
        assert [(one["name"], one["why"]) for one in given.evidence["rules"]] == [
            ("US", "country is VN, not US"), ("Big", "company size is not known"), ("VN", "goes to Team 2"),
        ]  # fmt: skip

    def test_where_none_fits_everybody_or_a_person_decides(self):
        pair = ("US", {"country": ("US",)})
        assert give(self.rules(pair)).reason.startswith("no rule fits: fewest")
        given = give(self.rules(pair, otherwise=False))
        assert (given.state, given.reason) == (RouteState.MANUAL, "manual review: no rule fits")

    def test_the_most_trusted_fact_counts(self):
        known = [Fact("country", "US", "phone", 0.4), Fact("country", "VN", "page", 0.8)]
        assert give(self.rules(("VN", {"country": ("VN",)})), learned=known).team_id == "t0"

    def test_a_rule_whose_team_is_gone_is_passed_over(self):
        on = route.Board(board(0).members.values(), [], [RoutingRule("X", {}, "gone")])
        assert give(on).user_id == "u0" and give(on).evidence["rules"][0]["why"] == "its team is gone"

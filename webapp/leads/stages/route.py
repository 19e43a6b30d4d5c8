"""Route: who gets the lead? Whoever owns the contact, else the first rule that fits names a team, and its policy a member.

In order: who has it keeps it; nobody gets what nobody has to look at; the CRM's owner keeps the contact; whoever had the
person's last lead gets this one too, if they are there; the first rule of which all conditions hold names a team; without
one it is everybody who takes leads, or manual review if the workspace wants that. Within a team the policy chooses among
those who are there and have room. When nobody is, but somebody will be, the lead waits in the team's backlog; when
nobody ever will, a person has to assign it. Each step is told in words.
"""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random, choice
from typing import Any

from webapp.leads.states import (
    UNDELIVERABLE_INTENTS,
    WAITING_STATUSES,
    Intent,
    LeadStatus,
    Priority,
    RouteState,
    TeamPolicy,
)
from webapp.leads.types import Assignment, Fact, LeadFacts, Member, RoutingRule, Seat, Team, best

Choose = Callable[[Sequence[Seat]], Seat]

NOBODY_NEEDED = "nobody needs to act on it"
MANUAL_REVIEW = "manual review"
#: What a rule may ask for, with the words for it. Values are compared without case and diacritics; a postcode by how it
#: begins.
CONDITIONS: dict[str, str] = {
    "country": "country",
    "region": "region",
    "postcode": "postcode",
    "industry": "industry",
    "company_size": "company size",
    "language": "language",
    "priority": "priority",
    "intent": "intent",
    "source": "source",
}
#: The fact that tells of each; the others are known without facts.
_FACTS = {
    "country": "country", "region": "state", "postcode": "postal_code", "industry": "industry",
    "company_size": "company_size", "language": "language",
}  # fmt: skip
#: Candidates that the evidence lists; a larger team is cut, the chosen one first.
MAX_CANDIDATES = 100
EVERYBODY = "everybody who takes leads"


@dataclass(frozen=True, slots=True)
class _Pick:
    """Of a team: who it is (None: nobody now), whether somebody will be there later, and each one's why."""

    seat: Seat | None
    later: bool
    why: dict[str, str]
    exact: bool


class Board:
    """A workspace's members with their loads and hours, its teams and rules; counted on as leads are given out within a
    batch. ``otherwise``: leads that no rule fits go to everybody rather than to manual review."""

    def __init__(
        self,
        members: Iterable[Member],
        teams: Iterable[Team] = (),
        rules: Iterable[RoutingRule] = (),
        *,
        otherwise: bool = True,
        choose: Choose = choice,
        chance: Random | None = None,
    ) -> None:
        self.members = {member.user_id: member for member in members}
        self.teams = {team.id: team for team in teams}
        self.rules = tuple(rules)
        self.otherwise = otherwise
        self._choose = choose
        self._chance = chance or Random()
        seats = tuple(Seat(one.user_id, away=one.away) for one in self.members.values() if one.takes_leads)
        self.everybody = Team("", EVERYBODY, TeamPolicy.LEAST_LOADED, seats)

    def copy(self) -> "Board":
        """The same, to be counted on apart from this one."""
        members, teams = self.members.values(), self.teams.values()
        return Board(members, teams, self.rules, otherwise=self.otherwise, choose=self._choose, chance=self._chance)

    def by_email(self, email: str) -> Member | None:
        wanted = email.strip().casefold()
        return next((one for one in self.members.values() if one.email and one.email.casefold() == wanted), None)

    def team(self, team_id: str | None) -> Team | None:
        """None for a team that is gone; no id is everybody."""
        return self.teams.get(team_id) if team_id else self.everybody

    def why_not(self, user_id: str, away: str) -> str:
        """Why a member gets no lead now; empty when they may."""
        member = self.members.get(user_id)
        if member is None or not member.takes_leads:
            return "takes no leads"
        if member.absent or away:
            return member.absent or away
        if member.capacity is not None and member.open_leads >= member.capacity:
            return f"is full ({member.open_leads} of {member.capacity} open)"
        return ""

    def pick(self, team: Team) -> _Pick:
        """Who of ``team`` is next. Nothing is counted."""
        why = {seat.user_id: self.why_not(seat.user_id, seat.away) for seat in team.seats}
        there = [seat for seat in team.seats if not why[seat.user_id]]
        limited = any(self.members[s.user_id].capacity is not None for s in team.seats if s.user_id in self.members)
        exact = limited or team.policy is TeamPolicy.ROUND_ROBIN
        if not there:
            later = any(said != "takes no leads" for said in why.values())
            return _Pick(None, later, why, exact)
        seat, words = getattr(self, f"_{team.policy.value}")(there)
        if len(there) == 1 and len(team.seats) > 1:
            words = {seat.user_id: "the only one there with room"}
        return _Pick(seat, True, why | words, exact)

    def _least_loaded(self, there: Sequence[Seat]) -> tuple[Seat, dict[str, str]]:
        loads = {seat.user_id: self.members[seat.user_id].open_leads for seat in there}
        fewest = min(loads.values())
        seat = self._choose([one for one in there if loads[one.user_id] == fewest])
        words = {
            user_id: f"{_open(n)}, as few as the chosen one; chance decided" if n == fewest else f"{n} open, more"
            for user_id, n in loads.items()
        }
        return seat, words | {seat.user_id: f"fewest open leads ({_open(fewest)})"}

    def _round_robin(self, there: Sequence[Seat]) -> tuple[Seat, dict[str, str]]:
        longest = min(seat.given_at for seat in there)
        seat = self._choose([one for one in there if one.given_at == longest])
        words = {one.user_id: "had a turn since; comes later" for one in there}
        words |= {one.user_id: "waits as long; chance decided" for one in there if one.given_at == longest}
        return seat, words | {seat.user_id: "next in turn"}

    def _weighted(self, there: Sequence[Seat]) -> tuple[Seat, dict[str, str]]:
        total = sum(seat.weight for seat in there)
        seat = self._chance.choices(there, [one.weight for one in there])[0]
        words = {one.user_id: f"chance decided, by a share of {one.weight} in {total}" for one in there}
        return seat, words | {seat.user_id: f"drawn by a share of {seat.weight} in {total}"}

    def give(self, user_id: str, team: Team | None = None) -> None:
        """Count a lead on a member, and their turn in the team."""
        member = self.members[user_id]
        self.members[user_id] = replace(member, open_leads=member.open_leads + 1)
        if team is None or team.policy is not TeamPolicy.ROUND_ROBIN:
            return
        last = max(seat.given_at for seat in team.seats)
        seats = tuple(replace(one, given_at=last + 1) if one.user_id == user_id else one for one in team.seats)
        self.teams[team.id] = replace(team, seats=seats)


def needs_routing(status: LeadStatus, intent: Intent) -> bool:
    """Does a person have to look at it, or is it on its way to a destination?"""
    return status in WAITING_STATUSES or (status is not LeadStatus.REJECTED and intent not in UNDELIVERABLE_INTENTS)


def route(
    facts: LeadFacts,
    status: LeadStatus,
    intent: Intent,
    board: Board,
    *,
    assignee: str | None,
    priority: Priority = Priority.P2,
    language: str = "",
    learned: Sequence[Fact] = (),
    last_owner: str | None = None,
) -> Assignment:
    """Who gets the lead. ``assignee``: the user who has it already, who keeps it; ``last_owner``: who had the person's
    last lead; ``learned`` may lack anything. ``board`` counts the assignment of a lead that waits for a person."""
    if assignee is not None:
        return Assignment(assignee, "", "already theirs")
    if not needs_routing(status, intent):
        return Assignment(None, "", NOBODY_NEEDED)
    waits = status in WAITING_STATUSES
    known = best(learned)
    notes: list[str] = []
    kept = _kept(board, known, last_owner, notes)
    if kept:
        if waits:
            board.give(kept.user_id or "")
        return kept
    values = _values(known, facts.source, priority, intent, language)
    team, rule, tried = _team(board, values)
    evidence: dict[str, Any] = {"notes": notes, "rules": tried}
    if team is None:
        return Assignment(None, "", f"{MANUAL_REVIEW}: {rule}", state=RouteState.MANUAL, evidence=evidence)
    return within(board, team, rule, evidence, waits=waits)


def within(board: Board, team: Team, rule: str, evidence: Mapping[str, Any], *, waits: bool = True) -> Assignment:
    """The member of ``team`` that its policy chooses; ``rule``: what led to the team, in words."""
    pick = board.pick(team)
    evidence = dict(evidence) | {"candidates": _candidates(board, team, pick)}
    if pick.seat is None:
        if not pick.later:
            nobody = (
                "no member of the workspace takes leads"
                if team is board.everybody
                else f"nobody in {team.name} takes leads"
            )
            reason = f"{MANUAL_REVIEW}: {nobody}"
            return Assignment(None, "", reason, team.id or None, RouteState.MANUAL, evidence=evidence)
        reason = f"waits for {team.name}: {_nobody_there(pick)}"
        return Assignment(None, "", reason, team.id or None, RouteState.BACKLOG, evidence=evidence)
    member = board.members[pick.seat.user_id]
    if waits:
        board.give(member.user_id, team)
    reason = pick.why[member.user_id]
    reason = f"{rule}: {reason}" if rule else reason
    return Assignment(member.user_id, member.name, reason, team.id or None, exact=pick.exact, evidence=evidence)


def _kept(board: Board, known: Mapping[str, Fact], last_owner: str | None, notes: list[str]) -> Assignment | None:
    """The CRM's owner, whatever their hours and load; else whoever had the person's last lead, if they are there."""
    owner = known.get("crm_owner")
    if owner:
        member = board.by_email(str(owner.value))
        if member and not member.absent:
            return _to(member, "owns this contact in the CRM", notes)
        who = f"{member.name}, but is {member.absent}" if member else f"{owner.value}, who is no member here"
        notes.append(f"in the CRM the contact belongs to {who}")
    if last_owner:
        member = board.members.get(last_owner)
        why_not = board.why_not(last_owner, member.away if member else "")
        if member and not why_not:
            return _to(member, "had this person’s last lead", notes, exact=member.capacity is not None)
        notes.append(
            f"{member.name} had this person’s last lead, but {_is(why_not)}" if member
            else "whoever had this person’s last lead is no member any more"
        )  # fmt: skip
    return None


def _to(member: Member, reason: str, notes: list[str], *, exact: bool = False) -> Assignment:
    chosen = {"user_id": member.user_id, "name": member.name, "chosen": True, "why": reason}
    evidence = {"notes": notes, "rules": [], "candidates": [chosen]}
    return Assignment(member.user_id, member.name, reason, exact=exact, evidence=evidence)


def _team(board: Board, values: Mapping[str, str]) -> tuple[Team | None, str, list[dict[str, Any]]]:
    """(team, what led to it, each rule tried with why it did or did not fit)."""
    tried: list[dict[str, Any]] = []
    for rule in board.rules:
        why = _why_not_rule(rule, values)
        team = board.teams.get(rule.team_id)
        if not why and team is None:
            why = "its team is gone"
        tried.append({"name": rule.name, "matched": not why, "why": why or f"goes to {team.name if team else ''}"})
        if not why:
            return team, f"rule “{rule.name}”", tried
    if not board.rules:
        return board.everybody, "", tried
    if board.otherwise:
        return board.everybody, "no rule fits", tried
    return None, "no rule fits", tried


def _why_not_rule(rule: RoutingRule, values: Mapping[str, str]) -> str:
    """Why the rule does not fit, in words; empty when it does."""
    for name, wanted in rule.conditions.items():
        said, word = values.get(name, ""), CONDITIONS.get(name, name)
        if not said:
            return f"{word} is not known"
        if not _fits(name, said, wanted):
            return f"{word} is {said}, not {' or '.join(wanted[:4])}{' …' if len(wanted) > 4 else ''}"
    return ""


def _fits(name: str, said: str, wanted: Sequence[str]) -> bool:
    if name == "postcode":
        bare = _folded(said).replace(" ", "").replace("-", "")
        return any(bare.startswith(_folded(one).replace(" ", "").replace("-", "")) for one in wanted)
    return _folded(said) in {_folded(one) for one in wanted}


def _folded(text: str) -> str:
    """Without case and diacritics: regions are written either way."""
    plain = unicodedata.normalize("NFKD", text.strip().casefold()).replace("đ", "d")
    return "".join(c for c in plain if not unicodedata.combining(c))


def _values(
    known: Mapping[str, Fact], source: str, priority: Priority, intent: Intent, language: str
) -> dict[str, str]:
    values = {name: str(known[fact].value) for name, fact in _FACTS.items() if fact in known and known[fact].value}
    values.setdefault("language", language)
    return values | {"priority": priority.value, "intent": intent.value, "source": source}


def _candidates(board: Board, team: Team, pick: _Pick) -> list[dict[str, Any]]:
    chosen = pick.seat.user_id if pick.seat else None
    listed = [
        {"user_id": user_id, "name": board.members[user_id].name, "chosen": user_id == chosen, "why": why}
        for user_id, why in pick.why.items()
        if user_id in board.members
    ]
    return sorted(listed, key=lambda one: not one["chosen"])[:MAX_CANDIDATES]


def _nobody_there(pick: _Pick) -> str:
    said = {why for why in pick.why.values() if why != "takes no leads"}
    if all(why.startswith("is full") for why in said):
        return "everybody there is full"
    return said.pop() if len(said) == 1 else "nobody is there with room for it"


def _is(why: str) -> str:
    return why if why.startswith(("is ", "takes ", "works ")) else f"is {why}"


def _open(count: int) -> str:
    return "no open lead" if count == 0 else f"{count} open"

"""What admins of the demo have set up: who gets which leads, who must not be treated as one; and what became of some leads."""

import uuid
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from embedded.demo_history import ACTOR
from webapp.leads import lead_outcomes, routing_setup, suppression
from webapp.leads.lead_outcomes import Report
from webapp.leads.states import DealState, LeadStatus, OutcomeSource, SuppressionKind, TeamPolicy
from webapp.leads.suppression import Line
from webapp.models.lead import Lead

#: Team → (policy, (member, share)…). Nobody is in the last one yet, so that its leads wait for a person to assign them.
TEAMS: dict[str, tuple[TeamPolicy, dict[str, int]]] = {
    "Vietnam desk": (TeamPolicy.ROUND_ROBIN, {"Linh Pham": 1, "Ravi Menon": 1}),
    "Inside sales": (TeamPolicy.WEIGHTED, {"Rita Okafor": 3, "Mona Castell": 1}),
    "Partner desk": (TeamPolicy.LEAST_LOADED, {}),
}
#: (name, conditions, team), in their order.
RULES: tuple[tuple[str, dict[str, list[str]], str], ...] = (
    ("Partnerships", {"intent": ["partnership"]}, "Partner desk"),
    ("Written in Vietnamese", {"language": ["vi"]}, "Vietnam desk"),
    ("Urgent", {"priority": ["P0", "P1"]}, "Inside sales"),
)
#: Of these the sample set has leads: a competitor's, and one of a supplier.
SUPPRESSED = (
    Line("demo.example", SuppressionKind.OWN_STAFF, "We ourselves"),
    Line("saltmark-saas.example", SuppressionKind.COMPETITOR, "Sells what we sell"),
    Line("wrenrise.example", SuppressionKind.OTHER, "Supplier; asked to be left to purchasing"),
    Line("*delivery test*", SuppressionKind.TEST, "What the web team sends to see whether the form works"),
)
#: Reports of a lead each, as (outcome, stage, value, days ago).
OUTCOMES: tuple[tuple[tuple[DealState, str, int | None, int], ...], ...] = (
    (
        (DealState.OPEN, "Proposal", 12_000, 9),
        (DealState.OPEN, "Negotiation", 10_500, 4),
        (DealState.WON, "Closed won", 10_500, 1),
    ),
    ((DealState.WON, "Closed won", 4_800, 2),),
    ((DealState.OPEN, "Proposal", 7_200, 5), (DealState.LOST, "Chose another offer", None, 1)),
    ((DealState.LOST, "No budget", None, 3),),
    ((DealState.OPEN, "Demo held", 22_000, 1),),
)


def route(session: Session, workspace_id: uuid.UUID) -> None:
    ids = {one.name: one.id for one in routing_setup.people(session, workspace_id)}
    teams = {}
    for name, (policy, shares) in TEAMS.items():
        weights = {ids[member]: share for member, share in shares.items()}
        teams[name] = routing_setup.save_team(
            session, workspace_id, None, name=name, policy=policy, weights=weights, calendar=None, actor=ACTOR
        )
    for name, conditions, team in RULES:
        given = conditions | {"name": [name], "team": [str(teams[team].id)], "active": ["on"]}
        routing_setup.save_rule(session, workspace_id, None, given, actor=ACTOR)


def suppress(session: Session, workspace_id: uuid.UUID, *, region: str) -> None:
    suppression.add(session, workspace_id, SUPPRESSED, region=region, actor=ACTOR)


def close_deals(session: Session, workspace_id: uuid.UUID, *, currency: str) -> None:
    """Reported by a program, of the leads that were decided first."""
    decided = (
        sa.select(Lead.id)
        .where(Lead.workspace_id == workspace_id, Lead.status.in_((LeadStatus.APPROVED, LeadStatus.OVERRIDDEN)))
        .order_by(Lead.created_at, Lead.id)
        .limit(len(OUTCOMES))
    )
    for lead_id, reports in zip(session.scalars(decided).all(), OUTCOMES, strict=False):
        for outcome, stage, value, days in reports:
            when = datetime.now(UTC) - timedelta(days=days)
            report = Report(outcome, stage, value, currency if value else None, occurred_at=when)
            lead_outcomes.record(
                session, workspace_id, lead_id, report, source=OutcomeSource.API, actor=ACTOR, currency=currency
            )

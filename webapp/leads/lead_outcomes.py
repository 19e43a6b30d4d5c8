"""What became of leads: reports of their deals, kept as a history, and what sources are worth by them.

A report names the lead, its outcome (open, won, lost) and, as far as known, the deal's stage and value. Reports come from
programs (``POST /api/v1/leads/{id}/outcome``) and from the CRM. Nothing is overwritten: a deal that moves on is another
report, and of a lead's reports the one that happened last stands.

Nothing here commits.
"""

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import pycountry
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session, joinedload

from webapp.leads import audit
from webapp.leads.errors import Conflict, Invalid, NotFound, Problem
from webapp.leads.states import DealState, OutcomeSource
from webapp.leads.types import SourceRecord
from webapp.models.base import new_id, scoped
from webapp.models.lead import Lead
from webapp.models.scoring import LeadOutcome
from webapp.models.work import Destination

MAX_TEXT = 200
#: Largest value of a deal that is taken, exclusive; the column holds a thousand times as much.
MAX_VALUE = Decimal("1e13")
#: A report may be dated so far ahead (clocks differ), not further.
AHEAD = timedelta(minutes=5)
#: Sources are judged by what was reported in this time.
LEARN_DAYS = 365
CACHE_SECONDS = 60.0
#: Stands as the stage of a deal that somebody has deleted in the CRM: it is neither won nor lost any more, nor open.
DELETED = "deleted there"
#: Reports of one lead that are shown.
MAX_HISTORY = 200


@dataclass(frozen=True, slots=True)
class Report:
    """One report. ``external_id``: the reporter's name for it; the same one again from the same ``source`` is a repeat.
    ``occurred_at`` None: now. ``value`` in ``currency`` (ISO 4217; None: the workspace's). ``deal`` at
    ``destination_id``: which deal in which CRM; None where the reporter speaks of the lead as a whole."""

    outcome: DealState
    stage: str | None = None
    value: Decimal | float | None = None
    currency: str | None = None
    external_id: str | None = None
    occurred_at: datetime | None = None
    destination_id: uuid.UUID | None = None
    deal: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The stored report; ``replayed``: it was here already and nothing was written."""

    row: LeadOutcome
    replayed: bool = False


def record(
    session: Session,
    workspace_id: uuid.UUID,
    lead_id: uuid.UUID,
    report: Report,
    *,
    source: OutcomeSource,
    actor: str,
    currency: str,
) -> Recorded:
    """Add ``report`` to the lead's history. ``currency``: the workspace's.

    NotFound for a lead that is not the workspace's; Invalid for what cannot be stored; Conflict with code
    ``idempotency_mismatch`` when ``external_id`` was used for another report. Safe under concurrency: of two equal
    reports one is stored, and the other is answered from it.
    """
    values = _checked(report, currency)
    here = sa.select(Lead.id).where(Lead.id == lead_id, Lead.workspace_id == workspace_id)
    if session.scalar(here) is None:
        raise NotFound("Lead not found")
    row = values | {"id": new_id(), "workspace_id": workspace_id, "lead_id": lead_id, "source": source}
    row["occurred_at"] = report.occurred_at or sa.func.now()
    made = session.scalar(
        insert(LeadOutcome)
        .values(row)
        .on_conflict_do_nothing(
            index_elements=["workspace_id", "source", "external_id"],
            index_where=sa.text("external_id IS NOT NULL"),
        )
        .returning(LeadOutcome.id)
    )
    if made is None:
        return Recorded(_repeated(session, workspace_id, lead_id, source, values, report.occurred_at), replayed=True)
    audit.record(
        session,
        workspace_id,
        "OUTCOME_RECORDED",
        actor=actor,
        lead_id=lead_id,
        outcome=report.outcome.value,
        stage=values["stage"],
        value=str(values["value"]) if values["value"] is not None else None,
        currency=values["currency"],
        source=source.value,
    )
    session.flush()
    return Recorded(session.get_one(LeadOutcome, made))


def _repeated(
    session: Session,
    workspace_id: uuid.UUID,
    lead_id: uuid.UUID,
    source: OutcomeSource,
    values: dict[str, Any],
    occurred_at: datetime | None,
) -> LeadOutcome:
    earlier: LeadOutcome = session.scalars(
        scoped(LeadOutcome, workspace_id).where(
            LeadOutcome.source == source, LeadOutcome.external_id == values["external_id"]
        )
    ).one()
    same = all(getattr(earlier, name) == value for name, value in values.items()) and earlier.lead_id == lead_id
    if not same or occurred_at not in (None, earlier.occurred_at):
        raise Conflict("this external_id was used for another report", code="idempotency_mismatch")
    return earlier


def _checked(report: Report, currency: str) -> dict[str, Any]:
    problems: list[Problem] = []
    value = _money(report.value, problems)
    given = (report.currency or "").strip().upper() or None
    if given is not None and pycountry.currencies.get(alpha_3=given) is None:
        problems.append(Problem("currency", "must be the three letters of a currency, such as EUR"))
    texts = {"stage": _text(report.stage, "stage", problems)}
    texts["external_id"] = _text(report.external_id, "external_id", problems)
    if report.occurred_at is not None:
        if report.occurred_at.tzinfo is None:
            problems.append(Problem("occurred_at", "must name its time zone"))
        elif report.occurred_at > datetime.now(UTC) + AHEAD:
            problems.append(Problem("occurred_at", "must not lie in the future"))
    if problems:
        raise Invalid("the outcome cannot be stored", details=tuple(problems))
    return {
        "destination_id": report.destination_id,
        "deal": report.deal,
        "outcome": report.outcome,
        "value": value,
        "currency": given or (currency if value is not None else None),
        **texts,
    }


def storable(report: Report, currency: str) -> bool:
    """Whether :func:`record` would take it. ``currency``: the workspace's."""
    try:
        _checked(report, currency)
    except Invalid:
        return False
    return True


def _text(value: str | None, name: str, problems: list[Problem]) -> str | None:
    text = " ".join((value or "").split())
    if len(text) > MAX_TEXT or not text.isprintable():
        problems.append(Problem(name, f"must be at most {MAX_TEXT} printable characters"))
    return text or None


def _money(value: Decimal | float | None, problems: list[Problem]) -> Decimal | None:
    if value is None:
        return None
    try:
        amount = Decimal(str(value))
        if not 0 <= amount < MAX_VALUE:
            raise InvalidOperation
        return amount.quantize(Decimal("0.01"))
    except InvalidOperation:
        problems.append(Problem("value", f"must be a number from 0 to less than {MAX_VALUE:,.0f}"))
        return None


def history(session: Session, workspace_id: uuid.UUID, lead_id: uuid.UUID) -> list[LeadOutcome]:
    """The lead's reports, the one that stands first."""
    query = (
        scoped(LeadOutcome, workspace_id)
        .where(LeadOutcome.lead_id == lead_id)
        .order_by(LeadOutcome.occurred_at.desc(), LeadOutcome.id.desc())
        .limit(MAX_HISTORY)
        .options(joinedload(LeadOutcome.destination).load_only(Destination.name))
    )
    return list(session.scalars(query))


# What sources are worth


@dataclass(frozen=True, slots=True)
class Records:
    """A workspace's closed leads by source, and all together."""

    sources: dict[str, SourceRecord] = field(default_factory=dict)
    won: int = 0
    closed: int = 0

    def of(self, source: str) -> SourceRecord:
        """What is known of one source, beside all."""
        own = self.sources.get(source, SourceRecord())
        return SourceRecord(own.won, own.closed, self.won, self.closed)


def source_records(session: Session, workspace_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Records]:
    """Of each workspace: leads that are won or lost by the reports that stand, as far as they are from the last
    :data:`LEARN_DAYS` days. A lead counts once, however often it was reported: as won with one deal made, whatever became
    of others; as lost when all its deals are that somebody has not deleted."""
    wanted = list(workspace_ids)
    deal = (LeadOutcome.lead_id, LeadOutcome.destination_id, LeadOutcome.deal)
    standing = (
        sa.select(
            LeadOutcome.workspace_id,
            LeadOutcome.lead_id,
            LeadOutcome.outcome,
            sa.and_(LeadOutcome.deal.is_not(None), LeadOutcome.stage == DELETED).label("deleted"),
        )
        .ext(distinct_on(*deal))
        .where(
            LeadOutcome.workspace_id.in_(wanted),
            LeadOutcome.occurred_at > sa.func.now() - sa.func.make_interval(0, 0, 0, LEARN_DAYS),
        )
        .order_by(*deal, LeadOutcome.occurred_at.desc(), LeadOutcome.id.desc())
        .subquery()
    )
    is_won = sa.func.bool_or(standing.c.outcome == DealState.WON)
    closed_leads = (
        sa.select(standing.c.workspace_id, standing.c.lead_id, is_won.label("won"))
        .where(standing.c.deleted.is_not(sa.true()))
        .group_by(standing.c.workspace_id, standing.c.lead_id)
        .having(sa.or_(is_won, ~sa.func.bool_or(standing.c.outcome == DealState.OPEN)))
        .subquery()
    )
    rows = session.execute(
        sa.select(closed_leads.c.workspace_id, Lead.source, sa.func.count().filter(closed_leads.c.won), sa.func.count())
        .join(Lead, Lead.id == closed_leads.c.lead_id)
        .group_by(closed_leads.c.workspace_id, Lead.source)
    ).all()
    found: dict[uuid.UUID, dict[str, SourceRecord]] = {workspace_id: {} for workspace_id in wanted}
    for workspace_id, source, won_here, closed in rows:
        found[workspace_id][source] = SourceRecord(won_here, closed)
    return {
        workspace_id: Records(
            sources, sum(one.won for one in sources.values()), sum(one.closed for one in sources.values())
        )
        for workspace_id, sources in found.items()
    }


class RecordCache:
    """:func:`source_records`, read again only after :data:`CACHE_SECONDS`: they move slowly, and runs ask all the time."""

    def __init__(self) -> None:
        self._known: dict[uuid.UUID, tuple[float, Records]] = {}

    def refresh(self, session: Session, workspace_ids: Iterable[uuid.UUID]) -> None:
        now = time.monotonic()
        stale = {key for key in workspace_ids if key not in self._known or now - self._known[key][0] > CACHE_SECONDS}
        if stale:
            self._known |= {key: (now, records) for key, records in source_records(session, stale).items()}

    def of(self, workspace_id: uuid.UUID, source: str) -> SourceRecord:
        """As last refreshed."""
        known = self._known.get(workspace_id)
        return known[1].of(source) if known else SourceRecord()

    def clear(self) -> None:
        self._known.clear()

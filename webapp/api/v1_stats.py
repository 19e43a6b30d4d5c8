"""``GET /api/v1/stats``: how many of what, over a period (docs/api.md)."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from flask import Blueprint, Response, jsonify
from pydantic import AwareDatetime, BaseModel, Field

from webapp.api import auth, problems
from webapp.api.openapi import documented
from webapp.api.schemas import Count, Out
from webapp.api.triage import iso
from webapp.extensions import db
from webapp.leads.errors import Invalid, Problem
from webapp.leads.figures import SOURCES, figures
from webapp.leads.states import DeliveryState, Intent, LeadStatus, Priority, Scope
from webapp.security.keys import Principal

blueprint = Blueprint("v1_stats", __name__, url_prefix="/api/v1")

DEFAULT_DAYS, MOST_DAYS = 30, 3_660

_YEARS = {"ge": date(2000, 1, 1), "le": date(2199, 12, 31)}


class StatsQuery(BaseModel):
    """Days in UTC, both inclusive."""

    from_: Annotated[
        date | None, Field(alias="from", description="First day; 30 days up to `to` if left out.", **_YEARS)
    ] = None
    to: Annotated[date | None, Field(description="Last day; today if left out.", **_YEARS)] = None


class SourceCount(Out):
    source: str
    count: Count


class DayCount(Out):
    day: date
    count: Count


class StatsOut(Out):
    """Leads that came from ``from`` on and before ``to``. ``by_source``: the 50 most frequent, ``other_sources`` the
    leads of the rest. ``by_day``: in UTC, each day of the period. ``waiting`` and ``deliveries`` are of now."""

    from_: Annotated[AwareDatetime, Field(serialization_alias="from", validation_alias="from")]
    to: AwareDatetime
    total: Count
    by_status: dict[LeadStatus, Count]
    by_intent: dict[Intent, Count]
    by_priority: dict[Priority, Count]
    by_source: Annotated[list[SourceCount], Field(max_length=SOURCES)]
    other_sources: Count
    by_day: list[DayCount]
    waiting: Count
    deliveries: dict[DeliveryState, Count]


@blueprint.get("/stats")
@documented("Figures over a period", tag="Stats", query=StatsQuery, answers={200: StatsOut})
@auth.needs(Scope.READ)
def stats(principal: Principal) -> Response:
    first, last = _period(problems.query(StatsQuery))
    start, end = _midnight(first), _midnight(last + timedelta(days=1))
    found = figures(db.session(), principal.workspace_id, start=start, end=end)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return jsonify(
        {
            "from": iso(start),
            "to": iso(end),
            "total": found.total,
            "by_status": found.statuses,
            "by_intent": found.intents,
            "by_priority": found.priorities,
            "by_source": [{"source": source, "count": count} for source, count in found.sources.items()],
            "other_sources": found.other_sources,
            "by_day": [{"day": day.isoformat(), "count": found.days.get(day, 0)} for day in days],
            "waiting": found.waiting,
            "deliveries": found.deliveries,
        }
    )


def _period(asked: StatsQuery) -> tuple[date, date]:
    last = asked.to or datetime.now(UTC).date()
    first = asked.from_ or last - timedelta(days=DEFAULT_DAYS - 1)
    if first > last:
        raise Invalid("from must not be after to", details=(Problem("from", "must not be after to"),))
    if (last - first).days >= MOST_DAYS:
        raise Invalid(
            f"a period has at most {MOST_DAYS:,} days",
            details=(Problem("from", f"at most {MOST_DAYS:,} days before to"),),
        )
    return first, last


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)

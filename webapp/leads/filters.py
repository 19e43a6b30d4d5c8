"""Which leads: the filter of every list, how it is read from query parameters, and what it means in SQL."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from webapp.leads.errors import Invalid, Problem
from webapp.leads.search import tsquery
from webapp.leads.states import DECIDED_STATUSES, OPEN_STATUSES, WAITING_STATUSES, Intent, LeadStatus, Priority
from webapp.models.lead import Lead

MAX_TEXT = 200
#: A workspace, or the parameter of a statement that is kept for all of them.
Here = uuid.UUID | sa.BindParameter[uuid.UUID]
HERE: sa.BindParameter[uuid.UUID] = sa.bindparam("here", type_=sa.Uuid)

#: A view is a named set of statuses; ``mine`` is also narrowed to whoever asks.
VIEWS: dict[str, frozenset[LeadStatus]] = {
    "waiting": WAITING_STATUSES,
    "escalate": frozenset({LeadStatus.NEW_ESCALATE}),
    "draft": frozenset({LeadStatus.NEW_DRAFT}),
    "auto": frozenset({LeadStatus.NEW_AUTO}),
    "mine": WAITING_STATUSES,
    "overdue": WAITING_STATUSES,
    "manual": OPEN_STATUSES,
    "backlog": OPEN_STATUSES,
    "decided": DECIDED_STATUSES,
    "approved": frozenset({LeadStatus.APPROVED}),
    "overridden": frozenset({LeadStatus.OVERRIDDEN}),
    "rejected": frozenset({LeadStatus.REJECTED}),
    "suppressed": WAITING_STATUSES,
    "all": frozenset(),
}
#: What waits for a person leaves out what the suppression list holds back, which has a view of its own.
UNSUPPRESSED_VIEWS = frozenset({"waiting", "escalate", "draft", "mine", "overdue", "manual", "backlog"})
#: What a view asks for besides its statuses, spelt as the partial indexes spell it.
_OPEN = f"leads.status IN ({', '.join(repr(status.value) for status in sorted(OPEN_STATUSES))})"
VIEW_CONDITIONS: dict[str, Any] = {
    "overdue": Lead.due_key < sa.func.now(),
    "manual": sa.text(f"leads.route_state = 'manual' AND {_OPEN}"),
    "backlog": sa.text(f"leads.route_state = 'backlog' AND {_OPEN}"),
}
#: How a list may be sorted: by priority, then longest waiting; by when a decision is due; by the time of arrival.
SORTS = ("urgent", "due", "newest", "oldest")
UNASSIGNED = "none"
#: What of the attribution can be asked for: by value; and by whether it is there, or by value.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "landing_page", "referrer")
CLICK_IDS = ("gclid", "fbclid")
NO_CONSENT = "none"


@dataclass(frozen=True, slots=True)
class LeadFilter:
    """Which leads. An empty set or None narrows nothing. ``assignee``: a user, or ``"none"`` for nobody's. ``gclid``,
    ``fbclid``: ``"yes"`` came with one, ``"no"`` without, else the very one. ``consent``: ``"yes"``, ``"no"``, the words
    that were given, or ``"none"`` when nothing was said; ``consent_from`` (at or after) and ``consent_to`` (before) bound
    when. ``suppressed``: only what the suppression list holds back, or only what it does not; None leaves it to the
    view."""

    view: str = "all"
    statuses: frozenset[LeadStatus] = frozenset()
    intents: frozenset[Intent] = frozenset()
    priorities: frozenset[Priority] = frozenset()
    source: str | None = None
    assignee: uuid.UUID | str | None = None
    text: str = ""
    person_id: uuid.UUID | None = None
    import_id: uuid.UUID | None = None
    utm_source: str | None = None
    utm_medium: str | None = None
    utm_campaign: str | None = None
    utm_term: str | None = None
    utm_content: str | None = None
    landing_page: str | None = None
    referrer: str | None = None
    gclid: str | None = None
    fbclid: str | None = None
    consent: str | None = None
    consent_from: datetime | None = None
    consent_to: datetime | None = None
    suppressed: bool | None = None
    mine: uuid.UUID | None = None
    sort: str = ""

    @classmethod
    def parse(cls, given: Mapping[str, Any], *, me: uuid.UUID | None = None, view: str = "all") -> "LeadFilter":
        """From query parameters (``view, status, intent, priority, source, assignee, q, person_id, import_id,
        the fields of attribution and consent``; of the first ones several values by repeating or by commas). ``me`` is who ``mine`` and ``assignee=me`` mean, ``view`` the default view. Invalid names every
        parameter that is not understood."""
        problems: list[Problem] = []
        view = (_one(given, "view") or view).lower()
        if view not in VIEWS or (view == "mine" and me is None):
            problems.append(Problem("view", f"must be one of {', '.join(VIEWS)}"))
            view = "all"
        statuses = _members(given, "status", LeadStatus, problems)
        sort = _one(given, "sort").lower()
        if sort and sort not in SORTS:
            problems.append(Problem("sort", f"must be one of {', '.join(SORTS)}"))
        return _checked(
            problems,
            view=view,
            statuses=statuses or VIEWS[view],
            intents=_members(given, "intent", Intent, problems),
            priorities=_members(given, "priority", Priority, problems),
            source=_one(given, "source") or None,
            assignee=_assignee(_one(given, "assignee"), me, problems),
            text=" ".join((_one(given, "q") or _one(given, "text")).replace("\x00", " ").split())[:MAX_TEXT],
            person_id=_uuid(_one(given, "person_id"), "person_id", problems),
            import_id=_uuid(_one(given, "import_id"), "import_id", problems),
            **{name: _one(given, name) or None for name in (*CAMPAIGN, *CLICK_IDS, "consent")},
            consent_from=_moment(given, "consent_from", problems),
            consent_to=_moment(given, "consent_to", problems),
            suppressed=_yes_or_no(given, "suppressed", problems),
            mine=me if view == "mine" else None,
            sort=sort,
        )

    @property
    def narrowed(self) -> bool:
        """Something other than the view narrows the list."""
        of_view = ("view", "statuses", "mine", "sort")
        return any(getattr(self, f.name) not in (None, "", frozenset()) for f in fields(self) if f.name not in of_view)

    @property
    def held_back(self) -> bool | None:
        """What is asked for of the suppression list, by name or by the view; None: no matter."""
        if self.suppressed is not None:
            return self.suppressed
        if self.view == "suppressed":
            return True
        return False if self.view in UNSUPPRESSED_VIEWS and self.statuses == VIEWS[self.view] else None

    @property
    def attributed(self) -> bool:
        """Narrowed by where leads came from, or by consent."""
        return any(getattr(self, name) for name in (*CAMPAIGN, *CLICK_IDS, "consent", "consent_from", "consent_to"))

    @property
    def order(self) -> str:
        """As asked for; else the order that suits the view: what is late goes by when it was due, what waits by urgency,
        the rest by time."""
        if self.sort or self.view == "overdue":
            return self.sort or "due"
        if self.view in VIEW_CONDITIONS:
            return "urgent"
        waits = self.statuses and self.statuses <= WAITING_STATUSES
        return "urgent" if waits and not self.held_back else "newest"


def _checked(problems: list[Problem], **values: Any) -> LeadFilter:
    if problems:
        raise Invalid("some filters are not understood", details=tuple(problems))
    return LeadFilter(**values)


def _many(given: Mapping[str, Any], name: str) -> list[str]:
    values = given.getlist(name) if hasattr(given, "getlist") else given.get(name, ())
    values = [values] if isinstance(values, str) else values
    return [part.strip() for value in values for part in str(value).split(",") if part.strip()]


def _one(given: Mapping[str, Any], name: str) -> str:
    return str(given.get(name) or "").strip()


def _members(given: Mapping[str, Any], name: str, kind: Any, problems: list[Problem]) -> frozenset[Any]:
    try:
        return frozenset(kind(value) for value in _many(given, name))
    except ValueError:
        problems.append(Problem(name, f"must be one of {', '.join(member.value for member in kind)}"))
        return frozenset()


def _uuid(value: str, name: str, problems: list[Problem]) -> uuid.UUID | None:
    try:
        return uuid.UUID(value) if value else None
    except ValueError:
        problems.append(Problem(name, "must be an id"))
        return None


def _moment(given: Mapping[str, Any], name: str, problems: list[Problem]) -> datetime | None:
    """A day (its beginning in UTC) or a moment, ISO 8601."""
    value = _one(given, name)
    try:
        # A plus sign in a query means a space.
        found = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value) if value else None
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC) if found else None
    except (ValueError, OverflowError):
        problems.append(Problem(name, "must be a date such as 2026-11-20, or a moment"))
        return None


def _yes_or_no(given: Mapping[str, Any], name: str, problems: list[Problem]) -> bool | None:
    value = _one(given, name)
    if value not in ("", "yes", "no"):
        problems.append(Problem(name, "must be yes or no"))
    return {"yes": True, "no": False}.get(value)


def _assignee(value: str, me: uuid.UUID | None, problems: list[Problem]) -> uuid.UUID | str | None:
    if value == UNASSIGNED:
        return UNASSIGNED
    return me if value == "me" and me else _uuid(value, "assignee", problems)


def inline(column: Any, values: frozenset[Any]) -> Any:
    """``column IN (…)`` with the values in the statement's text: a partial index is used only when the planner can
    prove its predicate, which it cannot from parameters. The values are members of closed vocabularies."""
    literals = [sa.literal(value, column.type, literal_execute=True) for value in sorted(values)]
    return column == literals[0] if len(literals) == 1 else sa.or_(*(column == one for one in literals))


def conditions(workspace_id: Here, wanted: LeadFilter) -> list[Any]:
    """What ``wanted`` asks for besides what its view says: statuses, ``mine``, whether the suppression list holds it."""
    found: list[Any] = [Lead.workspace_id == workspace_id]
    if wanted.intents:
        found.append(inline(Lead.intent, wanted.intents))
    if wanted.priorities:
        found.append(inline(Lead.priority, wanted.priorities))
    if wanted.source:
        found.append(Lead.source == wanted.source)
    if wanted.assignee == UNASSIGNED:
        found.append(Lead.assignee_id.is_(None))
    elif wanted.assignee:
        found.append(Lead.assignee_id == wanted.assignee)
    if wanted.person_id:
        found.append(Lead.person_id == wanted.person_id)
    if wanted.import_id:
        found.append(Lead.import_id == wanted.import_id)
    found += _attribution(wanted)
    if wanted.text:
        query = tsquery(wanted.text)
        # Words that hold no letter or digit find nothing, rather than everything.
        found.append(Lead.search.op("@@")(sa.func.to_tsquery("simple", query)) if query else sa.false())
    return found


def _attribution(wanted: LeadFilter) -> list[Any]:
    found: list[Any] = []
    named = {name: value for name in CAMPAIGN if (value := getattr(wanted, name))}
    clicks = {name: value for name in CLICK_IDS if (value := getattr(wanted, name))}
    named |= {name: value for name, value in clicks.items() if value not in ("yes", "no")}
    if named:
        found.append(Lead.attribution.contains(named))
    for name, asked in clicks.items():
        if asked in ("yes", "no"):
            there = Lead.attribution.has_key(name)
            found.append(there if asked == "yes" else sa.not_(there))
    if named or "yes" in clicks.values():
        # Spelt as the index ix_leads_attribution spells it, which leads without attribution are not in.
        found.append(sa.text("leads.attribution <> '{}'::jsonb"))
    if wanted.consent == NO_CONSENT:
        found.append(Lead.consent.is_(None))
    elif wanted.consent:
        found.append(Lead.consent == wanted.consent)
    if wanted.consent_from:
        found.append(Lead.consent_at >= wanted.consent_from)
    if wanted.consent_to:
        found.append(Lead.consent_at < wanted.consent_to)
    return found


def of_statuses(statuses: frozenset[LeadStatus]) -> list[Any]:
    if not statuses:
        return []
    if statuses == WAITING_STATUSES:
        # Spelt as the indexes of what waits spell it.
        listed = ", ".join(f"'{status.value}'" for status in sorted(statuses))
        return [sa.text(f"leads.status IN ({listed})")]
    return [inline(Lead.status, statuses)]


def is_suppressed(held_back: bool | None) -> list[Any]:
    """Held back by the suppression list, or not; no matter. Spelt as the indexes spell it."""
    if held_back is None:
        return []
    return [sa.text(f"leads.suppression_id IS {'NOT ' if held_back else ''}NULL")]


def waiting() -> list[Any]:
    """What waits for a person, spelt as the index ix_leads_waiting spells it."""
    return [*of_statuses(WAITING_STATUSES), *is_suppressed(False)]


def all_conditions(workspace_id: Here, wanted: LeadFilter) -> list[Any]:
    found = conditions(workspace_id, wanted) + of_statuses(wanted.statuses) + is_suppressed(wanted.held_back)
    if wanted.mine:
        found.append(Lead.assignee_id == wanted.mine)
    if wanted.view in VIEW_CONDITIONS:
        found.append(VIEW_CONDITIONS[wanted.view])
    return found

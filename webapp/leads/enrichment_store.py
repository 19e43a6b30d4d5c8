"""Enrichment's rows: which sources a workspace has, what they have answered before, how they are doing.

Nothing here commits. Answers about public things (a domain's mail server, its home page) serve every workspace; what a
workspace's own services said stays its own.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads import enrichment as e
from webapp.leads import flags, knowledge
from webapp.leads.enrichment import Answer, Source
from webapp.leads.flags import Flag
from webapp.leads.ports import Service
from webapp.leads.sending import target_of
from webapp.leads.stages.enrich import FREE_MAIL
from webapp.leads.states import AnswerState, DestinationKind, DestinationMode, LookupSubject
from webapp.models.account import Workspace
from webapp.models.base import new_id
from webapp.models.enrichment import EnrichmentAnswer, EnrichmentHealth, EnrichmentProvider
from webapp.models.lead import Lead
from webapp.models.work import Destination, Run

Place = tuple[uuid.UUID | None, str]
Key = tuple[uuid.UUID | None, str, str]

#: ``Workspace.settings["enrich"]``: which of the built-in sources are asked (all, unless switched off), and for how many
#: days an answer serves.
SETTINGS = "enrich"
BUILT_IN = {e.DNS: "mail server", e.HOME: "home page", e.CRM: "CRM"}
MAX_AGE_DAYS = 365
#: Sites differ, so it takes more of them to blame our own connection.
_BREAKER = {e.HOME: 15, e.DNS: 5}
#: Good news is written this often at most.
_OK_SECONDS = 60.0


def settings_of(stored: Mapping[str, Any] | None) -> tuple[frozenset[str], float]:
    """(the built-in sources that are off, seconds for which an answer serves)."""
    chosen = stored or {}
    off = frozenset(name for name in BUILT_IN if chosen.get(name) is False)
    days = chosen.get("max_age_days")
    return off, (days if isinstance(days, int) and 1 <= days <= MAX_AGE_DAYS else e.MAX_AGE / e.DAY) * e.DAY


def sources(session: Session, workspace_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, tuple[Source, ...]]:
    """Each workspace's sources, with the state of their breakers; none where enrichment is off."""
    ids = list(workspace_ids)
    found: dict[uuid.UUID, list[Source]] = {workspace_id: [] for workspace_id in ids}
    rows = session.execute(
        sa.select(Workspace.id, Workspace.settings[SETTINGS].label("chosen")).where(
            Workspace.id.in_(ids), flags.is_on(Flag.ENRICHMENT)
        )
    ).all()
    ages, crm_on = dict[uuid.UUID, float](), set[uuid.UUID]()
    for row in rows:
        off, age = settings_of(row.chosen)
        ages[row.id] = age
        if e.CRM not in off:
            crm_on.add(row.id)
        if e.DNS not in off:
            found[row.id].append(_built_in(e.DNS, "DNS", min(age, e.DNS_AGE)))
        if e.HOME not in off:
            found[row.id].append(_built_in(e.HOME, "home page", age))
    for provider in session.scalars(
        sa.select(EnrichmentProvider)
        .where(EnrichmentProvider.workspace_id.in_(list(ages)), EnrichmentProvider.enabled)
        .order_by(EnrichmentProvider.created_at)
    ):
        found[provider.workspace_id].append(own(provider, ages[provider.workspace_id]))
    for destination in session.scalars(
        sa.select(Destination)
        .where(
            Destination.workspace_id.in_(list(crm_on)),
            Destination.kind == DestinationKind.TWENTY,
            Destination.mode != DestinationMode.OFF,
        )
        .order_by(Destination.created_at)
    ):
        found[destination.workspace_id].append(
            Source(
                f"{e.CRM}:{destination.id}", destination.name, LookupSubject.EMAIL, destination.workspace_id,
                max_age=e.CRM_AGE, target=target_of(destination), trust=0.95,
            )
        )  # fmt: skip
    health = _health(session, {source.place for listed in found.values() for source in listed})
    return {key: tuple(_with_health(source, health) for source in listed) for key, listed in found.items()}


def _built_in(key: str, name: str, age: float) -> Source:
    return Source(key, name, LookupSubject.DOMAIN, None, max_age=age, breaker_failures=_BREAKER[key])


def own(provider: EnrichmentProvider, age: float = e.MAX_AGE) -> Source:
    """A service that an admin described. Its version is part of its key, so that answers of before a change are not
    used any more."""
    service = Service(provider.url, provider.auth, provider.auth_name, provider.auth_prefix, provider.secret)
    return Source(
        f"{e.OWN}:{provider.id}:{provider.version}", provider.name, provider.subject, provider.workspace_id,
        max_age=age, trust=provider.trust, service=service, mapping=provider.mapping,
    )  # fmt: skip


def _with_health(source: Source, health: Mapping[Place, tuple[int, float]]) -> Source:
    known = health.get(source.place)
    return replace(source, failures=known[0], open_for=known[1]) if known else source


def _health(session: Session, places: set[Place]) -> dict[Place, tuple[int, float]]:
    if not places:
        return {}
    left = sa.func.extract("epoch", EnrichmentHealth.open_until - sa.func.now())
    rows = session.execute(
        sa.select(EnrichmentHealth.workspace_id, EnrichmentHealth.provider, EnrichmentHealth.failures, left).where(
            EnrichmentHealth.provider.in_({provider for _, provider in places}),
            sa.or_(EnrichmentHealth.failures > 0, EnrichmentHealth.open_until.is_not(None)),
        )
    )
    return {(row[0], row[1]): (row[2], max(0.0, float(row[3] or 0))) for row in rows}


def cached(session: Session, keys: Iterable[Key]) -> dict[Key, Answer]:
    """Answers that still serve."""
    wanted = set(keys)
    if not wanted:
        return {}
    rows = session.execute(
        sa.select(
            EnrichmentAnswer.workspace_id, EnrichmentAnswer.provider, EnrichmentAnswer.subject, EnrichmentAnswer.state,
            EnrichmentAnswer.facts, EnrichmentAnswer.note,
        ).where(
            sa.tuple_(EnrichmentAnswer.provider, EnrichmentAnswer.subject).in_({(key[1], key[2]) for key in wanted}),
            EnrichmentAnswer.expires_at > sa.func.now(),
        )
    )  # fmt: skip
    found = {}
    for workspace_id, provider, subject, state, facts, note in rows:
        key = (workspace_id, provider, subject)
        if key in wanted:
            found[key] = Answer(AnswerState(state), knowledge.read(facts), note, cached=True)
    return found


def keep(session: Session, answers: Sequence[tuple[Source, str, Answer]]) -> None:
    """Remember what was answered, and what it says of each source's health."""
    if not answers:
        return
    now = session.scalar(sa.select(sa.func.now()))
    assert now is not None
    rows = {}
    for source, subject, answer in answers:
        key = (source.workspace_id, source.key, subject)
        rows[key] = {
            "id": new_id(),
            "workspace_id": source.workspace_id,
            "provider": source.key,
            "subject": subject,
            "state": answer.state,
            "facts": knowledge.stored(answer.facts, now=now) or [],
            "note": answer.note,
            "fetched_at": now,
            "expires_at": now + timedelta(seconds=_serves(source, answer)),
        }
    # In one order, so that two workers who keep the same answers do not wait for each other.
    statement = insert(EnrichmentAnswer).values([rows[key] for key in sorted(rows, key=str)])
    new = statement.excluded
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["workspace_id", "provider", "subject"],
            set_={
                "state": new.state, "facts": new.facts, "note": new.note, "fetched_at": new.fetched_at,
                "expires_at": new.expires_at,
            },
        )
    )  # fmt: skip
    by_place: dict[Place, list[tuple[Source, Answer]]] = {}
    for source, _, answer in answers:
        by_place.setdefault(source.place, []).append((source, answer))
    for place in sorted(by_place, key=str):
        _keep_health(session, by_place[place], now)


def _serves(source: Source, answer: Answer) -> float:
    if answer.state is AnswerState.FAILED:
        return max(e.FAILED_AGE, answer.pause)
    return source.max_age if answer.state is AnswerState.FOUND else min(source.max_age, e.NOTHING_AGE)


def _keep_health(session: Session, told: Sequence[tuple[Source, Answer]], now: datetime) -> None:
    """In the order of the answers: a success ends a row of failures."""
    source = told[0][0]
    failures, said_well, error, pause = 0, False, "", 0.0
    for _, answer in told:
        pause = max(pause, answer.pause)
        if answer.healthy:
            failures, said_well = 0, True
        elif answer.healthy is False:
            failures, error = failures + 1, answer.note
    here = (
        EnrichmentHealth.workspace_id.is_not_distinct_from(source.workspace_id),
        EnrichmentHealth.provider == source.key,
    )
    if said_well and not failures and not pause:
        fresh = EnrichmentHealth.last_ok_at > now - timedelta(seconds=_OK_SECONDS)
        quiet = sa.select(EnrichmentHealth.id).where(
            *here, fresh, EnrichmentHealth.failures == 0, EnrichmentHealth.open_until.is_(None)
        )
        if session.scalar(quiet) is not None:
            return
    row = {"id": new_id(), "workspace_id": source.workspace_id, "provider": source.key, "failures": failures}
    before = sa.literal(0) if said_well else EnrichmentHealth.failures
    total = before + failures
    opens = max(pause, e.BREAKER_SECONDS if failures >= source.breaker_failures else 0.0)
    first = (
        row
        | ({"last_ok_at": now} if said_well else {})
        | ({"last_error": error, "last_error_at": now} if error else {})
    )
    first |= {"open_until": now + timedelta(seconds=opens)} if opens else {}
    still = sa.null() if said_well else EnrichmentHealth.open_until
    until = sa.case((total >= source.breaker_failures, now + timedelta(seconds=e.BREAKER_SECONDS)), else_=still)
    update: dict[str, Any] = {
        "failures": total,
        "open_until": now + timedelta(seconds=pause) if pause else (until if failures else still),
    }
    update |= {"last_ok_at": now} if said_well else {}
    update |= {"last_error": error, "last_error_at": now} if error else {}
    statement = insert(EnrichmentHealth).values(first)
    session.execute(statement.on_conflict_do_update(index_elements=["workspace_id", "provider"], set_=update))


def needs_nothing() -> sa.ColumnElement[bool]:
    """Runs for which nothing has to be asked, as far as SQL can tell: enrichment is off, or the lead has no address, one
    of a mail service, or one of a company whose home page has been read; and the workspace asks nobody about people."""
    domain = sa.func.split_part(Lead.email_normalized, "@", 2)
    known = sa.exists().where(
        EnrichmentAnswer.workspace_id.is_(None),
        EnrichmentAnswer.provider == e.HOME,
        EnrichmentAnswer.subject == domain,
        EnrichmentAnswer.expires_at > sa.func.now(),
    )
    private = sa.func.split_part(domain, ".", 1).in_(FREE_MAIL)
    asks = sa.exists().where(EnrichmentProvider.workspace_id == Lead.workspace_id, EnrichmentProvider.enabled)
    has_crm = sa.exists().where(
        Destination.workspace_id == Lead.workspace_id,
        Destination.kind == DestinationKind.TWENTY,
        Destination.mode != DestinationMode.OFF,
    )
    nothing_to_ask = sa.and_(~asks, ~has_crm, sa.or_(Lead.email_normalized.is_(None), private, known))
    return sa.exists().where(
        Lead.id == Run.lead_id,
        Workspace.id == Lead.workspace_id,
        sa.or_(~flags.is_on(Flag.ENRICHMENT), nothing_to_ask),
    )

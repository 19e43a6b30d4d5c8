"""Look-alikes among the people of a workspace: found in the background, suggested to reviewers, never merged here.

Who has not been compared yet (``looked_at IS NULL``) is taken in batches. A person's ``match_keys`` join a name with a
phone, a mailbox or a company; whoever shares one is compared in full. A key that too many people share (a switchboard,
a common name at a common provider) is passed over, so that the cost of one person does not grow with their number.

One batch at a time in the whole installation (a transaction-level advisory lock): of two people compared side by side,
neither would see the other.
"""

import base64
import hashlib
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from webapp.leads.lookalikes import records, weights
from webapp.leads.lookalikes.blocking import sound
from webapp.leads.lookalikes.reasons import in_words
from webapp.leads.lookalikes.records import Record
from webapp.leads.lookalikes.scoring import Comparison, Scorer
from webapp.leads.lookalikes.statistics import Statistics
from webapp.leads.lookalikes.weights import Level
from webapp.leads.ports import Drained
from webapp.leads.states import SuggestionState
from webapp.models.base import new_id
from webapp.models.lead import Person
from webapp.models.people import DuplicateSuggestion

BATCH = 100
#: More newcomers than this within so many seconds: intake has the machine to itself.
MANY_ARRIVALS, ARRIVAL_SECONDS = 100, 2.0
#: People with one key beyond which the key is passed over.
MAX_PER_KEY = 30
#: Rows of a common key that the index hands out before it stops (PostgreSQL's gin_fuzzy_search_limit, a soft limit).
FUZZY_LIMIT = 100
#: Suggestions kept for one person: the likeliest.
MAX_SUGGESTIONS = 10
#: People whose names and companies tell how common each is, taken from all over the workspace, and for how long that
#: is good enough.
SAMPLE_SLICES = ("", "+", "1", "a", "c", "e", "h", "j", "l", "m", "n", "p", "s", "t", "v")
SAMPLE_OF_SLICE = 150
SAMPLE_SECONDS = 600.0
COUNTED = 50_000

_LOCK = 0x6C6F6F6B  # "look"
_COLUMNS = (Person.id, Person.workspace_id, Person.name, Person.email, Person.phone, Person.company)


class _Someone(NamedTuple):
    id: uuid.UUID
    workspace_id: uuid.UUID
    name: str | None
    email: str | None
    phone: str | None
    company: str | None

    @property
    def record(self) -> Record:
        return records.from_fields(
            {"name": self.name, "email": self.email, "phone": self.phone, "company": self.company}
        )


def process(
    session_factory: sessionmaker[Session],
    max_rows: int = 5_000,
    max_seconds: float = 5.0,
    stop: Callable[[], bool] = lambda: False,
) -> Drained:
    """Compare people who have not been compared, until none is left, a bound is reached or ``stop()`` says so.

    ``done``: how many. Done twice it changes nothing. Raises SQLAlchemy's errors when the database is away; the batch
    that was under way is then done again.
    """
    until = time.monotonic() + max_seconds
    done = 0
    while done < max_rows:
        size = min(BATCH, max_rows - done)
        with session_factory.begin() as session:
            compared = _batch(session, size)
        if compared is None:
            return Drained(done, False)  # another worker is at it
        done += compared
        if compared < size:
            return Drained(done, False)
        if time.monotonic() >= until or stop():
            break
    with session_factory() as session:
        return Drained(done, has_due(session))


def has_due(session: Session) -> bool:
    """Is anybody there who has not been compared?"""
    return bool(session.scalar(sa.select(sa.exists().where(_not_compared()))))


def is_quiet(session: Session) -> bool:
    """Are few newcomers arriving? Comparing one costs more than taking one in, so it waits while many come."""
    since = int((time.time() - ARRIVAL_SECONDS) * 1000) << 80  # ids are UUIDv7: milliseconds in front
    newcomers = (
        sa.select(Person.id)
        .where(_not_compared(), Person.id > uuid.UUID(int=since))
        .limit(MANY_ARRIVALS + 1)
        .subquery()
    )
    return (session.scalar(sa.select(sa.func.count()).select_from(newcomers)) or 0) <= MANY_ARRIVALS


def _not_compared() -> sa.ColumnElement[bool]:
    return Person.looked_at.is_(None)


def _batch(session: Session, size: int) -> int | None:
    """How many were compared; None when another worker does it now."""
    if not session.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK))):
        return None
    rows = session.execute(
        sa.select(*_COLUMNS, Person.merged_into, Person.updated_at)
        .where(_not_compared())
        .order_by(Person.id)
        .limit(size)
    ).all()
    by_workspace: dict[uuid.UUID, list[_Someone]] = defaultdict(list)
    keys: dict[uuid.UUID, list[str]] = {}
    for row in rows:
        person = _Someone(*row[:-2])
        if row.merged_into is None:
            keys[person.id] = match_keys(person.workspace_id, person.record)
            by_workspace[person.workspace_id].append(person)
        else:
            keys[person.id] = []
    for workspace_id, people in by_workspace.items():
        _suggest(session, workspace_id, people, keys)
    _save_keys(session, keys, {row.id: row.updated_at for row in rows})
    return len(rows)


def match_keys(workspace_id: uuid.UUID, record: Record) -> list[str]:
    """What look-alikes of this person are found by; eleven characters each, so that the index stays small. The
    workspace is part of each: no key reaches into another one."""
    return sorted({_key(workspace_id, plain) for plain in _plain_keys(record)})


def _key(workspace_id: uuid.UUID, plain: str) -> str:
    digest = hashlib.blake2b(plain.encode(), digest_size=8, key=workspace_id.bytes).digest()
    return base64.urlsafe_b64encode(digest).decode()[:11]


def _plain_keys(record: Record) -> Iterable[str]:
    sounds = sorted({sound(name) for name in (record.first, record.last) if name})
    phone = record.phone
    local, _, domain = record.email.partition("@")
    local = "".join(c for c in local if c.isalnum())
    if phone:
        yield f"p{phone}"
    if len(local) >= 5:
        yield f"l{local}"
    for mark in sounds:
        if phone:
            yield f"q{mark}|{phone[:5]}"
            yield f"r{mark}|{phone[-4:]}"
        if record.company:
            yield f"o{mark}|{record.company[:8]}"
    if sounds and domain:
        both = "|".join(sounds)
        yield f"i{both}|{local[:4]}"
        yield f"j{both}|{domain}"


def _suggest(
    session: Session, workspace_id: uuid.UUID, people: Sequence[_Someone], keys: dict[uuid.UUID, list[str]]
) -> None:
    scorer = _scorers.of(session, workspace_id)
    others, crowded = _candidates(session, workspace_id, people, keys)
    mine = {person.id for person in people}
    made: dict[tuple[uuid.UUID, uuid.UUID], _Suggestion] = {}
    for person in people:
        record = person.record
        own_phone = bool(record.phone) and _key(workspace_id, f"p{record.phone}") not in crowded
        alike = []
        for other in others[person.id]:
            pair = (min(person.id, other.id), max(person.id, other.id))
            if other.id in mine and pair in made:
                continue
            found = scorer.compare(record, other.record)
            if _worth_a_look(found, own_phone=own_phone):
                alike.append(_Suggestion(pair, found.probability, in_words(found, record, other.record)))
        alike.sort(key=lambda suggestion: -suggestion.score)
        made |= {suggestion.pair: suggestion for suggestion in alike[:MAX_SUGGESTIONS]}
    _save_suggestions(session, workspace_id, list(made.values()))


@dataclass(frozen=True, slots=True)
class _Suggestion:
    pair: tuple[uuid.UUID, uuid.UUID]
    score: float
    reasons: list[str]


def _worth_a_look(found: Comparison, *, own_phone: bool) -> bool:
    """Likely enough, or the same phone under another identity, which a person should always know of, unless it is a
    switchboard's."""
    phone = found.found.get("phone")
    same_phone = own_phone and phone is not None and phone[0] is Level.EXACT
    return same_phone or found.probability >= weights.SUGGEST_FROM


#: (key, id, …) of people with each key. No LIMIT, which would talk the planner into reading the table; what bounds it
#: is ``FUZZY_LIMIT``.
CANDIDATES = sa.text(
    """
    SELECT wanted.key, p.id, p.workspace_id, p.name, p.email, p.phone, p.company
    FROM unnest(CAST(:keys AS text[])) AS wanted (key)
    JOIN people p ON p.match_keys @> ARRAY[wanted.key] AND p.workspace_id = :workspace_id AND p.merged_into IS NULL
    """
)


def _candidates(
    session: Session, workspace_id: uuid.UUID, people: Sequence[_Someone], keys: dict[uuid.UUID, list[str]]
) -> tuple[dict[uuid.UUID, list[_Someone]], set[str]]:
    """Per person, whom to compare them with: people compared before, and those of this batch. And the keys that too
    many share."""
    sharing: dict[str, dict[uuid.UUID, _Someone]] = defaultdict(dict)
    for person in people:
        for key in keys[person.id]:
            sharing[key][person.id] = person
    session.execute(sa.text(f"SET LOCAL gin_fuzzy_search_limit = {FUZZY_LIMIT:d}"))
    for key, *values in session.execute(CANDIDATES, {"keys": list(sharing), "workspace_id": workspace_id}):
        other = _Someone(*values)
        if other.id not in keys:  # those of this batch are here as they are now, the index has them as they were
            sharing[key][other.id] = other
    crowded = {key for key, members in sharing.items() if len(members) > MAX_PER_KEY}
    found: dict[uuid.UUID, list[_Someone]] = {}
    for person in people:
        met: dict[uuid.UUID, _Someone] = {}
        for key in keys[person.id]:
            if key not in crowded:
                met |= sharing[key]
        met.pop(person.id, None)
        found[person.id] = list(met.values())
    return found, crowded


def _save_suggestions(session: Session, workspace_id: uuid.UUID, made: Sequence[_Suggestion]) -> None:
    """New pairs are added, waiting ones brought up to date; what a person decided stays as it is."""
    if not made:
        return
    rows = [
        {"id": new_id(), "workspace_id": workspace_id, "person_a_id": one.pair[0], "person_b_id": one.pair[1],
         "score": round(one.score, 4), "reasons": one.reasons}
        for one in sorted(made, key=lambda one: one.pair)
    ]  # fmt: skip
    statement = insert(DuplicateSuggestion)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["person_a_id", "person_b_id"],
            set_={"score": statement.excluded.score, "reasons": statement.excluded.reasons},
            where=DuplicateSuggestion.state == SuggestionState.SUGGESTED,
        ),
        rows,
    )


_SAVE_KEYS = sa.text(
    """
    UPDATE people SET match_keys = string_to_array(compared.keys, ' '), looked_at = now()
    FROM (
      SELECT id, keys
      FROM unnest(CAST(:ids AS uuid[]), CAST(:keys AS text[]), CAST(:times AS timestamptz[])) AS given (id, keys, as_of)
      JOIN people USING (id) WHERE people.updated_at = given.as_of
      FOR NO KEY UPDATE OF people SKIP LOCKED
    ) AS compared
    WHERE people.id = compared.id
    """
)


def _save_keys(session: Session, keys: dict[uuid.UUID, list[str]], as_of: dict[uuid.UUID, datetime]) -> None:
    """Note who was compared. Nobody is locked meanwhile, so that intake never waits for a comparison: who changed
    since, or is being changed now, is compared again."""
    if not keys:
        return
    session.execute(
        _SAVE_KEYS,
        {
            "ids": list(keys),
            "keys": [" ".join(found) for found in keys.values()],
            "times": [as_of[person_id] for person_id in keys],
        },
    )


class _Scorers:
    """A scorer for each workspace, made from a sample of its people and remembered for a while."""

    def __init__(self) -> None:
        self._made: dict[uuid.UUID, tuple[float, Scorer]] = {}

    def of(self, session: Session, workspace_id: uuid.UUID) -> Scorer:
        made = self._made.get(workspace_id)
        if made is None or time.monotonic() - made[0] > SAMPLE_SECONDS:
            if len(self._made) > 100:
                self._made.clear()
            made = self._made[workspace_id] = (time.monotonic(), Scorer(_statistics(session, workspace_id)))
        return made[1]


def _statistics(session: Session, workspace_id: uuid.UUID) -> Statistics:
    """How common names, companies and numbers are, from some people from all over the alphabet."""
    slices = [
        sa.select(*_COLUMNS)
        .where(Person.workspace_id == workspace_id, Person.identity_key >= start)
        .order_by(Person.identity_key)
        .limit(SAMPLE_OF_SLICE)
        .subquery()
        for start in SAMPLE_SLICES
    ]
    sample = session.execute(sa.union(*(sa.select(one) for one in slices))).all()
    counted = sa.select(sa.literal(1)).where(Person.workspace_id == workspace_id).limit(COUNTED).subquery()
    size = session.scalar(sa.select(sa.func.count()).select_from(counted)) or 0
    if size == COUNTED:  # more than it is worth counting: the table's own estimate
        estimate = session.scalar(sa.text("SELECT reltuples::bigint FROM pg_class WHERE oid = 'people'::regclass"))
        size = max(size, estimate or 0)
    return Statistics([_Someone(*row).record for row in sample], size=size)


_scorers = _Scorers()
